//! Variants of an input: a few mutations of a kind that fuzzers make, chosen by nothing but a name and a number.

/// Longer variants are cut.
const LONGEST: usize = 4096;

/// The words of a dictionary of libFuzzer: a word a line, in quotation marks, with `\\`, `\"` and `\xNN`.
pub fn dictionary(text: &str) -> Vec<Vec<u8>> {
    let quoted = |line: &str| Some(line.strip_suffix('"')?.split_once('"')?.1.to_owned());
    text.lines().filter(|line| !line.starts_with('#')).filter_map(quoted).map(|word| unescaped(&word)).collect()
}

fn unescaped(word: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = word.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.strip_prefix(b"x").and_then(|digits| std::str::from_utf8(digits.get(..2)?).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        (rest, _) = match (first, byte, behind) {
            (b'\\', Some(byte), _) => (&behind[3..], out.push(byte)),
            (b'\\', None, [escaped, behind @ ..]) => (behind, out.push(*escaped)),
            (other, _, _) => (behind, out.push(*other)),
        };
    }
    out
}

/// Numbers that look random (xorshift64*, by Vigna).
struct Numbers(u64);

impl Numbers {
    /// The same for the same name and number (FNV-1a).
    fn of(name: &str, number: u64) -> Self {
        let bytes = name.bytes().chain(number.to_le_bytes());
        let seed =
            bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Self(seed.max(1))
    }

    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high % bound as u64).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("a byte")
    }

    fn of_list<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        if list.is_empty() { None } else { list.get(self.below(list.len())) }
    }
}

/// The variant of `input`, which has this name, with this number; it may have some of `words`.
pub fn variant(name: &str, number: u64, input: &[u8], words: &[Vec<u8>]) -> Vec<u8> {
    let mut numbers = Numbers::of(name, number);
    let mut bytes = input.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        let most = numbers.below(16) + 1;
        let end = bytes.len().min(at + most);
        match numbers.below(9) {
            0 => bytes[at..end].iter_mut().take(1).for_each(|byte| *byte ^= 1 << numbers.below(8)),
            1 => bytes[at..end].iter_mut().take(1).for_each(|byte| *byte = numbers.byte()),
            2 => drop(bytes.splice(at..at, std::iter::repeat_with(|| numbers.byte()).take(most))),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.truncate(at),
            5 => {
                let piece = bytes[at..end].to_vec();
                let to = numbers.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            6 | 7 => {
                let word = numbers.of_list(words).cloned().unwrap_or_default();
                let over = if numbers.below(2) == 0 { at } else { bytes.len().min(at + word.len()) };
                bytes.splice(at..over, word);
            }
            _ => {
                let from = numbers.below(input.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&input[from..]);
            }
        }
        bytes.truncate(LONGEST);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read() {
        let words = dictionary("\"a\\x0d\\x0A\"\n# \"no\"\n\nname=\"\\\"b\\\\\"\n");
        assert_eq!(words, [&b"a\r\n"[..], b"\"b\\"]);
        assert!(dictionary(include_str!("../http.dict")).len() > 60);
    }

    #[test]
    fn variants_are_the_same_everywhere() {
        let words = dictionary("\"GET \"");
        let input = b"POST / HTTP/1.1\r\n";
        let all = |name: &str| {
            let one = |number| variant(name, number, input, &words);
            (0..1000).map(one).collect::<Vec<_>>()
        };
        assert_eq!(all("a"), all("a"));
        assert_ne!(all("a"), all("b"));
        let different: std::collections::BTreeSet<_> = all("a").into_iter().collect();
        assert!(different.len() > 800, "{}", different.len());
        // Another result on another machine, or with another compiler, would be another test.
        let sum = all("a").concat().iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        assert_eq!(sum, 1_137_945_622_503_909_507);
    }

    #[test]
    fn nothing_is_too_short_or_too_long() {
        for number in 0..1000 {
            variant("empty", number, b"", &[]);
            assert!(variant("long", number, &[0; 5000], &[]).len() <= LONGEST);
        }
    }
}
