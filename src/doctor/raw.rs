//! A hand-written GET on its own connection, for requests that the gate itself never sends (`doctor/assumptions.rs`).
//!
//! 1. The connection uses the address and the verified TLS of the upstream.
//! 2. At most [`LONGEST`] bytes of a response are read, for at most [`PATIENCE`]. A compressed body is not decompressed.

use std::time::Duration;

use http::HeaderValue;
use metrica::error_type::ErrorType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::upstream::Upstream;
use crate::upstream::dial::dial;
use crate::upstream::lookup::LookUps;

/// The time limit for a response.
const PATIENCE: Duration = Duration::from_secs(30);

/// The maximum number of response bytes that are read.
const LONGEST: u64 = 1024 * 1024;

/// A response.
#[derive(Debug, Clone)]
pub(super) struct RawResponse {
    /// The status code.
    pub status: u16,
    /// The value of `Content-Encoding`, in lower case.
    pub coding: Option<String>,
    /// The received part of the body.
    pub body: Vec<u8>,
}

impl RawResponse {
    pub(super) fn error(&self) -> ErrorType {
        ErrorType::in_body(&self.body)
    }

    pub(super) fn is_json(&self) -> bool {
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&self.body).is_ok()
    }

    pub(super) fn is_quota(&self) -> bool {
        matches!(self.status, 420 | 429) || self.error().as_str().starts_with("quota_")
    }

    /// Returns the status and the error type, without any text of the response.
    pub(super) fn shown(&self) -> String {
        match (self.status, self.error()) {
            (200, _) => "200".to_owned(),
            (status, ErrorType::Other) if self.is_json() => format!("{status}, JSON with an unknown error type"),
            (status, ErrorType::Other) => format!("{status}, not Metrica's JSON"),
            (status, error) => format!("{status} {}", error.as_str()),
        }
    }
}

/// Sends a GET for `target`, byte for byte, with `coding` as `Accept-Encoding`.
///
/// # Errors
/// The reason why there is no response, without any part of the request.
pub(super) async fn fetch(
    upstream: &Upstream,
    target: &str,
    authorization: Option<&HeaderValue>,
    coding: &str,
) -> Result<RawResponse, String> {
    let dialled = dial(upstream, &LookUps::default()).await.map_err(|error| error.to_string())?;
    let mut stream = dialled.stream;
    let mut request = format!("GET {target} HTTP/1.1\r\nHost: ").into_bytes();
    request.extend_from_slice(upstream.host.as_bytes());
    request.extend_from_slice(b"\r\nAccept: application/json\r\nConnection: close\r\nAccept-Encoding: ");
    request.extend_from_slice(coding.as_bytes());
    request.extend_from_slice(b"\r\n");
    if let Some(authorization) = authorization {
        request.extend_from_slice(b"Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let mut read = Vec::new();
    let exchange = async {
        stream.write_all(&request).await?;
        stream.flush().await?;
        let mut limited = (&mut stream).take(LONGEST);
        while !is_whole(&read) {
            if limited.read_buf(&mut read).await? == 0 {
                break;
            }
        }
        Ok::<(), std::io::Error>(())
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(())) => {}
        // A truncated response is enough if it has a complete header.
        Ok(Err(_)) if parse(&read).is_some() => {}
        Ok(Err(_)) => return Err("the connection was closed prematurely".to_owned()),
        Err(_) => return Err("no response in time".to_owned()),
    }
    parse(&read).map(|(answer, _)| answer).ok_or_else(|| "the response is not HTTP".to_owned())
}

/// Returns the response, and whether it is complete; `None` without a complete header.
fn parse(read: &[u8]) -> Option<(RawResponse, bool)> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(end) = head.parse(read).ok()? else { return None };
    let field = |name: &str| {
        let mut fields = head.headers.iter();
        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(field.value).ok().map(str::to_ascii_lowercase)
    };
    let status = head.code?;
    let rest = read.get(end..)?;
    let (body, is_whole) = if field("transfer-encoding").is_some() {
        joined(rest)
    } else if let Some(length) = field("content-length").and_then(|length| length.parse::<usize>().ok()) {
        (rest.get(..length).unwrap_or(rest).to_vec(), rest.len() >= length)
    } else {
        (rest.to_vec(), false)
    };
    Some((RawResponse { status, coding: field("content-encoding"), body }, is_whole))
}

fn is_whole(read: &[u8]) -> bool {
    parse(read).is_some_and(|(_, is_whole)| is_whole)
}

/// Returns the joined chunks of a body, and whether the last chunk was received.
fn joined(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(rest) else {
            return (body, false);
        };
        if size == 0 {
            return (body, true);
        }
        let Some(end) = usize::try_from(size).ok().and_then(|size| start.checked_add(size)) else {
            return (body, false);
        };
        let Some(chunk) = rest.get(start..end) else { return (body, false) };
        body.extend_from_slice(chunk);
        let Some(behind) = rest.get(end + 2..) else { return (body, false) };
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_to_their_end() {
        let plain = b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}";
        let (answer, is_whole) = parse(plain).unwrap();
        assert_eq!((answer.status, &*answer.body, is_whole), (401, &b"{}"[..], true));
        assert!(!parse(&plain[..plain.len() - 1]).unwrap().1 && parse(&plain[..20]).is_none());
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n";
        let (answer, is_whole) = parse(chunked).unwrap();
        assert_eq!((&*answer.body, is_whole), (&b"{}"[..], true));
        assert!(!parse(&chunked[..chunked.len() - 9]).unwrap().1);
        assert!(parse(b"SSH-2.0-x\r\n\r\n").is_none());
    }
}
