//! An HTTP proxy between the gate and the upstream, which answers CONNECT as it is told to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::gate::PATIENCE;

/// A proxy that runs.
pub struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

/// A connection of the gate that asked for a tunnel.
pub struct Asked {
    socket: TcpStream,
    /// The head of the request.
    pub head: String,
}

impl Proxy {
    /// Opens every tunnel, to `to`.
    pub fn to(to: SocketAddr) -> Self {
        Self::run(move |asked| asked.tunnel("HTTP/1.1 200 Connection established\r\n\r\n", to))
    }

    /// Answers every CONNECT with these bytes, and keeps the connection open until the gate closes it.
    pub fn says(answer: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::run(move |mut asked| {
            asked.write(answer.as_ref());
            asked.until_closed();
        })
    }

    /// Runs `serve` for every connection.
    pub fn run(serve: impl Fn(Asked) + Send + Sync + 'static) -> Self {
        Self::run_on(TcpListener::bind("127.0.0.1:0").unwrap(), serve)
    }

    /// The same at a place of the test's choice.
    pub fn run_on(listener: TcpListener, serve: impl Fn(Asked) + Send + Sync + 'static) -> Self {
        let (address, heads) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (serve, kept) = (Arc::new(serve), heads.clone());
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                let (serve, kept) = (serve.clone(), kept.clone());
                std::thread::spawn(move || {
                    let mut asked = Asked { socket, head: String::new() };
                    if asked.read_head() {
                        kept.lock().unwrap().push(asked.head.clone());
                        serve(asked);
                    }
                });
            }
        });
        Self { address, heads }
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The head of every request for a tunnel, byte for byte.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Asked {
    /// Reads up to the end of the head and no further; false if the gate closed before.
    fn read_head(&mut self) -> bool {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if self.socket.read(&mut byte).unwrap_or(0) == 0 {
                return false;
            }
            head.extend_from_slice(&byte);
        }
        self.head = String::from_utf8(head).unwrap();
        true
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.write_all(bytes.as_ref());
    }

    /// Waits until the gate closes the connection; what it sent before.
    pub fn until_closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.socket.read_to_end(&mut rest);
        rest
    }

    /// Writes the answer, and passes bytes on in both directions until both sides have closed.
    pub fn tunnel(mut self, answer: &str, to: SocketAddr) {
        let far = TcpStream::connect(to).unwrap();
        far.set_nodelay(true).unwrap();
        self.socket.set_nodelay(true).unwrap();
        self.write(answer);
        let pass = |mut from: TcpStream, mut to: TcpStream| {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        };
        let back = (far.try_clone().unwrap(), self.socket.try_clone().unwrap());
        let back = std::thread::spawn(move || pass(back.0, back.1));
        pass(self.socket, far);
        back.join().unwrap();
    }
}
