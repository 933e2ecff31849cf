//! Bodies with a wrong type: JSON that is declared as a form, as text or not at all leaves as JSON; a form is refused.

use crate::harness::{Gate, Upstream};
use crate::policy::rejections::assert_is;
use crate::policy::rules::{keeping, last};

const CALLERS: &str = "
listeners:
  - {name: app, address: '127.0.0.1:0'}
  - {name: strict, address: '127.0.0.1:0'}
callers:
  - {id: app, match: {listener: app}, scopes: [metrika:write], tokens: [crm]}
  - {id: strict, match: {listener: strict}, scopes: [metrika:write], tokens: [crm], strict: true}
";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
const TEXT: &str = "Content-Type: text/plain;charset=UTF-8";
const NONE: &str = "Accept: */*";

fn post(fields: &str, body: &str) -> String {
    let length = body.len();
    let path = "/management/v1/counter/1/goals";
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// The same in chunks.
fn in_chunks(fields: &str, body: &str) -> String {
    let path = "/management/v1/counter/1/goals";
    let chunks: String = body
        .as_bytes()
        .chunks(5)
        .map(|piece| format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap()))
        .collect();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
    )
}

/// The `content-type` fields in the head of a request.
fn types(head: &str) -> Vec<&str> {
    head.lines().filter_map(|line| line.strip_prefix("content-type: ")).collect()
}

#[test]
fn json_is_forwarded_as_json_whatever_its_declared_type() {
    let (upstream, seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    for body in [r#"{"goal":{"name":"a=1&ids=5"}}"#, "[]", " \n{\"a\" : [1]} ", "\u{feff}{}"] {
        for fields in [FORM, TEXT, NONE, "Content-Type: application/x-ymetrika+json"] {
            assert_eq!(gate.send("app", post(fields, body)).summary(), "200", "{fields} {body}");
            let (head, received) = last(&seen);
            assert_eq!(types(&head), ["application/json"], "{fields} {body}");
            assert_eq!(received, body.as_bytes());
        }
        let said = "Content-Type: application/x-yametrika+json";
        assert_eq!(gate.send("app", post(said, body)).summary(), "200");
        assert_eq!(types(&last(&seen).0), ["application/x-yametrika+json"]);
    }
}

/// A streamed body is not delayed, unless it would be refused.
#[test]
fn chunked_json_is_inspected_only_if_declared_as_a_form() {
    let (upstream, seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    for (fields, expected) in [(FORM, "application/json"), (TEXT, "text/plain;charset=UTF-8")] {
        assert_eq!(gate.send("app", in_chunks(fields, "[{}]")).summary(), "200");
        let (head, received) = last(&seen);
        assert_eq!((types(&head), received), (vec![expected], b"[{}]".to_vec()));
    }
}

#[test]
fn a_body_that_is_not_json_passes_unless_declared_as_a_form() {
    let (upstream, seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    for body in ["a=1", "{\"a\":1}=&ids=5", "{", "null", "5", "\"a\"", "{}{}", "[1,]"] {
        for request in [post(FORM, body), in_chunks(FORM, body)] {
            assert_is(&gate.send("app", request), "415 form_body");
        }
        assert_eq!(gate.send("app", post(TEXT, body)).summary(), "200");
        let (head, received) = last(&seen);
        assert_eq!((types(&head), received), (vec!["text/plain;charset=UTF-8"], body.as_bytes().to_vec()));
        assert_eq!(gate.send("app", in_chunks(NONE, body)).summary(), "200");
        let (head, received) = last(&seen);
        assert_eq!((types(&head), received), (vec![], body.as_bytes().to_vec()));
    }
    // A body beyond the part that is read.
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1024 * 1024));
    assert_is(&gate.send("app", post(FORM, &large)), "415 form_body");
    assert_eq!(gate.send("app", post(TEXT, &large)).summary(), "200");
    assert_eq!(types(&last(&seen).0), ["text/plain;charset=UTF-8"]);
    assert!(seen.lock().unwrap().is_empty());
}

/// A page can send forms and text to any address, but no type that declares JSON.
#[test]
fn a_body_that_a_page_could_have_sent_keeps_its_declared_type() {
    let (upstream, seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    for field in ["Sec-Fetch-Mode: cors", "Sec-Fetch-User: ?1"] {
        assert_is(&gate.send("app", post(&format!("{FORM}\r\n{field}"), "{}")), "415 form_body");
        assert_eq!(gate.send("app", post(&format!("{TEXT}\r\n{field}"), "{}")).summary(), "200");
        assert_eq!(types(&last(&seen).0), ["text/plain;charset=UTF-8"]);
    }
    for kind in [FORM, TEXT] {
        assert_is(&gate.send("app", post(&format!("{kind}\r\nOrigin: null"), "{}")), "403 browser_denied");
    }
    assert!(seen.lock().unwrap().is_empty());
}

#[test]
fn a_strict_caller_declares_the_type_of_its_body() {
    let (upstream, seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    assert_is(&gate.send("strict", post(FORM, "{}")), "415 form_body");
    assert_eq!(gate.send("strict", post(TEXT, "{}")).summary(), "200");
    assert_eq!(types(&last(&seen).0), ["text/plain;charset=UTF-8"]);
}

/// The body was found to be JSON under the rules of before; it leaves under those of now.
#[test]
fn a_caller_that_becomes_strict_meanwhile_keeps_its_declared_type() {
    let (upstream, seen) = keeping();
    for (fields, expected, said) in
        [(TEXT, "200", &["text/plain;charset=UTF-8"][..]), (NONE, "200", &[]), (FORM, "415 form_body", &[])]
    {
        let gate = Gate::start(&upstream, CALLERS);
        let mut caller = gate.connect("app");
        let request = post(fields, "[{}]");
        let (most, end) = request.split_at(request.len() - 1);
        caller.send(most);
        gate.until_metric(&["in_flight_requests", "caller=\"app\""], 1.0);
        let from = "id: app, match: {listener: app}";
        assert!(gate.config().contains(from));
        gate.replace_config(&gate.config().replace(from, &format!("{from}, strict: true")));
        gate.signal("HUP");
        gate.until_log(&["configuration reloaded"]);
        caller.send(end);
        assert_eq!(caller.answer().summary(), expected, "{fields}");
        if expected == "200" {
            let (head, body) = last(&seen);
            assert_eq!((types(&head), body), (said.to_vec(), b"[{}]".to_vec()), "{fields}");
        }
    }
    assert!(seen.lock().unwrap().is_empty());
}

/// A large file is not delayed: only its beginning is examined.
#[test]
fn an_upload_without_a_type_streams() {
    let upstream = Upstream::run(|conversation| {
        let Some(head) = conversation.request_head() else { return };
        assert!(head.starts_with("POST /management/v1/counter/1/expense/upload "));
        assert_eq!(conversation.line(), "5");
        conversation.exactly(7);
        conversation.answer("200 OK", "application/json", "{}");
        conversation.close();
    });
    let gate = Gate::start(&upstream, CALLERS);
    let mut caller = gate.connect("app");
    let head = "POST /management/v1/counter/1/expense/upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    caller.send(format!("{head}5\r\na,b\n1\r\n"));
    assert_eq!(caller.answer().summary(), "200", "its end has not come");
}
