//! The caller is identified by the connection, never by a request.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use crate::harness::gate::program;
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

/// every condition that is stated has to hold; where one does not, the caller is nobody. The socket has its mode.
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

///
#[test]
fn a_socket_that_nobody_answers_on_is_replaced() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, ON_A_SOCKET);
    drop(UnixListener::bind(plan.folder().join("crm.sock")).unwrap());
    assert!(plan.folder().join("crm.sock").exists(), "a stale socket is there");
    assert_eq!(plan.start().get("crm", "/management/v1/counters").summary(), "200");
}

///
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
    assert!(said.contains("another process listens on this socket"), "{said}");
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), before);
    drop(listener);
    std::fs::remove_dir_all(kept).unwrap();
}

/// a socket of another user is not ours to take away. Only root can make one for this test.
#[test]
fn a_socket_of_somebody_else_is_left() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, ON_A_SOCKET);
    let (path, folder) = (plan.folder().join("crm.sock"), plan.folder().to_owned());
    drop(UnixListener::bind(&path).unwrap());
    std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
    let (code, said) = plan.fails_in_place();
    assert_ne!(code, 0);
    assert!(said.contains("not a socket of this user"), "{said}");
    assert!(path.exists());
    std::fs::remove_dir_all(folder).unwrap();
}

/// in a folder that everyone can write, another could put a socket of its own in the place of the gate's; not in one
/// that is sticky, where nobody removes the files of others.
#[test]
fn a_folder_that_everyone_can_write_is_refused() {
    let upstream = Upstream::plain();
    for (mode, fine) in [(0o777, false), (0o702, false), (0o1777, true), (0o770, true)] {
        let plan = Gate::plan(&upstream, ON_A_SOCKET);
        std::fs::set_permissions(plan.folder(), std::fs::Permissions::from_mode(mode)).unwrap();
        let checked = program().args(["check", "--config"]).arg(plan.file()).output().unwrap();
        assert_eq!(checked.status.code(), Some(if fine { 0 } else { 77 }), "{mode:o}: {checked:?}");
        if fine {
            assert_eq!(plan.start().get("crm", "/management/v1/counters").summary(), "200", "{mode:o}");
        } else {
            let (code, said) = plan.fails();
            assert!(code == 77 && said.contains("is writable by everyone"), "{mode:o}: {code} {said}");
        }
    }
}

#[test]
fn a_folder_that_is_missing_is_78_and_for_check_a_warning() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, &ON_A_SOCKET.replace("/crm.sock'", "/no/crm.sock'"));
    let checked = program().args(["check", "--config"]).arg(plan.file()).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && said.contains("/no does not exist; without it, run exits with 78"), "{said}");
    let (code, said) = plan.fails();
    assert!(code == 78 && said.contains("/no does not exist; create it"), "{code} {said}");
}

/// a socket is made with its mode and not given it afterwards, also where the gate's own mask lets everything be.
#[test]
fn a_socket_is_never_open_for_a_moment() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, &ON_A_SOCKET.replace("crm.sock'", "crm.sock', mode: '0600'")).open_mask().start();
    assert_eq!(std::fs::metadata(gate.place("crm")).unwrap().mode() & 0o777, 0o600);
    let listen = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/server/listen.rs")).unwrap();
    for afterwards in ["set_permissions", "chmod(", "fchmod"] {
        assert!(!listen.contains(afterwards), "{afterwards}");
    }
}

/// a condition on the address alone is weak on a network, so it has to be allowed, and a gauge shows it.
#[test]
fn callers_known_by_an_address_on_a_network_are_shown() {
    let upstream = Upstream::plain();
    let config = format!(
        "
listeners:
  - {{name: app, address: '127.0.0.1:0'}}
  - {{name: net, address: '0.0.0.0:0', allow_remote: true}}
callers:
  - {{id: near, match: {{listener: app}}, {RIGHTS}}}
  - {{id: far, match: {{listener: net, source: [10.0.0.0/8]}}, {RIGHTS}}}
"
    );
    let (code, said) = Gate::plan(&upstream, &config.replace(", allow_remote: true", "")).fails();
    assert!(code == 78 && said.contains("add allow_remote: true"), "{said}");
    let gate = Gate::start(&upstream, &config);
    gate.until_log(&["\"WARN\"", "only by a network address", "\"far\""]);
    gate.until_metric(&["metrika_gate_address_only_callers"], 1.0);
    gate.replace_config(&gate.config().replace("10.0.0.0/8", "127.0.0.0/8"));
    gate.until_metric(&["metrika_gate_address_only_callers"], 0.0);
    assert_eq!(
        Gate::start(&upstream, TWO_CALLERS).metrics(&["address_only_callers"]),
        ["metrika_gate_address_only_callers 0"]
    );
}

#[test]
fn a_file_that_is_no_socket_is_left() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, ON_A_SOCKET);
    let (path, folder) = (plan.folder().join("crm.sock"), plan.folder().to_owned());
    std::fs::write(&path, "precious").unwrap();
    let (code, said) = plan.fails_in_place();
    assert_ne!(code, 0);
    assert!(said.contains("cannot open listener 'crm'"), "{said}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_dir_all(folder).unwrap();
}

/// a request's claims about its origin, its path or its method are neither believed nor passed on.
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

/// neither the path nor the method is anywhere but in the request line.
#[test]
fn no_field_of_a_request_overrides_method_or_path() {
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
    assert_eq!(names, ["accept-encoding", "authorization", "host", "via", "x-request-id"], "{head}");
    assert!(head.starts_with("GET /management/v1/counters HTTP/1.1\r\n"), "{head}");
    assert!(gate.until_log(&["\"r-1\""]).contains("\"operation\":\"counters.list\""));
    for query in ["_method=DELETE", "a=1&_METHOD=PUT", "%5Fmethod=DELETE"] {
        let answer = gate.get("crm", &format!("/management/v1/counters?{query}"));
        assert_eq!(answer.summary(), "400 bad_target", "{query}");
    }
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn an_unknown_caller_is_refused_and_nothing_is_sent() {
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
fn the_line_of_an_unknown_caller_has_the_evidence_of_its_connection() {
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
