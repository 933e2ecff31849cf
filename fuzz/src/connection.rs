//! A caller's connection, and everything that a caller can do with one: send, wait, and end it at any point, politely or
//! not.

use std::fmt::{self, Debug, Formatter};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A caller waits so long for bytes, for room to send, and for the end of a connection.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a caller does.
#[derive(Clone, PartialEq, Eq)]
pub enum Act {
    Send(Vec<u8>),
    /// Waits until everything that was asked is answered.
    Wait,
    /// Waits for a moment.
    Hold,
    /// Waits for longer than the gate has patience with any caller.
    Stall,
    /// Waits until something arrives, but not for long.
    Listen,
    /// Ends its half of the connection, and reads on.
    Finish,
    /// Resets the connection. A unix socket knows no reset, and is closed.
    Reset,
    /// Closes the connection and reads nothing.
    Leave,
}

/// So many moments and waits to hear something, and so many stalls, an input may have: they take time.
const MOMENTS: usize = 8;
const STALLS: usize = 1;

impl Act {
    /// The act that a number says.
    pub fn of(number: u8) -> Self {
        match number % 8 {
            0 => Self::Hold,
            1 => Self::Stall,
            2 => Self::Listen,
            3 | 6 => Self::Finish,
            4 | 7 => Self::Reset,
            _ => Self::Leave,
        }
    }

    /// Nothing can be sent after it.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Finish | Self::Reset | Self::Leave)
    }

    /// Neither sends nor waits for an answer.
    pub fn is_rude(&self) -> bool {
        !matches!(self, Self::Send(_) | Self::Wait)
    }
}

impl Debug for Act {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(bytes) => write!(formatter, "send \"{}\"", bytes.escape_ascii()),
            Self::Wait => formatter.write_str("wait for answers"),
            Self::Hold => formatter.write_str("wait a moment"),
            Self::Stall => formatter.write_str("stall"),
            Self::Listen => formatter.write_str("wait for bytes"),
            Self::Finish => formatter.write_str("FIN"),
            Self::Reset => formatter.write_str("RST"),
            Self::Leave => formatter.write_str("close"),
        }
    }
}

/// What a caller does, in order, until it ends the connection.
#[derive(Debug, Clone, Default)]
pub struct Acts(pub Vec<Act>);

impl Acts {
    /// It ends the connection itself.
    pub fn are_over(&self) -> bool {
        self.0.last().is_some_and(Act::is_end)
    }

    /// One of them is rude.
    pub fn are_rude(&self) -> bool {
        self.0.iter().any(Act::is_rude)
    }

    /// Sends more.
    pub fn send(&mut self, bytes: &[u8]) {
        if self.are_over() || bytes.is_empty() {
            return;
        }
        match self.0.last_mut() {
            Some(Act::Send(before)) => before.extend_from_slice(bytes),
            Some(_) | None => self.0.push(Act::Send(bytes.to_vec())),
        }
    }

    /// Does something else, unless it was done too often.
    pub fn act(&mut self, act: Act) {
        let moments = self.0.iter().filter(|act| matches!(act, Act::Hold | Act::Listen)).count();
        let stalls = self.0.iter().filter(|act| **act == Act::Stall).count();
        let too_often = match act {
            Act::Hold | Act::Listen => moments >= MOMENTS,
            Act::Stall => stalls >= STALLS,
            _ => false,
        };
        if !self.are_over() && !too_often {
            self.0.push(act);
        }
    }

    /// Takes back the last bytes that were sent, but not what came before something else was done.
    pub fn take_back(&mut self, bytes: usize) -> Vec<u8> {
        match self.0.last_mut() {
            Some(Act::Send(sent)) => sent.split_off(sent.len().saturating_sub(bytes)),
            Some(_) | None => Vec::new(),
        }
    }

    /// How many bytes are sent.
    pub fn length(&self) -> usize {
        self.sent().map(<[u8]>::len).sum()
    }

    /// Everything that is sent.
    pub fn bytes(&self) -> Vec<u8> {
        self.sent().flatten().copied().collect()
    }

    fn sent(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter_map(|act| if let Act::Send(bytes) = act { Some(&bytes[..]) } else { None })
    }
}

/// Where the gate listens.
#[derive(Debug, Clone)]
pub enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Place {
    /// The place that the gate says that it listens at.
    ///
    /// # Panics
    /// When it says none.
    pub fn of(said: &str) -> Self {
        match (said.strip_prefix("unix:"), said.strip_prefix("http://")) {
            (Some(path), _) => Self::Unix(path.into()),
            (_, Some(address)) => Self::Tcp(address.parse().expect("an address")),
            (None, None) => panic!("a place: {said}"),
        }
    }
}

/// A caller's socket.
#[derive(Debug)]
pub enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    /// Connects.
    pub fn connect(place: &Place) -> Self {
        let limit = Some(PATIENCE);
        match place {
            Place::Unix(path) => {
                let socket = UnixStream::connect(path).expect("the gate accepts");
                socket.set_read_timeout(limit).and_then(|()| socket.set_write_timeout(limit)).expect("a limit");
                Self::Unix(socket)
            }
            Place::Tcp(address) => {
                let began = Instant::now();
                let socket = loop {
                    match TcpStream::connect_timeout(address, PATIENCE) {
                        // Connections that ended lately still have the ports.
                        Err(error) if error.kind() == ErrorKind::AddrNotAvailable && began.elapsed() < PATIENCE => {
                            std::thread::sleep(Duration::from_millis(10));
                        }
                        connected => break connected.expect("the gate accepts"),
                    }
                };
                socket.set_nodelay(true).expect("an option");
                socket.set_read_timeout(limit).and_then(|()| socket.set_write_timeout(limit)).expect("a limit");
                Self::Tcp(socket)
            }
        }
    }

    /// Sends in pieces, until it is not taken any more.
    pub fn send(&mut self, seed: u8, bytes: &[u8]) {
        let step = if seed == 0 { bytes.len() } else { usize::from(seed) * usize::from(seed) };
        for piece in bytes.chunks(step.max(bytes.len() / 1000).max(1)) {
            let sent = match self {
                Self::Unix(socket) => socket.write_all(piece),
                Self::Tcp(socket) => socket.write_all(piece),
            };
            if sent.is_err() {
                break;
            }
            if seed > 200 {
                std::thread::yield_now();
            }
        }
    }

    /// Reads once: nothing when the gate has ended the connection, however it did; `None` when nothing arrives in time.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            let read = match self {
                Self::Unix(socket) => socket.read(buffer),
                Self::Tcp(socket) => socket.read(buffer),
            };
            match read.map_err(|error| error.kind()) {
                Ok(read) => return Some(read),
                Err(ErrorKind::Interrupted) => {}
                Err(ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(_) => return Some(0),
            }
        }
    }

    /// Reads once, if something arrives soon.
    pub fn listen(&mut self, buffer: &mut [u8]) -> Option<usize> {
        self.limit(SOON);
        let read = self.receive(buffer);
        self.limit(PATIENCE);
        read
    }

    fn limit(&self, limit: Duration) {
        match self {
            Self::Unix(socket) => socket.set_read_timeout(Some(limit)),
            Self::Tcp(socket) => socket.set_read_timeout(Some(limit)),
        }
        .expect("a limit");
    }

    /// Sends no more.
    pub fn finish(&self) {
        // Where it fails, the gate has ended the connection.
        let _ = match self {
            Self::Unix(socket) => socket.shutdown(Shutdown::Write),
            Self::Tcp(socket) => socket.shutdown(Shutdown::Write),
        };
    }

    /// Lets the end of the connection be a reset, where there is one.
    pub fn break_off(&self) {
        if let Self::Tcp(socket) = self {
            socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).expect("an option");
        }
    }
}

/// What is to be heard at all is mostly heard so soon.
const SOON: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_done_after_the_end() {
        let mut acts = Acts::default();
        acts.send(b"ab");
        acts.send(b"c");
        acts.act(Act::Hold);
        acts.send(b"d");
        acts.act(Act::Reset);
        acts.send(b"e");
        acts.act(Act::Finish);
        assert_eq!(acts.0, [Act::Send(b"abc".to_vec()), Act::Hold, Act::Send(b"d".to_vec()), Act::Reset]);
        assert!(acts.are_over() && acts.are_rude());
        assert_eq!(acts.bytes(), b"abcd");
    }

    #[test]
    fn a_part_is_taken_back() {
        let mut acts = Acts::default();
        acts.send(b"a");
        acts.act(Act::Hold);
        assert_eq!(acts.take_back(5), b"");
        acts.send(b"bcd");
        assert_eq!(acts.take_back(2), b"cd");
        assert_eq!(acts.take_back(5), b"b");
        assert_eq!(acts.length(), 1);
    }

    #[test]
    fn slow_acts_are_limited_to_a_few() {
        let mut acts = Acts::default();
        for _ in 0..20 {
            acts.act(Act::Hold);
            acts.act(Act::Stall);
            acts.act(Act::Listen);
        }
        let count = |wanted: Act| acts.0.iter().filter(|act| **act == wanted).count();
        assert_eq!((count(Act::Hold), count(Act::Stall), count(Act::Listen)), (4, 1, 4));
    }
}
