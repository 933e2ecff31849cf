//! Failures of an upstream connection with a request on it, and their meaning for the request.

use std::error::Error as _;
use std::io;

use strict_http::chunks::NoChunks;

use super::request::Outgoing;

/// The maximum bytes of a response head, including all interim responses before it.
pub const HEAD_BYTES: u64 = 256 * 1024;

/// The reason why a connection failed with a request on it.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// Reading from or writing to the connection failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// The connection ended before the response was complete.
    #[error("the connection was closed before the end of the response")]
    Closed,
    /// The received bytes are not a valid response head.
    #[error("the response is not valid HTTP/1.1")]
    Head(#[source] httparse::Error),
    /// The head and its interim responses exceed [`HEAD_BYTES`].
    #[error("the response head and the interim responses before it exceed {HEAD_BYTES} bytes")]
    HeadTooLarge,
    /// The received bytes are not a valid chunked body.
    #[error(transparent)]
    Chunks(#[from] NoChunks),
    /// The body of the request failed.
    #[error("the body of the request failed")]
    RequestBody(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The HTTP/2 stream or connection failed.
    #[error("the stream failed")]
    Http2(#[source] hyper::Error),
    /// The request cannot be represented in HTTP/2.
    #[error("the request cannot be sent as HTTP/2")]
    Form(#[source] http::Error),
}

impl Broken {
    /// Whether the upstream sent an invalid response, rather than none.
    #[must_use]
    pub fn is_protocol_error(&self) -> bool {
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

    /// Whether the upstream signals that it did not process the request: it refused the stream, or closed the connection
    /// before it (RFC 9113, section 8.7). Only streams above the last one of a GOAWAY fail with it.
    #[must_use]
    pub fn is_unprocessed(&self) -> bool {
        let Self::Http2(error) = self else { return false };
        let said = h2_error(error).filter(|error| error.is_remote());
        said.is_some_and(|error| error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    }

    /// Whether an HTTP/2 connection closed during the request, without a timeout or a reset of this stream alone.
    #[must_use]
    pub fn is_shared_connection(&self) -> bool {
        matches!(self, Self::Http2(error) if !error.is_timeout() && h2_error(error).is_none())
    }

    /// The error of the request's own body, if that is the cause.
    #[must_use]
    pub fn request_body_error<E: std::error::Error + 'static>(&self) -> Option<&E> {
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

/// A request without a response.
#[derive(Debug)]
pub struct Unanswered<B> {
    /// The reason.
    pub error: Broken,
    /// The request, if it is unchanged.
    pub request: Option<Box<Outgoing<B>>>,
    /// Whether part of the request may have been written.
    pub written: bool,
}
