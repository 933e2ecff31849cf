//! Proofs of identity: keys, client certificates and service accounts, as values that conditions compare.
//!
//! 1. A key is known by its SHA-256. The gate holds no key, and a hash is compared in constant time.
//! 2. A name of a certificate has one form: a SPIFFE ID (`spiffe://domain/path`), or a DNS name in lower case (`dns:name`).
//!    A wildcard is no name.
//! 3. A service account is `namespace/name`, as Kubernetes writes it.

use std::fmt;
use std::hash::{Hash, Hasher};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

/// The number of bytes of a hash.
const BYTES: usize = 32;

/// The SHA-256 of a key.
///
/// Tables find a hash by its first eight bytes, which takes a time that depends on those of configured hashes. That tells a
/// client about SHA-256 hashes of its own guesses, and nothing about a key: a key has 256 random bits.
#[derive(Clone, Copy, Eq)]
pub struct KeyHash([u8; BYTES]);

impl KeyHash {
    /// Returns the hash of `key`, the whole text from `mgk_` to its checksum.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        let mut bytes = [0; BYTES];
        bytes.iter_mut().zip(digest(&SHA256, key).as_ref()).for_each(|(own, byte)| *own = *byte);
        Self(bytes)
    }

    /// Reads 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != BYTES || !rest.is_empty() {
            return None;
        }
        let mut bytes = [0; BYTES];
        for (own, [high, low]) in bytes.iter_mut().zip(pairs) {
            *own = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(bytes))
    }

    /// Returns the first eight digits, which name the hash in logs.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }

    const fn first(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.first());
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({})", self.short())
    }
}

/// A name of a client certificate, in the form of the configuration (rule 2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubjectName(Box<str>);

/// The maximum length of a SPIFFE ID in bytes.
const LONGEST_ID: usize = 2048;
/// The maximum length of a trust domain in bytes.
const LONGEST_DOMAIN: usize = 255;

impl SubjectName {
    /// Reads a name as the configuration writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.strip_prefix("dns:").map_or_else(|| Self::uri(text), Self::dns)
    }

    /// Reads a URI of a certificate. Only a SPIFFE ID is a name (SPIFFE ID and SVID, section 2).
    #[must_use]
    pub fn uri(uri: &str) -> Option<Self> {
        let (domain, path) = {
            let rest = uri.strip_prefix("spiffe://")?;
            rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)))
        };
        let is_domain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        let is_path = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_path);
        let fits = uri.len() <= LONGEST_ID
            && (1..=LONGEST_DOMAIN).contains(&domain.len())
            && domain.bytes().all(is_domain)
            && path.is_none_or(|path| path.split('/').all(is_segment));
        fits.then(|| Self(uri.into()))
    }

    /// Reads a DNS name of a certificate, in any case.
    #[must_use]
    pub fn dns(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        is_domain_name(&name, true).then(|| Self(format!("dns:{name}").into()))
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A Kubernetes service account: `namespace/name` (rule 3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceAccount(Box<str>);

impl ServiceAccount {
    /// Reads `namespace/name`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        let fits = !namespace.contains('.') && is_domain_name(namespace, false) && is_domain_name(name, false);
        fits.then(|| Self(text.into()))
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether this is a domain name in lower case (RFC 1123, section 2.1); certificates may have underscores.
fn is_domain_name(name: &str, underscores: bool) -> bool {
    let is_label = |label: &str| {
        let fits = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || underscores && byte == b'_'
        };
        (1..=63).contains(&label.len()) && label.bytes().all(fits) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// The proofs that a request offers, all of them verified.
///
/// An offered proof names the caller: only callers that state it are considered
/// ([`Conditions::hold`](super::caller::Conditions::hold)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proofs {
    /// The hash of the offered key. Whether a caller has that key is not known yet.
    pub key: Option<KeyHash>,
    /// The service account of a verified token.
    pub service_account: Option<ServiceAccount>,
}

impl Proofs {
    /// No proofs.
    pub const NONE: Self = Self { key: None, service_account: None };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_1_a_hash_is_64_lower_case_digits() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(KeyHash::of(b"").to_string(), empty);
        assert_eq!(KeyHash::parse(empty), Some(KeyHash::of(b"")));
        assert_ne!(KeyHash::parse(empty), Some(KeyHash::of(b"a")));
        assert_eq!(
            (KeyHash::of(b"").short(), format!("{:?}", KeyHash::of(b""))),
            ("e3b0c442".into(), "KeyHash(e3b0c442)".into())
        );
        for wrong in ["", &empty[1..], &format!("{empty}0"), &empty.to_uppercase(), &empty.replace('e', "g")] {
            assert_eq!(KeyHash::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rule_1_hashes_differ_in_every_byte() {
        let one = KeyHash::of(b"a");
        for at in 0..BYTES {
            let mut other = one;
            other.0[at] ^= 1;
            assert_ne!(one, other, "{at}");
        }
    }

    #[test]
    fn rule_2_names_of_certificates_have_one_form() {
        let shown = |text: &str| SubjectName::parse(text).map(|name| name.to_string());
        for fine in ["spiffe://prod", "spiffe://prod.example/ns/a/sa/B_1", "dns:etl.example", "dns:a_b", "dns:x"] {
            assert_eq!(shown(fine).as_deref(), Some(fine));
        }
        assert_eq!(shown("dns:ETL.Example").as_deref(), Some("dns:etl.example"));
        for wrong in [
            "",
            "dns:",
            "dns:*.example",
            "dns:a.",
            "dns:-a",
            "dns:a b",
            "etl.example",
            "uri:spiffe://a",
            "spiffe://",
            "spiffe:///a",
            "spiffe://Prod",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/../b",
            "spiffe://a:1/b",
            "spiffe://u@a/b",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a/%62",
            "SPIFFE://a/b",
            "https://a/b",
        ] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
        assert_eq!(shown(&format!("spiffe://a/{}", "b".repeat(LONGEST_ID))), None);
    }

    #[test]
    fn rule_3_a_service_account_has_a_namespace() {
        for fine in ["metrika/etl", "a/b", "a-1/b.c-2"] {
            assert_eq!(ServiceAccount::parse(fine).map(|name| name.to_string()).as_deref(), Some(fine));
        }
        for wrong in ["", "a", "/a", "a/", "a/b/c", "A/b", "a.b/c", "a/-b", "a/b_c", "a/*", "*/a", "a b/c"] {
            assert_eq!(ServiceAccount::parse(wrong), None, "{wrong}");
        }
    }
}
