//! The marks of the catalogue, and who may use marked operations: destructive ones, grants of access, other logins.

use std::fmt::Write as _;

use metrica::operation::{Catalogue, Destructive, Place, Shares, Verb};

use crate::harness::files::same_as_file;
use crate::harness::gate::{count, program};
use crate::harness::{Gate, Upstream};
use crate::policy::rejections::assert_is;
use crate::policy::rules::{JSON, ask, keeping, last, post};

/// A careful caller, one that shares with a few, and one that may everything.
const CALLERS: &str = "
listeners:
  - {name: careful, address: '127.0.0.1:0'}
  - {name: sharing, address: '127.0.0.1:0'}
  - {name: shadow, address: '127.0.0.1:0'}
  - {name: free, address: '127.0.0.1:0'}
callers:
  - {id: careful, match: {listener: careful}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm], destructive: deny, sharing: deny, measurement_tokens: allow}
  - {id: sharing, match: {listener: sharing}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm], grantees: [Shop.Partner, other]}
  - {id: shadow, match: {listener: shadow}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm], sharing: deny, grantees: [other], destructive: deny, enforce: false}
  - {id: free, match: {listener: free}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm], measurement_tokens: allow}
";

const CONFIRM: &str = "/management/v1/counter/1/user_params/uploading/2/confirm";
const GRANTS: &str = "/management/v1/counter/1/grants";

/// The same request with a body, with another method.
fn put(target: &str, body: &str) -> String {
    post(target, JSON, body).replacen("POST", "PUT", 1)
}

#[test]
fn marked_operations_of_a_careful_caller_never_reach_metrica() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    let params = "/management/v1/counter/1/user_params/uploadings/upload";
    let cdp = "/cdp/api/v1/counter/1/data";
    for (method, target, expected) in [
        ("PUT", "/management/v1/delegates".to_owned(), "403 destructive_denied"),
        ("DELETE", "/management/v1/delegate/ivan".to_owned(), "403 destructive_denied"),
        ("DELETE", "/management/v1/account/ivan.json".to_owned(), "403 destructive_denied"),
        ("DELETE", "/management/v1/counter/1/grant/ivan".to_owned(), "403 destructive_denied"),
        ("POST", format!("{params}?action=delete_keys"), "403 destructive_denied"),
        ("POST", format!("{params}?Action=update"), "403 destructive_denied"),
        ("POST", format!("{params}?action=%2564elete_keys"), "403 destructive_denied"),
        ("POST", format!("{cdp}/simple_orders?merge_mode=SAVE"), "403 destructive_denied"),
        ("POST", format!("{cdp}/contacts/csv?merge_mode=save"), "403 destructive_denied"),
        ("POST", format!("{cdp}/contacts/json?merge_mode=%EF%BC%B3AVE"), "403 destructive_denied"),
        ("POST", format!("{cdp}/orders/csv?x=1;merge_mode=SAVE"), "403 destructive_denied"),
        ("POST", format!("{cdp}/orders/json?merge_mode=APPEND&merge_mode=SAVE"), "403 destructive_denied"),
        ("POST", format!("{cdp}/contacts?merge_mode=SAVE"), "403 destructive_denied"),
        ("POST", format!("{cdp}/orders?mergeMode=APPEND"), "403 destructive_denied"),
        ("POST", GRANTS.to_owned(), "403 sharing_denied"),
        ("PUT", "/management/v1/counter/1/grant?user_login=a".to_owned(), "403 sharing_denied"),
        ("PUT", "/management/v1/counter/1/grant/a".to_owned(), "403 sharing_denied"),
        ("POST", "/management/v1/counter/1/public_grant".to_owned(), "403 sharing_denied"),
        ("POST", "/management/v1/delegates".to_owned(), "403 sharing_denied"),
        ("GET", "/management/v1/counter/1/measurement/generate".to_owned(), "403 sharing_denied"),
    ] {
        assert_eq!(ask(&gate, "careful", method, &target).summary(), expected, "{method} {target}");
    }
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
    gate.until_metric(&["denied_total", "sharing_denied"], count(6));
    gate.until_log(&["request failed", "sharing_denied", "gives somebody else access"]);
    gate.until_log(&["request failed", "destructive_denied", "action=delete_keys makes this an operation that"]);
    for (listener, method, target) in [
        ("careful", "POST", format!("{params}?action=update")),
        ("careful", "POST", format!("{cdp}/simple_orders?merge_mode=APPEND&delimiter_type=COMMA")),
        ("careful", "DELETE", "/management/v1/counter/1/public_grant".to_owned()),
        ("free", "POST", format!("{params}?action=delete_keys")),
        ("free", "POST", format!("{cdp}/orders/csv?merge_mode=SAVE")),
        ("free", "PUT", "/management/v1/delegates".to_owned()),
        ("free", "GET", "/management/v1/counter/1/measurement/generate".to_owned()),
        ("free", "GET", "/management/v1/counter/1/grant/ivan".to_owned()),
    ] {
        assert_eq!(ask(&gate, listener, method, &target).summary(), "200", "{method} {target}");
    }
}

#[test]
fn grants_in_the_body_of_a_counter_are_access_too() {
    let (upstream, seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    let counter = "/management/v1/counter/1";
    for (body, expected) in [
        (r#"{"counter":{"grants":[{"user_login":"a","perm":"edit"}]}}"#, "403 sharing_denied"),
        (r#"{"counter":{"grants":[{"user_uid":7}]}}"#, "403 sharing_denied"),
        (r#"{"counter":{"Grants":{"userLogin":"a"}}}"#, "403 sharing_denied"),
        (r#"{"counter":{"name":"x","grants":[]}}"#, "200"),
        (r#"{"counter":{"name":"user_login"}}"#, "200"),
    ] {
        assert_eq!(gate.send("careful", put(counter, body)).summary(), expected, "{body}");
        assert_eq!(gate.send("careful", post("/management/v1/counters", JSON, body)).summary(), expected, "{body}");
        assert_eq!(seen.lock().unwrap().drain(..).count(), if expected == "200" { 2 } else { 0 }, "{body}");
    }
}

#[test]
fn a_destructive_body_is_refused_before_anything_is_sent() {
    let (upstream, seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    let mut caller = gate.connect("careful");
    for (fields, body, expected) in [
        (JSON, r#"{"uploading":{"action":"delete_keys"}}"#, "403 destructive_denied"),
        (JSON, r#"{"uploading":{"Action":"Delete-Keys"}}"#, "403 destructive_denied"),
        (JSON, r#"{"uploading":{"action":1}}"#, "415 body_unreadable"),
        (JSON, r#"{"uploading":{"action":"update","action":"delete_keys"}}"#, "415 body_unreadable"),
        ("Content-Type: text/plain", r#"{"uploading":{"action":"delete_keys"}}"#, "403 destructive_denied"),
        ("Content-Type: text/plain", "action=delete_keys", "415 body_unreadable"),
    ] {
        caller.send(post(CONFIRM, fields, body));
        assert_is(&caller.answer(), expected);
        caller.send(put(&CONFIRM.replace("/confirm", ""), body).replace(JSON, fields));
        assert_is(&caller.answer(), expected);
    }
    assert!(seen.lock().unwrap().is_empty(), "nothing was sent upstream");
    let body = r#"{ "uploading" : {"action":"update", "id": 7}}"#;
    caller.send(post(CONFIRM, JSON, body));
    assert_eq!(caller.answer().summary(), "200");
    assert_eq!(last(&seen).1, body.as_bytes());
    let body = r#"{"uploading":{"action":"delete_keys"}}"#;
    assert_eq!(gate.send("free", post(CONFIRM, "Content-Type: text/plain", body)).summary(), "200");
    assert_eq!(last(&seen).1, body.as_bytes());
}

#[test]
fn access_is_given_to_grantees_alone() {
    let (upstream, seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    let mut caller = gate.connect("sharing");
    let grant = "/management/v1/counter/1/grant";
    let body = |login: &str| format!(r#"{{"grant":{{"user_login":"{login}","perm":"view"}}}}"#);
    for (request, expected) in [
        (post(GRANTS, JSON, &body("stranger")), "403 login_denied"),
        (post(GRANTS, JSON, r#"{"grant":{"perm":"view"}}"#), "403 login_denied"),
        (post(GRANTS, JSON, r#"{"grant":{"user_login":"other","perm":"public_stat"}}"#), "403 login_denied"),
        (post(GRANTS, JSON, r#"{"grant":{"user_login":"other","user_uid":7}}"#), "403 login_denied"),
        (post(GRANTS, JSON, r#"{"grant":{"user_login":7}}"#), "415 body_unreadable"),
        (post(GRANTS, "Content-Type: text/plain", &body("stranger")), "403 login_denied"),
        (post(GRANTS, "Content-Type: text/plain", "user_login=other"), "415 body_unreadable"),
        (put(&format!("{grant}?user_login=stranger"), &body("other")), "403 login_denied"),
        (put(&format!("{grant}?user_login=other&user_uid=7"), "{}"), "403 login_denied"),
        (put(&format!("{grant}?user_login=other"), &body("stranger")), "403 login_denied"),
        (put(&format!("{grant}/stranger"), "{}"), "403 login_denied"),
        (put(&format!("{grant}/other.json"), "{}"), "403 login_denied"),
        (put("/management/v1/counter/1", r#"{"counter":{"grants":[{"user_login":"stranger"}]}}"#), "403 login_denied"),
        (
            put("/management/v1/delegates", r#"{"delegates":[{"user_login":"other"},{"user_login":"x"}]}"#),
            "403 login_denied",
        ),
        (post("/management/v1/delegates", JSON, r#"{"delegate":{"user_login":"stranger"}}"#), "403 login_denied"),
        (post("/management/v1/counter/1/public_grant", JSON, "{}"), "403 login_denied"),
    ] {
        caller.send(&request);
        let answer = caller.answer();
        assert_eq!(answer.summary(), expected, "{request}");
    }
    assert!(seen.lock().unwrap().is_empty(), "nothing was sent upstream");
    for request in [
        post(GRANTS, JSON, &body("shop-partner")),
        post(GRANTS, JSON, &body("SHOP.partner")),
        put(&format!("{grant}?user_login=Shop.Partner"), r#"{"grant":{"perm":"edit"}}"#),
        put(&format!("{grant}/other"), r#"{"grant":{"perm":"edit"}}"#),
        put("/management/v1/counter/1", r#"{"counter":{"grants":[{"user_login":"other"}],"name":"x"}}"#),
        put("/management/v1/delegates", r#"{"delegates":[{"user_login":"other"},{"user_login":"shop-partner"}]}"#),
        post("/management/v1/counter/1/goals", "Content-Type: text/plain", "user_login"),
    ] {
        caller.send(&request);
        assert_eq!(caller.answer().summary(), "200", "{request}");
        assert!(request.ends_with(str::from_utf8(&last(&seen).1).unwrap()));
    }
    assert_eq!(gate.send("free", post(GRANTS, JSON, &body("stranger"))).summary(), "200");
    assert_eq!(ask(&gate, "sharing", "DELETE", &format!("{grant}?user_login=stranger")).summary(), "200");
}

#[test]
fn in_shadow_mode_marks_are_reported_and_nothing_is_refused() {
    let (upstream, _seen) = keeping();
    let gate = Gate::start(&upstream, CALLERS);
    let stranger = r#"{"grant":{"user_login":"x"}}"#;
    for (request, reason) in [
        (post(GRANTS, JSON, stranger), "sharing_denied"),
        (post(CONFIRM, JSON, r#"{"uploading":{"action":"delete_keys"}}"#), "destructive_denied"),
    ] {
        assert_eq!(gate.send("shadow", request).summary(), "200");
        gate.until_metric(&["would_refuse_total", reason], 1.0);
    }
}

/// Operations that the configuration adds, and unknown operations, are held to the same.
#[test]
fn operations_that_are_added_have_marks_too() {
    let upstream = Upstream::plain();
    let added = "operations:
  - {method: POST, path: '/management/v2/invite/{user_login}', scope: [metrika:write], shares: true}
  - {method: POST, path: '/management/v2/counter/{counter_id}/file', scope: [metrika:write], upload: true}
unknown_operations: by_method
";
    let limited = "  - {id: one, match: {listener: sharing}, scopes: [metrika:write], tokens: [crm], counters: [1], grantees: [a]}\n";
    let config = CALLERS.replace("callers:\n", &format!("callers:\n{limited}"));
    let gate = Gate::start(&upstream, &format!("{config}{added}"));
    let text = "Content-Type: text/csv";
    for (listener, request, expected) in [
        ("careful", post("/management/v2/invite/a", JSON, "{}"), "403 sharing_denied"),
        ("free", post("/management/v2/invite/a", JSON, "{}"), "200"),
        ("careful", post("/management/v2/new", JSON, "{}"), "403 destructive_denied"),
        ("sharing", post("/management/v2/counter/1/file", text, "counter_id=2"), "200"),
        ("sharing", post("/management/v2/counter/2/file", text, "counter_id=2"), "403 counter_denied"),
        ("sharing", post("/management/v2/invite/a", JSON, "{}"), "403 counter_denied"),
    ] {
        assert_eq!(gate.send(listener, &request).summary(), expected, "{request}");
    }
    let gate = Gate::start(&upstream, &format!("{CALLERS}{added}"));
    for (login, expected) in [("other", "200"), ("stranger", "403 login_denied")] {
        let request = post(&format!("/management/v2/invite/{login}"), JSON, "{}");
        assert_eq!(gate.send("sharing", request).summary(), expected, "{login}");
    }
}

#[test]
fn a_head_request_for_a_get_that_acts_is_refused() {
    let upstream = Upstream::plain();
    for more in ["", "unknown_operations: by_method\n"] {
        let gate = Gate::start(&upstream, &format!("{CALLERS}{more}"));
        let mut caller = gate.connect("free");
        caller.send("HEAD /management/v1/counter/1/measurement/generate HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(caller.answer_to_head().summary(), "403 method_denied");
    }
    assert_eq!(upstream.connections(), 0, "nothing was sent upstream");
}

#[test]
fn a_suffix_is_no_part_of_a_counter_where_none_is_documented() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, CALLERS);
    for (target, expected) in [
        ("/export/v1/cloud/counter/5.json", "404 unknown_operation"),
        ("/export/v1/cloud/counter/5.csv", "404 unknown_operation"),
        ("/export/v1/cloud/counter/5", "200"),
        ("/management/v1/counter/5.json", "200"),
    ] {
        assert_eq!(ask(&gate, "free", "GET", target).summary(), expected, "{target}");
    }
}

#[test]
fn check_explains_a_missing_ulogin() {
    let upstream = Upstream::plain();
    for (keys, expected) in [
        ("ulogin: [a]", "callers[0]: caller 'one': a request without ulogin is refused"),
        ("ulogin: [a], ulogin_absent: allow", "without ulogin accesses the whole account of the token's owner"),
        ("counters: [1]", ""),
        ("counters: [1], ulogin: [a]", ""),
    ] {
        let caller = format!(
            "  - {{id: one, match: {{listener: free}}, scopes: [metrika:read], tokens: [analytics], {keys}}}\n"
        );
        let plan = Gate::plan(&upstream, &CALLERS.replace("callers:\n", &format!("callers:\n{caller}")));
        let output = program().args(["check", "--config"]).arg(plan.file()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.contains(expected), "{said}");
        assert_eq!(said.contains("ulogin"), !expected.is_empty(), "{said}");
        let asked = ["explain", "GET", "/stat/v1/data?ids=1", "--as", "one", "--config"];
        let output = program().args(asked).arg(plan.file()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let is_refused = said.contains("403 login_denied") && said.contains("because    the request has no ulogin");
        assert_eq!(is_refused, keys == "ulogin: [a]", "{said}");
    }
}

/// Operations that take something away and are nevertheless not destructive, and why.
const BROUGHT_BACK: [(&str, &str); 6] = [
    ("public_grant.delete", "`public_grant.create` of the same path brings it back"),
    ("counter_label.unset", "`counter_label.set` of the same path brings it back"),
    ("offline_threshold.disable", "`offline_threshold.enable` of the same path brings it back"),
    ("call_threshold.disable", "`call_threshold.enable` of the same path brings it back"),
    ("counter.update", "one thing is changed by its own path, as in every `update`"),
    (
        "offline_conversions.upload",
        "it adds, as every upload without such a parameter, though no operation takes it out again",
    ),
];

const DESTRUCTIVE: &str = "# What the API cannot undo

`destructive: deny` of a caller refuses destructive operations. An operation is **destructive** if

1. it removes something that existed before it: data, a setting, or somebody's access, and
2. no operation restores the same from what the request names, without a loss in between.

A caller that keeps a copy and creates the thing again does not restore it: a goal or a label gets another id, a grant loses its comment and
rights. A deleted counter can be restored, but the visits in between are lost. A change of one thing by its own path is not destructive.

- Writes that the catalogue does not know (`unknown_operations: by_method`), and DELETEs under `operations`, count as destructive.
- Exporters of the Logs API clean what they have downloaded, which is destructive.
- The access log shows who deleted something, where and when, and not what: it has no number of a goal or grant
  ([questions to the log](operations.md#questions-to-the-log)).
- Where a parameter or a member of the body decides, spellings that Metrica could read as it are refused too. For this, the gate reads
  bodies of up to 1 MiB.

A test writes this page from `crates/metrica/src/operation/catalogue.txt`; `UPDATE=1 cargo test --test it` regenerates it.

| operation | method | path | where |
|---|---|---|---|
";

#[test]
fn destructive_and_sharing_operations_are_in_the_documentation() {
    let catalogue = Catalogue::built_in();
    let mut page = DESTRUCTIVE.to_owned();
    for line in catalogue.operations() {
        let place = match line.destructive {
            Destructive::Never => continue,
            Destructive::Always => String::new(),
            Destructive::With(setting) => match setting.place {
                Place::Query => format!("`{setting}` in the query"),
                Place::Body => format!("`{setting}` in the body"),
            },
        };
        writeln!(page, "| `{}` | {} | `{}` | {place} |", line.id, line.verb.as_str(), line.template).unwrap();
    }
    page += "\nThese operations are not destructive by this definition:\n\n| operation | because |\n|---|---|\n";
    for (operation, because) in BROUGHT_BACK {
        let line = catalogue.operations().iter().find(|line| line.id.as_str() == operation).unwrap();
        assert_eq!(line.destructive, Destructive::Never, "{operation}");
        writeln!(page, "| `{operation}` | {because} |").unwrap();
    }
    page += "\n# What gives somebody access\n\n`sharing: deny` of a caller refuses these operations, and every write that the catalogue does \
             not know. Access can be\nremoved later, but not what was read meanwhile. `grantees` limits the logins that these may name.\n\n| operation | method | path | to whom |\n|---|---|---|---|\n";
    for line in catalogue.operations() {
        let whom = match line.shares {
            Shares::Nothing => continue,
            Shares::Named => "`user_login`",
            Shares::Perhaps => "`user_login` in its body, where it has grants: only that is refused",
            Shares::Anyone => "everybody",
            Shares::Secret => "everybody who knows the token in its response (`measurement_tokens`)",
        };
        writeln!(page, "| `{}` | {} | `{}` | {whom} |", line.id, line.verb.as_str(), line.template).unwrap();
    }
    same_as_file("docs/destructive.md", &page);
}

#[test]
fn every_delete_is_destructive_or_can_be_brought_back() {
    for line in Catalogue::built_in().operations() {
        let takes_away = line.verb == Verb::Delete
            || [".delete", ".replace", ".clean", ".cancel"].iter().any(|end| line.id.as_str().ends_with(end));
        let is_excepted = BROUGHT_BACK.iter().any(|(operation, _)| *operation == line.id.as_str());
        assert!(!takes_away || is_excepted || line.destructive == Destructive::Always, "{}", line.id);
        assert!(
            !line.verb.is_safe() || line.destructive == Destructive::Never,
            "{}: a read takes nothing away",
            line.id
        );
    }
}
