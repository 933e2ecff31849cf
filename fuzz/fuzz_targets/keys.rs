//! Wherever a request has a key, and whatever else it has, the key that is read is one that it contains, and anything that claims
//! to be a key and is none refuses the request.
#![no_main]

use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Uri};
use libfuzzer_sys::fuzz_target;
use metrika_gate::gateway::headers::clean_request;
use metrika_gate::policy::caller::KeyHash;
use metrika_gate::policy::key::{LENGTH, is_whole, of_random};
use metrika_gate::policy::offered::{Offered, has_only_keys};
use metrika_gate::policy::rejection::Reason;

/// Puts a key in the place of each digit between two bars, so that whole keys occur.
fn with_keys(text: &[u8]) -> Vec<u8> {
    let mut filled = Vec::new();
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        if let (b'|', [digit, b'|', more @ ..]) = (first, behind) {
            filled.extend(of_random(&[*digit % 62; 43]).map(|key| key.as_bytes().to_vec()).unwrap_or_default());
            rest = more;
        } else {
            filled.push(*first);
            rest = behind;
        }
    }
    filled
}

/// A standard base64 decoder, to the letter of RFC 4648 but for padding and the last bits.
fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u32> = text.iter().map_while(digit).map(u32::from).collect();
    let whole = |four: &[u32]| {
        let number = four.iter().fold(0, |number, digit| number << 6 | digit) << (6 * (4 - four.len()));
        number.to_be_bytes()[1..four.len().max(1)].to_vec()
    };
    digits.chunks(4).flat_map(whole).collect()
}

/// Every key that is whole somewhere in these bytes.
fn keys_in(bytes: &[u8]) -> Vec<KeyHash> {
    bytes.windows(LENGTH).filter(|window| is_whole(window)).map(KeyHash::of).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(with_keys);
    let query = lines.next().and_then(|line| String::from_utf8(line).ok());
    let target = query.as_deref().and_then(|query| format!("/?{query}").parse::<Uri>().ok()).unwrap_or_default();
    let query = target.query().map(str::to_owned);
    let mut fields = HeaderMap::new();
    for (number, line) in lines.enumerate() {
        let name = if number % 2 == 0 { AUTHORIZATION } else { PROXY_AUTHORIZATION };
        if let Ok(value) = HeaderValue::from_bytes(line.trim_ascii()) {
            fields.append(name, value);
        }
    }
    let values: Vec<_> = fields.values().map(|value| value.as_bytes().to_vec()).collect();
    let mut contained = query.as_deref().map_or_else(Vec::new, |query| keys_in(&strict_http::target::plain(query.as_bytes())));
    for value in &values {
        contained.extend(keys_in(value));
        contained.extend(value.splitn(2, |byte| *byte == b' ').flat_map(|part| keys_in(&decoded(part.trim_ascii()))));
    }
    let read = Offered::default().by_request(&fields, &target);
    if read.is_ok() {
        let mut left = query.as_deref().into_iter().flat_map(strict_http::target::others);
        assert!(left.all(|pair| keys_in(&strict_http::target::plain(pair.as_bytes())).is_empty()), "a key leaves");
    }
    match &read {
        Ok(Some(key)) => assert!(contained.contains(key), "a key of nobody"),
        Ok(None) => {
            let claims = |value: &[u8]| value.split(|byte| b" \t,;:=\"'".contains(byte)).any(|word| word.starts_with(b"mgk_"));
            assert!(!values.iter().any(|value| claims(value)), "an offered key is read or refused");
        }
        Err(rejection) => {
            let holds = match rejection.reason {
                Reason::KeysDiffer => contained.iter().any(|key| *key != contained[0]),
                other => other == Reason::KeyUnknown,
            };
            assert!(holds, "{rejection:?}");
        }
    }
    // In a tunnel, the key of the tunnel is one of those of the request.
    let tunnel = KeyHash::of(b"tunnel");
    let inside = Offered::in_tunnel(Some(tunnel)).by_request(&fields, &target);
    match (read, inside) {
        (Ok(None), Ok(Some(key))) => assert_eq!(key, tunnel),
        (Ok(None), other) => panic!("{other:?}"),
        (Ok(Some(_)) | Err(_), Err(_)) => {}
        (read, Ok(inside)) => panic!("{read:?} {inside:?}"),
    }
    // No key leaves.
    let only_keys = has_only_keys(query.as_deref());
    if let Some(query) = &query {
        let left = strict_http::target::credentials(query).count();
        assert!(!only_keys || left > 0);
    }
    let mut up = fields;
    clean_request(&mut up, false, |_| {});
    assert!(up.is_empty());
});
