//! Tests of valid configurations, and of the messages about mistakes.

use metrica::operation::{Destructive, Shares};

use super::*;

fn mistakes(text: &str) -> Vec<String> {
    match Config::parse(text, Path::new("gate.yaml")) {
        Ok(_) => Vec::new(),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    }
}

#[test]
fn the_smallest_configuration_works() {
    let config = Config::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/gate.yaml"))).unwrap();
    assert_eq!(config.upstream.authority, "api-metrika.yandex.net");
    assert_eq!(config.admin.address, SocketAddr::from(([127, 0, 0, 1], 9090)));
    assert_eq!(config.upstream.timeouts.response_headers, Duration::from_secs(130));
}

#[test]
fn a_listener_speaks_http2_only_if_configured() {
    let text = include_str!("../../config/gate.yaml");
    let read = |more: &str| {
        Config::parse(&text.replacen("{name: app", &format!("{{{more}name: app"), 1), Path::new("gate.yaml"))
    };
    let speaks = |more: &str| read(more).unwrap().listeners[0].http2;
    assert!(!speaks("") && !speaks("http2: false, ") && speaks("http2: true, "));
    let said = read("http2: h2c, ").unwrap_err().to_string();
    assert!(said.contains("listeners[0].http2: is 'h2c'; expected true or false"), "{said}");
}

#[test]
fn an_operation_has_one_counter_in_its_path_and_a_delete_cannot_be_undone() {
    let with = |method: &str, path: &str| {
        let operations = format!("operations: [{{method: {method}, path: '{path}', scope: [metrika:write], id: new}}]");
        Config::parse(&format!("{}\n{operations}\n", include_str!("../../config/gate.yaml")), Path::new("gate.yaml"))
    };
    let destructive = |method: &str| {
        let config = with(method, "/management/v2/counter/{counter_id}/thing").unwrap();
        config.catalogue.operations().last().is_some_and(|operation| operation.destructive == Destructive::Always)
    };
    assert_eq!(["POST", "DELETE"].map(destructive), [false, true]);
    let stated = with("POST, destructive: true", "/management/v2/thing").unwrap();
    let stated = stated.catalogue.operations().last().unwrap();
    assert_eq!((stated.destructive, stated.shares, stated.upload), (Destructive::Always, Shares::Nothing, false));
    let marked = with("GET, upload: true, shares: true, acts: true", "/new/v1/things/{id}").unwrap();
    let marked = marked.catalogue.operations().last().unwrap();
    assert_eq!((marked.shares, marked.upload, marked.acts, marked.suffixes), (Shares::Named, true, true, false));
    assert!(with("GET", "/management/v2/things").unwrap().catalogue.operations().last().unwrap().suffixes);
    let said = with("POST", "/v2/counter/{counter_id}/copy/{counterId}").unwrap_err().to_string();
    assert!(said.contains("expected a path with at most one {counter_id}"), "{said}");
}

#[test]
fn a_mode_that_is_allowed_lets_others_write_nothing() {
    let with = |mode: &str| {
        let text = include_str!("../../config/gate.yaml").replacen(
            "scopes: [metrika:read]",
            &format!("allow_mode: {mode}\n    scopes: [metrika:read]"),
            1,
        );
        Config::parse(&text, Path::new("gate.yaml")).map(|config| config.tokens[0].allow_mode)
    };
    assert_eq!(with("'0444'").unwrap(), Some(0o444));
    assert_eq!(with("'664'").unwrap(), Some(0o664));
    for wrong in ["'0446'", "'0777'", "'0844'", "'01444'", "444", "rw"] {
        let said = with(wrong).unwrap_err().to_string();
        assert!(said.contains("tokens.analytics.allow_mode") && said.contains("expected octal permissions"), "{said}");
    }
}

#[test]
fn logins_are_normalised_and_ulogin_absent_has_its_default() {
    let rules = |keys: &str| {
        let text = include_str!("../../config/gate.yaml").replace("destructive: deny", keys);
        Config::parse(&text, Path::new("gate.yaml")).map(|config| config.callers[0].rules.clone())
    };
    let absent = |keys: &str| rules(keys).unwrap().ulogin_absent;
    assert!(absent("") && absent("counters: [1]") && absent("counters: [1]\n    ulogin: [a]"));
    assert!(
        !absent("ulogin: [a]") && absent("ulogin: [a]\n    ulogin_absent: allow") && !absent("ulogin_absent: deny")
    );
    let read = rules("ulogin: [Shop.A, shop-a, b]\n    grantees: [C.d, c-D]").unwrap();
    assert_eq!(read.logins.as_deref(), Some(&["shop-a".into(), "b".into()][..]));
    assert_eq!(read.grantees.as_deref(), Some(&["c-d".into()][..]));
    assert!(!read.sharing && rules("").unwrap().grantees.is_none());
    let said = rules("counters: [1]\n    ulogin_absent: deny").unwrap_err().to_string();
    assert!(said.contains("callers[0].ulogin_absent: would refuse every request"), "{said}");
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_places() {
    let text = r#"
listeners:
  - {name: app, address: "0.0.0.0:8080"}
  - {name: app, unix: {path: relative.sock, mode: 660}}
upstream: {url: "http://api-metrika.yandex.net", timeout: 5s}
tokens:
  analytics: {token: y0_AgAAAAAsecretsecret, scopes: [metrika:reed]}
callers:
  - id: reports
    match: {listener: web, uid: [x]}
    scopes: [metrika:read]
    tokens: [analytic]
unknown_operations: maybe
timeouts: {keep_alive: 75}
limits: {connections: 0}
"#;
    insta::assert_snapshot!(mistakes(text).join("\n"), @r#"
    gate.yaml:3:26 listeners[0].address: 0.0.0.0:8080 is not a loopback address; use one, or add allow_remote: true
    gate.yaml:4:30 listeners[1].unix.path: is 'relative.sock'; expected an absolute path of at most 107 bytes
    gate.yaml:4:51 listeners[1].unix.mode: is 660; expected octal permissions with a leading zero, as in "0660"
    gate.yaml:5:17 upstream.url: is invalid (not shown, because it could be a token); expected an https URL, because the gate never sends tokens without TLS
    gate.yaml:5:50 upstream.timeout: unknown key; did you mean 'timeouts'?
    gate.yaml:7:14 tokens.analytics: the key 'file' is missing
    gate.yaml:7:15 tokens.analytics.token: unknown key; set 'file' to the path of the token file
    gate.yaml:7:55 tokens.analytics.scopes[0]: is 'metrika:reed'; expected metrika:read, metrika:write, metrika:expenses, metrika:user_params or metrika:offline_data
    gate.yaml:10:23 callers[0].match.listener: is 'web'; expected the name of a listener under 'listeners': app, app
    gate.yaml:10:34 callers[0].match.uid[0]: is 'x'; expected a number from 0 to 4294967295
    gate.yaml:12:14 callers[0].tokens[0]: is 'analytic'; expected the name of a token under 'tokens': analytics
    gate.yaml:13:21 unknown_operations: is 'maybe'; expected deny or by_method
    gate.yaml:14:24 timeouts.keep_alive: is 75; expected a duration as in 10s, 250ms or 1m 30s
    gate.yaml:15:23 limits.connections: is 0; expected a number from 1 to 10000000
    14 mistakes in the configuration
    "#);
}

#[test]
fn a_remote_listener_needs_callers_that_state_more() {
    let text = |conditions: &str| {
        format!(
            "listeners: [{{name: app, address: '0.0.0.0:80', allow_remote: true}}]\n\
             tokens: {{t: {{file: /t, scopes: [metrika:read]}}}}\n\
             callers: [{{id: c, match: {{{conditions}}}, scopes: [metrika:read], tokens: [t]}}]"
        )
    };
    for refused in [
        "listener: app",
        "source: [0.0.0.0/0]",
        "listener: app, source: ['::/0']",
        "source: [0.0.0.0/0, 10.0.0.0/8]",
        "source: ['::ffff:0.0.0.0/96']",
        "source: ['::/64']",
        "source: [0.0.0.0/1, 128.0.0.0/1]",
        "source: [10.0.0.0/8, 128.0.0.0/2, 0.0.0.0/1, '::ffff:192.0.0.0/98']",
        "source: ['::/1', '8000::/1']",
        "source: ['2000::/3']",
        "",
        "source: [10.0.0.0/8], uid: [1]",
    ] {
        assert_eq!(mistakes(&text(refused)).len(), 2, "{refused}");
    }
    for fine in [
        "listener: app, source: [10.0.0.0/8]",
        "source: [10.1.2.3]",
        "source: [0.0.0.0/1, '2001:db8::/32']",
        "source: ['::ffff:10.0.0.0/104', 'fd00::/8']",
        "uid: [7]",
    ] {
        assert_eq!(mistakes(&text(fine)), Vec::<String>::new(), "{fine}");
    }
}

#[test]
fn invalid_hosts_fields_and_limits_are_reported() {
    let text = "
listeners:
  - {name: app, address: '127.0.0.1:80', hosts: [gate, 'gate:80', '*.svc', 'http://gate'], require_header: 'Accept: x'}
  - {name: crm, unix: {path: /run/crm.sock}, hosts: [gate], require_header: X-Gate}
tokens: {t: {file: /t, scopes: [metrika:read]}}
callers: [{id: c, match: {listener: app}, scopes: [metrika:read], tokens: [t]}]
timeouts: {request: 0s}
limits: {header_fields: 1001, connections_per_peer: 0}
";
    insta::assert_snapshot!(mistakes(text).join("\n"), @r#"
    gate.yaml:3:56 listeners[0].hosts[1]: is 'gate:80'; expected a host without a port, as in metrika-gate.metrika.svc, 10.1.2.3 or [2001:db8::1]; wildcards are not supported
    gate.yaml:3:67 listeners[0].hosts[2]: is '*.svc'; expected a host without a port, as in metrika-gate.metrika.svc, 10.1.2.3 or [2001:db8::1]; wildcards are not supported
    gate.yaml:3:76 listeners[0].hosts[3]: is 'http://gate'; expected a host without a port, as in metrika-gate.metrika.svc, 10.1.2.3 or [2001:db8::1]; wildcards are not supported
    gate.yaml:3:108 listeners[0].require_header: is 'Accept: x'; expected a header field whose name begins with X- (not X-Request-ID) and a value of visible characters, as in "X-Metrika-Gate: 1"
    gate.yaml:4:53 listeners[1].hosts: a unix socket accepts any host; remove the key
    gate.yaml:4:77 listeners[1].require_header: is 'X-Gate'; expected a header field whose name begins with X- (not X-Request-ID) and a value of visible characters, as in "X-Metrika-Gate: 1"
    gate.yaml:7:21 timeouts.request: is zero; expected a longer duration
    gate.yaml:8:25 limits.header_fields: is 1001; expected a number from 1 to 1000
    gate.yaml:8:53 limits.connections_per_peer: is 0; expected a number from 1 to 10000000
    9 mistakes in the configuration
    "#);
}

#[test]
fn callers_that_are_known_by_an_address_on_a_network_are_known() {
    let of = |listeners: &str, conditions: &str| {
        let text = format!(
            "listeners: [{listeners}]\ntokens: {{t: {{file: /t, scopes: [metrika:read]}}}}\n\
             callers: [{{id: c, match: {{{conditions}}}, scopes: [metrika:read], tokens: [t]}}]"
        );
        Config::parse(&text, Path::new("gate.yaml"))
            .unwrap_or_else(|error| panic!("{error}"))
            .address_only_callers()
            .len()
    };
    let (here, there) =
        ("{name: app, address: '127.0.0.1:80'}", "{name: net, address: '10.0.0.1:80', allow_remote: true}");
    let both = format!("{here}, {there}");
    for (listeners, conditions, expected) in [
        (here, "listener: app", 0),
        (here, "source: [10.0.0.0/8]", 0),
        (there, "listener: net, source: [10.0.0.0/8]", 1),
        (&both, "source: [10.0.0.0/8]", 1),
        (&both, "listener: app, source: [10.0.0.0/8]", 0),
        (&both, "source: [127.0.0.0/8, '::1']", 0),
        (&both, "uid: [1]", 0),
    ] {
        assert_eq!(of(listeners, conditions), expected, "{listeners} {conditions}");
    }
}

#[test]
fn each_address_is_for_one() {
    let said = |listener: &str, admin: &str| {
        let text = format!(
            "listeners: [{{name: a, address: '127.0.0.1:80'}}, {{name: b, address: '{listener}'}}]\n{admin}\n\
             tokens: {{t: {{file: /t, scopes: [metrika:read]}}}}\n\
             callers: [{{id: c, match: {{listener: a}}, scopes: [metrika:read], tokens: [t]}}]"
        );
        mistakes(&text).first().cloned()
    };
    let admin = |address: &str| format!("admin: {{address: '{address}'}}");
    for (listener, admin, expected) in [
        ("127.0.0.1:80", String::new(), Some("duplicate address")),
        (
            "127.0.0.1:9090",
            String::new(),
            Some("admin.address is also 127.0.0.1:9090; each listener needs a unique address"),
        ),
        (
            "127.0.0.1:81",
            admin("127.0.0.1:81"),
            Some("admin.address is also 127.0.0.1:81; each listener needs a unique address"),
        ),
        ("127.0.0.1:9090", admin("127.0.0.1:81"), None),
        ("127.0.0.1:0", admin("127.0.0.1:0"), None),
    ] {
        let said = said(listener, &admin);
        assert_eq!(said.is_some(), expected.is_some(), "{listener} {admin}: {said:?}");
        let place = expected.map_or_else(String::new, |expected| format!("gate.yaml:1:49 listeners[1]: {expected}"));
        assert!(said.unwrap_or_default().starts_with(&place), "{listener} {admin}");
    }
}

#[test]
fn the_mark_of_a_byte_order_is_passed_over() {
    let text = include_str!("../../config/gate.yaml");
    assert!(Config::from_bytes(format!("\u{feff}{text}").as_bytes(), Path::new("gate.yaml")).is_ok());
    assert_eq!(mistakes("\u{feff}a: 1")[0].split(' ').next(), Some("gate.yaml:1:1"));
}

#[test]
fn a_repeated_key_is_a_mistake() {
    let text = "tokens: {}\ntokens: {}\n";
    assert!(mistakes(text).iter().any(|line| line.contains("gate.yaml:2:1 tokens") && line.contains("duplicate")));
}

#[test]
fn a_wrong_key_in_block_style_has_its_own_line() {
    let text = "
listner:
  - name: app
    address: 127.0.0.1:80
listeners:
  - name: app
    adress:
      - 127.0.0.1:80
    unix:
      path: /run/app.sock
tokens:
  t:
    file: /t
    scopes: [metrika:read]
    scopes:
      - metrika:write
callers:
callers:
  - id: c
    match:
      listener: app
    scopes: [metrika:read]
    tokens: [t]
";
    insta::assert_snapshot!(mistakes(text).join("\n"), @"
    gate.yaml:2:1 listner: unknown key; did you mean 'listeners'?
    gate.yaml:7:5 listeners[0].adress: unknown key; did you mean 'address'?
    gate.yaml:15:5 tokens.t.scopes: duplicate key 'scopes'
    gate.yaml:17:1 callers: has no value; check the indentation of the lines below it
    gate.yaml:18:1 callers: duplicate key 'callers'
    5 mistakes in the configuration
    ");
}
