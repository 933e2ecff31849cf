//! Admission: decides, before policy, whether a request is accepted at all. Rejects requests of browsers, for foreign host
//! names and in loops.
//!
//! 1. On TCP, the host of a request must be known to the listener (see [`strict_http::host`]); otherwise `host_denied`, 403.
//!    On a unix socket any host is accepted.
//! 2. `Host` occurs once, is a host with an optional port, and equals the authority of an absolute-form target if both are
//!    present (RFC 9112, section 3.2); otherwise `bad_host`, 400.
//! 3. Fields that only browsers send are refused on every listener (`browser_denied`, 403): `Origin`, `Sec-Fetch-Site`,
//!    `Sec-Fetch-Dest` and the fields of a CORS preflight, with any value. `Sec-Fetch-Mode` is accepted, because Node's
//!    `fetch` sends it.
//! 4. If the listener has `require_header`, that field occurs once, with that value; otherwise `header_required`, 403. It is
//!    checked before the fields that `Connection` names are removed.
//! 5. A request that a gate has forwarded before is a loop (`loop_detected`, 508).
//! 6. At most `limits.header_fields` fields, in any HTTP version (`headers_too_large`, 431). An HTTP/2 request also gets
//!    the checks that the HTTP/1.1 reader has already made for HTTP/1.1 (`http2_request`).
//! 7. A forward proxy serves Metrica's names only ([`super::proxy`]); otherwise `destination_denied`, 403.
//! 8. On a connection that was opened for a name, in TLS (SNI) or with CONNECT, requests are for that name, or for both if it
//!    was opened for two; otherwise `misdirected`, 421 (RFC 9110, section 7.4).
//! 9. CONNECT is refused because of its method (405), before its host is looked at: the client has to learn that the listener is
//!    no proxy, or that the tunnel is already open.
//!
//! Rules 1 and 4 are checked again after a request has waited, because they depend on the configuration.

use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use rustc_hash::FxHashMap;
use strict_http::Malformed;
use strict_http::connect::agree;
use strict_http::host::{Host, Hosts};

use super::decide::RequestHead;
use super::{http2_request, proxy, via};
use crate::policy::names::ListenerName;
use crate::policy::rejection::{Reason, Rejection};

/// Limits of requests and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The maximum size in bytes of the request line and all fields.
    pub header_bytes: usize,
    /// The maximum length of the request target, in bytes.
    pub target_bytes: usize,
    /// The maximum number of fields of a request.
    pub header_fields: usize,
    /// The maximum number of connections over all listeners.
    pub connections: usize,
    /// The maximum per peer: an IPv4 address, an IPv6 network of 64 bits, or a user of this machine.
    pub connections_per_peer: usize,
}

/// The admission rules of one listener.
#[derive(Debug)]
pub struct Admission {
    /// The accepted hosts; `None` accepts any.
    hosts: Option<Hosts>,
    /// The required field and its value.
    required: Option<(HeaderName, HeaderValue)>,
    /// Whether the listener is a forward proxy.
    proxy: bool,
}

/// The admission rules of all listeners, prepared once per configuration.
#[derive(Debug)]
pub struct Admissions(FxHashMap<ListenerName, Admission>);

/// The parts of an admitted request that rules 1 and 4 read.
#[derive(Debug, Clone)]
pub struct Admitted {
    host: Option<HeaderValue>,
    required: Option<(HeaderName, HeaderValue)>,
}

impl Admissions {
    /// Collects the admission rules of the listeners.
    pub fn new(listeners: impl IntoIterator<Item = (ListenerName, Admission)>) -> Self {
        Self(listeners.into_iter().collect())
    }

    /// Returns the rules of `listener`. Every configured listener has some; without rules, requests are refused.
    pub(super) fn of(&self, listener: ListenerName) -> Result<&Admission, Rejection> {
        self.0.get(&listener).ok_or_else(|| Reason::HostDenied.into())
    }
}

impl Admission {
    /// Creates the rules of a listener with these accepted hosts (`None` for any) and this required field, which can be a
    /// forward proxy.
    #[must_use]
    pub const fn new(hosts: Option<Hosts>, required: Option<(HeaderName, HeaderValue)>, proxy: bool) -> Self {
        Self { hosts, required, proxy }
    }

    /// Checks whether the listener accepts the host of `authority` (rules 1 and 2).
    ///
    /// # Errors
    /// The refusal.
    pub fn check_host(&self, authority: &[u8]) -> Result<(), Rejection> {
        match (&self.hosts, Host::of(authority)) {
            (None, _) if authority.is_empty() => Ok(()),
            (Some(_), _) if authority.is_empty() => Err(denied(authority)),
            (_, None) => Err(Malformed::InvalidHost.into()),
            (Some(hosts), Some(host)) if !hosts.know(host) => Err(denied(authority)),
            (Some(_) | None, Some(_)) => Ok(()),
        }
    }

    /// Applies the rules of this module to a request, with these limits.
    pub(super) fn admit(&self, head: &RequestHead<'_>, limits: &Limits) -> Result<Admitted, Rejection> {
        if head.fields.len() > limits.header_fields {
            return Err(Malformed::TooManyFields.into());
        }
        if *head.method == Method::CONNECT {
            return Err(Malformed::Connect.into());
        }
        if head.version == Version::HTTP_2 {
            http2_request::check(head, limits.header_bytes)?;
        }
        let authority = authority(head)?;
        if self.proxy && head.version != Version::HTTP_2 {
            proxy::absolute(head.uri)?;
        }
        self.check_host(authority)?;
        if let Some(name) = head.opened_for.into_iter().flatten().find(|name| !names(authority, name)) {
            return Err(misdirected(name));
        }
        if head.fields.keys().any(is_of_browsers) {
            return Err(Reason::BrowserDenied.into());
        }
        if let Some((name, value)) = &self.required
            && !is_only(head.fields, name, value)
        {
            return Err(lacking(name));
        }
        if via::is_loop(head.fields) {
            return Err(Reason::LoopDetected.into());
        }
        Ok(Admitted { host: head.fields.get(HOST).cloned(), required: self.required.clone() })
    }

    /// Applies rules 1 and 4 to a request that was admitted before.
    pub(super) fn admit_again(&self, admitted: &Admitted, uri: &Uri) -> Result<(), Rejection> {
        let target = uri.authority().map(|authority| authority.as_str().as_bytes());
        self.check_host(target.or(admitted.host.as_ref().map(HeaderValue::as_bytes)).unwrap_or_default())?;
        match &self.required {
            // The required field has changed, and the request's value of the new one is no longer known.
            Some((name, _)) if self.required != admitted.required => Err(lacking(name)),
            Some(_) | None => Ok(()),
        }
    }
}

/// The refusal of rule 4. The log names the field; its value could be mistaken for a secret.
#[cold]
fn lacking(name: &HeaderName) -> Rejection {
    Rejection::because(
        Reason::HeaderRequired,
        anyhow::anyhow!("the request lacks the header field '{name}' with the value of require_header"),
    )
}

/// The authority of a request; empty if it has none (rule 2).
fn authority<'a>(head: &RequestHead<'a>) -> Result<&'a [u8], Malformed> {
    let mut fields = head.fields.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let (field, second) = (fields.next(), fields.next());
    let target = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    match (target, field, second) {
        (_, _, Some(_)) => Err(Malformed::TwoHosts),
        (Some(target), Some(field), None) if !agree(target, field, port(head.uri)) => Err(Malformed::HostUnlikeTarget),
        (target, field, None) => Ok(target.or(field).unwrap_or_default()),
    }
}

/// The port of a target without one.
fn port(uri: &Uri) -> u16 {
    if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 }
}

/// Whether an authority has this host (rule 8).
fn names(authority: &[u8], host: &str) -> bool {
    matches!((Host::of(authority), Host::of(host.as_bytes())), (Some(one), Some(other)) if one.is(other))
}

/// The refusal of rule 8. The log names the name of the connection, which the client has given elsewhere than in `Host`.
#[cold]
fn misdirected(name: &str) -> Rejection {
    let shown = name.as_bytes().get(..SHOWN).unwrap_or(name.as_bytes()).escape_ascii();
    Rejection::because(
        Reason::Misdirected,
        anyhow::anyhow!(
            "the connection was opened for '{shown}', in TLS or with CONNECT, and the request is for another host"
        ),
    )
}

/// The maximum number of bytes of a host in the log.
const SHOWN: usize = 100;

/// The refusal of rule 1. The log names the host, so that an operator can list it.
#[cold]
fn denied(host: &[u8]) -> Rejection {
    let shown = host.get(..SHOWN).unwrap_or(host).escape_ascii();
    Rejection::because(Reason::HostDenied, anyhow::anyhow!("the listener does not accept the host '{shown}'"))
}

/// Whether only browsers send the field (rule 3).
fn is_of_browsers(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "origin"
            | "sec-fetch-site"
            | "sec-fetch-dest"
            | "access-control-request-method"
            | "access-control-request-headers"
            | "access-control-request-private-network"
    )
}

/// Whether the field occurs once, with this value (rule 4).
fn is_only(headers: &HeaderMap, name: &HeaderName, value: &HeaderValue) -> bool {
    let mut values = headers.get_all(name).iter();
    values.next() == Some(value) && values.next().is_none()
}
