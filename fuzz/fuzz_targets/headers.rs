//! Whatever fields a request has, none that names a person, a route or a credential goes to Metrica.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use metrika_gate::body::fields::clean_trailers;
use metrika_gate::gateway::headers::clean_request;
use metrika_gate::response::fields::clean_response;

const NEVER_UP: [&str; 12] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "host",
    "connection",
    "upgrade",
    "http2-settings",
    "te",
    "forwarded",
    "via",
    "transfer-encoding",
    "x-http-method-override",
];

fn fields(bytes: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            fields.append(name, value);
        }
    }
    fields
}

fn nominated(fields: &HeaderMap) -> Vec<String> {
    let values = fields.get_all("connection").iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let values: Vec<_> = values.collect();
    values.iter().flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let before = fields(bytes);
    let named = nominated(&before);

    let mut up = before.clone();
    let mut dropped = 0;
    clean_request(&mut up, false, |_| dropped += 1);
    for name in up.keys().map(HeaderName::as_str) {
        assert!(!NEVER_UP.contains(&name) && !name.starts_with("x-forwarded") && !name.contains("token"), "{name}");
        assert!(!named.iter().any(|named| named == name), "{name} is of this hop");
    }
    assert!(dropped > 0 || !before.contains_key("authorization"), "a credential is counted");

    let mut down = before.clone();
    clean_response(&mut down);
    for name in down.keys().map(HeaderName::as_str) {
        assert!(!["set-cookie", "connection", "transfer-encoding", "upgrade", "alt-svc"].contains(&name), "{name}");
        assert!(!name.starts_with("x-gate-") && !named.iter().any(|named| named == name), "{name}");
    }

    let mut trailers = before;
    clean_trailers(&mut trailers);
    for name in trailers.keys().map(HeaderName::as_str) {
        assert!(!NEVER_UP.contains(&name) && name != "content-length", "{name}");
    }
});
