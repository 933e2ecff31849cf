//! Published clients with Metrica's host in their URL, unmodified: a CA file and a proxy, or another address for the name, are
//! all that they are given. A client that is not installed is skipped.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::gate::program;
use crate::harness::{Gate, READ_TOKEN, Upstream};

const BOTH: &str = "
listeners:
  - {name: tls, address: '127.0.0.1:0', http2: true, tls: {authority: '{folder}/ca'}}
  - {name: proxy, address: '127.0.0.1:0', proxy: true, http2: true, tls: {authority: '{folder}/ca'}}
callers: [{id: reports, match: {source: [127.0.0.0/8]}, scopes: [metrika:read], tokens: [analytics]}]
";

const URL: &str = "https://api-metrika.yandex.net/management/v1/counters";

/// A gate, an upstream, and the places that a client is given.
struct Setting {
    gate: Gate,
    upstream: Upstream,
    ca: PathBuf,
}

impl Setting {
    fn new() -> Self {
        let upstream = Upstream::plain();
        let gate = Gate::start(&upstream, BOTH);
        let ca = gate.file("ca/ca.pem");
        Self { gate, upstream, ca }
    }

    fn ca(&self) -> &str {
        self.ca.to_str().unwrap()
    }

    fn port(&self, listener: &str) -> &str {
        self.gate.place(listener).rsplit(':').next().unwrap()
    }

    fn proxy(&self) -> String {
        format!("http://{}", self.gate.place("proxy"))
    }

    /// Runs a client, which has to succeed with one request; whether it is installed.
    #[track_caller]
    fn succeeds(&self, command: &mut Command) -> bool {
        let before = self.upstream.requests().len();
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            let given = command.get_envs().any(|(known, _)| known.eq_ignore_ascii_case(name));
            if !given {
                command.env_remove(name).env_remove(name.to_uppercase());
            }
        }
        let output = match command.output() {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return false,
            Err(error) => panic!("{command:?}: {error}"),
        };
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success() && said.contains("{}"), "{command:?}: {said}");
        let requests = self.upstream.requests();
        assert_eq!(requests.len(), before + 1, "{command:?}: {said}");
        assert!(requests.concat().contains(READ_TOKEN));
        true
    }
}

#[test]
fn curl_reaches_the_gate_by_address_and_by_proxy() {
    let setting = Setting::new();
    let to = |port: &str| format!("api-metrika.yandex.net:443:127.0.0.1:{port}");
    for version in ["--http1.1", "--http2"] {
        for tls in ["1.2", "1.3"] {
            let mut curl = Command::new("curl");
            curl.args([
                "-sS",
                version,
                "--cacert",
                setting.ca(),
                "--tls-max",
                tls,
                "--connect-to",
                &to(setting.port("tls")),
                URL,
            ]);
            setting.succeeds(&mut curl);
        }
        let mut curl = Command::new("curl");
        curl.args(["-sS", version, "--cacert", setting.ca(), "--proxy", &setting.proxy(), URL]);
        setting.succeeds(&mut curl);
        let mut curl = Command::new("curl");
        let url = URL.replace("https", "http");
        curl.args(["-sS", version, "--proxytunnel", "--proxy", &setting.proxy(), "--proxy-user", "a:b", &url]);
        setting.succeeds(&mut curl);
    }
    let mut curl = Command::new("curl");
    setting.succeeds(curl.args(["-sS", "--proxy", &setting.proxy(), &URL.replace("https", "http")]));
    let mut curl = Command::new("curl");
    setting.succeeds(curl.args(["-sS", URL]).env("https_proxy", setting.proxy()).env("CURL_CA_BUNDLE", setting.ca()));
}

#[test]
fn curl_shows_what_the_proxy_is_for() {
    let setting = Setting::new();
    let run = |arguments: &[&str]| {
        let output = Command::new("curl").args(arguments).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let said = run(&["-sS", "--proxy", &setting.proxy(), "https://example.com/"]);
    assert!(said.contains("403"), "{said}");
    let said = run(&["-sS", "--proxy", &setting.proxy(), "http://example.com/"]);
    assert!(said.contains("serves only the Metrica API"), "{said}");
    let said = run(&["-sS", &format!("http://127.0.0.1:{}/", setting.port("tls"))]);
    assert!(said.contains("use https://"), "{said}");
    assert!(setting.upstream.requests().is_empty());
}

#[test]
fn wget_reaches_the_gate_by_proxy() {
    let setting = Setting::new();
    let certificate = format!("--ca-certificate={}", setting.ca());
    let mut wget = Command::new("wget");
    setting.succeeds(wget.args(["-qO-", &certificate, URL]).env("https_proxy", setting.proxy()));
}

#[test]
fn python_reaches_the_gate_by_proxy() {
    let setting = Setting::new();
    let program = format!("import urllib.request\nprint(urllib.request.urlopen('{URL}').read())");
    let mut python = Command::new("python3");
    python.args(["-c", &program]).env("https_proxy", setting.proxy()).env("SSL_CERT_FILE", setting.ca());
    setting.succeeds(&mut python);
    let program = program.replace("https:", "http:");
    setting.succeeds(Command::new("python3").args(["-c", &program]).env("http_proxy", setting.proxy()));
}

/// Node reads no proxy variable; its name look-up stands for an entry in the hosts file here.
#[test]
fn node_reaches_the_gate_by_address() {
    let setting = Setting::new();
    let program = format!(
        "const https = require('https');
https.get('{URL}', {{port: {}, lookup: (_, options, done) => done(null, [{{address: '127.0.0.1', family: 4}}])}}, (answer) => {{
  answer.on('data', (data) => console.log(String(data)));
  if (answer.statusCode !== 200) process.exit(1);
}}).on('error', (error) => {{ console.log(String(error)); process.exit(1); }});",
        setting.port("tls")
    );
    setting.succeeds(Command::new("node").args(["-e", &program]).env("NODE_EXTRA_CA_CERTS", setting.ca()));
}

/// Java has its own store of authorities, and reads the proxy from system properties.
#[test]
fn java_reaches_the_gate_by_proxy() {
    let setting = Setting::new();
    let store = setting.gate.file("store.p12");
    let imported = Command::new("keytool")
        .args([
            "-importcert",
            "-noprompt",
            "-alias",
            "gate",
            "-storetype",
            "PKCS12",
            "-storepass",
            "changeit",
            "-file",
            setting.ca(),
        ])
        .arg("-keystore")
        .arg(&store)
        .output();
    if imported.is_err() {
        return;
    }
    let source = setting.gate.file("Get.java");
    let program = format!(
        "import java.net.*; import java.net.http.*;
class Get {{ public static void main(String[] a) throws Exception {{
  var client = HttpClient.newBuilder().proxy(ProxySelector.getDefault()).build();
  var answer = client.send(HttpRequest.newBuilder(URI.create(\"{URL}\")).build(), HttpResponse.BodyHandlers.ofString());
  System.out.println(answer.statusCode() + answer.body()); System.exit(answer.statusCode() == 200 ? 0 : 1); }} }}"
    );
    std::fs::write(&source, program).unwrap();
    let mut java = Command::new("java");
    java.arg(format!("-Djavax.net.ssl.trustStore={}", store.display()));
    java.args(["-Djavax.net.ssl.trustStorePassword=changeit", "-Dhttps.proxyHost=127.0.0.1"]);
    java.arg(format!("-Dhttps.proxyPort={}", setting.port("proxy"))).arg(&source);
    setting.succeeds(&mut java);
}

/// A bundle with the roots of the system works like the authority alone.
#[test]
fn a_bundle_works_for_curl() {
    let setting = Setting::new();
    let output = program().args(["ca", "bundle", "--with-system"]).arg(setting.gate.file("ca")).output().unwrap();
    let bundle = setting.gate.file("bundle.pem");
    std::fs::write(&bundle, output.stdout).unwrap();
    let mut curl = Command::new("curl");
    setting.succeeds(curl.args(["-sS", "--cacert", bundle.to_str().unwrap(), "--proxy", &setting.proxy(), URL]));
}
