//! Admin listener: probes, metrics, usage and the status page, for operators and Prometheus. It changes no permissions and exposes no
//! secrets.
//!
//! 1. Only GET and HEAD are allowed (otherwise 405 with `Allow`, RFC 9110, section 15.5.6), and POST to `/recheck` if
//!    `admin.recheck` is set (`process/recheck.rs`). Request bodies are not read.
//! 2. A connection carries one request, and is closed after the response or after fifteen seconds. A client that
//!    sends or reads nothing cannot hold it longer.
//! 3. The number of open connections is bounded by the descriptors reserved for them; further connections wait to be
//!    accepted.
//! 4. Web pages cannot read from it: requests with an `Origin` or from another site are refused, and responses forbid
//!    content sniffing.
//! 5. `/` is the status page, if it is enabled (`process/status_page.rs`). It alone looks at `Host`.
//! 6. The listeners of callers do not serve these paths; requests for them there are treated like any other.

use std::convert::Infallible;
use std::io::{self, Write};
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
use strict_http::target::name_and_value;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::recheck;
pub use super::recheck::Recheck;
use super::status_page::{self, Sources, StatusPage};
use crate::files::descriptors::DescriptorNeed;
use crate::metrics::process::ProcessMeters;
use crate::metrics::{page, usage};
use crate::process::readiness::{Readiness, ReadinessSubject};
use crate::process::workers::Workers;
use crate::response::coding;

/// The state behind the admin endpoints.
pub struct Admin {
    /// The workers, for counts and liveness.
    pub workers: Arc<Workers>,
    /// The counters of the process.
    pub meters: Arc<ProcessMeters>,
    /// The readiness of the gate.
    pub readiness: Arc<Readiness>,
    /// The time since which usage is counted.
    pub since: SystemTime,
    /// The handler of `POST /recheck`, if it is enabled.
    pub recheck: Option<Recheck>,
    /// The status page, if it is enabled.
    pub page: Option<StatusPage>,
}

/// The paths, where there is no status page.
const PATHS: &str =
    "metrika-gate admin: /livez /readyz?verbose /readyz?caller= /readyz?listener= /startupz /metrics /usage /quota\n";

/// A worker that does not reply within this time is considered dead.
const LIVE: Duration = Duration::from_secs(5);

/// The time from the connect to the last byte of the response (rule 2).
const WHOLE: Duration = Duration::from_secs(15);

/// The time from the connect to the end of the request's header.
const HEADER: Duration = Duration::from_secs(5);

/// The maximum size of a request's header; legitimate clients of this listener stay far below it.
const HEADER_BYTES: usize = 8 * 1024;

impl Admin {
    /// Serves at most `connections` connections at once, until dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, connections: usize) {
        let connection_limits = Arc::new(tokio::sync::Semaphore::new(connections));
        loop {
            let Ok(place) = connection_limits.clone().acquire_owned().await else { return };
            let socket = match listener.accept().await {
                Ok((socket, _)) => socket,
                Err(error) => {
                    DescriptorNeed::Admin.found_none(&error);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let admin = self.clone();
            tokio::task::spawn_local(async move {
                let service = service_fn(|request| admin.answer(request));
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HEADER).max_buf_size(HEADER_BYTES).keep_alive(false);
                // Errors are ignored: a probe may close its connection early.
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
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Ok(response);
        }
        if is_from_a_page(request.headers()) {
            return Ok(text(StatusCode::FORBIDDEN, "requests from other sites are refused\n".to_owned()));
        }
        let query = request.uri().query();
        let verbose = query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("verbose")));
        Ok(match request.uri().path() {
            "/livez" | "/healthz" => self.live().await,
            "/readyz" => match whom(query) {
                Ok(whom) => self.ready(verbose, &whom),
                Err(wrong) => text(StatusCode::BAD_REQUEST, wrong),
            },
            "/startupz" => self.started(verbose),
            "/metrics" => self.metrics(takes_gzip(request.headers())).await,
            "/usage" => self.usage().await,
            "/quota" => self.quota(),
            "/" => self.start(request.headers()).await,
            _ => text(StatusCode::NOT_FOUND, "not found; see /\n".to_owned()),
        })
    }

    /// Returns the status page, or the paths if it is disabled (rule 5).
    async fn start(&self, fields: &HeaderMap) -> Response<Full<Bytes>> {
        let Some(page) = &self.page else { return text(StatusCode::OK, PATHS) };
        if !recheck::has_own_host(fields) {
            let told = "Host must be localhost or an IP address; open the status page as http://127.0.0.1:PORT/ or through a forwarded port\n";
            return text(StatusCode::FORBIDDEN, told);
        }
        let (counts, quota) = (self.workers.counts().await, self.workers.quota());
        let sources = Sources {
            counts: &counts,
            meters: &self.meters,
            readiness: &self.readiness,
            generation: &self.workers.generation(),
            quota: quota.as_ref(),
            since: self.since,
        };
        let mut response = text(StatusCode::OK, page.page(&sources, SystemTime::now()));
        match status_page::set_fields(response.headers_mut()) {
            Ok(()) => response,
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the page cannot be written\n"),
        }
    }

    async fn live(&self) -> Response<Full<Bytes>> {
        match self.workers.is_alive(LIVE).await {
            true => text(StatusCode::OK, "ok\n".to_owned()),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "a worker does not respond\n".to_owned()),
        }
    }

    fn ready(&self, verbose: bool, whom: &ReadinessSubject) -> Response<Full<Bytes>> {
        let Some((ready, lines)) = self.readiness.check(&self.meters, whom) else {
            return text(StatusCode::NOT_FOUND, "unknown caller or listener\n".to_owned());
        };
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let short = if ready { "ok\n" } else { "not ready\n" };
        text(status, if verbose || !ready { format!("{lines}{short}") } else { short.to_owned() })
    }

    fn started(&self, verbose: bool) -> Response<Full<Bytes>> {
        let ready = self.ready(verbose, &ReadinessSubject::Anyone);
        if self.readiness.was_ready() { text(StatusCode::OK, "ok\n".to_owned()) } else { ready }
    }

    /// The state of the quota broker.
    fn quota(&self) -> Response<Full<Bytes>> {
        let Some(snapshot) = self.workers.quota() else {
            return text(StatusCode::NOT_FOUND, "the configuration has no quota\n".to_owned());
        };
        match serde_json::to_string(&snapshot) {
            Ok(json) => as_json(json + "\n"),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the page cannot be written\n".to_owned()),
        }
    }

    async fn usage(&self) -> Response<Full<Bytes>> {
        let counts = self.workers.counts().await;
        let since = humantime::format_rfc3339_seconds(self.since).to_string();
        as_json(usage::page(&counts, &since) + "\n")
    }

    async fn metrics(&self, packed: bool) -> Response<Full<Bytes>> {
        let counts = self.workers.counts().await;
        page_answer(page::text(&counts, &self.meters, self.workers.quota().as_ref()), packed)
    }
}

fn as_json(json: String) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, json);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The response with the page of metrics. A page that cannot be written is an error: an empty one would look like a gate
/// without a single metric.
fn page_answer(page: prometheus::Result<String>, packed: bool) -> Response<Full<Bytes>> {
    let page = match page {
        Ok(page) => page,
        Err(error) => {
            tracing::error!(%error, "the page of metrics cannot be written");
            let said = "the page of metrics cannot be written; see the log\n".to_owned();
            return text(StatusCode::INTERNAL_SERVER_ERROR, said);
        }
    };
    // A page that cannot be compressed is sent as it is.
    let gzip = packed.then(|| gzip(page.as_bytes())).and_then(Result::ok);
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

/// Handles `POST /recheck` (rule 1).
fn rechecked(recheck: &Recheck, fields: &HeaderMap) -> Response<Full<Bytes>> {
    if !recheck::is_from_this_network(fields) {
        return text(
            StatusCode::FORBIDDEN,
            "Host must be localhost or an address, and browsers are refused\n".to_owned(),
        );
    }
    match recheck.ask(Instant::now()) {
        Ok(()) => text(StatusCode::ACCEPTED, "probing every token that Metrica rejects\n".to_owned()),
        Err(seconds) => {
            let mut response =
                text(StatusCode::TOO_MANY_REQUESTS, format!("allowed once a minute; retry in {seconds} s\n"));
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            response
        }
    }
}

/// Whether the client accepts gzip (RFC 9110, section 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    coding::asked_for(headers) == "gzip"
}

/// Compresses a page at the fastest level: its thousands of lines differ little.
fn gzip(page: &[u8]) -> io::Result<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::with_capacity(page.len() / 8), Compression::fast());
    packer.write_all(page)?;
    packer.finish()
}

/// Returns the caller or the listener that the query of `/readyz` names.
fn whom(query: Option<&str>) -> Result<ReadinessSubject, String> {
    let mut asked = query.into_iter().flat_map(|query| query.split('&')).filter_map(|pair| {
        let (name, value) = name_and_value(pair);
        match name {
            "caller" => Some(ReadinessSubject::Caller(subject::text(value.as_bytes()))),
            "listener" => Some(ReadinessSubject::Listener(subject::text(value.as_bytes()))),
            _ => None,
        }
    });
    match (asked.next(), asked.next()) {
        (None, _) => Ok(ReadinessSubject::Anyone),
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err("invalid query; expected one caller= or one listener=\n".to_owned()),
    }
}

/// Whether a web page made the request (rule 4). A URL typed into a browser has no `Origin`, and `none` as its site.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_cannot_be_written_is_not_an_empty_page() {
        let answer = page_answer(Err(prometheus::Error::Msg("a family has no metrics".to_owned())), true);
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.headers().get(CONTENT_ENCODING), None);
        assert_eq!(page_answer(Ok("up 1\n".to_owned()), true).status(), StatusCode::OK);
    }
}
