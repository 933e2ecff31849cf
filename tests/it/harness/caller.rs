//! A caller that sends bytes as they are and reads answers as they come.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::gate::PATIENCE;
use super::over::{Over, Stream};

/// A connection to a listener.
pub struct Caller {
    socket: Box<dyn Stream>,
    unread: Vec<u8>,
}

/// An answer: its head, and its body with chunks taken apart.
#[derive(Debug, Clone)]
pub struct Answer {
    /// 200.
    pub status: u16,
    /// In the order of the wire, names in lower case.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Vec<(String, String)>,
    /// Interim responses before it.
    pub interim: Vec<u16>,
}

impl Answer {
    /// The first field of a name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Status and, where the gate refused, its reason: `200`, or `403 scope_denied`.
    pub fn summary(&self) -> String {
        self.field("x-gate-error").map_or_else(|| self.status.to_string(), |reason| format!("{} {reason}", self.status))
    }
}

impl Caller {
    /// Connects to `127.0.0.1:1234` or to the path of a unix socket.
    pub fn connect(place: &str) -> Self {
        let socket: Box<dyn Stream> = if place.starts_with('/') {
            let socket = UnixStream::connect(place).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            Box::new(socket)
        } else {
            let socket = TcpStream::connect(place).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.set_nodelay(true).unwrap();
            match Over::of(place) {
                Some((over, folder)) => over.open(socket, &folder),
                None => Box::new(socket),
            }
        };
        Self { socket, unread: Vec::new() }
    }

    /// Connects to `place` from an address of this machine, as 127.0.0.2.
    pub fn connect_from(source: &str, place: &str) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let source = std::net::SocketAddr::new(source.parse().unwrap(), 0);
        socket.bind(&source.into()).unwrap();
        socket.connect(&place.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::on(TcpStream::from(socket))
    }

    /// Uses a stream that is open.
    pub fn on(stream: impl Stream + 'static) -> Self {
        Self { socket: Box::new(stream), unread: Vec::new() }
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends bytes; whether the gate took them.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.socket.write_all(bytes.as_ref()).is_ok()
    }

    /// Reads one whole answer (to a request that was no HEAD).
    pub fn answer(&mut self) -> Answer {
        self.try_answer(false).expect("an answer")
    }

    /// Reads the answer to a HEAD.
    pub fn answer_to_head(&mut self) -> Answer {
        self.try_answer(true).expect("an answer")
    }

    /// Reads one response; the error tells why it is cut or invalid.
    pub fn try_answer(&mut self, to_head: bool) -> Result<Answer, String> {
        let mut interim = Vec::new();
        let (status, fields) = loop {
            let (status, fields) = self.head()?;
            if !(100..200).contains(&status) || status == 101 {
                break (status, fields);
            }
            interim.push(status);
        };
        let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let mut trailers = Vec::new();
        let body = if to_head || status == 204 || status == 304 {
            Vec::new()
        } else if field("transfer-encoding").is_some() {
            self.chunks(&mut trailers)?
        } else if let Some(length) = field("content-length") {
            self.exactly(length.parse().unwrap())?
        } else {
            self.rest()
        };
        Ok(Answer { status, fields, body, trailers, interim })
    }

    /// Everything until the gate closes the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more().is_ok_and(|read| read > 0) {}
        std::mem::take(&mut self.unread)
    }

    /// Whether the gate closed the connection without another byte.
    pub fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && matches!(self.more(), Ok(0) | Err(_)) && self.unread.is_empty()
    }

    /// Reads some more bytes as they are; 0 when the gate closed the connection.
    pub fn receive(&mut self) -> usize {
        self.more().unwrap_or(0)
    }

    /// The bytes that were read and belong to no response yet.
    pub fn received(&self) -> &[u8] {
        &self.unread
    }

    /// The head of a response: its status and fields.
    pub fn head(&mut self) -> Result<(u16, Vec<(String, String)>), String> {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if self.more().map_err(|error| error.to_string())? == 0 {
                return Err(format!("closed in the head after {:?}", String::from_utf8_lossy(&self.unread)));
            }
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        Ok((status, lines.map(parse_field).collect()))
    }

    fn more(&mut self) -> std::io::Result<usize> {
        let mut buffer = [0; 64 * 1024];
        let read = uninterrupted(|| self.socket.read(&mut buffer))?;
        self.unread.extend_from_slice(&buffer[..read]);
        Ok(read)
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.unread.len() < length {
            if self.more().map_err(|error| error.to_string())? == 0 {
                return Err(format!("closed after {} of {length} bytes", self.unread.len()));
            }
        }
        Ok(self.unread.drain(..length).collect())
    }

    fn line(&mut self) -> Result<String, String> {
        loop {
            if let Some(at) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..at + 2).collect();
                return Ok(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            if self.more().map_err(|error| error.to_string())? == 0 {
                return Err("closed in a chunk".to_owned());
            }
        }
    }

    fn chunks(&mut self, trailers: &mut Vec<(String, String)>) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(self.line()?.split(';').next().unwrap(), 16).unwrap();
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size)?);
            self.exactly(2)?;
        }
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(body);
            }
            trailers.push(parse_field(&line));
        }
    }
}

/// Whether a response is cut: its connection ends before its end, or the gate has seen it by the time of its head, and
/// refuses it as a whole.
pub fn breaks_off(answer: &Result<Answer, String>) -> bool {
    match answer {
        Ok(answer) => answer.summary().starts_with("502 upstream_"),
        Err(error) => error.starts_with("closed") || error.contains("reset"),
    }
}

/// Reads again when a signal came between: a read with a limit of time is not begun again by the kernel (signal(7)).
pub fn uninterrupted(mut read: impl FnMut() -> std::io::Result<usize>) -> std::io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            ended => return ended,
        }
    }
}

fn parse_field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap();
    (name.to_ascii_lowercase(), value.trim().to_owned())
}
