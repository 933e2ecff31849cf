//! The doctor: the requests that it sends and avoids, its output, and that no secret is in it. Metrica's reasons to
//! refuse are in `doctor_reasons`.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use fake_metrica::Fake;
use serde_json::Value;

use crate::harness::files::write_private;
use crate::harness::gate::program;
use crate::harness::metrica::{CLIENT_ID, EXPENSES, FOREIGN, OWN, READS, VIEW, WRITES, metrica};
use crate::harness::{READ_TOKEN, Upstream, WRITE_TOKEN};
use crate::secrets::canary::assert_clean;

/// A configuration and its tokens in a folder.
pub struct Practice(tempfile::TempDir);

impl Practice {
    /// In front of `place`, with these tokens (name, secret, keys) and the callers in `callers`.
    pub fn new(place: &str, ca_pem: &str, tokens: &[(&str, &str, &str)], callers: &str, with_identity: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        std::fs::write(folder.path().join("ca.pem"), ca_pem).unwrap();
        let mut config = format!(
            "listeners: [{{name: app, address: '127.0.0.1:0'}}]\n\
             upstream: {{ca_file: '{at}/ca.pem', connect_to: '{place}', timeouts: {{connect: 5s, response_headers: 5s}}}}\n\
             callers: [{callers}]\ntokens:\n"
        );
        for (name, secret, keys) in tokens {
            config += &format!("  {name}: {{file: '{at}/{name}', {keys}}}\n");
            write_private(&folder.path().join(name), secret);
        }
        if with_identity {
            config += &format!(
                "identity: {{url: 'https://login.yandex.ru/info', ca_file: '{at}/ca.pem', connect_to: '{place}'}}\n"
            );
        }
        std::fs::write(folder.path().join("gate.yaml"), config).unwrap();
        Self(folder)
    }

    pub fn of(fake: &Fake, tokens: &[(&str, &str, &str)], callers: &str) -> Self {
        Self::new(&fake.address().to_string(), fake.ca_pem(), tokens, callers, true)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Exit code, stdout and stderr.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = program().args(arguments).arg("--config").arg(self.file("gate.yaml")).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap().replace(&self.0.path().display().to_string(), "FOLDER");
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    pub fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let (code, said, error) = self.run(&[&["doctor", "--format", "json"], arguments].concat());
        assert_eq!(error, "", "progress is for terminals");
        (code, serde_json::from_str(&said).unwrap_or_else(|wrong| panic!("{wrong}: {said}")))
    }
}

/// Every finding as `name`, or `name counter`, but for the file that is well.
pub fn names(said: &Value) -> Vec<String> {
    let findings = said["findings"].as_array().unwrap().iter().filter(|one| one["finding"] != "file");
    findings
        .map(|one| match one["counter"].as_u64() {
            Some(counter) => format!("{} {counter}", one["finding"].as_str().unwrap()),
            None => one["finding"].as_str().unwrap().to_owned(),
        })
        .collect()
}

pub fn caller(rules: &str) -> String {
    format!("{{id: reports, match: {{listener: app}}, scopes: [metrika:read], tokens: [t]{rules}}}")
}

/// The keys of a token of shop-owner that reads.
pub const READ: &str = "scopes: [metrika:read], owner: shop-owner, client_id: 0123456789abcdef0123456789abcdef";

/// Rule 2.
#[test]
fn identity_is_not_asked_unless_it_is_configured() {
    let fake = metrica();
    let place = fake.address().to_string();
    let practice = Practice::new(&place, fake.ca_pem(), &[("t", READS, READ)], &caller(""), false);
    let (code, said) = practice.json(&[]);
    assert_eq!(
        (code, names(&said).join(" ")),
        (0, "issuer_not_asked alive read counters_seen counter 101 counter_looks 102 report 101".to_owned())
    );
    assert_eq!(fake.heard()[0], "GET /management/v1/counters");
    assert!(!fake.heard().iter().any(|request| request.contains("/info")));
    fake.revoke(READS);
    assert_eq!(names(&practice.json(&[]).1), ["issuer_not_asked", "invalid"]);
    assert!(!fake.heard().iter().any(|request| request.contains("/info")));
}

/// Rule 4.
#[test]
fn a_counter_hidden_from_a_token_is_read_with_another_of_its_owner() {
    let fake = metrica();
    let callers = "{id: crm, match: {listener: app}, scopes: [metrika:read, metrika:write], tokens: [reads, writes], \
                   counters: [101, 102]}";
    let tokens = |keys| [("writes", WRITES, "scopes: [metrika:write]"), ("reads", READS, keys)];
    let practice = Practice::of(&fake, &tokens("scopes: [metrika:read]"), callers);
    let (code, said) = practice.json(&[]);
    let of_writes: Vec<_> =
        said["findings"].as_array().unwrap().iter().filter(|one| one["token"] == "writes").collect();
    assert_eq!((of_writes[6]["counter"].as_u64(), &of_writes[6]["finding"]), (Some(OWN), &"counter".into()));
    assert_eq!(of_writes[6]["result"], "own (seen with token reads of the same owner)");
    assert_eq!((of_writes[7]["counter"].as_u64(), &of_writes[7]["finding"]), (Some(VIEW), &"counter_view_only".into()));
    assert_eq!(code, 1);
    let asked = fake.heard().iter().filter(|request| request.ends_with("/counter/101")).count();
    assert_eq!(asked, 1, "what is known is not asked again");
    // Not with a token of anybody else.
    let place = fake.address().to_string();
    let practice = Practice::new(&place, fake.ca_pem(), &tokens("scopes: [metrika:read]"), callers, false);
    let said = practice.json(&["--token", "writes"]).1;
    assert_eq!(names(&said)[3..], ["write_unproven", "counter_unseen 101", "counter_unseen 102"]);
    let said = practice.json(&[]).1;
    assert!(names(&said).contains(&"counter_unseen 101".to_owned()), "{said:#}");
}

#[test]
fn over_http_2_it_hears_the_same() {
    let fake = metrica();
    let practice = Practice::of(&fake, &[("t", READS, READ)], &caller(", counters: [101, 103]"));
    fake.turn("fail?error_type=quota_requests_by_uid&path=/management&times=1&gzip").unwrap();
    let over_http_1 = practice.json(&[]);
    let config = std::fs::read_to_string(practice.file("gate.yaml")).unwrap();
    std::fs::write(practice.file("gate.yaml"), config.replace("upstream: {", "upstream: {http2: true, ")).unwrap();
    fake.turn("fail?error_type=quota_requests_by_uid&path=/management&times=1&gzip").unwrap();
    assert_eq!(practice.json(&[]), over_http_1);
    assert_eq!(names(&over_http_1.1)[4..], ["counter 101", "counter_in_connect 103", "report 101"]);
    let version = fake.turn("state").unwrap()["last_request"]["version"].clone();
    assert_eq!(version, "HTTP/2.0");
}

/// Rule 5.
#[test]
fn only_so_many_counters_are_asked_for() {
    let fake = metrica();
    let many: Vec<_> = (1000..1060).map(|counter| counter.to_string()).collect();
    let callers = caller(&format!(", counters: [{}]", many.join(", ")));
    let practice = Practice::of(&fake, &[("t", READS, READ)], &callers);
    let (_, said) = practice.json(&["--counter", "101"]);
    let names = names(&said);
    let counters = names.iter().filter(|name| name.starts_with("counter_not_granted")).count();
    assert_eq!((counters, &*names[4]), (49, "counter 101"), "{names:?}");
    let cut = said["findings"].as_array().unwrap().iter().find(|one| one["finding"] == "counters_cut").unwrap();
    assert_eq!(cut["result"], "checked 50 of 61");
}

/// Rule 6.
#[test]
fn an_obstacle_that_stays_ends_the_questions() {
    let fake = metrica();
    let callers = caller(", counters: [101, 102, 103, 104]");
    let practice = Practice::of(&fake, &[("t", READS, READ)], &callers);
    fake.turn("fail?error_type=quota_requests_by_uid&path=/management/v1/counter/&times=99").unwrap();
    let (code, said) = practice.json(&[]);
    assert_eq!(names(&said)[4..], ["counter_unknown 101", "counters_skipped"]);
    assert_eq!((code, fake.requests()), (75, 4), "who, list, and twice a counter");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let practice = Practice::new(&nobody, fake.ca_pem(), &[("t", READS, READ)], &callers, false);
    let (code, said) = practice.json(&[]);
    assert_eq!((code, names(&said).join(" ")), (1, "issuer_not_asked unreachable counters_skipped".to_owned()));
    assert!(said.to_string().contains("skipped 4 more"), "{said}");
}

#[test]
fn days_to_the_end_of_a_token() {
    let fake = metrica();
    for (days, finding, result) in [(10, "expires_soon", "in 9 days"), (100, "expires", "in 99 days")] {
        let end = std::time::SystemTime::now() + std::time::Duration::from_secs(days * 24 * 60 * 60);
        let keys = format!("scopes: [metrika:read], expires: '{}'", humantime::format_rfc3339_seconds(end));
        let practice = Practice::of(&fake, &[("t", READS, &keys)], &caller(""));
        let (code, said) = practice.json(&[]);
        assert_eq!((code, &*names(&said)[0], &said["findings"][1]["result"]), (0, finding, &result.into()));
    }
}

#[test]
fn a_table_for_people() {
    let fake = metrica();
    let callers = caller(", counters: [101, 104]").replace("tokens: [t]", "tokens: [analytics, old]");
    let tokens = [("analytics", READS, READ), ("old", EXPENSES, "scopes: [metrika:read]"), ("short", "y0_abc", READ)];
    let practice = Practice::of(&fake, &tokens, &callers);
    std::fs::set_permissions(practice.file("old"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said, error) = practice.run(&["doctor"]);
    assert_eq!((code, &*error), (77, ""));
    insta::assert_snapshot!(said, @r#"
        token      check        result                                               what to do
    [+] analytics  file         contains a well-formed token
    [+] analytics  owner        shop-owner, as configured
    [+] analytics  application  0123456789abcdef0123456789abcdef, as configured
    [+] analytics  alive        Metrica accepts the token
    [+] analytics  read         the token has metrika:read, as declared
    [+] analytics  counter 101  own
    [-] analytics  counter 104  the token's owner has no grant                       ask the counter's owner to grant access, or use a token of an account that has it; another scope does not help
    [+] analytics  report 101   works
    [-] old        file         FOLDER/old has mode 0644 and can be read by others or changed by its group  chmod 0600 FOLDER/old
    [!] short      file         the token is shorter than any known token of Yandex  check that the file contains the whole token
    [-] short      alive        Metrica and Yandex ID reject the token (expired, revoked, password changed, or application edited)  issue a new token with `metrika-gate token login`, or write one to the file

    problems found: 3 wrong, 0 unknown, 1 warning; sent 7 requests, reads only
    "#);
}

#[test]
fn exit_codes_and_wrong_usage() {
    let fake = metrica();
    let practice = Practice::of(&fake, &[("t", READS, READ)], &caller(""));
    let (code, _, said) = practice.run(&["doctor", "--token", "nobody"]);
    assert_eq!(code, 2);
    assert!(said.contains("unknown token 'nobody'; the configured tokens are t"), "{said}");
    for counter in ["0", "x", "-1"] {
        assert_eq!(practice.run(&["doctor", &format!("--counter={counter}")]).0, 2, "{counter}");
    }
    assert_eq!(fake.requests(), 0);
    std::fs::remove_file(practice.file("t")).unwrap();
    let (code, said) = practice.json(&[]);
    assert_eq!((code, names(&said)), (78, vec!["file_content".to_owned()]));
    write_private(&practice.file("t"), "demo-read-analytics-0001");
    assert_eq!(practice.json(&[]).0, 78, "a token of the demo");
    std::fs::write(practice.file("gate.yaml"), "callers: 1").unwrap();
    assert_eq!(practice.run(&["doctor"]).0, 78);
    std::fs::remove_file(practice.file("gate.yaml")).unwrap();
    assert_eq!(practice.run(&["doctor"]).0, 66);
}

#[test]
fn check_online_does_both() {
    let fake = metrica();
    let practice = Practice::of(&fake, &[("t", READS, READ)], &caller(&format!(", counters: [{FOREIGN}]")));
    assert_eq!((practice.run(&["check"]).0, fake.requests()), (0, 0));
    let (code, said, _) = practice.run(&["check", "--online"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.starts_with("the configuration is valid: 1 listener, 1 caller, 1 token"), "{said}");
    assert!(said.contains("[-] t      counter 104  the token's owner has no grant"), "{said}");
    let (code, said, _) = practice.run(&["check", "--online", "--format", "json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["valid"], &said["online"]["standing"]), (1, &true.into(), &"wrong".into()));
    assert_eq!(practice.run(&["check", "--online", "--without-tokens"]).0, 2);
    std::fs::set_permissions(practice.file("t"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(practice.run(&["check", "--online"]).0, 77);
}

/// Rules 1 and 7: no output has a token, even if a server echoes it; and every request is a GET without a body.
#[test]
fn tokens_echoed_by_a_server_are_not_repeated() {
    let (config, ca_pem) = {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["api-metrika.yandex.net", "login.yandex.ru"].map(str::to_owned).to_vec();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (crate::harness::upstream::server_config(certificate.der().to_vec(), &key), certificate.pem())
    };
    let upstream = Upstream::run_with(config, ca_pem, |conversation| {
        while let Some(head) = conversation.request_head() {
            let token = head.lines().find_map(|line| line.split_once("OAuth ")).unwrap().1.trim().to_owned();
            let denied = format!(
                r#"{{"errors":[{{"error_type":"{token}","message":"{token}"}}],"code":403,"message":"{token}"}}"#
            );
            let (status, body) = match head.split(' ').nth(1).unwrap().split('?').next().unwrap() {
                "/info" => ("200 OK", format!(r#"{{"login":"{token}","client_id":"{token}"}}"#)),
                "/management/v1/counters" => ("200 OK", format!(r#"{{"counters":[{{"id":7,"name":"{token}"}}]}}"#)),
                "/management/v1/counter/1" => ("200 OK", format!(r#"{{"counter":{{"permission":"{token}"}}}}"#)),
                "/management/v1/counter/2" => (&*format!("403 {token}"), denied),
                "/management/v1/accounts" => ("200 OK", format!(r#"{{"accounts":[{{"user_login":"{token}"}}]}}"#)),
                _ => ("500 No", token),
            };
            conversation.answer(status, "application/json", &body);
        }
    });
    let tokens = [("reads", READ_TOKEN, READ), ("writes", WRITE_TOKEN, "scopes: [metrika:write]")];
    let callers = caller(", counters: [1, 2, 3], ulogin: [client]").replace("tokens: [t]", "tokens: [reads, writes]");
    let place = upstream.address().to_string();
    let practice = Practice::new(&place, upstream.ca_pem(), &tokens, &callers, true);
    for arguments in [&["doctor"][..], &["doctor", "--format", "json"], &["check", "--online"]] {
        let (code, said, error) = practice.run(arguments);
        assert!([1, 75].contains(&code), "{code}: {said}{error}");
        assert!(
            said.contains("the response does not match the request") && said.contains("an unknown permission"),
            "{said}"
        );
        assert_clean(&arguments.join(" "), &format!("{said}{error}"));
    }
    let requests = upstream.requests();
    assert!(requests.len() > 20, "{}", requests.len());
    for head in requests {
        assert!(head.starts_with("GET ") && !head.to_ascii_lowercase().contains("content-length"), "{head}");
    }
}

#[test]
fn the_stand_in_names_the_issuer_of_a_token() {
    assert_eq!(fake_metrica::DEMO_CLIENT_ID, CLIENT_ID);
    let fake = metrica();
    assert!(fake.turn(&format!("account?token={READS}&login=ivan&client_id=abcdefgh&represents=a,b")).is_ok());
    let practice = Practice::of(&fake, &[("t", READS, READ)], &caller(", ulogin: [b, c]"));
    let (_, said) = practice.json(&[]);
    assert_eq!(
        names(&said),
        [
            "owner_other",
            "application_other",
            "alive",
            "read",
            "counters_seen",
            "counter 101",
            "counter_looks 102",
            "report 101",
            "represents",
            "not_represented"
        ]
    );
    assert!(said.to_string().contains("ivan, but shop-owner is configured"), "{said}");
    assert!(fake.turn("account?token=test-unknown").is_err() && fake.turn("nothing").is_err());
}
