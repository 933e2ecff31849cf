//! Logins of Yandex.
//!
//! 1. A login has 1 to 128 letters, digits, `-`, `_`, `.` or `@`.
//! 2. Two spellings are one login: letters in either case, and dots for hyphens, are the same account.
//! 3. Those of organisations begin with `porg-`.

/// What the logins of organisations begin with.
const ORGANISATION: &str = "porg-";

/// Whether it has the form of one (rule 1).
#[must_use]
pub fn is_one(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(fits)
}

/// Whether two are of one account (rule 2).
#[must_use]
pub fn is_same(one: &str, other: &str) -> bool {
    let letter = |byte: u8| if byte == b'.' { b'-' } else { byte.to_ascii_lowercase() };
    one.bytes().map(letter).eq(other.bytes().map(letter))
}

/// Whether it is one of an organisation (rule 3).
#[must_use]
pub fn is_organisation(login: &str) -> bool {
    login.get(..ORGANISATION.len()).is_some_and(|start| start.eq_ignore_ascii_case(ORGANISATION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_2_two_spellings_are_one_login() {
        assert!(is_same("Ivan.Petrov", "ivan-petrov") && !is_same("ivan", "ivan2"));
        assert!(is_organisation("porg-abc") && !is_organisation("porg") && !is_organisation("shop-porg-"));
    }
}
