//! The canary: secrets that nothing else looks like, put wherever secrets can be, and then looked for wherever they
//! must not be, with the log at its most talkative (R-16).

use std::io::Write;

use serde_json::json;

use crate::harness::files::write_private;
use crate::harness::gate::program;
use crate::harness::service_accounts::{AUDIENCE, ISSUER, Signer, key_set};
use crate::harness::{Answer, Gate, READ_TOKEN, TWO_CALLERS, Upstream, WRITE_TOKEN};

const NEW_TOKEN: &str = "y0_canaryNEWERcanary0123456789abcde";
const BAD_TOKEN: &str = "y0_canaryBADcanary 0123456789abcdef";
const OF_CALLER: &str = "y0_canaryMINEcanary0123456789abcdef";
const IN_QUERY: &str = "y0_canaryASKEDcanary0123456789abcde";
const IN_COOKIE: &str = "3:canaryCOOKIEcanary0123456789";
const IN_BODY: &str = "canaryBODYcanary0123456789";
/// A key of a caller, and its hash.
const KEY: &str = "mgk_canaryKEYcanary0123456789abcdefghijklmnopqr0G1oab";
const KEY_SHA256: &str = "eefbcca3920db78180b8323fd5bfd264f28dd092e0c268c439d21b63d8e3227e";
/// A key with a wrong checksum.
const MISTYPED: &str = "mgk_canaryTYPOcanary0123456789abcdefghijklmnopq000000";
const ALL: [&str; 10] =
    [READ_TOKEN, WRITE_TOKEN, NEW_TOKEN, BAD_TOKEN, OF_CALLER, IN_QUERY, IN_COOKIE, IN_BODY, KEY, MISTYPED];

/// The forms of a secret: as it is, its beginning, percent-encoded, in hexadecimal, and in base64 at each of the three
/// places it can begin.
fn looks(secret: &str) -> Vec<String> {
    let start = secret.trim_start_matches("y0_");
    let mut looks = vec![secret.to_owned(), secret[..8].to_owned(), start[..start.len().min(12)].to_owned()];
    let percent: String = secret.bytes().take(8).map(|byte| format!("%{byte:02x}")).collect();
    looks.extend([percent.to_uppercase(), percent]);
    for before in ["", "x", "xx"] {
        let encoded = base64(format!("{before}{secret}").as_bytes());
        // The first and the last characters depend on the neighbours.
        looks.push(encoded[4..encoded.len() - 4].to_owned());
    }
    looks.push(secret.bytes().take(8).map(|byte| format!("{byte:02x}")).collect());
    looks.push(format!("{:?}", &secret.as_bytes()[..8]).trim_matches(['[', ']']).to_owned());
    looks
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte)) << (8 * (3 - three.len()));
        (0..=three.len()).for_each(|digit| {
            text.push(char::from(DIGITS[usize::try_from((number >> (18 - 6 * digit)) & 63).unwrap()]))
        });
    }
    text
}

#[track_caller]
pub fn assert_clean(place: &str, text: &str) {
    assert!(!text.is_empty(), "{place} is empty: nothing was looked at");
    for secret in ALL {
        assert_hides(place, text, secret);
    }
}

/// Asserts that one secret is not in a text, in no way of writing it.
pub fn assert_hides(place: &str, text: &str, secret: &str) {
    for look in looks(secret) {
        if let Some(at) = text.find(&look) {
            let from = text[..at].rfind('\n').map_or(0, |line| line + 1);
            let line = text[from..].lines().next().unwrap();
            panic!("{place} has a secret ({look}): {line}");
        }
    }
}

pub fn whole(answer: &Answer) -> String {
    format!("{:?} {:?} {}", answer.fields, answer.trailers, answer.text())
}

/// Everything that callers do, with secrets in it.
fn requests() -> Vec<String> {
    let fields = format!(
        "Host: localhost\r\nAuthorization: OAuth {OF_CALLER}\r\nProxy-Authorization: Bearer {OF_CALLER}\r\n\
         Cookie: Session_id={IN_COOKIE}\r\nX-Api-Key: {OF_CALLER}\r\nX-Unknown: {OF_CALLER}\r\n"
    );
    let query = format!("oauth_token={IN_QUERY}&ids=1&access_token={IN_QUERY}&comment={IN_QUERY}");
    let targets = [
        format!("GET /management/v1/counters?{query}"),
        format!("GET http://{OF_CALLER}@h/management/v1/counters?{query}"),
        format!("GET /stat/v1/data?{query}"),
        format!("GET /stat/v1/data/pivot?{query}"),
        format!("GET /stat/v1/data/bytime?{query}"),
        format!("GET /management/v1/counter/{IN_QUERY}/goals?{query}"),
        format!("GET /management/v1/unknown/{IN_QUERY}/x?{query}"),
        format!("GET /{IN_QUERY}?{query}"),
        format!("GET /a//{IN_QUERY}?{query}"),
        format!("GET /%2e%2e/{IN_QUERY}?{query}"),
        format!("GET /management/v1/counters?{query}&{}", "x".repeat(50_000)),
        format!("DELETE /management/v1/counter/1?{query}"),
        format!("OPTIONS /{IN_QUERY}?{query}"),
        format!("{} /management/v1/counters?{query}", "canaryMINEcanary0123456789"),
        format!("GET /management/v1/counters#{IN_QUERY}"),
        format!("GET /management/v1/counters?a=%zz{IN_QUERY}"),
    ];
    let mut requests: Vec<_> = targets.iter().map(|target| format!("{target} HTTP/1.1\r\n{fields}\r\n")).collect();
    requests.push(format!(
        "POST /management/v1/counters?{query} HTTP/1.1\r\n{fields}Content-Length: {}\r\n\r\n{IN_BODY}",
        IN_BODY.len()
    ));
    requests.push(format!("{OF_CALLER}\r\n\r\n"));
    requests.push(format!("GET /management/v1/counters?{query} HTTP/1.1\r\n{fields}Bad header {OF_CALLER}\r\n\r\n"));
    requests.push(format!("GET /management/v1/counters HTTP/1.1\r\n{fields}A: {}\r\n\r\n", OF_CALLER.repeat(3_000)));
    for key in [KEY, MISTYPED] {
        let basic = base64(format!("etl:{key}").as_bytes());
        for (target, fields) in [
            ("/management/v1/counters".to_owned(), format!("Authorization: OAuth {key}")),
            ("/management/v1/counters".to_owned(), format!("Authorization: Basic {basic}\r\nX-Api-Key: {key}")),
            (format!("/management/v1/counters?oauth_token={key}&comment={key}"), format!("Proxy-Authorization: {key}")),
            (format!("/stat/v1/data?access_token={key}"), format!("Cookie: {key}")),
            (format!("/management/v1/unknown/{key}"), format!("Authorization: Bearer {key}\r\nX-Unknown: {key}")),
            ("/management/v1/counters".to_owned(), format!("Authorization: {KEY}\r\nAuthorization: {MISTYPED}")),
            (format!("/management/v1/counters?ids={key}"), format!("Bad header {key}")),
        ] {
            requests.push(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n"));
        }
    }
    requests
}

/// Requests with service account tokens: where they are read, and where they are not.
fn account_requests(tokens: &[String]) -> Vec<String> {
    let mut requests = Vec::new();
    for token in tokens {
        for (target, fields) in [
            ("/management/v1/counters".to_owned(), format!("X-Gate-Service-Account: {token}")),
            ("/management/v1/counters".to_owned(), format!("Authorization: Bearer {token}")),
            ("/management/v1/counters".to_owned(), format!("X-Gate-Service-Account: {token}x\r\nCookie: {token}")),
            (format!("/management/v1/counters?oauth_token={token}"), format!("Proxy-Authorization: Bearer {token}")),
            (
                format!("/management/v1/unknown/{token}"),
                format!("X-Gate-Service-Account: {token}\r\nX-Unknown: {token}"),
            ),
            ("/management/v1/counters".to_owned(), format!("X-Gate-Service-Account: {token}\r\nBad header {token}")),
        ] {
            requests.push(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n"));
        }
    }
    requests
}

/// Looks for everything that is secret, and for the claims and signatures of these tokens.
#[track_caller]
fn assert_all_clean(place: &str, text: &str, tokens: &[String]) {
    assert_clean(place, text);
    tokens.iter().flat_map(|token| token.split('.').skip(1)).for_each(|part| assert_hides(place, text, part));
}

/// R-16.
#[test]
fn no_secret_is_written_anywhere() {
    let upstream = Upstream::run(|conversation| {
        while let Some(head) = conversation.request_head() {
            conversation.request_body(&head);
            let path = head.split([' ', '?']).nth(1).unwrap();
            match path {
                "/stat/v1/data/pivot" => return,
                "/stat/v1/data/bytime" => {
                    conversation.write("HTTP/9 what\r\n\r\n");
                    return;
                }
                "/stat/v1/data" => {
                    conversation.write("HTTP/1.1 200 OK\r\nContent-Length: 500\r\nSet-Cookie: a=b\r\n\r\n{");
                    return;
                }
                _ => {
                    let body =
                        r#"{"errors":[{"error_type":"invalid_token","message":"Invalid oauth_token"}],"code":403}"#;
                    conversation.answer("403 Forbidden", "application/json", body);
                }
            }
        }
    });
    let keyed = format!(
        "  - {{id: keyed, match: {{key_sha256: [{KEY_SHA256}]}}, scopes: [metrika:read], tokens: [analytics]}}\n"
    );
    let account =
        "  - {id: account, match: {service_account: [shop/etl]}, scopes: [metrika:read], tokens: [analytics]}\n";
    let verified =
        format!("service_accounts: {{jwks_file: '{{folder}}/jwks.json', issuer: '{ISSUER}', audience: {AUDIENCE}}}\n");
    let config = format!("{TWO_CALLERS}{keyed}{account}{verified}");
    let plan = Gate::plan(&upstream, &config).argument("--log-level").argument("trace");
    let signer = Signer::new("one");
    std::fs::write(plan.folder().join("jwks.json"), key_set(&[&signer])).unwrap();
    let tokens = [
        signer.token("shop/etl", &json!({})),
        signer.token("shop/nobody", &json!({})),
        signer.token("shop/etl", &json!({"exp": 1})),
        Signer::new("one").token("shop/etl", &json!({})),
    ];
    let mut gate = plan.start();
    let said_by_check = |gate: &Gate| {
        let output = program().args(["check", "--config"]).arg(gate.file("gate.yaml")).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert_clean("check", &said_by_check(&gate));
    for request in requests().into_iter().chain(account_requests(&tokens)) {
        for listener in ["app", "crm"] {
            let mut caller = gate.connect(listener);
            let _ = caller.try_send(&request);
            if let Ok(answer) = caller.try_answer(false) {
                assert_all_clean(&request[..20], &whole(&answer), &tokens);
            }
        }
    }
    let sent = upstream.requests().concat();
    assert!(sent.contains(READ_TOKEN) && sent.contains(WRITE_TOKEN), "the canaries were out");
    assert!(!sent.contains(OF_CALLER) && !sent.contains(IN_COOKIE), "what a caller sends as a credential stays");
    gate.until_log(&["\"caller\":\"keyed\""]);
    gate.until_log(&["\"caller\":\"account\""]);
    tokens.iter().flat_map(|token| token.split('.')).for_each(|part| assert!(!sent.contains(part), "{part}"));

    gate.replace_token("analytics", NEW_TOKEN);
    gate.until_log(&["token reloaded", "\"usable\":true"]);
    gate.replace_token("analytics", BAD_TOKEN);
    gate.until_log(&["the token was not reloaded"]);
    assert_clean("check of a bad token", &said_by_check(&gate));
    std::fs::remove_file(gate.file("crm")).unwrap();
    gate.until_log(&["the token file was removed"]);
    let good = gate.config();
    gate.replace_config(&good.replace("scopes: [metrika:read],", &format!("scopes: ['{OF_CALLER}'],")));
    gate.until_log(&["the configuration was not reloaded"]);
    assert_clean("check of a bad configuration", &said_by_check(&gate));
    gate.replace_config(&good.replace("file: '", &format!("value: {OF_CALLER}, file: '")));
    gate.signal("HUP");
    gate.until_log(&["the configuration was not reloaded", "unknown key"]);
    gate.replace_config(&good.replace(KEY_SHA256, KEY));
    gate.until_log(&["the configuration was not reloaded", "looks like a key itself"]);
    assert_clean("check of a key in the configuration", &said_by_check(&gate));

    for path in ["/metrics", "/readyz?verbose", "/startupz", "/livez", "/"] {
        assert_all_clean(path, &gate.admin(path).text(), &tokens);
    }
    for file in ["cmdline", "environ"] {
        // A file that may not be read reveals no secret either.
        if let Ok(bytes) = std::fs::read(format!("/proc/{}/{file}", gate.pid())) {
            assert_clean(file, &format!("{file} {}", String::from_utf8_lossy(&bytes)));
        }
    }
    gate.signal("TERM");
    gate.wait();
    let log = gate.log();
    assert!(log.iter().filter(|line| line.contains("\"target\":\"access\"")).count() > 30, "exchanges were logged");
    assert_all_clean("the log", &log.join("\n"), &tokens);
}

/// R-17: bytes of a caller cannot end a log line or begin one.
#[test]
fn a_caller_cannot_write_into_the_log() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for (path, id) in [
        ("/no/such/%1b%5b31m", "forged"),
        ("/no/\"},{\"level\":\"ERROR\"", "\"},{\"x\":\""),
        ("/no/\\u000a", "a\\nb\\"),
        ("/no/<script>", "\u{1b}[31m"),
    ] {
        let mut caller = gate.connect("app");
        caller.send(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {id}\r\nUser-Agent: \u{1b}[2J\r\n\r\n"
        ));
        caller.answer();
    }
    gate.until_metric(&["requests_total"], 4.0);
    crate::harness::gate::until("four lines", || {
        gate.log().iter().filter(|line| line.contains("\"access\"")).count() == 4
    });
    for line in gate.log() {
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let is_refused = parsed["level"] == "WARN" && parsed["message"] == "request failed";
        assert!(parsed["level"] == "INFO" || is_refused, "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
    }
}

/// R-16: no dump of the memory can hold a token, and no other process of the user can read it.
#[test]
fn the_memory_is_closed() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gate.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    use std::os::unix::fs::MetadataExt;
    let folder = std::fs::metadata(format!("/proc/{}/environ", gate.pid())).unwrap();
    assert_eq!(folder.uid(), 0, "a process that cannot be dumped has its files belong to root (proc(5))");
}

/// R-16: the same for a gate of a user, whom another process of that user cannot look into.
#[test]
fn the_memory_is_closed_to_the_same_user() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    const USER: u32 = 65_534;
    let upstream = Upstream::plain();
    let config = TWO_CALLERS
        .replace("- {name: app, address: '127.0.0.1:0'}", "- {name: app, unix: {path: '{folder}/app.sock'}}");
    let plan = Gate::plan(&upstream, &config);
    let (file, copy) = (plan.file(), plan.folder().join("program"));
    std::fs::copy(crate::harness::gate::binary(), &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["", "analytics", "crm", "gate.yaml", "ca.pem"] {
        // Only root can start it as another user; without root, the test before this one covers it.
        if chown(plan.folder().join(name), Some(USER), Some(USER)).is_err() {
            return;
        }
    }
    let mut command = std::process::Command::new(copy);
    command.args(["run", "--workers", "1", "--config"]).arg(file).uid(USER).gid(USER);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let socket = plan.folder().join("app.sock");
    crate::harness::gate::until("it listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    let read = |name: &str| {
        let mut cat = std::process::Command::new("head");
        cat.args(["-c", "1"]).arg(format!("/proc/{}/{name}", child.id())).uid(USER).gid(USER);
        String::from_utf8(cat.output().unwrap().stderr).unwrap()
    };
    let said = ["environ", "maps", "mem"].map(read);
    let owner = std::fs::metadata(format!("/proc/{}/environ", child.id())).unwrap().uid();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(owner, 0, "its files belong to root (proc(5))");
    assert!(said.iter().all(|said| said.contains("Permission denied")), "{said:?}");
}

/// R-16.
#[test]
fn nothing_that_holds_a_token_shows_it() {
    use metrika_gate::token::Token;
    let token = Token::parse(READ_TOKEN.as_bytes()).unwrap();
    assert_clean("Token", &format!("{token:?} {token:#?} {:?}", token.authorization()));
    assert_clean("BadToken", &format!("{0:?} {0}", Token::parse(BAD_TOKEN.as_bytes()).unwrap_err()));
    let file = tempfile::NamedTempFile::new().unwrap();
    write_private(file.path(), BAD_TOKEN);
    file.as_file().flush().unwrap();
    let source = metrika_gate::config::TokenSource {
        alias: metrika_gate::policy::names::TokenAlias::new("analytics"),
        file: file.path().to_owned(),
        allow_mode: None,
        scopes: metrica::scope::ScopeSet::EMPTY,
        origin: metrika_gate::config::Origin::default(),
    };
    let error = metrika_gate::token::store::read(&source, false).unwrap_err();
    assert_clean("TokenFileError", &format!("{error:?} {error}"));
    write_private(file.path(), READ_TOKEN);
    assert_clean("what is read", &format!("{:?}", metrika_gate::token::store::read(&source, false)));
}
