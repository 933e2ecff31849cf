//! What the workers accept on, and unix sockets whose file was removed.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Command, Crew, LOOK};
use crate::metrics::process::ProcessMeters;
use crate::server::listen::{Bound, BoundSocket};
use crate::server::{Connections, accept};
use crate::symbol::ListenerName;
use crate::worker::Worker;

/// What a worker accepts on.
pub struct Accepts {
    /// Who serves what is accepted.
    pub worker: Rc<Worker>,
    /// Of all workers.
    pub connections: Arc<Connections>,
    /// The process's counts.
    pub meters: Arc<ProcessMeters>,
    /// Dropping one ends the accepting on that listener's socket.
    pub replace: BTreeMap<ListenerName, oneshot::Sender<()>>,
}

impl Accepts {
    /// Accepts on this socket of a listener, in the place of the one before it.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn on(&mut self, listener: (ListenerName, bool), socket: BoundSocket) -> std::io::Result<()> {
        let accepting = socket.accepting()?;
        let (replace, replaced) = oneshot::channel();
        let (connections, meters) = (self.connections.clone(), self.meters.clone());
        tokio::task::spawn_local(accept(self.worker.clone(), listener, accepting, connections, meters, replaced));
        self.replace.insert(listener.0, replace);
        Ok(())
    }
}

impl Crew {
    /// Binds those of `bound` again whose file was removed; for as long as the process lives, looking once a second.
    pub async fn keep_sockets(&self, bound: &[Bound], meters: &ProcessMeters) {
        let mut said: Vec<Option<String>> = vec![None; bound.len()];
        loop {
            tokio::time::sleep(LOOK).await;
            for (bound, said) in bound.iter().zip(&mut said) {
                let (listener, place) = (bound.name.as_str(), &bound.place);
                let again = bound.bind_again(self.members.len());
                meters.socket_now(bound.name, again.as_ref().err().map(|error| format!("{place}: {error}")));
                match again {
                    Ok(None) => {}
                    Ok(Some(sockets)) => {
                        for (member, socket) in self.members.iter().zip(sockets) {
                            // One that panicked is gone.
                            let _ = member.commands.send(Command::Listen((bound.name, bound.http2), socket));
                        }
                        meters.socket_bound_again();
                        *said = None;
                        tracing::warn!(listener, place, "the file of the socket was removed; it was bound again");
                    }
                    Err(error) => {
                        let error = error.to_string();
                        if said.as_ref() != Some(&error) {
                            tracing::error!(
                                listener,
                                place,
                                error,
                                "the file of the socket was removed, and it cannot be bound again; nobody new can connect"
                            );
                            *said = Some(error);
                        }
                    }
                }
            }
        }
    }
}
