//! Bytes that an upstream sends behind a response are never the response to the next request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::harness::gate::until;
use crate::harness::{Gate, Signal, TWO_CALLERS, Upstream};

const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\npoison";

/// Asks twice on one connection of a caller. The first request is answered with `answer`, and behind it comes the
/// poison: with it, or only when the caller has the answer.
#[track_caller]
fn next_is_clean(method: &str, answer: &'static str, late: bool) {
    let (answered, ended) = (Signal::default(), Signal::default());
    let (goes, ends) = (answered.clone(), ended.clone());
    let upstream = Upstream::run(move |conversation| {
        while conversation.request_head().is_some() {
            if conversation.number > 0 {
                conversation.answer("200 OK", "text/plain", "second");
                continue;
            }
            if late {
                conversation.write(answer);
                goes.wait("the caller has the answer");
                conversation.write(POISON);
            } else {
                conversation.write(format!("{answer}{POISON}"));
            }
            assert!(conversation.is_closed(), "the connection is given up, without another request on it");
            return ends.give();
        }
    });
    let gate = Gate::plan(&upstream, TWO_CALLERS).workers(1).start();
    let mut caller = gate.connect("app");
    let ask = |method: &str| format!("{method} /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n");
    caller.send(ask(method));
    let first = caller.try_answer(method == "HEAD").unwrap();
    assert!(first.status < 400 && !first.text().contains("poison"), "{answer:?} {first:?}");
    answered.give();
    if late {
        // Bytes between two requests can only be told from a response when they arrive before the second.
        ended.wait("the connection is given up");
    }
    caller.send(ask("GET"));
    let second = caller.answer();
    assert_eq!((second.status, second.text().as_str()), (200, "second"), "{answer:?} {late}");
    until("it is given up", || ended.is_given());
    assert_eq!(upstream.connections(), 2);
}

const BODY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst";
const CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n";

#[test]
fn bytes_behind_a_body_are_nobodys_answer() {
    for answer in [BODY, CHUNKS, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"] {
        for late in [false, true] {
            next_is_clean("GET", answer, late);
        }
    }
}

#[test]
fn a_body_where_none_may_be_is_nobodys_answer() {
    for late in [false, true] {
        next_is_clean("GET", "HTTP/1.1 204 No Content\r\n\r\n", late);
        next_is_clean("GET", "HTTP/1.1 304 Not Modified\r\n\r\n", late);
        next_is_clean("HEAD", "HTTP/1.1 200 OK\r\n\r\n", late);
    }
}

/// The fields declare the length of a body that an upstream sends by mistake, and it may come at any time: the connection is
/// closed before.
#[test]
fn a_body_that_was_announced_where_none_may_be_has_no_connection_to_come_on() {
    for (method, answer) in [
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 81\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 81\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", "HTTP/1.1 404 Not Found\r\nContent-Length: 81\r\n\r\n"),
    ] {
        let ended = Signal::default();
        let ends = ended.clone();
        let upstream = Upstream::run(move |conversation| {
            while conversation.request_head().is_some() {
                if conversation.number == 0 {
                    conversation.write(answer);
                    assert!(conversation.is_closed(), "{answer:?}");
                    return ends.give();
                }
                conversation.answer("200 OK", "text/plain", "second");
            }
        });
        let gate = Gate::plan(&upstream, TWO_CALLERS).workers(1).start();
        let mut caller = gate.connect("app");
        let ask = |method: &str| format!("{method} /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n");
        caller.send(ask(method));
        caller.try_answer(true).unwrap();
        ended.wait("the connection is closed before a body can come");
        caller.send(ask("GET"));
        assert_eq!(caller.answer().text(), "second");
    }
}

/// Late bytes on one token's connection can be the response for no other token: two never share one.
#[test]
fn a_connection_carries_one_token() {
    let carried: Arc<Mutex<BTreeMap<usize, BTreeSet<String>>>> = Arc::default();
    let carries = carried.clone();
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            let token = head.lines().find(|line| line.starts_with("authorization: ")).unwrap().to_owned();
            carries.lock().unwrap().entry(conversation.number).or_default().insert(token);
            conversation.request_body(&head);
            conversation.answer("200 OK", "text/plain", "own");
        }
    });
    let gate = Gate::plan(&upstream, TWO_CALLERS).workers(1).start();
    let mut callers = [gate.connect("app"), gate.connect("crm")];
    let get = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let post = "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    for _ in 0..5 {
        for (caller, request) in callers.iter_mut().zip([get, post]) {
            caller.send(request);
            assert_eq!(caller.answer().text(), "own");
        }
    }
    let carried = carried.lock().unwrap();
    assert!(carried.values().all(|tokens| tokens.len() == 1), "{} connections were shared", carried.len());
    assert_eq!(carried.len(), 2, "and each is used again");
    // Another token in the file is another token.
    drop(carried);
    gate.replace_token("analytics", "y0_another0123456789abcdef0123456789");
    gate.until_log(&["token reloaded"]);
    callers[0].send(get);
    assert_eq!(callers[0].answer().text(), "own");
    assert_eq!(upstream.connections(), 3);
}

/// Idle connections of many tokens are no more than those of one.
#[test]
fn a_new_connection_ends_the_one_that_was_idle_longest() {
    let upstream = Upstream::plain();
    let config =
        format!("{TWO_CALLERS}\nupstream: {{ca_file: '{{ca}}', connect_to: '{{upstream}}', connections: 1}}\n");
    let gate = Gate::plan(&upstream, &config).workers(1).start();
    let post = "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    for turn in 1..=3 {
        assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
        assert_eq!(gate.send("crm", post).summary(), "200");
        assert_eq!(upstream.connections(), 2 * turn);
    }
}
