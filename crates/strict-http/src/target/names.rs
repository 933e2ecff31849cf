//! Names of parameters that select the data of a request, or the form of its response.

use super::{canonical, name_of, plain};
use crate::cut;

/// A set of parameter names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Names(u16);

impl Names {
    /// `ids`: the counters of a report.
    pub const IDS: Self = Self(1);
    /// `id`: the same in older API versions.
    pub const ID: Self = Self(1 << 1);
    /// `ulogin`: an account that the token's owner represents.
    pub const ULOGIN: Self = Self(1 << 2);
    /// `direct_client_logins`: clients of Direct.
    pub const DIRECT_CLIENT_LOGINS: Self = Self(1 << 3);
    /// `callback`: the response becomes a script (JSONP).
    pub const CALLBACK: Self = Self(1 << 4);
    /// `field`: additional fields of a counter, such as `measurement_tokens`.
    pub const FIELD: Self = Self(1 << 5);
    /// `counter`, `counters`, `counter_id`, `counter_ids`: other names that could select counters.
    pub const COUNTER: Self = Self(1 << 6);
    /// Any of these in a spelling that some readers accept: another case, letters of another form, without the underscores,
    /// or with brackets, raw or encoded.
    pub const ODD: Self = Self(1 << 7);
    /// `metrics`, `dimensions`, `fields`: the contents of a response, which policy does not restrict.
    pub(super) const METRICS: Self = Self(1 << 8);
    pub(super) const DIMENSIONS: Self = Self(1 << 9);
    pub(super) const FIELDS: Self = Self(1 << 10);
    /// The parameter is unambiguous but not in canonical form (see [`super::canonical`]).
    pub(super) const LOOSE: Self = Self(1 << 11);

    /// Names that may occur once, because several values would be ambiguous.
    const ONCE: Self = Self(Self::ID.0 | Self::ULOGIN.0 | Self::DIRECT_CLIENT_LOGINS.0);
    /// Names whose values are joined.
    const JOINED: Self = Self(Self::IDS.0 | Self::METRICS.0 | Self::DIMENSIONS.0 | Self::FIELDS.0);
    /// Names that do not matter to policy.
    const IRRELEVANT: Self = Self(Self::METRICS.0 | Self::DIMENSIONS.0 | Self::FIELDS.0);

    /// Classifies a name, given without the `=` and the value.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        // Fast path: most names begin with another letter.
        match name.first() {
            Some(b'i' | b'u' | b'd' | b'c' | b'f' | b'I' | b'U' | b'D' | b'C' | b'F') => Self::of_one_that_may_be(name),
            Some(b'm') if name == b"metrics" => Self::METRICS,
            Some(first) if !first.is_ascii_alphanumeric() => Self::of_one_that_may_be(name),
            Some(_) | None => Self::default(),
        }
    }

    fn of_one_that_may_be(name: &[u8]) -> Self {
        match name {
            b"ids" => Self::IDS,
            b"id" => Self::ID,
            b"ulogin" => Self::ULOGIN,
            b"direct_client_logins" => Self::DIRECT_CLIENT_LOGINS,
            b"callback" => Self::CALLBACK,
            b"field" => Self::FIELD,
            b"counter" | b"counters" | b"counter_id" | b"counter_ids" => Self::COUNTER,
            b"dimensions" => Self::DIMENSIONS,
            b"fields" => Self::FIELDS,
            other if memchr::memchr(b'%', other).is_some() && !Self::like(other).is_empty() => Self::ODD,
            other if is_odd(other) => Self::ODD,
            _ => Self::default(),
        }
    }

    /// Classifies a name as the most lenient reader would: returns the name above that this could be a spelling of.
    #[must_use]
    #[cold]
    pub fn like(name: &[u8]) -> Self {
        let spelled = spelled(name);
        let found = WORDS.iter().zip(MEANT).filter(|(word, _)| **word == spelled.as_bytes());
        found.fold(Self::default(), |all, (_, one)| all | one)
    }

    /// Whether the set contains one of `others`.
    #[must_use]
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Whether the set contains no name that matters to policy.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 & !Self::IRRELEVANT.0 == 0
    }

    /// Whether the values of several parameters of this name are joined.
    pub(super) const fn are_joined(self) -> bool {
        self.0 & Self::JOINED.0 != 0
    }

    /// Adds `more`; returns false if a name that may occur once is repeated.
    pub(super) const fn add(&mut self, more: Self) -> bool {
        let both = self.0 & more.0;
        self.0 |= more.0;
        if both & Self::JOINED.0 != 0 {
            self.0 |= Self::LOOSE.0;
        }
        both & Self::ONCE.0 == 0
    }

    /// Adds the names of `pair`; returns false if a name that may occur once is repeated.
    pub(super) fn add_pair(&mut self, pair: &[u8]) -> bool {
        let more = Self::of(name_of(pair));
        let is_loose = more.has(Self::IDS | Self::CALLBACK) && canonical::is_loose(pair);
        self.add(if is_loose { more | Self::LOOSE } else { more })
    }
}

impl std::ops::BitOr for Names {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The number of letters in the longest name.
const LONGEST: usize = b"directclientlogins".len();

/// Every name, reduced to its letters.
const WORDS: [&[u8]; 10] = [
    b"ids",
    b"id",
    b"ulogin",
    b"directclientlogins",
    b"callback",
    b"field",
    b"counter",
    b"counters",
    b"counterid",
    b"counterids",
];

/// The meaning of each of [`WORDS`].
const MEANT: [Names; 10] = [
    Names::IDS,
    Names::ID,
    Names::ULOGIN,
    Names::DIRECT_CLIENT_LOGINS,
    Names::CALLBACK,
    Names::FIELD,
    Names::COUNTER,
    Names::COUNTER,
    Names::COUNTER,
    Names::COUNTER,
];

/// The letters and digits of a text in lower case. Letters of another form are converted: full-width ones, and those that
/// equal an ordinary one in upper or in lower case only (a long s, a dotless i).
pub fn letters(text: &[u8]) -> String {
    const WIDE: u32 = 0xFEE0;
    let narrow = |letter: char| match letter {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(letter) - WIDE).unwrap_or(letter),
        other => other,
    };
    let text = String::from_utf8_lossy(text);
    let folded = text.chars().map(narrow).flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    folded.filter(char::is_ascii_alphanumeric).collect()
}

/// The letters of a parameter name as the most lenient reader sees them: decoded twice, and without the part in brackets.
pub fn spelled(name: &[u8]) -> String {
    let plain = plain(&plain(name));
    letters(cut::before(&plain, b'['))
}

/// Whether the letters of `name`, ignoring everything else, are those of a known name.
fn is_odd(name: &[u8]) -> bool {
    let mut letters = [0; LONGEST];
    let mut free = letters.iter_mut();
    for byte in name.iter().take_while(|byte| **byte != b'[').filter(|byte| byte.is_ascii_alphanumeric()) {
        let Some(letter) = free.next() else { return false };
        *letter = byte.to_ascii_lowercase();
    }
    let left = free.len();
    letters.get(..LONGEST - left).is_some_and(|letters| WORDS.contains(&letters))
}

/// Whether the letters and digits of `name`, up to a bracket, are those of `word`, ignoring case.
pub(super) fn spells(name: &[u8], word: &[u8]) -> bool {
    let letters = name.iter().take_while(|byte| **byte != b'[').filter(|byte| byte.is_ascii_alphanumeric());
    name.len() >= word.len() && letters.map(u8::to_ascii_lowercase).eq(word.iter().copied())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_known_in_every_spelling() {
        for (name, expected) in [
            ("ids", Names::IDS),
            ("id", Names::ID),
            ("ulogin", Names::ULOGIN),
            ("direct_client_logins", Names::DIRECT_CLIENT_LOGINS),
            ("callback", Names::CALLBACK),
            ("field", Names::FIELD),
            ("counter_ids", Names::COUNTER),
            ("IDS", Names::ODD),
            ("ids[]", Names::ODD),
            ("ids[0]", Names::ODD),
            ("counterId", Names::ODD),
            (".ids", Names::ODD),
            ("directClientLogins", Names::ODD),
            ("CallBack", Names::ODD),
            ("metrics", Names::METRICS),
            ("date1", Names::default()),
            ("dimensions", Names::DIMENSIONS),
            ("filters", Names::default()),
            ("", Names::default()),
            ("fields", Names::FIELDS),
            ("ids%5B%5D", Names::ODD),
            ("ids%5b0%5D", Names::ODD),
            ("%20ids", Names::ODD),
            ("counter%2eid", Names::ODD),
            ("id%C5%BF", Names::ODD),
            ("%EF%BD%89ds", Names::ODD),
            ("%D0%B8%D0%B4", Names::default()),
            ("ym:s:visits%5B", Names::default()),
        ] {
            assert_eq!(Names::of(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn unusual_forms_of_names_are_recognised() {
        for (name, expected) in [
            ("CallBack", Names::CALLBACK),
            ("callbac%E2%84%AA", Names::CALLBACK),
            ("callback%5B%5D", Names::CALLBACK),
            ("field[]", Names::FIELD),
            ("counterIds", Names::COUNTER),
            ("Ids[1]", Names::IDS),
            ("u-login", Names::ULOGIN),
            ("metrics", Names::default()),
        ] {
            assert_eq!(Names::like(name.as_bytes()), expected, "{name}");
        }
    }

    /// A name or a credential in a spelling that some reader accepts, or with a letter too many.
    fn spelling() -> impl Strategy<Value = String> {
        let names = vec![
            "ids",
            "ulogin",
            "direct_client_logins",
            "callback",
            "field",
            "counter_ids",
            "oauth_token",
            "access_token",
        ];
        let letter = |letter: char| {
            let wide = char::from_u32(u32::from(letter) + 0xfee0).unwrap_or(letter);
            let encoded = |text: String| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
            prop_oneof![
                12 => Just(letter.to_string()),
                2 => Just(letter.to_uppercase().to_string()),
                1 => Just(encoded(letter.to_string())),
                1 => Just(encoded(letter.to_string()).replace('%', "%25")),
                1 => Just(encoded(wide.to_string())),
                1 => Just(if letter == 'k' { "%E2%84%AA".to_owned() } else { letter.to_string() }),
                1 => Just(if letter == 's' { "%C5%BF".to_owned() } else { letter.to_string() }),
                1 => Just(if letter == '_' { String::new() } else { letter.to_string() }),
            ]
        };
        let name = prop::sample::select(names).prop_flat_map(move |name| name.chars().map(letter).collect::<Vec<_>>());
        let marks = || prop::sample::select(vec!["", "", "", "", ".", "%20", "[0]", "%5B%5D", "-", "x", "%D0%B0", "7"]);
        (marks(), name, marks()).prop_map(|(before, name, behind)| format!("{before}{}{behind}", name.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        /// There is one folding of names, [`spelled`]; what looks faster finds the same.
        #[test]
        fn fast_looks_at_a_name_agree_with_the_folding(name in spelling()) {
            let name = name.as_bytes();
            let folded = spelled(name);
            prop_assert_eq!(Names::of(name).is_empty(), !WORDS.contains(&folded.as_bytes()), "{}", folded);
            let is_credential = ["oauthtoken", "accesstoken"].contains(&folded.as_str());
            prop_assert_eq!(super::super::looks_like_credential(name), is_credential, "{}", folded);
        }
    }

    #[test]
    fn names_that_must_be_unique_are_added_once() {
        let mut names = Names::default();
        assert!(names.add(Names::IDS) && names.add(Names::ID) && names.add(Names::FIELD) && names.add(Names::FIELD));
        assert!(!names.has(Names::LOOSE) && names.add(Names::IDS) && names.has(Names::LOOSE));
        assert!(!names.add(Names::ID));
    }
}
