//! Assumptions of the gate that the documentation leaves open: the list, and that a check tells true ones from false ones.

use std::fmt::Write as _;

use metrika_gate::doctor::assumed::Assumed;
use serde_json::Value;

use crate::cli::doctor::{Practice, READ, caller};
use crate::harness::files::same_as_file;
use crate::harness::metrica::{READS, metrica};
use crate::harness::{READ_TOKEN, Upstream};
use crate::secrets::canary::assert_clean;

#[test]
fn the_page_is_written_from_the_code() {
    let mut page = "\
# Assumptions about Metrica

The gate was built from Metrica's documentation and from what public clients received. Where these say nothing or contradict each
other, the gate relies on the following. To test it with your account:

```console
$ metrika-gate doctor --config gate.yaml --assumptions
```

The command sends some fifteen GETs with the first token that reads (or `--token`); they count towards its quotas. It prints for each
assumption whether it holds. `[-]` is worth a report: the last column has what to change.

A test writes this page from `src/doctor/assumed.rs`; `UPDATE=1 cargo test --test it` regenerates it.

| name | assumed | where it is relied on | if it fails |
|---|---|---|---|
"
    .to_owned();
    for assumed in Assumed::ALL {
        let one = assumed.of();
        let unasked = one.unasked.map(|why| format!(" (not asked: {why})")).unwrap_or_default();
        writeln!(page, "| `{}` | {}{unasked} | {} | {} |", one.name, one.says, one.relied_on, one.otherwise).unwrap();
    }
    same_as_file("docs/assumptions.md", &page);
}

/// Files that are named have to be there.
#[test]
fn the_assumptions_name_existing_files() {
    for assumed in Assumed::ALL {
        let one = assumed.of();
        let texts = [one.relied_on, one.otherwise].join(" ");
        for path in texts.split('`').filter(|part| part.starts_with("src/") || part.starts_with("crates/")) {
            let at = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
            assert!(at.exists(), "{}: {path}", one.name);
        }
    }
}

/// Every assumption with its verdict.
fn verdicts(said: &Value) -> Vec<String> {
    let all = said["assumptions"].as_array().unwrap().iter();
    all.map(|one| format!("{} {}", one["assumption"].as_str().unwrap(), one["verdict"].as_str().unwrap())).collect()
}

#[test]
fn assumptions_that_hold_are_distinguished_from_others() {
    let fake = metrica();
    let practice = Practice::of(&fake, &[("t", READS, READ)], &caller(""));
    let (_, said) = practice.json(&["--assumptions"]);
    insta::assert_snapshot!(verdicts(&said).join("\n"), @r"
    http2 held
    coding held
    without_token held
    bad_token held
    accepted held
    list held
    permission_in_list held
    permission_of_one held
    foreign_counter held
    public_with_bad_token held
    final_slash not
    encoded_less held
    ids_twice held
    unknown_path held
    quota not asked
    accounts held
    issuer held
    scope_like_grant not asked
    delete_is_200 not asked
    shared_quota not asked
    ");
    assert!(fake.heard().iter().all(|request| request.starts_with("GET ")), "{:?}", fake.heard());
    // A quota that is met ends no question but its own.
    fake.turn("fail?error_type=quota_requests_by_uid&path=/management/v1/accounts&times=1").unwrap();
    let (_, said) = practice.json(&["--assumptions"]);
    let verdicts = verdicts(&said);
    assert!(
        verdicts.contains(&"quota held".to_owned()) && verdicts.contains(&"accounts not asked".to_owned()),
        "{said:#}"
    );
}

/// An upstream that violates every assumption, and sends the token back: the token is not printed.
#[test]
fn an_assumption_that_fails_is_reported_with_its_remedy() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            let is_list = head.starts_with("GET /management/v1/counters?") && head.contains("canary");
            let token = head.lines().find_map(|line| line.split_once("OAuth ")).map_or("", |(_, token)| token.trim());
            let body = if is_list {
                format!(r#"{{"counters":[{{"id":7,"name":"{token}"}}]}}"#)
            } else {
                format!("<html>{token}")
            };
            let status = if is_list { "200 OK".to_owned() } else { format!("500 {token}") };
            conversation.write(format!(
                "HTTP/1.1 {status}\r\nContent-Encoding: br\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
        }
    });
    let practice = Practice::new(
        &upstream.address().to_string(),
        upstream.ca_pem(),
        &[("t", READ_TOKEN, READ)],
        &caller(""),
        false,
    );
    let (code, said) = practice.json(&["--assumptions"]);
    assert_clean("assumptions", &said.to_string());
    insta::assert_snapshot!(verdicts(&said).join("\n"), @r"
    http2 not
    coding not
    without_token not
    bad_token not
    accepted held
    list not
    permission_in_list not
    permission_of_one not
    foreign_counter not
    public_with_bad_token not
    final_slash not
    encoded_less not
    ids_twice not
    unknown_path not
    quota not asked
    accounts not
    issuer not asked
    scope_like_grant not asked
    delete_is_200 not asked
    shared_quota not asked
    ");
    assert_eq!(code, 1);
    let (code, said, _) = practice.run(&["doctor", "--assumptions"]);
    assert_clean("assumptions", &said);
    assert!(code == 1 && said.contains("[-] not        a request without a token gets 401"), "{said}");
    assert!(said.contains("500, not Metrica's JSON\n               if this persists: add the observed type"), "{said}");
    for head in upstream.requests() {
        assert!(head.starts_with("GET ") && !head.to_ascii_lowercase().contains("content-length"), "{head}");
    }
}

#[test]
fn no_assumption_is_reported_as_held_if_nobody_answers() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let practice = Practice::new(&nobody, metrica().ca_pem(), &[("t", READS, READ)], &caller(""), false);
    let (code, said) = practice.json(&["--assumptions"]);
    assert!(verdicts(&said).iter().all(|verdict| verdict.ends_with("not asked")), "{said:#}");
    assert_eq!(code, 75);
}
