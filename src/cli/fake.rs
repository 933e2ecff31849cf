//! `metrika-gate fake`: a stand-in for Metrica to develop clients against, without an account or a real token.
//!
//! 1. It listens on a loopback address, unless `--allow-remote` is given.
//! 2. It accepts only tokens that begin with `demo-`, which a gate accepts only in its demo, or with `test-`, which
//!    `run` accepts as well. A real token therefore has no use on its command line. It prints its tokens.
//! 3. It writes its CA certificate to a file, and ends on SIGINT or SIGTERM.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use clap::builder::BoolishValueParser;
use fake_metrica::{
    BadKnob, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Fake, FakeToken, Permission, Settings, control_help, demo_accounts,
};
use metrica::scope::{Scope, ScopeSet};

use crate::token::{DEMO_PREFIX, TEST_PREFIX, Token};

/// The flags of `metrika-gate fake`.
#[derive(Debug, Clone, Args)]
#[command(after_help = control_help())]
pub struct FakeArgs {
    /// The address to listen on; port 0 selects a free port.
    #[arg(long, env = "METRIKA_GATE_FAKE_ADDRESS", value_name = "IP:PORT", default_value = "127.0.0.1:8443")]
    pub address: SocketAddr,

    /// The file for the certificate that clients must trust.
    #[arg(long, env = "METRIKA_GATE_FAKE_CA_OUT", value_name = "FILE", default_value = "fake-ca.pem")]
    pub ca_out: PathBuf,

    /// A token to accept instead of the demo tokens, such as `test-0123456789ab=shop:read,expenses:101,102/view`: the
    /// owner's login, the scopes, the counters (with `/view`, `/edit`, or `/own`, the default). Repeatable,
    /// `;`-separated in the variable.
    #[arg(long = "token", env = "METRIKA_GATE_FAKE_TOKENS", value_name = "SECRET=OWNER:SCOPES:COUNTERS")]
    #[arg(value_delimiter = ';', hide_env_values = true)]
    pub tokens: Vec<TokenArgument>,

    /// An additional name or address for its certificate.
    #[arg(long = "name", env = "METRIKA_GATE_FAKE_NAMES", value_name = "NAME", value_delimiter = ';')]
    pub names: Vec<String>,

    /// A knob of the control panel below that is turned at the start, and again after a reset, such as
    /// `quota?parallel=3&day=5000`. It can be repeated; in the variable, separate knobs with `;`.
    #[arg(long = "knob", env = "METRIKA_GATE_FAKE_KNOBS", value_name = "KNOB?PARAMETERS")]
    #[arg(value_delimiter = ';', hide_env_values = true)]
    pub knobs: Vec<String>,

    /// Offers HTTP/1.1 only.
    #[arg(long, env = "METRIKA_GATE_FAKE_NO_HTTP2", value_parser = BoolishValueParser::new())]
    pub no_http2: bool,

    /// Allows an address that other machines can reach.
    #[arg(long, env = "METRIKA_GATE_FAKE_ALLOW_REMOTE", value_parser = BoolishValueParser::new())]
    pub allow_remote: bool,
}

/// The value of `--token`, well-formed or not. A parse error of clap would repeat a secret typed by mistake, so
/// [`run`] reports the problem.
#[derive(Debug, Clone)]
pub struct TokenArgument(Result<FakeToken, BadTokenArgument>);

impl From<String> for TokenArgument {
    fn from(text: String) -> Self {
        Self(token(&text))
    }
}

/// The problem with a `--token`, without the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTokenArgument {
    /// Malformed.
    #[error("expected the form SECRET=OWNER:SCOPES:COUNTERS")]
    Form,
    /// Not a test token (rule 2), or not a valid token.
    #[error(
        "its secret is not a test secret; expected 'test-' or 'demo-', followed by letters, digits, '_', '-' or '.'"
    )]
    Secret,
    /// Not the name of a scope.
    #[error("unknown scope '{0}'; expected read, write, expenses, user_params or offline_data")]
    Scope(String),
    /// Not a number, or followed by an unknown level.
    #[error("invalid counter '{0}'; expected a number, followed by '/view' or '/edit' if the owner does not own it")]
    Counter(String),
}

/// What is wrong where a knob cannot be turned at the start.
pub(super) const BAD_KNOB: &str = "invalid --knob; the last lines of metrika-gate fake --help list the knobs";

const EXAMPLE: &str = "for example test-analytics-0001=shop:read:101 (secret=owner:scopes:counters)";

fn token(text: &str) -> Result<FakeToken, BadTokenArgument> {
    let (secret, rest) = text.split_once('=').ok_or(BadTokenArgument::Form)?;
    let for_tests = secret.starts_with(DEMO_PREFIX) || secret.starts_with(TEST_PREFIX);
    if !for_tests || Token::parse(secret.as_bytes()).is_err() {
        return Err(BadTokenArgument::Secret);
    }
    let (owner, rest) = rest.split_once(':').ok_or(BadTokenArgument::Form)?;
    // Full scope names contain a colon themselves.
    let rest = rest.replace("metrika:", "");
    let (scopes, counters) = rest.split_once(':').ok_or(BadTokenArgument::Form)?;
    let scope = |name: &str| format!("metrika:{name}").parse().map_err(|_| BadTokenArgument::Scope(name.to_owned()));
    Ok(FakeToken {
        secret: secret.to_owned(),
        owner: owner.to_owned(),
        scopes: scopes.split(',').map(scope).collect::<Result<ScopeSet, _>>()?,
        counters: counters.split(',').filter(|text| !text.is_empty()).map(counter).collect::<Result<_, _>>()?,
        ..FakeToken::default()
    })
}

fn counter(text: &str) -> Result<(u64, Permission), BadTokenArgument> {
    let (number, level) = text.split_once('/').unwrap_or((text, Permission::Own.as_str()));
    let levels = [Permission::View, Permission::Edit, Permission::Own];
    match (number.parse(), levels.into_iter().find(|permission| permission.as_str() == level)) {
        (Ok(number), Some(permission)) => Ok((number, permission)),
        _ => Err(BadTokenArgument::Counter(text.to_owned())),
    }
}

/// Runs the stand-in until a signal ends it.
///
/// # Errors
/// When the address is not permitted or in use, or a file or `out` cannot be written.
pub fn run(args: &FakeArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.allow_remote || args.address.ip().is_loopback(),
        "{} is not a loopback address; use for example 127.0.0.1, or add --allow-remote",
        args.address.ip()
    );
    let mut settings = Settings { address: args.address, http2: !args.no_http2, ..Settings::default() };
    settings.names.extend(args.names.iter().cloned());
    settings.knobs.clone_from(&args.knobs);
    if !args.address.ip().is_unspecified() {
        settings.names.push(args.address.ip().to_string());
    }
    if !args.tokens.is_empty() {
        let tokens = args.tokens.iter().zip(1..).map(|(TokenArgument(token), number)| {
            token.clone().with_context(|| format!("invalid --token (number {number}); {EXAMPLE}"))
        });
        settings.tokens = tokens.collect::<Result<_, _>>()?;
    }
    let tokens = settings.tokens.clone();
    // Registered before the address is printed, so that a script can stop the process as soon as it has read that.
    let signals = Signals::new()?;
    let fake = Fake::start(settings).map_err(|error| {
        let remedy = if error.is::<BadKnob>() { BAD_KNOB } else { "choose another address with --address" };
        error.context(remedy)
    })?;
    std::fs::write(&args.ca_out, fake.ca_pem()).with_context(|| format!("cannot write {}", args.ca_out.display()))?;
    // Absolute, so that the printed lines work in any directory.
    let ca = std::path::absolute(&args.ca_out)?;
    introduce(out, fake.address(), &ca, &tokens).context("cannot print the address")?;
    signals.wait();
    Ok(())
}

/// Prints the address, the tokens and example commands.
fn introduce(out: &mut dyn Write, address: SocketAddr, ca: &Path, tokens: &[FakeToken]) -> std::io::Result<()> {
    writeln!(
        out,
        "The stand-in for the Metrica API listens on https://{address}; clients must trust {}",
        ca.display()
    )?;
    writeln!(out, "\nTokens (worthless test values):")?;
    for token in tokens {
        let counters: Vec<_> = token.counters.iter().map(|(id, level)| format!("{id} ({})", level.as_str())).collect();
        writeln!(out, "  {}  {}: {}; counters {}", token.secret, token.owner, token.scopes, counters.join(", "))?;
    }
    let reads = |token: &&FakeToken| token.scopes.iter().any(|scope| scope == Scope::Read);
    let Some(token) = tokens.iter().find(reads).or_else(|| tokens.first()) else { return out.flush() };
    let counter = token.counters.first().map_or(0, |(id, _)| *id);
    let host = match address {
        SocketAddr::V4(address) if address.ip().is_unspecified() => format!("127.0.0.1:{}", address.port()),
        SocketAddr::V6(address) if address.ip().is_unspecified() => format!("[::1]:{}", address.port()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => address.to_string(),
    };
    writeln!(out, "\nConfigure a gate in front of the stand-in with:")?;
    writeln!(out, "  upstream: {{ca_file: '{}', connect_to: '{host}'}}", ca.display())?;
    writeln!(out, "and, so that doctor can ask who issued a token:")?;
    let url = "https://login.yandex.ru/info";
    writeln!(out, "  identity: {{url: '{url}', ca_file: '{}', connect_to: '{host}'}}", ca.display())?;
    let accounts: Vec<_> = demo_accounts().into_iter().map(|account| account.login).collect();
    writeln!(out, "and, for `metrika-gate token login` as {} (docs/tokens.md):", accounts.join(" or "))?;
    writeln!(out, "  oauth: {{ca_file: '{}', connect_to: '{host}'}}", ca.display())?;
    writeln!(out, "  client_id: {DEMO_CLIENT_ID}   # of the token; the secret is {DEMO_CLIENT_SECRET}")?;
    let curl = format!("curl --cacert '{}'", ca.display());
    let caller = format!("{curl} -H 'Authorization: OAuth {}'", token.secret);
    writeln!(out, "\nTry:")?;
    writeln!(out, "  {caller} 'https://{host}/management/v1/counters?pretty=1'")?;
    let report = format!("ids={counter}&metrics=ym:s:visits&dimensions=ym:s:browser&limit=5");
    writeln!(out, "  {caller} 'https://{host}/stat/v1/data.csv?{report}'")?;
    writeln!(out, "  {curl} 'https://{host}/_fake/revoke?token={}'   # then retry; undo with restore", token.secret)?;
    out.flush()
}

/// Waits for SIGINT and SIGTERM: without handlers, neither would end the first process of a container.
struct Signals {
    runtime: tokio::runtime::Runtime,
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (interrupt, terminate) = {
            let _entered = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        Ok(Self { runtime, interrupt, terminate })
    }

    fn wait(mut self) {
        self.runtime.block_on(async {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read() {
        let token = token("test-0123456789ab=shop:read,metrika:expenses:101,102/view").unwrap();
        assert_eq!(token.secret, "test-0123456789ab");
        assert_eq!(token.owner, "shop");
        assert_eq!(token.scopes, [Scope::Read, Scope::Expenses].into_iter().collect());
        assert_eq!(token.counters, [(101, Permission::Own), (102, Permission::View)]);
    }

    #[test]
    fn a_bad_token_is_refused_without_its_secret() {
        for (text, expected) in [
            ("demo-0123456789ab", BadTokenArgument::Form),
            ("demo-0123456789ab=shop:read", BadTokenArgument::Form),
            ("y0_AgAAAA0123456789=shop:read:1", BadTokenArgument::Secret),
            ("real-0123456789ab=shop:read:1", BadTokenArgument::Secret),
            ("demo-0123456789ab=shop:admin:1", BadTokenArgument::Scope("admin".to_owned())),
            ("demo-0123456789ab=shop:read:1/root", BadTokenArgument::Counter("1/root".to_owned())),
        ] {
            let error = token(text).unwrap_err();
            assert_eq!(error, expected);
            assert!(!error.to_string().contains("0123456789"));
        }
    }

    fn refused(arguments: &[&str]) -> String {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            fake: FakeArgs,
        }
        let arguments = ["fake"].iter().chain(arguments);
        let cli = <Cli as clap::Parser>::try_parse_from(arguments).unwrap_or_else(|error| panic!("{error}"));
        format!("{:#}", run(&cli.fake, &mut Vec::new()).unwrap_err())
    }

    #[test]
    fn rule_1_an_address_of_the_network_is_refused() {
        assert!(refused(&["--address", "0.0.0.0:0"]).contains("--allow-remote"));
    }

    #[test]
    fn a_knob_that_cannot_be_turned_is_refused_and_its_parameters_are_not_repeated() {
        let message =
            refused(&["--address", "127.0.0.1:0", "--knob", "quota?day=5", "--knob", "quota?parallel=AgAAAA"]);
        assert!(message.starts_with(BAD_KNOB) && message.contains("quota: Invalid value of the parameter 'parallel'"));
        assert!(!message.contains("AgAAAA"), "{message}");
    }

    #[test]
    fn rule_2_a_real_token_is_refused_and_not_repeated() {
        let message = refused(&["--address", "127.0.0.1:0", "--token", "y0_AgAAAA0123456789=shop:read:1"]);
        assert!(message.contains("not a test secret") && !message.contains("AgAAAA"), "{message}");
    }
}
