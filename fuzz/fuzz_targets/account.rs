//! A service account token is accepted only if its issuer signed exactly its header and claims, and names the account that
//! these name. A key set is read or refused, and gives no token a key that it does not have.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use metrika_gate::policy::service_account::{Algorithm, KeySet, TokenRules, TokenVerifier, has_jwt_form};

/// The public keys of the tokens in the corpus; nobody has the private ones.
const KEYS: &str = include_str!("account.jwks.json");

/// The tokens of the corpus that are valid at [`NOW`].
const VALID: [&str; 3] = [
    include_str!("../corpus/account/good"),
    include_str!("../corpus/account/curve"),
    include_str!("../corpus/account/one-audience"),
];

/// In seconds since 1970.
const NOW: u64 = 1_800_000_000;

static VERIFIER: LazyLock<TokenVerifier> = LazyLock::new(|| TokenVerifier {
    rules: TokenRules {
        issuer: "https://kubernetes.default.svc.cluster.local".into(),
        audience: "metrika-gate".into(),
        algorithms: [Algorithm::RS256, Algorithm::ES256].into(),
    },
    keys: KeySet::parse(KEYS.as_bytes()).expect("a key set"),
});

/// The part of a token that is signed.
fn signed(token: &str) -> &str {
    token.rsplit_once('.').expect("a signature").0
}

fuzz_target!(|bytes: &[u8]| {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    match VERIFIER.verify(bytes, now) {
        Ok(verified) => {
            let token = std::str::from_utf8(bytes).expect("a token is ASCII");
            assert!(has_jwt_form(bytes) && VALID.iter().any(|valid| signed(valid) == signed(token)), "{token}");
            assert_eq!(verified.account.to_string(), "shop/etl");
            assert!(VERIFIER.check_again(&verified, now).is_ok());
            assert!(VERIFIER.check_again(&verified, now + Duration::from_secs(3660)).is_err());
        }
        Err(fault) => {
            assert!(VALID.iter().all(|valid| valid.as_bytes() != bytes), "a valid token is refused: {fault}");
            assert!(fault.to_string().len() < 100, "a refusal does not show what is refused");
        }
    }
    if let Ok(keys) = KeySet::parse(bytes) {
        assert!((1..=64).contains(&keys.len()));
        let shown = format!("{keys:?}");
        let verifier = TokenVerifier { rules: VERIFIER.rules.clone(), keys };
        for valid in VALID {
            if verifier.verify(valid.as_bytes(), now).is_ok() {
                let modulus = KEYS.split('"').filter(|part| part.len() > 40);
                let text = String::from_utf8_lossy(bytes);
                assert!(modulus.into_iter().any(|part| text.contains(part)), "{shown}");
            }
        }
    }
});
