//! Who is calling: the connection says it, a request never does.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;

use crate::harness::{Caller, Gate, TWO_CALLERS, Upstream};

const RIGHTS: &str = "scopes: [metrika:read], tokens: [analytics]";

#[test]
fn the_order_of_the_callers_decides() {
    let upstream = Upstream::plain();
    let config = format!(
        "
listeners:
  - {{name: app, address: '127.0.0.1:0'}}
  - {{name: other, address: '127.0.0.1:0'}}
callers:
  - {{id: here, match: {{listener: app, source: [127.0.0.2]}}, {RIGHTS}}}
  - {{id: wide, match: {{source: [127.0.0.2/31, 127.0.1.0/24]}}, {RIGHTS}}}
  - {{id: shadowed, match: {{listener: app, source: [127.0.0.3]}}, {RIGHTS}}}
  - {{id: anybody, match: {{listener: other}}, {RIGHTS}}}
  - {{id: late, match: {{source: [127.0.0.9]}}, {RIGHTS}}}
"
    );
    let gate = Gate::start(&upstream, &config);
    for (source, listener, caller) in [
        ("127.0.0.2", "app", "here"),
        ("127.0.0.2", "other", "wide"),
        ("127.0.0.3", "app", "wide"),
        ("127.0.1.77", "app", "wide"),
        ("127.0.2.1", "app", "unknown"),
        ("127.0.0.1", "app", "unknown"),
        ("127.0.0.1", "other", "anybody"),
        ("127.0.0.9", "app", "late"),
        ("127.0.0.9", "other", "anybody"),
    ] {
        let mut connection = Caller::connect_from(source, gate.place(listener));
        assert_eq!(gate.caller_of(&mut connection), caller, "{source} at {listener}");
    }
}

#[test]
fn a_process_on_a_unix_socket_is_known_by_its_user_and_group() {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (other_uid, other_gid) = (uid + 1, gid + 1);
    let upstream = Upstream::plain();
    let config = format!(
        "
listeners:
  - {{name: user, unix: {{path: '{{folder}}/user.sock'}}}}
  - {{name: group, unix: {{path: '{{folder}}/group.sock', mode: '0600'}}}}
  - {{name: both, unix: {{path: '{{folder}}/both.sock', mode: '0666'}}}}
  - {{name: half, unix: {{path: '{{folder}}/half.sock', mode: '0660'}}}}
  - {{name: tcp, address: '127.0.0.1:0'}}
callers:
  - {{id: others, match: {{uid: [{other_uid}]}}, {RIGHTS}}}
  - {{id: half, match: {{listener: half, uid: [{uid}], gid: [{other_gid}]}}, {RIGHTS}}}
  - {{id: user, match: {{listener: user, uid: [{other_uid}, {uid}]}}, {RIGHTS}}}
  - {{id: group, match: {{listener: group, gid: [{gid}]}}, {RIGHTS}}}
  - {{id: both, match: {{listener: both, uid: [{uid}], gid: [{gid}]}}, {RIGHTS}}}
"
    );
    let mut gate = Gate::start(&upstream, &config);
    let known = [("user", "user"), ("group", "group"), ("both", "both"), ("half", "unknown"), ("tcp", "unknown")];
    for (listener, caller) in known {
        assert_eq!(gate.caller_of(&mut gate.connect(listener)), caller, "{listener}");
    }
    for (listener, mode) in [("user", 0o660), ("group", 0o600), ("both", 0o666), ("half", 0o660)] {
        let socket = std::fs::metadata(gate.place(listener)).unwrap();
        assert!(socket.file_type().is_socket());
        assert_eq!(socket.mode() & 0o777, mode, "{listener}");
    }
    gate.signal("TERM");
    gate.wait();
    assert!(!gate.file("user.sock").exists(), "the socket's file is taken away at the end");
}

const ON_A_SOCKET: &str = "
listeners: [{name: crm, unix: {path: '{folder}/crm.sock'}}]
callers: [{id: crm, match: {listener: crm}, scopes: [metrika:read], tokens: [analytics]}]
";

#[test]
fn a_socket_that_nobody_answers_on_is_replaced() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, ON_A_SOCKET);
    drop(UnixListener::bind(plan.folder().join("crm.sock")).unwrap());
    assert!(plan.folder().join("crm.sock").exists(), "a stale socket is there");
    assert_eq!(plan.start().get("crm", "/management/v1/counters").summary(), "200");
}

#[test]
fn a_socket_that_somebody_answers_on_is_left() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, ON_A_SOCKET);
    let path = plan.folder().join("crm.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let before = std::fs::metadata(&path).unwrap().ino();
    let kept = plan.folder().to_owned();
    let (code, said) = plan.fails_in_place();
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("another process listens there"), "{said}");
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), before);
    drop(listener);
    std::fs::remove_dir_all(kept).unwrap();
}

#[test]
fn what_is_no_socket_is_left() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, ON_A_SOCKET);
    let (path, folder) = (plan.folder().join("crm.sock"), plan.folder().to_owned());
    std::fs::write(&path, "precious").unwrap();
    let (code, said) = plan.fails_in_place();
    assert_ne!(code, 0);
    assert!(said.contains("listener 'crm' cannot be opened"), "{said}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_dir_all(folder).unwrap();
}

/// nothing that a request says about its origin, its path or its method is believed or passed on.
#[test]
fn no_field_of_a_request_identifies_anyone() {
    let upstream = Upstream::plain();
    let config = format!(
        "
listeners: [{{name: app, address: '127.0.0.1:0'}}]
callers: [{{id: trusted, match: {{source: [127.0.0.2]}}, {RIGHTS}}}]
"
    );
    let gate = Gate::start(&upstream, &config);
    let claims = [
        "Forwarded: for=127.0.0.2;proto=https",
        "X-Forwarded-For: 127.0.0.2",
        "x-forwarded-for: 127.0.0.2, 127.0.0.1",
        "X-Forwarded-Host: 127.0.0.2\r\nX-Forwarded-User: trusted",
        "X-Real-IP: 127.0.0.2",
        "X-Client-IP: 127.0.0.2\r\nTrue-Client-IP: 127.0.0.2\r\nCF-Connecting-IP: 127.0.0.2",
        "X-Forwarded-Client-Cert: By=trusted;Hash=0",
        "X-Remote-User: trusted\r\nRemote-User: trusted\r\nX-Gate-Caller: trusted",
        "From: trusted@127.0.0.2",
        "Connection: x-forwarded-for\r\nX-Forwarded-For: 127.0.0.2",
    ];
    for claim in claims {
        let request = format!("GET /management/v1/counters HTTP/1.1\r\nHost: 127.0.0.2\r\n{claim}\r\n\r\n");
        assert_eq!(gate.send("app", request).summary(), "401 unknown_caller", "{claim}");
    }
    let request = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let proxied = format!("PROXY TCP4 127.0.0.2 127.0.0.1 5000 8080\r\n{request}");
    assert_eq!(gate.send("app", proxied).summary(), "400 malformed_request");
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    let mut trusted = Caller::connect_from("127.0.0.2", gate.place("app"));
    trusted.send(request);
    assert_eq!(trusted.answer().summary(), "200");
}

#[test]
fn no_field_of_a_request_says_what_is_asked() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let overrides = [
        ("X-Original-URL", "/management/v1/counter/1"),
        ("X-Rewrite-URL", "/management/v1/counter/1"),
        ("X-Original-URI", "/management/v1/counter/1"),
        ("X-Forwarded-Uri", "/management/v1/counter/1"),
        ("X-Forwarded-Prefix", "/management/v1/counter/1"),
        ("x-envoy-original-path", "/management/v1/counter/1"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-HTTP-Method", "DELETE"),
        ("X-Method-Override", "DELETE"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("Forwarded", "for=10.0.0.1"),
        ("Via", "1.1 elsewhere"),
    ];
    let fields: String = overrides.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request =
        format!("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: r-1\r\n{fields}\r\n");
    assert_eq!(gate.send("app", request).summary(), "200");
    let head = upstream.requests().pop().unwrap();
    let mut names: Vec<_> = head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["authorization", "host", "x-request-id"], "{head}");
    assert!(head.starts_with("GET /management/v1/counters HTTP/1.1\r\n"), "{head}");
    assert!(gate.until_log(&["\"r-1\""]).contains("\"operation\":\"counters.list\""));
}

#[test]
fn a_stranger_is_told_so_and_nothing_is_sent() {
    let upstream = Upstream::plain();
    let config = format!(
        "
listeners: [{{name: app, address: '127.0.0.1:0'}}]
callers: [{{id: far, match: {{source: [10.0.0.0/8]}}, {RIGHTS}}}]
"
    );
    let gate = Gate::start(&upstream, &config);
    for path in ["/management/v1/counters", "/nothing/here", "/", "/a//b"] {
        let answer = gate.get("app", path);
        assert_eq!(answer.summary(), "401 unknown_caller", "{path}");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["errors"][0]["error_type"], "unauthorized");
    }
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    gate.until_metric(&["auth_failures_total", "origin=\"gate\"", "caller=\"unknown\"", "code=\"401\""], 4.0);
}

#[test]
fn the_line_of_an_unknown_caller_says_what_its_connection_proved() {
    let upstream = Upstream::plain();
    let config = "
listeners:
  - {name: app, address: '127.0.0.1:0'}
  - {name: crm, unix: {path: '{folder}/crm.sock', mode: \"0600\"}}
callers:
  - {id: other, match: {source: [127.9.9.9]}, scopes: [metrika:read], tokens: [analytics]}
";
    let gate = Gate::start(&upstream, config);
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "401 unknown_caller");
    assert_eq!(gate.get("crm", "/management/v1/counters").summary(), "401 unknown_caller");
    gate.until_log(&["unknown_caller", "\"listener\":\"app\"", "\"peer\":\"127.0.0.1\""]);
    gate.until_log(&["unknown_caller", "\"listener\":\"crm\"", "\"peer\":\"uid "]);
}
