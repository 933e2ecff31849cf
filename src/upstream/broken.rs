//! What can go wrong on a connection to the upstream once a request is on it, and what that means for the request.

use std::error::Error as _;
use std::io;

use strict_http::chunks::NoChunks;

use super::request::Outgoing;

/// What the head of an answer may have, with all interim responses before it.
pub const HEAD_BYTES: u64 = 256 * 1024;

/// Why a connection failed with a request on it.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// It ended before the end of the answer.
    #[error("the connection was closed before the end of the answer")]
    Closed,
    /// What came is no head of an answer.
    #[error("what came is no answer of HTTP/1.1")]
    Head(#[source] httparse::Error),
    /// More was sent before the head of an answer than a head and its interim responses may have.
    #[error("the head of the answer and the interim responses before it are longer than {HEAD_BYTES} bytes")]
    HeadTooLarge,
    /// What came is no body.
    #[error(transparent)]
    Chunks(#[from] NoChunks),
    /// The body of the request failed.
    #[error("the body of the request failed")]
    RequestBody(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// HTTP/2.
    #[error("the stream failed")]
    Http2(#[source] hyper::Error),
    /// It cannot be put into the form of HTTP/2.
    #[error("the request has no form of HTTP/2")]
    Form(#[source] http::Error),
}

impl Broken {
    /// Whether what came is no answer, and not none.
    #[must_use]
    pub fn is_of_the_protocol(&self) -> bool {
        match self {
            Self::Head(_) | Self::HeadTooLarge | Self::Chunks(_) => true,
            Self::Http2(error) => {
                let reason = h2_error(error).filter(|error| !error.is_remote()).and_then(h2::Error::reason);
                let silent = [h2::Reason::NO_ERROR, h2::Reason::CANCEL];
                error.is_parse() || error.is_parse_too_large() || reason.is_some_and(|reason| !silent.contains(&reason))
            }
            Self::Io(_) | Self::Closed | Self::RequestBody(_) | Self::Form(_) => false,
        }
    }

    /// Whether the upstream says that it did not process the request: it refused the stream, or ended the connection
    /// before it (RFC 9113, section 8.7). Only the streams above the last one of a GOAWAY fail with it.
    #[must_use]
    pub fn is_of_nothing_processed(&self) -> bool {
        let Self::Http2(error) = self else { return false };
        let said = h2_error(error).filter(|error| error.is_remote());
        said.is_some_and(|error| error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    }

    /// Whether a connection of HTTP/2 was closed under the request, and neither is silent nor only the stream was reset.
    #[must_use]
    pub fn is_of_a_shared_connection(&self) -> bool {
        matches!(self, Self::Http2(error) if !error.is_timeout() && h2_error(error).is_none())
    }

    /// What failed of the request's own body, if that did.
    #[must_use]
    pub fn of_the_request_body<E: std::error::Error + 'static>(&self) -> Option<&E> {
        match self {
            Self::RequestBody(error) => error.downcast_ref(),
            Self::Http2(error) => error.source()?.downcast_ref(),
            Self::Io(_) | Self::Closed | Self::Head(_) | Self::HeadTooLarge | Self::Chunks(_) | Self::Form(_) => None,
        }
    }
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

/// A request that has no answer.
#[derive(Debug)]
pub struct Unanswered<B> {
    /// Why.
    pub error: Broken,
    /// The request, where it is as it was.
    pub request: Option<Outgoing<B>>,
    /// Something of it may have been written.
    pub written: bool,
}
