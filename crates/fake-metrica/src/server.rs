//! The accept loop and its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::exchange;
use super::quota::lease::{Flushing, Leaving};
use super::world::Shared;

/// The time limit of a TLS handshake, so that an idle connection does not hold a descriptor forever.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// The pause after an accept error, so that a process without free descriptors does not spin.
const PAUSE_AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(100);

/// The limit for all header fields in HTTP/2, in bytes: a report's filters can make a target of more than 30 kB, beyond
/// the usual 16 kB.
const HEADER_LIST_BYTES: u32 = 256 * 1024;

/// The HTTP/2 stream window in bytes, so that uploads of 1 GB do not wait for a window update every 64 kB.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// Serves until `stopped` resolves.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    tokio::select! {
        () = accept(listener, TlsAcceptor::from(tls), &shared) => {}
        Ok(()) = stopped => {}
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: &Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(connection(stream, peer, acceptor.clone(), Arc::clone(shared)));
            }
            Err(error) => {
                debug!(%error, "the stand-in cannot accept a connection");
                tokio::time::sleep(PAUSE_AFTER_ACCEPT_ERROR).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, %peer, "the stand-in cannot set TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, %peer, "the TLS handshake with the stand-in failed"),
        Err(_) => return debug!(%peer, "the TLS handshake with the stand-in timed out"),
    };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let leaving = Leaving::default();
    let io = TokioIo::new(Flushing { stream, leaving: leaving.clone() });
    let service = service_fn(move |request| exchange::answer(Arc::clone(&shared), peer.ip(), leaving.clone(), request));
    let ended = if is_http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.max_header_list_size(HEADER_LIST_BYTES);
        builder.initial_stream_window_size(STREAM_WINDOW_BYTES);
        builder.initial_connection_window_size(4 * STREAM_WINDOW_BYTES);
        builder.serve_connection(io, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
    };
    if let Err(error) = ended {
        debug!(%error, %peer, "a connection to the stand-in ended prematurely");
    }
}
