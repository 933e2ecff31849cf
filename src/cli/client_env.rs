//! `client-env`: prints how a client connects to a listener.
//!
//! 1. The text is one for the client and the kind of the listener, from [`super::client_texts`]; every client has one for every kind.
//! 2. Addresses, ports and paths are those of the configuration. An address of all interfaces is replaced by the first name of
//!    `hosts`, or else by loopback.
//! 3. The output is a program or a script of the client's language: everything else in it is a comment. It tells whether the tests
//!    ran the text.
//! 4. A path that would need quoting is refused, because each language quotes in its own way.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::ConfigArgs;
use super::client_texts::{self, Mode, Text};
use crate::config::tls::names::{AUTHORITY, LEAF};
use crate::config::{Bind, Config, Listener};

#[derive(Debug, Args)]
pub(super) struct ClientEnvArgs {
    /// The client
    client: Client,
    #[command(flatten)]
    config: ConfigArgs,
    /// The listener to connect to [default: the only one]
    #[arg(long, value_name = "NAME", env = "METRIKA_GATE_CLIENT_ENV_LISTENER")]
    listener: Option<String>,
}

/// A client of the Metrica API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Client {
    Curl,
    Wget,
    /// The command `http`
    Httpie,
    /// Python
    Requests,
    /// Python
    Httpx,
    /// Python
    Aiohttp,
    /// Python
    Urllib,
    /// Python
    Urllib3,
    /// Python
    Pycurl,
    /// Python
    Pandas,
    /// Python
    TapiYandexMetrika,
    /// Python
    AiotapiocaYandexMetrika,
    /// Python
    Yametrikapy,
    /// Python
    YandexMetrikaLogsApi,
    /// Python
    #[value(name = "ym-api-client")]
    YmApi,
    /// MCP server
    McpServerYandexMetrika,
    /// MCP server
    YaMetricsMcp,
    /// Node.js
    Fetch,
    /// Node.js
    Axios,
    /// Node.js
    Undici,
    /// Node.js
    Got,
    Go,
    /// `java.net.http`
    Java,
    /// `HttpURLConnection`
    JavaUrl,
    /// The extension curl
    Php,
    /// `file_get_contents`
    PhpStreams,
    R,
    Airbyte,
    Dlt,
    N8n,
    /// Yandex's script for the Logs API
    #[value(name = "logs_api_integration")]
    LogsApiIntegration,
}

/// The placeholder for a port that the system chooses when the gate starts.
const PORT: &str = "PORT";

/// The addresses and paths of a listener.
struct Place {
    mode: Mode,
    /// Host and port, with an IPv6 address in brackets.
    authority: String,
    host: String,
    port: String,
    socket: String,
    /// The certificate that callers trust, of a listener with TLS.
    ca: String,
}

pub(super) fn client_env(args: &ClientEnvArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = super::load_config(&args.config.config)?;
    let listener = match chosen(&config, args.listener.as_deref()) {
        Ok(listener) => listener,
        Err(mistake) => return super::wrong_usage(&mistake),
    };
    let place = match place(listener) {
        Ok(place) => place,
        Err(mistake) => return super::wrong_usage(&mistake),
    };
    let client = args.client.to_possible_value().context("the client has a name")?;
    let text = client_texts::find(client.get_name(), place.mode)
        .with_context(|| format!("there is no text for {} and this kind of listener", client.get_name()))?;
    let sends_key = config.callers.iter().any(|caller| caller.conditions.keys().is_some());
    write(out, client.get_name(), listener, &place, &text, sends_key)?;
    Ok(0)
}

/// Returns the listener of this name, or the only one.
fn chosen<'a>(config: &'a Config, wanted: Option<&str>) -> Result<&'a Listener, String> {
    let names = || config.listeners.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>().join(", ");
    match (wanted, config.listeners.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(format!("there are several listeners; choose one with --listener: {}", names())),
        (Some(wanted), all) => all
            .iter()
            .find(|listener| listener.name.as_str() == wanted)
            .ok_or_else(|| format!("unknown listener '{wanted}'; the configured listeners are {}", names())),
    }
}

/// Returns the addresses and paths of a listener (rule 2), or a mistake (rule 4).
fn place(listener: &Listener) -> Result<Place, String> {
    let mode = mode(listener);
    let ca = ca(listener).map_or(Ok(String::new()), |ca| quotable(&ca))?;
    match &listener.bind {
        Bind::Unix { path, .. } => {
            let socket = quotable(path)?;
            Ok(Place { mode, authority: String::new(), host: String::new(), port: String::new(), socket, ca })
        }
        Bind::Tcp(address) => {
            let host = host(*address, &listener.admission.hosts);
            let port = if address.port() == 0 { PORT.to_owned() } else { address.port().to_string() };
            let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            Ok(Place { mode, authority, host, port, socket: String::new(), ca })
        }
    }
}

/// The kind of a listener.
const fn mode(listener: &Listener) -> Mode {
    match (&listener.bind, listener.proxy, &listener.tls) {
        (_, true, _) => Mode::Proxy,
        (_, false, Some(_)) => Mode::Tls,
        (Bind::Unix { .. }, false, None) => Mode::Socket,
        (Bind::Tcp(_), false, None) => Mode::Base,
    }
}

/// The file of the authority whose certificate callers trust, of a listener with TLS: known where `ca init` made both.
fn ca(listener: &Listener) -> Option<PathBuf> {
    let certificate = &listener.tls.as_ref()?.files.certificate;
    let is_made = certificate.file_name().is_some_and(|name| name == LEAF);
    Some(if is_made { certificate.with_file_name(AUTHORITY) } else { PathBuf::from(AUTHORITY) })
}

/// Returns a host by which callers reach `address` (rule 2).
fn host(address: SocketAddr, hosts: &[Box<str>]) -> String {
    let ip = address.ip();
    match (ip.is_unspecified(), hosts.first()) {
        (false, _) => ip.to_string(),
        (true, Some(name)) => name.to_string(),
        (true, None) if ip.is_ipv4() => IpAddr::V4(Ipv4Addr::LOCALHOST).to_string(),
        (true, None) => IpAddr::V6(Ipv6Addr::LOCALHOST).to_string(),
    }
}

/// Returns a path whose characters mean nothing else in any of the languages (rule 4).
fn quotable(path: &Path) -> Result<String, String> {
    let fits = |letter: char| letter.is_alphanumeric() || "/._-+=@,".contains(letter);
    let text = path.to_str().filter(|text| text.chars().all(fits));
    let mistake = || format!("{} contains characters that would need quoting; choose another path", path.display());
    text.map(str::to_owned).ok_or_else(mistake)
}

/// Writes the text with its comments (rule 3).
fn write(
    out: &mut dyn Write,
    client: &str,
    listener: &Listener,
    place: &Place,
    text: &Text<'_>,
    sends_key: bool,
) -> std::io::Result<()> {
    let (comment, is_program) = (text.language.comment(), text.language.is_program());
    write!(out, "{}", text.language.opening())?;
    writeln!(out, "{comment} {client}, through listener '{}' of metrika-gate", listener.name)?;
    for line in notes(listener, place, text, sends_key) {
        writeln!(out, "{comment} {line}")?;
    }
    let http = format!("http://{}", place.authority);
    let mut body = text.body.to_owned();
    for (name, value) in [
        ("{base}", &http),
        ("{proxy}", &http),
        ("{authority}", &place.authority),
        ("{host}", &place.host),
        ("{port}", &place.port),
        ("{socket}", &place.socket),
        ("{ca}", &place.ca),
    ] {
        body = body.replace(name, value);
    }
    for line in body.lines() {
        if is_program { writeln!(out, "{line}")? } else { writeln!(out, "{comment} {line}")? }
    }
    Ok(())
}

/// Returns the notes above a text.
fn notes(listener: &Listener, place: &Place, text: &Text<'_>, sends_key: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if text.language.is_program() {
        let tested = if text.run { "ran this text" } else { "have not run this text" };
        notes.push(format!("The tests of metrika-gate {} {tested}.", env!("CARGO_PKG_VERSION")));
    }
    if place.port == PORT {
        notes.push(format!("Replace {PORT}: the system chooses the port when the gate starts, and the gate logs it."));
    }
    if let Some((name, value)) = &listener.admission.required {
        let value = String::from_utf8_lossy(value.as_bytes());
        notes.push(format!("Add the header field {name}: {value} to every request (require_header of the listener)."));
    }
    if place.mode == Mode::Tls {
        notes.push(format!("First direct the host names of the API to {} (hosts file or DNS), port 443.", place.host));
        notes
            .push(format!("A client with a setting for it can take the base URL https://{} instead.", place.authority));
    }
    if sends_key {
        notes.push(
            "A caller with a key sends the key in place of a token, as in 'Authorization: OAuth mgk_...'.".to_owned(),
        );
    }
    notes
}
