//! Fields whose value is a list.
//!
//! 1. The elements of all lines of a name form one list, in their order (RFC 9110, section 5.3).
//! 2. A comma ends an element, spaces around an element are removed, and empty elements are ignored (section 5.6.1). A comma
//!    in quotes or in a comment also ends one, which can only find more elements.
//! 3. Non-ASCII bytes do not affect the elements next to them.

use http::{HeaderMap, HeaderName};

/// Returns the elements of the lists in all fields of this name.
pub fn elements<'a>(fields: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = fields.get_all(name).iter();
    let elements = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{TE, VIA};

    use super::*;

    fn list(lines: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut fields: HeaderMap = lines.iter().map(|line| (TE, HeaderValue::from_bytes(line).unwrap())).collect();
        fields.insert(VIA, HeaderValue::from_static("other"));
        elements(&fields, &TE).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn rule_1_all_lines_are_one_list() {
        assert_eq!(list(&[b"a,b", b"c"]), [b"a", b"b", b"c"]);
        assert!(list(&[]).is_empty());
    }

    #[test]
    fn rule_2_spaces_and_empty_elements_are_skipped() {
        assert_eq!(list(&[b"", b" , a \t,,\tb c", b","]), [&b"a"[..], b"b c"]);
        assert_eq!(list(&[b"\"a,b\""]), [b"\"a", b"b\""]);
    }

    #[test]
    fn rule_3_bytes_beyond_ascii_hide_nothing() {
        assert_eq!(list(&[b"\xe9, a\xff,b"]), [&b"\xe9"[..], b"a\xff", b"b"]);
    }
}
