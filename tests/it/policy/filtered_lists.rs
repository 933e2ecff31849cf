//! A list of counters reaches a caller that may see some of them with these only.

use crate::harness::{Gate, Upstream};
use crate::response::reflection::gzip;

const CALLERS: &str = "
listeners:
  - {name: app, address: '127.0.0.1:0'}
  - {name: refuse, address: '127.0.0.1:0'}
  - {name: all, address: '127.0.0.1:0'}
callers:
  - {id: some, match: {listener: app}, scopes: [metrika:read], tokens: [analytics], counters: [2, 30], list: filter}
  - {id: refuse, match: {listener: refuse}, scopes: [metrika:read], tokens: [analytics], counters: [2, 30]}
  - {id: all, match: {listener: all}, scopes: [metrika:read], tokens: [analytics]}
";

const LIST: &str = r#"{ "rows" : 3 , "counters" : [ {"id":1,"name":"a"}, {"id" : 2, "n":1.50e3, "name":"\"}]"} ,
{"id":30,"site":{"id":1}}], "next":[1], "_profile":{"id":1} }"#;

const LEFT: &str = r#"{ "rows" : 3 , "counters" : [ {"id" : 2, "n":1.50e3, "name":"\"}]"},
{"id":30,"site":{"id":1}}], "next":null, "_profile":null }"#;

/// Responds as the path asks.
fn metrica() -> Upstream {
    Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            let json = "Content-Type: application/json; charset=utf-8\r\nETag: \"whole\"\r\n";
            let is_head = head.starts_with("HEAD");
            let case = head.split("lang=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
            match case {
                "chunks" => {
                    conversation.write(format!("HTTP/1.1 200 OK\r\n{json}Transfer-Encoding: chunked\r\n\r\n"));
                    for piece in LIST.as_bytes().chunks(3) {
                        conversation.write([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
                    }
                    conversation.write("0\r\n\r\n");
                }
                "packed" => {
                    let body = gzip(LIST.as_bytes());
                    let length = body.len();
                    conversation.write(format!(
                        "HTTP/1.1 200 OK\r\n{json}Content-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n"
                    ));
                    conversation.write(body);
                }
                "text" => conversation.answer("200 OK", "text/plain", LIST),
                "none" => conversation.answer(
                    "200 OK",
                    "application/json",
                    r#"{"counters":[{"id":1}],"counters":[{"id":1}]}"#,
                ),
                "cut" => conversation.answer("200 OK", "application/json", &LIST[..80]),
                "broken" => {
                    conversation.write(format!("HTTP/1.1 200 OK\r\n{json}Content-Length: 500\r\n\r\n"));
                    conversation.close();
                    return;
                }
                "denied" => conversation.answer(
                    "403 Forbidden",
                    "application/json",
                    r#"{"errors":[{"error_type":"access_denied"}]}"#,
                ),
                _ => {
                    let length = LIST.len();
                    conversation.write(format!("HTTP/1.1 200 OK\r\n{json}Content-Length: {length}\r\n\r\n"));
                    if !is_head {
                        conversation.write(LIST);
                    }
                }
            };
        }
    })
}

fn path(case: &str) -> String {
    format!("/management/v1/counters?lang={case}")
}

#[test]
fn only_the_callers_own_counters_come_through() {
    let upstream = metrica();
    let gate = Gate::start(&upstream, CALLERS);
    for case in ["whole", "chunks"] {
        let answer = gate.get("app", &path(case));
        assert_eq!((answer.summary().as_str(), answer.text().as_str()), ("200", LEFT), "{case}");
        assert_eq!((answer.field("etag"), answer.field("content-length")), (None, None), "of the whole list");
        assert_eq!(gate.get("all", &path(case)).text(), LIST, "{case}: others see all of it");
    }
    assert!(upstream.requests()[0].to_lowercase().contains("accept-encoding: identity"), "it is asked for unpacked");
    let mut caller = gate.connect("app");
    caller.send(format!("HEAD {} HTTP/1.1\r\nHost: localhost\r\n\r\n", path("whole")));
    let head = caller.answer_to_head();
    assert_eq!((head.summary().as_str(), head.field("content-length"), head.field("etag")), ("200", None, None));
    // A search would find, and count, counters of others.
    for query in
        ["search_string=a", "status=Active", "permission=own", "lang=whole&type=simple", "sort=Visits;search_string=a"]
    {
        let answer = gate.get("app", &format!("/management/v1/counters?{query}"));
        assert_eq!(answer.summary(), "403 list_denied", "{query}");
    }
    assert_eq!(gate.get("app", "/management/v1/counters?per_page=2&offset=1&pretty=1").summary(), "200");
    // A caller that names its own counters may choose and sort among these, also without `list: filter`.
    let own =
        "counter_ids=2,30&permission=own&type=simple&status=Active&favorite=1&search_string=b&sort=Visits&reverse=1";
    for listener in ["app", "refuse"] {
        let answer = gate.get(listener, &format!("/management/v1/counters?{own}&per_page=9&offset=1"));
        assert_eq!((answer.summary().as_str(), answer.text().as_str()), ("200", LEFT), "{listener}");
        assert!(upstream.requests().pop().unwrap().contains(own), "it goes out as it came");
        for other in ["counter_ids=2,1", "counter_ids=", "counter_ids=2&counter_ids=1"] {
            let refused = gate.get(listener, &format!("/management/v1/counters?{other}&sort=Visits"));
            assert_eq!(refused.summary(), "403 counter_denied", "{listener} {other}");
        }
    }
    let denied = gate.get("app", &path("denied"));
    assert_eq!((denied.status, denied.text().as_str()), (403, r#"{"errors":[{"error_type":"access_denied"}]}"#));
}

#[test]
fn a_response_that_cannot_be_inspected_is_refused() {
    let upstream = metrica();
    let gate = Gate::start(&upstream, CALLERS);
    for case in ["packed", "text"] {
        assert_eq!(gate.get("app", &path(case)).summary(), "502 upstream_encoding", "{case}");
    }
    gate.until_metric(&["upstream_errors_total", "kind=\"encoding\""], 2.0);
}

/// A response that turns out to be no list does not end as if it were complete.
#[test]
fn a_response_that_is_no_list_is_cut() {
    let upstream = metrica();
    let gate = Gate::start(&upstream, CALLERS);
    assert_eq!(gate.get("app", &path("none")).summary(), "502 upstream_protocol");
    let mut caller = gate.connect("app");
    caller.send(format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", path("cut")));
    let received = String::from_utf8(caller.rest()).unwrap();
    // The connection may end before a byte of so short an answer is written.
    assert!(received.is_empty() || received.starts_with("HTTP/1.1 200 "), "{received}");
    assert!(!received.ends_with("0\r\n\r\n"), "{received}");
    gate.until_metric(&["upstream_errors_total", "kind=\"protocol\""], 2.0);
    gate.until_log(&["\"access\"", "\"outcome\":\"upstream_cut\""]);
    assert_eq!(gate.get("app", &path("whole")).text(), LEFT, "the next one is whole");
    // A response cut before its beginning is another fault, and counted once.
    assert_eq!(gate.get("app", &path("broken")).summary(), "502 upstream_closed");
    gate.until_metric(&["upstream_errors_total", "kind=\"body_cut\""], 1.0);
    gate.until_metric(&["upstream_errors_total"], 3.0);
}
