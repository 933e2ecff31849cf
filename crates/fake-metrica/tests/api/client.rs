//! The caller of the tests: one request on a connection of its own, blocking, HTTP/1.1.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use fake_metrica::Fake;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// A response.
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The status and the error type of a refusal.
    pub fn error(&self) -> (u16, String) {
        let error_type = self.json()["errors"][0]["error_type"].as_str().unwrap().to_owned();
        (self.status, error_type)
    }
}

/// Sends a request as the holder of `token`; an empty one sends no `Authorization`.
pub fn call(fake: &Fake, token: &str, method: &str, target: &str, content_type: &str, body: &str) -> Reply {
    let authorization = if token.is_empty() { String::new() } else { format!("Authorization: OAuth {token}\r\n") };
    let length = body.len();
    send(
        fake,
        &format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}\
             Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    )
}

pub fn get(fake: &Fake, token: &str, target: &str) -> Reply {
    call(fake, token, "GET", target, "application/json", "")
}

pub fn post(fake: &Fake, token: &str, target: &str, body: &str) -> Reply {
    call(fake, token, "POST", target, "application/x-yametrika+json", body)
}

/// A connection over TLS.
pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Connects, with HTTP/1.1.
pub fn open(fake: &Fake) -> Stream {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(fake.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let name = ServerName::try_from("api-metrika.yandex.net").unwrap();
    let connection = ClientConnection::new(config, name).unwrap();
    StreamOwned::new(connection, TcpStream::connect(fake.address()).unwrap())
}

/// Sends bytes and reads until the connection ends.
pub fn send(fake: &Fake, request: &str) -> Reply {
    let mut stream = open(fake);
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    // A connection that breaks has no close_notify: what came before it is the answer.
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |end| end + 4);
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Reply { status, head, body: bytes[end..].to_vec() }
}
