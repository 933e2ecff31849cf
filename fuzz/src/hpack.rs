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

    /// The fields of a block; `None` when it is none.
    pub fn decode(&mut self, block: &[u8]) -> Option<Vec<Field>> {
        let mut fields = Vec::new();
        let mut rest = block;
        while let Some(first) = rest.first() {
            match first {
                0x80.. => {
                    let index = integer(&mut rest, 7)?;
                    fields.push(self.known(index)?);
                }
                0x20..0x40 => {
                    self.limit = Some(integer(&mut rest, 5)?).filter(|limit| *limit <= self.most)?;
                    self.evict();
                }
                first => {
                    let indexed = *first >= 0x40;
                    let index = integer(&mut rest, if indexed { 6 } else { 4 })?;
                    let name = if index == 0 { string(&mut rest)? } else { self.known(index)?.0 };
                    let field = (name, string(&mut rest)?);
                    if indexed {
                        self.table.push_front(field.clone());
                        self.evict();
                    }
                    fields.push(field);
                }
            }
        }
        Some(fields)
    }

    fn known(&self, index: u64) -> Option<Field> {
        let index = usize::try_from(index).ok()?.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value)) => Some((name.as_bytes().to_vec(), value.as_bytes().to_vec())),
            None => self.table.get(index - STATIC.len()).cloned(),
        }
    }

    fn evict(&mut self) {
        let size = |(name, value): &Field| (name.len() + value.len() + 32) as u64;
        let mut total: u64 = self.table.iter().map(size).sum();
        while total > self.limit {
            total -= self.table.pop_back().map_or(total, |field| size(&field));
        }
    }
}

/// An integer behind a prefix of so many bits (section 5.1).
fn integer(rest: &mut &[u8], prefix: u8) -> Option<u64> {
    let full = (1_u64 << prefix) - 1;
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    let mut value = u64::from(*first) & full;
    let mut shift = 0;
    while value >= full {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value += u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
        if shift > 35 {
            return None;
        }
    }
    Some(value)
}

fn string(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let packed = rest.first()? & 0x80 != 0;
    let length = usize::try_from(integer(rest, 7)?).ok()?;
    let (text, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    if packed { huffman::decode(text) } else { Some(text.to_vec()) }
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
