//! `token login`: a token from Yandex, in one of three flows.
//!
//! 1. Everything that can fail without a person is checked first: the alias, the application, the files.
//! 2. The device flow polls as the answer of the server tells it to, until the code expires.
//! 3. The other flows print an address, and read the code or the address of the result.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use metrica::scope::{Scope, ScopeSet};
use tokio::time::{Instant, sleep};

use super::token::{Ended, OneArgs, Subject, UNCHANGED, attend, ended};
use super::{terminal, token_print, token_proof};
use crate::cli::oauth_device::Device;
use crate::cli::oauth_fault::{Fault, OAuthError, Step};
use crate::cli::oauth_paste::{self as paste, BadPaste, Pasted, Received};
use crate::cli::oauth_pkce::Verifier;
use crate::cli::oauth_server::{Client, Grant, Server, encoded};

#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    #[command(flatten)]
    one: OneArgs,
    /// How to get the token [default: device if the secret of the application is known, otherwise code]
    #[arg(long, value_name = "FLOW", env = "METRIKA_GATE_TOKEN_FLOW")]
    flow: Option<Flow>,
    /// Write a Secret of Kubernetes with this name to stdout, and no file; raw writes the bare token, for another store
    #[arg(long, value_name = "NAME", env = "METRIKA_GATE_TOKEN_PRINT", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = token_print::NAME)]
    print: Option<String>,
    /// Keep a token with fewer scopes than the configuration declares, if it is right otherwise
    #[arg(long, env = "METRIKA_GATE_TOKEN_FEWER_SCOPES", value_parser = clap::builder::BoolishValueParser::new())]
    fewer_scopes: bool,
    /// Takes a word that cannot be an argument, to explain it
    #[arg(hide = true)]
    word: Option<String>,
}

/// A way to get a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Flow {
    /// Enter a short code on a page of Yandex; needs the secret of the application
    Device,
    /// Open an address and paste the code that it shows; needs no secret (PKCE)
    Code,
    /// Open an address and paste the address of the page behind it; no refresh token
    Implicit,
}

/// The number of times that a person may paste something else by mistake.
const TRIES: usize = 3;

/// The number of seconds that `slow_down` adds to the interval (RFC 8628, section 3.5).
const SLOWER: Duration = Duration::from_secs(5);

pub(super) fn login(args: &LoginArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let form = form(args)?;
    let mut subject = args.one.subject()?;
    let client = args.one.client(&subject)?;
    let flow = args.flow.unwrap_or(if client.secret.is_some() { Flow::Device } else { Flow::Code });
    if flow == Flow::Device && client.secret.is_none() {
        let alias = subject.source.alias;
        return Err(ended(
            2,
            format_args!(
                "the device flow needs the secret of the application; set tokens.{alias}.client_secret_file, or use --client-secret-file FILE, or --flow code"
            ),
        ));
    }
    let device = subject.device(&client);
    if let Some(form) = form {
        let received = received(&subject, &client, &device, flow)?;
        check_scope(&mut subject, &received, args.fewer_scopes)?;
        return token_print::printed(
            &form,
            &subject,
            token_proof::issued(received, Some(&client.id), Some(device.id)),
            out,
        );
    }
    subject.keeper.check().map_err(Ended::from)?;
    let _lock = subject.keeper.lock().map_err(Ended::from)?;
    if let Some(code) = token_proof::resume(&subject, "login", out)? {
        args.one.print_next(out)?;
        return Ok(code);
    }
    let received = received(&subject, &client, &device, flow)?;
    check_scope(&mut subject, &received, args.fewer_scopes)?;
    let issued = token_proof::issued(received, Some(&client.id), Some(device.id));
    let code = token_proof::settle(&subject, issued, token_proof::Source::Page, out)?;
    args.one.print_next(out)?;
    Ok(code)
}

/// Returns the form to print, instead of writing files.
fn form(args: &LoginArgs) -> anyhow::Result<Option<token_print::Form>> {
    match (&args.word, &args.print) {
        (Some(word), Some(_)) => Err(ended(
            2,
            format_args!("unexpected '{word}'; the name of the Secret follows an equals sign: --print={word}"),
        )),
        (Some(word), None) => Err(ended(2, format_args!("unexpected '{word}'; the command takes one ALIAS"))),
        (None, None) => Ok(None),
        (None, Some(name)) => token_print::Form::of(name).map(Some),
    }
}

/// Checks that the person has granted every declared scope: the server names them only if they are fewer. With `fewer`, a part of
/// them is enough, and becomes the scopes of the token for its proof.
fn check_scope(subject: &mut Subject, received: &Received, fewer: bool) -> anyhow::Result<()> {
    let Some(granted) = &received.scope else { return Ok(()) };
    let granted: ScopeSet = granted.split(' ').filter_map(|name| name.parse().ok()).collect();
    let missing = subject.source.scopes.iter().filter(|scope| !granted.covers([*scope].into_iter().collect()));
    let missing: Vec<_> = missing.map(Scope::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (alias, missing) = (subject.source.alias, missing.join(", "));
    let kept: ScopeSet =
        subject.source.scopes.iter().filter(|scope| granted.covers([*scope].into_iter().collect())).collect();
    if fewer && kept != ScopeSet::EMPTY {
        writeln!(
            std::io::stderr(),
            "the token lacks {missing}, which tokens.{alias}.scopes declares; it is kept, as --fewer-scopes demands"
        )?;
        subject.source.scopes = kept;
        return Ok(());
    }
    Err(ended(
        1,
        format_args!(
            "the new token lacks {missing}, which tokens.{alias}.scopes declares; it was kept nowhere, and nothing was changed. Log in again and allow every right on the page; or, if fewer rights are enough, remove {missing} from 'scopes' and log in again, or log in with --fewer-scopes"
        ),
    ))
}

fn received(subject: &Subject, client: &Client, device: &Device, flow: Flow) -> anyhow::Result<Received> {
    let server = subject.server()?;
    match flow {
        Flow::Device => attend(UNCHANGED, of_device(subject, &server, client, device))?,
        Flow::Code => of_code(subject, &server, client, device),
        Flow::Implicit => {
            let state = crate::cli::oauth::random()?;
            show_address(subject, &address(subject, client, device, "token", &state))?;
            match pasted(&state, Flow::Implicit)? {
                Pasted::Token(received) => Ok(*received),
                Pasted::Code(_) => Err(ended(
                    1,
                    "a code was pasted, and this flow needs the address of the page with the token; use --flow code for codes",
                )),
            }
        }
    }
}

/// Returns the address of the page on which a person decides.
fn address(subject: &Subject, client: &Client, device: &Device, kind: &str, state: &str) -> String {
    let mut address = format!(
        "https://{}/authorize?response_type={kind}&client_id={}&device_id={}&device_name={}&force_confirm=yes&state={state}",
        subject.config.oauth.authority,
        client.id,
        encoded(&device.id),
        encoded(&device.name)
    );
    if let Some(owner) = &subject.source.origin.owner {
        address.push_str("&login_hint=");
        address.push_str(&encoded(owner));
    }
    address
}

fn show_address(subject: &Subject, address: &str) -> std::io::Result<()> {
    let account = account(subject);
    writeln!(std::io::stderr(), "Open this address{account} and click Allow:\n\n  {address}\n")
}

/// Returns the account to sign in with, as part of a sentence.
fn account(subject: &Subject) -> String {
    match &subject.source.origin.owner {
        None => String::new(),
        Some(owner) if metrica::login::is_organisation(owner) => {
            format!(", signed in as a member of the organisation {owner}, choose that organisation on the page,")
        }
        Some(owner) => format!(", signed in as {owner},"),
    }
}

/// Reads what a person pastes, again after a mistake.
fn pasted(state: &str, flow: Flow) -> anyhow::Result<Pasted> {
    let what = match flow {
        Flow::Implicit => "address of the page",
        Flow::Code | Flow::Device => "code, or the address of the page that shows it,",
    };
    let mut tries = 0;
    loop {
        let text = terminal::line(&format!("Paste the {what} here"))?;
        let read = paste::read(&text, Some(state)).map_err(|bad| {
            // Only the address of this flow has its result there.
            let end =
                if flow == Flow::Implicit && bad == BadPaste::Address { ", with the part behind '#'" } else { "" };
            (format!("{bad}{end}"), matches!(bad, BadPaste::Refused(_)))
        });
        tries += 1;
        match read {
            Ok(pasted) => return Ok(pasted),
            Err((bad, _)) if text.is_empty() && !std::io::stdin().is_terminal() => {
                let bad = if tries == 1 { bad } else { "no other text followed".to_owned() };
                return Err(ended(
                    1,
                    format_args!(
                        "{bad}: standard input is not a terminal and has ended; run the command on a terminal, or pipe the {what} to it"
                    ),
                ));
            }
            Err((bad, is_refused)) if tries < TRIES && !is_refused => writeln!(std::io::stderr(), "{bad}")?,
            Err((bad, _)) => return Err(ended(1, bad)),
        }
    }
}

fn of_code(subject: &Subject, server: &Server, client: &Client, device: &Device) -> anyhow::Result<Received> {
    let (verifier, state) = (Verifier::new()?, crate::cli::oauth::random()?);
    let address = format!(
        "{}&code_challenge={}&code_challenge_method=S256",
        address(subject, client, device, "code", &state),
        verifier.challenge()
    );
    show_address(subject, &address)?;
    match pasted(&state, Flow::Code)? {
        Pasted::Code(code) => {
            let received = attend(UNCHANGED, server.token(client, &Grant::Code(&code, &verifier)))?;
            received.map_err(|fault| subject.fault(&fault).into())
        }
        Pasted::Token(received) => Ok(*received),
    }
}

/// Waits until a person has entered the code of a device (rule 2).
async fn of_device(subject: &Subject, server: &Server, client: &Client, device: &Device) -> anyhow::Result<Received> {
    let code = server.device_code(client, device).await.map_err(|fault| subject.fault(&fault))?;
    let until = Instant::now() + Duration::from_secs(code.expires_in);
    let account = account(subject);
    // The other site has no short address.
    let other = if subject.config.oauth_site() == "ru" { " (or https://ya.ru/device)" } else { "" };
    writeln!(
        std::io::stderr(),
        "Open https://{}/device{other}{account} and enter the code:\n\n  {}\n\nThe code is valid for {}.",
        subject.config.oauth.authority,
        code.user_code,
        humantime::format_duration(Duration::from_secs(code.expires_in))
    )?;
    let mut interval = Duration::from_secs(code.interval.max(1));
    let mut countdown = Countdown { is_shown: false };
    loop {
        if !countdown.wait(interval, until).await? {
            return Err(subject.fault(&Fault::Refused(Step::Device, OAuthError::Expired)).into());
        }
        match server.token(client, &Grant::Device(&code)).await {
            Ok(received) => return Ok(received),
            Err(Fault::Refused(_, OAuthError::SlowDown)) => interval += SLOWER,
            // A response that is lost does not end the code.
            Err(fault) if fault.is_temporary() => {}
            Err(fault) => return Err(subject.fault(&fault).into()),
        }
    }
}

/// The time that is left, on a terminal. Its line ends before anything else is printed.
struct Countdown {
    is_shown: bool,
}

impl Countdown {
    /// Waits for one interval, and shows the time left on a terminal. Returns whether any was left.
    async fn wait(&mut self, interval: Duration, until: Instant) -> std::io::Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        if std::io::stderr().is_terminal() {
            let left = Duration::from_secs(left.as_secs());
            self.is_shown = true;
            write!(std::io::stderr(), "\rwaiting, {} left    ", humantime::format_duration(left))?;
        }
        sleep(interval.min(left)).await;
        Ok(true)
    }
}

impl Drop for Countdown {
    fn drop(&mut self) {
        if self.is_shown {
            // A terminal that is gone needs no line.
            let _ = writeln!(std::io::stderr());
        }
    }
}
