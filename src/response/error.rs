//! Why a response of Metrica is not passed on, or ends before its end.

use super::list_filter::NotAList;
use crate::metrics::UpstreamError;
use crate::policy::rejection::{Reason, Rejection};
use crate::upstream::broken::Broken;

/// Why a response is not passed on, or ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// Its head has two meanings.
    #[error("the upstream's answer has two meanings")]
    Ambiguous,
    /// Its body is compressed in a way that cannot be looked into.
    #[error("the upstream's body is in a coding that cannot be looked into")]
    Encoding,
    /// It leads away from the gate.
    #[error("the upstream's answer leads away from the gate")]
    Redirect,
    /// Its head shows that it cannot be filtered.
    #[error(transparent)]
    NotFilterable(NotAList),
    /// The connection failed.
    #[error("the upstream's body broke off")]
    Upstream(#[source] Broken),
    /// Nothing came for `upstream.timeouts.body_idle`.
    #[error("the upstream's body stalled")]
    Stalled,
    /// A stream of HTTP/2 was reset without saying why.
    #[error("the stream was reset before the body's end")]
    Reset,
    /// The token that went out came back, where it cannot be overwritten.
    #[error("the upstream's body holds the token")]
    Reflected,
    /// Whether the token comes back cannot be seen.
    #[error("the upstream's body cannot be looked through")]
    Unreadable,
    /// It should be filtered, and is nothing that can be.
    #[error("the upstream's body cannot be filtered: {0}")]
    NotAList(#[source] NotAList),
}

impl ResponseError {
    /// As what it is counted.
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

    /// What the caller gets, where nothing of the response went out yet.
    #[must_use]
    pub fn into_rejection(self) -> Rejection {
        let reason = match &self {
            // The reason says all there is: no cause for the log.
            Self::Ambiguous => return Reason::UpstreamProtocol.into(),
            Self::Encoding => return Reason::UpstreamEncoding.into(),
            Self::Redirect => return Reason::UpstreamRedirect.into(),
            Self::NotFilterable(_) | Self::Unreadable => Reason::UpstreamEncoding,
            Self::Upstream(broken) if broken.is_of_the_protocol() => Reason::UpstreamProtocol,
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
