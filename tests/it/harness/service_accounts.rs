//! A stand-in for the issuer of Kubernetes service account tokens, which signs without the libraries of the gate's verifier.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The issuer in configurations of tests.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The audience in configurations of tests.
pub const AUDIENCE: &str = "metrika-gate";

/// A key of the issuer.
pub struct Signer {
    key: KeyPair,
    kid: String,
}

/// Seconds since 1970.
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

impl Signer {
    pub fn new(kid: &str) -> Self {
        Self { key: KeyPair::generate(KeySize::Rsa2048).unwrap(), kid: kid.to_owned() }
    }

    /// The public key, as in a key set.
    pub fn jwk(&self) -> Value {
        let public = self.key.public_key();
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let modulus = encoded(public.modulus().big_endian_without_leading_zero());
        let exponent = encoded(public.exponent().big_endian_without_leading_zero());
        json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": modulus, "e": exponent})
    }

    /// A token of `namespace:name` for an hour, with other claims in the place of some.
    pub fn token(&self, account: &str, others: &Value) -> String {
        let (namespace, name) = account.split_once('/').unwrap();
        let mut claims = json!({
            "aud": [AUDIENCE],
            "exp": now() + 3600,
            "iat": now(),
            "iss": ISSUER,
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": "1"}},
            "nbf": now(),
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
        });
        for (name, value) in others.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.signed(&json!({"alg": "RS256", "kid": self.kid}), &claims)
    }

    /// A signed token.
    pub fn signed(&self, header: &Value, claims: &Value) -> String {
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let message = format!("{header}.{claims}");
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A key set.
pub fn key_set(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string()
}
