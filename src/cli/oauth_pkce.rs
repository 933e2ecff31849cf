//! The proof that the exchange of a code belongs to the request for it (RFC 7636).

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// A verifier, which only its exchange sends.
pub struct Verifier(Zeroizing<String>);

impl Verifier {
    /// Returns a new random verifier.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new() -> anyhow::Result<Self> {
        super::oauth::random().map(|text| Self(Zeroizing::new(text)))
    }

    /// Returns the challenge, for the page.
    #[must_use]
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.0.as_bytes()))
    }

    /// Returns the verifier, for the exchange.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard() {
        let verifier = Verifier(Zeroizing::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned()));
        assert_eq!(verifier.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn verifiers_differ_and_have_the_alphabet_and_length_of_the_standard() {
        let (one, other) = (Verifier::new().unwrap(), Verifier::new().unwrap());
        assert!(one.text() != other.text() && one.text().len() == 43);
        assert!(one.text().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    }
}
