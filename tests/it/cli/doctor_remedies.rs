//! The doctor: every `[-]` has a remedy that works. Each is followed, and the line is well when the doctor looks again.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use fake_metrica::{Fake, Permission, Settings};
use metrica::scope::Scope;
use metrika_gate::doctor::finding::{Finding, Severity};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use serde_json::Value;

use crate::cli::doctor::{Practice, READ, caller, names};
use crate::harness::files::write_private;
use crate::harness::metrica::{
    ALL, EXPENSES, FOREIGN, IN_CONNECT, ORGANISATION, OTHER_APPLICATION, OWN, PERSONAL, READS, STRANGER, VIEW, metrica,
    token,
};
use crate::harness::upstream::{Authority, server_config};
use crate::harness::{Conversation, Proxy, Upstream};

const OWNER: &str = "scopes: [metrika:read], owner: shop-owner";
const NAME: &str = "api-metrika.yandex.net";

impl Practice {
    /// Changes the configuration.
    fn edit(&self, from: &str, to: &str) {
        let config = std::fs::read_to_string(self.file("gate.yaml")).unwrap();
        assert!(config.contains(from), "{from}: {config}");
        std::fs::write(self.file("gate.yaml"), config.replace(from, to)).unwrap();
    }

    fn issue(&self, token: &str) {
        write_private(&self.file("t"), token);
    }
}

/// The stand-in after its accounts were given access.
fn granted() -> Fake {
    let level = |counter| (counter, if counter == OWN { Permission::Own } else { Permission::Edit });
    let counters = [OWN, VIEW, IN_CONNECT, FOREIGN].map(level);
    let token = |secret, scopes: &[Scope]| token(secret, "shop-owner", scopes, &counters);
    let tokens = vec![token(READS, &[Scope::Read]), token(ALL, &[Scope::Read, Scope::Write])];
    Fake::start(Settings { tokens, ..Settings::default() }).unwrap()
}

/// Goes on with another world at Metrica's side.
fn move_to(practice: &Practice, from: &Fake, to: &Fake) {
    practice.edit(&from.address().to_string(), &to.address().to_string());
    std::fs::write(practice.file("ca.pem"), to.ca_pem()).unwrap();
}

type Follow = fn(&Fake, &Practice, &str) -> Option<Fake>;

/// A finding, words of its remedy, and the action that follows it. The action may return a new world.
struct Row {
    finding: &'static str,
    knobs: &'static [&'static str],
    /// The secret of the token t.
    secret: &'static str,
    keys: &'static str,
    caller: String,
    advice: &'static str,
    follow: Follow,
}

fn row(finding: &'static str, secret: &'static str, advice: &'static str, follow: Follow) -> Row {
    Row { finding, knobs: &[], secret, keys: OWNER, caller: caller(""), advice, follow }
}

/// The action for advice to issue a new token of the right kind.
macro_rules! issues {
    ($token:expr) => {
        |_, practice, _| {
            practice.issue($token);
            None
        }
    };
}

/// The action for advice to wait.
const WAITS: Follow = |fake, _, _| {
    fake.turn("reset").unwrap();
    None
};

/// The action for advice to have access granted.
const GRANTS: Follow = |fake, practice, _| {
    let after = granted();
    move_to(practice, fake, &after);
    Some(after)
};

fn rows() -> Vec<Row> {
    let counters = |counters: &str| caller(&format!(", counters: [{counters}]"));
    vec![
        row("file_content", "two words", "write only the token", issues!(READS)),
        Row {
            keys: "scopes: [metrika:read], expires: 2020-01-01",
            ..row("expired", READS, "set 'expires'", |_, practice, _| {
                practice.edit("expires: 2020-01-01", "expires: 2090-01-01");
                None
            })
        },
        Row {
            knobs: &["fail?error_type=unauthorized&path=/info&times=99"],
            ..row("issuer_invalid", READS, "retry in a few minutes", WAITS)
        },
        row("owner_other", STRANGER, "sign in at Yandex as shop-owner and issue the token again", issues!(READS)),
        Row {
            keys: "scopes: [metrika:read], owner: porg-shop",
            ..row("owner_personal", PERSONAL, "on behalf of the organisation", issues!(ORGANISATION))
        },
        Row {
            keys: "scopes: [metrika:read], owner: porg-shop",
            ..row("read_personal", PERSONAL, "on behalf of the organisation", issues!(ORGANISATION))
        },
        Row {
            keys: READ,
            ..row("application_other", OTHER_APPLICATION, "issue the token with client_id=", issues!(READS))
        },
        Row {
            knobs: &["revoke?token=test-000000000000000000000000reads"],
            ..row("dead", READS, "issue a new token with `metrika-gate token login`", issues!(ALL))
        },
        Row {
            knobs: &[
                "revoke?token=test-000000000000000000000000reads",
                "fail?error_type=backend_error&path=/info&times=1",
            ],
            ..row("invalid", READS, "issue a new token with `metrika-gate token login`", issues!(ALL))
        },
        Row {
            knobs: &["fail?error_type=unauthorized&path=/management&times=99"],
            ..row("disputed", READS, "retry in a few minutes", WAITS)
        },
        row("read_missing", EXPENSES, "issue a token with an application that has it", issues!(READS)),
        Row {
            keys: "scopes: [metrika:read, metrika:write], owner: shop-owner",
            caller: counters("102").replace("scopes: [metrika:read]", "scopes: [metrika:read, metrika:write]"),
            ..row("counter_view_only", ALL, "grant the token's owner edit access", GRANTS)
        },
        Row {
            caller: counters("104"),
            ..row("counter_not_granted", READS, "ask the counter's owner to grant access", GRANTS)
        },
        Row {
            caller: counters("103"),
            ..row("counter_in_connect", READS, "grant the token's owner access in its web interface", GRANTS)
        },
        Row {
            caller: counters("104"),
            knobs: &["fail?error_type=backend_error&path=/management/v1/counters&times=99"],
            ..row("counter_open", READS, "the owner has access to the counter", GRANTS)
        },
        Row {
            caller: counters("105"),
            knobs: &["fail?error_type=not_found&path=/management/v1/counter/105&times=99"],
            ..row("counter_absent", READS, "correct or remove its number under 'counters'", |_, practice, _| {
                practice.edit("counters: [105]", "counters: [101]");
                None
            })
        },
        Row {
            knobs: &["fail?error_type=access_denied&path=/stat&times=99"],
            ..row("report_refused", READS, "retry in a few minutes", WAITS)
        },
        row("file_permissions", READS, "chmod 0600", |_, practice, advice| {
            let folder = practice.file("").display().to_string();
            let command = advice.replace("FOLDER", folder.trim_end_matches('/'));
            assert!(std::process::Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
            None
        }),
        Row {
            keys: "scopes: [metrika:read], owner: shop-owner, standby: s",
            ..row("standby_same", READS, "issue a second token", |_, practice, _| {
                write_private(&practice.file("s"), OTHER_APPLICATION);
                None
            })
        },
        Row {
            keys: "scopes: [metrika:read], owner: stranger",
            ..row("token_of_two", READS, "issue a token while signed in as", |_, practice, _| {
                practice.issue(STRANGER);
                None
            })
        },
    ]
}

/// The first of these in a report.
fn find<'a>(said: &'a Value, finding: &str) -> Option<&'a Value> {
    said["findings"].as_array().unwrap().iter().find(|one| one["finding"] == finding)
}

#[test]
fn every_remedy_works_when_it_is_followed() {
    // Those of connections have tests of their own below, that of keys in `policy/service_accounts`.
    let mut followed = BTreeSet::from(["unreachable", "proxy_refuses", "key_set_failed"]);
    for row in rows() {
        let fake = metrica();
        for knob in row.knobs {
            fake.turn(knob).unwrap();
        }
        let needs_two = ["standby_same", "token_of_two"].contains(&row.finding);
        let tokens = [("t", row.secret, row.keys), ("s", READS, OWNER)];
        let practice = Practice::of(&fake, &tokens[..if needs_two { 2 } else { 1 }], &row.caller);
        if row.finding == "file_permissions" {
            std::fs::set_permissions(practice.file("t"), std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        let (_, said) = practice.json(&[]);
        let found = find(&said, row.finding).unwrap_or_else(|| panic!("{}: {said:#}", row.finding));
        assert_eq!(found["standing"], "wrong", "{found}");
        let (advice, check) = (found["advice"].as_str().unwrap(), &found["check"]);
        assert!(advice.contains(row.advice), "{}: {advice}", row.finding);
        let _after = (row.follow)(&fake, &practice, advice);
        let (code, said) = practice.json(&[]);
        let after: Vec<_> = said["findings"].as_array().unwrap().iter().filter(|one| one["check"] == *check).collect();
        let is_well = |one: &&&Value| one["standing"] == "well";
        assert!(!after.is_empty() && after.iter().all(|one| is_well(&one)), "{}: {said:#}", row.finding);
        // Without a list of counters, that stays unknown.
        assert_eq!(code, 0, "{}: {said:#}", row.finding);
        followed.insert(row.finding);
    }
    let wrong: BTreeSet<_> =
        Finding::ALL.iter().filter(|(_, severity)| *severity == Severity::Wrong).map(|(name, _)| *name).collect();
    assert_eq!(followed, wrong, "each has a row here");
}

fn serve(conversation: &mut Conversation) {
    while let Some(head) = conversation.request_head() {
        let body = match head.split([' ', '?']).nth(1).unwrap() {
            "/management/v1/counters" => r#"{"rows":1,"counters":[{"id":101}]}"#,
            "/management/v1/counter/101" => r#"{"counter":{"id":101,"permission":"own"}}"#,
            _ => "{}",
        };
        conversation.answer("200 OK", "application/json", body);
    }
}

/// A server that sends these bytes once a client has sent something; nothing, if there are none.
fn raw(answer: &'static [u8], then_closes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut socket in listener.incoming().map_while(Result::ok) {
            let mut some = [0; 4096];
            let _ = socket.read(&mut some);
            let _ = socket.write_all(answer);
            if !then_closes {
                open.push(socket);
            }
        }
    });
    place
}

#[test]
fn trouble_with_tls_has_words_and_a_remedy_that_works() {
    let (authority, other, namesake) = (Authority::new("own"), Authority::new("other"), Authority::new("own"));
    let right = || Upstream::run_with(authority.signs(NAME, |_| {}), authority.pem.clone(), serve);
    // An authority's certificate, which openssl req -x509 makes, in the place of a leaf.
    let (as_leaf, as_leaf_pem) = {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        (server_config(certificate.der().to_vec(), &key), certificate.pem())
    };
    let served = |config: ServerConfig, pem: &str| {
        let upstream = Upstream::run_with(config, pem.to_owned(), serve);
        let place = upstream.address().to_string();
        (place, pem.to_owned(), Some(upstream))
    };
    let of = |config: ServerConfig| served(config, &authority.pem);
    let at = |place: String| (place, authority.pem.clone(), None);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let cases = [
        ("the gate does not trust the issuer", "upstream.ca_file", served(authority.signs(NAME, |_| {}), &other.pem)),
        (
            "not signed by the trusted authority with the same name",
            "upstream.ca_file",
            served(authority.signs(NAME, |_| {}), &namesake.pem),
        ),
        (
            "expired at 2020-01-01T00:00:00Z",
            "renew the certificate",
            of(authority.signs(NAME, |params| params.not_after = date_time_ymd(2020, 1, 1))),
        ),
        (
            "is valid only from 2090-01-01T00:00:00Z",
            "set the clock",
            of(authority.signs(NAME, |params| params.not_before = date_time_ymd(2090, 1, 1))),
        ),
        ("a CA certificate as its own", "basicConstraints=CA:FALSE", served(as_leaf, &as_leaf_pem)),
        (
            "is not for api-metrika.yandex.net, but for other.example",
            "upstream.connect_to",
            of(authority.signs("other.example", |_| {})),
        ),
        (
            "is not a server certificate",
            "serverAuth",
            of(authority.signs(NAME, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])),
        ),
        ("does not speak TLS", "a port that speaks TLS", at(raw(b"HTTP/1.1 400 Bad Request\r\n\r\n", true))),
        ("closes the connection during the TLS handshake", "a port that speaks TLS", at(raw(b"", true))),
        ("does not respond to the TLS handshake", "a port that speaks TLS", at(raw(b"", false))),
        // A fatal alert, protocol_version (RFC 8446, section 6).
        ("the alert ProtocolVersion", "TLS 1.2 or 1.3", at(raw(&[21, 3, 2, 0, 2, 2, 70], true))),
        ("nothing listens at", "correct host and port", at(closed)),
    ];
    for (words, advice, (place, pem, upstream)) in cases {
        let practice = Practice::new(&place, &pem, &[("t", READS, OWNER)], &caller(""), false);
        practice.edit("connect: 5s", "connect: 2s");
        let (code, said) = practice.json(&[]);
        assert_eq!((code, &*names(&said).join(" ")), (1, "issuer_not_asked unreachable"), "{words}: {said:#}");
        let found = find(&said, "unreachable").unwrap();
        assert!(found["result"].as_str().unwrap().contains(words), "{words}: {found}");
        let mend = found["advice"].as_str().unwrap();
        assert!(mend.contains(advice) && !mend.contains("try again"), "{words}: {mend}");
        assert!(upstream.is_none_or(|upstream| upstream.requests().is_empty()), "{words}: no token was sent");
        // Every remedy comes to the same: the right port, with a certificate that the authority in ca_file issued.
        let mended = right();
        practice.edit(&place, &mended.address().to_string());
        std::fs::write(practice.file("ca.pem"), mended.ca_pem()).unwrap();
        let (code, said) = practice.json(&[]);
        assert_eq!(
            (code, &*names(&said).join(" ")),
            (0, "issuer_not_asked alive read counters_seen counter 101 report 101"),
            "{words}: {said:#}"
        );
    }
}

#[test]
fn a_proxy_that_refuses_has_words_and_a_remedy_that_works() {
    let authority = Authority::new("own");
    let upstream = Upstream::run_with(authority.signs(NAME, |_| {}), authority.pem.clone(), serve);
    let to = upstream.address();
    let open = Proxy::to(to);
    let strict = Proxy::run(move |mut asked| {
        if asked.head.contains("Proxy-Authorization: Basic dXNlcjpwYXNzd29yZA==") {
            asked.tunnel("HTTP/1.1 200 OK\r\n\r\n", to);
        } else {
            asked.write("HTTP/1.1 407 Proxy\r\nProxy-Authenticate: Basic realm=\"a\"\r\n\r\n");
        }
    });
    let (denies, smtp) = (Proxy::says("HTTP/1.1 403 No\r\n\r\n"), Proxy::says("220 smtp\r\n\r\n"));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (place, words, advice) in [
        (denies.address(), "refused the tunnel with status 403", "allow CONNECT to"),
        (smtp.address(), "is not valid HTTP", "an HTTP proxy that accepts CONNECT"),
        (closed, "connecting to it failed", "correct host and port of upstream.proxy"),
        (strict.address(), "requires credentials with status 407", "write user:password"),
    ] {
        let practice = Practice::new(&to.to_string(), upstream.ca_pem(), &[("t", READS, OWNER)], &caller(""), false);
        practice.edit("connect_to: ", &format!("proxy: 'http://{place}', connect_to: "));
        let (code, said) = practice.json(&[]);
        assert_eq!((code, &*names(&said).join(" ")), (1, "issuer_not_asked proxy_refuses"), "{words}: {said:#}");
        let found = find(&said, "proxy_refuses").unwrap();
        assert!(found["result"].as_str().unwrap().contains(words), "{found}");
        assert!(found["advice"].as_str().unwrap().contains(advice), "{found}");
        if place == strict.address() {
            write_private(&practice.file("auth"), "user:password\n");
            let key = format!("proxy_auth_file: '{}', connect_to: ", practice.file("auth").display());
            practice.edit("connect_to: ", &key);
        } else {
            practice.edit(&place.to_string(), &open.address().to_string());
        }
        let (code, said) = practice.json(&[]);
        let expected = "issuer_not_asked proxy alive read counters_seen counter 101 report 101";
        assert_eq!((code, &*names(&said).join(" ")), (0, expected), "{words}: {said:#}");
    }
}

#[test]
fn yandex_id_that_cannot_be_reached_has_its_own_words() {
    let fake = metrica();
    let practice = Practice::of(&fake, &[("t", READS, OWNER)], &caller(""));
    let config = std::fs::read_to_string(practice.file("gate.yaml")).unwrap();
    let (before, identity) = config.split_once("identity:").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let elsewhere = identity.replace(&fake.address().to_string(), &closed);
    std::fs::write(practice.file("gate.yaml"), format!("{before}identity:{elsewhere}")).unwrap();
    let (code, said) = practice.json(&[]);
    assert_eq!((code, &*names(&said)[0], &*names(&said)[1]), (1, "unreachable", "alive"), "{said:#}");
    let found = find(&said, "unreachable").unwrap();
    assert!(found["advice"].as_str().unwrap().contains("identity.connect_to"), "{found}");
}

/// Rule 5.
#[test]
fn without_named_counters_the_owners_counters_are_examined_and_noted() {
    let counters: Vec<_> =
        (1..9).map(|counter| (counter, if counter == 2 { Permission::View } else { Permission::Own })).collect();
    let token = token(ALL, "shop-owner", &[Scope::Read, Scope::Write], &counters);
    let fake = Fake::start(Settings { tokens: vec![token], ..Settings::default() }).unwrap();
    let keys = "scopes: [metrika:read, metrika:write]";
    let writer = caller("").replace("scopes: [metrika:read]", keys);
    let practice = Practice::of(&fake, &[("t", ALL, keys)], &writer);
    let (code, said) = practice.json(&[]);
    assert_eq!(
        names(&said)[5..],
        ["counters_seen", "counter 1", "counter_seen_view_only 2", "counter 3", "counter 4", "counter 5", "report 1"]
    );
    assert_eq!(code, 0, "nobody named the counter that can only be looked at: {said:#}");
    let found = find(&said, "counters_seen").unwrap()["result"].as_str().unwrap();
    assert_eq!(found, "no counter is configured: checked 5 of the 8 that the owner can see");
    // A named counter is the only one.
    let (code, said) = practice.json(&["--counter", "2"]);
    assert_eq!((code, &names(&said)[5..]), (1, &["counter_view_only 2".to_owned(), "report 2".to_owned()][..]));
}

#[test]
fn a_token_under_two_names_is_reported() {
    let fake = metrica();
    let callers = caller("").replace("tokens: [t]", "tokens: [t, u]");
    let practice = Practice::of(&fake, &[("t", READS, OWNER), ("u", READS, OWNER)], &callers);
    let (code, said) = practice.json(&[]);
    let found = find(&said, "token_twice").unwrap();
    assert_eq!(
        (code, &found["token"], &found["result"]),
        (0, &"u".into(), &"the file contains the same token as t".into())
    );
}

/// Rule 4: an account that is only declared is not another token's that Yandex ID names.
#[test]
fn a_declared_owner_does_not_override_the_observed_one() {
    let fake = metrica();
    // The first is asked first, and gets no answer; the second is a stranger's, whatever is declared.
    fake.turn("fail?error_type=backend_error&path=/info&times=1").unwrap();
    let callers =
        "{id: crm, match: {listener: app}, scopes: [metrika:read, metrika:write], tokens: [w, r], counters: [101]}";
    let tokens =
        [("w", crate::harness::metrica::WRITES, "scopes: [metrika:write], owner: shop-owner"), ("r", STRANGER, OWNER)];
    let (_, said) = Practice::of(&fake, &tokens, callers).json(&[]);
    assert!(names(&said).contains(&"counter_unseen 101".to_owned()), "{said:#}");
}
