//! The tunnel through `upstream.proxy`: CONNECT (RFC 9110, section 9.3.6), before the TLS handshake with the upstream.
//!
//! 1. The request is built once. It contains the target, `Host` and the credentials of the proxy, and nothing else; its
//!    memory is overwritten when it is dropped. A token is sent only inside the TLS that runs inside the tunnel.
//! 2. The response is read strictly and up to its head: at most 16 KiB, with the interim responses before it.
//!    A byte behind a successful head is an error, because a TLS server never sends first. The body of a refusal is not read.
//! 3. Only 2xx opens the tunnel. Every other response, a close and a time-out is a [`Refused`] of its own; none of them is
//!    ever taken for a response of the upstream. The connection is closed then.
//! 4. A refusal repeats nothing of a response except its status.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use httparse::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::response_head::FIELDS;
use crate::config;
use crate::metrics::UpstreamError;

/// The maximum length of the response, with the interim responses before it.
const LONGEST: usize = 16 * 1024;

/// The size of one read.
const READ: usize = 2 * 1024;

/// The request for a tunnel, prepared once.
pub struct Tunnel {
    request: Zeroizing<Vec<u8>>,
    has_credentials: bool,
    /// The host and port of the proxy.
    pub proxy: String,
    /// The host and port that the proxy connects to.
    pub target: String,
}

/// The reason why the proxy opened no tunnel. No part of a request was sent.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Its name was not found.
    #[error("its name {name} cannot be resolved")]
    Resolve {
        /// The name.
        name: String,
        /// The cause, which requests that share the look-up share too.
        source: Arc<io::Error>,
    },
    /// None of its addresses accepted the connection.
    #[error("connecting to it failed")]
    Connect(#[source] io::Error),
    /// Connecting to it took longer than `upstream.timeouts.connect`.
    #[error("connecting to it took longer than {0:?}")]
    ConnectTimeout(Duration),
    /// It did not respond within `upstream.timeouts.connect`.
    #[error("it did not respond to CONNECT within {0:?}")]
    Timeout(Duration),
    /// It closed the connection instead of a response.
    #[error("it closed the connection before it responded to CONNECT")]
    Closed(#[source] io::Error),
    /// It requires other credentials: 407, or 401 as tinyproxy sends it.
    #[error("it {} with status {}{}", if *.sent { "rejected the credentials" } else { "requires credentials" }, .status.as_u16(), if *.other_type { ", and does not offer Basic" } else { "" })]
    Credentials {
        /// The status.
        status: StatusCode,
        /// Whether the request contained credentials.
        sent: bool,
        /// Whether it offers other types of credentials, and not Basic.
        other_type: bool,
    },
    /// It refused the target or the caller.
    #[error("it refused the tunnel with status {}", .0.as_u16())]
    Denied(StatusCode),
    /// It did not reach the target, or is overloaded.
    #[error("it could not open the tunnel: status {}", .0.as_u16())]
    Failed(StatusCode),
    /// Its response is not valid.
    #[error("its response to CONNECT {0}")]
    Protocol(&'static str),
}

impl Refused {
    /// The metric label of the error.
    #[must_use]
    pub const fn kind(&self) -> UpstreamError {
        match self {
            Self::Resolve { .. } => UpstreamError::ProxyResolve,
            Self::Connect(_) => UpstreamError::ProxyConnect,
            Self::ConnectTimeout(_) => UpstreamError::ProxyConnectTimeout,
            Self::Timeout(_) => UpstreamError::ProxyTimeout,
            Self::Closed(_) => UpstreamError::ProxyClosed,
            Self::Credentials { .. } => UpstreamError::ProxyCredentials,
            Self::Denied(_) => UpstreamError::ProxyDenied,
            Self::Failed(_) => UpstreamError::ProxyFailed,
            Self::Protocol(_) => UpstreamError::ProxyProtocol,
        }
    }
}

impl Tunnel {
    /// Prepares the request of `settings`; `None` without a proxy.
    #[must_use]
    pub fn of(settings: &config::Upstream) -> Option<Self> {
        let proxy = settings.proxy.as_ref()?;
        let (host, port) =
            settings.connect_to.as_ref().map_or((&settings.host, settings.port), |(host, port)| (host, *port));
        let target = authority(host, port);
        let credentials = proxy.auth.as_ref().map(|auth| auth.credentials.encoded());
        let parts: [&[u8]; 6] = [
            b"CONNECT ",
            target.as_bytes(),
            b" HTTP/1.1\r\nHost: ",
            target.as_bytes(),
            if credentials.is_some() { b"\r\nProxy-Authorization: Basic " } else { b"" },
            credentials.map_or(b"", |credentials| credentials),
        ];
        let end = b"\r\n\r\n";
        // Room for all of it, so that growing leaves no copy of the credentials behind.
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut request = Zeroizing::new(Vec::with_capacity(length + end.len()));
        parts.iter().for_each(|part| request.extend_from_slice(part));
        request.extend_from_slice(end);
        Some(Self {
            request,
            has_credentials: credentials.is_some(),
            proxy: authority(&proxy.host, proxy.port),
            target,
        })
    }

    /// Opens the tunnel on a connection to the proxy.
    ///
    /// # Errors
    /// [`Refused`]; the connection is of no use then.
    pub async fn open(&self, socket: &mut TcpStream) -> Result<(), Refused> {
        socket.write_all(&self.request).await.map_err(Refused::Closed)?;
        let (mut read, mut interim) = (Vec::with_capacity(READ), 0);
        loop {
            match head(&read)? {
                Some(Head { status, length, .. }) if status.is_informational() => {
                    read.drain(..length);
                    interim += length;
                }
                _ if interim + read.len() > LONGEST => return Err(Refused::Protocol("is too long")),
                Some(found) => return self.judge(&found, read.len()),
                None => more(socket, &mut read).await?,
            }
        }
    }

    /// Decides about the final response, of which `read` bytes were read (rules 2 and 3).
    fn judge(&self, head: &Head, read: usize) -> Result<(), Refused> {
        let status = head.status;
        if status.is_success() {
            let is_exact = read == head.length;
            return if is_exact { Ok(()) } else { Err(Refused::Protocol("is followed by unexpected bytes")) };
        }
        if matches!(status, StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED) {
            return Err(Refused::Credentials {
                status,
                sent: self.has_credentials,
                other_type: head.offers_other_type,
            });
        }
        let may_pass = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        Err(if status.is_server_error() || may_pass { Refused::Failed(status) } else { Refused::Denied(status) })
    }
}

/// A host and a port, with an IPv6 address in brackets.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Reads once.
async fn more(socket: &mut TcpStream, read: &mut Vec<u8>) -> Result<(), Refused> {
    match socket.read_buf(read).await {
        Ok(0) if read.is_empty() => Err(Refused::Closed(io::ErrorKind::UnexpectedEof.into())),
        Ok(0) => Err(Refused::Protocol("ends within its head")),
        Ok(_) => Ok(()),
        Err(error) => Err(Refused::Closed(error)),
    }
}

/// The head of a response.
struct Head {
    status: StatusCode,
    /// Its length in bytes.
    length: usize,
    /// Whether it names types of credentials, and Basic is not among them.
    offers_other_type: bool,
}

/// Parses the head at the beginning of `bytes`; `None` if it is incomplete.
fn head(bytes: &[u8]) -> Result<Option<Head>, Refused> {
    const INVALID: Refused = Refused::Protocol("is not valid HTTP");
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut answer = httparse::Response::new(&mut fields);
    let Status::Complete(length) = answer.parse(bytes).map_err(|_| INVALID)? else { return Ok(None) };
    let code = answer.code.ok_or(INVALID)?;
    let status = StatusCode::from_u16(code).map_err(|_| INVALID)?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refused::Protocol("switches to another protocol"));
    }
    let is_basic =
        |value: &[u8]| value.trim_ascii_start().get(..5).is_some_and(|word| word.eq_ignore_ascii_case(b"basic"));
    let is_challenge = |name: &str| {
        ["proxy-authenticate", "www-authenticate"].iter().any(|challenge| name.eq_ignore_ascii_case(challenge))
    };
    let challenges = answer.headers.iter().filter(|field| is_challenge(field.name));
    let mut types = challenges.flat_map(|field| field.value.split(|byte| *byte == b',')).peekable();
    let offers_other_type = types.peek().is_some() && !types.any(is_basic);
    Ok(Some(Head { status, length, offers_other_type }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tunnel(keys: &str) -> Tunnel {
        let config = format!(
            "listeners: [{{name: app, address: '127.0.0.1:0'}}]
tokens: {{t: {{file: /nowhere/t, scopes: [metrika:read]}}}}
callers: [{{id: a, scopes: [metrika:read], tokens: [t], match: {{listener: app}}}}]
upstream: {{{keys}}}
"
        );
        let config = config::Config::parse(&config, std::path::Path::new("gate.yaml")).unwrap();
        Tunnel::of(&config.upstream).unwrap()
    }

    #[test]
    fn rule_1_the_request_names_the_target_and_nothing_else() {
        for (keys, proxy, target) in [
            ("proxy: 'http://p:1'", "p:1", "api-metrika.yandex.net:443"),
            ("proxy: 'http://[::1]:1', connect_to: '[2001:db8::1]:8443'", "[::1]:1", "[2001:db8::1]:8443"),
            ("proxy: 'http://p:1', url: 'https://other.example:444'", "p:1", "other.example:444"),
        ] {
            let tunnel = tunnel(keys);
            assert_eq!((&*tunnel.proxy, &*tunnel.target), (proxy, target));
            let expected = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
            assert_eq!(tunnel.request.as_slice(), expected.as_bytes());
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "user:password").unwrap();
        let tunnel = tunnel(&format!("proxy: 'http://p:1', proxy_auth_file: '{}'", file.path().display()));
        assert!(tunnel.request.ends_with(b":443\r\nProxy-Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n\r\n"));
        assert_eq!(tunnel.request.len(), tunnel.request.capacity(), "growing left no copy behind");
    }

    #[test]
    fn rule_2_a_head_is_whole_or_not_there() {
        let text = b"HTTP/1.1 200 OK\r\nVia: a\r\n\r\n";
        for end in 0..text.len() {
            assert!(head(&text[..end]).unwrap().is_none(), "{end}");
        }
        assert_eq!(head(&[text.as_slice(), b"x"].concat()).unwrap().unwrap().length, text.len());
    }

    #[test]
    fn rule_3_only_2xx_opens_the_tunnel() {
        let tunnel = tunnel("proxy: 'http://p:1'");
        for code in 200..=599 {
            let head = Head { status: StatusCode::from_u16(code).unwrap(), length: 20, offers_other_type: false };
            let kind = tunnel.judge(&head, 20).map_err(|refused| refused.kind());
            assert_eq!(kind.is_ok(), code < 300, "{code}");
            let expected = match code {
                401 | 407 => UpstreamError::ProxyCredentials,
                408 | 429 | 500.. => UpstreamError::ProxyFailed,
                _ => UpstreamError::ProxyDenied,
            };
            assert!(kind.is_ok() || kind == Err(expected), "{code}: {kind:?}");
        }
    }

    proptest! {
        /// Whatever the proxy sends, a head ends within it, and an error repeats none of it.
        #[test]
        fn rule_4_a_refusal_repeats_nothing(bytes in "(HTTP/1\\.[01] [0-9]{3} )?[a-z:\\r\\n ]{0,80}(\\r\\n\\r\\n)?secret") {
            match head(bytes.as_bytes()) {
                Ok(found) => prop_assert!(found.is_none_or(|found| found.length <= bytes.len())),
                Err(refused) => {
                    let shown = format!("{refused} {refused:?}");
                    prop_assert!(!shown.contains("secret"));
                },
            }
        }
    }
}
