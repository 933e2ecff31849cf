//! HPACK (RFC 7541): a reader written apart from the gate's, and a writer of literals.

use std::collections::VecDeque;

use crate::huffman;

/// A field's name and value.
pub type Field = (Vec<u8>, Vec<u8>);

/// Appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The table's size that both sides begin with.
const DEFAULT_SIZE: u64 = 4096;

/// An integer of more octets, its prefix among them, is beyond what some readers take. The RFC leaves the limit to them, so
/// nobody can say whether it is right.
const OCTETS: usize = 5;

/// Two updates of the table's size tell of every change between two blocks (RFC 7541, section 4.2).
const UPDATES: usize = 2;

/// No reader goes on behind a block whose fields take more than this.
const SURELY_TOO_LARGE: usize = 1024 * 1024;

/// What a block holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub fields: Vec<Field>,
    /// What they take, counted as in a table.
    pub size: usize,
    /// It is right to the letter of the RFC. Where it is not, a reader may refuse it or not, and these are the fields for one
    /// that does not.
    pub sound: bool,
}

/// Reads header blocks, one after the other.
#[derive(Debug)]
pub struct Decoder {
    table: VecDeque<Field>,
    limit: u64,
    /// The largest limit that a block may ask for.
    most: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), limit: DEFAULT_SIZE, most: DEFAULT_SIZE }
    }
}

impl Decoder {
    /// From now on the peer may ask for a table of `most` bytes.
    pub fn allow(&mut self, most: u64) {
        self.most = self.most.max(most);
    }

    /// Reads a block; `None` when every reader refuses it, and with it everything behind it.
    pub fn decode(&mut self, block: &[u8]) -> Option<Block> {
        let mut fields = Vec::new();
        let mut rest = Octets { rest: block, sound: true };
        let mut updates = 0;
        let mut size = 0;
        while let Some(first) = rest.rest.first() {
            match first {
                0x80.. => {
                    let index = rest.integer(7)?;
                    fields.push(self.known(index)?);
                }
                0x20..0x40 => {
                    updates += 1;
                    // Only at the beginning; a reader that takes a block in pieces may see a beginning in each.
                    rest.sound &= fields.is_empty() && updates <= UPDATES;
                    self.limit = Some(rest.integer(5)?).filter(|limit| *limit <= self.most)?;
                    self.evict();
                }
                first => {
                    let indexed = *first >= 0x40;
                    let index = rest.integer(if indexed { 6 } else { 4 })?;
                    let name = if index == 0 { rest.string()? } else { self.known(index)?.0 };
                    let field = (name, rest.string()?);
                    if indexed {
                        self.table.push_front(field.clone());
                        self.evict();
                    }
                    fields.push(field);
                }
            }
            size += if (0x20..0x40).contains(first) { 0 } else { fields.last().map_or(0, size_in_a_table) };
            if size > SURELY_TOO_LARGE {
                return None;
            }
        }
        Some(Block { fields, size, sound: rest.sound })
    }

    fn known(&self, index: u64) -> Option<Field> {
        let index = usize::try_from(index).ok()?.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value)) => Some((name.as_bytes().to_vec(), value.as_bytes().to_vec())),
            None => self.table.get(index - STATIC.len()).cloned(),
        }
    }

    fn evict(&mut self) {
        let size = |field: &Field| size_in_a_table(field) as u64;
        let mut total: u64 = self.table.iter().map(size).sum();
        while total > self.limit {
            total -= self.table.pop_back().map_or(total, |field| size(&field));
        }
    }
}

/// The size of a field (RFC 7541, section 4.1).
fn size_in_a_table((name, value): &Field) -> usize {
    name.len() + value.len() + 32
}

/// What is left of a block.
struct Octets<'a> {
    rest: &'a [u8],
    sound: bool,
}

impl<'a> Octets<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, behind) = self.rest.split_at_checked(length)?;
        self.rest = behind;
        Some(taken)
    }

    fn octet(&mut self) -> Option<u8> {
        self.take(1).map(|octet| octet[0])
    }

    /// An integer behind a prefix of so many bits (section 5.1); `None` also where it is beyond 64 bits.
    fn integer(&mut self, prefix: u32) -> Option<u64> {
        let full = (1_u64 << prefix) - 1;
        let mut value = u64::from(self.octet()?) & full;
        if value < full {
            return Some(value);
        }
        for more in 1_usize.. {
            let octet = self.octet()?;
            let part = u64::from(octet & 0x7f);
            let shift = 7 * (more - 1);
            let shifted = if part == 0 { 0 } else { part.checked_shl(u32::try_from(shift).ok()?)? };
            if part != 0 && shifted >> shift != part {
                return None;
            }
            value = value.checked_add(shifted)?;
            self.sound &= more < OCTETS;
            if octet & 0x80 == 0 {
                break;
            }
        }
        Some(value)
    }

    /// A string (section 5.2).
    fn string(&mut self) -> Option<Vec<u8>> {
        let packed = self.rest.first()? & 0x80 != 0;
        let length = usize::try_from(self.integer(7)?).ok()?;
        let text = self.take(length)?;
        if packed { huffman::decode(text) } else { Some(text.to_vec()) }
    }
}

/// Writes a field as a literal with a literal name, to be kept in the table or not.
pub fn write_literal(block: &mut Vec<u8>, name: &[u8], value: &[u8], indexed: bool) {
    block.push(if indexed { 0x40 } else { 0 });
    for text in [name, value] {
        let mut length = text.len();
        if length < 0x7f {
            block.push(u8::try_from(length).expect("seven bits"));
        } else {
            block.push(0x7f);
            length -= 0x7f;
            while length >= 0x80 {
                block.push(0x80 | u8::try_from(length % 0x80).expect("seven bits"));
                length /= 0x80;
            }
            block.push(u8::try_from(length).expect("seven bits"));
        }
        block.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, value: &str) -> Field {
        (name.as_bytes().to_vec(), value.as_bytes().to_vec())
    }

    /// The fields of one block, and whether it is sound.
    fn read(block: &[u8]) -> Option<(Vec<Field>, bool)> {
        Decoder::default().decode(block).map(|block| (block.fields, block.sound))
    }

    fn is_sound(block: &[u8]) -> Option<bool> {
        Decoder::default().decode(block).map(|block| block.sound)
    }

    /// Bytes as the RFC prints them.
    fn bytes(hexadecimal: &str) -> Vec<u8> {
        let digits: Vec<u8> = hexadecimal.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    #[test]
    fn the_requests_of_appendix_c() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let packed = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        for blocks in [plain, packed] {
            let mut decoder = Decoder::default();
            let read = blocks.map(|block| decoder.decode(&bytes(block)).unwrap());
            assert!(read.iter().all(|block| block.sound));
            let first = [field(":method", "GET"), field(":scheme", "http"), field(":path", "/")];
            let authority = field(":authority", "www.example.com");
            assert_eq!(read[0].fields, [&first[..], std::slice::from_ref(&authority)].concat());
            assert_eq!(read[1].fields, [&first[..], &[authority.clone(), field("cache-control", "no-cache")]].concat());
            let last = [
                field(":method", "GET"),
                field(":scheme", "https"),
                field(":path", "/index.html"),
                authority,
                field("custom-key", "custom-value"),
            ];
            assert_eq!(read[2].fields, last);
        }
    }

    #[test]
    fn the_answers_of_appendix_c_evict() {
        let packed = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 \
             63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 \
             dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ];
        let mut decoder = Decoder { limit: 256, ..Decoder::default() };
        let read = packed.map(|block| decoder.decode(&bytes(block)).unwrap());
        assert_eq!(read[0].fields[0], field(":status", "302"));
        assert_eq!(read[1].fields[..2], [field(":status", "307"), field("cache-control", "private")]);
        assert_eq!(read[2].fields[2], field("date", "Mon, 21 Oct 2013 20:13:22 GMT"));
        assert_eq!(decoder.table.iter().map(size_in_a_table).sum::<usize>(), 215);
        assert_eq!(decoder.table.len(), 3);
    }

    #[test]
    fn a_size_update_is_valid_only_at_the_beginning() {
        for (block, sound) in [
            ("20 82", true),
            ("20 3fe11f 82", true),
            ("20", true),
            ("20 20 20 82", false),
            ("82 20", false),
            ("82 32 84 418cf1e3c2e5f23a6ba0ab90f4ff", false),
            ("20 82 20", false),
        ] {
            assert_eq!(is_sound(&bytes(block)), Some(sound), "{block}");
        }
        // What comes behind is as one that goes on reads it.
        assert_eq!(read(&bytes("82 32 84")), Some((vec![field(":method", "GET"), field(":path", "/")], false)));
    }

    #[test]
    fn a_size_update_keeps_to_the_limit() {
        assert_eq!(is_sound(&bytes("3fe11f")), Some(true), "4096");
        assert_eq!(is_sound(&bytes("3fe21f")), None, "4097");
        let mut decoder = Decoder::default();
        decoder.allow(5000);
        assert!(decoder.decode(&bytes("3fe21f")).is_some_and(|block| block.sound));
        // The table is emptied with it.
        let mut decoder = Decoder::default();
        assert!(decoder.decode(&bytes("4001 61 01 62 be")).is_some());
        assert!(decoder.decode(&bytes("20 be")).is_none());
    }

    #[test]
    fn an_index_is_of_the_table() {
        assert_eq!(read(&bytes("80")), None);
        assert_eq!(
            read(&bytes("bd")),
            Some((vec![field("www-authenticate", "")], true)),
            "the last of the static table"
        );
        assert_eq!(read(&bytes("be")), None);
        assert_eq!(read(&bytes("7f00 00")), None, "63, as a name");
        assert_eq!(read(&bytes("4001 61 01 62 be")), Some((vec![field("a", "b"), field("a", "b")], true)));
        assert_eq!(read(&bytes("4001 61 01 62 bf")), None);
        assert_eq!(read(&bytes("0001 61 01 62 be")), None, "it was not to be kept");
    }

    #[test]
    fn integers() {
        // 0x1f and 0x9a0a are 1337 behind a prefix of five bits (appendix C.1).
        let integer = |bytes: &[u8], prefix| {
            let mut octets = Octets { rest: bytes, sound: true };
            octets.integer(prefix).map(|value| (value, octets.sound))
        };
        assert_eq!(integer(&[0x0a], 5), Some((10, true)));
        assert_eq!(integer(&[0x1f, 0x9a, 0x0a], 5), Some((1337, true)));
        assert_eq!(integer(&[42], 8), Some((42, true)));
        assert_eq!(integer(&[0x1f, 0x80, 0x80, 0x80, 0x00], 5), Some((31, true)), "longer than it need be");
        assert_eq!(integer(&[0x1f, 0x80, 0x80, 0x80, 0x80, 0x00], 5), Some((31, false)), "of six octets");
        assert_eq!(integer(&[&[0x1f][..], &[0x80; 30], &[0]].concat(), 5), Some((31, false)), "of 32 octets");
        assert_eq!(integer(&[&[0x1f][..], &[0xff; 9], &[0]].concat(), 5), Some((i64::MAX as u64 + 31, false)));
        assert_eq!(integer(&[&[0x1f][..], &[0xff; 10], &[0]].concat(), 5), None, "beyond 64 bits");
        assert_eq!(integer(&[&[0x1f][..], &[0x80; 9], &[0x02]].concat(), 5), None, "beyond 64 bits");
        assert_eq!(integer(&[0x1f], 5), None, "cut");
        assert_eq!(integer(&[0x1f, 0x80], 5), None, "cut");
        assert_eq!(integer(&[], 5), None);
    }

    #[test]
    fn strings_are_whole() {
        assert_eq!(read(&bytes("0001 61 02 62")), None);
        assert_eq!(read(&bytes("0001 61")), None);
        assert_eq!(read(&bytes("00")), None);
        assert_eq!(read(&bytes("0001 61 00")), Some((vec![field("a", "")], true)));
    }

    #[test]
    fn the_size_of_a_decoded_block_is_counted_and_bounded() {
        let mut block = Vec::new();
        write_literal(&mut block, b"a", &[b'x'; 4000], true);
        let size =
            |times| Decoder::default().decode(&[&block[..], &vec![0xbe; times]].concat()).map(|block| block.size);
        assert_eq!(size(10), Some(11 * 4033));
        assert_eq!(size(1000), None);
        assert_eq!(Decoder::default().decode(&bytes("20 20")).map(|block| block.size), Some(0));
    }

    #[test]
    fn a_written_literal_is_read_back() {
        for length in [0, 1, 126, 127, 128, 254, 255, 256, 16_000] {
            for indexed in [false, true] {
                let (name, value) = (vec![b'a'; length.max(1)], vec![b'b'; length]);
                let mut block = Vec::new();
                write_literal(&mut block, &name, &value, indexed);
                assert_eq!(read(&block), Some((vec![(name, value)], true)), "{length}");
            }
        }
    }
}
