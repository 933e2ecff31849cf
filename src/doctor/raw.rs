//! One GET on a connection of its own, written by hand: what is asked about assumptions is what the gate itself never sends.
//!
//! 1. The connection is the upstream's: the same address, and TLS that is verified.
//! 2. An answer is read up to [`LONGEST`] bytes, for as long as [`PATIENCE`]; a compressed body is not unpacked.

use std::time::Duration;

use http::HeaderValue;
use metrica::error_type::ErrorType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::upstream::Upstream;
use crate::upstream::dial::dial;
use crate::upstream::lookup::LookUps;

/// An answer is waited for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// So much of an answer is read, in bytes.
const LONGEST: u64 = 1024 * 1024;

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// The status.
    pub status: u16,
    /// `Content-Encoding`, in lower case.
    pub coding: Option<String>,
    /// What came of the body.
    pub body: Vec<u8>,
}

impl Answer {
    pub(super) fn error(&self) -> ErrorType {
        ErrorType::in_body(&self.body)
    }

    pub(super) fn is_json(&self) -> bool {
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&self.body).is_ok()
    }

    pub(super) fn is_quota(&self) -> bool {
        matches!(self.status, 420 | 429) || self.error().as_str().starts_with("quota_")
    }

    /// Its status and the type of its error, and nothing of its text.
    pub(super) fn shown(&self) -> String {
        match (self.status, self.error()) {
            (200, _) => "200".to_owned(),
            (status, ErrorType::Other) if self.is_json() => format!("{status}, JSON with no type that is known"),
            (status, ErrorType::Other) => format!("{status}, not Metrica's JSON"),
            (status, error) => format!("{status} {}", error.as_str()),
        }
    }
}

/// Sends a GET for `target` as it is written, and asks for `coding`; why there is no answer, without anything of the request.
pub(super) async fn fetch(
    upstream: &Upstream,
    target: &str,
    authorization: Option<&HeaderValue>,
    coding: &str,
) -> Result<Answer, String> {
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
        // What came before the end is enough where it has a head.
        Ok(Err(_)) if parse(&read).is_some() => {}
        Ok(Err(_)) => return Err("the connection broke off".to_owned()),
        Err(_) => return Err("no answer in time".to_owned()),
    }
    parse(&read).map(|(answer, _)| answer).ok_or_else(|| "the answer is no HTTP".to_owned())
}

/// An answer, and whether all of it is there.
fn parse(read: &[u8]) -> Option<(Answer, bool)> {
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
    Some((Answer { status, coding: field("content-encoding"), body }, is_whole))
}

fn is_whole(read: &[u8]) -> bool {
    parse(read).is_some_and(|(_, is_whole)| is_whole)
}

/// The chunks of a body, and whether the last is there.
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
        rest = rest.get(end + 2..).unwrap_or_default();
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
