//! The admin listener: probes, metrics and the ledger of usage, for operators and Prometheus. It changes nothing of what
//! anybody may do, and holds no secret.
//!
//! 1. Only GET and HEAD are answered (RFC 9110, section 15.5.6: 405 and `Allow` otherwise), and POST of `/recheck` where
//!    `admin.recheck` switches it on (`admin/recheck.rs`); what a body says is not read.
//! 2. A connection carries one request and ends with its answer, after fifteen seconds in any case: whoever sends nothing, or
//!    takes nothing, holds nothing for longer.
//! 3. No more connections are open at once than descriptors are kept back for them; the next wait to be accepted.
//! 4. A page of a browser reads nothing: what states an `Origin` or comes from another site is refused, and no answer
//!    is taken for anything but what its type says.
//! 5. It is the only listener that shows these: on those of callers they are requests like any other.

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ORIGIN, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrica::subject;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::recheck;
pub use super::recheck::Recheck;
use crate::files::descriptors::Need;
use crate::gateway::coding;
use crate::metrics::process::ProcessMeters;
use crate::metrics::{page, usage};
use crate::process::readiness::{Readiness, Whom};
use crate::process::workers::Crew;

/// What the admin listener shows.
pub struct Admin {
    /// For counts and for life.
    pub crew: Arc<Crew>,
    /// The process's counts.
    pub meters: Arc<ProcessMeters>,
    /// Whether callers should come.
    pub readiness: Arc<Readiness>,
    /// When counting began.
    pub since: SystemTime,
    /// `POST /recheck`, where it is switched on.
    pub recheck: Option<Recheck>,
}

/// A worker that does not answer in this time does not run its loop.
const LIVE: Duration = Duration::from_secs(5);

/// Rule 2: from the connect to the last byte of the answer.
const WHOLE: Duration = Duration::from_secs(15);

/// From the connect to the end of the header.
const HEADER: Duration = Duration::from_secs(5);

/// A header of more bytes is nobody's who is meant to ask here.
const HEADER_BYTES: usize = 8 * 1024;

impl Admin {
    /// Serves until dropped, at most so many `connections` at once.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, connections: usize) {
        let places = Arc::new(tokio::sync::Semaphore::new(connections));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let socket = match listener.accept().await {
                Ok((socket, _)) => socket,
                Err(error) => {
                    let _ = Need::Admin.found_none(&error);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let admin = self.clone();
            tokio::task::spawn_local(async move {
                let service = service_fn(|request| admin.answer(request));
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HEADER).max_buf_size(HEADER_BYTES).keep_alive(false);
                // A probe that goes away in the middle is nobody's concern.
                let _ = tokio::time::timeout(WHOLE, http.serve_connection(TokioIo::new(socket), service)).await;
                drop(place);
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        if let (Some(recheck), &Method::POST, "/recheck") = (&self.recheck, request.method(), request.uri().path()) {
            return Ok(rechecked(recheck, request.headers()));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Ok(response);
        }
        if is_from_a_page(request.headers()) {
            return Ok(text(StatusCode::FORBIDDEN, "pages of other sites are not answered here\n".to_owned()));
        }
        let query = request.uri().query().unwrap_or_default();
        let verbose = query.split('&').any(|pair| pair.starts_with("verbose"));
        Ok(match request.uri().path() {
            "/livez" | "/healthz" => self.live().await,
            "/readyz" => match whom(query) {
                Ok(whom) => self.ready(verbose, &whom),
                Err(wrong) => text(StatusCode::BAD_REQUEST, wrong),
            },
            "/startupz" => self.started(verbose),
            "/metrics" => self.metrics(takes_gzip(request.headers())).await,
            "/usage" => self.usage().await,
            "/" => text(
                StatusCode::OK,
                "metrika-gate admin: /livez /readyz?verbose /readyz?caller= /readyz?listener= /startupz /metrics /usage\n".to_owned(),
            ),
            _ => text(StatusCode::NOT_FOUND, "not here; see /\n".to_owned()),
        })
    }

    async fn live(&self) -> Response<Full<Bytes>> {
        match self.crew.is_alive(LIVE).await {
            true => text(StatusCode::OK, "ok\n".to_owned()),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "a worker does not answer\n".to_owned()),
        }
    }

    fn ready(&self, verbose: bool, whom: &Whom) -> Response<Full<Bytes>> {
        let Some((ready, lines)) = self.readiness.check(&self.meters, whom) else {
            return text(StatusCode::NOT_FOUND, "the configuration has no such caller or listener\n".to_owned());
        };
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let short = if ready { "ok\n" } else { "not ready\n" };
        text(status, if verbose || !ready { format!("{lines}{short}") } else { short.to_owned() })
    }

    fn started(&self, verbose: bool) -> Response<Full<Bytes>> {
        let ready = self.ready(verbose, &Whom::Anyone);
        if self.readiness.was_ready() { text(StatusCode::OK, "ok\n".to_owned()) } else { ready }
    }

    async fn usage(&self) -> Response<Full<Bytes>> {
        let counts = self.crew.counts().await;
        let since = humantime::format_rfc3339_seconds(self.since).to_string();
        let mut response = text(StatusCode::OK, usage::page(&counts, &since) + "\n");
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    async fn metrics(&self, packed: bool) -> Response<Full<Bytes>> {
        let counts = self.crew.counts().await;
        let page = page::text(&counts, &self.meters);
        let gzip = packed.then(|| gzip(page.as_bytes()));
        let is_packed = gzip.is_some();
        let mut response = text(StatusCode::OK, gzip.map_or_else(|| page.into(), Bytes::from));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        if is_packed {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// Rule 1.
fn rechecked(recheck: &Recheck, fields: &HeaderMap) -> Response<Full<Bytes>> {
    if !recheck::is_from_this_network(fields) {
        return text(
            StatusCode::FORBIDDEN,
            "Host has to be localhost or an address, and browsers are refused\n".to_owned(),
        );
    }
    match recheck.ask(Instant::now()) {
        Ok(()) => text(StatusCode::ACCEPTED, "Metrica is asked again about every token that it rejects\n".to_owned()),
        Err(seconds) => {
            let mut response = text(StatusCode::TOO_MANY_REQUESTS, format!("once a minute; again in {seconds} s\n"));
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            response
        }
    }
}

/// Whether gzip is taken (RFC 9110, section 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    coding::asked_for(headers) == "gzip"
}

/// Packed as fast as it goes: a page has thousands of lines that differ little.
fn gzip(page: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::with_capacity(page.len() / 8), Compression::fast());
    // Nothing that is written to memory fails.
    let _ = packer.write_all(page);
    packer.finish().unwrap_or_default()
}

/// Whom a query asks about.
fn whom(query: &str) -> Result<Whom, String> {
    let mut asked = query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "caller" => Some(Whom::Caller(subject::text(value))),
            "listener" => Some(Whom::Listener(subject::text(value))),
            _ => None,
        }
    });
    match (asked.next(), asked.next()) {
        (None, _) => Ok(Whom::Anyone),
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err("one caller= or one listener= is asked about\n".to_owned()),
    }
}

/// Rule 4. What a user types into a browser has no `Origin`, and `none` for its site.
fn is_from_a_page(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    headers.contains_key(ORIGIN) || site.is_some_and(|site| !matches!(site, b"none" | b"same-origin"))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
