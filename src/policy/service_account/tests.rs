//! Tests of the verification, with tokens that are signed here.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
    RsaEncoding,
};
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const NOW: u64 = 1_800_000_000;

/// The time of the tests.
pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A new RSA key.
pub fn rsa_key() -> KeyPair {
    KeyPair::generate(KeySize::Rsa2048).unwrap()
}

/// The public key, as a key set has it.
pub fn jwk_of(key: &KeyPair, kid: &str) -> Value {
    let public = key.public_key();
    let [n, e] =
        [public.modulus().big_endian_without_leading_zero(), public.exponent().big_endian_without_leading_zero()];
    json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": encoded(n), "e": encoded(e)})
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
}

/// A verifier with these keys, for RS256.
pub fn verifier(keys: &[Value]) -> TokenVerifier {
    let rules =
        TokenRules { issuer: ISSUER.into(), audience: "metrika-gate".into(), algorithms: [Algorithm::RS256].into() };
    TokenVerifier { rules, keys: set(keys) }
}

/// What Kubernetes writes into a token.
fn claims() -> Value {
    json!({
        "aud": ["metrika-gate"],
        "exp": NOW + 3600,
        "iat": NOW,
        "iss": ISSUER,
        "jti": "9b7c2f0e",
        "kubernetes.io": {"namespace": "shop", "pod": {"name": "etl-1", "uid": "1"}, "serviceaccount": {"name": "etl", "uid": "2"}},
        "nbf": NOW,
        "sub": "system:serviceaccount:shop:etl",
    })
}

/// The header of a token of the key `one`.
pub fn header() -> Value {
    json!({"alg": "RS256", "kid": "one"})
}

fn signed_with(key: &KeyPair, encoding: &'static dyn RsaEncoding, header: &Value, claims: &str) -> String {
    let message = format!("{}.{}", encoded(header.to_string()), encoded(claims));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(encoding, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    format!("{message}.{}", encoded(signature))
}

/// A token, signed with RS256.
pub fn signed(key: &KeyPair, header: &Value, claims: &Value) -> String {
    signed_with(key, &RSA_PKCS1_SHA256, header, &claims.to_string())
}

/// The claims with another value of one; `null` removes it.
pub fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

#[test]
fn a_token_of_kubernetes_names_its_account() {
    let key = rsa_key();
    let verifier = verifier(&[jwk_of(&rsa_key(), "other"), jwk_of(&key, "one")]);
    let verify = |claims: &Value| verifier.verify(signed(&key, &header(), claims).as_bytes(), now());
    assert_eq!(verify(&claims()).unwrap().account.to_string(), "shop/etl");
    assert_eq!(verify(&with("aud", json!("metrika-gate"))).unwrap().account.to_string(), "shop/etl");
    assert_eq!(verify(&with("kubernetes.io", Value::Null)).unwrap().account.to_string(), "shop/etl");
    assert!(verify(&with("nbf", Value::Null)).is_ok() && verify(&with("exp", json!(1_800_000_000.5))).is_ok());
}

#[test]
fn rule_1_a_token_is_one_jwt_of_bounded_length() {
    let key = rsa_key();
    let verifier = verifier(&[jwk_of(&key, "one")]);
    let good = signed(&key, &header(), &claims());
    let verify = |token: &str| verifier.verify(token.as_bytes(), now()).map(drop);
    assert!(has_jwt_form(good.as_bytes()) && verify(&good).is_ok());
    let long = signed(&key, &header(), &with("jti", json!("x".repeat(LONGEST))));
    for wrong in [
        "",
        ".",
        "..",
        "a.b.c",
        "y0_AgAAAA.b.c",
        "mgk_a.b.c",
        &good[1..],
        &format!("{good}="),
        &format!("{good}.a"),
        &format!(" {good}"),
        &format!("Bearer {good}"),
        &good.replace('.', ""),
        &format!("{good}\n"),
        &long,
    ] {
        assert_eq!(verify(wrong), Err(TokenFault::Malformed), "{wrong:.40}");
    }
    let repeated = claims().to_string().replacen('{', "{\"sub\":\"system:serviceaccount:shop:admin\",", 1);
    for claims in [&repeated, "[]", "{", "\"a\""] {
        let token = signed_with(&key, &RSA_PKCS1_SHA256, &header(), claims);
        assert_eq!(verify(&token), Err(TokenFault::Malformed), "{claims}");
    }
    let critical = signed(&key, &json!({"alg": "RS256", "kid": "one", "crit": ["exp"]}), &claims());
    assert_eq!(verify(&critical), Err(TokenFault::Malformed), "an extension that is not known");
    // The library knows this one.
    let known = json!({"alg": "RS256", "kid": "one", "crit": ["b64"], "b64": true});
    assert_eq!(verify(&signed(&key, &known, &claims())), Err(TokenFault::Malformed));
}

#[test]
fn rule_2_the_configuration_fixes_the_algorithm_and_kid_names_the_key() {
    let (key, other) = (rsa_key(), rsa_key());
    let (of_key, of_other) = (jwk_of(&key, "one"), jwk_of(&other, "two"));
    let verifier = verifier(&[of_key.clone(), of_other]);
    let verify = |token: &str| verifier.verify(token.as_bytes(), now()).map(drop);
    let claimed = |header: Value| signed(&key, &header, &claims());
    assert_eq!(verify(&claimed(json!({"alg": "RS256", "kid": "two"}))), Err(TokenFault::Signature));
    for header in [json!({"alg": "RS256"}), json!({"alg": "RS256", "kid": "three"}), json!({"alg": "RS256", "kid": ""})]
    {
        assert_eq!(verify(&claimed(header.clone())), Err(TokenFault::UnknownKey), "{header}");
    }
    for (encoding, algorithm) in
        [(&RSA_PKCS1_SHA512, "RS512"), (&RSA_PSS_SHA256, "PS256"), (&RSA_PKCS1_SHA256, "rs256")]
    {
        let header = json!({"alg": algorithm, "kid": "one"});
        assert_eq!(verify(&signed_with(&key, encoding, &header, &claims().to_string())), Err(TokenFault::Algorithm));
    }
    // A signature that needs no key, and one whose key everyone has: the public key as a secret.
    let message = |header: &Value| format!("{}.{}", encoded(header.to_string()), encoded(claims().to_string()));
    for algorithm in ["none", "None", "NONE", ""] {
        let header = json!({"alg": algorithm, "kid": "one"});
        assert_eq!(verify(&format!("{}.", message(&header))), Err(TokenFault::Algorithm), "{algorithm}");
        assert_eq!(verify(&format!("{}.AAAA", message(&header))), Err(TokenFault::Algorithm), "{algorithm}");
    }
    let header = json!({"alg": "HS256", "kid": "one"});
    let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, of_key["n"].as_str().unwrap().as_bytes());
    let tag = aws_lc_rs::hmac::sign(&secret, message(&header).as_bytes());
    assert_eq!(verify(&format!("{}.{}", message(&header), encoded(tag))), Err(TokenFault::Algorithm));
    // Another algorithm that is configured does not fit the key either.
    let wide = TokenVerifier {
        rules: TokenRules { algorithms: Algorithm::ALL.into(), ..verifier.rules.clone() },
        keys: set(&[of_key]),
    };
    let header = json!({"alg": "RS512", "kid": "one"});
    let token = signed_with(&key, &RSA_PKCS1_SHA512, &header, &claims().to_string());
    assert_eq!(wide.verify(token.as_bytes(), now()), Err(TokenFault::UnknownKey), "the key is for RS256");
    let token = claimed(json!({"alg": "ES256", "kid": "one"}));
    assert_eq!(wide.verify(token.as_bytes(), now()), Err(TokenFault::UnknownKey), "the key is RSA");
}

#[test]
fn rule_2_elliptic_curves_are_an_algorithm_too() {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap();
    let [x, y] = [1..33, 33..65].map(|range| encoded(&key.public_key().as_ref()[range]));
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "one", "x": x, "y": y});
    let message =
        format!("{}.{}", encoded(json!({"alg": "ES256", "kid": "one"}).to_string()), encoded(claims().to_string()));
    let token = format!("{message}.{}", encoded(key.sign(&random, message.as_bytes()).unwrap()));
    let rules = TokenRules { algorithms: [Algorithm::ES256].into(), ..verifier(std::slice::from_ref(&jwk)).rules };
    let verifier = TokenVerifier { rules, keys: set(std::slice::from_ref(&jwk)) };
    assert_eq!(verifier.verify(token.as_bytes(), now()).unwrap().account.to_string(), "shop/etl");
    let changed =
        token.replace(&message[..10], &encoded(json!({"alg": "ES256", "kid": "one", "a": 1}).to_string())[..10]);
    assert!(verifier.verify(changed.as_bytes(), now()).is_ok() == (changed == token));
}

#[test]
fn rule_3_a_changed_token_is_refused() {
    let key = rsa_key();
    let verifier = verifier(&[jwk_of(&key, "one")]);
    let good = signed(&key, &header(), &claims());
    let [head, body, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let verify = |token: &str| verifier.verify(token.as_bytes(), now()).map(drop);
    let other = encoded(with("sub", json!("system:serviceaccount:shop:admin")).to_string());
    assert_eq!(verify(&format!("{head}.{other}.{signature}")), Err(TokenFault::Signature));
    let spaced = encoded("{\"alg\":\"RS256\", \"kid\":\"one\"}");
    assert_eq!(verify(&format!("{spaced}.{body}.{signature}")), Err(TokenFault::Signature));
    for cut in [0, 4, signature.len() - 4] {
        let fault = verify(&format!("{head}.{body}.{}", &signature[..cut])).unwrap_err();
        // A length that base64 does not have is no JWT.
        assert!(matches!(fault, TokenFault::Signature | TokenFault::Malformed), "{cut} {fault}");
    }
    let foreign = signed(&rsa_key(), &header(), &claims());
    assert_eq!(verify(&foreign), Err(TokenFault::Signature), "another key with this kid");
    // An expired token with a wrong signature is refused for its signature.
    let expired = signed(&rsa_key(), &header(), &with("exp", json!(1)));
    assert_eq!(verify(&expired), Err(TokenFault::Signature));
}

#[test]
fn rule_4_claims_are_required_and_have_a_tolerance() {
    let key = rsa_key();
    let verifier = verifier(&[jwk_of(&key, "one")]);
    let verify = |claims: &Value| verifier.verify(signed(&key, &header(), claims).as_bytes(), now()).map(drop);
    let leeway = LEEWAY.as_secs();
    for (name, value, expected) in [
        ("iss", json!("https://elsewhere"), TokenFault::Issuer),
        ("iss", Value::Null, TokenFault::Issuer),
        ("iss", json!(format!("{ISSUER}/")), TokenFault::Issuer),
        ("aud", json!(["https://kubernetes.default.svc"]), TokenFault::Audience),
        ("aud", json!([]), TokenFault::Audience),
        ("aud", json!("metrika-gate-2"), TokenFault::Audience),
        ("aud", Value::Null, TokenFault::Audience),
        ("exp", Value::Null, TokenFault::Expired),
        ("exp", json!(NOW - leeway), TokenFault::Expired),
        ("exp", json!(-1), TokenFault::Expired),
        ("exp", json!(1e300), TokenFault::Expired),
        ("nbf", json!(NOW + leeway + 1), TokenFault::NotYetValid),
        ("nbf", json!(1e300), TokenFault::NotYetValid),
        ("sub", Value::Null, TokenFault::Subject),
    ] {
        assert_eq!(verify(&with(name, value.clone())), Err(expected), "{name} {value}");
    }
    assert_eq!(verify(&with("exp", json!(NOW - leeway + 1))), Ok(()));
    assert_eq!(verify(&with("nbf", json!(NOW + leeway))), Ok(()));
    assert_eq!(verify(&with("aud", json!(["a", "metrika-gate", "b"]))), Ok(()));
    for (name, value) in [("aud", json!(7)), ("exp", json!("1800003600")), ("iss", json!(["a"]))] {
        assert_eq!(verify(&with(name, value)), Err(TokenFault::Malformed), "{name}");
    }
}

#[test]
fn rule_5_the_subject_is_a_service_account() {
    let key = rsa_key();
    let verifier = verifier(&[jwk_of(&key, "one")]);
    let verify = |claims: &Value| verifier.verify(signed(&key, &header(), claims).as_bytes(), now()).map(drop);
    for subject in [
        "shop:etl",
        "system:serviceaccount:shop",
        "system:serviceaccount::etl",
        "system:serviceaccount:shop:etl:a",
        "system:serviceaccount:shop/a:etl",
        "system:node:etl",
        "",
        "system:serviceaccount:Shop:etl",
    ] {
        let mut claims = with("sub", json!(subject));
        claims.as_object_mut().unwrap().remove("kubernetes.io");
        assert_eq!(verify(&claims), Err(TokenFault::Subject), "{subject}");
    }
    for claim in [
        json!({"namespace": "other", "serviceaccount": {"name": "etl"}}),
        json!({"namespace": "shop", "serviceaccount": {"name": "other"}}),
    ] {
        assert_eq!(verify(&with("kubernetes.io", claim.clone())), Err(TokenFault::Subject), "{claim}");
    }
}

#[test]
fn rule_6_a_verified_token_holds_until_it_expires_and_while_its_key_is_there() {
    let (key, next) = (rsa_key(), rsa_key());
    let before = verifier(&[jwk_of(&key, "one")]);
    let verified = before.verify(signed(&key, &header(), &claims()).as_bytes(), now()).unwrap();
    let end = now() + Duration::from_secs(3600) + LEEWAY;
    assert_eq!(before.check_again(&verified, end - Duration::from_secs(1)), Ok(()));
    assert_eq!(before.check_again(&verified, end), Err(TokenFault::Expired));
    let during = verifier(&[jwk_of(&next, "two"), jwk_of(&key, "one")]);
    assert_eq!(during.check_again(&verified, now()), Ok(()));
    for keys in [[jwk_of(&next, "two")], [jwk_of(&next, "one")]] {
        assert_eq!(
            verifier(&keys).check_again(&verified, now()),
            Err(TokenFault::UnknownKey),
            "another key, also with this kid"
        );
    }
}

#[test]
fn key_sets_have_public_keys_for_signatures_only() {
    let good = jwk_of(&rsa_key(), "one");
    let changed = |name: &str, value: Value| {
        let mut key = good.clone();
        key[name] = value;
        key
    };
    let ignored = [
        json!({"kty": "oct", "kid": "secret", "alg": "HS256", "k": "c2VjcmV0"}),
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
        changed("use", json!("enc")),
        changed("kid", Value::Null),
        changed("kid", json!("")),
        changed("n", json!("*")),
        json!({"kty": "new", "kid": "a"}),
        json!("no key"),
    ];
    let all: Vec<_> = ignored.iter().chain([&good]).cloned().collect();
    assert_eq!((set(&all).len(), format!("{:?}", set(&all)).as_str()), (1, "{\"one\"}"));
    assert_eq!(set(&all), set(std::slice::from_ref(&good)));
    let parse = |value: Value| KeySet::parse(value.to_string().as_bytes()).unwrap_err();
    assert_eq!(parse(json!({"keys": ignored})), KeySetError::NoKey(ignored.len()));
    assert_eq!(parse(json!({"keys": []})), KeySetError::NoKey(0));
    assert_eq!(parse(json!({"keys": vec![good; 65]})), KeySetError::TooMany(65));
    for unreadable in
        [json!([]), json!({}), json!({"keys": 1}), json!({"kind": "Status", "status": "Failure", "code": 401})]
    {
        assert_eq!(parse(unreadable), KeySetError::Unreadable);
    }
}
