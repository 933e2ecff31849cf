//! Closed lists that are label values.

/// A kind of credential that a caller sent and that was dropped.
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
    /// `X-API-Key`, `X-Authorization` and their like.
    OtherHeader,
}

impl Credential {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Authorization, Self::ProxyAuthorization, Self::Cookie, Self::QueryParameter, Self::OtherHeader];

    /// Its label value.
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

/// What went wrong between the gate and Metrica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpstreamError {
    /// The name was not found.
    Resolve,
    /// No address accepted the connection.
    Connect,
    /// Connecting took too long.
    ConnectTimeout,
    /// The certificate was not accepted, or TLS failed otherwise.
    Tls,
    /// Too many requests at once were waiting for a connection.
    Saturated,
    /// Closed before the head of the answer.
    Closed,
    /// The answer is not HTTP.
    Protocol,
    /// No head of the answer in time.
    ResponseTimeout,
    /// The body of the answer broke off.
    BodyCut,
    /// The body of the answer stalled.
    BodyTimeout,
    /// A redirect away from Metrica.
    Redirect,
    /// The answer is packed so that it cannot be looked into.
    Encoding,
    /// The answer held the token that went out with its request.
    Reflected,
}

impl UpstreamError {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Resolve,
        Self::Connect,
        Self::ConnectTimeout,
        Self::Tls,
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

    /// Its label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
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

/// What a caller let the gate wait for until `timeouts.body_idle` was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stall {
    /// It sent no more of its request.
    Request,
    /// It took no more of its answer.
    Answer,
}

impl Stall {
    /// Its label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Answer => "answer",
        }
    }
}
