//! Closed enums used as label values.

use metrica::operation::{Destructive, Operation, Shares};
use rustls::HandshakeKind;

/// A kind of credential that a caller sent and the gate removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Credential {
    /// `Authorization`, of any scheme.
    Authorization,
    /// `Proxy-Authorization`.
    ProxyAuthorization,
    /// `Cookie`.
    Cookie,
    /// `oauth_token=` or `access_token=` in the query.
    QueryParameter,
    /// `X-API-Key`, `X-Authorization` and similar fields.
    OtherHeader,
}

impl Credential {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Authorization, Self::ProxyAuthorization, Self::Cookie, Self::QueryParameter, Self::OtherHeader];

    /// Returns the label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::ProxyAuthorization => "proxy_authorization",
            Self::Cookie => "cookie",
            Self::QueryParameter => "query_parameter",
            Self::OtherHeader => "other_header",
        }
    }
}

/// An error between the gate and Metrica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpstreamError {
    /// The name was not found.
    Resolve,
    /// No address accepted the connection.
    Connect,
    /// Connecting timed out.
    ConnectTimeout,
    /// The certificate was rejected, or TLS failed otherwise.
    Tls,
    /// The name of the proxy was not found.
    ProxyResolve,
    /// No address of the proxy accepted the connection.
    ProxyConnect,
    /// Connecting to the proxy timed out.
    ProxyConnectTimeout,
    /// The proxy did not respond to CONNECT in time.
    ProxyTimeout,
    /// The proxy closed the connection before it responded to CONNECT.
    ProxyClosed,
    /// The proxy requires other credentials.
    ProxyCredentials,
    /// The proxy refused the tunnel.
    ProxyDenied,
    /// The proxy could not open the tunnel.
    ProxyFailed,
    /// The response of the proxy is not valid HTTP.
    ProxyProtocol,
    /// Too many requests were waiting for a connection.
    Saturated,
    /// The connection was closed before the head of the response.
    Closed,
    /// The response is not HTTP.
    Protocol,
    /// The head of the response timed out.
    ResponseTimeout,
    /// The body of the response was cut off.
    BodyCut,
    /// The body of the response stalled.
    BodyTimeout,
    /// A redirect away from Metrica.
    Redirect,
    /// The encoding of the response cannot be inspected.
    Encoding,
    /// The response contained the token of its request.
    Reflected,
}

impl UpstreamError {
    /// All kinds.
    pub const ALL: [Self; 22] = [
        Self::Resolve,
        Self::Connect,
        Self::ConnectTimeout,
        Self::Tls,
        Self::ProxyResolve,
        Self::ProxyConnect,
        Self::ProxyConnectTimeout,
        Self::ProxyTimeout,
        Self::ProxyClosed,
        Self::ProxyCredentials,
        Self::ProxyDenied,
        Self::ProxyFailed,
        Self::ProxyProtocol,
        Self::Saturated,
        Self::Closed,
        Self::Protocol,
        Self::ResponseTimeout,
        Self::BodyCut,
        Self::BodyTimeout,
        Self::Redirect,
        Self::Encoding,
        Self::Reflected,
    ];

    /// Returns the label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::ProxyResolve => "proxy_resolve",
            Self::ProxyConnect => "proxy_connect",
            Self::ProxyConnectTimeout => "proxy_connect_timeout",
            Self::ProxyTimeout => "proxy_timeout",
            Self::ProxyClosed => "proxy_closed",
            Self::ProxyCredentials => "proxy_credentials",
            Self::ProxyDenied => "proxy_denied",
            Self::ProxyFailed => "proxy_failed",
            Self::ProxyProtocol => "proxy_protocol",
            Self::Saturated => "saturated",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::ResponseTimeout => "response_timeout",
            Self::BodyCut => "body_cut",
            Self::BodyTimeout => "body_timeout",
            Self::Redirect => "redirect",
            Self::Encoding => "encoding",
            Self::Reflected => "reflected",
        }
    }
}

/// The wait for a caller that exceeded `timeouts.body_idle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stall {
    /// The caller stopped sending its request.
    Request,
    /// The caller stopped reading the response.
    Answer,
}

impl Stall {
    /// Returns the label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Answer => "answer",
        }
    }
}

/// The result of a TLS handshake with a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Handshake {
    /// A new session.
    Full,
    /// A resumed session.
    Resumed,
    /// No session: TLS failed, or the caller disconnected.
    Failed,
    /// No session within `timeouts.request_headers`.
    Late,
}

impl Handshake {
    /// All results.
    pub const ALL: [Self; 4] = [Self::Full, Self::Resumed, Self::Failed, Self::Late];

    /// Returns the result of a completed handshake.
    #[must_use]
    pub const fn of(kind: Option<HandshakeKind>) -> Self {
        match kind {
            Some(HandshakeKind::Resumed) => Self::Resumed,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => Self::Full,
        }
    }

    /// Returns the label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Failed => "failed",
            Self::Late => "timeout",
        }
    }
}

/// The content of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelContent {
    /// TLS, on port 443.
    Tls,
    /// Clear text, on port 80.
    ClearText,
}

impl TunnelContent {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Tls, Self::ClearText];

    /// Returns the label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::ClearText => "clear_text",
        }
    }
}

/// A mark of an operation in the catalogue: it cannot be undone, or it gives somebody access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// The API cannot undo the operation.
    Destructive,
    /// The API cannot undo the operation if the request has a certain parameter or member.
    MaybeDestructive,
    /// The operation gives somebody access.
    Shares,
    /// The operation gives somebody access if the body names a login.
    MaybeShares,
}

impl Mark {
    /// Returns the marks of an operation.
    #[must_use]
    pub const fn of(operation: &Operation) -> [Option<Self>; 2] {
        let destructive = match operation.destructive {
            Destructive::Never => None,
            Destructive::Always => Some(Self::Destructive),
            Destructive::With(_) => Some(Self::MaybeDestructive),
        };
        let shares = match operation.shares {
            Shares::Nothing => None,
            Shares::Named | Shares::Anyone | Shares::Secret => Some(Self::Shares),
            Shares::Perhaps => Some(Self::MaybeShares),
        };
        [destructive, shares]
    }

    /// Returns the label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Destructive => "destructive",
            Self::MaybeDestructive => "maybe_destructive",
            Self::Shares => "shares",
            Self::MaybeShares => "maybe_shares",
        }
    }
}

/// The reason why a request is sent to Metrica again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resent {
    /// Its connection failed before Metrica processed it.
    Connection,
    /// Metrica denied it with the token of one account, and another account may have access.
    Account,
    /// Metrica refused it because of a quota.
    Quota,
}

impl Resent {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::Connection, Self::Account, Self::Quota];

    /// Returns the label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Account => "account",
            Self::Quota => "quota",
        }
    }
}
