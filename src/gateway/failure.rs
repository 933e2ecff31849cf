//! Failures on the way to the upstream: counts each, and converts it into the caller's rejection.

use super::exchange::Exchange;
use super::stalled::{Bound, Stalled};
use crate::body::BodyError;
use crate::metrics::{Stall, UpstreamError};
use crate::policy::rejection::{Reason, Rejection};
use crate::upstream::broken::Broken;
use crate::upstream::dial::DialError;
use crate::upstream::own::IsThisGate;
use crate::upstream::tunnel::Refused;

/// No connection is available; nothing was sent.
pub fn not_sent(exchange: &Exchange, error: DialError) -> Rejection {
    exchange.upstream_error(error.kind());
    let reason = match &error {
        DialError::Tls { source, .. } if IsThisGate::caused(source) => Reason::LoopDetected,
        DialError::Tls { .. } => Reason::UpstreamTls,
        DialError::Saturated(_) => Reason::Overloaded,
        DialError::Proxy { source, .. } => of_proxy(source),
        DialError::Resolve { .. } | DialError::Connect { .. } | DialError::Timeout(_) => Reason::UpstreamUnreachable,
    };
    Rejection::because(reason, error)
}

/// The reason for a tunnel that the proxy did not open. None of them is a status of Metrica.
const fn of_proxy(refused: &Refused) -> Reason {
    match refused {
        Refused::Resolve { .. } | Refused::Connect(_) | Refused::ConnectTimeout(_) => Reason::ProxyUnreachable,
        Refused::Credentials { .. } => Reason::ProxyCredentials,
        Refused::Denied(_) => Reason::ProxyDenied,
        Refused::Failed(_) | Refused::Timeout(_) => Reason::ProxyFailed,
        Refused::Closed(_) | Refused::Protocol(_) => Reason::ProxyProtocol,
    }
}

/// A new connection was closed before anything was written to it.
pub fn closed_before(exchange: &Exchange, error: Broken) -> Rejection {
    exchange.upstream_error(UpstreamError::Closed);
    Rejection::because(Reason::UpstreamUnreachable, error)
}

/// The connection failed with the request on it.
pub fn broken(exchange: &Exchange, error: Broken) -> Rejection {
    if let Some(failed) = error.request_body_error::<BodyError>() {
        let rejection = caused_by_caller(exchange, failed);
        return rejection.unwrap_or_else(|| Rejection::because(Reason::MalformedRequest, error));
    }
    let (kind, reason) = if error.is_protocol_error() {
        (UpstreamError::Protocol, Reason::UpstreamProtocol)
    } else if exchange.connection.delays_others() {
        exchange.connection.note_stall(Stalled { waited_for: Stall::Request, bound: Bound::Upstream });
        return Rejection::because(Reason::BodyTooSlow, error);
    } else {
        (UpstreamError::Closed, Reason::UpstreamClosed)
    };
    exchange.upstream_error(kind);
    Rejection::because(reason, error)
}

/// The request's own body failed before anything was sent.
pub fn not_read(exchange: &Exchange, failed: BodyError) -> Rejection {
    let rejection = caused_by_caller(exchange, &failed);
    rejection.unwrap_or_else(|| Rejection::because(Reason::MalformedRequest, failed))
}

/// Classifies a failure of the request's own body: malformed chunks, a disconnect or a broken rule. Returns `None` for
/// any other failure, whose cause the rejection then carries.
fn caused_by_caller(exchange: &Exchange, failed: &BodyError) -> Option<Rejection> {
    let left = || {
        failed.is_caller_disconnect().then(|| {
            exchange.finish(false);
            Reason::MalformedRequest.into()
        })
    };
    let of_rules = || {
        let BodyError::Breach(breach) = failed else { return None };
        Some(Rejection::because(breach.reason(), *breach))
    };
    exchange.connection.body_fault().map(Rejection::from).or_else(left).or_else(of_rules)
}
