//! The keys about the process: listeners, admin, timeouts, limits, shutdown, log.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use strict_http::target;

use super::admission::admission;
use super::level::level;
use super::reader::{At, Findings};
use super::{Admin, Bind, CallerTimeouts, Limits, Listener, Shutdown, document, duration, name, timeout, tls};
use crate::policy::names::ListenerName;

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The form of lines.
    pub format: LogFormat,
    /// A level, or directives as in `info,metrika_gate=debug`.
    pub level: String,
    /// Whether each request is logged.
    pub access: bool,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Human,
}

/// A listener, with details that only reading callers needs.
#[derive(Debug)]
pub struct ReadListener {
    /// The listener.
    pub listener: Listener,
    /// Whether other hosts can reach it.
    pub remote: bool,
}

/// Returns the valid elements of `listeners`; `admin` is the admin listener that their addresses must not collide
/// with.
pub fn listeners(at: &At<'_>, admin: Option<Admin>, findings: &mut Findings) -> Option<Vec<ReadListener>> {
    let mut listeners: Vec<ReadListener> = Vec::new();
    for element in at.filled_list(findings)? {
        let Some(read) = listener(&element, findings) else { continue };
        let earlier = listeners.iter().map(|earlier| &earlier.listener);
        if earlier.clone().any(|earlier| earlier.name == read.listener.name) {
            element
                .wrong(findings, format!("duplicate name '{}'; each listener needs a unique name", read.listener.name));
        }
        let fixed = !matches!(read.listener.bind, Bind::Tcp(address) if address.port() == 0);
        if fixed && earlier.clone().any(|earlier| earlier.bind == read.listener.bind) {
            element.wrong(findings, "duplicate address; each listener needs a unique address");
        }
        if let Some(Admin { address, .. }) =
            admin.filter(|admin| fixed && read.listener.bind == Bind::Tcp(admin.address))
        {
            element.wrong(findings, format!("admin.address is also {address}; each listener needs a unique address"));
        }
        listeners.push(read);
    }
    Some(listeners)
}

const KEYS: [&str; 9] = ["name", "address", "unix", "http2", "tls", "proxy", "allow_remote", "hosts", "require_header"];

fn listener(at: &At<'_>, findings: &mut Findings) -> Option<ReadListener> {
    let table = at.table(findings, &KEYS)?;
    let name = table.required(findings, "name").and_then(|at| name(&at, findings)).map(ListenerName::new);
    let http2 = table.flag("http2", findings);
    let allow_remote = table.optional("allow_remote");
    let remote_allowed = table.flag("allow_remote", findings);
    let bind = match (table.optional("address"), table.optional("unix")) {
        (Some(address), None) => {
            let read = socket_address(&address, findings);
            if let Some(address_read) = read {
                check_remote(&address, address_read, remote_allowed, findings);
            }
            read.map(Bind::Tcp)
        }
        (None, Some(unix)) => {
            if let Some(at) = allow_remote {
                at.wrong(findings, "a unix socket is not reachable from other hosts; remove the key");
            }
            unix_socket(&unix, findings)
        }
        (Some(_), Some(_)) => {
            at.wrong(findings, "has both 'address' and 'unix'; remove one");
            None
        }
        (None, None) => {
            at.wrong(findings, "has neither 'address' nor 'unix'; add one");
            None
        }
    };
    let admission = admission(&table, table.optional("unix").is_none(), findings);
    let tls = tls::tls(&table, name, findings);
    let proxy = tls::proxy(&table, bind.as_ref(), findings);
    let listener = Listener { name: name?, bind: bind?, http2, tls: tls?, proxy, admission: admission? };
    Some(ReadListener { remote: listener.is_remote(), listener })
}

fn socket_address(at: &At<'_>, findings: &mut Findings) -> Option<SocketAddr> {
    at.text(findings, |text| {
        text.parse().map_err(|_| "an IP address and a port, as in 127.0.0.1:8080 or [::1]:8080".to_owned())
    })
}

fn check_remote(at: &At<'_>, address: SocketAddr, allowed: bool, findings: &mut Findings) {
    if !allowed && !address.ip().to_canonical().is_loopback() {
        let message = format!("{address} is not a loopback address; use one, or add allow_remote: true");
        at.wrong(findings, message);
    }
}

/// The maximum length of a unix socket's path, without the final zero byte (unix(7)).
const UNIX_PATH_BYTES: usize = 107;

fn unix_socket(at: &At<'_>, findings: &mut Findings) -> Option<Bind> {
    let table = at.table(findings, &["path", "mode"])?;
    let path = table.required(findings, "path").and_then(|at| {
        at.text(findings, |text| {
            let fits = text.starts_with('/') && text.len() <= UNIX_PATH_BYTES && !text.contains('\0');
            if fits {
                Ok(PathBuf::from(text))
            } else {
                Err(format!("an absolute path of at most {UNIX_PATH_BYTES} bytes"))
            }
        })
    });
    let mode = table.optional("mode").map_or(Some(0o660), |at| {
        at.text(findings, |text| {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
            mode.ok_or_else(|| "octal permissions with a leading zero, as in \"0660\"".to_owned())
        })
    });
    Some(Bind::Unix { path: path?, mode: mode? })
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, 9090).into(), recheck: false, page: true }
    }
}

/// Reads `admin`.
pub fn admin(at: Option<&At<'_>>, findings: &mut Findings) -> Option<Admin> {
    let Some(at) = at else { return Some(Admin::default()) };
    let table = at.table(findings, &["address", "allow_remote", "recheck", "page"])?;
    let allowed = table.flag("allow_remote", findings);
    let recheck = table.optional("recheck").map_or(Some(false), |at| at.bool(findings))?;
    let page = table.optional("page").map_or(Some(!allowed), |at| at.bool(findings))?;
    let Some(at) = table.optional("address") else { return Some(Admin { recheck, page, ..Admin::default() }) };
    let address = socket_address(&at, findings)?;
    check_remote(&at, address, allowed, findings);
    Some(Admin { address, recheck, page })
}

/// Returns the admin listener of a configuration that may have mistakes elsewhere; `None` if it cannot be read.
#[must_use]
pub fn admin_beside_mistakes(bytes: &[u8]) -> Option<Admin> {
    let ignored = &mut Findings::default();
    let document = document::parse(document::without_mark(str::from_utf8(bytes).ok()?)).ok()?;
    let root = At::root(&document).any_table(ignored)?;
    admin(root.optional("admin").as_ref(), ignored)
}

/// Reads `timeouts`.
pub fn caller_timeouts(at: Option<&At<'_>>, findings: &mut Findings) -> Option<CallerTimeouts> {
    let table = match at {
        Some(at) => Some(at.table(findings, &["request_headers", "body_idle", "keep_alive", "request"])?),
        None => None,
    };
    let table = table.as_ref();
    let request_headers = timeout(table, "request_headers", Duration::from_secs(10), findings);
    let body_idle = timeout(table, "body_idle", Duration::from_secs(60), findings);
    let keep_alive = timeout(table, "keep_alive", Duration::from_secs(75), findings);
    let request = timeout(table, "request", Duration::from_secs(3600), findings);
    Some(CallerTimeouts {
        request_headers: request_headers?,
        body_idle: body_idle?,
        keep_alive: keep_alive?,
        request: request?,
    })
}

const LIMITS: [&str; 5] = ["header_bytes", "target_bytes", "header_fields", "connections", "connections_per_peer"];

/// [`target::MAXIMUM_BYTES`], as the message below states it.
const LONGEST_TARGET: u64 = 65_534;
const _: () = assert!(target::MAXIMUM_BYTES == 65_534, "LONGEST_TARGET is another");

/// Reads `limits`.
pub fn limits(at: Option<&At<'_>>, findings: &mut Findings) -> Option<Limits> {
    let mut limits = Limits {
        header_bytes: 64 * 1024,
        target_bytes: 48 * 1024,
        header_fields: 100,
        connections: 10_000,
        connections_per_peer: 1000,
    };
    let Some(at) = at else { return Some(limits) };
    let table = at.table(findings, &LIMITS)?;
    if let Some(at) = table.optional("header_bytes") {
        limits.header_bytes = size(&at, 8 * 1024..=1024 * 1024, "8KiB to 1MiB", findings)?;
    }
    if let Some(at) = table.optional("target_bytes") {
        limits.target_bytes = size(&at, 1024..=LONGEST_TARGET, "1KiB to 65534B", findings)?;
    }
    let mut number = |key, most, value: &mut usize| {
        let Some(at) = table.optional(key) else { return Some(()) };
        *value = usize::try_from(at.integer(findings, 1..=most)?).ok()?;
        Some(())
    };
    let header_fields = number("header_fields", 1000, &mut limits.header_fields);
    let connections = number("connections", 10_000_000, &mut limits.connections);
    let of_a_peer = number("connections_per_peer", 10_000_000, &mut limits.connections_per_peer);
    header_fields.and(connections).and(of_a_peer)?;
    if limits.target_bytes > limits.header_bytes {
        let at = table.optional("target_bytes").or_else(|| table.optional("header_bytes"));
        let message = "target_bytes exceeds header_bytes, which includes the target; increase header_bytes";
        match at {
            Some(at) => at.wrong(findings, message),
            None => table.wrong(findings, message),
        }
    }
    Some(limits)
}

fn size(at: &At<'_>, range: std::ops::RangeInclusive<u64>, said: &str, findings: &mut Findings) -> Option<usize> {
    let bytes = at.text(findings, |text| {
        let read = text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64());
        read.filter(|bytes| range.contains(bytes)).ok_or_else(|| format!("a size from {said}"))
    })?;
    usize::try_from(bytes).ok()
}

/// Reads the path of a folder.
///
/// # Errors
/// What was expected.
pub fn folder(text: &str) -> Result<PathBuf, String> {
    let is_path = !text.is_empty() && !text.contains('\0') && document::unreplaced(text).is_none();
    is_path.then(|| PathBuf::from(text)).ok_or_else(|| "the path of a folder".to_owned())
}

/// Reads `shutdown`.
pub fn shutdown(at: Option<&At<'_>>, findings: &mut Findings) -> Option<Shutdown> {
    let mut shutdown = Shutdown { delay: Duration::ZERO, timeout: Duration::from_secs(30) };
    let Some(at) = at else { return Some(shutdown) };
    let table = at.table(findings, &["delay", "timeout"])?;
    if let Some(at) = table.optional("delay") {
        shutdown.delay = duration(&at, findings)?;
    }
    if let Some(at) = table.optional("timeout") {
        shutdown.timeout = duration(&at, findings)?;
    }
    Some(shutdown)
}

/// Reads `log`.
pub fn log(at: Option<&At<'_>>, findings: &mut Findings) -> Option<Log> {
    let mut log = Log { format: LogFormat::Auto, level: "info".to_owned(), access: true };
    let Some(at) = at else { return Some(log) };
    let table = at.table(findings, &["format", "level", "access"])?;
    if let Some(at) = table.optional("format") {
        log.format = at.text(findings, |text| match text {
            "auto" => Ok(LogFormat::Auto),
            "json" => Ok(LogFormat::Json),
            "human" => Ok(LogFormat::Human),
            _ => Err("auto, json or human".to_owned()),
        })?;
    }
    if let Some(at) = table.optional("level") {
        log.level = at.text(findings, level)?;
    }
    if let Some(at) = table.optional("access") {
        log.access = at.bool(findings)?;
    }
    Some(log)
}
