//! A DNS server that knows one address for every name, which can move (RFC 1035, section 4).

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex};

/// A DNS server that runs.
pub struct Dns {
    place: Ipv4Addr,
    address: Arc<Mutex<Ipv4Addr>>,
    names: Arc<Mutex<Vec<String>>>,
}

impl Dns {
    /// Answers with `address`; `None` where the system does not let a test listen on port 53.
    pub fn start(address: Ipv4Addr) -> Option<Self> {
        // Each test is a process of its own.
        let [.., high, low] = std::process::id().to_be_bytes();
        let place = Ipv4Addr::new(127, 153, high, low);
        let socket = UdpSocket::bind((place, 53)).ok()?;
        let dns = Self { place, address: Arc::new(Mutex::new(address)), names: Arc::default() };
        let (address, names) = (dns.address.clone(), dns.names.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let Some((answer, name)) = answer(&buffer[..length], *address.lock().unwrap()) else { continue };
                names.lock().unwrap().push(name);
                let _ = socket.send_to(&answer, from);
            }
        });
        Some(dns)
    }

    /// The address that it listens on, on port 53.
    pub fn place(&self) -> Ipv4Addr {
        self.place
    }

    /// From now on every name is here.
    pub fn move_to(&self, address: Ipv4Addr) {
        *self.address.lock().unwrap() = address;
    }

    /// The names that it was asked for so far.
    pub fn names(&self) -> Vec<String> {
        self.names.lock().unwrap().clone()
    }
}

/// The answer to `question`, and the name in it.
fn answer(question: &[u8], address: Ipv4Addr) -> Option<(Vec<u8>, String)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).into_owned());
        at += length;
    }
    let is_ipv4 = question.get(at..at + 2)? == [0, 1];
    let mut answer = question.get(..2)?.to_vec();
    // A response, with recursion, without an error; one question, one answer or none.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
    answer.extend(question.get(12..at + 4)?);
    if is_ipv4 {
        // The name of the question, A, IN, to be kept for no time, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some((answer, labels.join(".")))
}
