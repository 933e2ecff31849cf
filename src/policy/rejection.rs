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
        "The request needs one Host: a name or an address, the same as in the target where that has one.";
    BadFraming = "bad_framing", BAD_REQUEST, InvalidParameter, None,
        "The length of the request's body is ambiguous: it is one Content-Length or Transfer-Encoding: chunked, to the letter.";
    BadTarget = "bad_target", BAD_REQUEST, InvalidParameter, None,
        "The request target could mean two things: a slash at its end, an empty or dot segment, a character that has to be percent-encoded, or id, ulogin or direct_client_logins twice (join the values with commas).";
    TargetTooLong = "target_too_long", URI_TOO_LONG, InvalidParameter, None,
        "The request target is longer than limits.target_bytes of the gate.";
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, InvalidParameter, None,
        "The request header is larger than limits.header_bytes of the gate, or has more fields than limits.header_fields.";
    FormBody = "form_body", UNSUPPORTED_MEDIA_TYPE, InvalidParameter, None,
        "The Metrica API takes no form. Send JSON and say so (requests: json=; axios: an object; curl: --json; PHP, wget, Go and HttpURLConnection: the field Content-Type: application/json), parameters in the query, a file as multipart/form-data.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, InvalidParameter, None,
        "The Metrica API does not have this method.";
    UnknownCaller = "unknown_caller", UNAUTHORIZED, Unauthorized, None,
        "The gate does not know this caller: no entry of callers in its configuration matches the connection.";
    HostDenied = "host_denied", FORBIDDEN, AccessDenied, None,
        "The gate is not called by this host; it can be added to hosts of the listener in the gate's configuration.";
    BrowserDenied = "browser_denied", FORBIDDEN, AccessDenied, None,
        "The gate does not serve browsers: the request has Origin, Sec-Fetch-Site or another field that only they send.";
    HeaderRequired = "header_required", FORBIDDEN, AccessDenied, None,
        "The request lacks the field that require_header of the listener in the gate's configuration asks for.";
    LoopDetected = "loop_detected", LOOP_DETECTED, BackendError, None,
        "A gate has forwarded this request before: upstream.url or upstream.connect_to leads to a gate.";
    UnknownOperation = "unknown_operation", NOT_FOUND, NotFound, None,
        "The Metrica API has no such path that the gate knows; a newer one can be added under operations.";
    MethodDenied = "method_denied", FORBIDDEN, AccessDenied, None,
        "The Metrica API does not have this method at this path.";
    ScopeDenied = "scope_denied", FORBIDDEN, AccessDenied, None,
        "The scopes of this caller do not allow this operation.";
    CounterDenied = "counter_denied", FORBIDDEN, AccessDenied, None,
        "The counters of this caller do not allow this request: it names another one, one that the gate cannot read, none where one is needed, or works on the whole account. The answer says which.";
    LoginDenied = "login_denied", FORBIDDEN, AccessDenied, None,
        "This caller may not ask in the name of this login, or of none, or give this one access: those that it may are listed under ulogin and grantees of the caller in the gate's configuration.";
    ListDenied = "list_denied", FORBIDDEN, AccessDenied, None,
        "This caller may not list all counters; where its entry in the gate's configuration says list: filter it gets its own, as JSON and without callback.";
    DestructiveDenied = "destructive_denied", FORBIDDEN, AccessDenied, None,
        "This caller may not do what the API cannot undo, be it by a parameter; its entry in the gate's configuration says destructive: deny.";
    SharingDenied = "sharing_denied", FORBIDDEN, AccessDenied, None,
        "This caller may not give somebody else access; its entry in the gate's configuration says sharing: deny.";
    CallbackDenied = "callback_denied", FORBIDDEN, AccessDenied, None,
        "This caller may not have an answer made a script; leave callback out, or allow it under callback of the caller in the gate's configuration.";
    SecretDenied = "secret_denied", FORBIDDEN, AccessDenied, None,
        "This caller may not read or make tokens of the Measurement Protocol; leave measurement_tokens out of field, or allow them under measurement_tokens of the caller in the gate's configuration.";
    BodyUnreadable = "body_unreadable", UNSUPPORTED_MEDIA_TYPE, InvalidParameter, None,
        "The body has to be read for the rules of this caller: send one JSON document in UTF-8 without repeated keys, plain or in gzip, with Content-Type: application/json; or a file of an upload as multipart/form-data.";
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, InvalidParameter, None,
        "The body has to be read for the rules of this caller, which the gate does up to 1 MiB; send data of an upload as multipart/form-data.";
    BodyTooSlow = "body_too_slow", REQUEST_TIMEOUT, Timeout, None,
        "The rest of the request's body did not come in time: timeouts.body_idle of the gate between two pieces of it, 30 s in all where the gate reads it for the rules of this caller.";
    BadAccount = "bad_account", BAD_REQUEST, InvalidParameter, None,
        "X-Gate-Account names no token that this caller may use for this operation. Send the name of one, or leave the field out.";
    SeveralAccounts = "several_accounts", BAD_REQUEST, InvalidParameter, None,
        "The request names counters of several accounts, and Metrica answers for one account at a time. Send one request per account.";
    TokenScopeMissing = "token_scope_missing", FORBIDDEN, AccessDenied, None,
        "None of the tokens of this caller is declared to have a scope that this operation needs.";
    TokenUnavailable = "token_unavailable", SERVICE_UNAVAILABLE, BackendError, Some(5),
        "The gate has no usable token for this operation; its file is missing or was never valid.";
    TokenSuspended = "token_suspended", SERVICE_UNAVAILABLE, BackendError, Some(30),
        "Metrica takes the gate's token for invalid, so nothing is sent with it until its file changes or Metrica takes it again; the gate's operator has to replace it.";
    Outage = "outage", SERVICE_UNAVAILABLE, BackendError, Some(30),
        "Metrica rejects tokens of several accounts at once, so nothing is sent with them until it accepts them again. That is a fault at Yandex, or an application whose tokens they all are was edited or deleted; the gate asks again by itself.";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, BackendError, Some(1),
        "The gate has reached a limit: limits.connections, limits.connections_per_peer or upstream.connections; or its memory for bodies that it reads for the rules of callers (16 MiB per worker, 2 MiB per connection).";
    RequestTimeout = "request_timeout", GATEWAY_TIMEOUT, Timeout, None,
        "The request took longer than timeouts.request of the gate; it may have been processed.";
    UpstreamUnreachable = "upstream_unreachable", SERVICE_UNAVAILABLE, BackendError, Some(5),
        "The gate could not connect to the Metrica API; nothing was sent.";
    UpstreamTls = "upstream_tls", BAD_GATEWAY, BackendError, None,
        "The gate could not verify the Metrica API's certificate or agree on TLS; nothing was sent.";
    UpstreamClosed = "upstream_closed", BAD_GATEWAY, BackendError, None,
        "The Metrica API closed the connection before it answered; the request may have been processed.";
    UpstreamProtocol = "upstream_protocol", BAD_GATEWAY, BackendError, None,
        "The Metrica API's answer is not valid HTTP, or has two meanings.";
    UpstreamRedirect = "upstream_redirect", BAD_GATEWAY, BackendError, None,
        "The Metrica API's answer is a redirect that leads away from it.";
    UpstreamEncoding = "upstream_encoding", BAD_GATEWAY, BackendError, None,
        "The Metrica API's answer is packed in a way that the gate cannot look into.";
    UpstreamReflection = "upstream_reflection", BAD_GATEWAY, BackendError, None,
        "The Metrica API's answer holds the token of the gate, where it cannot be taken out.";
    UpstreamTimeout = "upstream_timeout", GATEWAY_TIMEOUT, Timeout, None,
        "The Metrica API did not answer in the time of upstream.timeouts.";
    Internal = "internal", INTERNAL_SERVER_ERROR, BackendError, None,
        "The gate is in a state that it must never be in, which is a fault of the gate; the request may have been processed. Report it with the X-Request-ID of this response.";
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

/// A refused request.
#[derive(Debug)]
pub struct Rejection {
    /// The reason returned to the caller.
    pub reason: Reason,
    /// The scopes that are needed and those that are held, where that is the reason; for the caller and the access line.
    pub lacking: Option<Lacking>,
    /// The underlying error, for the log only.
    pub cause: Option<anyhow::Error>,
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self { reason, lacking: None, cause: None }
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

impl Rejection {
    /// Creates a rejection with its cause.
    #[must_use]
    pub fn because(reason: Reason, cause: impl Into<anyhow::Error>) -> Self {
        Self { reason, lacking: None, cause: Some(cause.into()) }
    }

    /// What the gate takes for granted is not so: a fault of the gate, which ends tests and is counted and logged elsewhere.
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
    fn what_is_broken_inside_is_the_cause() {
        let rejection = Rejection::internal("a token goes out for what was read");
        assert_eq!((rejection.reason, rejection.reason.answer().status.as_u16()), (Reason::Internal, 500));
        assert_eq!(rejection.cause.unwrap().to_string(), "a token goes out for what was read");
    }

    #[test]
    fn only_what_was_not_sent_may_be_sent_again() {
        for reason in Reason::ALL.iter().filter(|reason| reason.answer().retry_after.is_some()) {
            assert_eq!(reason.answer().status, StatusCode::SERVICE_UNAVAILABLE, "{reason:?}");
        }
    }
}
