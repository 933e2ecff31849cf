//! Key sets: the public keys with which an issuer signs tokens (RFC 7517), and the algorithms of signatures.
//!
//! 1. Only RSA and EC keys for signatures that have a `kid` are used; others are ignored. A symmetric key would let whoever reads
//!    the set sign tokens.
//! 2. A set without a usable key, or with more than [`MOST_KEYS`] keys, is refused.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The maximum number of keys in a set. Kubernetes publishes a few.
pub const MOST_KEYS: usize = 64;

macro_rules! algorithms {
    ($($name:ident: $family:ident;)*) => {
        /// A signature algorithm (RFC 7518, section 3.1).
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Algorithm {
            $(#[doc = concat!("`", stringify!($name), "`.")] $name,)*
        }

        impl Algorithm {
            /// The number of algorithms.
            const COUNT: usize = [$(Self::$name),*].len();

            /// All algorithms.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$name),*];

            /// Returns the name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            const fn family(self) -> Family {
                match self { $(Self::$name => Family::$family,)* }
            }

            pub(super) const fn of_library(self) -> jsonwebtoken::Algorithm {
                match self { $(Self::$name => jsonwebtoken::Algorithm::$name,)* }
            }
        }
    };
}

algorithms! {
    RS256: Rsa;
    RS384: Rsa;
    RS512: Rsa;
    PS256: Rsa;
    PS384: Rsa;
    PS512: Rsa;
    ES256: EllipticCurve;
    ES384: EllipticCurve;
}

impl Algorithm {
    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }
}

/// A kind of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Rsa,
    EllipticCurve,
}

/// The identity of a key: the SHA-256 of its description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyIdentity([u8; 32]);

/// A public key of a set.
#[derive(Clone)]
pub(super) struct Key {
    name: Box<str>,
    family: Family,
    algorithm: Option<String>,
    pub(super) identity: KeyIdentity,
    pub(super) key: DecodingKey,
}

/// The public keys of an issuer (RFC 7517).
#[derive(Clone)]
pub struct KeySet(Box<[Key]>);

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().map(|key| key.identity).eq(other.0.iter().map(|key| key.identity))
    }
}

impl Eq for KeySet {}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|key| &key.name)).finish()
    }
}

/// The reason why a key set is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// The text is no key set.
    #[error("a JSON object with a list of keys, as the API server returns it at /openid/v1/jwks")]
    Unreadable,
    /// No key can be used.
    #[error("a key set with at least one RSA or EC key for signatures that has a kid; none of its {0} keys is one")]
    NoKey(usize),
    /// There are too many keys.
    #[error("a key set with at most {MOST_KEYS} keys; it has {0}")]
    TooMany(usize),
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl KeySet {
    /// Reads a key set (rules 1 and 2).
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        let Listed { keys: listed } = serde_json::from_slice(json).map_err(|_| KeySetError::Unreadable)?;
        if listed.len() > MOST_KEYS {
            return Err(KeySetError::TooMany(listed.len()));
        }
        let keys: Box<[Key]> = listed.iter().filter_map(|key| Key::read(key.get())).collect();
        if keys.is_empty() { Err(KeySetError::NoKey(listed.len())) } else { Ok(Self(keys)) }
    }

    /// Returns the key with this `kid` for an algorithm.
    pub(super) fn find(&self, name: &str, algorithm: Algorithm) -> Option<&Key> {
        self.0.iter().find(|key| key.fits(name, algorithm))
    }

    /// Whether the set has this key.
    pub(super) fn has(&self, identity: KeyIdentity) -> bool {
        self.0.iter().any(|key| key.identity == identity)
    }

    /// Returns the number of keys.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no keys, which [`Self::parse`] excludes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Key {
    fn read(text: &str) -> Option<Self> {
        let jwk: Jwk = serde_json::from_str(text).ok()?;
        let is_rsa = matches!(jwk.algorithm, AlgorithmParameters::RSA(_));
        let is_curve = matches!(jwk.algorithm, AlgorithmParameters::EllipticCurve(_));
        let family = match (is_rsa, is_curve) {
            (true, _) => Family::Rsa,
            (_, true) => Family::EllipticCurve,
            (false, false) => return None,
        };
        if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            return None;
        }
        let name = jwk.common.key_id.as_deref().filter(|name| !name.is_empty())?.into();
        let algorithm = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
        let mut identity = KeyIdentity([0; 32]);
        let description = serde_json::to_vec(&jwk).ok()?;
        identity.0.iter_mut().zip(digest(&SHA256, &description).as_ref()).for_each(|(own, byte)| *own = *byte);
        Some(Self { name, family, algorithm, identity, key: DecodingKey::from_jwk(&jwk).ok()? })
    }

    /// Whether the key can have signed a token with this `kid` and algorithm.
    fn fits(&self, name: &str, algorithm: Algorithm) -> bool {
        let is_of = |stated: &String| stated == algorithm.as_str();
        *self.name == *name && self.family == algorithm.family() && self.algorithm.as_ref().is_none_or(is_of)
    }
}
