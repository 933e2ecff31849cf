//! Metrics: the counts and their labels.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use fake_metrica::{Fake, FakeToken, Settings};
use metrica::cause::Cause;
use metrica::scope::Scope;
use metrika_gate::metrics::page::FAMILIES;

use crate::harness::files::same_as_file;
use crate::harness::gate::count;
use crate::harness::{Gate, READ_TOKEN, Signal, TWO_CALLERS, Upstream};

const COUNTERS: &str = "/management/v1/counters";

/// The samples of a family, without the family's name and the prefix of all.
fn samples(gate: &Gate, family: &str) -> Vec<String> {
    let name = format!("metrika_gate_{family}");
    let of_family =
        |line: &String| line.strip_prefix(&name).filter(|rest| rest.starts_with(['{', ' '])).map(str::to_owned);
    gate.metrics(&[]).iter().filter_map(of_family).collect()
}

#[test]
fn series_of_refusals_exist_before_the_first_one() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let (quotas, refusals): (Vec<&Cause>, Vec<_>) = Cause::ALL.iter().partition(|cause| cause.is_of_quota());
    let of_tokens = |causes: &[&Cause], prefix: &str| {
        let one = |token: &str, cause: &Cause| format!("{{{prefix}token=\"{token}\",reason=\"{}\"}} 0", cause.as_str());
        let both = ["analytics", "crm"].into_iter();
        both.flat_map(|token| causes.iter().map(move |cause| one(token, cause))).collect::<BTreeSet<_>>()
    };
    let seen = samples(&gate, "refusals_total");
    let (own, of_metrica): (BTreeSet<_>, BTreeSet<_>) = seen.into_iter().partition(|line| line.contains("\"gate\""));
    assert_eq!(of_metrica, of_tokens(&refusals, "origin=\"upstream\","));
    for reason in ["unknown_caller", "scope_denied", "counter_denied"] {
        assert!(own.contains(&format!("{{origin=\"gate\",token=\"none\",reason=\"{reason}\"}} 0")), "{own:?}");
    }
    assert_eq!(samples(&gate, "quota_rejections_total").into_iter().collect::<BTreeSet<_>>(), of_tokens(&quotas, ""));
    // There can be thousands of callers: theirs begin with their first use.
    assert!(samples(&gate, "auth_failures_total").is_empty() && gate.metrics(&["caller=\"crm\""]).is_empty());
    insta::assert_snapshot!(samples(&gate, "upstream_errors_total").join("\n"), @r#"
    {kind="resolve"} 0
    {kind="connect"} 0
    {kind="connect_timeout"} 0
    {kind="tls"} 0
    {kind="proxy_resolve"} 0
    {kind="proxy_connect"} 0
    {kind="proxy_connect_timeout"} 0
    {kind="proxy_timeout"} 0
    {kind="proxy_closed"} 0
    {kind="proxy_credentials"} 0
    {kind="proxy_denied"} 0
    {kind="proxy_failed"} 0
    {kind="proxy_protocol"} 0
    {kind="saturated"} 0
    {kind="closed"} 0
    {kind="protocol"} 0
    {kind="response_timeout"} 0
    {kind="body_cut"} 0
    {kind="body_timeout"} 0
    {kind="redirect"} 0
    {kind="encoding"} 0
    {kind="reflected"} 0
    "#);
}

#[test]
fn an_exchange_is_counted_under_the_names_of_the_configuration() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    assert_eq!(gate.get("app", "/stat/v1/data?ids=1&metrics=ym:s:visits").summary(), "200");
    assert_eq!(gate.get("crm", "/management/v1/counter/44147844/goals").summary(), "200");
    let post = "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\n{\"counter\":1";
    assert_eq!(gate.send("app", post).summary(), "403 scope_denied");
    assert_eq!(gate.send("crm", post).summary(), "200");
    let mut head = gate.connect("crm");
    head.send("HEAD /stat/v1/data.csv HTTP/1.1\r\nHost: localhost\r\n\r\n");
    head.answer_to_head();
    assert_eq!(gate.get("crm", "/nothing/here").summary(), "404 unknown_operation");
    gate.until_metric(&["requests_total"], 6.0);
    insta::assert_snapshot!(samples(&gate, "requests_total").join("\n"), @r#"
    {caller="crm",operation="none",method="GET",code="404",origin="gate"} 1
    {caller="crm",operation="counters.create",method="POST",code="200",origin="upstream"} 1
    {caller="crm",operation="goals.list",method="GET",code="200",origin="upstream"} 1
    {caller="crm",operation="report.table",method="HEAD",code="200",origin="upstream"} 1
    {caller="reports",operation="counters.create",method="POST",code="403",origin="gate"} 1
    {caller="reports",operation="report.table",method="GET",code="200",origin="upstream"} 1
    "#);
    insta::assert_snapshot!(samples(&gate, "denied_total").join("\n"), @r#"
    {caller="crm",reason="unknown_operation"} 1
    {caller="reports",reason="scope_denied"} 1
    "#);
    insta::assert_snapshot!(samples(&gate, "request_bytes_total").join("\n"), @r#"
    {caller="crm"} 12
    {caller="reports"} 0
    "#);
    insta::assert_snapshot!(samples(&gate, "upstream_duration_seconds_count").join("\n"), @r#"
    {operation="counters.create"} 1
    {operation="goals.list"} 1
    {operation="report.table"} 2
    "#);
    insta::assert_snapshot!(samples(&gate, "request_duration_seconds_count").join("\n"), @r#"
    {caller="crm"} 4
    {caller="reports"} 2
    "#);
    assert_eq!(
        gate.metric(&["auth_failures_total", "origin=\"gate\"", "counters.create", "scope_denied", "reports"]),
        1.0
    );
    assert_eq!(
        gate.metric(&["response_bytes_total", "caller=\"crm\""]),
        4.0 + count(gate.get("crm", "/nothing").body.len())
    );
}

/// An error of Metrica and one on the way to it have the same status, and not the same series.
#[test]
fn the_origin_of_a_response_is_counted() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            match head.contains("ids=1&") {
                true => conversation.answer("502 Bad Gateway", "text/html", "<html>"),
                false => return conversation.reset(),
            };
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let ask = |counter: u64| gate.get("app", &format!("/stat/v1/data?ids={counter}&metrics=ym:s:visits")).status;
    assert_eq!((ask(1), ask(2)), (502, 502));
    gate.until_metric(&["requests_total", "code=\"502\"", "origin=\"upstream\""], 1.0);
    gate.until_metric(&["requests_total", "code=\"502\"", "origin=\"gate\""], 1.0);
}

#[test]
fn a_token_of_another_account_has_a_metric() {
    let token = FakeToken {
        secret: READ_TOKEN.to_owned(),
        owner: "shop-owner".to_owned(),
        scopes: [Scope::Read].into_iter().collect(),
        // An identifier that has nothing in common with the token.
        client_id: "fedcba98".to_owned(),
        ..FakeToken::default()
    };
    let fake = Fake::start(Settings { tokens: vec![token], ..Settings::default() }).unwrap();
    for (login, of_another) in [("shop-owner", 0.0), ("stranger", 1.0)] {
        fake.turn(&format!("account?token={READ_TOKEN}&login={login}")).unwrap();
        let config = format!(
            "{TWO_CALLERS}
tokens:
  analytics: {{file: '{{folder}}/analytics', scopes: [metrika:read], owner: Shop.Owner}}
  crm: {{file: '{{folder}}/crm', scopes: [metrika:write]}}
identity: {{url: 'https://login.yandex.ru/info', ca_file: '{{ca}}', connect_to: '{{upstream}}'}}
"
        );
        let gate = Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &config).start();
        let labels = ["token_of_another_account{", "token=\"analytics\""];
        gate.until_metric(&labels, of_another);
    }
}

#[test]
fn a_refusal_with_a_body_beyond_all_measure_is_passed_on_and_has_its_reason() {
    const SIZE: usize = 3_000_000;
    let upstream = Upstream::run(|conversation| {
        while conversation.request_head().is_some() {
            let body =
                format!("{{\"errors\":[{{\"error_type\":\"access_denied\",\"message\":\"{}\"}}]}}", "x".repeat(SIZE));
            conversation.answer("403 Forbidden", "application/json", &body);
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let answer = gate.get("app", COUNTERS);
    assert_eq!(answer.summary(), "403");
    assert!(answer.body.len() > SIZE && answer.body.ends_with(b"x\"}]}"));
    let reason = "reason=\"scope_missing\"";
    gate.until_metric(&["auth_failures_total", "origin=\"upstream\"", "code=\"403\"", reason], 1.0);
}

#[test]
fn a_refusal_that_answers_head_is_counted() {
    let upstream = Upstream::run(|conversation| {
        while conversation.request_head().is_some() {
            conversation.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 500\r\n\r\n");
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    caller.send(format!("HEAD {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert_eq!(caller.answer_to_head().summary(), "403");
    gate.until_metric(&["auth_failures_total", "origin=\"upstream\"", "code=\"403\"", "reason=\"scope_missing\""], 1.0);
}

#[test]
fn a_caller_that_leaves_is_counted_and_logged() {
    let gone = Signal::default();
    let seen = gone.clone();
    let upstream = Upstream::run(move |conversation| {
        conversation.request_head();
        if conversation.is_closed() {
            seen.give();
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    caller.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: vanished\r\n\r\n"));
    gate.until_metric(&["in_flight_requests", "caller=\"reports\""], 1.0);
    drop(caller);
    gone.wait("the request to Metrica is given up");
    gate.until_metric(&["requests_total", "caller=\"reports\"", "operation=\"counters.list\"", "code=\"499\""], 1.0);
    gate.until_metric(&["in_flight_requests"], 0.0);
    let line = gate.until_log(&["\"vanished\""]);
    assert!(line.contains("\"status\":499") && line.contains("\"outcome\":\"caller_gone\""), "{line}");
}

#[test]
fn a_caller_that_goes_away_in_the_answer_is_counted_once() {
    let upstream = Upstream::run(move |conversation| {
        conversation.request_head();
        conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        while conversation.write([b'x'; 16 * 1024]) {}
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    caller.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: vanished\r\n\r\n"));
    assert_eq!(caller.head().unwrap().0, 200);
    drop(caller);
    let line = gate.until_log(&["\"vanished\""]);
    assert!(line.contains("\"outcome\":\"caller_gone\""), "{line}");
    gate.until_metric(&["requests_total"], 1.0);
    gate.until_metric(&["in_flight_requests"], 0.0);
}

/// A gate that has counted something in most families.
fn busy_gate(upstream: &Upstream) -> Gate {
    let tokens = "
tokens:
  analytics: {file: '{folder}/analytics', scopes: [metrika:read], expires: 2030-01-31, owner: o, standby: spare}
  spare: {file: '{folder}/analytics', scopes: [metrika:read], owner: o}
  crm: {file: '{folder}/crm', scopes: [metrika:write]}
";
    let callers = TWO_CALLERS.replace("{id: crm,", "{id: crm, enforce: false,").replace(", metrika:write]", "]");
    let callers = callers.replace(
        "callers:\n",
        "  - {name: tls, address: '127.0.0.1:0', tls: {authority: '{folder}/ca', renew: true}}\ncallers:\n",
    );
    let key = metrika_gate::policy::key::of_random(&[1; 43]).unwrap();
    let hash = metrika_gate::policy::caller::KeyHash::of(key.as_bytes());
    let keyed = "scopes: [metrika:read], tokens: [analytics]";
    let callers = format!("{callers}  - {{id: keyed, match: {{listener: tls, key_sha256: ['{hash}']}}, {keyed}}}\n");
    let gate = Gate::start(
        upstream,
        &format!(
            "{callers}{tokens}timeouts: {{body_idle: 200ms}}\nservice_accounts: {{jwks_url: 'https://127.0.0.1:1/keys', issuer: a, audience: b}}\nquota: {{mode: observe, store: {{redis: 'redis://127.0.0.1:1'}}}}\n"
        ),
    );
    for path in [COUNTERS, "/no", "/stat/v1/data?oauth_token=x", "/a//b"] {
        gate.get("app", path);
    }
    gate.send("app", "DELETE /management/v1/counter/1 HTTP/1.1\r\nHost: localhost\r\nCookie: a=b\r\n\r\n");
    gate.send("crm", "DELETE /management/v1/counter/1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    gate.send("app", "what?\r\n\r\n");
    let elsewhere = format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: OAuth {}\r\n\r\n", *key);
    assert_eq!(gate.send("app", elsewhere).summary(), "401 unknown_caller");
    let mut slow = gate.connect("crm");
    slow.send(format!("POST {COUNTERS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{"));
    assert_eq!(slow.answer().status, 408);
    gate.until_metric(&["metrika_gate_requests_total"], 9.0);
    gate
}

#[test]
fn the_page_has_the_documented_families_with_their_labels_and_no_others() {
    let upstream = Upstream::plain();
    let gate = busy_gate(&upstream);
    let page = gate.admin("/metrics");
    assert_eq!(page.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let documented: BTreeMap<&str, BTreeSet<&str>> = FAMILIES
        .iter()
        .map(|(name, _, labels, _)| (*name, labels.split(", ").filter(|label| !label.is_empty()).collect()))
        .collect();
    let page = page.text();
    let kinds: BTreeMap<&str, &str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .filter(|(name, _)| name.starts_with("metrika_"))
        .collect();
    let expected: BTreeMap<&str, String> =
        FAMILIES.iter().map(|(name, kind, _, _)| (*name, kind.to_lowercase())).collect();
    assert_eq!(kinds, expected.iter().map(|(name, kind)| (*name, kind.as_str())).collect());
    for line in page.lines().filter(|line| line.starts_with("metrika_gate_")) {
        let (name, rest) = line.split_once(['{', ' ']).unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .filter(|name| documented.contains_key(name))
            .unwrap_or(name);
        let labels: BTreeSet<&str> = if line.contains('{') {
            rest.split('}')
                .next()
                .unwrap()
                .split(',')
                .map(|pair| pair.split('=').next().unwrap())
                .filter(|label| *label != "le")
                .collect()
        } else {
            BTreeSet::new()
        };
        assert_eq!(&labels, &documented[family], "{line}");
    }
    for process in
        ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"]
    {
        assert!(page.contains(&format!("# TYPE {process} ")), "{process}");
    }
}

#[test]
fn promtool_reports_nothing() {
    let upstream = Upstream::plain();
    let page = busy_gate(&upstream).admin("/metrics").text();
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else {
        println!("promtool is not installed; test.sh looks at the page too");
        return;
    };
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_admin_listener_shows_and_changes_nothing() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let paths =
        [("/livez", "200"), ("/readyz", "200"), ("/readyz?verbose", "200"), ("/startupz", "200"), ("/no", "404")];
    for (path, status) in paths {
        assert_eq!(gate.admin(path).summary(), status, "{path}");
    }
    let verbose = gate.admin("/readyz?verbose").text();
    assert_eq!(
        verbose,
        "[+] listeners are open\n[+] not shutting down\n[+] the configuration is in use\n[+] token analytics\n[+] token crm\nok\n"
    );
    for method in ["POST", "PUT", "DELETE"] {
        let mut caller = crate::harness::Caller::connect(gate.admin_place());
        caller.send(format!("{method} /readyz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(caller.answer().summary(), "405", "{method}");
    }
    // The listeners of callers serve none of these (R-21).
    for path in ["/metrics", "/readyz", "/livez"] {
        assert_eq!(gate.get("app", path).summary(), "404 unknown_operation", "{path}");
    }
}

#[test]
fn the_families_are_in_the_documentation() {
    let mut text = "# Metrics\n\n\
        `GET /metrics` of the admin listener returns these families, and the `process_*` family of Prometheus. Label values are names of the configuration, ids of the catalogue and closed lists; `none` and `unknown` mean that the value was not known. A line with labels may appear only with its first event: no line means 0.\n\n\
        A test writes this page from `src/metrics/families.rs`; `UPDATE=1 cargo test --test it` regenerates it.\n\n\
        | family | type | labels | meaning |\n|---|---|---|---|\n"
        .to_owned();
    for (name, kind, labels, help) in FAMILIES {
        writeln!(text, "| `{name}` | {} | {labels} | {help} |", kind.to_lowercase()).unwrap();
    }
    same_as_file("docs/metrics.md", &text);
}

/// A page of 10,000 callers without requests is small, and compressed on request (RFC 9110, section 12.5.3).
#[test]
fn a_page_is_small_and_compressed_on_request() {
    let upstream = Upstream::plain();
    let mut config = "listeners:\n".to_owned();
    let callers = (0..10_000).map(|number| {
        format!("  - {{id: c{number}, match: {{listener: app, source: [10.{}.{}.0/24]}}, scopes: [metrika:read], tokens: [analytics]}}\n", number / 250, number % 250)
    });
    config += "  - {name: app, address: '127.0.0.1:0', hosts: [gate], allow_remote: true}\ncallers:\n";
    config.extend(callers);
    let gate = Gate::start(&upstream, &config);
    let ask = |fields: &str| {
        let mut caller = crate::harness::Caller::connect(gate.admin_place());
        caller.send(format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
        caller.answer()
    };
    let plain = ask("");
    assert_eq!(plain.field("content-encoding"), None);
    assert!(plain.body.len() < 300_000, "{}", plain.body.len());
    for refused in ["Accept-Encoding: gzip;q=0\r\n", "Accept-Encoding: br\r\n"] {
        assert_eq!(ask(refused).field("content-encoding"), None, "{refused}");
    }
    let packed = ask("Accept-Encoding: deflate, gzip\r\n");
    assert_eq!((packed.field("content-encoding"), packed.field("vary")), (Some("gzip"), Some("accept-encoding")));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed.body[..]), &mut text).unwrap();
    assert!(text.contains("metrika_gate_refusals_total{") && packed.body.len() < text.len() / 3);
}
