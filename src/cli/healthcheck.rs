//! `healthcheck`: for images without a shell or curl.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use http::Uri;

#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    /// What to ask; 200 is healthy
    #[arg(long, env = "METRIKA_GATE_HEALTHCHECK_URL", default_value = "http://127.0.0.1:9090/readyz")]
    url: Uri,
    /// How long to wait
    #[arg(long, value_name = "DURATION", env = "METRIKA_GATE_HEALTHCHECK_TIMEOUT", default_value = "3s")]
    timeout: humantime::Duration,
}

/// More of an answer is not read.
const LONGEST_ANSWER: u64 = 64 * 1024;

pub(super) fn healthcheck(args: &HealthcheckArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    if args.url.scheme_str() != Some("http") {
        bail!("{} is not an http:// URL, which the admin listener has", args.url);
    }
    let answer = ask(&args.url, *args.timeout).with_context(|| format!("{} does not answer", args.url))?;
    let healthy = answer.lines().next().is_some_and(|line| line.split(' ').nth(1) == Some("200"));
    let said = answer.split("\r\n\r\n").nth(1).unwrap_or_default().trim_end();
    writeln!(out, "{said}")?;
    Ok(u8::from(!healthy))
}

fn ask(url: &Uri, timeout: Duration) -> anyhow::Result<String> {
    let host = url.host().context("the URL has no host")?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = (bare, url.port_u16().unwrap_or(80)).to_socket_addrs()?.next().context("the host has no address")?;
    let mut socket = TcpStream::connect_timeout(&address, timeout)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.take(LONGEST_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}
