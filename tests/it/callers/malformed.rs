//! Every kind of malformed request: one log line has its kind, the listener, the peer and the id of the response; the
//! response names the rule; neither holds anything of the request.

use std::collections::BTreeSet;
use std::fmt::Write;

use metrika_gate::policy::rejection::Reason;
use serde_json::Value;
use strict_http::Malformed;
use strict_http::target::Rule;

use crate::harness::files::same_as_file;
use crate::harness::h2::*;
use crate::harness::{Caller, Gate, TWO_CALLERS, TWO_CALLERS_HTTP2, Upstream};
use crate::policy::rejections::without_place;

/// A value that occurs in the requests and nowhere else.
const SECRET: &str = "y0_canarySECRETcanary";

/// Bytes, and their kind. `§` is replaced by the rest of a good header, `¶` by the header of a request with chunks, and `…`
/// by 70,000 letters.
const ROWS: [(&str, &str); 109] = [
    ("tls_handshake", "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03"),
    // The random bytes of a handshake can have the end of a line among them.
    ("tls_handshake", "\x16\x03\x01\n\0\x01"),
    ("tls_record", "\x15\x03\x03\0\x02\x02\x28"),
    ("tls_record", "\x17\x03\x03\0\x04\r\n\r\n"),
    ("plain_text", "GET /a HTTP/1.1\r\n§"),
    ("connect_target", "CONNECT localhost HTTP/1.1\r\n\r\n"),
    ("connect_with_body", "CONNECT localhost:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"),
    ("http2_preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("proxy_protocol_v1", "PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\nGET /a HTTP/1.1\r\n§"),
    ("proxy_protocol_v1", "PROXY TCP6 2001:db8::1 2001:db8::2 5000 80\r\nGET /a HTTP/1.1\r\n§"),
    ("proxy_protocol_v1", "PROXY UNKNOWN\r\nGET /a HTTP/1.1\r\n§"),
    (
        "proxy_protocol_v2",
        "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\x13\x08\0\x50GET /a HTTP/1.1\r\n§",
    ),
    ("socks4", "\x04\x01\0\x50\x7f\0\0\x01\0"),
    ("socks5", "\x05\x02\0\x02"),
    ("http_response", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("binary_data", "\0\0\0\0\r\n\r\n"),
    ("binary_data", "\r\n\r\n\0\0\0\r\n\r\n"),
    ("binary_data", "GET /a HTTP/1.1\x08\r\n§"),
    ("not_a_request_line", "SSH-2.0-OpenSSH_9.2\r\n"),
    ("not_a_request_line", "hello\r\n\r\n"),
    ("request_line_spacing", "GET  /a HTTP/1.1\r\n§"),
    ("request_line_spacing", "GET /a  HTTP/1.1\r\n§"),
    ("request_line_spacing", "GET /a HTTP/1.1 \r\n§"),
    ("request_line_spacing", " GET /a HTTP/1.1\r\n§"),
    ("request_line_spacing", "GET\t/a\tHTTP/1.1\r\n§"),
    ("invalid_method", "G(T /a HTTP/1.1\r\n§"),
    ("invalid_method", "\u{413}ET /a HTTP/1.1\r\n§"),
    ("raw_space", "GET /a b HTTP/1.1\r\n§"),
    ("raw_space", "GET /a?filters=ym:s:x == 'b' HTTP/1.1\r\n§"),
    ("no_version", "GET /a\r\n\r\n"),
    ("unsupported_version", "GET /a HTTP/0.9\r\n§"),
    ("unsupported_version", "GET /a HTTP/1.2\r\n§"),
    ("unsupported_version", "GET /a HTTP/2.0\r\n§"),
    ("unsupported_version", "OPTIONS rtsp://localhost/a RTSP/1.0\r\n§"),
    ("version_in_lower_case", "GET /a http/1.1\r\n§"),
    ("bare_line_feed", "GET /a HTTP/1.1\nHost: localhost\n\n"),
    ("bare_line_feed", "\nGET /a HTTP/1.1\r\n§"),
    ("bare_line_feed", "GET /a HTTP/1.1\r\nA: b\n§"),
    ("bare_line_feed", "GET /a HTTP/1.1\r\nHost: localhost\r\n\n"),
    ("bare_line_feed", "¶0\r\nA: b\n\r\n"),
    ("bare_carriage_return", "GET /a HTTP/1.1\rHost: localhost\r\r"),
    ("bare_carriage_return", "\r\r\nGET /a HTTP/1.1\r\n§"),
    ("bare_carriage_return", "GET /a HTTP/1.1\r\nA: b\rc\r\n§"),
    ("folded_field", "GET /a HTTP/1.1\r\nA: b\r\n c\r\n§"),
    ("folded_field", "GET /a HTTP/1.1\r\n\tA: b\r\n§"),
    ("folded_field", "¶0\r\nA: b\r\n c\r\n\r\n"),
    ("field_without_colon", "GET /a HTTP/1.1\r\nA\r\n§"),
    ("empty_field_name", "GET /a HTTP/1.1\r\n: b\r\n§"),
    ("space_before_colon", "GET /a HTTP/1.1\r\nTransfer-Encoding : chunked\r\n§"),
    ("invalid_field_name", "GET /a HTTP/1.1\r\nA(b): c\r\n§"),
    ("invalid_field_name", "GET /a HTTP/1.1\r\n\u{410}: b\r\n§"),
    ("control_in_field", "GET /a HTTP/1.1\r\nA: \0\r\n§"),
    ("control_in_field", "GET /a HTTP/1.1\r\nA: \x1b[31m\r\n§"),
    ("forbidden_trailer", "¶0\r\nContent-Length: 5\r\n\r\n"),
    ("no_host", "GET /a HTTP/1.1\r\n\r\n"),
    ("no_host", "GET /a HTTP/1.0\r\n\r\n"),
    ("two_hosts", "GET /a HTTP/1.1\r\nHost: localhost\r\n§"),
    ("invalid_host", "GET /a HTTP/1.1\r\nHost: user@localhost\r\n\r\n"),
    ("host_unlike_target", "GET http://127.0.0.1/a HTTP/1.1\r\n§"),
    ("invalid_content_length", "POST /a HTTP/1.1\r\nContent-Length: 5, 5\r\n§"),
    ("invalid_content_length", "POST /a HTTP/1.1\r\nContent-Length: -5\r\n§"),
    ("two_content_lengths", "POST /a HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n§"),
    (
        "content_length_and_transfer_encoding",
        "POST /a HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n§",
    ),
    (
        "content_length_and_transfer_encoding",
        "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n§",
    ),
    ("unsupported_transfer_encoding", "POST /a HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n§"),
    ("two_transfer_encodings", "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n§"),
    ("transfer_encoding_in_http10", "POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n§"),
    ("invalid_chunk_size", "¶zz\r\n"),
    ("invalid_chunk_size", "¶0x1\r\na\r\n0\r\n\r\n"),
    ("invalid_chunk_size", "¶10000000000000001\r\na\r\n0\r\n\r\n"),
    ("chunk_line_end", "¶1\na\r\n0\r\n\r\n"),
    ("chunk_line_end", "¶1;a\rb\r\na\r\n0\r\n\r\n"),
    ("chunk_end", "¶1\r\nab\r\n0\r\n\r\n"),
    ("chunk_end", "¶1\r\na0\r\n\r\n"),
    ("control_in_chunk_extension", "¶1;\0\r\na\r\n0\r\n\r\n"),
    ("chunk_line_too_long", "¶1;…\r\na\r\n0\r\n\r\n"),
    ("chunk_extensions_too_long", "¶⁂0\r\n\r\n"),
    ("target_too_long", "GET /a?b=… HTTP/1.1\r\n§"),
    ("header_too_large", "GET /a HTTP/1.1\r\nA: …\r\n§"),
    ("too_many_fields", "GET /a HTTP/1.1\r\n※§"),
    ("field_name_too_long", "GET /a HTTP/1.1\r\nA‥: b\r\n§"),
    ("trailers_too_large", "¶0\r\nA: …\r\n\r\n"),
    ("connect", "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n"),
    ("connect", "CONNECT http://localhost/a HTTP/1.1\r\n§"),
    ("path_without_slash", "GET * HTTP/1.1\r\n§"),
    ("path_character", "GET /a\"b HTTP/1.1\r\n§"),
    ("path_character", "GET /a^b HTTP/1.1\r\n§"),
    ("path_character", "GET /a`b HTTP/1.1\r\n§"),
    ("path_character", "GET /\u{430} HTTP/1.1\r\n§"),
    ("path_character", "GET /a\tb HTTP/1.1\r\n§"),
    ("percent_sign", "GET /a%zz HTTP/1.1\r\n§"),
    ("path_encoding", "GET /%61 HTTP/1.1\r\n§"),
    ("path_not_utf8", "GET /a/%C0%AE HTTP/1.1\r\n§"),
    ("empty_segment", "GET /a//b HTTP/1.1\r\n§"),
    ("trailing_slash", "GET /a/ HTTP/1.1\r\n§"),
    ("dot_segment", "GET /a/../b HTTP/1.1\r\n§"),
    ("query_character", "GET /a?b#c HTTP/1.1\r\n§"),
    ("query_character", "GET /a?b=\u{7f} HTTP/1.1\r\n§"),
    ("parameter_name_encoded", "GET /a?%69ds=1 HTTP/1.1\r\n§"),
    ("parameter_like_credential", "GET /a?OAuthToken=x HTTP/1.1\r\n§"),
    ("parameter_method", "GET /a?_method=PUT HTTP/1.1\r\n§"),
    ("empty_callback", "GET /a?callback= HTTP/1.1\r\n§"),
    ("space_in_ids", "GET /a?ids=1,+2 HTTP/1.1\r\n§"),
    ("parameter_twice", "GET /a?id=1&id=2 HTTP/1.1\r\n§"),
    ("semicolon", "GET /a?a=1;ids=2 HTTP/1.1\r\n§"),
    ("target_scheme", "GET ftp://localhost/a HTTP/1.1\r\n§"),
    ("target_user_information", "GET http://u:p@localhost/a HTTP/1.1\r\n§"),
    ("target_form", "GET localhost:80 HTTP/1.1\r\n§"),
    ("target_form", "GET a HTTP/1.1\r\n§"),
];

fn bytes(row: &str) -> String {
    let chunked = "POST /management/v1/counters HTTP/1.1\r\nTransfer-Encoding: chunked\r\n§";
    row.replace('¶', chunked)
        .replace('§', &format!("Host: localhost\r\nX-Secret: {SECRET}\r\n\r\n"))
        .replace('…', &SECRET.repeat(70_000 / SECRET.len()))
        .replace('‥', &SECRET.repeat(100))
        .replace('⁂', &format!("1;{SECRET}\r\na\r\n").repeat(300))
        .replace('※', &format!("A: {SECRET}\r\n").repeat(150))
}

fn kind_of(word: &str) -> Malformed {
    Malformed::all().find(|kind| kind.word() == word).unwrap()
}

/// The requests that have a canonical form, and are refused for callers with `strict: true` alone.
const OF_STRICT: [&str; 2] = ["empty_callback", "space_in_ids"];

/// The kinds of listeners with TLS, and of forward proxies.
const OF_TLS: [&str; 1] = ["plain_text"];
const OF_PROXY: [&str; 2] = ["connect_target", "connect_with_body"];

/// The log lines with the cause of this request's refusal.
fn lines(gate: &Gate, id: &str) -> Vec<Value> {
    let all = gate.log().into_iter().filter(|line| line.contains("\"request failed\""));
    all.map(|line| serde_json::from_str(&line).unwrap()).filter(|line: &Value| line["request_id"] == id).collect()
}

/// Waits until the gate has logged everything: its lines have one order.
fn settle(gate: &Gate) {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let id = format!("last-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    gate.send("app", format!("GET /no HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {id}\r\n\r\n"));
    gate.until_log(&[&id]);
}

/// The faults of the log line of the request `id` on `listener`, whose kind is `kind`.
fn wrong_in_the_log(gate: &Gate, id: &str, listener: &str, kind: Malformed) -> Vec<String> {
    let lines = lines(gate, id);
    let [line] = &lines[..] else { return vec![format!("{} lines in the log", lines.len())] };
    let peer = if listener == "local" { "uid " } else { "127.0.0.1" };
    let cause = line["cause"].as_str().unwrap_or_default();
    let has_cause = matches!(kind, Malformed::Target(_)) && cause.contains(", at byte ") || cause == kind.message();
    let mut wrong: Vec<String> =
        [("kind", kind.word()), ("listener", listener), ("reason", Reason::from(kind).as_str())]
            .into_iter()
            .filter(|(name, value)| line[name] != *value)
            .map(|(name, _)| format!("{name} is {}", line[name]))
            .collect();
    wrong.extend((!line["peer"].as_str().is_some_and(|said| said.starts_with(peer))).then(|| "no peer".to_owned()));
    wrong.extend((!has_cause).then(|| format!("the cause is {cause:?}")));
    wrong
}

/// The faults of the response to a request of this kind.
fn wrong_in_the_answer(answer: &crate::harness::Answer, kind: Malformed) -> Vec<String> {
    let (said, reason) = (Reason::from(kind).answer(), Reason::from(kind).as_str());
    let Some(message) = answer.field("x-gate-hint").filter(|told| without_place(told) == kind.message()) else {
        return vec![format!("the hint is {:?}", answer.field("x-gate-hint"))];
    };
    let body = serde_json::json!({
        "errors": [{"error_type": said.error_type.as_str(), "message": message}],
        "code": said.status.as_u16(),
        "message": message,
    });
    let mut wrong = Vec::new();
    if answer.summary() != format!("{} {reason}", said.status.as_u16()) || answer.field("x-gate-reason") != Some(reason)
    {
        wrong.push(format!("the answer is {}", answer.summary()));
    }
    if serde_json::from_slice::<Value>(&answer.body).ok() != Some(body) {
        wrong.push("the answer does not name the rule".to_owned());
    }
    wrong
}

#[track_caller]
fn assert_none(wrong: &[String], of: usize) {
    assert!(wrong.is_empty(), "{} of {of}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_kind_is_named_in_the_log_and_in_the_answer() {
    let upstream = Upstream::plain();
    let local = "  - {name: local, unix: {path: '{folder}/local.sock'}}
  - {name: strict, address: '127.0.0.1:0'}
  - {name: tls, address: '127.0.0.1:0', tls: {authority: '{folder}/ca'}}
  - {name: proxy, address: '127.0.0.1:0', proxy: true, tls: {authority: '{folder}/ca'}}
callers:
  - {id: local, match: {listener: local}, scopes: [metrika:read], tokens: [analytics]}
  - {id: strict, match: {listener: strict}, scopes: [metrika:read], tokens: [analytics], strict: true}
";
    let config = TWO_CALLERS.replace("callers:\n", local);
    let gate = Gate::start(&upstream, &config);
    let listeners = ["app", "crm", "local"];
    let mut sent = Vec::new();
    for (number, (word, row)) in ROWS.into_iter().enumerate() {
        let listener = match row {
            _ if OF_STRICT.contains(&word) => "strict",
            _ if OF_TLS.contains(&word) => "tls",
            _ if OF_PROXY.contains(&word) => "proxy",
            row if row.contains('¶') => "crm",
            _ => listeners[number % listeners.len()],
        };
        let mut caller = gate.connect(listener);
        caller.try_send(bytes(row));
        let answer = caller.try_answer(false).unwrap_or_else(|error| panic!("{word} {row:?}: {error}"));
        sent.push((word, row, listener, answer));
    }
    settle(&gate);
    let mut wrong = Vec::new();
    for (word, row, listener, answer) in &sent {
        let kind = kind_of(word);
        let mut of_row = wrong_in_the_log(&gate, answer.field("x-request-id").unwrap(), listener, kind);
        of_row.extend(wrong_in_the_answer(answer, kind));
        if !of_row.is_empty() {
            wrong.push(format!("{word} {row:?}: {}", of_row.join(", ")));
        }
    }
    assert_none(&wrong, sent.len());
    let met: BTreeSet<_> = ROWS.iter().map(|(word, _)| *word).chain([Rule::Other.word()]).collect();
    assert_eq!(met, Malformed::all().map(Malformed::word).collect(), "every kind was met");
    let said = [gate.log().join("\n"), sent.iter().map(|(.., answer)| answer.text()).collect()].concat();
    assert!(!said.contains("SECRET") && !said.contains("192.0.2.1"), "{said}");
    assert_eq!(upstream.requests().iter().filter(|head| !head.starts_with("POST ")).count(), 0);
}

/// However the bytes arrive there is one line, and it has a kind of the same reason.
#[test]
fn a_malformed_request_that_arrives_byte_by_byte_has_a_kind_too() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut sent = Vec::new();
    for (word, row) in ROWS {
        let whole = bytes(row);
        let of_others = [&OF_STRICT[..], &OF_TLS, &OF_PROXY].concat();
        if whole.len() > 1000 || of_others.contains(&word) {
            continue;
        }
        let mut caller = gate.connect("crm");
        let _ = whole.as_bytes().iter().all(|byte| caller.try_send([*byte]));
        sent.push((word, row, caller.answer()));
    }
    settle(&gate);
    let mut wrong = Vec::new();
    for (word, row, answer) in &sent {
        let expected = Reason::from(kind_of(word));
        let said = lines(&gate, answer.field("x-request-id").unwrap());
        let kinds: Vec<_> = said.iter().filter_map(|line| line["kind"].as_str().map(kind_of)).collect();
        let is_right =
            kinds.len() == 1 && Reason::from(kinds[0]) == expected && wrong_in_the_answer(answer, kinds[0]).is_empty();
        if !is_right {
            wrong.push(format!("{word} {row:?}: {} {kinds:?}", answer.summary()));
        }
    }
    assert_none(&wrong, sent.len());
}

#[test]
fn a_malformed_request_behind_others_is_named_too() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let good = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut caller: Caller = gate.connect("app");
    caller.send(format!("{good}{good}GET /a HTTP/1.1\r\nA : b\r\n\r\n{good}"));
    assert_eq!([caller.answer().summary(), caller.answer().summary()], ["200", "200"]);
    let answer = caller.answer();
    settle(&gate);
    let wrong = wrong_in_the_log(&gate, answer.field("x-request-id").unwrap(), "app", Malformed::SpaceBeforeColon);
    assert_none(&[wrong, wrong_in_the_answer(&answer, Malformed::SpaceBeforeColon)].concat(), 1);
}

/// Streams that hyper itself resets get no response; refusals of the gate have a kind.
#[test]
fn http2_requests_refused_by_the_gate_have_a_kind() {
    let upstream = Upstream::plain();
    let gate =
        Gate::start(&upstream, &format!("{TWO_CALLERS_HTTP2}limits: {{header_bytes: 8KiB, target_bytes: 4KiB}}\n"));
    let get = |path| [(":method", "GET"), (":scheme", "http"), (":path", path)].to_vec();
    let with = |more: &[(&'static str, &'static str)]| [&get("/a"), more].concat();
    let long: &str = Box::leak(SECRET.repeat(450).into_boxed_str());
    let rows = [
        ("no_host", get("/a")),
        ("two_hosts", with(&[("host", "localhost"), ("host", "localhost")])),
        ("invalid_host", with(&[("host", "user@localhost")])),
        ("host_unlike_target", with(&[(":authority", "localhost"), ("host", "127.0.0.1")])),
        ("path_without_slash", request("GET", "?ids=1").to_vec()),
        ("trailing_slash", request("GET", "/a/").to_vec()),
        ("header_too_large", with(&[(":authority", "localhost"), ("a", long)])),
        ("too_many_fields", with(&[&[(":authority", "localhost")], &[("a", "b"); 150][..]].concat())),
        ("connect", vec![(":method", "CONNECT"), (":authority", "localhost:443")]),
    ];
    let mut wrong = Vec::new();
    for (number, (word, fields)) in rows.iter().enumerate() {
        let (kind, id) = (kind_of(word), format!("h2-{number}"));
        let mut caller = H2::connect(gate.place("app"));
        let fields = fields.iter().copied().chain([("x-request-id", id.as_str())]);
        caller.frame(HEADERS, END_STREAM | END_HEADERS, 1, block(fields));
        let (fate, body) = caller.answer(1);
        settle(&gate);
        let mut of_row = wrong_in_the_log(&gate, &id, "app", kind);
        let body = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let message = without_place(body["message"].as_str().unwrap_or_default());
        if fate != Fate::Answered(u64::from(Reason::from(kind).answer().status.as_u16())) || message != kind.message() {
            of_row.push(format!("it was {fate:?}: {message}"));
        }
        wrong.extend((!of_row.is_empty()).then(|| format!("{word}: {}", of_row.join(", "))));
    }
    assert_none(&wrong, rows.len());
}

/// An operator who reads the log finds every kind in the documentation.
#[test]
fn every_kind_is_in_the_documentation() {
    let mut table = "| `kind` | reason | the answer says |\n|---|---|---|\n".to_owned();
    for kind in Malformed::all() {
        writeln!(table, "| `{}` | `{}` | {} |", kind.word(), Reason::from(kind).as_str(), kind.message()).unwrap();
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/malformed.md");
    let there = std::fs::read_to_string(file).unwrap();
    let (before, rest) = there.split_once("<!-- kinds -->\n\n").expect("the place of the table");
    let (_, behind) = rest.split_once("\n<!-- end of kinds -->").expect("the end of the table");
    same_as_file("docs/malformed.md", &format!("{before}<!-- kinds -->\n\n{table}\n<!-- end of kinds -->{behind}"));
}
