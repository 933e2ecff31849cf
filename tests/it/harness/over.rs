//! Connections of callers to listeners that speak TLS or are a forward proxy.
//!
//! `METRIKA_GATE_TESTS_OVER` makes every test whose listeners are `{name: ..., address: '127.0.0.1:0'}` use another kind of
//! connection: `tls`, `tunnel` (TLS in a tunnel of the proxy) or `clear_tunnel`. Tests then send and receive the same bytes.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::SystemTime;

use metrika_gate::config::certificates::{Authority, LEAF_DAYS, NewKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::files::write_private;

/// A kind of connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Plain,
    Tls,
    Tunnel,
    ClearTunnel,
}

/// The kinds and the authorities of listeners, by address, other than plain ones.
static PLACES: LazyLock<Mutex<HashMap<String, (Over, PathBuf)>>> = LazyLock::new(Mutex::default);

impl Over {
    /// The kind that the environment selects.
    #[expect(clippy::disallowed_methods, reason = "it is a setting of the tests, not of the program")]
    pub fn selected() -> Self {
        match std::env::var("METRIKA_GATE_TESTS_OVER").as_deref() {
            Ok("tls") => Self::Tls,
            Ok("tunnel") => Self::Tunnel,
            Ok("clear_tunnel") => Self::ClearTunnel,
            Ok(other) => panic!("unknown kind {other}"),
            Err(_) => Self::Plain,
        }
    }

    /// The configuration with listeners of this kind.
    pub fn applied(self, config: &str) -> String {
        const PLAIN: &str = ", address: '127.0.0.1:0'";
        let more = match self {
            Self::Plain => "",
            Self::Tls => ", tls: {authority: '{folder}/ca'}",
            Self::Tunnel | Self::ClearTunnel => ", proxy: true, tls: {authority: '{folder}/ca'}",
        };
        config.replace(PLAIN, &format!("{PLAIN}{more}"))
    }

    /// Makes callers of `place` use this kind of connection; the authority is in `folder`.
    pub fn register(self, place: &str, folder: &Path) {
        PLACES.lock().unwrap().insert(place.to_owned(), (self, folder.to_owned()));
    }

    /// The kind for `place`, and the folder of the authority.
    pub fn of(place: &str) -> Option<(Self, PathBuf)> {
        PLACES.lock().unwrap().get(place).cloned().filter(|(over, _)| *over != Self::Plain)
    }

    /// Opens a connection on `socket`.
    pub fn open(self, mut socket: TcpStream, folder: &Path) -> Box<dyn Stream> {
        match self {
            Self::Plain => Box::new(socket),
            Self::Tls => Box::new(client(folder, &[], "127.0.0.1", socket)),
            Self::Tunnel => {
                connect(&mut socket, "api-metrika.yandex.net:443");
                Box::new(Renamed(client(folder, &[], "api-metrika.yandex.net", socket)))
            }
            Self::ClearTunnel => {
                connect(&mut socket, "api-metrika.yandex.net:80");
                Box::new(Renamed(socket))
            }
        }
    }
}

/// A stream that a caller uses.
pub trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// Sends another Host than the tests write, because the tunnel has the name of Metrica.
struct Renamed<S>(S);

impl<S: Read> Read for Renamed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<S: Write> Write for Renamed<S> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut sent = Vec::new();
        let mut rest = bytes;
        while let Some(at) = rest.windows(NAME.len()).position(|begun| begun == NAME) {
            sent.extend_from_slice(&rest[..at]);
            sent.extend_from_slice(b"Host: api-metrika.yandex.net\r\n");
            rest = &rest[at + NAME.len()..];
        }
        sent.extend_from_slice(rest);
        self.0.write_all(&sent).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

const NAME: &[u8] = b"Host: localhost\r\n";

/// Sends CONNECT and reads the response.
pub fn connect(socket: &mut TcpStream, target: &str) {
    socket.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(socket.read(&mut byte).unwrap(), 1, "{:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer));
}

/// A TLS client that trusts the authority in `folder`.
pub fn client(
    folder: &Path,
    protocols: &[&str],
    name: &str,
    socket: TcpStream,
) -> StreamOwned<ClientConnection, TcpStream> {
    let session = ClientConnection::new(settings(folder, protocols), server_name(name)).unwrap();
    StreamOwned::new(session, socket)
}

/// The settings of such clients.
pub fn settings(folder: &Path, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let settings = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut settings = settings.with_root_certificates(roots).with_no_client_auth();
    settings.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(settings)
}

/// A name or an address.
pub fn server_name(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).unwrap()
}

/// Creates an authority in `folder`, as `ca init` does, and a certificate that is valid from `now`.
pub fn authority_at(folder: &Path, now: SystemTime) {
    std::fs::create_dir_all(folder).unwrap();
    let (authority, pem, key) = Authority::create(&[], &[], now).unwrap();
    let leaf_key = NewKey::generate().unwrap();
    std::fs::write(folder.join("ca.pem"), pem).unwrap();
    write_private(&folder.join("ca.key"), &key);
    std::fs::write(folder.join("leaf.pem"), authority.issue(&leaf_key, LEAF_DAYS, now).unwrap()).unwrap();
    write_private(&folder.join("leaf.key"), &leaf_key.pem());
}
