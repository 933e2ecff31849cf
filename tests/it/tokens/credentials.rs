//! Credentials: no credential of a caller leaves the gate, and exactly one is sent, the gate's own.

use crate::harness::{Gate, READ_TOKEN, TWO_CALLERS, Upstream};

/// The expected read of `target` with this `id` at Metrica: the request line, and every field in the order of the
/// alphabet.
fn wanted(target: &str, id: &str) -> Vec<String> {
    vec![
        format!("GET {target} HTTP/1.1"),
        "accept-encoding: identity".to_owned(),
        format!("authorization: OAuth {READ_TOKEN}"),
        "host: api-metrika.yandex.net".to_owned(),
        "via: 1.1 metrika-gate".to_owned(),
        format!("x-request-id: {id}"),
    ]
}

/// The last request at Metrica, in that form.
fn seen(upstream: &Upstream) -> Vec<String> {
    let head = upstream.requests().pop().unwrap();
    let mut lines: Vec<String> = head.strip_suffix("\r\n\r\n").unwrap().split("\r\n").map(str::to_owned).collect();
    lines[1..].sort();
    lines
}

const FIELDS: [&str; 22] = [
    "Authorization: OAuth y0_callersowntoken000000",
    "AUTHORIZATION: Bearer y0_callersowntoken000000",
    "authorization: Basic dXNlcjpwYXNz",
    "Authorization: OAuth y0_one000000000000\r\nauthorization: OAuth y0_two000000000000",
    "Authorization:",
    "authorization_: OAuth y0_callersowntoken000000",
    "Proxy-Authorization: Basic dXNlcjpwYXNz",
    "X-Authorization: OAuth y0_callersowntoken000000",
    "X-API-Key: y0_callersowntoken000000",
    "X-Auth-Token: y0_callersowntoken000000",
    "X-OAuth-Token: y0_callersowntoken000000",
    "X-Access-Token: y0_callersowntoken000000",
    "oauth_token: y0_callersowntoken000000",
    "OAuth_Token: OAuth y0_callersowntoken000000",
    "access_token: y0_callersowntoken000000",
    "OAuth-Token: y0_callersowntoken000000\r\nAccess-Token: y0_callersowntoken000000",
    "Cookie2: $Version=1",
    "Cookie: Session_id=3:17; yandexuid=1",
    "Cookie: a=b\r\nCookie: c=d",
    "X-Yandex-Uid: 1\r\nX-Uid: 1\r\nX-Login: root",
    "X-Ya-Service-Ticket: 3:serv:x\r\nX-Ya-User-Ticket: 3:user:y",
    "Authorization: OAuth a\r\nProxy-Authorization: b\r\nCookie: c\r\nX-Api-Key: d\r\nX-Authorization: e",
];

#[test]
fn exactly_one_authorization_leaves_and_it_is_ours() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    for (number, fields) in FIELDS.into_iter().enumerate() {
        let path = "/management/v1/counters";
        caller.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: id-{number}\r\n{fields}\r\n\r\n"));
        assert_eq!(caller.answer().summary(), "200", "{fields}");
        assert_eq!(seen(&upstream), wanted(path, &format!("id-{number}")), "{fields}");
    }
    let dropped = |kind: &str| gate.metric(&["credentials_dropped_total", "caller=\"reports\"", kind]);
    let kinds =
        ["\"authorization\"", "\"proxy_authorization\"", "\"cookie\"", "\"other_header\"", "\"query_parameter\""];
    assert_eq!(kinds.map(dropped), [6.0, 2.0, 4.0, 15.0, 0.0]);
}

/// The caller's query, and the one that must reach Metrica.
const QUERIES: [(&str, &str); 20] = [
    ("?oauth_token=secret", ""),
    ("?access_token=secret", ""),
    ("?oauth_token", ""),
    ("?oauth_token=", ""),
    ("?oauth_token=a&oauth_token=b&access_token=c", ""),
    ("?ids=1&oauth_token=secret", "?ids=1"),
    ("?oauth_token=secret&ids=1", "?ids=1"),
    ("?ids=1&oauth_token=secret&b=%D0%9c,%20a+b", "?ids=1&b=%D0%9c,%20a+b"),
    ("?&&ids=1&&oauth_token=secret&", "?&&ids=1&&"),
    ("?oauth_token=a%26ids=2&ids=1", "?ids=1"),
    // These are no credentials, and stay as they are.
    ("?ids=1", "?ids=1"),
    ("?", "?"),
    ("?xoauth_token=1", "?xoauth_token=1"),
    ("?oauth_tokens=1", "?oauth_tokens=1"),
    ("?a=oauth_token=1", "?a=oauth_token=1"),
    ("?a=b%26oauth_token=1", "?a=b%26oauth_token=1"),
    ("?a==&=&b=/?/:@!$'()*,;", "?a==&=&b=/?/:@!$'()*,;"),
    ("?a[]=1&b={x}|^`\\", "?a[]=1&b={x}|^`\\"),
    ("?a=%00%ff%2f%2E", "?a=%00%ff%2f%2E"),
    ("?filters=ga:country==x;ga:browser==y", "?filters=ga:country==x;ga:browser==y"),
];

#[test]
fn only_credentials_are_removed_from_a_query() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    for (number, (sent, expected)) in QUERIES.into_iter().enumerate() {
        let path = "/stat/v1/data";
        caller.send(format!("GET {path}{sent} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: id-{number}\r\n\r\n"));
        assert_eq!(caller.answer().summary(), "200", "{sent}");
        let target = format!("{path}{expected}");
        assert_eq!(seen(&upstream), wanted(&target, &format!("id-{number}")), "{sent}");
    }
    gate.until_metric(&["credentials_dropped_total", "caller=\"reports\"", "\"query_parameter\""], 10.0);
}

///
#[test]
fn connection_cannot_name_our_fields_away() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for (number, fields) in [
        "Connection: authorization, x-request-id",
        "Connection: Authorization",
        "connection: AUTHORIZATION,HOST,X-REQUEST-ID",
        "Connection:\r\nConnection: authorization\r\nConnection: x-request-id, host",
        "Connection: keep-alive,\tauthorization ,, x-request-id",
        "Connection: close, authorization",
        "Authorization: OAuth mine\r\nConnection: authorization",
        "Connection: \"authorization\", authorization;q=1",
        "Proxy-Connection: authorization\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13",
    ]
    .into_iter()
    .enumerate()
    {
        let path = "/management/v1/counters";
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: id-{number}\r\n{fields}\r\n\r\n");
        assert_eq!(gate.send("app", request).summary(), "200", "{fields}");
        assert_eq!(seen(&upstream), wanted(path, &format!("id-{number}")), "{fields}");
    }
}

#[test]
fn fields_that_connection_names_stay_here() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let request = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nAccept: a/b\r\nPragma: no-cache\r\n\
                   Connection: Accept\r\nX-Request-ID: id\r\n\r\n";
    assert_eq!(gate.send("app", request).summary(), "200");
    let head = upstream.requests().pop().unwrap();
    assert!(head.contains("pragma: no-cache\r\n") && !head.contains("accept:"), "{head}");
}

#[test]
fn trailers_carry_no_credential() {
    let (upstream, lines) = Upstream::of_chunked_bodies();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let answer = gate.send(
        "crm",
        "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
         Trailer: x-checksum, x-api-key\r\n\r\n2\r\n{}\r\n0\r\nX-Checksum: 7\r\nX-Api-Key: k\r\n\r\n",
    );
    assert_eq!(answer.summary(), "200");
    assert_eq!(*lines.lock().unwrap(), ["2", "{}", "0", "x-checksum: 7"]);
}

#[test]
fn a_caller_of_http_1_0_is_served() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let path = "/management/v1/counters";
    let mut caller = gate.connect("app");
    caller.send(format!(
        "GET {path} HTTP/1.0\r\nHost: localhost\r\nX-Request-ID: old\r\nAuthorization: OAuth mine\r\n\r\n"
    ));
    let answer = caller.answer();
    assert_eq!((answer.summary().as_str(), answer.text().as_str()), ("200", "{}"));
    assert!(caller.is_closed(), "a caller of HTTP/1.0 waits for the end of the connection");
    let said = wanted(path, "old").into_iter().map(|line| line.replace("via: 1.1", "via: 1.0"));
    assert_eq!(seen(&upstream), said.collect::<Vec<_>>());
    assert_eq!(upstream.requests().len(), 1);
}

/// the upstream is a constant, whatever target and host a request has; see also `hosts.rs`.
#[test]
fn a_target_with_an_authority_goes_out_without_it() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let path = "/management/v1/counters";
    for (number, (target, host)) in [
        (format!("http://localhost{path}?a=1"), "localhost"),
        (format!("https://api-metrika.yandex.ru:8443{path}?a=1"), "api-metrika.yandex.ru:8443"),
        (format!("HTTP://LOCALHOST{path}?oauth_token=secret&a=1"), "localhost"),
        (format!("{path}?a=1"), "api-metrika.yandex.net:80"),
    ]
    .into_iter()
    .enumerate()
    {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Request-ID: id-{number}\r\n\r\n");
        assert_eq!(gate.send("app", request).summary(), "200", "{target}");
        let expected = wanted(&format!("{path}?a=1"), &format!("id-{number}"));
        assert_eq!(seen(&upstream), expected, "{target}");
    }
}

/// R-18 on the way back: fields that are the business of the gate or of Metrica alone do not reach the caller.
#[test]
fn answers_carry_no_cookie_and_no_word_in_the_gates_name() {
    let upstream = Upstream::run(|conversation| {
        while conversation.request_head().is_some() {
            conversation.write(
                "HTTP/1.1 302 Found\r\nLocation: https://api-metrika.yandex.net/x\r\nSet-Cookie: yandexuid=1\r\n\
                 X-Gate-Error: scope_denied\r\nAlt-Svc: h3=\":443\"\r\nX-Request-ID: theirs\r\n\
                 Connection: x-hop\r\nX-Hop: 1\r\nX-Other: 2\r\nContent-Length: 0\r\n\r\n",
            );
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let request = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: ours\r\n\r\n";
    let answer = gate.send("app", request);
    assert_eq!(answer.summary(), "302", "passed on, not followed");
    let mut names: Vec<_> =
        answer.fields.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "date").collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["connection", "content-length", "keep-alive", "location", "x-content-type-options", "x-request-id"]
    );
    assert_eq!(answer.field("x-request-id"), Some("ours"));
    assert_eq!(upstream.requests().len(), 1);
}

/// a body that a server reads as more parameters is refused, so that no credential and no id comes in it.
#[test]
fn parameters_do_not_come_in_a_body() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let body = "oauth_token=mine&ids=1";
    let post = |kind: &str| {
        let fields = format!("Content-Type: {kind}\r\nContent-Length: {}", body.len());
        format!("POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n{body}")
    };
    let form = "application/x-www-form-urlencoded";
    for kind in
        [form, "APPLICATION/X-WWW-Form-Urlencoded ; charset=utf-8", &format!("text/plain\r\nContent-Type: {form}")]
    {
        assert_eq!(gate.send("crm", post(kind)).summary(), "415 form_body", "{kind}");
    }
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    assert_eq!(gate.send("crm", post("application/x-yametrika+json")).summary(), "200");
    let bare = format!("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Type: {form}\r\n\r\n");
    assert_eq!(gate.send("app", bare).summary(), "200", "there is no body");
}

/// the parameters that choose the data of a request occur once.
#[test]
fn ids_occur_once() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for query in ["id=1&id=1", "id=1&metrics=a&id=2", "ulogin=a&ulogin=b", "ids=1;ids=2", "%69ds=1"] {
        assert_eq!(gate.get("app", &format!("/stat/v1/data?{query}")).summary(), "400 bad_target", "{query}");
    }
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    assert_eq!(gate.get("app", "/stat/v1/data?ids=1,2&id=3&ulogin=a").summary(), "200");
}
