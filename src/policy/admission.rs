//! Admission: may this request reach the gate at all? Decided before policy, from what only a browser, a stranger's name or
//! a loop would bring.
//!
//! 1. On TCP a request is called by a host that the listener knows (see [`crate::host`]); otherwise `host_denied`, 403.
//!    On a unix socket any host will do.
//! 2. `Host` stands once, is a host and a port, and is the authority of an absolute-form target where both are there
//!    (RFC 9112, section 3.2); otherwise `bad_host`, 400.
//! 3. What only browsers send is refused on every listener (`browser_denied`, 403): `Origin`, `Sec-Fetch-Site`,
//!    `Sec-Fetch-Dest` and the fields of a CORS preflight, with any value. Not `Sec-Fetch-Mode`: Node's `fetch` sends it.
//! 4. Where the listener says `require_header`, that field stands once, with that value; otherwise `header_required`,
//!    403. It is read before the fields that `Connection` names go.
//! 5. A request that a gate forwarded before is a loop (`loop_detected`, 508).
//! 6. At most `limits.header_fields` fields, in any version of HTTP (`headers_too_large`, 431); a request of HTTP/2 is held
//!    to what the reader of HTTP/1.1 has seen to by now (`http2`).
//!
//! A request that has waited is held to rules 1 and 4 again: they are the configuration's.

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use rustc_hash::FxHashMap;
use strict_http::Malformed;
use strict_http::host::{Host, Hosts};

use super::decide::Head;
use super::{http2_request, via};
use crate::names::ListenerName;
use crate::policy::rejection::{Reason, Rejection};

/// Bounds of what callers may send, and of how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The request line and all fields.
    pub header_bytes: usize,
    /// The request target.
    pub target_bytes: usize,
    /// The fields of a request.
    pub header_fields: usize,
    /// Callers' connections over all listeners.
    pub connections: usize,
    /// Of them, those of one peer: an IPv4 address, an IPv6 network of 64 bits, or a user of this machine.
    pub connections_per_peer: usize,
}

/// What one listener lets in.
#[derive(Debug)]
pub struct Admission {
    /// The hosts that it is called by; `None` is any.
    hosts: Option<Hosts>,
    /// The field that it requires.
    required: Option<(HeaderName, HeaderValue)>,
}

/// What each listener lets in, made once for a configuration.
#[derive(Debug)]
pub struct Admissions(FxHashMap<ListenerName, Admission>);

/// How a request was admitted: what rules 1 and 4 read of it.
#[derive(Debug, Clone)]
pub struct Admitted {
    host: Option<HeaderValue>,
    required: Option<(HeaderName, HeaderValue)>,
}

impl Admissions {
    /// What each of these listeners lets in.
    pub fn new(listeners: impl IntoIterator<Item = (ListenerName, Admission)>) -> Self {
        Self(listeners.into_iter().collect())
    }

    /// What `listener` lets in. Every listener of the configuration is there; one that were not would let nobody in.
    pub(super) fn of(&self, listener: ListenerName) -> Result<&Admission, Rejection> {
        self.0.get(&listener).ok_or_else(|| Reason::HostDenied.into())
    }
}

impl Admission {
    /// What a listener lets in that is called by these hosts, or by any, and requires this field.
    #[must_use]
    pub const fn new(hosts: Option<Hosts>, required: Option<(HeaderName, HeaderValue)>) -> Self {
        Self { hosts, required }
    }

    /// Whether it may be called by the host of `authority` (rules 1 and 2).
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

    /// Holds a request to the rules of this module, with these bounds.
    pub(super) fn admit(&self, head: &Head<'_>, limits: &Limits) -> Result<Admitted, Rejection> {
        if head.fields.len() > limits.header_fields {
            return Err(Malformed::TooManyFields.into());
        }
        if head.version == Version::HTTP_2 {
            http2_request::check(head, limits.header_bytes)?;
        }
        self.check_host(authority(head)?)?;
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

    /// Holds a request that was admitted before to rules 1 and 4.
    pub(super) fn admit_again(&self, admitted: &Admitted, uri: &Uri) -> Result<(), Rejection> {
        let target = uri.authority().map(|authority| authority.as_str().as_bytes());
        self.check_host(target.or(admitted.host.as_ref().map(HeaderValue::as_bytes)).unwrap_or_default())?;
        match &self.required {
            // Another field than the one that the request had: whether it has that too is not known any more.
            Some((name, _)) if self.required != admitted.required => Err(lacking(name)),
            Some(_) | None => Ok(()),
        }
    }
}

/// The log says which field it is; its value could be taken for a secret.
#[cold]
fn lacking(name: &HeaderName) -> Rejection {
    Rejection::because(
        Reason::HeaderRequired,
        anyhow::anyhow!("the request lacks '{name}' with the value of require_header"),
    )
}

/// By what the gate is called in a request: empty where it does not say (rule 2).
fn authority<'a>(head: &Head<'a>) -> Result<&'a [u8], Malformed> {
    let mut fields = head.fields.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let (field, second) = (fields.next(), fields.next());
    let target = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    match (target, field, second) {
        (_, _, Some(_)) => Err(Malformed::TwoHosts),
        (Some(target), Some(field), None) if !target.eq_ignore_ascii_case(field) => Err(Malformed::HostUnlikeTarget),
        (target, field, None) => Ok(target.or(field).unwrap_or_default()),
    }
}

/// So much of a host is said in the log.
const SHOWN: usize = 100;

/// The log says which host it was, so that an operator can list it.
#[cold]
fn denied(host: &[u8]) -> Rejection {
    let shown = host.get(..SHOWN).unwrap_or(host).escape_ascii();
    Rejection::because(Reason::HostDenied, anyhow::anyhow!("the request is for the host '{shown}'"))
}

/// Rule 3.
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

/// Rule 4.
fn is_only(headers: &HeaderMap, name: &HeaderName, value: &HeaderValue) -> bool {
    let mut values = headers.get_all(name).iter();
    values.next() == Some(value) && values.next().is_none()
}
