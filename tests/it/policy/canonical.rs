//! The canonical request: what published clients write in another form goes upstream in one, which policy has read; a caller with
//! `strict: true` is told instead.

use crate::harness::h2::{Fate, H2, HEADERS, WHOLE, block, request};
use crate::harness::{Gate, Upstream};

const CALLERS: &str = "
listeners:
  - {name: app, address: '127.0.0.1:0', http2: true}
  - {name: strict, address: '127.0.0.1:0', http2: true}
  - {name: shop, address: '127.0.0.1:0'}
callers:
  - {id: app, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}
  - {id: strict, match: {listener: strict}, scopes: [metrika:read], tokens: [analytics], strict: true}
  - {id: shop, match: {listener: shop}, scopes: [metrika:read], tokens: [analytics], counters: [101, 102]}
";

/// The target that a client sends, and the one that goes upstream.
const FORMS: [(&str, &str, &str); 14] = [
    ("/stat/v1/data/?ids=1", "/stat/v1/data?ids=1", "the path ends with a slash"),
    ("//management/v1/counters", "/management/v1/counters", "two consecutive slashes"),
    ("http://localhost//management/v1/counters/", "/management/v1/counters", "two consecutive slashes"),
    ("/management/v1/counters?callback=", "/management/v1/counters", "callback has no value"),
    ("/management/v1/counters?field=goals&callback", "/management/v1/counters?field=goals", "callback has no value"),
    (
        "/stat/v1/data?ids=1&metrics=ym:s:<attribution>TrafficSource",
        "/stat/v1/data?ids=1&metrics=ym:s:%3Cattribution%3ETrafficSource",
        "percent-encoded",
    ),
    ("/stat/v1/data?filters=ym:s:visits>10", "/stat/v1/data?filters=ym:s:visits%3E10", "percent-encoded"),
    ("/stat/v1/data?filters=a==\"b\"", "/stat/v1/data?filters=a==%22b%22", "percent-encoded"),
    ("/stat/v1/data?filters=a=='\u{41c}'", "/stat/v1/data?filters=a=='%D0%9C'", "percent-encoded"),
    ("/stat/v1/data?ids=1&metrics=a&ids=2&metrics=b", "/stat/v1/data?ids=1,2&metrics=a,b", "is repeated"),
    ("/stat/v1/data?dimensions=a&dimensions=b", "/stat/v1/data?dimensions=a,b", "is repeated"),
    (
        "/management/v1/counter/1/logrequests/evaluate?fields=a&fields=b",
        "/management/v1/counter/1/logrequests/evaluate?fields=a,b",
        "is repeated",
    ),
    ("/stat/v1/data?ids=101,%20102", "/stat/v1/data?ids=101,102", "a space"),
    ("/stat/v1/data?ids=+101", "/stat/v1/data?ids=101", "a space"),
];

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// The targets that Metrica was asked for.
fn targets(upstream: &Upstream) -> Vec<String> {
    let requests = upstream.requests();
    requests.iter().map(|head| head.split(' ').nth(1).unwrap_or_default().to_owned()).collect()
}

#[test]
fn each_form_goes_upstream_in_the_canonical_one() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    for (sent, canonical, _) in FORMS {
        assert_eq!(gate.get("app", sent).summary(), "200", "{sent}");
        assert_eq!(targets(&upstream).pop().as_deref(), Some(canonical), "{sent}");
    }
}

#[test]
fn a_strict_caller_gets_the_rule_in_the_response() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    for (sent, _, rule) in FORMS {
        let answer = gate.get("strict", sent);
        assert_eq!(answer.summary(), "400 bad_target", "{sent}");
        assert!(answer.text().contains(rule), "{sent}: {}", answer.text());
    }
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    for (_, canonical, _) in FORMS {
        assert_eq!(gate.get("strict", canonical).summary(), "200", "{canonical}");
    }
}

#[test]
fn a_request_line_may_arrive_in_any_pieces() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    let sent = "/stat/v1/data?filters=a=='\u{41c}'<\"b";
    let request = get(sent).into_bytes();
    for cut in 1..request.len() {
        let mut caller = gate.connect("app");
        let (first, rest) = request.split_at(cut);
        caller.send(first);
        std::thread::sleep(std::time::Duration::from_millis(3));
        caller.send(rest);
        assert_eq!(caller.answer().summary(), "200", "{cut}");
        assert_eq!(targets(&upstream).pop().unwrap(), "/stat/v1/data?filters=a=='%D0%9C'%3C%22b", "{cut}");
    }
}

#[test]
fn each_request_on_a_connection_is_decided_in_its_original_form() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    let (plain, raw) = (get("/stat/v1/data?filters=a"), get("/stat/v1/data?filters=<a>"));
    let mut caller = gate.connect("strict");
    caller.send([&plain[..], &raw, &plain, &raw, &raw, &plain].concat());
    let answers: Vec<_> = (0..6).map(|_| caller.answer().summary()).collect();
    assert_eq!(answers, ["200", "400 bad_target", "200", "400 bad_target", "400 bad_target", "200"]);
    assert_eq!(targets(&upstream), vec!["/stat/v1/data?filters=a"; 3]);
    let mut caller = gate.connect("app");
    caller.send([&raw[..], &plain, &raw, &raw].concat());
    assert!((0..4).all(|_| caller.answer().summary() == "200"));
    let encoded = "/stat/v1/data?filters=%3Ca%3E";
    assert_eq!(targets(&upstream)[3..], [encoded, "/stat/v1/data?filters=a", encoded, encoded]);
}

#[test]
fn raw_text_over_http2_is_encoded_too() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    for (listener, fate) in [("app", Fate::Answered(200)), ("strict", Fate::Answered(400))] {
        let mut caller = H2::connect(gate.place(listener));
        caller.frame(HEADERS, WHOLE, 1, block(request("GET", "/stat/v1/data?filters=a=='\u{41c}'")));
        assert_eq!(caller.fate(1), fate, "{listener}");
    }
    assert_eq!(targets(&upstream), ["/stat/v1/data?filters=a=='%D0%9C'"]);
    // The parser of HTTP/2 refuses these before the gate sees them.
    for raw in ["<", ">", "\""] {
        let mut caller = H2::connect(gate.place("app"));
        caller.frame(HEADERS, WHOLE, 1, block(request("GET", &format!("/stat/v1/data?filters={raw}"))));
        assert_eq!(caller.fate(1), Fate::Reset(1), "{raw}");
    }
    assert_eq!(upstream.requests().len(), 1);
}

/// Policy reads the outgoing target.
#[test]
fn rules_hold_for_the_canonical_form() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    for (sent, expected) in [
        ("/stat/v1/data?ids=101&ids=102", "200"),
        ("/stat/v1/data?ids=101,%20102", "200"),
        ("/stat/v1/data/?ids=101", "200"),
        ("//management/v1/counter/101/goals/?callback=", "200"),
        ("/stat/v1/data?ids=101&ids=103", "403 counter_denied"),
        ("/stat/v1/data?ids=103&ids=101", "403 counter_denied"),
        ("/stat/v1/data?ids=101,+103", "403 counter_denied"),
        ("//management/v1/counter/103/", "403 counter_denied"),
        ("/stat/v1/data?ids=&ids=", "403 counter_denied"),
        ("/stat/v1/data?ids=101&callback=x", "403 callback_denied"),
        ("/stat/v1/data?ids=101&\u{ff49}ds=103", "403 counter_denied"),
    ] {
        let before = upstream.requests().len();
        assert_eq!(gate.get("shop", sent).summary(), expected, "{sent}");
        assert_eq!(upstream.requests().len() > before, expected == "200", "{sent}");
    }
}

#[test]
fn ambiguous_targets_are_refused() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    for (sent, kind) in [
        ("/stat/v1/data?filters=a b", "raw_space"),
        ("/stat/v1/data?filters=<a b>", "raw_space"),
        ("/stat/v1/<data>", "path_character"),
        ("/stat/v1/data?a#b<", "query_character"),
        ("/stat/v1/nothing/", "trailing_slash"),
        ("/stat/v1/data?id=1&id=2", "parameter_twice"),
    ] {
        let answer = gate.get("app", sent);
        assert_eq!(answer.status, 400, "{sent}");
        gate.until_log(&[kind, answer.field("x-request-id").unwrap()]);
    }
    // Text that is not UTF-8, and a line without an end.
    let answer = gate.send("app", b"GET /a?b=\xe0\xe1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(answer.summary(), "400 bad_target");
    let answer = gate.send("app", ["GET /a?b=", &"<".repeat(100_000)].concat());
    assert_eq!(answer.summary(), "414 target_too_long");
    // Withheld text is examined once more, however long it is.
    let long = "x".repeat(20_000);
    for (line, expected) in [
        (format!("GET /a?b=<{long} b> HTTP/1.1"), "400 malformed_request"),
        (format!("GET /a?b=<{long} HTTP/1.<"), "400 malformed_request"),
        (format!("GET /a<?b=<{long} HTTP/1.1"), "400 bad_target"),
    ] {
        let answer = gate.send("app", format!("{line}\r\nHost: localhost\r\n\r\n"));
        assert_eq!(answer.summary(), expected, "{}", &line[line.len() - 20..]);
    }
    let text = [b"GET /a?b=<", long.as_bytes(), b"\xe0 HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat();
    assert_eq!(gate.send("app", text).summary(), "400 bad_target");
    assert_eq!(gate.get("app", &format!("/stat/v1/data?filters=<{}", &long[..9000])).summary(), "200");
    let answer = gate.get("app", &["/stat/v1/data?filters=", &"<".repeat(30_000)].concat());
    assert_eq!(answer.summary(), "414 target_too_long", "encoded, it has three times the length");
    assert_eq!(upstream.requests().len(), 1, "nothing else was sent upstream");
}
