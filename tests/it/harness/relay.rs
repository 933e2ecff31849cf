//! A way to an upstream that can be closed and opened again, at the same port or at another address.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Passes bytes on while it is open.
pub struct Relay {
    to: SocketAddr,
    open: Option<Open>,
}

struct Open {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    pairs: Arc<Mutex<Vec<[TcpStream; 2]>>>,
    thread: std::thread::JoinHandle<()>,
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}

impl Relay {
    /// To `to`, closed.
    pub fn new(to: SocketAddr) -> Self {
        Self { to, open: None }
    }

    /// Opens it at `address`; where it is then.
    pub fn open(&mut self, address: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, pairs) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (to, stopped, added) = (self.to, stop.clone(), pairs.clone());
        let thread = std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let far = TcpStream::connect(to).unwrap();
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                pass(near.try_clone().unwrap(), far.try_clone().unwrap());
                pass(far.try_clone().unwrap(), near.try_clone().unwrap());
                added.lock().unwrap().push([near, far]);
            }
        });
        self.open = Some(Open { address, stop, pairs, thread });
        address
    }

    /// Closes it, as a process ends that is killed: nobody listens, and every connection is reset.
    pub fn kill(&mut self) {
        let Open { address, stop, pairs, thread } = self.open.take().unwrap();
        stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(address);
        thread.join().unwrap();
        for pair in pairs.lock().unwrap().drain(..) {
            let _ = socket2::SockRef::from(&pair[0]).set_linger(Some(Duration::ZERO));
            for socket in pair {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}
