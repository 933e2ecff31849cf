//! The sockets that workers accept on, and rebinding of unix sockets whose file was removed.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::manager::Manager;
use super::workers::{Command, LOOK, Workers};
use crate::metrics::process::ProcessMeters;
use crate::policy::names::ListenerName;
use crate::server::listen::{Bound, BoundSocket, Kind};
use crate::server::{Connections, accept};
use crate::worker::Worker;

/// The accept tasks of one worker.
pub struct Accepts {
    /// The worker that serves the accepted connections.
    pub worker: Rc<Worker>,
    /// The connection counts that all workers share.
    pub connections: Arc<Connections>,
    /// The counters of the process.
    pub meters: Arc<ProcessMeters>,
    /// By listener: dropping the sender ends the accept task of its current socket.
    pub replace: BTreeMap<ListenerName, oneshot::Sender<()>>,
}

impl Accepts {
    /// Accepts on this socket of the listener, in place of the previous one.
    ///
    /// # Errors
    /// When the runtime cannot register the socket.
    pub fn on(&mut self, listener: Kind, socket: BoundSocket) -> std::io::Result<()> {
        let accepting = socket.accepting()?;
        let (replace, replaced) = oneshot::channel();
        let (connections, meters) = (self.connections.clone(), self.meters.clone());
        tokio::task::spawn_local(accept(self.worker.clone(), listener, accepting, connections, meters, replaced));
        self.replace.insert(listener.name, replace);
        Ok(())
    }
}

impl Workers {
    /// Rebinds unix sockets whose file was removed. Checks once a second, for the lifetime of the process.
    pub async fn keep_sockets(&self, bound: &[Bound], meters: &ProcessMeters, manager: &Manager) {
        let mut said: Vec<Option<String>> = vec![None; bound.len()];
        loop {
            tokio::time::sleep(LOOK).await;
            for (bound, said) in bound.iter().zip(&mut said) {
                let (listener, place) = (bound.kind.name.as_str(), &bound.place);
                let again = bound.bind_again(self.members.len());
                meters.socket_now(bound.kind.name, again.as_ref().err().map(|error| format!("{place}: {error}")));
                match again {
                    Ok(None) => {}
                    Ok(Some(sockets)) => {
                        manager.keep(bound.kind.name, bound.keeper, &sockets);
                        for (member, socket) in self.members.iter().zip(sockets) {
                            // Sending fails only if the worker panicked.
                            let _ = member.commands.send(Command::Listen(bound.kind, socket));
                        }
                        meters.socket_bound_again();
                        *said = None;
                        tracing::warn!(listener, place, "the socket file was removed; the gate bound the socket again");
                    }
                    Err(error) => {
                        let error = error.to_string();
                        if said.as_ref() != Some(&error) {
                            tracing::error!(
                                listener,
                                place,
                                error,
                                "the socket file was removed, and binding again failed; new callers cannot connect"
                            );
                            *said = Some(error);
                        }
                    }
                }
            }
        }
    }
}
