//! Callers that are known by the token of their Kubernetes service account: which tokens are accepted, where they are read,
//! and that they go nowhere.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::commands::outcome;
use crate::harness::files::write_private;
use crate::harness::gate::{Plan, program, until};
use crate::harness::h2::{Fate, H2, HEADERS, WHOLE, block, request};
use crate::harness::service_accounts::{AUDIENCE, ISSUER, Signer, key_set, now};
use crate::harness::upstream::certificate;
use crate::harness::{Gate, READ_TOKEN, Upstream};

/// `etl` is known by its account, `night` by its account and another address, `here` by its address.
const CALLERS: &str = "
listeners: [{name: app, address: '127.0.0.1:0', http2: true}]
callers:
  - {id: here, scopes: [metrika:read], tokens: [analytics], match: {source: [127.0.0.0/8]}}
  - {id: etl, scopes: [metrika:read], tokens: [analytics], match: {service_account: [shop/etl, shop/etl-2]}}
  - {id: night, scopes: [metrika:read], tokens: [analytics], match: {service_account: [shop/night], source: [192.0.2.7]}}
";

fn settings(source: &str) -> String {
    format!("{CALLERS}service_accounts: {{{source}, issuer: '{ISSUER}', audience: {AUDIENCE}}}\n")
}

fn with_file(upstream: &Upstream, signers: &[&Signer]) -> Plan {
    let plan = Gate::plan(upstream, &settings("jwks_file: '{folder}/jwks.json'"));
    std::fs::write(plan.folder().join("jwks.json"), key_set(signers)).unwrap();
    plan
}

/// The summary of one request with these fields, and the caller that it was counted for.
fn asked(gate: &Gate, fields: &str) -> (String, String) {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let id = format!("account-{}.", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let answer = gate.send(
        "app",
        format!("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {id}\r\n{fields}\r\n"),
    );
    let line: Value = serde_json::from_str(&gate.until_log(&[&id, "\"access\""])).unwrap();
    (answer.summary(), line["caller"].as_str().unwrap().to_owned())
}

fn own(token: &str) -> String {
    format!("X-Gate-Service-Account: {token}\r\n")
}

fn is(summary: &str, caller: &str) -> (String, String) {
    (summary.to_owned(), caller.to_owned())
}

#[test]
fn a_token_names_its_caller_and_no_other() {
    let upstream = Upstream::plain();
    let signer = Signer::new("one");
    let gate = with_file(&upstream, &[&signer]).start();
    let token = |account: &str| signer.token(account, &json!({}));
    assert_eq!(asked(&gate, ""), is("200", "here"), "no token, as before");
    for account in ["shop/etl", "shop/etl-2"] {
        assert_eq!(asked(&gate, &own(&token(account))), is("200", "etl"), "another caller matches its address first");
        for scheme in ["Bearer", "bearer", "BEARER "] {
            assert_eq!(asked(&gate, &format!("Authorization: {scheme} {}\r\n", token(account))), is("200", "etl"));
        }
    }
    assert_eq!(asked(&gate, &own(&token("shop/night"))), is("401 unknown_caller", "unknown"), "its address is wrong");
    for other in ["shop/other", "other/etl", "shop/etl-3"] {
        assert_eq!(asked(&gate, &own(&token(other))), is("401 unknown_caller", "unknown"), "{other}");
    }
    let mut two = H2::connect(gate.place("app"));
    for (stream, account, expected) in [(1, "shop/etl", 200), (3, "shop/night", 401)] {
        let token = token(account);
        let fields = request("GET", "/management/v1/counters").into_iter().chain([("x-gate-service-account", &*token)]);
        two.frame(HEADERS, WHOLE, stream, block(fields));
        assert_eq!(two.fate(stream), Fate::Answered(expected), "{account}");
    }
    let requests = upstream.requests();
    assert!(requests.iter().all(|head| head.contains(READ_TOKEN) && !head.contains("eyJ")), "{requests:?}");
    assert!(!requests.concat().to_ascii_lowercase().contains("x-gate"), "{requests:?}");
    assert_eq!(gate.metrics(&["credentials_dropped_total"]), Vec::<String>::new(), "a proof is no dropped credential");
    let both = format!("{}Authorization: OAuth y0_dummy\r\n", own(&token("shop/etl")));
    assert_eq!(asked(&gate, &both), is("200", "etl"));
    gate.until_metric(&["credentials_dropped_total", "caller=\"etl\"", "kind=\"authorization\""], 1.0);
}

#[test]
fn an_offered_token_that_is_invalid_is_refused_and_never_another_caller() {
    let upstream = Upstream::plain();
    let (signer, other) = (Signer::new("one"), Signer::new("one"));
    let gate = with_file(&upstream, &[&signer]).start();
    let good = signer.token("shop/etl", &json!({}));
    let with = |name: &str, value: Value| signer.token("shop/etl", &json!({name: value}));
    let header = |header: Value| signer.signed(&header, &json!({"sub": "system:serviceaccount:shop:etl"}));
    let unsigned = format!("{}.", good.rsplit_once('.').unwrap().0);
    let cases = [
        (own(&other.token("shop/etl", &json!({}))), "401 service_account_invalid", "signature"),
        (own(&unsigned), "401 service_account_invalid", "signature"),
        (own(&with("iss", json!("https://elsewhere"))), "401 service_account_invalid", "issuer"),
        (own(&with("aud", json!(["https://kubernetes.default.svc"]))), "401 service_account_audience", "audience"),
        (own(&with("exp", json!(now() - 61))), "401 service_account_expired", "expired"),
        (own(&with("nbf", json!(now() + 3600))), "401 service_account_invalid", "not_yet_valid"),
        (own(&with("sub", json!("system:node:etl"))), "401 service_account_invalid", "subject"),
        (own(&header(json!({"alg": "none", "kid": "one"}))), "401 service_account_invalid", "algorithm"),
        (own(&header(json!({"alg": "HS256", "kid": "one"}))), "401 service_account_invalid", "algorithm"),
        (own(&header(json!({"alg": "RS256", "kid": "two"}))), "401 service_account_key", "unknown_key"),
        (own("shop/etl"), "401 service_account_invalid", "malformed"),
        (own(""), "401 service_account_invalid", "malformed"),
        (own(&format!("Bearer {good}")), "401 service_account_invalid", "malformed"),
        (own(&good).repeat(2), "401 service_account_invalid", "several"),
        (
            format!("{}Authorization: Bearer {}\r\n", own(&good), with("jti", json!("other"))),
            "401 service_account_invalid",
            "several",
        ),
        (format!("Authorization: Bearer {unsigned}\r\n"), "401 service_account_invalid", "signature"),
    ];
    for (fields, summary, reason) in &cases {
        let counted = || gate.metric(&["service_account_tokens_refused_total", &format!("\"{reason}\"")]);
        let before = counted();
        assert_eq!(asked(&gate, fields), is(summary, "unknown"), "{fields}");
        assert!(counted() > before, "{reason}");
    }
    assert!(upstream.requests().is_empty());
    // A credential that is no JWT is no proof; it is dropped, as ever.
    for other in ["Bearer y0_AgAAAA", "OAuth eyJ.eyJ.x", "Bearer a.b.c"] {
        assert_eq!(asked(&gate, &format!("Authorization: {other}\r\n")), is("200", "here"), "{other}");
    }
    assert_eq!(
        asked(&gate, &format!("{}Authorization: Bearer {good}\r\n", own(&good))),
        is("200", "etl"),
        "the same twice"
    );
    assert_eq!(asked(&gate, &own(&with("exp", json!(now() - 50)))), is("200", "etl"), "within the tolerance");
}

#[test]
fn without_service_accounts_a_token_is_no_proof() {
    let upstream = Upstream::plain();
    let config = CALLERS.lines().filter(|line| !line.contains("service_account")).collect::<Vec<_>>().join("\n");
    let gate = Gate::start(&upstream, &format!("{config}\n"));
    let token = Signer::new("one").token("shop/etl", &json!({}));
    assert_eq!(asked(&gate, &own(&token)), is("200", "here"));
    assert_eq!(asked(&gate, &format!("Authorization: Bearer {token}\r\n")), is("200", "here"));
    assert!(!upstream.requests().concat().contains("eyJ"));
}

#[test]
fn no_token_is_in_logs_metrics_or_responses() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            conversation.answer("200 OK", "text/plain", &head);
        }
    });
    let signer = Signer::new("one");
    let config = format!("{}log: {{level: trace}}\n", settings("jwks_file: '{folder}/jwks.json'"));
    let plan = Gate::plan(&upstream, &config);
    std::fs::write(plan.folder().join("jwks.json"), key_set(&[&signer])).unwrap();
    let gate = plan.start();
    let tokens = [
        signer.token("shop/etl", &json!({})),
        signer.token("shop/etl", &json!({"exp": 1})),
        Signer::new("two").token("shop/etl", &json!({})),
        signer.token("shop/night", &json!({})),
    ];
    for token in &tokens {
        for fields in [own(token), format!("Authorization: Bearer {token}\r\n"), own(&format!("{token}x"))] {
            let answer =
                gate.send("app", format!("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
            let everything = format!("{answer:?}{}", answer.text());
            assert!(token.split('.').all(|part| !everything.contains(part)), "{everything}");
        }
    }
    let everything = gate.log().join("\n") + &gate.admin("/metrics").text() + &gate.admin("/usage").text();
    for token in &tokens {
        assert!(token.split('.').all(|part| !everything.contains(part)), "{everything}");
    }
}

#[test]
fn a_changed_key_set_is_used_and_a_wrong_one_changes_nothing() {
    let upstream = Upstream::plain();
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let gate = with_file(&upstream, &[&old]).workers(1).start();
    let (of_old, of_new) = (own(&old.token("shop/etl", &json!({}))), own(&new.token("shop/etl", &json!({}))));
    assert_eq!(asked(&gate, &of_old), is("200", "etl"));
    assert_eq!(asked(&gate, &of_new), is("401 service_account_key", "unknown"));
    let replace = |content: &str| {
        std::fs::write(gate.file("jwks.new"), content).unwrap();
        std::fs::rename(gate.file("jwks.new"), gate.file("jwks.json")).unwrap();
    };
    replace("{\"keys\": []}");
    gate.until_log(&["was not reloaded", "at least one RSA or EC key"]);
    assert_eq!(asked(&gate, &of_old), is("200", "etl"), "the last set is in use");
    replace(&key_set(&[&old, &new]));
    until("both are accepted", || asked(&gate, &of_new) == is("200", "etl"));
    assert_eq!(asked(&gate, &of_old), is("200", "etl"));
    replace(&key_set(&[&new]));
    until("the old one is not", || asked(&gate, &of_old) == is("401 service_account_key", "unknown"));
    assert_eq!(asked(&gate, &of_new), is("200", "etl"));
}

/// A worker remembers verified tokens, and compares them with the time of each request.
#[test]
fn a_remembered_token_expires() {
    let upstream = Upstream::plain();
    let signer = Signer::new("one");
    let gate = with_file(&upstream, &[&signer]).workers(1).start();
    // It has expired already, but for the tolerance of a minute.
    let fields = own(&signer.token("shop/etl", &json!({"exp": now() - 57})));
    assert_eq!(asked(&gate, &fields), is("200", "etl"));
    assert_eq!(asked(&gate, &fields), is("200", "etl"));
    until("it has expired", || asked(&gate, &fields) == is("401 service_account_expired", "unknown"));
}

/// A key that is removed while a request waits sends nothing more.
#[test]
fn a_request_that_waits_is_refused_when_its_key_is_removed() {
    let upstream = Upstream::plain();
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let config = settings("jwks_file: '{folder}/jwks.json'")
        .replace("scopes: [metrika:read], tokens: [analytics], match: {service_account: [shop/etl,", "scopes: [metrika:read, metrika:write], tokens: [analytics, crm], counters: [1], match: {service_account: [shop/etl,");
    let plan = Gate::plan(&upstream, &config);
    std::fs::write(plan.folder().join("jwks.json"), key_set(&[&old, &new])).unwrap();
    let gate = plan.start();
    let mut callers = [&old, &new].map(|signer| {
        let mut caller = gate.connect("app");
        caller.send(format!(
            "POST /management/v1/counter/1/goals HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: 17\r\n{}\r\n{{\"counter_id\": 1",
            own(&signer.token("shop/etl", &json!({})))
        ));
        caller
    });
    gate.until_metric(&["in_flight_requests", "caller=\"etl\""], 2.0);
    std::fs::write(gate.file("jwks.json"), key_set(&[&new])).unwrap();
    gate.until_log(&["configuration reloaded"]);
    let results = callers.each_mut().map(|caller| {
        caller.send("}");
        caller.answer().summary()
    });
    assert_eq!(results, ["401 service_account_key", "200"]);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn mistakes_of_service_accounts_are_named() {
    let upstream = Upstream::plain();
    let plan = with_file(&upstream, &[&Signer::new("one")]);
    let file = plan.file();
    let good = std::fs::read_to_string(&file).unwrap();
    let check = |config: &str| {
        std::fs::write(&file, config).unwrap();
        let (code, out, error) = outcome(program().args(["check", "--config"]).arg(&file));
        (code, format!("{out}{error}"))
    };
    assert_eq!(check(&good).0, 0);
    let without: String =
        good.lines().filter(|line| !line.starts_with("service_accounts:")).map(|line| format!("{line}\n")).collect();
    let jwks = format!("jwks_file: '{}'", plan.folder().join("jwks.json").display());
    for (config, expected) in [
        (without, "service_account needs 'service_accounts'"),
        (good.replace(&jwks, "jwks_file: /none/jwks.json"), "/none/jwks.json"),
        (good.replace(&format!("{jwks}, "), ""), "has neither 'jwks_file' nor 'jwks_url'"),
        (good.replace(&jwks, &format!("{jwks}, jwks_url: 'https://a/b'")), "remove one of them"),
        (good.replace(&jwks, &format!("{jwks}, ca_file: a")), "has no effect without 'jwks_url'"),
        (good.replace(&jwks, "jwks_url: 'http://a/b'"), "an https URL with a path"),
        (good.replace("audience: metrika-gate", "algorithms: [RS256]"), "the key 'audience' is missing"),
        (good.replace("audience: metrika-gate", "audience: a, algorithms: [HS256]"), "expected RS256, RS384"),
        (good.replace("audience: metrika-gate", "audience: a, algorithms: []"), "at least one"),
        (good.replace("audience: metrika-gate", "audience: ''"), "the audience of the tokens"),
    ] {
        let (code, said) = check(&config);
        assert!(code == 78 && said.contains(expected), "{expected}: {said}");
    }
    std::fs::write(plan.folder().join("jwks.json"), "{}").unwrap();
    assert!(check(&good).1.contains("/openid/v1/jwks"));
}

/// An API server with this key set, which requires a token; its requests, and the set, which can change.
fn api_server(bearer: &'static str) -> (Upstream, Arc<Mutex<String>>) {
    let set = Arc::new(Mutex::new(String::new()));
    let (config, ca_pem) = certificate("localhost");
    let shown = set.clone();
    let server = Upstream::run_with(config, ca_pem, move |conversation| {
        while let Some(head) = conversation.request_head() {
            let is_known = head.to_ascii_lowercase().contains(&format!("authorization: bearer {bearer}\r\n"));
            let set = shown.lock().unwrap().clone();
            if !is_known {
                conversation.answer("401 Unauthorized", "application/json", "{}");
            } else if set.is_empty() {
                conversation.answer("503 Service Unavailable", "text/plain", "later");
            } else {
                conversation.answer("200 OK", "application/jwk-set+json", &set);
            }
        }
    });
    (server, set)
}

const BEARER: &str = "gates-own-token";

fn with_server(upstream: &Upstream, server: &Upstream) -> Plan {
    let source = format!(
        "jwks_url: 'https://localhost:{}/openid/v1/jwks', ca_file: '{{folder}}/cluster.pem', bearer_file: '{{folder}}/bearer'",
        server.address().port()
    );
    let plan = Gate::plan(upstream, &settings(&source));
    std::fs::write(plan.folder().join("cluster.pem"), server.ca_pem()).unwrap();
    write_private(&plan.folder().join("bearer"), BEARER);
    plan
}

#[test]
fn keys_come_from_the_api_server_and_follow_its_rotation() {
    let upstream = Upstream::plain();
    let (server, set) = api_server(BEARER);
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let (of_old, of_new) = (own(&old.token("shop/etl", &json!({}))), own(&new.token("shop/etl", &json!({}))));
    let gate = with_server(&upstream, &server).workers(1).start();
    gate.until_log(&["keys of service accounts were not received", "503"]);
    assert_eq!(asked(&gate, &of_old), is("503 service_account_keys", "unknown"), "it cannot be verified");
    assert_eq!(asked(&gate, ""), is("200", "here"), "others are served");
    let page = gate.admin("/readyz?verbose").text();
    assert!(page.contains("[!] request for the keys of service accounts: ") && page.contains("503"), "{page}");
    *set.lock().unwrap() = key_set(&[&old]);
    until("the keys are there", || asked(&gate, &of_old) == is("200", "etl"));
    gate.until_log(&["received again"]);
    gate.until_metric(&["metrika_gate_service_account_keys "], 1.0);
    assert!(!gate.admin("/readyz?verbose").text().contains("[!]"));
    let begun = server.requests().len();
    // A failure keeps the last keys. A token with an unknown key makes the gate ask, but not more often than every ten seconds.
    let failed = || gate.metric(&["service_account_key_requests_total", "failure"]);
    let failed_before = failed();
    set.lock().unwrap().clear();
    for _ in 0..20 {
        assert_eq!(asked(&gate, &of_new).0, "401 service_account_key");
    }
    assert!(server.requests().len() <= begun + 1, "unknown keys cause no flood of requests");
    until("it was asked", || failed() > failed_before);
    assert_eq!(asked(&gate, &of_old), is("200", "etl"));
    // Rotation.
    *set.lock().unwrap() = key_set(&[&old, &new]);
    until("the new key is known", || asked(&gate, &of_new) == is("200", "etl"));
    assert_eq!(asked(&gate, &of_old), is("200", "etl"));
    assert!(
        server
            .requests()
            .iter()
            .all(|head| head.starts_with("GET /openid/v1/jwks HTTP/1.1\r\n") && !head.contains("eyJ"))
    );
    assert!(!gate.log().join("\n").contains(BEARER));
    assert!(gate.metric(&["own_requests_total", "service_account_keys"]) >= 4.0);
}

/// Returns the finding of `doctor` about the keys, with its standing, its result and its advice.
fn doctor(plan: &Plan, arguments: &[&str]) -> Option<[String; 4]> {
    let mut command = program();
    command.args(["doctor", "--format", "json"]).args(arguments).arg("--config").arg(plan.file());
    let (_, out, error) = outcome(&mut command);
    assert!(!out.contains(BEARER) && !error.contains(BEARER), "{out}{error}");
    let said: Value = serde_json::from_str(&out).unwrap_or_else(|wrong| panic!("{wrong}: {out}{error}"));
    let found = said["findings"].as_array().unwrap().iter().find(|one| one["check"] == "keys")?.clone();
    assert!(found["token"].is_null(), "{found}");
    Some(["finding", "standing", "result", "advice"].map(|name| found[name].as_str().unwrap().to_owned()))
}

fn assert_found(found: Option<[String; 4]>, name: &str, standing: &str, words: &[&str]) {
    let found = found.unwrap();
    assert_eq!((found[0].as_str(), found[1].as_str()), (name, standing), "{found:?}");
    words.iter().for_each(|word| assert!(format!("{} {}", found[2], found[3]).contains(word), "{word}: {found:?}"));
}

#[test]
fn doctor_and_check_look_at_the_keys_of_a_file() {
    let upstream = Upstream::plain();
    let plan = with_file(&upstream, &[&Signer::new("one"), &Signer::new("two")]);
    let check = || outcome(program().args(["check", "--config"]).arg(plan.file())).1;
    assert_found(doctor(&plan, &[]), "key_set", "well", &["2 usable", "jwks.json"]);
    assert!(!check().contains("jwks_file"));
    assert_eq!(doctor(&plan, &["--token", "analytics"]), None, "only the token is asked for");
    let file = std::fs::File::options().write(true).open(plan.folder().join("jwks.json")).unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    file.set_modified(std::time::SystemTime::now() - day * 29).unwrap();
    assert!(!check().contains("jwks_file"));
    file.set_modified(std::time::SystemTime::now() - day * 41).unwrap();
    assert_found(doctor(&plan, &[]), "key_set_old", "warning", &["41 days", "kubectl get --raw /openid/v1/jwks"]);
    let said = check();
    assert!(
        said.contains("service_accounts.jwks_file: ") && said.contains("41 days") && said.contains("jwks_url"),
        "{said}"
    );
    assert_eq!(outcome(program().args(["check", "--config"]).arg(plan.file())).0, 0, "it is no mistake");
}

#[test]
fn doctor_asks_the_server_for_its_keys() {
    let upstream = Upstream::plain();
    let (server, set) = api_server(BEARER);
    let plan = with_server(&upstream, &server);
    assert_found(doctor(&plan, &[]), "key_set_failed", "wrong", &["503", "jwks_url"]);
    *set.lock().unwrap() = key_set(&[&Signer::new("one")]);
    assert_found(doctor(&plan, &[]), "key_set", "well", &["1 usable", "localhost"]);
    write_private(&plan.folder().join("bearer"), "wrong");
    assert_found(doctor(&plan, &[]), "key_set_failed", "wrong", &["401", "bearer_file"]);
    std::fs::write(plan.folder().join("cluster.pem"), upstream.ca_pem()).unwrap();
    assert_found(doctor(&plan, &[]), "key_set_failed", "wrong", &["certificate", "ca_file"]);
}

#[test]
fn an_api_server_is_verified_by_its_authority_alone() {
    let upstream = Upstream::plain();
    let (server, set) = api_server(BEARER);
    let signer = Signer::new("one");
    *set.lock().unwrap() = key_set(&[&signer]);
    let plan = with_server(&upstream, &server);
    std::fs::write(plan.folder().join("cluster.pem"), upstream.ca_pem()).unwrap();
    let gate = plan.start();
    gate.until_log(&["keys of service accounts were not received", "certificate"]);
    assert!(server.requests().is_empty(), "the gate's token is not sent");
    // The right authority, and a token that the server does not accept.
    std::fs::write(gate.file("cluster.pem"), server.ca_pem()).unwrap();
    write_private(&gate.file("bearer.new"), "wrong");
    std::fs::rename(gate.file("bearer.new"), gate.file("bearer")).unwrap();
    gate.until_log(&["keys of service accounts were not received", "401", "bearer_file"]);
    assert_eq!(asked(&gate, &own(&signer.token("shop/etl", &json!({})))).0, "503 service_account_keys");
}
