//! `healthcheck`: a readiness probe for images without a shell or curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use http::Uri;

use crate::config::{self, Admin};

#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    /// The URL to request; 200 means healthy [default: /readyz of the admin listener]
    #[arg(long, env = "METRIKA_GATE_HEALTHCHECK_URL")]
    url: Option<Uri>,
    /// Without --url, the configuration with the address of the admin listener [default address: 127.0.0.1:9090]
    #[arg(short, long, value_name = "FILE", env = "METRIKA_GATE_CONFIG")]
    config: Option<PathBuf>,
    /// Retry until healthy, for at most this duration
    #[arg(long, value_name = "DURATION", env = "METRIKA_GATE_HEALTHCHECK_WAIT", default_value = "0s")]
    wait: humantime::Duration,
    /// The timeout of one request
    #[arg(long, value_name = "DURATION", env = "METRIKA_GATE_HEALTHCHECK_TIMEOUT", default_value = "3s")]
    timeout: humantime::Duration,
}

/// The maximum number of bytes read of a response.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// The port of an http URL that names none.
const HTTP: u16 = 80;

/// The pause between two attempts with `--wait`.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) fn healthcheck(args: &HealthcheckArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let start = Instant::now();
    loop {
        // Read for each attempt: the configuration may not exist yet either.
        let url = match (&args.url, &args.config) {
            (Some(url), _) => url.clone(),
            (None, Some(file)) => readiness(admin(file)?)?,
            (None, None) => readiness(Admin::default().address)?,
        };
        if url.scheme_str() != Some("http") {
            bail!("{url} is not an http:// URL; the admin listener does not speak TLS");
        }
        let answer = ask(&url, *args.timeout, LONGEST_ANSWER);
        let healthy = answer.as_ref().is_ok_and(|answer| is_healthy(answer));
        if healthy || start.elapsed() + PAUSE > *args.wait {
            let answer = answer.with_context(|| format!("{url} does not respond"))?;
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            writeln!(out, "{}", body.trim_end())?;
            return Ok(u8::from(!healthy));
        }
        std::thread::sleep(PAUSE);
    }
}

fn is_healthy(answer: &str) -> bool {
    answer.lines().next().is_some_and(|line| line.split(' ').nth(1) == Some("200"))
}

/// Returns the address of the admin listener in `file`. An unreadable or invalid file is not a failure of the gate,
/// which keeps running with its previous configuration.
fn admin(file: &Path) -> anyhow::Result<SocketAddr> {
    let read = config::bytes(file).map(|bytes| config::admin_beside_mistakes(&bytes));
    if let Ok(Some(admin)) = read {
        return Ok(admin.address);
    }
    let address = Admin::default().address;
    let why = read
        .err()
        .map_or_else(|| format!("{} does not configure the admin listener", file.display()), |error| error.to_string());
    writeln!(std::io::stderr(), "metrika-gate: {why}; using {address}")?;
    Ok(address)
}

/// Returns the readiness URL of an admin listener; an unspecified address is replaced by loopback.
fn readiness(mut address: SocketAddr) -> anyhow::Result<Uri> {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    Ok(format!("http://{address}/readyz").parse()?)
}

/// Returns the metrics of the gate with that admin listener, if one runs.
pub(super) fn metrics(address: SocketAddr) -> Option<String> {
    let ready = readiness(address).ok()?.to_string();
    let url = format!("{}/metrics", ready.strip_suffix("/readyz")?).parse().ok()?;
    ask(&url, METRICS_TIMEOUT, LONGEST_METRICS).ok().filter(|answer| is_healthy(answer))
}

/// The time limit and the maximum number of bytes of the metrics.
const METRICS_TIMEOUT: Duration = Duration::from_secs(1);
const LONGEST_METRICS: u64 = 16 * 1024 * 1024;

fn ask(url: &Uri, timeout: Duration, longest: u64) -> anyhow::Result<String> {
    let host = url.host().context("the URL has no host")?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address =
        (bare, url.port_u16().unwrap_or(HTTP)).to_socket_addrs()?.next().context("the host has no address")?;
    let mut socket = TcpStream::connect_timeout(&address, timeout)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.take(longest).read_to_string(&mut answer)?;
    Ok(answer)
}
