//! An observation of a token's owner applies to every token of that owner, if the owner is proven; and the knowledge of a
//! token's owner without `identity`.

use fake_metrica::{Fake, FakeToken, Permission, Settings};
use metrica::scope::Scope;

use crate::harness::gate::{Plan, until};
use crate::harness::metrica::token;
use crate::harness::{Answer, Gate};

const READS: &str = "y0_canary-of-the-token-that-reads";
const WRITES: &str = "y0_canary-of-the-token-that-writes";
const ALL: &str = "y0_canary-of-the-token-that-does-both";
const STRANGER: &str = "y0_canary-of-a-token-of-somebody-else";
const PARTNER: &str = "y0_canary-of-a-token-of-the-partner";

/// Counters of `shop`: its own, one that it may view, one that it may edit; one of nobody here; and one that everybody sees.
const OWN: u64 = 101;
const VIEW: u64 = 102;
const EDIT: u64 = 103;
const FOREIGN: u64 = 104;
const PUBLIC: u64 = 105;

/// Counters of `partner`, whom `shop` represents: its own, and one that it may view.
const OF_PARTNER: u64 = 201;
const VIEW_OF_PARTNER: u64 = 202;

fn of_shop(secret: &str, scopes: &[Scope]) -> FakeToken {
    let counters = [(OWN, Permission::Own), (VIEW, Permission::View), (EDIT, Permission::Edit)];
    FakeToken { represents: vec!["partner".to_owned()], ..token(secret, "shop", scopes, &counters) }
}

/// A token that reads and one that only writes, both of `shop`, as is recommended; and one of its partner.
fn metrica(more: &[FakeToken]) -> Fake {
    let of_partner = [(OF_PARTNER, Permission::Own), (VIEW_OF_PARTNER, Permission::View)];
    let mut tokens = vec![
        of_shop(READS, &[Scope::Read]),
        of_shop(WRITES, &[Scope::Write]),
        token(PARTNER, "partner", &[Scope::Read], &of_partner),
    ];
    tokens.extend(more.iter().cloned());
    let fake = Fake::start(Settings { tokens, ..Settings::default() }).unwrap();
    fake.turn(&format!("public?counter={PUBLIC}")).unwrap();
    fake
}

const IDENTITY: &str = "identity: {url: 'https://login.yandex.ru/info', ca_file: '{ca}', connect_to: '{upstream}'}";

const TOKENS: &str = "
tokens:
  analytics: {file: '{folder}/analytics', scopes: [metrika:read], owner: shop}
  crm: {file: '{folder}/crm', scopes: [metrika:write], owner: shop}";

/// A caller that reads with the one token, and one that writes with the other.
fn plan(fake: &Fake, more: &str) -> Plan {
    let callers = "
listeners:
  - {name: app, address: '127.0.0.1:0'}
  - {name: crm, address: '127.0.0.1:0'}
callers:
  - {id: reports, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}
  - {id: crm, match: {listener: crm}, scopes: [metrika:write], tokens: [crm]}
";
    let plan = Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &format!("{callers}{more}\n"));
    plan.token("analytics", READS).token("crm", WRITES)
}

fn start(fake: &Fake, more: &str) -> Gate {
    let gate = plan(fake, &format!("{TOKENS}\n{more}")).start();
    if more.contains("identity") {
        until("whose the tokens are is known", || {
            fake.heard().iter().filter(|request| request.contains("/info")).count() >= 2
        });
        // The answer still has to arrive.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    gate
}

fn ask(gate: &Gate, listener: &str, request: &str) -> Answer {
    gate.send(listener, format!("{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"))
}

fn reason(gate: &Gate, listener: &str, request: &str) -> String {
    let answer = ask(gate, listener, request);
    answer.field("x-gate-reason").map_or_else(|| answer.status.to_string(), str::to_owned)
}

/// The final reason of a repeated request; every earlier one is that nothing is known.
#[track_caller]
fn ends_as(gate: &Gate, listener: &str, request: &str, expected: &str) {
    let mut seen = Vec::new();
    until(&format!("{request} is {expected}"), || {
        seen.push(reason(gate, listener, request));
        seen.last().is_some_and(|last| last == expected)
    });
    seen.pop();
    assert!(seen.iter().all(|before| before == "ambiguous"), "{request}: {seen:?} before {expected}");
    for _ in 0..3 {
        assert_eq!(reason(gate, listener, request), expected, "{request}: and it stays so");
    }
}

fn goals(counter: u64) -> String {
    format!("POST /management/v1/counter/{counter}/goals")
}

fn report(ids: &str) -> String {
    format!("GET /stat/v1/data?ids={ids}&metrics=ym:s:visits")
}

fn asked(fake: &Fake, path: &str) -> usize {
    fake.heard().iter().filter(|request| request.ends_with(path)).count()
}

const UNDELETE: &str = "POST /management/v1/counter/103/undelete";

/// A token that does not read shares the observations of one that does.
#[test]
fn observations_of_one_token_are_shared_with_others_of_its_owner() {
    let fake = metrica(&[]);
    let gate = start(&fake, IDENTITY);
    assert_eq!(reason(&gate, "crm", UNDELETE), "200", "its scope is proven");
    ends_as(&gate, "crm", &goals(VIEW), "counter_view_only");
    ends_as(&gate, "crm", &goals(FOREIGN), "counter_not_granted");
    assert_eq!(fake.turn("state").unwrap()["tokens"][1]["last_operation"], "goals.create");
    fake.turn("fail?error_type=access_denied&path=/management/v1/counter/101/goals&times=50").unwrap();
    ends_as(&gate, "crm", &goals(OWN), "request_refused");
    assert_eq!(asked(&fake, "counter/102"), 1, "once, and with the token that reads");
}

/// A declared owner joins no tokens; and unknown access is not "no access".
#[test]
fn a_declared_owner_joins_nothing() {
    let fake = metrica(&[]);
    let gate = start(&fake, "");
    assert_eq!(reason(&gate, "crm", UNDELETE), "200", "its scope is proven");
    // The other token learns who its owner is, and what that may do.
    ends_as(&gate, "app", &format!("GET /management/v1/counter/{VIEW}/grants"), "counter_view_only");
    for counter in [VIEW, FOREIGN] {
        let before = asked(&fake, "/management/v1/counters");
        for _ in 0..5 {
            let answer = ask(&gate, "crm", &goals(counter));
            assert_eq!(answer.field("x-gate-reason"), Some("ambiguous"));
            assert!(answer.field("x-gate-hint").unwrap().contains("token has the scope"), "its scope was proven");
        }
        until("it was asked", || asked(&fake, "/management/v1/counters") > before);
        assert_eq!(reason(&gate, "crm", &goals(counter)), "ambiguous");
    }
}

/// A change of a counter of its own shows whose a token is that does not read.
#[test]
fn a_token_that_changes_a_counter_of_its_own_shows_whose_it_is() {
    let fake = metrica(&[]);
    let gate = start(&fake, "");
    let put = "PUT /management/v1/counter";
    // A counter that its owner may edit belongs to somebody else.
    assert_eq!(reason(&gate, "crm", &format!("{put}/{EDIT}")), "200");
    assert_eq!(reason(&gate, "crm", &goals(VIEW)), "ambiguous");
    assert_eq!(reason(&gate, "crm", &format!("{put}/{OWN}")), "200");
    // The owner of the reading token is asked then.
    ends_as(&gate, "crm", &goals(VIEW), "counter_view_only");
    assert_eq!(asked(&fake, "/info"), 0);
}

/// A missing scope shows by the owner's rights, whichever token sees them.
#[test]
fn a_scope_lacks_where_the_owner_may() {
    let tokens = vec![of_shop(READS, &[Scope::Read]), of_shop(WRITES, &[Scope::Expenses])];
    let fake = Fake::start(Settings { tokens, ..Settings::default() }).unwrap();
    let gate = start(&fake, IDENTITY);
    ends_as(&gate, "crm", &goals(OWN), "scope_missing");
    ends_as(&gate, "crm", &goals(VIEW), "counter_view_only");
}

/// A token that is declared to read and does not is not blind where another one of its owner sees.
#[test]
fn a_token_that_does_not_read_after_all_sees_with_another() {
    let fake = metrica(&[]);
    let config = format!("{}\n{IDENTITY}", TOKENS.replace("[metrika:write]", "[metrika:read, metrika:write]"));
    let gate = plan(&fake, &config).start();
    until("whose they are is known", || asked(&fake, "/info") >= 2);
    std::thread::sleep(std::time::Duration::from_millis(200));
    ends_as(&gate, "crm", &goals(VIEW), "counter_view_only");
    ends_as(&gate, "crm", &goals(FOREIGN), "counter_not_granted");
}

/// A contradiction seen by one token corrects the rights known to all.
#[test]
fn a_permission_that_is_revoked_is_revoked_for_all() {
    let fake = metrica(&[]);
    let gate = start(&fake, IDENTITY);
    assert_eq!(reason(&gate, "crm", UNDELETE), "200");
    fake.turn("grant?owner=shop&counter=103&permission=none").unwrap();
    ends_as_after(&gate, "app", &report("103"), "counter_not_granted");
    let before = fake.requests();
    assert_eq!(reason(&gate, "crm", &goals(EDIT)), "counter_not_granted");
    assert_eq!(fake.requests(), before + 1, "and nothing more is asked for that");
    // And given back, by the answer to a write.
    fake.turn("grant?owner=shop&counter=103&permission=edit").unwrap();
    assert_eq!(reason(&gate, "crm", UNDELETE), "200");
    fake.turn("restricted?name=ym:s:secret").unwrap();
    let restricted = "GET /stat/v1/data?ids=103&metrics=ym:s:secret";
    ends_as(&gate, "app", restricted, "request_refused");
}

/// Like [`ends_as`], if earlier observations lead to another reason until the next question.
#[track_caller]
fn ends_as_after(gate: &Gate, listener: &str, request: &str, expected: &str) {
    until(&format!("{request} is {expected}"), || reason(gate, listener, request) == expected);
}

/// Another token in the file is nobody's until its owner is proven, and then only that owner's.
#[test]
fn a_token_of_somebody_else_knows_nothing_of_the_owner_before() {
    let fake = metrica(&[token(STRANGER, "stranger", &[Scope::Write], &[(301, Permission::Own)])]);
    let gate = start(&fake, IDENTITY);
    assert_eq!(reason(&gate, "crm", UNDELETE), "200");
    ends_as(&gate, "crm", &goals(VIEW), "counter_view_only");
    let before = asked(&fake, "/info");
    gate.replace_token("crm", STRANGER);
    until("it is asked about", || asked(&fake, "/info") > before);
    gate.until_log(&["issued by another account", "\"token\":\"crm\""]);
    until("the workers know", || reason(&gate, "crm", &goals(VIEW)) == "owner_mismatch");
    gate.replace_token("crm", WRITES);
    until("it is asked about", || asked(&fake, "/info") > before + 1);
    ends_as(&gate, "crm", &goals(VIEW), "counter_view_only");
}

/// A report over several counters is refused for one of them; two questions find it, however many there are.
#[test]
fn the_counter_without_access_is_found_among_several() {
    let fake = metrica(&[]);
    let gate = start(&fake, "");
    ends_as(&gate, "app", &report("101,102,104"), "counter_not_granted");
    assert_eq!(asked(&fake, "counter/104") + asked(&fake, "counter/101") + asked(&fake, "counter/102"), 1);
    fake.turn("restricted?name=ym:s:secret").unwrap();
    ends_as(&gate, "app", "GET /stat/v1/data?ids=101,103&metrics=ym:s:secret", "request_refused");
    // A visible counter is not missing because it is not listed.
    ends_as(&gate, "app", "GET /stat/v1/data?ids=101,105&metrics=ym:s:secret", "counter_not_granted");
    let answer = ask(&gate, "app", "GET /stat/v1/data?ids=101,105&metrics=ym:s:secret");
    assert!(answer.field("x-gate-hint").unwrap().contains("only public access"));
}

/// In the name of a represented login, that login's access counts, and the token's scope.
#[test]
fn the_reason_for_a_represented_login_is_reported() {
    let fake = metrica(&[of_shop(ALL, &[Scope::Read, Scope::Write]), of_shop(STRANGER, &[Scope::Expenses])]);
    let tokens = "
tokens:
  analytics: {file: '{folder}/analytics', scopes: [metrika:read, metrika:write], owner: shop}
  crm: {file: '{folder}/crm', scopes: [metrika:read], owner: shop}";
    let plan = plan(&fake, &format!("{tokens}\n{IDENTITY}"));
    let gate = plan.token("analytics", ALL).token("crm", STRANGER).start();
    until("whose they are is known", || asked(&fake, "/info") >= 2);
    let partner = |request: String| format!("{request}{}ulogin=Partner", if request.contains('?') { "&" } else { "?" });
    ends_as(&gate, "app", &partner(format!("GET /management/v1/counter/{OWN}/goals")), "counter_not_granted");
    let answer = ask(&gate, "app", &partner(format!("GET /management/v1/counter/{OWN}/goals")));
    assert!(answer.field("x-gate-hint").unwrap().contains("The login in ulogin has no access"), "{answer:?}");
    ends_as(
        &gate,
        "app",
        &partner(format!("GET /management/v1/counter/{VIEW_OF_PARTNER}/grants")),
        "counter_view_only",
    );
    fake.turn("restricted?name=ym:s:secret").unwrap();
    let restricted = format!("GET /stat/v1/data?ids={OF_PARTNER}&metrics=ym:s:secret");
    ends_as(&gate, "app", &partner(restricted), "request_refused");
    // It represents nobody any more, whatever was answered before.
    let list = partner("GET /management/v1/counters".to_owned());
    assert_eq!(reason(&gate, "app", &list), "200");
    fake.turn(&format!("account?token={ALL}&represents=")).unwrap();
    gate.signal("HUP");
    std::thread::sleep(std::time::Duration::from_secs(10));
    ends_as_after(&gate, "app", &list, "not_representative");
    let goals = partner(format!("GET /management/v1/counter/{OF_PARTNER}/goals"));
    ends_as_after(&gate, "app", &goals, "not_representative");
}

/// A counter that a represented login owns is not the owner's.
#[test]
fn a_counter_of_a_represented_login_does_not_identify_the_owner() {
    let fake = metrica(&[]);
    fake.turn("restricted?name=ym:s:secret").unwrap();
    let gate = start(&fake, "");
    let restricted = format!("GET /stat/v1/data?ids={OF_PARTNER}&metrics=ym:s:secret&ulogin=partner");
    ends_as(&gate, "app", &restricted, "request_refused");
    ends_as(&gate, "app", &report("104"), "counter_not_granted");
    assert_eq!(reason(&gate, "crm", &format!("PUT /management/v1/counter/{OF_PARTNER}?ulogin=partner")), "200");
    for _ in 0..5 {
        assert_eq!(reason(&gate, "crm", &goals(FOREIGN)), "ambiguous");
    }
    assert!(!gate.log().iter().any(|line| line.contains("issued by another account")));
}

/// The scope of the token is told from the access of a login that it works for.
#[test]
fn a_scope_lacks_in_the_name_of_a_represented_login_too() {
    let tokens = vec![of_shop(READS, &[Scope::Expenses])];
    let fake = Fake::start(Settings { tokens, ..Settings::default() }).unwrap();
    let gate = start(&fake, "");
    ends_as(&gate, "app", "GET /management/v1/counter/201/goals?ulogin=partner", "scope_missing");
    ends_as(&gate, "app", "GET /management/v1/counters?ulogin=partner", "scope_missing");
}

/// Without `identity`, a counter of its own identifies the token's owner.
#[test]
fn the_owner_is_known_by_a_counter_of_its_own() {
    let of_stranger = |owner| token(STRANGER, owner, &[Scope::Read], &[(301, Permission::Own)]);
    for (owner, expected, said) in [
        ("stranger", "shop", "owner_mismatch"),
        ("ivan", "porg-shop", "organization_token_required"),
        ("porg-other", "porg-shop", "owner_mismatch"),
    ] {
        let fake = metrica(&[of_stranger(owner)]);
        let tokens = TOKENS.replace("metrika:read], owner: shop", &format!("metrika:read], owner: {expected}"));
        let gate = plan(&fake, &tokens).token("analytics", STRANGER).start();
        assert_eq!(reason(&gate, "app", "GET /management/v1/counters"), "200");
        ends_as_after(&gate, "app", &report("101"), said);
        gate.until_log(&["issued by another account", &format!("\"actual\":\"{owner}\"")]);
        gate.until_metric(&["token_of_another_account", "token=\"analytics\""], 1.0);
        assert!(asked(&fake, "/info") == 0 && !gate.log().iter().any(|line| line.contains("canary")));
    }
}

/// A token for an organisation that is refused everything was issued personally; one that lacks a scope sees what is public.
#[test]
fn a_personal_token_for_an_organisation_is_no_missing_scope() {
    const OPEN: u64 = metrika_gate::health::question::OPEN_COUNTER;
    let personal = token(STRANGER, "porg-shop", &[Scope::Read], &[(OWN, Permission::Own)]);
    let personal = FakeToken { login: Some("ivan".to_owned()), ..personal };
    let narrow = token(STRANGER, "porg-shop", &[Scope::Expenses], &[(OWN, Permission::Own)]);
    for (token, said) in [(personal, "organization_token_required"), (narrow, "scope_missing")] {
        let fake = metrica(&[token]);
        fake.turn(&format!("public?counter={OPEN}")).unwrap();
        let tokens = TOKENS.replace("metrika:read], owner: shop", "metrika:read], owner: porg-shop");
        let gate = plan(&fake, &tokens).token("analytics", STRANGER).start();
        ends_as(&gate, "app", "GET /management/v1/counters", said);
        ends_as(&gate, "app", "GET /management/v1/counter/101/goals", said);
    }
}

/// A login that contains a part of a token is invalid, in every response.
#[test]
fn an_owner_of_a_counter_that_is_a_token_reaches_no_log() {
    let fake = metrica(&[token(STRANGER, READS, &[Scope::Read], &[(301, Permission::Own)])]);
    let gate = plan(&fake, TOKENS).token("analytics", STRANGER).start();
    ends_as(&gate, "app", &report("104"), "counter_not_granted");
    assert!(!gate.log().iter().any(|line| line.contains("canary") || line.contains("another account")));
}

/// A public counter is shown to every token: reading it proves no right.
#[test]
fn a_public_counter_proves_no_right() {
    let tokens = vec![of_shop(READS, &[Scope::Expenses]), of_shop(WRITES, &[Scope::Write])];
    let fake = Fake::start(Settings { tokens, ..Settings::default() }).unwrap();
    fake.turn(&format!("public?counter={OWN}")).unwrap();
    fake.turn(&format!("public?counter={PUBLIC}")).unwrap();
    let gate = start(&fake, IDENTITY);
    for ids in ["105", "101"] {
        assert_eq!(reason(&gate, "app", &report(ids)), "200");
    }
    ends_as(&gate, "app", &format!("GET /management/v1/counter/{VIEW}/goals"), "scope_missing");
    ends_as(&gate, "app", &format!("GET /management/v1/counter/{OWN}/goals"), "scope_missing");
}

/// A question can take several requests: the budget counts requests.
#[test]
fn every_request_of_a_question_is_paid_for() {
    let fake = metrica(&[]);
    let gate = start(&fake, "");
    assert_eq!(ask(&gate, "app", "GET /management/v1/counters").status, 200);
    // Each is a question of its own, of two requests: the counter, and whether the token still reads.
    for counter in 1000..1080 {
        assert_eq!(ask(&gate, "app", &goals(counter).replace("POST", "GET")).status, 403);
    }
    let sent = || gate.metric(&["own_requests_total", "follow_up"]);
    until("the budget is spent", || sent() >= 60.0);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(sent() < 60.0 + 10.0, "{}", sent());
}
