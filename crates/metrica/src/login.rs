//! Yandex logins.
//!
//! 1. A login has 1 to 128 letters, digits, `-`, `_`, `.` or `@`.
//! 2. Several spellings denote one account: case is ignored, and before an `@`, a dot equals a hyphen. Logins that are
//!    compared often are stored in one spelling, the [`canonical`] one.
//! 3. Logins of organisations begin with `porg-`.

/// The prefix of the logins of organisations.
const ORGANISATION: &str = "porg-";

/// Whether the text has the form of a login (rule 1).
#[must_use]
pub fn is_one(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(fits)
}

/// Whether two logins denote the same account (rule 2).
#[must_use]
pub fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len() && spelled(one).eq(spelled(other))
}

/// The canonical spelling, used for comparisons (rule 2).
#[must_use]
pub fn canonical(login: &str) -> Box<str> {
    spelled(login).collect::<String>().into()
}

/// Whether one of `listed` denotes the same account as `login`.
#[must_use]
pub fn is_among(listed: &[Box<str>], login: &str) -> bool {
    listed.iter().any(|one| is_same(one, login))
}

/// Returns the logins in canonical spelling, without duplicates.
#[must_use]
pub fn each_once(logins: impl IntoIterator<Item = Box<str>>) -> Box<[Box<str>]> {
    let mut once: Vec<Box<str>> = Vec::new();
    for login in logins.into_iter().map(|login| canonical(&login)) {
        if !once.contains(&login) {
            once.push(login);
        }
    }
    once.into()
}

/// The canonical characters of a login; after an `@`, in the domain, dots are kept.
fn spelled(login: &str) -> impl Iterator<Item = char> {
    let mut is_local = true;
    login.chars().map(move |letter| {
        is_local &= letter != '@';
        if letter == '.' && is_local { '-' } else { letter.to_ascii_lowercase() }
    })
}

/// Whether the login belongs to an organisation (rule 3).
#[must_use]
pub fn is_organisation(login: &str) -> bool {
    login.get(..ORGANISATION.len()).is_some_and(|start| start.eq_ignore_ascii_case(ORGANISATION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_2_two_spellings_are_one_login() {
        for (one, other) in [("Ivan.Petrov", "ivan-petrov"), ("a.b@Shop.ru", "A-B@shop.ru"), ("porg-X.y", "PORG.x-Y")] {
            assert!(is_same(one, other) && canonical(one) == canonical(other), "{one}");
            assert!(is_among(&[canonical(one)], other), "{one}");
        }
        for (one, other) in [
            ("ivan", "ivan2"),
            ("a@b.c", "a@b-c"),
            ("a_b", "a-b"),
            ("ab", "a-b"),
            ("ivan", "ivan "),
            ("ki", "\u{212a}i"),
            ("", "a"),
        ] {
            assert!(!is_same(one, other) && canonical(one) != canonical(other), "{one}");
            assert!(!is_among(&[canonical(one)], other), "{one}");
        }
        assert!(is_organisation("porg-abc") && !is_organisation("porg") && !is_organisation("shop-porg-"));
    }

    #[test]
    fn rule_2_spellings_of_one_count_once() {
        let once = each_once(["Shop.A", "b", "shop-a", "B"].map(Into::into));
        assert_eq!(once.iter().map(|login| &**login).collect::<Vec<_>>(), ["shop-a", "b"]);
    }
}
