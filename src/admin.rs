//! The admin listener: probes and metrics, for operators and Prometheus. It changes nothing and holds no secret.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::crew::Crew;
use crate::metrics::page;
use crate::metrics::process::ProcessMeters;
use crate::readiness::Readiness;

/// What the admin listener shows.
pub struct Admin {
    /// For counts and for life.
    pub crew: Arc<Crew>,
    /// The process's counts.
    pub meters: Arc<ProcessMeters>,
    /// Whether callers should come.
    pub readiness: Arc<Readiness>,
}

/// A worker that does not answer in this time does not run its loop.
const LIVE: Duration = Duration::from_secs(5);

/// Connections that are open at once; more wait.
const CONNECTIONS: usize = 64;

impl Admin {
    /// Serves until dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Ok((socket, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let admin = self.clone();
            tokio::task::spawn_local(async move {
                let service = service_fn(|request| admin.answer(request));
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
                // A probe that goes away in the middle is nobody's concern.
                let _ = http.serve_connection(TokioIo::new(socket), service).await;
                drop(place);
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Ok(response);
        }
        let verbose =
            request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("verbose")));
        Ok(match request.uri().path() {
            "/livez" | "/healthz" => self.live().await,
            "/readyz" => self.ready(verbose),
            "/startupz" => self.started(verbose),
            "/metrics" => self.metrics().await,
            "/" => text(StatusCode::OK, "metrika-gate admin: /livez /readyz?verbose /startupz /metrics\n".to_owned()),
            _ => text(StatusCode::NOT_FOUND, "not here; see /\n".to_owned()),
        })
    }

    async fn live(&self) -> Response<Full<Bytes>> {
        match self.crew.is_alive(LIVE).await {
            true => text(StatusCode::OK, "ok\n".to_owned()),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "a worker does not answer\n".to_owned()),
        }
    }

    fn ready(&self, verbose: bool) -> Response<Full<Bytes>> {
        let (ready, lines) = self.readiness.check(&self.meters);
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let short = if ready { "ok\n" } else { "not ready\n" };
        text(status, if verbose || !ready { format!("{lines}{short}") } else { short.to_owned() })
    }

    fn started(&self, verbose: bool) -> Response<Full<Bytes>> {
        let ready = self.ready(verbose);
        if self.readiness.was_ready() { text(StatusCode::OK, "ok\n".to_owned()) } else { ready }
    }

    async fn metrics(&self) -> Response<Full<Bytes>> {
        let Some(counts) = self.crew.counts(LIVE).await else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "a worker does not answer\n".to_owned());
        };
        let mut response = text(StatusCode::OK, page::text(&counts, &self.meters));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
        response
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
