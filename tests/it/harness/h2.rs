//! A caller that sends frames of HTTP/2 as they are: each is written by hand, so that it can be wrong in any way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::gate::PATIENCE;

/// The client's connection preface (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
/// The whole of a request without a body.
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame, as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block: every field literal, with a new name, never indexed (RFC 7541, section 6.2.3).
pub fn block<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0x10);
        string(&mut bytes, name);
        string(&mut bytes, value);
    }
    bytes
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    integer(bytes, text.len());
    bytes.extend(text.as_bytes());
}

/// An integer with a prefix of seven bits (RFC 7541, section 5.1).
fn integer(bytes: &mut Vec<u8>, value: usize) {
    if value < 127 {
        return bytes.push(u8::try_from(value).unwrap());
    }
    bytes.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

/// The pseudo-header fields of a request.
pub fn request<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost")]
}

/// The header block of a read that everyone may do.
pub fn get() -> Vec<u8> {
    block(request("GET", "/management/v1/counters"))
}

/// The header block of an upload.
pub fn upload() -> Vec<u8> {
    block(request("POST", "/management/v1/counter/1/offline_conversions/upload"))
}

/// A frame that the gate sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Sent {
    /// The number at a place in the payload: an error code, or a stream.
    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// The outcome of a stream, or of its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// An answer that came to its end; of one of the gate's own, its status.
    Answered(u64),
    /// Reset, with this code.
    Reset(u32),
    /// GOAWAY, with this code, and closed.
    Ended(u32),
    /// The connection closed without a GOAWAY.
    Closed,
}

pub trait Socket: Read + Write + Send {}
impl<S: Read + Write + Send> Socket for S {}

/// A connection that speaks HTTP/2.
pub struct H2 {
    socket: Box<dyn Socket>,
    unread: Vec<u8>,
    /// Whether the gate's SETTINGS are acknowledged, as they should be.
    acknowledges: bool,
}

impl H2 {
    /// Connects to a listener and sends nothing yet.
    pub fn silent(place: &str) -> Self {
        let socket: Box<dyn Socket> = if place.starts_with('/') {
            let socket = UnixStream::connect(place).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.set_write_timeout(Some(PATIENCE)).unwrap();
            Box::new(socket)
        } else {
            let socket = TcpStream::connect(place).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.set_write_timeout(Some(PATIENCE)).unwrap();
            socket.set_nodelay(true).unwrap();
            Box::new(socket)
        };
        Self { socket, unread: Vec::new(), acknowledges: true }
    }

    /// Uses a stream that is open, and sends the preface and no settings.
    pub fn on(stream: impl Socket + 'static) -> Self {
        let mut caller = Self { socket: Box::new(stream), unread: Vec::new(), acknowledges: true };
        caller.send([PREFACE, &frame(SETTINGS, 0, 0, [])].concat());
        caller
    }

    /// A client that does not acknowledge SETTINGS: a frame of its own could come in the middle of another.
    pub fn mute(place: &str) -> Self {
        Self { acknowledges: false, ..Self::silent(place) }
    }

    /// Connects with the preface and SETTINGS, each an identifier and a value.
    pub fn with_settings(place: &str, settings: &[(u16, u32)]) -> Self {
        let mut caller = Self::silent(place);
        caller.send([PREFACE, &frame(SETTINGS, 0, 0, self::settings(settings))].concat());
        caller
    }

    /// Connects with the preface and no settings of its own.
    pub fn connect(place: &str) -> Self {
        Self::with_settings(place, &[])
    }

    /// Sends bytes; whether the gate took them.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.socket.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends one frame; whether the gate took it.
    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> bool {
        self.send(frame(kind, flags, stream, payload))
    }

    /// The next frame of the gate; `None` when it closed the connection.
    pub fn next(&mut self) -> Option<Sent> {
        let head = self.exactly(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        let payload = self.exactly(usize::try_from(length).unwrap())?;
        let sent = Sent { kind: head[3], flags: head[4], stream, payload };
        if sent.kind == SETTINGS && sent.flags & ACK == 0 && self.acknowledges {
            self.frame(SETTINGS, ACK, 0, []);
        }
        Some(sent)
    }

    fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            let mut buffer = [0; 64 * 1024];
            match self.socket.read(&mut buffer) {
                Ok(0) => return None,
                Ok(read) => self.unread.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("waited too long for a frame"),
                Err(_) => return None,
            }
        }
        Some(self.unread.drain(..length).collect())
    }

    /// The outcome of a stream, and the bytes of its response.
    pub fn answer(&mut self, stream: u32) -> (Fate, Vec<u8>) {
        let mut body = Vec::new();
        while let Some(sent) = self.next() {
            match sent.kind {
                GOAWAY if sent.number(4) != NO_ERROR => return (Fate::Ended(sent.number(4)), body),
                RST_STREAM if sent.stream == stream => return (Fate::Reset(sent.number(0)), body),
                DATA if sent.stream == stream => body.extend(&sent.payload),
                _ => {}
            }
            if sent.stream == stream && matches!(sent.kind, DATA | HEADERS) && sent.flags & END_STREAM != 0 {
                let said: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
                let code = said.and_then(|said| said["code"].as_u64());
                return (Fate::Answered(code.unwrap_or(200)), body);
            }
        }
        (Fate::Closed, body)
    }

    /// The outcome of a stream.
    pub fn fate(&mut self, stream: u32) -> Fate {
        self.answer(stream).0
    }

    /// Whether the connection still answers, and did not announce its end.
    pub fn is_alive(&mut self) -> bool {
        const WORD: &[u8] = b"are you?";
        self.frame(PING, 0, 0, WORD);
        while let Some(sent) = self.next() {
            match sent.kind {
                PING if sent.payload == WORD => return true,
                GOAWAY => return false,
                _ => {}
            }
        }
        false
    }

    /// The code of the connection's last GOAWAY; `None` when it closed without one.
    pub fn ends(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(sent) = self.next() {
            if sent.kind == GOAWAY {
                code = Some(sent.number(4));
            }
        }
        code
    }
}

/// The payload of SETTINGS.
pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    settings.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect()
}
