//! The form of a key: `mgk_`, 43 random letters and digits (256 bits), and six letters and digits of checksum.
//!
//! The prefix and the checksum let secret scanners and the gate recognise a key, and a mistyped one. The checksum is the
//! CRC-32 of all that precedes it, in base 62 with the digits `0-9A-Za-z`, the highest first. It is no protection.

use zeroize::Zeroizing;

/// The beginning of every key.
pub const PREFIX: &str = "mgk_";
/// The number of random characters: the fewest with 256 bits.
pub const RANDOM: usize = 43;
/// The number of characters of the checksum.
const CHECKSUM: usize = 6;
/// The length of a key.
pub const LENGTH: usize = PREFIX.len() + RANDOM + CHECKSUM;

/// Whether a credential has the form of a key and the right checksum.
#[must_use]
pub fn is_whole(credential: &[u8]) -> bool {
    let Some((before, checksum)) = credential.split_at_checked(LENGTH - CHECKSUM) else { return false };
    before.starts_with(PREFIX.as_bytes())
        && before.iter().skip(PREFIX.len()).all(u8::is_ascii_alphanumeric)
        && checksum == checksum_of(before)
}

/// Returns the key with these random bytes; each is a character. `None` while there are too few: bytes above the last
/// multiple of 62 are skipped, so that all characters are equally likely.
#[must_use]
pub fn of_random(bytes: &[u8]) -> Option<Zeroizing<String>> {
    const FAIR: u8 = u8::MAX - u8::MAX % 62;
    let characters = bytes.iter().filter(|byte| **byte < FAIR).map(|byte| digit(u32::from(*byte)));
    let mut key = Zeroizing::new(String::with_capacity(LENGTH));
    key.push_str(PREFIX);
    key.extend(characters.take(RANDOM).map(char::from));
    let checksum = checksum_of(key.as_bytes());
    key.extend(checksum.map(char::from));
    (key.len() == LENGTH).then_some(key)
}

fn checksum_of(text: &[u8]) -> [u8; CHECKSUM] {
    let mut rest = crc32fast::hash(text);
    let mut digits = [0; CHECKSUM];
    for place in digits.iter_mut().rev() {
        *place = digit(rest);
        rest /= 62;
    }
    digits
}

/// Returns the last digit of a number in base 62.
fn digit(number: u32) -> u8 {
    let [value, ..] = (number % 62).to_le_bytes();
    match value {
        0..10 => b'0' + value,
        10..36 => b'A' + (value - 10),
        _ => b'a' + (value - 36),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_prefix_and_a_checksum() {
        let key = of_random(&[7; 60]).unwrap();
        assert_eq!(key.as_str(), format!("mgk_{}{}", "7".repeat(43), &key[47..]));
        assert_eq!((key.len(), is_whole(key.as_bytes())), (53, true));
        // The check value of CRC-32 (ISO-HDLC), in base 62.
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        assert_eq!(&checksum_of(b"123456789"), b"3jZRME");
    }

    #[test]
    fn every_other_character_is_noticed() {
        let key = of_random(&(0..=u8::MAX).collect::<Vec<_>>()).unwrap();
        for at in 0..LENGTH {
            let mut other = key.as_bytes().to_vec();
            other[at] = if other[at] == b'x' { b'y' } else { b'x' };
            assert!(!is_whole(&other), "{at}");
            assert!(!is_whole(&key.as_bytes()[..at]), "{at}");
        }
        assert!(!is_whole(format!("{}x", key.as_str()).as_bytes()));
        let quoted = of_random(&[1; 43]).unwrap().replace('1', "-");
        assert!(!is_whole(quoted.as_bytes()));
    }

    #[test]
    fn random_bytes_are_used_fairly() {
        assert_eq!(of_random(&[1; 42]), None);
        assert_eq!(of_random(&[248; 200]), None, "these would make some characters likelier");
        let mut bytes = [255; 86];
        bytes.iter_mut().step_by(2).zip(0_u8..).for_each(|(byte, number)| *byte = number);
        assert_eq!(&of_random(&bytes).unwrap()[4..47], "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg");
    }
}
