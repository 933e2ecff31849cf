//! The parts of a header that determine where a request ends and which host it is for, and the kinds of their errors.

use http::{Method, Uri};

use crate::Malformed;
use crate::connect::agree;
use crate::grammar::{self, diagnosis};

/// The framing and routing of a request, as far as its header has been read.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) http10: bool,
    pub(super) is_connect: bool,
    /// The authority of an absolute target, and the port of its scheme.
    pub(super) authority: Option<(Box<str>, u16)>,
    pub(super) host: bool,
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
}

impl Head {
    /// Whether `Host` with this value agrees with the target (rule 4).
    pub(super) fn is_for(&self, host: &[u8]) -> bool {
        self.authority.as_ref().is_none_or(|(known, port)| {
            host.eq_ignore_ascii_case(known.as_bytes()) || agree(known.as_bytes(), host, *port)
        })
    }

    /// Diagnoses a rejected `Transfer-Encoding`.
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

/// Returns the authority of a target that is not only a path. Such targets are rare, so parsing them twice is acceptable.
pub(super) fn authority(request: &grammar::RequestLine<'_>) -> Result<(Box<str>, u16), Malformed> {
    let refused = || diagnosis::of_form(request.target);
    let uri = Uri::try_from(request.target).map_err(|_| refused())?;
    let of_web = uri.scheme_str().is_some_and(|scheme| matches!(scheme, "http" | "https"));
    let of_connect = uri.scheme().is_none() && request.method == Method::CONNECT.as_str().as_bytes();
    let authority = uri.authority().filter(|authority| (of_web || of_connect) && !authority.as_str().contains('@'));
    let port = if uri.scheme_str() == Some("http") { 80 } else { 443 };
    authority.map(|authority| (authority.as_str().into(), port)).ok_or_else(refused)
}
