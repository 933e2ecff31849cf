//! The Huffman code of HPACK (RFC 7541, appendix B). It is canonical: the symbols in the order of their lengths say all of it.

use std::sync::LazyLock;

/// Lengths in bits, and the symbols that have them, in order; 256 is the end, which stands nowhere.
const LENGTHS: [(u8, &str); 21] = [
    (5, "48-50 97 99 101 105 111 115-116"),
    (6, "32 37 45-47 51-57 61 65 95 98 100 102-104 108-110 112 114 117"),
    (7, "58 66-87 89 106-107 113 118-122"),
    (8, "38 42 44 59 88 90"),
    (10, "33-34 40-41 63"),
    (11, "39 43 124"),
    (12, "35 62"),
    (13, "0 36 64 91 93 126"),
    (14, "94 125"),
    (15, "60 96 123"),
    (19, "92 195 208"),
    (20, "128 130-131 162 184 194 224 226"),
    (21, "153 161 167 172 176-177 179 209 216-217 227 229-230"),
    (22, "129 132-134 136 146 154 156 160 163-164 169-170 173 178 181 185-187 189-190 196 198 228 232-233"),
    (23, "1 135 137-141 143 147 149-152 155 157-158 165-166 168 174-175 180 182-183 188 191 197 231 239"),
    (24, "9 142 144-145 148 159 171 206 215 225 236-237"),
    (25, "199 207 234-235"),
    (26, "192-193 200-202 205 210 213 218-219 238 240 242-243 255"),
    (27, "203-204 211-212 214 221-223 241 244-248 250-254"),
    (28, "2-8 11-12 14-21 23-31 127 220 249"),
    (30, "10 13 22 256"),
];

/// The codes of one length.
struct Codes {
    first: u32,
    symbols: Vec<u16>,
}

/// The codes of each length.
static CODES: LazyLock<Vec<Codes>> = LazyLock::new(|| {
    let number = |text: &str| text.parse::<u16>().expect("a number");
    let mut codes: Vec<Codes> = Vec::new();
    let mut next = 0;
    for length in 0..=30 {
        next <<= 1;
        let ranges = LENGTHS.iter().find(|(known, _)| *known == length).map_or("", |(_, ranges)| *ranges);
        let ranges = ranges.split_whitespace().map(|range| range.split_once('-').unwrap_or((range, range)));
        let symbols: Vec<u16> = ranges.flat_map(|(first, last)| number(first)..=number(last)).collect();
        let first = next;
        next += u32::try_from(symbols.len()).expect("few");
        codes.push(Codes { first, symbols });
    }
    assert_eq!(next, 1 << 30, "the code is complete");
    codes
});

/// The text of `bytes`; `None` when they are none (RFC 7541, section 5.2): the end's code stands nowhere, and behind the
/// last symbol are at most seven bits, all ones.
pub fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let codes = &*CODES;
    let mut text = Vec::new();
    let (mut length, mut code) = (0_usize, 0_u32);
    for byte in bytes {
        for place in (0..8).rev() {
            code = code << 1 | u32::from(byte >> place & 1);
            length += 1;
            let of_length = codes.get(length)?;
            let at = code.checked_sub(of_length.first).and_then(|at| usize::try_from(at).ok());
            if let Some(symbol) = at.and_then(|at| of_length.symbols.get(at)) {
                text.push(u8::try_from(*symbol).ok()?);
                (length, code) = (0, 0);
            }
        }
    }
    // What is left is shorter than a byte, and the beginning of the end's code: ones.
    (length < 8 && code + 1 == 1 << length).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs bits, most significant first, without padding.
    fn packed(bits: &str) -> Vec<u8> {
        let bits: Vec<u8> = bits.bytes().filter(|bit| matches!(bit, b'0' | b'1')).map(|bit| bit - b'0').collect();
        assert_eq!(bits.len() % 8, 0);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | bit)).collect()
    }

    #[test]
    fn examples_of_the_rfc() {
        for (bytes, text) in [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x64, 0x02], "302"),
            (&[], ""),
        ] {
            assert_eq!(decode(bytes).as_deref(), Some(text.as_bytes()));
        }
    }

    #[test]
    fn every_symbol_has_its_code() {
        for symbol in 0..=255_u16 {
            let (length, codes) = CODES.iter().enumerate().find(|(_, codes)| codes.symbols.contains(&symbol)).unwrap();
            let at = codes.symbols.iter().position(|known| *known == symbol).unwrap();
            let code = u64::from(codes.first) + at as u64;
            let padded = length.next_multiple_of(8);
            let bits = code << (padded - length) | ((1 << (padded - length)) - 1);
            let bytes = bits.to_be_bytes();
            assert_eq!(decode(&bytes[8 - padded / 8..]), Some(vec![u8::try_from(symbol).unwrap()]), "{symbol}");
        }
    }

    #[test]
    fn padding_is_ones_and_shorter_than_a_byte() {
        // '0' is 00000, 'a' is 00011, '&' is 11111000.
        assert_eq!(decode(&packed("00011 111")).as_deref(), Some(&b"a"[..]));
        assert_eq!(decode(&packed("00011 110")), None, "a zero");
        assert_eq!(decode(&packed("00011 011")), None, "a zero");
        assert_eq!(decode(&packed("00011 111 11111111")), None, "eleven bits");
        assert_eq!(decode(&packed("11111000")).as_deref(), Some(&b"&"[..]));
        assert_eq!(decode(&packed("11111000 11111111")), None, "eight bits");
        assert_eq!(decode(&packed("11111111")), None, "eight bits, alone");
    }

    #[test]
    fn the_end_symbol_is_invalid_everywhere() {
        let end = "111111111111111111111111111111";
        assert_eq!(decode(&packed(&format!("{end}11"))), None);
        assert_eq!(decode(&packed(&format!("00011 {end} 00011"))), None);
        assert_eq!(decode(&packed(&format!("00011 {end} 11111"))), None);
    }

    #[test]
    fn a_symbol_is_whole() {
        // The first bytes of '\n', which is 111111111111111111111111111100.
        assert_eq!(decode(&packed("11111111 11111111 11111111")), None);
        assert_eq!(decode(&packed("11111111 11111111 11111111 11110011")).as_deref(), Some(&b"\n"[..]));
    }
}
