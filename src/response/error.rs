//! The reasons why a response of Metrica is not passed on, or breaks off.

use super::list_filter::NotAList;
use crate::metrics::UpstreamError;
use crate::policy::rejection::{Reason, Rejection};
use crate::upstream::broken::Broken;

/// The reason why a response is not passed on, or breaks off.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// The head is ambiguous.
    #[error("the upstream's response is ambiguous")]
    Ambiguous,
    /// The body is compressed in a way that cannot be inspected.
    #[error("the upstream's body has a content coding that the gate cannot decode")]
    Encoding,
    /// The response redirects away from the gate.
    #[error("the upstream's response redirects away from the API")]
    Redirect,
    /// The head shows that the list cannot be filtered.
    #[error(transparent)]
    NotFilterable(NotAList),
    /// The connection failed.
    #[error("the upstream's body ended prematurely")]
    Upstream(#[source] Broken),
    /// Nothing arrived for `upstream.timeouts.body_idle`.
    #[error("the upstream's body stalled")]
    Stalled,
    /// An HTTP/2 stream was reset with a code that gives no reason.
    #[error("the stream was reset before the body's end")]
    Reset,
    /// The response contains the token where it cannot be overwritten.
    #[error("the upstream's body contains the token")]
    Reflected,
    /// The body cannot be searched for the token.
    #[error("the upstream's body cannot be inspected")]
    Unreadable,
    /// The body has to be filtered, and cannot be parsed as a list.
    #[error("the upstream's body cannot be filtered: {0}")]
    NotAList(#[source] NotAList),
}

impl ResponseError {
    /// Returns the kind that the error is counted as.
    #[must_use]
    pub const fn kind(&self) -> UpstreamError {
        match self {
            Self::Ambiguous | Self::NotAList(_) => UpstreamError::Protocol,
            Self::Encoding | Self::NotFilterable(_) | Self::Unreadable => UpstreamError::Encoding,
            Self::Redirect => UpstreamError::Redirect,
            Self::Upstream(_) | Self::Reset => UpstreamError::BodyCut,
            Self::Stalled => UpstreamError::BodyTimeout,
            Self::Reflected => UpstreamError::Reflected,
        }
    }

    /// Returns the rejection that the caller gets if nothing of the response was sent.
    #[must_use]
    pub fn into_rejection(self) -> Rejection {
        let reason = match &self {
            // The reason is complete: no cause for the log.
            Self::Ambiguous => return Reason::UpstreamProtocol.into(),
            Self::Encoding => return Reason::UpstreamEncoding.into(),
            Self::Redirect => return Reason::UpstreamRedirect.into(),
            Self::NotFilterable(_) | Self::Unreadable => Reason::UpstreamEncoding,
            Self::Upstream(broken) if broken.is_protocol_error() => Reason::UpstreamProtocol,
            Self::Upstream(_) | Self::Reset => Reason::UpstreamClosed,
            Self::Stalled => Reason::UpstreamTimeout,
            Self::Reflected => Reason::UpstreamReflection,
            Self::NotAList(_) => Reason::UpstreamProtocol,
        };
        Rejection::because(reason, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_reason_and_its_count() {
        for (error, reason, kind) in [
            (ResponseError::Ambiguous, Reason::UpstreamProtocol, UpstreamError::Protocol),
            (ResponseError::Encoding, Reason::UpstreamEncoding, UpstreamError::Encoding),
            (ResponseError::Redirect, Reason::UpstreamRedirect, UpstreamError::Redirect),
            (ResponseError::NotFilterable(NotAList), Reason::UpstreamEncoding, UpstreamError::Encoding),
            (ResponseError::Upstream(Broken::Closed), Reason::UpstreamClosed, UpstreamError::BodyCut),
            (ResponseError::Upstream(Broken::HeadTooLarge), Reason::UpstreamProtocol, UpstreamError::BodyCut),
            (ResponseError::Stalled, Reason::UpstreamTimeout, UpstreamError::BodyTimeout),
            (ResponseError::Reset, Reason::UpstreamClosed, UpstreamError::BodyCut),
            (ResponseError::Reflected, Reason::UpstreamReflection, UpstreamError::Reflected),
            (ResponseError::Unreadable, Reason::UpstreamEncoding, UpstreamError::Encoding),
            (ResponseError::NotAList(NotAList), Reason::UpstreamProtocol, UpstreamError::Protocol),
        ] {
            let text = error.to_string();
            assert_eq!((error.kind(), error.into_rejection().reason), (kind, reason), "{text}");
        }
    }
}
