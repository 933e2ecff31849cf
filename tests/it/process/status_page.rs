//! The status page: who may see it, what it contains, and that it loads nothing and shows no secret.

use base64::Engine;
use fake_metrica::{Fake, FakeToken, Settings};
use metrica::scope::Scope;

use crate::harness::gate::until;
use crate::harness::{Answer, Caller, Gate, READ_TOKEN, TWO_CALLERS, Upstream, WRITE_TOKEN};

const COUNTERS: &str = "/management/v1/counters";

fn ask(gate: &Gate, host: &str, fields: &str) -> Answer {
    let mut caller = Caller::connect(gate.admin_place());
    caller.send(format!("GET / HTTP/1.1\r\n{host}{fields}\r\n"));
    caller.answer()
}

fn page(gate: &Gate) -> String {
    let answer = ask(gate, "Host: localhost\r\n", "");
    assert_eq!(answer.status, 200);
    answer.text()
}

/// The text of the only element `name`.
fn element<'a>(page: &'a str, name: &str) -> &'a str {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    assert_eq!(page.matches(&format!("<{name}")).count(), 1, "one {name}");
    page.split_once(&start).unwrap().1.split_once(&end).unwrap().0
}

/// The text of a section, which begins with its heading.
fn section<'a>(page: &'a str, id: &str) -> &'a str {
    let start = format!("<section aria-labelledby=\"{id}\">");
    page.split_once(&start).unwrap_or_else(|| panic!("no section {id}")).1.split_once("</section>").unwrap().0
}

fn with_admin(upstream: &Upstream, admin: &str) -> Gate {
    Gate::start(upstream, &format!("{TWO_CALLERS}\nadmin: {{{admin}}}\n"))
}

#[test]
fn rule_1_it_is_on_for_loopback_and_off_where_others_reach_the_listener() {
    let upstream = Upstream::plain();
    for (admin, is_on) in [
        ("address: '127.0.0.1:0'", true),
        ("address: '127.0.0.1:0', page: false", false),
        ("address: '127.0.0.1:0', allow_remote: true", false),
        ("address: '127.0.0.1:0', allow_remote: true, page: true", true),
    ] {
        let gate = with_admin(&upstream, admin);
        let answer = ask(&gate, "Host: localhost\r\n", "");
        let kind = if is_on { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
        assert_eq!((answer.status, answer.field("content-type")), (200, Some(kind)), "{admin}");
        assert_eq!(answer.text().contains("Callers"), is_on, "{admin}");
        assert!(answer.text().contains("/readyz?verbose"), "the other paths are listed: {admin}");
    }
}

#[test]
fn rule_2_a_name_that_may_lead_to_this_address_is_refused() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for host in ["localhost", "LOCALHOST:9090", "127.0.0.1:9090", "[::1]:9090", "10.0.0.7"] {
        assert_eq!(ask(&gate, &format!("Host: {host}\r\n"), "").status, 200, "{host}");
    }
    for host in ["evil.example", "evil.example:9090", "localhost.evil.example", "127.0.0.1.evil.example", "gate"] {
        let answer = ask(&gate, &format!("Host: {host}\r\n"), "");
        assert_eq!(answer.status, 403, "{host}");
        assert!(answer.text().contains("localhost or an IP address") && !answer.text().contains("reports"), "{host}");
    }
    let twice = ask(&gate, "Host: localhost\r\nHost: evil.example\r\n", "");
    assert!(twice.status != 200 && !twice.text().contains("reports"), "{}", twice.status);
    // Prometheus comes with any name.
    let mut caller = Caller::connect(gate.admin_place());
    caller.send("GET /metrics HTTP/1.1\r\nHost: gate.monitoring.svc\r\n\r\n");
    assert_eq!(caller.answer().status, 200);
}

#[test]
fn rule_2_another_site_reads_nothing_and_the_page_reads_itself() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for (fields, status) in [
        ("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", 403),
        ("Sec-Fetch-Site: same-site\r\n", 403),
        ("Origin: http://127.0.0.1:1\r\n", 403),
        ("Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n", 200),
        ("Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n", 200),
    ] {
        let answer = ask(&gate, "Host: 127.0.0.1\r\n", fields);
        assert_eq!((answer.status, answer.text().contains("reports")), (status, status == 200), "{fields}");
    }
}

#[test]
fn rule_3_the_policy_permits_the_inline_style_and_script_and_nothing_else() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let answer = ask(&gate, "Host: localhost\r\n", "");
    let page = answer.text();
    let hash = |name: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, element(&page, name).as_bytes());
        format!("'sha256-{}'", base64::engine::general_purpose::STANDARD.encode(digest))
    };
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("style"),
        hash("script")
    );
    assert_eq!(answer.field("content-security-policy"), Some(policy.as_str()));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.field(name), Some(value), "{name}");
    }
    let without_code = page.replace(element(&page, "style"), "").replace(element(&page, "script"), "");
    for attribute in [" src=", " srcset=", " style=", " action=", " ping=", "@import", "url("] {
        assert!(!without_code.contains(attribute), "{attribute}");
    }
    let handlers = without_code.match_indices(" on").filter(|(at, _)| {
        let name = without_code[at + 3..].split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap();
        without_code[at + 3 + name.len()..].starts_with("=\"")
    });
    assert_eq!(handlers.count(), 0, "there are no handlers in attributes");
    for link in without_code.split(" href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        let stays_here = link.starts_with('#') || link == "data:," || link.starts_with('/') && !link.starts_with("//");
        assert!(stays_here, "{link}");
    }
    assert!(!element(&page, "style").contains("url(") && !element(&page, "style").contains("@import"));
}

/// Every figure is in the page as the gate sends it, so a browser without scripts shows all of it.
#[test]
fn rule_3_nothing_needs_the_script() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let page = page(&gate);
    for id in ["attention", "traffic", "refusals", "callers", "tokens", "quota", "upstream", "listeners", "process"] {
        assert!(section(&page, id).contains("</h2>"), "{id}");
    }
    let script = element(&page, "script");
    assert!(!script.contains("innerHTML") && !script.contains("eval("), "it inserts only what the gate escaped");
    assert!(page.contains("<a class=\"button\" href=\"/\">"), "a link reads the page again");
    assert!(
        page.contains("id=\"pause\" type=\"button\" hidden"),
        "a button that needs the script is hidden without it"
    );
}

#[test]
fn it_contains_callers_tokens_refusals_and_their_remedies() {
    let token = |secret: &str, scopes: &[Scope]| FakeToken {
        secret: secret.to_owned(),
        owner: "shop".to_owned(),
        scopes: scopes.iter().copied().collect(),
        ..FakeToken::default()
    };
    let fake =
        Fake::start(Settings { tokens: vec![token(READ_TOKEN, &[Scope::Read])], ..Settings::default() }).unwrap();
    let config = format!(
        "{TWO_CALLERS}
tokens:
  analytics: {{file: '{{folder}}/analytics', scopes: [metrika:read], owner: shop, expires: 2099-01-31}}
  crm: {{file: '{{folder}}/crm', scopes: [metrika:write], owner: shop}}
quota: {{}}
"
    );
    let gate = Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &config).start();
    assert!(page(&gate).contains("Nothing needs attention"));
    assert!(section(&page(&gate), "refusals").contains("No response had the status 401 or 403"));
    for _ in 0..3 {
        assert_eq!(gate.get("app", COUNTERS).status, 200);
    }
    let write = "DELETE /management/v1/counter/1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(gate.send("app", write).summary(), "403 scope_denied");
    // The stand-in does not know the token `crm`.
    assert_eq!(gate.send("crm", write).status, 403);
    gate.until_metric(&["token_state{token=\"crm\",state=\"suspended\"}"], 1.0);
    let page = page(&gate);
    let refusals = section(&page, "refusals");
    for text in [
        "<code>scope_denied</code>",
        "The scopes of this caller do not allow this operation.",
        "<code>token_invalid</code>",
        "refused by the gate",
        "refused by Metrica",
        "<rect class=\"gate\"",
        "<rect class=\"metrica\"",
        "<svg role=\"img\"",
    ] {
        assert!(refusals.contains(text), "{text}: {refusals}");
    }
    let callers = section(&page, "callers");
    for text in ["reports", "<span class=\"kind\">listener</span> app", "metrika:read", "analytics", "0 s ago"] {
        assert!(callers.contains(text), "{text}: {callers}");
    }
    let tokens = section(&page, "tokens");
    for text in ["<span class=\"badge bad\">suspended</span> for", "<span class=\"badge good\">healthy</span>", "shop"]
    {
        assert!(tokens.contains(text), "{text}: {tokens}");
    }
    assert!(section(&page, "attention").contains("token crm is suspended because Metrica rejects it"));
    assert!(section(&page, "quota").contains("<code>parallel</code>"));
    let upstream = section(&page, "upstream");
    let address = fake.address().to_string();
    for text in ["api-metrika.yandex.net", address.as_str(), "counters.list"] {
        assert!(upstream.contains(text), "{text}: {upstream}");
    }
    assert!(section(&page, "listeners").contains(gate.place("app")));
    let process = section(&page, "process");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, gate.config().as_bytes());
    let hash: String = digest.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    for text in [hash.as_str(), "1 succeeded, 0 failed", "in use", env!("CARGO_PKG_VERSION")] {
        assert!(process.contains(text), "{text}: {process}");
    }
    for secret in [READ_TOKEN, WRITE_TOKEN] {
        assert!(!page.contains(secret));
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes());
        let hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!page.contains(&hash[..12]), "no hash of a token either");
    }
}

#[test]
fn rule_4_a_text_of_a_file_is_escaped() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    gate.replace_config(&format!("{}\n\"<b>\": 1\n", gate.config()));
    until("the configuration is refused", || page(&gate).contains("unknown key"));
    let page = page(&gate);
    for place in ["attention", "process"] {
        let section = section(&page, place);
        assert!(section.contains("&lt;b&gt;: unknown key") && !section.contains("<b>: unknown key"), "{section}");
    }
    assert!(section(&page, "process").contains("rejected; the previous one is in use"));
}

#[test]
fn it_has_a_bounded_number_of_callers() {
    let upstream = Upstream::plain();
    let caller = |number: usize| {
        format!(
            "  - {{id: c{number}, match: {{listener: app, source: [10.{}.{}.0/24]}}, scopes: [metrika:read], tokens: [analytics]}}\n",
            number / 250,
            number % 250
        )
    };
    let callers: String = (0..1000).map(caller).collect();
    let last = "  - {id: used, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}\n";
    let gate = Gate::start(
        &upstream,
        &format!("\nlisteners: [{{name: app, address: '127.0.0.1:0'}}]\ncallers:\n{callers}{last}"),
    );
    gate.get("app", COUNTERS);
    let page = page(&gate);
    let callers = section(&page, "callers");
    assert!(callers.contains(">used<") && callers.contains("of 1,001 callers"), "the used one is listed");
    assert!(page.len() < 300_000, "{} bytes", page.len());
}
