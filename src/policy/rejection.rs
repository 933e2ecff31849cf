//! The responses of the gate itself, in one table.
//!
//! 1. The body has Metrica's format: `{"errors":[{"error_type","message"}],"code","message"}`, with documented error types
//!    only, because clients fail on anything else (an extra key, an unknown type, an empty body).
//! 2. `X-Gate-Error: <reason>` distinguishes the gate's responses from Metrica's, which never have it.
//! 3. The message states the remedy. A malformed request has the message of its kind ([`Malformed`]), and one that breaks a
//!    rule of its caller has that of the breach ([`crate::policy::rules::Breach`]). If scopes are missing, the message names
//!    them ([`metrica::scope::Lacking`]); if a token is refused, it contains the time of the refusal and of the next request
//!    to Metrica. It contains nothing of the request except the number of a counter.
//!
//! `docs/rejections.md` is generated from this table.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use metrica::error_type::ErrorType;
use metrica::scope::Lacking;
use strict_http::{Class, Malformed};

use crate::policy::caller::NoCaller;

macro_rules! reasons {
    ($($variant:ident = $name:literal, $status:ident, $error_type:ident, $retry:expr, $message:literal;)*) => {
        /// The reason of a refusal: the `X-Gate-Error` field, the metric label and the log field.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $message] $variant,)*
        }

        impl Reason {
            /// All reasons, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name of the reason.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The response for this reason.
            #[must_use]
            pub const fn answer(self) -> RejectionResponse {
                match self {
                    $(Self::$variant => RejectionResponse {
                        status: StatusCode::$status,
                        error_type: ErrorType::$error_type,
                        retry_after: $retry,
                        message: $message,
                    },)*
                }
            }
        }
    };
}

reasons! {
    MalformedRequest = "malformed_request", BAD_REQUEST, InvalidParameter, None,
        "The request is not valid HTTP.";
    BadHost = "bad_host", BAD_REQUEST, InvalidParameter, None,
        "The request must have exactly one valid Host, equal to the host in the target if that has one.";
    BadFraming = "bad_framing", BAD_REQUEST, InvalidParameter, None,
        "The length of the request body is ambiguous. Send either one Content-Length or Transfer-Encoding: chunked.";
    BadTarget = "bad_target", BAD_REQUEST, InvalidParameter, None,
        "The request target is ambiguous: an empty or dot segment, a trailing slash for a caller with strict: true, a character that must be percent-encoded, or a repeated id, ulogin or direct_client_logins (join the values with commas).";
    TargetTooLong = "target_too_long", URI_TOO_LONG, InvalidParameter, None,
        "The request target exceeds limits.target_bytes of the gate.";
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, InvalidParameter, None,
        "The request header exceeds limits.header_bytes or limits.header_fields of the gate.";
    FormBody = "form_body", UNSUPPORTED_MEDIA_TYPE, InvalidParameter, None,
        "The Metrica API does not accept HTML forms. Send JSON with Content-Type: application/json (requests: json=; axios: an object; curl: --json; PHP, wget, Go and HttpURLConnection: set the header field), parameters in the query, and files as multipart/form-data.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, InvalidParameter, None,
        "The Metrica API does not support this method.";
    UnknownCaller = "unknown_caller", UNAUTHORIZED, Unauthorized, None,
        "Unknown caller: no entry under callers in the gate's configuration matches this connection.";
    CertificateRequired = "certificate_required", UNAUTHORIZED, Unauthorized, None,
        "This listener requires a client certificate. Connect with TLS and a certificate of an authority that the listener trusts (client_ca).";
    CertificateExpired = "certificate_expired", UNAUTHORIZED, Unauthorized, None,
        "The client certificate of this connection has expired. Connect again with a valid one.";
    CertificateRejected = "certificate_rejected", UNAUTHORIZED, Unauthorized, None,
        "The listener no longer accepts the client certificate of this connection: its authority is not in client_ca. Connect again with a certificate of an authority that the listener trusts.";
    KeyUnknown = "key_unknown", UNAUTHORIZED, Unauthorized, None,
        "Unknown key: the request offers a key (mgk_...) that is mistyped, or that no entry under callers in the gate's configuration has. Send the key as it was issued, or ask the gate's operator for a new one.";
    KeysDiffer = "keys_differ", UNAUTHORIZED, Unauthorized, None,
        "The request offers two different keys (mgk_...), in its fields, its query or its tunnel. Send one.";
    ServiceAccountInvalid = "service_account_invalid", UNAUTHORIZED, Unauthorized, None,
        "The service account token of the request is invalid: its form, algorithm, signature, issuer, subject or nbf is wrong, or there are several.";
    ServiceAccountAudience = "service_account_audience", UNAUTHORIZED, Unauthorized, None,
        "The service account token of the request is for another audience. Mount a projected token with the audience that the gate's configuration requires (service_accounts.audience).";
    ServiceAccountExpired = "service_account_expired", UNAUTHORIZED, Unauthorized, None,
        "The service account token of the request has expired. Read the file of the projected token again for each request, because Kubernetes replaces it.";
    ServiceAccountKey = "service_account_key", UNAUTHORIZED, Unauthorized, None,
        "The gate does not know the key of the service account token. If the cluster has just replaced its keys, repeat the request after ten seconds; otherwise the token is of another cluster.";
    ServiceAccountKeys = "service_account_keys", SERVICE_UNAVAILABLE, BackendError, Some(10),
        "The gate cannot verify service account tokens now, because it has not received the keys of the cluster yet; nothing was sent. Ask the gate's operator to check service_accounts.";
    HostDenied = "host_denied", FORBIDDEN, AccessDenied, None,
        "The listener does not accept this Host. Use one that it accepts, or add this one to hosts of the listener in the gate's configuration.";
    DestinationDenied = "destination_denied", FORBIDDEN, AccessDenied, None,
        "This proxy serves only the Metrica API: api-metrika.yandex.net and its other names, on ports 443 and 80. Set it for clients of the API alone, or list other hosts in NO_PROXY.";
    Misdirected = "misdirected", MISDIRECTED_REQUEST, InvalidParameter, None,
        "The Host of the request differs from the name that its connection was opened for, in TLS (SNI) or with CONNECT. Send the host of the URL as Host.";
    BrowserDenied = "browser_denied", FORBIDDEN, AccessDenied, None,
        "The gate does not serve browsers: the request has Origin, Sec-Fetch-Site or another field that only browsers send.";
    HeaderRequired = "header_required", FORBIDDEN, AccessDenied, None,
        "The request lacks the header field that require_header of the listener in the gate's configuration requires.";
    LoopDetected = "loop_detected", LOOP_DETECTED, BackendError, None,
        "A gate has already forwarded this request: upstream.url or upstream.connect_to leads to a gate. Correct it in the gate's configuration.";
    UnknownOperation = "unknown_operation", NOT_FOUND, NotFound, None,
        "The gate does not know this path of the Metrica API. Check the path, or add a newer endpoint under operations in the gate's configuration.";
    MethodDenied = "method_denied", FORBIDDEN, AccessDenied, None,
        "The Metrica API does not support this method on this path.";
    ScopeDenied = "scope_denied", FORBIDDEN, AccessDenied, None,
        "The scopes of this caller do not allow this operation.";
    CounterDenied = "counter_denied", FORBIDDEN, AccessDenied, None,
        "The counters of this caller do not allow this request: it names another counter, an unreadable one, none where one is required, or affects the whole account.";
    LoginDenied = "login_denied", FORBIDDEN, AccessDenied, None,
        "This caller may not use this login in ulogin, leave ulogin out, or give this login access: ulogin and grantees of the caller in the gate's configuration list the allowed logins.";
    ListDenied = "list_denied", FORBIDDEN, AccessDenied, None,
        "This caller may not list all counters. With list: filter in its entry in the gate's configuration it gets its own counters, as JSON and without callback.";
    DestructiveDenied = "destructive_denied", FORBIDDEN, AccessDenied, None,
        "Operations and parameters with effects that the API cannot undo are not allowed for this caller: its entry in the gate's configuration has destructive: deny.";
    SharingDenied = "sharing_denied", FORBIDDEN, AccessDenied, None,
        "This caller may not give somebody else access: its entry in the gate's configuration has sharing: deny.";
    CallbackDenied = "callback_denied", FORBIDDEN, AccessDenied, None,
        "JSONP (`callback`) is not allowed for this caller. Leave callback out, or set callback: allow for the caller in the gate's configuration.";
    SecretDenied = "secret_denied", FORBIDDEN, AccessDenied, None,
        "Measurement Protocol tokens are not allowed for this caller. Remove measurement_tokens from field, or set measurement_tokens: allow for the caller in the gate's configuration.";
    BodyUnreadable = "body_unreadable", UNSUPPORTED_MEDIA_TYPE, InvalidParameter, None,
        "The gate must read this body to check the rules of this caller. Send one JSON document in UTF-8, without repeated keys, plain or in gzip, with Content-Type: application/json; or a file of an upload as multipart/form-data.";
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, InvalidParameter, None,
        "The body exceeds 1 MiB, the most that the gate reads to check the rules of this caller. Send data of an upload as multipart/form-data.";
    BodyTooSlow = "body_too_slow", REQUEST_TIMEOUT, Timeout, None,
        "The request body did not arrive in time: timeouts.body_idle of the gate limits the pause between two parts, and 30 s the whole body where the gate reads it to check the rules of this caller.";
    BadAccount = "bad_account", BAD_REQUEST, InvalidParameter, None,
        "X-Gate-Account names no token that this caller may use for this operation. Send the name of such a token, or omit the field.";
    SeveralAccounts = "several_accounts", BAD_REQUEST, InvalidParameter, None,
        "The request names counters of several accounts, and Metrica serves one account at a time. Send one request per account.";
    TokenScopeMissing = "token_scope_missing", FORBIDDEN, AccessDenied, None,
        "No token of this caller declares a scope that this operation needs.";
    TokenUnavailable = "token_unavailable", SERVICE_UNAVAILABLE, BackendError, Some(5),
        "The gate has no usable token for this operation: the token file is missing or was never valid.";
    TokenSuspended = "token_suspended", SERVICE_UNAVAILABLE, BackendError, Some(30),
        "Metrica rejected the gate's token as invalid; it is suspended until its file changes or a probe succeeds. Ask the gate's operator to replace it.";
    Outage = "outage", SERVICE_UNAVAILABLE, BackendError, Some(30),
        "Metrica rejects tokens of several accounts at once; they are suspended until a probe succeeds. The cause is a fault at Yandex, or an edited or deleted application that issued all of them. The gate probes automatically.";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, BackendError, Some(1),
        "The gate has reached a limit: limits.connections, limits.connections_per_peer, upstream.connections, or the memory for request bodies that it checks (16 MiB per worker, 2 MiB per connection). Try again later.";
    QuotaWait = "quota_wait", TOO_MANY_REQUESTS, QuotaRequestsByUid, None,
        "A quota of Metrica is in use, and the request would wait longer than it may. Repeat it after Retry-After.";
    QuotaFull = "quota_full", TOO_MANY_REQUESTS, QuotaRequestsByUid, None,
        "Too many requests wait for a quota of Metrica. Send fewer at a time, and repeat this one after Retry-After.";
    QuotaBudget = "quota_budget", TOO_MANY_REQUESTS, QuotaRequestsByUid, None,
        "This caller has spent its own budget of a quota of Metrica. Repeat the request after Retry-After.";
    QuotaDraining = "quota_draining", SERVICE_UNAVAILABLE, BackendError, Some(1),
        "The gate stops, and the request waited for a quota of Metrica; nothing was sent. Repeat it.";
    QuotaStoreUnavailable = "quota_store_unavailable", SERVICE_UNAVAILABLE, BackendError, Some(1),
        "The store in which gates share the quotas of Metrica is unavailable, and this gate sends nothing without it (quota.store.on_loss: refuse).";
    RequestTimeout = "request_timeout", GATEWAY_TIMEOUT, Timeout, None,
        "The request exceeded timeouts.request of the gate; it may have been processed.";
    UpstreamUnreachable = "upstream_unreachable", SERVICE_UNAVAILABLE, BackendError, Some(5),
        "The gate could not connect to the Metrica API; nothing was sent.";
    ProxyUnreachable = "proxy_unreachable", SERVICE_UNAVAILABLE, BackendError, Some(5),
        "The gate could not connect to the proxy through which it reaches the Metrica API (upstream.proxy); nothing was sent.";
    ProxyCredentials = "proxy_credentials", BAD_GATEWAY, BackendError, None,
        "The proxy through which the gate reaches the Metrica API did not accept the gate's credentials; nothing was sent. Ask the gate's operator to correct upstream.proxy_auth_file.";
    ProxyDenied = "proxy_denied", BAD_GATEWAY, BackendError, None,
        "The proxy through which the gate reaches the Metrica API does not allow the connection; nothing was sent. Ask the operator of the proxy to allow CONNECT to the Metrica API.";
    ProxyFailed = "proxy_failed", SERVICE_UNAVAILABLE, BackendError, Some(5),
        "The proxy through which the gate reaches the Metrica API could not connect to it, or did not respond in time; nothing was sent.";
    ProxyProtocol = "proxy_protocol", BAD_GATEWAY, BackendError, None,
        "The proxy through which the gate reaches the Metrica API closed the connection or did not respond with valid HTTP; nothing was sent. Ask the gate's operator to check upstream.proxy.";
    UpstreamTls = "upstream_tls", BAD_GATEWAY, BackendError, None,
        "The gate could not verify the Metrica API's certificate or negotiate TLS; nothing was sent.";
    UpstreamClosed = "upstream_closed", BAD_GATEWAY, BackendError, None,
        "The Metrica API closed the connection before it responded; the request may have been processed.";
    UpstreamProtocol = "upstream_protocol", BAD_GATEWAY, BackendError, None,
        "The Metrica API's response is not valid HTTP, or is ambiguous.";
    UpstreamRedirect = "upstream_redirect", BAD_GATEWAY, BackendError, None,
        "The Metrica API's response is a redirect that leads away from the API.";
    UpstreamEncoding = "upstream_encoding", BAD_GATEWAY, BackendError, None,
        "The Metrica API's response is compressed in a way that the gate cannot decode.";
    UpstreamReflection = "upstream_reflection", BAD_GATEWAY, BackendError, None,
        "The Metrica API's response contains the gate's token where the gate cannot remove it.";
    UpstreamTimeout = "upstream_timeout", GATEWAY_TIMEOUT, Timeout, None,
        "The Metrica API did not respond within upstream.timeouts.";
    Internal = "internal", INTERNAL_SERVER_ERROR, BackendError, None,
        "The gate reached an invalid internal state, which is a bug; the request may have been processed. Report it with the X-Request-ID of this response.";
}

/// The response to a caller for a [`Reason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RejectionResponse {
    /// The status.
    pub status: StatusCode,
    /// The `error_type` of Metrica.
    pub error_type: ErrorType,
    /// The value of `Retry-After` in seconds; only set if nothing was sent to Metrica.
    pub retry_after: Option<u8>,
    /// The message for people.
    pub message: &'static str,
}

impl RejectionResponse {
    /// The body (rule 1).
    #[must_use]
    pub fn body(self) -> Bytes {
        self.body_with(self.message)
    }

    /// The body with another message, which must not need escaping.
    #[must_use]
    pub fn body_with(self, message: &str) -> Bytes {
        let (error_type, code) = (self.error_type.as_str(), self.status.as_u16());
        // Messages are constants of this program that need no escaping; tests verify that.
        format!(
            r#"{{"errors":[{{"error_type":"{error_type}","message":"{message}"}}],"code":{code},"message":"{message}"}}"#
        )
        .into()
    }
}

impl Reason {
    /// The name as a field value.
    #[must_use]
    pub const fn field(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }
}

/// Formats `what`, which begins with a lower-case letter and has no full stop, as a sentence.
#[must_use]
pub fn sentence(what: impl std::fmt::Display) -> String {
    use std::fmt::Write as _;

    // Room for most, so that it need not grow.
    let mut text = String::with_capacity(160);
    // Writing into memory does not fail.
    let _ = write!(text, "{what}.");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// The details of a refusal by a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaRefusal {
    /// The limit.
    pub limit: &'static str,
    /// The `error_type` of Metrica for this limit.
    pub error_type: ErrorType,
    /// `Retry-After`, in seconds.
    pub seconds: u64,
}

/// A refused request.
#[derive(Debug)]
pub struct Rejection {
    /// The reason returned to the caller.
    pub reason: Reason,
    /// The scopes that are needed and those that are held, where that is the reason; for the caller and the access line.
    pub lacking: Option<Lacking>,
    /// The details, if a quota refused.
    pub quota: Option<QuotaRefusal>,
    /// The underlying error, for the log only.
    pub cause: Option<anyhow::Error>,
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self { reason, lacking: None, quota: None, cause: None }
    }
}

impl From<Malformed> for Reason {
    fn from(kind: Malformed) -> Self {
        match kind.class() {
            Class::Syntax => Self::MalformedRequest,
            Class::Host => Self::BadHost,
            Class::Framing => Self::BadFraming,
            Class::Target => Self::BadTarget,
            Class::TargetLength => Self::TargetTooLong,
            Class::HeaderSize => Self::HeadersTooLarge,
            Class::Method => Self::MethodNotAllowed,
        }
    }
}

impl From<Malformed> for Rejection {
    #[cold]
    fn from(kind: Malformed) -> Self {
        Self::because(kind.into(), kind)
    }
}

impl From<NoCaller> for Rejection {
    fn from(nobody: NoCaller) -> Self {
        match nobody {
            NoCaller::Unknown => Reason::UnknownCaller.into(),
            NoCaller::UnknownKey(_) => Self::because(Reason::KeyUnknown, nobody),
            NoCaller::Failed { .. } => Self::because(Reason::UnknownCaller, nobody),
        }
    }
}

impl Rejection {
    /// Creates a rejection with its cause.
    #[must_use]
    pub fn because(reason: Reason, cause: impl Into<anyhow::Error>) -> Self {
        Self { reason, lacking: None, quota: None, cause: Some(cause.into()) }
    }

    /// Creates the rejection for a broken invariant: a fault of the gate, which is counted and logged elsewhere. It ends tests.
    #[cold]
    #[must_use]
    pub fn internal(broken: &'static str) -> Self {
        if !cfg!(test) {
            debug_assert!(false, "{broken}");
        }
        Self::because(Reason::Internal, anyhow::Error::msg(broken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_metricas() {
        for reason in Reason::ALL {
            let answer = reason.answer();
            let body: serde_json::Value = serde_json::from_slice(&answer.body()).unwrap();
            let expected = serde_json::json!({
                "errors": [{"error_type": answer.error_type.as_str(), "message": answer.message}],
                "code": answer.status.as_u16(),
                "message": answer.message,
            });
            assert_eq!(body, expected);
        }
    }

    #[test]
    fn an_internal_error_keeps_its_cause() {
        let rejection = Rejection::internal("a token is sent for the request that was read");
        assert_eq!((rejection.reason, rejection.reason.answer().status.as_u16()), (Reason::Internal, 500));
        assert_eq!(rejection.cause.unwrap().to_string(), "a token is sent for the request that was read");
    }

    #[test]
    fn only_unsent_requests_may_be_repeated() {
        for reason in Reason::ALL.iter().filter(|reason| reason.answer().retry_after.is_some()) {
            assert_eq!(reason.answer().status, StatusCode::SERVICE_UNAVAILABLE, "{reason:?}");
        }
    }
}
