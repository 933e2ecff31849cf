//! Probe: read-only requests with a token.
//!
//! 1. Questions are GETs, except for the forms that commands send to the OAuth server. At most [`LONGEST`] bytes of a response are read. The request asks for no compression; a response
//!    compressed with gzip is decompressed nevertheless, up to the same limit.
//! 2. Each question uses a connection of its own, so it waits behind no other and leaves no connection open.
//! 3. A question takes at most `upstream.timeouts`, after its turn came.
//! 4. A question to Metrica waits for its turn, like the request of a caller, if the configuration has a quota.

use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use strict_http::number;
use strict_http::target::{self, OriginForm, Target};
use zeroize::Zeroizing;

use crate::quota::Request;
use crate::token::Token;
use crate::upstream::{CarriedToken, Listener, Outgoing, Pool, Upstream};
use crate::worker::{Asked, Turn, Turns};

/// The maximum length of a response, in bytes.
pub const LONGEST: usize = 4 * 1024 * 1024;

/// A response to a question.
#[derive(Debug, Clone)]
pub struct ProbeResponse {
    /// The status of the response.
    pub status: StatusCode,
    /// The body, decompressed.
    pub body: Bytes,
    /// The time of the server, if it has sent one.
    pub date: Option<SystemTime>,
}

/// The reason of a missing response. Contains no part of the token.
#[derive(Debug, thiserror::Error)]
pub enum NoResponse {
    /// The connection could not be opened.
    #[error("{0}")]
    Dial(anyhow::Error),
    /// The response broke off or is invalid.
    #[error("the response ended prematurely: {0}")]
    Broken(anyhow::Error),
    /// The quota of the token's owner allows no request now (rule 4).
    #[error("the quota of the token's owner allows no request now")]
    NoTurn,
    /// The time limit passed.
    #[error("no response in time")]
    Timeout,
    /// The response is too long (rule 1).
    #[error("the response exceeds {LONGEST} bytes")]
    TooLong,
}

/// A host that can be asked.
#[derive(Debug, Clone)]
pub struct Place {
    upstream: Arc<Upstream>,
    /// The turns that requests wait for (rule 4), and the request that asks for one.
    turns: Option<(Arc<Turns>, Request)>,
}

/// Keeps `Content-Encoding` and `Date`, and no other field.
struct KeepTwoFields;

impl Listener for KeepTwoFields {
    fn wants(&self, name: &[u8]) -> bool {
        [CONTENT_ENCODING, DATE].iter().any(|wanted| name.eq_ignore_ascii_case(wanted.as_str().as_bytes()))
    }

    fn heard(&self, _: StatusCode, _: &HeaderMap) {}
}

impl Place {
    /// A place that asks `upstream`.
    #[must_use]
    pub const fn new(upstream: Arc<Upstream>) -> Self {
        Self { upstream, turns: None }
    }

    /// The same place, for requests that the quota of an owner counts (rule 4).
    #[must_use]
    pub fn counted(&self, turns: Arc<Turns>, request: Request) -> Self {
        Self { upstream: self.upstream.clone(), turns: Some((turns, request)) }
    }

    /// Waits for the turn of a request (rule 4).
    async fn turn(&self) -> Result<Turn, NoResponse> {
        let Some((turns, request)) = &self.turns else { return Ok(Turn::unlimited()) };
        match turns.ask(request.clone(), std::time::Instant::now()) {
            Ok(Asked::Granted(turn)) => Ok(turn),
            Ok(Asked::Waits(waiting)) => waiting.await.map_err(|_| NoResponse::NoTurn),
            Err(_) => Err(NoResponse::NoTurn),
        }
    }

    /// Sends a form to `target`, without a token. Call it on a single-threaded runtime.
    ///
    /// # Errors
    /// [`NoResponse`].
    pub async fn post(&self, target: &str, form: Zeroizing<Vec<u8>>) -> Result<ProbeResponse, NoResponse> {
        struct Wiped(Zeroizing<Vec<u8>>);
        impl AsRef<[u8]> for Wiped {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let body = Full::new(Bytes::from_owner(Wiped(form)));
        let fields = HeaderMap::from_iter([
            (ACCEPT, HeaderValue::from_static("application/json")),
            (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
            (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        ]);
        let request = Outgoing { method: Method::POST, target: checked(target)?, fields, body };
        let turn = self.turn().await?;
        self.in_time(self.send(request, turn)).await
    }

    /// Requests `target`, a path and query, with `token`. Call it on a single-threaded runtime.
    ///
    /// # Errors
    /// [`NoResponse`].
    pub async fn ask(&self, token: &Token, target: &str) -> Result<ProbeResponse, NoResponse> {
        self.get(Some(token.authorization()), target).await
    }

    /// Requests `target`, a path and query, with this `Authorization`. Call it on a single-threaded runtime.
    ///
    /// # Errors
    /// [`NoResponse`].
    pub async fn get(&self, authorization: Option<HeaderValue>, target: &str) -> Result<ProbeResponse, NoResponse> {
        let turn = self.turn().await?;
        let target = checked(target)?;
        let mut fields = HeaderMap::from_iter([
            (ACCEPT, HeaderValue::from_static("application/json")),
            (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
        ]);
        fields.extend(authorization.map(|authorization| (AUTHORIZATION, authorization)));
        let request = Outgoing { method: Method::GET, target, fields, body: Empty::new() };
        self.in_time(self.send(request, turn)).await
    }

    /// Waits for a response for as long as rule 3 allows.
    async fn in_time(
        &self,
        response: impl Future<Output = Result<ProbeResponse, NoResponse>>,
    ) -> Result<ProbeResponse, NoResponse> {
        let timeouts = &self.upstream.settings.timeouts;
        let within = timeouts.connect + timeouts.response_headers;
        tokio::time::timeout(within, response).await.unwrap_or(Err(NoResponse::Timeout))
    }

    async fn send<B>(&self, request: Outgoing<B>, mut turn: Turn) -> Result<ProbeResponse, NoResponse>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let pool: Rc<Pool<B>> = Rc::new(Pool::new(self.upstream.clone(), 1, Rc::default()));
        // This is the only request of the pool.
        let mut lease = pool.lease(CarriedToken(0), true).await.map_err(|error| NoResponse::Dial(error.into()))?;
        turn.sent();
        let (answer, _) = lease
            .send(Box::new(request), &KeepTwoFields, &turn)
            .await
            .map_err(|failed| NoResponse::Broken(failed.error.into()))?;
        let (head, mut body) = answer.into_parts();
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| NoResponse::Broken(error.into()))?;
            read.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            if read.len() > LONGEST {
                return Err(NoResponse::TooLong);
            }
        }
        turn.done(std::time::Instant::now());
        let is_packed = head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding == "gzip");
        let body = if is_packed { unpacked(&read)? } else { read.freeze() };
        let date = head.headers.get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        Ok(ProbeResponse { status: head.status, body, date })
    }
}

fn checked(target: &str) -> Result<OriginForm, NoResponse> {
    let broken = |error: anyhow::Error| NoResponse::Broken(error);
    let uri = target.parse().map_err(|error: http::uri::InvalidUri| broken(error.into()))?;
    let target = Target::check(&uri, target::MAXIMUM_BYTES).map_err(|bad| broken(anyhow::anyhow!("{bad:?}")))?;
    Ok(target.into_origin_form())
}

fn unpacked(packed: &[u8]) -> Result<Bytes, NoResponse> {
    let mut plain = Vec::new();
    let limit = number::count(LONGEST) + 1;
    let unpacked = flate2::read::MultiGzDecoder::new(packed).take(limit).read_to_end(&mut plain);
    unpacked.map_err(|error| NoResponse::Broken(error.into()))?;
    if plain.len() > LONGEST { Err(NoResponse::TooLong) } else { Ok(plain.into()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(length: usize) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&vec![b' '; length]).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn rule_1_a_compressed_body_is_decompressed_up_to_the_limit() {
        assert_eq!(unpacked(&packed(3)).unwrap(), "   ");
        assert_eq!(unpacked(&packed(LONGEST)).unwrap().len(), LONGEST);
        let bomb = packed(LONGEST + 1);
        assert!(bomb.len() < LONGEST / 100 && matches!(unpacked(&bomb), Err(NoResponse::TooLong)));
        let whole = packed(1000);
        assert!(matches!(unpacked(&whole[..whole.len() - 9]), Err(NoResponse::Broken(_))));
        assert!(matches!(unpacked(b"{}"), Err(NoResponse::Broken(_))));
    }
}
