//! Keys that a request offers: where they are read, and what makes them invalid.
//!
//! 1. A key is a word that begins with `mgk_`: in `Authorization` or `Proxy-Authorization`, behind a scheme (`OAuth`,
//!    `Bearer` or another), bare or in quotes; as the user or the password of `Basic`; as `oauth_token` or `access_token`
//!    in the query; or in the CONNECT request of the tunnel.
//! 2. One that is no whole key is refused (`key_unknown`, 401), and so is a request with two different keys (`keys_differ`,
//!    401). A request never falls to a caller that is known otherwise.
//! 3. A key in another field or parameter, in the path or in the host is refused too (`key_unknown`): it would reach Metrica
//!    or a log. It is found in its plain form and percent-encoded, up to three times. Bodies are not searched.
//! 4. Any other credential is no proof. It is removed and counted ([`crate::gateway::headers`]).

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use memchr::{memchr_iter, memchr2, memmem};
use strict_http::target::{self, plain};
use zeroize::Zeroizing;

use super::key::{LENGTH, PREFIX, is_whole};
use super::proof::KeyHash;
use crate::policy::rejection::{Reason, Rejection};

/// The fields that can have a key.
pub const FIELDS: [HeaderName; 2] = [AUTHORIZATION, PROXY_AUTHORIZATION];

/// The reason why an offered key is invalid by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the checksum of the key is wrong: it is mistyped or incomplete")]
struct Mistyped;

/// A key is where no key is read (rule 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is in a field, parameter or path from which the gate reads no keys; send it in Authorization")]
struct Misplaced;

/// The key that has been found so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offered(Option<KeyHash>);

impl Offered {
    /// Begins with the key of the tunnel, if there is one.
    #[must_use]
    pub const fn in_tunnel(key: Option<KeyHash>) -> Self {
        Self(key)
    }

    /// Returns the key of a request.
    ///
    /// # Errors
    /// [`Reason::KeyUnknown`] or [`Reason::KeysDiffer`] (rules 2 and 3).
    pub fn by_request(self, fields: &HeaderMap, target: &Uri) -> Result<Option<KeyHash>, Rejection> {
        let values = FIELDS.iter().flat_map(|name| fields.get_all(name));
        let by_fields = values.map(HeaderValue::as_bytes).try_fold(self, Self::and_field)?;
        let parameters = target.query().into_iter().flat_map(target::credentials);
        let all = parameters
            .map(|value| plain(value.as_bytes()))
            .try_fold(by_fields, |offered, value| claimed(&value).try_fold(offered, Self::and));
        let key = all?.key();
        if is_misplaced(fields, target) { Err(Rejection::because(Reason::KeyUnknown, Misplaced)) } else { Ok(key) }
    }

    /// Adds the keys in the value of one of [`FIELDS`].
    ///
    /// # Errors
    /// As [`Self::by_request`].
    pub fn and_field(self, value: &[u8]) -> Result<Self, Rejection> {
        let pair = basic(value);
        let offered = claimed(value).try_fold(self, Self::and)?;
        pair.iter().flat_map(|pair| claimed(pair)).try_fold(offered, Self::and)
    }

    /// Adds a text that claims to be a key.
    fn and(self, credential: &[u8]) -> Result<Self, Rejection> {
        if !is_whole(credential) {
            return Err(Rejection::because(Reason::KeyUnknown, Mistyped));
        }
        let hash = KeyHash::of(credential);
        if self.0.is_some_and(|other| other != hash) { Err(Reason::KeysDiffer.into()) } else { Ok(Self(Some(hash))) }
    }

    /// Returns the key that was found.
    #[must_use]
    pub const fn key(self) -> Option<KeyHash> {
        self.0
    }
}

/// Whether a key is where none is read (rule 3).
fn is_misplaced(fields: &HeaderMap, target: &Uri) -> bool {
    let others = fields.iter().filter(|(name, _)| !FIELDS.contains(name)).map(|(_, value)| value.as_bytes());
    let of_target = [Some(target.path()), target.authority().map(Authority::as_str)];
    others.chain(of_target.into_iter().flatten().map(str::as_bytes)).any(has_key)
        || target.query().is_some_and(|query| may_have_key(query.as_bytes()) && target::others(query).any(of_text))
}

fn of_text(text: &str) -> bool {
    has_key(text.as_bytes())
}

/// The number of percent-encodings, one inside the other, in which a misplaced key is found.
const DECODINGS: usize = 3;

/// Whether a text has a key, or a word that claims to be one, plain or percent-encoded (rule 3).
#[must_use]
pub fn has_key(text: &[u8]) -> bool {
    let mut text = Cow::Borrowed(text);
    for _ in 0..DECODINGS {
        if !may_have_key(&text) {
            return false;
        }
        if is_in(&text) {
            return true;
        }
        text = Cow::Owned(plain(&text));
    }
    is_in(&text)
}

/// Whether a text that is not encoded has a key or a word that claims to be one.
fn is_in(text: &[u8]) -> bool {
    let is_whole_at = |at: usize| text.get(at..at + LENGTH).is_some_and(is_whole);
    claimed(text).next().is_some() || SEARCH.find_iter(text).any(is_whole_at)
}

/// Whether a text can have a key at all: it has the beginning of one, or encodes a character of that or a percent sign. Most
/// texts are not looked at further.
fn may_have_key(text: &[u8]) -> bool {
    let encodes = |at: usize| match text.get(at + 1..at + 3) {
        Some([b'6', low]) => matches!(low, b'd' | b'D' | b'7' | b'b' | b'B'),
        Some([b'5', low]) => matches!(low, b'f' | b'F'),
        Some(two) => two == b"25",
        None => false,
    };
    // One look instead of two, because most texts have no underscore either: 90 instructions for each field.
    memchr2(b'_', b'%', text).is_some() && (SEARCH.find(text).is_some() || memchr_iter(b'%', text).any(encodes))
}

/// Whether the value of one of [`FIELDS`] has a key, and not another credential. Requests with an invalid key were refused.
#[must_use]
pub fn is_key(value: &[u8]) -> bool {
    claimed(value).any(is_whole) || basic(value).is_some_and(|pair| claimed(&pair).any(is_whole))
}

/// Whether the credentials in a query are keys.
#[must_use]
pub fn has_only_keys(query: Option<&str>) -> bool {
    let mut credentials = query.into_iter().flat_map(target::credentials).peekable();
    credentials.peek().is_some() && credentials.all(|value| claimed(&plain(value.as_bytes())).any(is_whole))
}

/// The search for keys. Its preparation costs more than the search of a field.
static SEARCH: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(PREFIX));

/// Returns the texts that claim to be keys: each `mgk_` that begins a word, to the end of the word. Some clients put a
/// credential into quotes, or write two schemes.
fn claimed(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'~');
    let begins = move |at: &usize| text.get(..*at).and_then(<[u8]>::last).is_none_or(|before| !is_of_word(before));
    SEARCH.find_iter(text).filter(begins).filter_map(move |at| {
        let rest = text.get(at..)?;
        rest.get(..rest.iter().take_while(|byte| is_of_word(byte)).count())
    })
}

/// Decodes the user and the password of `Basic` (RFC 7617), which a colon separates. Some clients use the alphabet of URLs.
fn basic(value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, encoded) = value.trim_ascii().split_at_checked(BASIC.len())?;
    if !scheme.eq_ignore_ascii_case(BASIC) || !encoded.first()?.is_ascii_whitespace() {
        return None;
    }
    let standard = |byte: &u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => *other,
    };
    let encoded: Zeroizing<Vec<u8>> = Zeroizing::new(encoded.trim_ascii().iter().map(standard).collect());
    DECODER.decode(&*encoded).ok().map(Zeroizing::new)
}

const BASIC: &[u8] = b"basic";

/// Clients leave out the padding of base64, or the last bits.
const DECODER: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use super::super::key::of_random;
    use super::*;

    /// Two keys.
    fn keys() -> [String; 2] {
        [1, 2].map(|byte| of_random(&[byte; 43]).unwrap().to_string())
    }

    fn offered(fields: &[(HeaderName, &str)], query: Option<&str>) -> Result<Option<KeyHash>, Reason> {
        let fields = fields.iter().map(|(name, value)| (name.clone(), value.parse::<HeaderValue>().unwrap())).collect();
        Offered::default().by_request(&fields, &target("/a", query)).map_err(|rejection| rejection.reason)
    }

    fn target(path: &str, query: Option<&str>) -> Uri {
        query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")).parse().unwrap()
    }

    fn encoded(text: &str) -> String {
        base64::prelude::BASE64_STANDARD.encode(text)
    }

    #[test]
    fn rule_1_every_shape_of_a_key() {
        let [key, _] = keys();
        let expected = Ok(Some(KeyHash::of(key.as_bytes())));
        for value in [
            key.clone(),
            format!("OAuth {key}"),
            format!("bearer   {key} "),
            format!("Token {key}"),
            format!("Bearer OAuth {key}"),
            format!("OAuth\t{key}"),
            format!("OAuth oauth_token=\"{key}\""),
            format!("Basic {}", encoded(&format!("etl:{key}"))),
            format!("BASIC  {}", encoded(&format!("{key}:"))),
            format!("Basic {}", encoded(&format!("{key}:x"))),
            format!("Basic {}", encoded(&key).trim_end_matches('=')),
            format!("Basic\t{}", encoded(&format!("???:{key}")).replace('/', "_").replace('+', "-")),
        ] {
            for name in FIELDS {
                assert_eq!(offered(&[(name, &value)], None), expected, "{value}");
            }
            assert!(is_key(value.as_bytes()), "{value}");
        }
        let percent: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for query in [
            format!("oauth_token={key}"),
            format!("ids=1&access_token={key}&metrics=x"),
            format!("ids=1;oauth_token={key}"),
            format!("oauth_token={percent}"),
        ] {
            assert_eq!(offered(&[], Some(&query)), expected, "{query}");
            assert!(has_only_keys(Some(&query)) && !has_only_keys(Some(&format!("{query}&oauth_token=y0_x"))));
        }
        let same = format!("oauth_token={key}");
        assert_eq!(offered(&[(AUTHORIZATION, &key), (PROXY_AUTHORIZATION, &key)], Some(&same)), expected);
    }

    #[test]
    fn rule_2_an_invalid_key_is_refused_in_every_shape() {
        let [key, _] = keys();
        for wrong in [&key[..52], &format!("{key}0"), "mgk_", "mgk_none", &key.replace("mgk_1", "mgk_2")] {
            let shapes =
                [wrong.to_owned(), format!("OAuth {wrong}"), format!("Basic {}", encoded(&format!("a:{wrong}")))];
            for value in shapes {
                assert_eq!(offered(&[(AUTHORIZATION, &value)], None), Err(Reason::KeyUnknown), "{value}");
                // A valid key beside it changes nothing.
                let both = [(AUTHORIZATION, value.as_str()), (PROXY_AUTHORIZATION, key.as_str())];
                assert_eq!(offered(&both, None), Err(Reason::KeyUnknown), "{value}");
                assert!(!is_key(value.as_bytes()));
            }
            assert_eq!(offered(&[], Some(&format!("access_token={wrong}"))), Err(Reason::KeyUnknown));
        }
    }

    #[test]
    fn rule_2_two_keys_are_refused_wherever_they_are() {
        let [key, other] = keys();
        let query = format!("oauth_token={other}");
        let pair = format!("Basic {}", encoded(&format!("{key}:{other}")));
        for (fields, query) in [
            (vec![(AUTHORIZATION, key.as_str()), (AUTHORIZATION, other.as_str())], None),
            (vec![(AUTHORIZATION, key.as_str()), (PROXY_AUTHORIZATION, other.as_str())], None),
            (vec![(AUTHORIZATION, key.as_str())], Some(query.as_str())),
            (vec![(AUTHORIZATION, pair.as_str())], None),
            (vec![], Some(&*format!("access_token={key}&{query}"))),
        ] {
            assert_eq!(offered(&fields, query), Err(Reason::KeysDiffer), "{fields:?} {query:?}");
        }
        let tunnel = Offered::in_tunnel(Some(KeyHash::of(key.as_bytes())));
        let request =
            |key: &str| tunnel.by_request(&HeaderMap::new(), &target("/", Some(&format!("oauth_token={key}"))));
        assert_eq!(request(&key).ok(), Some(Some(KeyHash::of(key.as_bytes()))));
        assert_eq!(request(&other).map_err(|rejection| rejection.reason), Err(Reason::KeysDiffer));
        assert_eq!(tunnel.by_request(&HeaderMap::new(), &target("/", None)).ok(), Some(tunnel.key()));
    }

    #[test]
    fn rule_3_a_key_elsewhere_is_refused() {
        let [key, other] = keys();
        for name in ["x-api-key", "x-auth-token", "cookie", "x-request-id", "x-gate-account"] {
            for value in [key.clone(), format!("a={key}; b"), "mgk_x".to_owned()] {
                let field = HeaderName::from_static(name);
                assert_eq!(offered(&[(field, &value)], None), Err(Reason::KeyUnknown), "{name}: {value}");
            }
        }
        for query in [
            format!("token={key}"),
            format!("ids=1;a={key}"),
            format!("xoauth_token={other}"),
            format!("oauth_token={key}&token={key}"),
            format!("a=x{key}"),
        ] {
            assert_eq!(offered(&[], Some(&query)), Err(Reason::KeyUnknown), "{query}");
            assert_eq!(offered(&[(AUTHORIZATION, &key)], Some(&query)), Err(Reason::KeyUnknown), "{query}");
        }
        for place in [format!("/a/{key}"), format!("/{key}/b?c=d"), format!("http://{key}/a"), "/mgk_x".to_owned()] {
            let read = Offered::default().by_request(&HeaderMap::new(), &place.parse().unwrap());
            assert_eq!(read.map_err(|rejection| rejection.reason), Err(Reason::KeyUnknown), "{place}");
        }
    }

    #[test]
    fn rule_3_an_encoded_key_elsewhere_is_refused() {
        let [key, _] = keys();
        let whole = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02x}")).collect() };
        let once = [
            key.replace('m', "%6D"),
            key.replace("gk", "%67k"),
            key.replace('k', "%6b"),
            key.replace('_', "%5F"),
            format!("%20{key}"),
            whole(&key),
            "%6dgk_x".to_owned(),
        ];
        let twice = once.clone().map(|text| text.replace('%', "%25"));
        let thrice = twice.clone().map(|text| text.replace('%', "%25"));
        for text in once.iter().chain(&twice).chain(&thrice) {
            for query in [format!("token={text}"), format!("oauth_token={key}&a={text}"), format!("a=b;{text}=c")] {
                assert_eq!(offered(&[], Some(&query)), Err(Reason::KeyUnknown), "{query}");
            }
            let field = HeaderName::from_static("x-request-id");
            assert_eq!(offered(&[(field, text)], None), Err(Reason::KeyUnknown), "{text}");
            let read = Offered::default().by_request(&HeaderMap::new(), &target(&format!("/a/{text}"), None));
            assert_eq!(read.map_err(|rejection| rejection.reason), Err(Reason::KeyUnknown), "{text}");
        }
        for query in ["a=%6D%67&b=%6b_", "a=100%25&b=%256D", "a=%D0%BC%67k_", "a=%5F%", "a=xmgk_%31"] {
            assert_eq!(offered(&[], Some(query)), Ok(None), "{query}");
        }
        // What is encoded once more costs no more than the decodings that are done.
        assert_eq!(offered(&[], Some(&format!("a={}", "%25".repeat(10_000)))), Ok(None));
    }

    #[test]
    fn rule_4_other_credentials_are_no_proof() {
        let [key, _] = keys();
        let (without_scheme, inside) = (encoded(&format!("a:{key}")), format!("y0_{key}"));
        for value in [
            "",
            "OAuth",
            "y0_AgAAAA",
            "OAuth y0_AgAAAA",
            "Basic",
            "Basic !",
            &without_scheme,
            &inside,
            "mgk",
            "a-mgk_1",
        ] {
            assert_eq!(offered(&[(AUTHORIZATION, value)], None), Ok(None), "{value}");
            assert!(!is_key(value.as_bytes()));
        }
        for query in ["token=y0_x".to_owned(), "ids=mgk".to_owned(), "a=xmgk_1".to_owned(), "oauth_token=".to_owned()] {
            assert_eq!(offered(&[], Some(&query)), Ok(None), "{query}");
        }
    }
}
