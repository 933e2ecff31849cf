//! The main road: the caller's request, the request at Metrica, the response.

use crate::harness::{Gate, READ_TOKEN, TWO_CALLERS, Upstream, WRITE_TOKEN};

#[test]
fn a_request_without_a_credential_arrives_with_ours() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let answer = gate.get("app", "/management/v1/counters?field=goals&q=%D0%9C,%20a");
    assert_eq!(answer.summary(), "200");
    assert_eq!(answer.text(), "{}");
    let request = upstream.requests().pop().unwrap();
    let id = answer.field("x-request-id").unwrap();
    let expected = format!(
        "GET /management/v1/counters?field=goals&q=%D0%9C,%20a HTTP/1.1\r\n\
         host: api-metrika.yandex.net\r\naccept-encoding: identity\r\nx-request-id: {id}\r\nvia: 1.1 metrika-gate\r\n\
         authorization: OAuth {READ_TOKEN}\r\n\r\n"
    );
    assert_eq!(request, expected);
}

#[test]
fn each_caller_gets_the_narrowest_of_its_tokens() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let post = "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(gate.send("app", post).summary(), "403 scope_denied");
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    assert_eq!(gate.send("crm", post).summary(), "200");
    assert_eq!(gate.get("crm", "/management/v1/counters").summary(), "200");
    let tokens: Vec<_> = (upstream.requests().iter())
        .map(|head| head.lines().filter(|line| line.starts_with("authorization")).collect::<Vec<_>>().join("|"))
        .collect();
    assert_eq!(tokens, [format!("authorization: OAuth {WRITE_TOKEN}"), format!("authorization: OAuth {READ_TOKEN}")]);
}
