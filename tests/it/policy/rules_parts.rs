//! Names of parts in a stream: a possible parameter reaches nobody whole (`metrika_gate::policy::rules`, rule 7).

use std::time::Duration;

use crate::harness::{Gate, Upstream};
use crate::policy::rejections::assert_is;
use crate::policy::rules::{keeping, last, post};

const CALLERS: &str = "
listeners:
  - {name: counters, address: '127.0.0.1:0'}
  - {name: login, address: '127.0.0.1:0'}
  - {name: careful, address: '127.0.0.1:0'}
  - {name: shadow, address: '127.0.0.1:0'}
  - {name: free, address: '127.0.0.1:0'}
callers:
  - {id: counters, match: {listener: counters}, scopes: [metrika:write], tokens: [crm], counters: [1]}
  - {id: login, match: {listener: login}, scopes: [metrika:write], tokens: [crm], ulogin: [partner], ulogin_absent: allow}
  - {id: careful, match: {listener: careful}, scopes: [metrika:write], tokens: [crm], destructive: deny}
  - {id: shadow, match: {listener: shadow}, scopes: [metrika:write], tokens: [crm], counters: [1], enforce: false}
  - {id: free, match: {listener: free}, scopes: [metrika:write], tokens: [crm]}
";

const UPLOAD: &str = "/management/v1/counter/1/user_params/uploadings/upload";
const TYPE: &str = "Content-Type: multipart/form-data; boundary=x";

fn part(name: &str) -> String {
    format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n2\r\n")
}

fn body(names: &[&str]) -> String {
    names.iter().map(|name| part(name)).chain(["--x--\r\n".to_owned()]).collect()
}

#[test]
fn a_part_with_the_name_of_a_parameter_is_refused() {
    let (upstream, seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    for (listener, names, fields, is_refused) in [
        ("counters", &["file"][..], TYPE, false),
        ("counters", &["ids"], TYPE, true),
        ("counters", &["file", "Counter-Id"], TYPE, true),
        ("counters", &["file", "ulogin"], TYPE, true),
        ("counters", &["file", "action"], TYPE, false),
        ("counters", &["file", "%69ds"], TYPE, true),
        ("login", &["ulogin"], TYPE, true),
        ("login", &["ulogin"], "Content-Type: multipart/mixed; boundary=x", true),
        ("login", &["ulogin"], "Content-Type: a/b, multipart/form-data; boundary=x", true),
        ("login", &["ulogin"], "Content-Type: application/octet-stream", false),
        ("careful", &["action"], TYPE, true),
        ("careful", &["file"], TYPE, false),
        ("free", &["ids", "ulogin", "action"], TYPE, false),
    ] {
        let answer = gate.send(listener, post(UPLOAD, fields, &body(names)));
        if is_refused {
            assert_is(&answer, "415 body_unreadable");
        } else {
            assert_eq!(answer.summary(), "200", "{listener} {names:?}");
            assert_eq!(last(&seen).1, body(names).as_bytes());
        }
    }
    assert!(seen.lock().unwrap().is_empty(), "nothing of what was refused was sent");
    // Its parts cannot be seen.
    assert_is(
        &gate.send("counters", post(UPLOAD, &format!("{TYPE}\r\nContent-Encoding: gzip"), "x")),
        "415 body_unreadable",
    );
}

#[test]
fn rules_that_are_not_enforced_only_report_what_a_part_breaks() {
    let (upstream, seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    let long = body(&["file", "ids"]) + &"x".repeat(100_000);
    assert_eq!(gate.send("shadow", post(UPLOAD, TYPE, &long)).summary(), "200");
    assert_eq!(last(&seen).1, long.as_bytes());
    gate.until_log(&["request would be refused if enforced", "body_unreadable", "has the name of a parameter"]);
}

/// The following parts pass until a name is wrong: its value does not leave, nor does the end of the body.
#[test]
fn a_later_part_breaks_the_request_off_before_its_value() {
    let (sender, received) = std::sync::mpsc::channel();
    let upstream = Upstream::run(move |conversation| {
        if conversation.request_head().is_some() {
            let mut all = Vec::new();
            while let Some(some) = conversation.some() {
                all.extend(some);
                sender.send(all.clone()).unwrap();
            }
            sender.send([&all[..], b"[end]"].concat()).unwrap();
        }
    });
    let gate = Gate::start(&upstream, CALLERS);
    let mut caller = gate.connect("counters");
    caller.send(format!("POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\n{TYPE}\r\nContent-Length: 1000000\r\n\r\n"));
    let file = part("file") + &"1,2\r\n".repeat(20_000);
    caller.send(&file);
    let mut seen = Vec::new();
    while seen != file.as_bytes() {
        seen = received.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(file.as_bytes().starts_with(&seen));
    }
    caller.send("--x\r\nContent-Disposition: form-da");
    caller.send("ta; name=\"counter_id\"\r\n\r\n666");
    assert_is(&caller.answer(), "415 body_unreadable");
    while !seen.ends_with(b"[end]") {
        seen = received.recv_timeout(Duration::from_secs(20)).unwrap();
    }
    let last = String::from_utf8(seen).unwrap();
    assert!(!last.contains("666") && !last.contains("counter_id\""), "{}", &last[file.len()..]);
    gate.until_metric(&["denied_total", "body_unreadable"], 1.0);
}
