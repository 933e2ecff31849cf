//! What a header says of its request, and the kinds of what it says wrongly.

use http::{Method, Uri};

use crate::Malformed;
use crate::grammar::{self, diagnosis};

/// What a header says about where its request ends, and where it goes.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) http10: bool,
    /// Of an absolute target.
    pub(super) authority: Option<Box<str>>,
    pub(super) host: bool,
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
}

impl Head {
    /// Of a `Transfer-Encoding` that was refused.
    #[cold]
    pub(super) const fn wrong_encoding(&self, again: bool) -> Malformed {
        match (again, self.http10, self.length) {
            (true, _, _) => Malformed::TwoTransferEncodings,
            (false, true, _) => Malformed::EncodingInHttp10,
            (false, false, Some(_)) => Malformed::LengthAndEncoding,
            (false, false, None) => Malformed::UnsupportedTransferEncoding,
        }
    }
}

#[cold]
pub(super) const fn wrong_host(again: bool, is_host: bool) -> Malformed {
    match (again, is_host) {
        (true, _) => Malformed::TwoHosts,
        (false, false) => Malformed::InvalidHost,
        (false, true) => Malformed::HostUnlikeTarget,
    }
}

/// The authority of a target that is not only a path. Such targets are rare, so they may cost to be parsed twice.
pub(super) fn authority(request: &grammar::RequestLine<'_>) -> Result<Box<str>, Malformed> {
    let refused = || diagnosis::of_form(request.target);
    let uri = Uri::try_from(request.target).map_err(|_| refused())?;
    let of_web = uri.scheme_str().is_some_and(|scheme| matches!(scheme, "http" | "https"));
    let of_connect = uri.scheme().is_none() && request.method == Method::CONNECT.as_str().as_bytes();
    let authority = uri.authority().filter(|authority| (of_web || of_connect) && !authority.as_str().contains('@'));
    authority.map(|authority| authority.as_str().into()).ok_or_else(refused)
}
