//! The key `upstream`.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use strict_http::number;

use super::reader::{At, Findings};
use super::{Proxy, timeout};
use crate::files::guard::Refusal;
use crate::files::{ExternalFile, Purpose};

/// The server that all requests are forwarded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The host of the URL: resolved, verified in the certificate, and sent as SNI.
    pub host: String,
    /// The port of the URL.
    pub port: u16,
    /// The value of `Host`: the host, with the port unless it is 443.
    pub authority: String,
    /// Trusted certificates in addition to those of the system.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// The file that holds `extra_roots`.
    pub ca_file: Option<PathBuf>,
    /// The host and port to connect to instead; the certificate must still name `host`.
    pub connect_to: Option<(String, u16)>,
    /// The proxy that opens a tunnel to the host, or to that of `connect_to`.
    pub proxy: Option<Proxy>,
    /// The address families to connect to.
    pub address_family: AddressFamily,
    /// Whether the roots of the system are trusted too.
    pub system_roots: bool,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// The maximum number of concurrent upstream requests, over all workers.
    pub connections: usize,
    /// The age from which a connection takes no new request.
    pub max_age: Duration,
    /// The timeouts of each step.
    pub timeouts: UpstreamTimeouts,
}

/// The address families of the upstream that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressFamily {
    /// IPv4 and IPv6.
    #[default]
    Any,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

/// Timeouts towards the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// For the look-up, the connect, the tunnel of a proxy and the TLS handshake together.
    pub connect: Duration,
    /// From the last byte of the request to the head of the response.
    pub response_headers: Duration,
    /// Between two pieces of a body.
    pub body_idle: Duration,
    /// The time for which an idle connection is kept.
    pub keep_alive: Duration,
}

const KEYS: [&str; 10] = [
    "url",
    "ca_file",
    "connect_to",
    "proxy",
    "proxy_auth_file",
    "address_family",
    "http2",
    "connections",
    "max_age",
    "timeouts",
];

/// The default of `max_age`, after which a new connection resolves the name again.
const MAX_AGE: Duration = Duration::from_secs(300);

/// The port of an https URL that names none.
pub const HTTPS: u16 = 443;

/// Reads `upstream`.
pub fn upstream(at: Option<&At<'_>>, findings: &mut Findings) -> Option<Upstream> {
    let mut upstream = Upstream {
        host: "api-metrika.yandex.net".to_owned(),
        port: HTTPS,
        authority: "api-metrika.yandex.net".to_owned(),
        extra_roots: Vec::new(),
        ca_file: None,
        system_roots: true,
        connect_to: None,
        proxy: None,
        address_family: AddressFamily::Any,
        http2: false,
        connections: 1024,
        max_age: MAX_AGE,
        timeouts: timeouts(None, findings)?,
    };
    let Some(at) = at else { return Some(upstream) };
    let table = at.table(findings, &KEYS)?;
    if let Some((host, port)) = table.optional("url").and_then(|at| at.text(findings, url)) {
        upstream.authority = if port == HTTPS { host.clone() } else { format!("{host}:{port}") };
        upstream.host = host;
        upstream.port = port;
    }
    if let Some(at) = table.optional("ca_file") {
        (upstream.extra_roots, upstream.ca_file) = certificates_of(&at, Purpose::Upstream, findings);
    }
    upstream.connect_to = table.optional("connect_to").and_then(|at| at.text(findings, host_and_port));
    upstream.proxy = super::proxy::proxy(&table, findings);
    if let Some(at) = table.optional("address_family") {
        let read = at.text(findings, |text| match text {
            "any" => Ok(AddressFamily::Any),
            "ipv4" => Ok(AddressFamily::Ipv4),
            "ipv6" => Ok(AddressFamily::Ipv6),
            _ => Err("any, ipv4 or ipv6".to_owned()),
        });
        read.inspect(|family| upstream.address_family = *family);
    }
    upstream.http2 = table.flag("http2", findings);
    if let Some(read) = table.optional("connections").and_then(|at| at.integer(findings, 1..=1_000_000)) {
        upstream.connections = number::saturated(read);
    }
    upstream.max_age = timeout(Some(&table), "max_age", MAX_AGE, findings).unwrap_or(MAX_AGE);
    upstream.timeouts = timeouts(table.optional("timeouts").as_ref(), findings).unwrap_or(upstream.timeouts);
    Some(upstream)
}

fn timeouts(at: Option<&At<'_>>, findings: &mut Findings) -> Option<UpstreamTimeouts> {
    let table = match at {
        Some(at) => Some(at.table(findings, &["connect", "response_headers", "body_idle", "keep_alive"])?),
        None => None,
    };
    let table = table.as_ref();
    let connect = timeout(table, "connect", Duration::from_secs(5), findings);
    // Metrica works on a report for up to two minutes before it returns 504 itself.
    let response_headers = timeout(table, "response_headers", Duration::from_secs(130), findings);
    let body_idle = timeout(table, "body_idle", Duration::from_secs(60), findings);
    let keep_alive = timeout(table, "keep_alive", Duration::from_secs(60), findings);
    Some(UpstreamTimeouts {
        connect: connect?,
        response_headers: response_headers?,
        body_idle: body_idle?,
        keep_alive: keep_alive?,
    })
}

fn url(text: &str) -> Result<(String, u16), String> {
    let expected = "https://, a host and optionally a port, without a path, as in https://api-metrika.yandex.net";
    let wrong = || expected.to_owned();
    if text.starts_with("http://") {
        return Err("an https URL, because the gate never sends tokens without TLS".to_owned());
    }
    let authority =
        text.strip_prefix("https://").map(|rest| rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(wrong)?;
    let (host, port) = host_and_optional_port(authority).ok_or_else(wrong)?;
    Ok((host.to_ascii_lowercase(), port.unwrap_or(HTTPS)))
}

/// Reads a host and a port.
pub fn host_and_port(text: &str) -> Result<(String, u16), String> {
    match host_and_optional_port(text) {
        Some((host, Some(port))) => Ok((host.to_owned(), port)),
        Some((_, None)) | None => Err("a host and a port, as in 127.0.0.1:8443".to_owned()),
    }
}

/// Reads a host, and a port if present.
pub fn host_and_optional_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok().filter(|port| *port != 0)?)),
        Some(_) | None => (text, None),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let _: ServerName<'_> = bare.try_into().ok()?;
    Some((bare, port))
}

/// The maximum size of a CA file in bytes, more than four times the size of a system's whole bundle.
const CERTIFICATES_BYTES: usize = 4 * 1024 * 1024;

/// Reads the key `ca_file` of `purpose`: its certificates, and the path of the file.
pub fn certificates_of(
    at: &At<'_>,
    purpose: Purpose,
    findings: &mut Findings,
) -> (Vec<CertificateDer<'static>>, Option<PathBuf>) {
    let read = certificates(at, purpose, findings).into_iter().flatten().collect();
    (read, at.text(findings, |text| Ok(PathBuf::from(text))))
}

fn certificates(at: &At<'_>, purpose: Purpose, findings: &mut Findings) -> Option<Vec<CertificateDer<'static>>> {
    at.text(findings, |text| {
        let file = ExternalFile::new(purpose, Path::new(text));
        let expected = |said: &dyn Display, hint| {
            format!("a readable certificate file ({said}{hint}){}", crate::files::reading::relative_to(&file.path))
        };
        let opened = file.open().map_err(|refusal| {
            let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
            let outside = matches!(&refusal, Refusal::Unreadable(error) if is_denied(error));
            let hint =
                if outside { "; a running gate can read only the folders that it could read at startup" } else { "" };
            expected(&refusal, hint)
        })?;
        let pem = crate::files::reading::read_from(opened, CERTIFICATES_BYTES).map_err(|error| expected(&error, ""))?;
        if pem.len() > CERTIFICATES_BYTES {
            return Err("a file with certificates of at most 4MiB".to_owned());
        }
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match read {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            Ok(_) | Err(_) => Err("a file with certificates in PEM form".to_owned()),
        }
    })
}
