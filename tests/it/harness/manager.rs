//! A service manager: a notify socket that records the messages and keeps the descriptors of the store.

use std::collections::HashMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::gate::until;

/// The notify socket of a service.
pub struct Manager {
    folder: tempfile::TempDir,
    received: Arc<Mutex<Received>>,
}

#[derive(Default)]
struct Received {
    /// Each message, with its lines joined by a space.
    messages: Vec<String>,
    store: HashMap<String, Vec<OwnedFd>>,
}

impl Manager {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        let received = Arc::<Mutex<Received>>::default();
        let records = received.clone();
        std::thread::spawn(move || {
            while let Some((text, descriptors)) = receive(&socket) {
                records.lock().unwrap().take(&text, descriptors);
            }
        });
        Self { folder, received }
    }

    /// The value of NOTIFY_SOCKET.
    pub fn socket(&self) -> String {
        self.folder.path().join("notify").display().to_string()
    }

    /// Every message so far.
    pub fn messages(&self) -> Vec<String> {
        self.received.lock().unwrap().messages.clone()
    }

    /// The number of messages that begin like this.
    pub fn count(&self, begin: &str) -> usize {
        self.messages().iter().filter(|message| message.starts_with(begin)).count()
    }

    /// Waits until one of the messages after the first `after` has `part`. Returns the number of messages up to it.
    pub fn until(&self, after: usize, part: &str) -> usize {
        let find = || self.messages().iter().skip(after).position(|message| message.contains(part));
        until(&format!("a message with {part}"), || find().is_some());
        after + find().unwrap() + 1
    }

    /// Copies of what the store has: as systemd, it keeps its own until it is told to remove them.
    pub fn copies(&self) -> Vec<(String, OwnedFd)> {
        let received = self.received.lock().unwrap();
        let all = received.store.iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one)));
        all.map(|(name, one)| (name.clone(), one.try_clone().unwrap())).collect()
    }

    /// Takes what the store has, as for the next start: the names and the descriptors.
    pub fn take_store(&self) -> Vec<(String, OwnedFd)> {
        let store = std::mem::take(&mut self.received.lock().unwrap().store);
        store.into_iter().flat_map(|(name, all)| all.into_iter().map(move |one| (name.clone(), one))).collect()
    }
}

impl Received {
    /// Handles a message as systemd does.
    fn take(&mut self, text: &str, descriptors: Vec<OwnedFd>) {
        let lines: Vec<&str> = text.lines().collect();
        let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME="));
        if lines.contains(&"FDSTORE=1") {
            self.store.entry(name.unwrap_or("stored").to_owned()).or_default().extend(descriptors);
        }
        if lines.contains(&"FDSTOREREMOVE=1") {
            self.store.remove(name.unwrap());
        }
        self.messages.push(lines.join(" "));
    }
}

fn receive(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
    let length = got.ok()?.bytes;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    Some((String::from_utf8(bytes[..length].to_vec()).unwrap(), descriptors))
}
