//! Redirects are never followed, and lead a caller that follows them back to the gate or nowhere.

use std::sync::{Arc, Mutex};

use crate::harness::{Answer, Gate, READ_TOKEN, TWO_CALLERS, Upstream};

/// A gate, and a way to see the caller's response to an upstream response with these fields.
struct Site {
    gate: Gate,
    upstream: Upstream,
    answer: Arc<Mutex<String>>,
}

impl Site {
    fn new() -> Self {
        let answer = Arc::new(Mutex::new(String::new()));
        let says = answer.clone();
        let upstream = Upstream::run(move |conversation| {
            while conversation.request_head().is_some() {
                let answer = says.lock().unwrap().clone();
                conversation.write(answer);
            }
        });
        Self { gate: Gate::start(&upstream, TWO_CALLERS), upstream, answer }
    }

    fn answers(&self, status: u16, fields: &str) -> Answer {
        *self.answer.lock().unwrap() = format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: 5\r\n\r\nfirst");
        let before = self.upstream.requests().len();
        let answer = self.gate.get("app", "/management/v1/counters");
        assert_eq!(self.upstream.requests().len(), before + 1, "it is not followed");
        answer
    }
}

const LEAVING: [&str; 14] = [
    "https://evil.example/",
    "//evil.example/",
    "/\\evil.example/",
    "\\\\evil.example",
    "https:evil.example",
    "HTTPS://api-metrika.yandex.net@evil.example/",
    "https://api-metrika.yandex.net@evil.example/",
    "https://user:pass@api-metrika.yandex.net/",
    "https://api-metrika.yandex.net.evil.example/",
    "https://api-metrika.yandex.net:8443/",
    "http://api-metrika.yandex.net/",
    "/\t/evil.example",
    "javascript:alert(1)",
    "",
];

/// what leads away is not passed on.
#[test]
fn a_redirect_that_leaves_is_refused_and_elsewhere_the_field_is_dropped() {
    let site = Site::new();
    for place in LEAVING {
        for status in [300, 301, 302, 303, 307, 308] {
            let answer = site.answers(status, &format!("Location: {place}\r\n"));
            assert_eq!(answer.summary(), "502 upstream_redirect", "{status} {place}");
            assert!(answer.field("location").is_none() && !answer.text().contains("evil"), "{place}");
        }
        for status in [200, 201, 202, 400, 503] {
            let answer = site.answers(status, &format!("Location: {place}\r\n"));
            assert_eq!((answer.status, answer.field("location")), (status, None), "{place}");
            assert_eq!(answer.text(), "first");
        }
    }
    let several = "Location: /a\r\nlocation: //evil.example/\r\n";
    assert_eq!(site.answers(302, several).summary(), "502 upstream_redirect");
    assert_eq!(site.answers(201, several).field("location"), None);
    for field in ["Refresh: 0; url=//evil.example/", "Content-Location: //evil.example/", "Link: <//evil.example/>"] {
        let answer = site.answers(200, &format!("{field}\r\n"));
        assert!(!format!("{:?}", answer.fields).contains("evil"), "{field}");
    }
    assert!(site.gate.metric(&["upstream_errors_total", "kind=\"redirect\""]) > 80.0);
}

/// what stays is passed on so that following it goes through the gate.
#[test]
fn a_redirect_that_stays_goes_through_the_gate() {
    let site = Site::new();
    for (place, expected) in [
        ("/stat/v1/data?ids=1", "/stat/v1/data?ids=1"),
        ("https://api-metrika.yandex.net/stat/v1/data?ids=1#f", "/stat/v1/data?ids=1"),
        ("https://api-metrika.yandex.net", "/"),
        ("/a?oauth_token=other&b=c", "/a?b=c"),
    ] {
        for status in [201, 302, 307] {
            let answer = site.answers(status, &format!("Location: {place}\r\n"));
            assert_eq!((answer.status, answer.field("location")), (status, Some(expected)), "{place}");
            assert_eq!(answer.text(), "first");
        }
    }
    // Not with the token in it, in whatever place.
    for place in [format!("/a?b={READ_TOKEN}"), format!("/{READ_TOKEN}"), format!("/a?oauth_token={READ_TOKEN}")] {
        let answer = site.answers(302, &format!("Location: {place}\r\n"));
        assert_eq!((answer.status, answer.field("location")), (302, None), "{place}");
    }
    assert_eq!(site.answers(302, "").summary(), "302");
}
