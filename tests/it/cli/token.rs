//! The life of a token against the stand-in: login in each flow, status, renewal, revocation and import.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use fake_metrica::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, DEMO_COUNTER, Fake, Settings};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::harness::Gate;
use crate::harness::files::write_private;
use crate::harness::gate::{program, until};
use crate::harness::terminal::Terminal;

/// A configuration with one token, in front of the stand-in.
pub struct Life {
    pub fake: Fake,
    pub folder: tempfile::TempDir,
}

/// A command that waits for a person.
pub struct Dialog {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    seen: String,
}

/// The end of a command.
#[derive(Debug)]
pub struct End {
    pub code: i32,
    pub out: String,
    pub error: String,
}

/// The keys of a token that can be renewed.
pub const RENEWED: &str = "scopes: [metrika:read], owner: demo-owner, client_id: 0123456789abcdef0123456789abcdef, \
                           client_secret_file: '{at}/secret', refresh_file: '{at}/crm.refresh'";

impl Life {
    pub fn new(keys: &str) -> Self {
        Self::of(Settings::default(), keys)
    }

    pub fn of(settings: Settings, keys: &str) -> Self {
        let fake = Fake::start(settings).unwrap();
        fake.turn("oauth?interval=1").unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), fake.ca_pem()).unwrap();
        write_private(&folder.path().join("secret"), DEMO_CLIENT_SECRET);
        let life = Self { fake, folder };
        life.configure(keys);
        life
    }

    /// Writes the configuration, with these keys of the token.
    pub fn configure(&self, keys: &str) {
        let (at, place) = (self.folder.path().display(), self.fake.address());
        let keys = keys.replace("{at}", &at.to_string());
        let there = format!("ca_file: '{at}/ca.pem', connect_to: '{place}'");
        let config = format!(
            "listeners: [{{name: app, address: '127.0.0.1:0'}}]\n\
             admin: {{address: '127.0.0.1:1'}}\n\
             upstream: {{{there}, timeouts: {{connect: 5s, response_headers: 5s}}}}\n\
             identity: {{url: 'https://login.yandex.ru/info', {there}}}\n\
             oauth: {{{there}}}\n\
             tokens: {{crm: {{file: '{at}/crm', {keys}}}}}\n\
             callers: [{{id: reports, match: {{listener: app}}, scopes: [metrika:read], tokens: [crm]}}]\n"
        );
        std::fs::write(self.file("gate.yaml"), config).unwrap();
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.arg("token").args(arguments).arg("--config").arg(self.file("gate.yaml"));
        command
    }

    /// Runs a command to its end, with this text as its standard input.
    pub fn run(&self, arguments: &[&str], input: &str) -> End {
        let dialog = Dialog::start(self.command(arguments));
        dialog.end(input)
    }

    /// Starts a command and reads what it says to the person, up to a line that begins with two spaces.
    pub fn ask(&self, arguments: &[&str]) -> (Dialog, String) {
        let mut dialog = Dialog::start(self.command(arguments));
        let line = dialog.until("  ");
        (dialog, line.trim().to_owned())
    }

    /// Follows an address as a person who is signed in as `login`; returns the address that it leads to.
    pub fn click(&self, address: &str, login: &str, decision: &str) -> String {
        let query = address.split_once("/authorize?").unwrap_or_else(|| panic!("{address}")).1;
        let page = self.browse("GET", &format!("/authorize?{query}"), "");
        assert!(page.contains("id=\"allow\""), "{page}");
        let reply = self.browse("POST", "/authorize", &format!("{query}&login={login}&decision={decision}"));
        let location = reply.lines().find_map(|line| line.strip_prefix("location: "));
        format!("https://oauth.yandex.ru{}", location.unwrap_or_else(|| panic!("{reply}")))
    }

    /// Enters the code of a device.
    pub fn enter(&self, code: &str, login: &str, decision: &str) {
        let page = self.browse("POST", "/device", &format!("user_code={code}&login={login}&decision={decision}"));
        assert!(page.contains("Return to your device"), "{page}");
    }

    /// A request of a browser; returns the whole response.
    pub fn browse(&self, method: &str, path: &str, body: &str) -> String {
        self.send("oauth.yandex.ru", method, path, "", body)
    }

    fn send(&self, host: &'static str, method: &str, path: &str, fields: &str, body: &str) -> String {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.fake.ca_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from(host).unwrap();
        let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = std::net::TcpStream::connect(self.fake.address()).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, socket);
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    /// Whether Metrica accepts the token in its place.
    pub fn works(&self) -> bool {
        let token = format!("Authorization: OAuth {}\r\n", self.read("crm"));
        self.send("api-metrika.yandex.net", "GET", "/management/v1/counters", &token, "").starts_with("HTTP/1.1 200 ")
    }

    /// Logs in by the flow with a code.
    pub fn log_in(&self) -> End {
        let (dialog, address) = self.ask(&["login", "crm", "--flow", "code"]);
        let result = self.click(&address, "demo-owner", "allow");
        dialog.end(&format!("{result}\n"))
    }
}

impl Dialog {
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, seen: String::new() }
    }

    /// Reads up to the address that it shows; `None` if it has ended before.
    pub fn address(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.stderr.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            self.seen.push_str(&line);
            if line.starts_with("  https://") && line.ends_with('\n') {
                return Some(line.trim().to_owned());
            }
        }
    }

    /// Reads up to a line that begins with `start`.
    pub fn until(&mut self, start: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.stderr.read_line(&mut line).unwrap();
            self.seen.push_str(&line);
            assert!(read > 0, "it ended: {}", self.seen);
            if line.starts_with(start) {
                return line;
            }
        }
    }

    /// Writes a part of the input.
    pub fn say(&mut self, input: &str) {
        self.child.stdin.as_mut().unwrap().write_all(input.as_bytes()).unwrap();
    }

    /// Sends a signal, as in kill(1).
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Writes the input and reads to the end.
    pub fn end(mut self, input: &str) -> End {
        // A command that needs no input may have ended.
        let _ = self.child.stdin.take().unwrap().write_all(input.as_bytes());
        let mut error = self.seen;
        self.stderr.read_to_string(&mut error).unwrap();
        let output = self.child.wait_with_output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        End { code: output.status.code().unwrap_or(-1), out, error }
    }
}

#[test]
fn a_login_with_a_code_puts_a_proven_token_in_its_place() {
    let life = Life::new("scopes: [metrika:read], client_id: 0123456789abcdef0123456789abcdef");
    let (dialog, address) = life.ask(&["login", "crm"]);
    assert!(address.contains("code_challenge_method=S256") && address.contains("device_id=mgate-crm-"), "{address}");
    let result = life.click(&address, "demo-owner", "allow");
    let end = dialog.end(&format!("{result}\n"));
    assert_eq!(end.code, 0, "{end:?}");
    assert!(end.error.contains("[+] owner: demo-owner") && end.error.contains("[+] alive"), "{end:?}");
    assert!(end.out.contains("token 'crm' is in") && end.out.contains("owner: demo-owner"), "{end:?}");
    let token = life.read("crm");
    assert!(token.starts_with("test-") && !format!("{end:?}").contains(&token));
    assert_eq!(life.file("crm").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let record: serde_json::Value = serde_json::from_str(&life.read("crm.json")).unwrap();
    assert_eq!(record["owner"], "demo-owner");
    assert!(record["expires"].as_u64().unwrap() > record["issued"].as_u64().unwrap() + 31_000_000);
    assert!(end.out.contains("the refresh token was not kept"), "{end:?}");
    assert!(life.works());
}

#[test]
fn a_login_with_a_device_polls_until_a_person_has_decided() {
    let life = Life::new(RENEWED);
    let (dialog, code) = life.ask(&["login", "crm"]);
    // Two polls find nobody, and one is too early for the server.
    life.fake.turn("oauth_fail?path=/token&error=authorization_pending").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    life.enter(&code, "demo-owner", "allow");
    let end = dialog.end("");
    assert_eq!(end.code, 0, "{end:?}");
    assert!(end.error.contains("signed in as demo-owner") && end.error.contains("valid for 5m"), "{end:?}");
    assert!(life.read("crm.refresh").contains(':') && life.works());
    let (dialog, code) = life.ask(&["login", "crm"]);
    life.enter(&code, "demo-owner", "deny");
    let end = dialog.end("");
    assert!(end.code == 1 && end.error.contains("access was denied") && end.error.contains("click Allow"), "{end:?}");
    assert!(life.works(), "the old token stays");
}

#[test]
fn a_login_by_the_address_of_the_page_reads_the_token_out_of_it() {
    let life = Life::new("scopes: [metrika:read], client_id: 0123456789abcdef0123456789abcdef, owner: demo-owner");
    let (dialog, address) = life.ask(&["login", "crm", "--flow", "implicit"]);
    assert!(address.contains("response_type=token") && address.contains("login_hint=demo-owner"), "{address}");
    let result = life.click(&address, "demo-owner", "allow");
    // A person pastes the wrong address first.
    let end = dialog.end(&format!("{address}\n{result}\n"));
    assert_eq!(end.code, 0, "{end:?}");
    assert!(end.error.contains("no code and no token"), "{end:?}");
    assert!(life.works());
}

#[test]
fn a_wrong_account_does_not_replace_the_token() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let before = life.read("crm");
    let (dialog, address) = life.ask(&["login", "crm", "--flow", "code"]);
    let result = life.click(&address, "demo-other", "allow");
    let end = dialog.end(&format!("{result}\n"));
    assert_eq!(end.code, 1, "{end:?}");
    for expected in
        ["demo-other, but demo-owner is configured", "private window", "separate sessions", "was not installed"]
    {
        assert!(end.error.contains(expected), "{expected}: {end:?}");
    }
    assert_eq!(life.read("crm"), before);
    assert!(!life.file("crm.refresh.pending").exists() && life.works());
}

#[test]
fn a_wrong_application_and_a_missing_right_are_named() {
    let mut settings = Settings::default();
    settings.applications[0].scopes = [metrica::scope::Scope::Write].into_iter().collect();
    let life = Life::of(settings, RENEWED);
    let end = life.log_in();
    assert!(end.code == 1 && end.error.contains("lacks metrika:read, which is declared"), "{end:?}");
    let keys =
        RENEWED.replace("client_id: 0123456789abcdef0123456789abcdef", "client_id: ffffffffffffffffffffffffffffffff");
    life.configure(&keys);
    let flags = ["login", "crm", "--flow", "code", "--client-id", DEMO_CLIENT_ID];
    let (dialog, address) = life.ask(&flags);
    let end = dialog.end(&format!("{}\n", life.click(&address, "demo-owner", "allow")));
    assert!(end.code == 1 && end.error.contains("but ffffffffffffffffffffffffffffffff is configured"), "{end:?}");
    assert!(!life.file("crm").exists());
}

#[test]
fn fewer_rights_than_declared_are_missed() {
    let life = Life::new(&RENEWED.replace("[metrika:read]", "[metrika:read, metrika:write]"));
    let (dialog, address) = life.ask(&["login", "crm", "--flow", "code"]);
    let result = life.click(&format!("{address}&scope=metrika:read"), "demo-owner", "allow");
    let end = dialog.end(&format!("{result}\n"));
    assert!(end.code == 1 && end.error.contains("lacks metrika:write"), "{end:?}");
    for words in ["kept nowhere", "nothing was changed", "allow every right", "--fewer-scopes"] {
        assert!(end.error.contains(words), "{words}: {end:?}");
    }
    assert!(!life.file("crm").exists() && !life.file("crm.refresh.pending").exists());
    // Whoever wants such a token says so, and is told how to declare it.
    let log_in = |scope: &str| {
        let (dialog, address) = life.ask(&["login", "crm", "--flow", "code", "--fewer-scopes"]);
        let result = life.click(&format!("{address}&scope={scope}"), "demo-owner", "allow");
        dialog.end(&format!("{result}\n"))
    };
    let end = log_in("metrika:expenses");
    assert!(end.code == 1 && end.error.contains("kept nowhere") && !life.file("crm").exists(), "{end:?}");
    let end = log_in("metrika:read");
    assert!(end.code == 0 && end.error.contains("it is kept, as --fewer-scopes demands"), "{end:?}");
    assert!(end.out.contains("set in the configuration") && end.out.contains("scopes: [metrika:read]"), "{end:?}");
    assert!(life.works());
}

#[test]
fn the_same_token_is_no_error_and_is_explained() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let before = life.read("crm");
    let end = life.log_in();
    assert!(end.code == 0 && end.out.contains("Yandex keeps one for an application, account and device"), "{end:?}");
    assert_eq!(life.read("crm"), before, "the device stays the same");
}

#[test]
fn a_token_that_cannot_be_proven_waits_for_the_next_command() {
    let life = Life::new(RENEWED);
    life.fake.turn("fail?error_type=backend_error&path=/management&times=9").unwrap();
    let end = life.log_in();
    assert!(end.code == 75 && end.error.contains("could not be proven"), "{end:?}");
    assert!(life.file("crm.refresh.pending").exists() && !life.file("crm").exists());
    life.fake.turn("fail?error_type=backend_error&times=0").unwrap();
    let end = life.run(&["login", "crm"], "");
    assert!(end.code == 0 && end.error.contains("not proven yet"), "{end:?}");
    assert!(life.works() && !life.file("crm.refresh.pending").exists());
}

/// The old pair ended with the renewal: while Metrica refuses everything, the new one waits.
#[test]
fn a_renewal_during_an_outage_loses_nothing() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    life.fake.turn("oauth?rotates=1&ends_old=1").unwrap();
    life.fake.turn("fail?error_type=invalid_token&path=/management&times=9").unwrap();
    let end = life.run(&["refresh", "crm"], "");
    assert!(end.code == 75 && life.file("crm.refresh.pending").exists(), "{end:?}");
    life.fake.turn("fail?error_type=invalid_token&times=0").unwrap();
    let end = life.run(&["refresh", "crm"], "");
    assert!(end.code == 0 && life.works() && !life.file("crm.refresh.pending").exists(), "{end:?}");
}

#[test]
fn a_renewal_keeps_the_pair_and_an_unchanged_token_is_no_error() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let (token, refresh) = (life.read("crm"), life.read("crm.refresh"));
    let end = life.run(&["refresh"], "");
    assert!(end.code == 0 && life.read("crm") == token && life.read("crm.refresh") != refresh, "{end:?}");
    life.fake.turn("oauth?rotates=1&ends_old=1").unwrap();
    let end = life.run(&["refresh", "crm"], "");
    assert!(end.code == 0 && life.read("crm") != token && life.works(), "{end:?}");
    // Somebody else has used it.
    write_private(&life.file("crm.refresh"), &refresh);
    let end = life.run(&["refresh"], "");
    assert!(
        end.code == 1
            && end.error.contains("does not accept the refresh token")
            && end.error.contains("token login crm`"),
        "{end:?}"
    );
    assert!(life.works(), "the access token lives on");
}

#[test]
fn one_process_renews_a_token_at_a_time() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let (dialog, _address) = life.ask(&["login", "crm", "--flow", "code"]);
    let end = life.run(&["refresh"], "");
    assert!(end.code == 75 && end.error.contains("another command is changing this token"), "{end:?}");
    dialog.end("");
    assert_eq!(life.run(&["refresh"], "").code, 0);
}

#[test]
fn a_revocation_ends_the_token_of_a_device_and_no_other() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let end = life.run(&["revoke", "crm"], "");
    assert!(end.code == 0 && end.out.contains("is revoked"), "{end:?}");
    assert!(!life.file("crm").exists() && !life.file("crm.refresh").exists() && !life.file("crm.json").exists());
    // A token without a device: only its owner can revoke it.
    let address = "https://oauth.yandex.ru/authorize?response_type=token&client_id=0123456789abcdef0123456789abcdef";
    let result = life.click(address, "demo-owner", "allow");
    assert_eq!(life.run(&["import", "crm"], &result).code, 0);
    let end = life.run(&["revoke", "crm"], "");
    assert!(end.code == 1 && end.error.contains("id.yandex.ru/personal/data-access"), "{end:?}");
    assert!(life.works(), "it is still there");
}

/// A renewal that waits for its proof holds a token that works.
#[test]
fn a_revocation_ends_a_token_that_waits_too() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    life.fake.turn("oauth?rotates=1&ends_old=1").unwrap();
    life.fake.turn("fail?error_type=backend_error&path=/management&times=9").unwrap();
    assert_eq!(life.run(&["refresh", "crm"], "").code, 75);
    life.fake.turn("fail?error_type=backend_error&times=0").unwrap();
    let pending: serde_json::Value = serde_json::from_str(&life.read("crm.refresh.pending")).unwrap();
    let waiting = pending["access"].as_str().unwrap().to_owned();
    assert_ne!(waiting, life.read("crm"));
    let (installed, received) = (life.read("crm"), life.read("crm.refresh.pending"));
    // Yandex says that of a token of another application, too: what Metrica accepts has not ended.
    life.fake.turn("oauth_fail?path=/revoke_token&error=invalid_grant").unwrap();
    let end = life.run(&["revoke", "crm"], "");
    assert!(end.code == 1 && end.error.contains("belongs to another application"), "{end:?}");
    assert!(life.accepts(&waiting) && life.read("crm") == installed && life.read("crm.refresh.pending") == received);
    let end = life.run(&["revoke", "crm"], "");
    assert!(end.code == 0 && !life.file("crm.refresh.pending").exists(), "{end:?}");
    write_private(&life.file("crm"), &waiting);
    assert!(!life.works(), "the token that waited is revoked");
    // An earlier command revoked the token that waited, and did not reach the server for the other one.
    write_private(&life.file("crm"), &installed);
    write_private(&life.file("crm.refresh.pending"), &received);
    let end = life.run(&["revoke", "crm"], "");
    assert!(end.code == 0 && !life.file("crm.refresh.pending").exists(), "{end:?}");
}

/// The waiting refresh token is the only one that Yandex still accepts.
#[test]
fn an_import_does_not_replace_a_pair_that_waits() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let token = life.read("crm");
    life.fake.turn("oauth?rotates=1").unwrap();
    life.fake.turn("fail?error_type=backend_error&path=/management&times=9").unwrap();
    assert_eq!(life.run(&["refresh", "crm"], "").code, 75);
    life.fake.turn("fail?error_type=backend_error&times=0").unwrap();
    let received = life.read("crm.refresh.pending");
    let end = life.run(&["import", "crm"], &token);
    assert!(end.code == 75 && end.error.contains("token login crm`, which proves and installs it"), "{end:?}");
    assert!(!end.error.contains("Paste") && life.read("crm.refresh.pending") == received, "{end:?}");
    assert_eq!(life.run(&["login", "crm"], "").code, 0);
    assert!(life.works() && life.run(&["refresh", "crm"], "").code == 0);
}

/// A renewal would put the token of the login back.
#[test]
fn an_import_of_another_token_ends_the_refresh_token() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let (first, record) = (life.read("crm"), life.read("crm.json"));
    // The same token, bare: what is known of it stays.
    let end = life.run(&["import", "crm"], &format!("Authorization: OAuth {first}"));
    assert!(end.code == 0 && !end.out.contains("refresh token"), "{end:?}");
    assert_eq!((life.read("crm"), life.read("crm.json")), (first, record));
    assert_eq!(life.run(&["refresh", "crm"], "").code, 0);
    let other = life.of_another_device();
    let end = life.run(&["import", "crm"], &other);
    assert!(end.code == 0 && end.out.contains("the refresh token of the token before it is removed"), "{end:?}");
    assert!(life.read("crm") == other && !life.file("crm.refresh").exists());
    let end = life.run(&["refresh", "crm"], "");
    assert!(end.code == 78 && end.error.contains("token login crm`, which writes it"), "{end:?}");
    assert!(life.works() && life.read("crm") == other);
}

/// Nor is one that another program has put in its place.
#[test]
fn a_token_of_another_program_is_not_renewed_away() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let (refresh, other) = (life.read("crm.refresh"), life.of_another_device());
    write_private(&life.file("crm"), &other);
    let end = life.run(&["refresh"], "");
    assert!(end.code == 1 && end.error.contains("another program has replaced token 'crm'"), "{end:?}");
    assert!(end.error.contains("to keep the token of the other program, remove "), "{end:?}");
    assert!(life.read("crm") == other && life.read("crm.refresh") == refresh);
    assert_eq!(life.log_in().code, 0);
    assert_eq!(life.run(&["refresh"], "").code, 0);
}

#[test]
fn an_import_reads_what_people_have() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let token = life.read("crm");
    let json = format!("{{\"access_token\": \"{token}\", \"expires_in\": 100, \"refresh_token\": \"1:a:b\"}}\n");
    for input in [
        token.clone(),
        format!("{token}\n"),
        format!("https://oauth.yandex.ru/#access_token={token}&expires_in=9"),
        json,
    ] {
        std::fs::remove_file(life.file("crm")).unwrap();
        let end = life.run(&["import", "crm"], &input);
        assert!(end.code == 0 && life.read("crm") == token, "{input}: {end:?}");
    }
    assert_eq!(life.read("crm.refresh"), "1:a:b");
    let end = life.run(&["import", "crm"], "abcdefgh12345678\n");
    assert!(end.code == 1 && end.error.contains("a code and not a token"), "{end:?}");
    let end = life.run(&["import", "crm"], "test-0000000000000000000000unknown");
    assert!(end.code == 1 && end.error.contains("reject the token"), "{end:?}");
    assert_eq!(life.read("crm"), token);
}

#[test]
fn a_terminal_does_not_show_what_is_pasted() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let token = life.read("crm");
    let command = life.command(&["import", "crm"]);
    let Some(mut terminal) = Terminal::start(&command, "") else { return };
    terminal.until_prompt();
    terminal.type_in(&format!("{token}\n"));
    let (rest, is_success) = terminal.end();
    assert!(is_success && rest.contains("token 'crm' is in"), "{rest}");
    assert!(!rest.contains(&token[..12]), "{rest}");
}

/// A shell that runs the command on a pseudo terminal and then prints the modes of the terminal.
#[test]
fn an_interrupted_prompt_leaves_the_echo_on() {
    let life = Life::new(RENEWED);
    let command = life.command(&["import", "crm"]);
    for key in ["\x03", "\x1c"] {
        let Some(mut terminal) = Terminal::start(&command, "; echo code $?; stty -a") else { return };
        terminal.until_prompt();
        terminal.type_in(&format!("typed{key}"));
        let (rest, _) = terminal.end();
        assert!(rest.contains("interrupted; nothing was changed") && rest.contains("code 130"), "{rest}");
        assert!(rest.contains("isig icanon") && rest.contains(" echo ") && !rest.contains("typed"), "{rest}");
    }
}

#[test]
fn a_manifest_has_the_token_and_writes_no_file() {
    let life = Life::new(RENEWED);
    let (dialog, address) = life.ask(&["login", "crm", "--flow", "code", "--print"]);
    let end = dialog.end(&format!("{}\n", life.click(&address, "demo-owner", "allow")));
    assert_eq!(end.code, 0, "{end:?}");
    let documents = serde_yaml::Deserializer::from_str(&end.out);
    let documents = documents.map(|one| <serde_yaml::Value as serde::Deserialize>::deserialize(one).unwrap());
    let [of_gate, of_commands] = documents.collect::<Vec<_>>().try_into().unwrap();
    for (manifest, name) in [(&of_gate, "metrika-tokens"), (&of_commands, "metrika-tokens-refresh")] {
        assert_eq!((manifest["kind"].as_str(), manifest["metadata"]["name"].as_str()), (Some("Secret"), Some(name)));
    }
    assert!(of_gate["stringData"]["crm"].as_str().unwrap().starts_with("test-"));
    let keys = |manifest: &serde_yaml::Value| manifest["stringData"].as_mapping().unwrap().len();
    assert!(of_commands["stringData"]["crm.refresh"].as_str().unwrap().contains(':'));
    assert_eq!((keys(&of_gate), keys(&of_commands)), (2, 1), "the pod of the gate has no refresh token");
    assert!(!life.file("crm").exists() && !life.file("crm.refresh.lock").exists());
}

#[test]
fn the_status_shows_what_is_known_of_each_token() {
    let life = Life::new(RENEWED);
    let end = life.run(&["status"], "");
    assert!(end.code == 1 && end.out.contains("is missing"), "{end:?}");
    assert_eq!(life.log_in().code, 0);
    let end = life.run(&["status"], "");
    assert_eq!(end.code, 0, "{end:?}");
    let row: Vec<&str> =
        end.out.lines().nth(1).unwrap().split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect();
    assert_eq!(
        row,
        ["crm", "demo-owner", DEMO_CLIENT_ID, "metrika:read", "metrika:read", "0 h", "in 364 d", "-", "accepted"]
    );
    let said: serde_json::Value = serde_json::from_str(&life.run(&["status", "--format", "json"], "").out).unwrap();
    assert_eq!((&said["tokens"][0]["healthy"], &said["tokens"][0]["owner"]), (&true.into(), &"demo-owner".into()));
    let before = life.fake.requests();
    assert!(life.run(&["status", "--offline"], "").out.contains("not asked"));
    assert_eq!(life.fake.requests(), before);
    write_private(&life.file("crm"), fake_metrica::demo_tokens()[0].secret.replace("demo-", "test-").as_str());
    assert!(life.run(&["status", "--offline"], "").out.contains("another program has replaced the token"));
}

#[test]
fn the_gate_reports_expiry_and_last_success_of_a_token() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let record: serde_json::Value = serde_json::from_str(&life.read("crm.json")).unwrap();
    let (issued, expires) = (record["issued"].as_f64().unwrap(), record["expires"].as_f64().unwrap());
    let config = format!(
        "listeners: [{{name: app, address: '127.0.0.1:0'}}]\n\
         tokens: {{crm: {{file: '{}', scopes: [metrika:read], expires: 2099-01-01}}}}\n\
         callers: [{{id: reports, match: {{listener: app}}, scopes: [metrika:read], tokens: [crm]}}]\n",
        life.file("crm").display()
    );
    let gate = Gate::plan_for(&life.fake.address().to_string(), life.fake.ca_pem(), &format!("\n{config}")).start();
    assert_eq!(gate.metric(&["token_expiry_timestamp_seconds", "crm"]), expires, "what the login has shown");
    assert_eq!(gate.metric(&["token_last_success_timestamp_seconds", "crm"]), issued);
    assert!(gate.admin("/readyz?verbose").text().contains("token crm, worked last at 20"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    // The gate does not know whether the counter is public, and the request counts nevertheless.
    let report = gate.get("app", &format!("/stat/v1/data?ids={DEMO_COUNTER}&metrics=ym:s:visits"));
    assert_eq!(report.summary(), "200");
    until("the request counts", || gate.metric(&["token_last_success_timestamp_seconds", "crm"]) > issued);
    // Another program writes another token: neither the record nor the past of the old one is about it.
    life.fake.turn("oauth?rotates=1").unwrap();
    assert_eq!(life.run(&["refresh"], "").code, 0);
    let renewed = life.read("crm");
    std::fs::remove_file(life.file("crm.json")).unwrap();
    write_private(&life.file("crm.other"), &renewed);
    std::fs::rename(life.file("crm.other"), life.file("crm")).unwrap();
    gate.until_metric(&["token_expiry_timestamp_seconds", "crm"], 4_070_908_800.0);
}

#[test]
fn mistakes_are_found_before_a_person_is_asked() {
    let life = Life::new(RENEWED);
    let end = life.run(&["login", "other"], "");
    assert!(end.code == 2 && end.error.contains("unknown token 'other'; the configured tokens are crm"), "{end:?}");
    let end = life.run(&["login", "crm", "--client-id", "x"], "");
    assert!(end.code == 2 && end.error.contains("not the id of an application"), "{end:?}");
    let end = life.run(&["login", "crm", "--flow", "code"], "");
    assert!(end.code == 1 && end.error.contains("standard input is not a terminal and has ended"), "{end:?}");
    std::fs::set_permissions(life.file("secret"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let end = life.run(&["login", "crm"], "");
    assert!(end.code == 77 && end.error.contains("chmod 0600"), "{end:?}");
    std::fs::set_permissions(life.file("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    life.configure(&RENEWED.replace("client_secret_file: '{at}/secret', ", ""));
    let end = life.run(&["login", "crm", "--flow", "device"], "");
    assert!(end.code == 2 && end.error.contains("needs the secret of the application"), "{end:?}");
    let end = life.run(&["revoke", "crm"], "");
    assert!(end.code == 2 && end.error.contains("data-access"), "{end:?}");
    life.configure("scopes: [metrika:read]");
    let end = life.run(&["login", "crm"], "");
    assert!(end.code == 2 && end.error.contains("has no application"), "{end:?}");
    assert_eq!(life.run(&["refresh"], "").code, 2);
    life.configure(&RENEWED.replace("{at}/crm.refresh", "{at}/none/crm.refresh"));
    let end = life.run(&["login", "crm", "--flow", "code"], "");
    assert!(end.code == 77 && end.error.contains("create the folder") && !end.error.contains("Open this"), "{end:?}");
    life.configure(RENEWED);
    std::os::unix::fs::symlink("..data/crm", life.file("crm")).unwrap();
    let end = life.run(&["login", "crm", "--flow", "code"], "");
    assert!(end.code == 77 && end.error.contains("--print"), "{end:?}");
}

#[test]
fn a_code_pasted_twice_and_one_used_twice_have_their_words() {
    let life = Life::new(RENEWED);
    let (dialog, address) = life.ask(&["login", "crm", "--flow", "code"]);
    let result = life.click(&address, "demo-owner", "allow");
    let code = result.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let end = dialog.end(&format!("{code}{code}\n{code}\n"));
    assert!(end.code == 0 && end.error.contains("pasted twice"), "{end:?}");
    let (dialog, _address) = life.ask(&["login", "crm", "--flow", "code"]);
    let end = dialog.end(&format!("{code}\n"));
    assert!(end.code == 1 && end.error.contains("was used before") && !end.error.contains(&code), "{end:?}");
    let (dialog, _address) = life.ask(&["login", "crm", "--flow", "code"]);
    let end = dialog.end(&format!("{result}\n{result}\n{result}\n"));
    assert!(end.code == 1 && end.error.contains("its state differs"), "{end:?}");
}
