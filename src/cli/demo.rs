//! `metrika-gate demo`: a stand-in for Metrica, a gate and its admin listener in one process, with five examples.
//!
//! 1. It needs no file, no account and no real token: its tokens begin with `demo-`, which `run` rejects.
//! 2. It listens on loopback only.
//! 3. The printed commands work when pasted.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use clap::Args;
use fake_metrica::{BadKnob, DEMO_COUNTER, Fake, Settings, demo_tokens};

use crate::cli::app::{App, Options};
use crate::cli::fake::BAD_KNOB;
use crate::config::certificates::LEAF_DAYS;
use crate::config::tls::names::AUTHORITY;
use crate::config::{Config, LogFormat};

/// The flags of `metrika-gate demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// The address for the caller `reports`, which may read
    #[arg(long, value_name = "IP:PORT", env = "METRIKA_GATE_DEMO_REPORTS", default_value = "127.0.0.1:8080")]
    reports: SocketAddr,
    /// The address for the caller `crm`, which may also write
    #[arg(long, value_name = "IP:PORT", env = "METRIKA_GATE_DEMO_CRM", default_value = "127.0.0.1:8081")]
    crm: SocketAddr,
    /// The address of the forward proxy, for the caller `proxied`, which may read
    #[arg(long, value_name = "IP:PORT", env = "METRIKA_GATE_DEMO_PROXY", default_value = "127.0.0.1:8082")]
    proxy: SocketAddr,
    /// The address of the admin listener, with the metrics
    #[arg(long, value_name = "IP:PORT", env = "METRIKA_GATE_DEMO_ADMIN", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// The address of the stand-in for Metrica
    #[arg(long, value_name = "IP:PORT", env = "METRIKA_GATE_DEMO_FAKE", default_value = "127.0.0.1:8443")]
    fake: SocketAddr,
    /// A knob of the stand-in that is turned at the start, such as `quota?parallel=3` (`metrika-gate fake --help` lists
    /// them). It can be repeated; in the variable, separate knobs with `;`
    #[arg(long = "knob", value_name = "KNOB?PARAMETERS", env = "METRIKA_GATE_DEMO_KNOBS", value_delimiter = ';')]
    knobs: Vec<String>,
}

/// Runs the demo until a signal ends it. Returns the exit code.
///
/// # Errors
/// When an address is not loopback, or is in use.
pub fn run(args: &DemoArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let flags = [
        ("--reports", args.reports),
        ("--crm", args.crm),
        ("--proxy", args.proxy),
        ("--admin", args.admin),
        ("--fake", args.fake),
    ];
    for (flag, address) in flags {
        if !address.ip().is_loopback() {
            bail!("{address} is not a loopback address; the demo listens on loopback only");
        }
        // Checked here first, so that the message can name the flag.
        TcpListener::bind(address)
            .with_context(|| format!("cannot use {address}; choose another with {flag} 127.0.0.1:PORT"))?;
    }
    let settings = Settings { address: args.fake, knobs: args.knobs.clone(), ..Settings::default() };
    let fake = Fake::start(settings).map_err(|error| {
        let is_knob = error.is::<BadKnob>();
        if is_knob { error.context(BAD_KNOB) } else { error }
    })?;
    let folder = tempfile::Builder::new().prefix("metrika-gate-demo-").tempdir()?;
    let config = config(args, &fake, folder.path())?;
    let options = Options { log_format: Some(LogFormat::Human), demo: true, ..Options::default() };
    let app = App::start(config, options)?;
    steps(&app, &fake, folder.path(), out)?;
    Ok(app.run())
}

/// The folder of the authority whose certificate the clients of the proxy trust, in the folder of the demo.
const AUTHORITY_FOLDER: &str = "authority";

fn config(args: &DemoArgs, fake: &Fake, folder: &Path) -> anyhow::Result<Config> {
    let tokens = demo_tokens();
    for (name, token) in ["analytics", "crm"].into_iter().zip(&tokens) {
        write_private(&folder.join(name), &token.secret)?;
    }
    write_private(&folder.join("ca.pem"), fake.ca_pem())?;
    let authority = folder.join(AUTHORITY_FOLDER);
    std::fs::create_dir(&authority)?;
    super::ca::create(&authority, &[], &[], LEAF_DAYS)?;
    let (folder, place) = (folder.display(), fake.address());
    let text = format!(
        "listeners:\n\
         \x20 - {{name: reports, address: '{}'}}\n\
         \x20 - {{name: crm, address: '{}'}}\n\
         \x20 - {{name: proxy, address: '{}', proxy: true, tls: {{authority: '{folder}/{AUTHORITY_FOLDER}'}}}}\n\
         admin: {{address: '{}'}}\n\
         upstream: {{ca_file: '{folder}/ca.pem', connect_to: '{place}'}}\n\
         identity: {{url: 'https://login.yandex.ru/info', ca_file: '{folder}/ca.pem', connect_to: '{place}'}}\n\
         tokens:\n\
         \x20 analytics: {{file: '{folder}/analytics', scopes: [metrika:read], owner: demo-owner, expires: 2099-12-31}}\n\
         \x20 crm: {{file: '{folder}/crm', scopes: [metrika:write], owner: demo-owner}}\n\
         callers:\n\
         \x20 - {{id: reports, match: {{listener: reports}}, scopes: [metrika:read], tokens: [analytics]}}\n\
         \x20 - {{id: proxied, match: {{listener: proxy}}, scopes: [metrika:read], tokens: [analytics]}}\n\
         \x20 - {{id: crm, match: {{listener: crm}}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm]}}\n\
         quota: {{mode: observe, limits: {{parallel: {{mode: enforce}}}}}}\n\
         shutdown: {{timeout: 2s}}\n\
         sandbox: false\n",
        args.reports, args.crm, args.proxy, args.admin,
    );
    Ok(Config::parse(&text, Path::new("demo"))?)
}

fn write_private(file: &Path, content: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(content.as_bytes())
}

fn steps(app: &App, fake: &Fake, folder: &Path, out: &mut dyn Write) -> std::io::Result<()> {
    let place = |name| app.places().find(|(known, _)| *known == name).map_or("", |(_, place)| place);
    let (reports, crm, proxy, admin) = (place("reports"), place("crm"), place("proxy"), app.admin_place());
    let goal = format!(
        "-d '{{\"goal\":{{\"name\":\"Order\",\"type\":\"url\",\"conditions\":[{{\"type\":\"contain\",\"url\":\"thanks\"}}]}}}}' \
         -H 'Content-Type: application/json' {{}}/management/v1/counter/{DEMO_COUNTER}/goals"
    );
    let control = format!("curl -s --cacert {}/ca.pem 'https://{}/_fake", folder.display(), fake.address());
    let token = demo_tokens().into_iter().next().map_or_else(String::new, |token| token.secret);
    writeln!(
        out,
        "\nThis demo uses a stand-in for Metrica and worthless tokens. Nothing leaves this machine.\n\
         Paste these commands into another terminal; no request to the gate contains a token.\n\n\
         1. A read, as the caller 'reports':\n\n   curl -s {reports}/management/v1/counters\n\n\
         2. A write, which the gate refuses because 'reports' may only read:\n\n   curl -si {}\n\n\
         3. The same write, as the caller 'crm':\n\n   curl -s {}\n\n\
         4. A client with Metrica's URL in its code; the gate is its proxy, and it trusts the gate's authority:\n\n   \
         curl -s --proxy {proxy} --cacert {authority} https://api-metrika.yandex.net/management/v1/counters\n\n\
         5. Revoke the token of 'reports' at Metrica; Metrica refuses the next read, and the gate counts it:\n\n   \
         {control}/revoke?token={token}'\n   \
         curl -s {reports}/management/v1/counters\n   \
         curl -s http://{admin}/metrics | grep '^metrika_gate_auth_failures' | grep -v ' 0$'\n\n\
         Press Ctrl-C to stop.\n",
        goal.replace("{}", reports),
        goal.replace("{}", crm),
        authority = folder.join(AUTHORITY_FOLDER).join(AUTHORITY).display(),
    )
}
