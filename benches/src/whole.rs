//! A whole gate, between a caller and an upstream: what it does for a request, from the caller's bytes to the caller's.
//!
//! Everything is on this thread. The gate is its own worker, server, gateway, pool and TLS, as `metrika_gate::process::workers` puts
//! them together, and runs only inside what is counted: until the socket at its other end has something to read. The
//! caller and the upstream are played between, uncounted, so a request costs the same steps in the same order every time.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use metrika_gate::config::{Config, LogFormat};
use metrika_gate::metrics::process::ProcessMeters;
use metrika_gate::policy::caller::KeyHash;
use metrika_gate::policy::key::{RANDOM, of_random};
use metrika_gate::reload::Reloader;
use metrika_gate::server::listen::{Bound, Keeper, bind};
use metrika_gate::server::{Connections, accept};
use metrika_gate::telemetry::{self, Form, Sink};
use metrika_gate::worker::{Learning, Worker};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;

use crate::{Benchmark, Run};

const TOKEN: &str = "y0_AgAAAABdRk7vAAXm2QAAAAD5q1jKpZ8w";

const GET: &str = "GET /stat/v1/data?ids=44147844&metrics=ym:s:visits,ym:s:users&dimensions=ym%3As%3Adate HTTP/1.1\r\n\
    Host: 127.0.0.1\r\nUser-Agent: python-requests/2.32.3\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n\
    Connection: keep-alive\r\n\r\n";

/// The caller may only read.
const DELETE: &str = "DELETE /management/v1/counter/44147844 HTTP/1.1\r\n\
    Host: 127.0.0.1\r\nUser-Agent: python-requests/2.32.3\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n\
    Connection: keep-alive\r\n\r\n";

thread_local! {
    /// For the hook that writes out the worker's lines, as in the gate's own crew.
    static CURRENT: RefCell<Option<Rc<Worker>>> = const { RefCell::new(None) };
}

/// A row of a report.
const ROW: &str = r#"{"dimensions":[{"name":"2026-11-01"}],"metrics":[12345.0,6789.0]}"#;

/// A GET that the upstream answers with a report of about so many thousand bytes. `keys` are added to the configuration.
pub fn get(thousands: usize, keys: &str) -> Benchmark {
    got(Gate::start(keys), GET.to_owned(), thousands)
}

/// A GET whose caller is known by its key.
pub fn get_with_key() -> Benchmark {
    let key = of_random(&[1; RANDOM]).expect("a key");
    let request = GET.replace("Connection:", &format!("Authorization: OAuth {}\r\nConnection:", key.as_str()));
    got(Gate::start(""), request, 2)
}

fn got(mut gate: Gate, request: String, thousands: usize) -> Benchmark {
    let rows = vec![ROW; thousands * 1_000 / (ROW.len() + 1)].join(",");
    let body = format!(r#"{{"query":{{"ids":[44147844],"limit":100}},"data":[{rows}],"total_rows":30}}"#);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 02 Nov 2026 10:00:00 GMT\r\n\
         Content-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\nConnection: keep-alive\r\n\
         Cache-Control: no-cache\r\nVary: Accept-Encoding\r\nSet-Cookie: yandexuid=1; Path=/\r\n\
         X-Yandex-Req-Id: 1793613600000000-1234567890123456789\r\n\r\n{body}",
        body.len()
    );
    Box::new(move |run| {
        gate.ask(&request);
        gate.upstream_receives(run);
        gate.upstream_answers(&answer);
        let answer = gate.caller_receives(run);
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(body.as_bytes()));
        gate.settle();
    })
}

/// A request that the gate refuses: nothing goes to the upstream.
pub fn refused() -> Benchmark {
    let gate = Gate::start("");
    Box::new(move |run| {
        gate.ask(DELETE);
        let answer = gate.caller_receives(run);
        let head = String::from_utf8_lossy(&answer);
        assert!(head.starts_with("HTTP/1.1 403 ") && head.contains("x-gate-error: scope_denied\r\n"), "{head}");
        gate.settle();
    })
}

/// A gate, its caller and its upstream.
struct Gate {
    runtime: LocalRuntime,
    caller: TcpStream,
    upstream: TcpListener,
    connection: Option<(TcpStream, ServerConnection)>,
    tls: Arc<ServerConfig>,
    sink: Sink,
    _bound: Bound,
    _folder: TempDir,
}

impl Gate {
    fn start(keys: &str) -> Self {
        let (tls, ca) = certificate();
        let upstream = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        upstream.set_nonblocking(true).expect("a socket");
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(&folder, &ca, &upstream.local_addr().expect("an address").to_string(), keys);
        let meters = Arc::new(ProcessMeters::default());
        let sink = telemetry::start(LogFormat::Json, &config.log.level, meters.clone()).expect("logging starts");
        sink.write_to(io::sink()).expect("a thread");
        let mut bound = bind(&config.listeners[0], 1, Keeper::Process).expect("a free port");
        let reloader = Reloader::new(None, config, meters.clone(), false).expect("a generation");
        // Nobody listens: what is learnt of a token is learnt once.
        let learning = Learning::new(mpsc::unbounded_channel().0);
        let worker = Rc::new(Worker::new(reloader.generation().clone(), sink.clone(), Form::Json, 1, learning));
        CURRENT.set(Some(worker.clone()));
        // As in the gate's own crew.
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(|| CURRENT.with_borrow(|worker| worker.iter().for_each(|worker| worker.flush_lines())))
            .build_local(LocalOptions::default())
            .expect("a runtime");
        let place = bound.place.strip_prefix("http://").expect("an address").to_owned();
        let (caller, upstream) = runtime.block_on(async {
            let accepting = bound.sockets.pop().expect("a socket").accepting().expect("a runtime");
            let listener = bound.kind;
            let (replace, replaced) = tokio::sync::oneshot::channel();
            // It would end the accepting.
            std::mem::forget(replace);
            let connections = Arc::new(Connections::default());
            tokio::task::spawn_local(accept(worker, listener, accepting, connections, meters, replaced));
            let caller = TcpStream::connect(place).await.expect("the gate accepts");
            (caller, TcpListener::from_std(upstream).expect("a runtime"))
        });
        Self { runtime, caller, upstream, connection: None, tls, sink, _bound: bound, _folder: folder }
    }

    /// The caller sends a request.
    fn ask(&self, request: &str) {
        assert_eq!(self.caller.try_write(request.as_bytes()).expect("room"), request.len());
    }

    /// The gate runs until the upstream has the header of a request.
    fn upstream_receives(&mut self, run: Run) {
        let (socket, tls) = self.connection.get_or_insert_with(|| {
            let (socket, _) = self.runtime.block_on(self.upstream.accept()).expect("the gate connects");
            socket.set_nodelay(true).expect("a socket");
            (socket, ServerConnection::new(self.tls.clone()).expect("TLS"))
        });
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\n") {
            run(&mut || self.runtime.block_on(socket.readable()).expect("the gate sends"));
            while until_blocked(tls.read_tls(&mut Socket(socket))) > 0 {
                let state = tls.process_new_packets().expect("records");
                let before = received.len();
                received.resize(before + state.plaintext_bytes_to_read(), 0);
                tls.reader().read_exact(&mut received[before..]).expect("what was said to be there");
            }
            write_all(socket, tls);
        }
    }

    /// The upstream sends an answer, as far as the socket takes it.
    fn upstream_answers(&mut self, answer: &str) {
        let (socket, tls) = self.connection.as_mut().expect("a connection");
        tls.set_buffer_limit(None);
        tls.writer().write_all(answer.as_bytes()).expect("room");
        write_all(socket, tls);
    }

    /// The gate runs until the caller has a whole answer.
    fn caller_receives(&self, run: Run) -> Vec<u8> {
        let mut received = Vec::new();
        while !is_whole(&received) {
            run(&mut || self.runtime.block_on(self.caller.readable()).expect("the gate answers"));
            let mut buffer = [0; 16 * 1024];
            loop {
                let read = until_blocked(Socket(&self.caller).read(&mut buffer));
                if read == 0 {
                    break;
                }
                received.extend_from_slice(&buffer[..read]);
            }
        }
        received
    }

    /// Lets the thread that writes the log come to its end, so that it is never in the way of what is counted.
    fn settle(&self) {
        self.sink.flush(Duration::from_secs(10));
    }
}

/// A socket of the runtime, used without waiting.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How much was read; 0 when nothing is there.
fn until_blocked(read: io::Result<usize>) -> usize {
    match read {
        Ok(read) => {
            assert!(read > 0, "the gate closed the connection");
            read
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}

fn write_all(socket: &TcpStream, tls: &mut ServerConnection) {
    while tls.wants_write() {
        tls.write_tls(&mut Socket(socket)).expect("room for it all");
    }
}

/// Whether an answer with a length is there to its end.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    bytes.len() - end - 4 == length.parse::<usize>().expect("a number")
}

fn config(folder: &TempDir, ca: &str, upstream: &str, keys: &str) -> Config {
    let write = |name: &str, content: &str| {
        let file = folder.path().join(name);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
        opened.and_then(|mut opened| opened.write_all(content.as_bytes())).expect("room on the disk");
        file
    };
    let (token, ca) = (write("token", TOKEN), write("ca.pem", ca));
    let hash = KeyHash::of(of_random(&[1; RANDOM]).expect("a key").as_bytes());
    let text = format!(
        "
listeners: [{{name: app, address: '127.0.0.1:0'}}]
upstream: {{url: https://api-metrika.yandex.net, ca_file: {ca:?}, connect_to: '{upstream}'}}
tokens: {{read: {{file: {token:?}, scopes: [metrika:read]}}}}
callers:
  - {{id: reports, match: {{listener: app}}, scopes: [metrika:read], tokens: [read]}}
  - {{id: keyed, match: {{key_sha256: ['{hash}']}}, scopes: [metrika:read], tokens: [read]}}
{keys}
"
    );
    Config::parse(&text, &folder.path().join("gate.yaml")).unwrap_or_else(|error| panic!("{error}"))
}

fn certificate() -> (Arc<ServerConfig>, String) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_pem = ca.self_signed(&ca_key).expect("a certificate").pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(vec!["api-metrika.yandex.net".to_owned()]).expect("a name");
    let own = own.signed_by(&key, &issuer).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    let config = config.with_no_client_auth().with_single_cert(vec![own.der().clone()], key).expect("a pair");
    (Arc::new(config), ca_pem)
}
