//! The crew: the worker threads, and what they are told.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use crate::knowledge::Fact;
use crate::metrics::Shard;
use crate::metrics::process::ProcessMeters;
use crate::server::listen::{Bound, BoundSocket};
use crate::server::{Connections, accept};
use crate::symbol::ListenerName;
use crate::telemetry::{Form, Sink};
use crate::worker::{Generation, Learning, Report, Sender, Worker};

/// What a worker is told.
enum Command {
    /// Use this from the next request on.
    Install(Arc<Generation>, oneshot::Sender<()>),
    /// Another worker, or a question, learnt this of a token.
    Learn(Sender, Fact),
    /// Send a copy of your counts.
    Count(oneshot::Sender<Shard>),
    /// Answer.
    Ping(oneshot::Sender<()>),
    /// Accept no more, and end connections after their request.
    Drain,
}

/// The worker threads.
pub struct Crew {
    commands: Vec<mpsc::UnboundedSender<Command>>,
    threads: Vec<JoinHandle<()>>,
    connections: Arc<Connections>,
    /// What they use, for the series that exist before anything happened.
    in_use: Mutex<Arc<Generation>>,
}

/// What every worker begins with.
pub struct Start {
    /// What it serves with.
    pub generation: Arc<Generation>,
    /// Where its lines go.
    pub sink: Sink,
    /// How they look.
    pub form: Form,
    /// The process's counts.
    pub meters: Arc<ProcessMeters>,
    /// Where the workers tell what they learn.
    pub reports: mpsc::UnboundedSender<Report>,
}

thread_local! {
    /// For the hook that is called when a worker has nothing to do; it is not given the worker.
    static CURRENT: RefCell<Option<Rc<Worker>>> = const { RefCell::new(None) };
}

impl Crew {
    /// Starts a worker for each socket of the listeners.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be started.
    pub fn start(bound: &mut [Bound], workers: usize, start: &Start) -> std::io::Result<Self> {
        let connections = Arc::new(Connections::default());
        let in_use = Mutex::new(start.generation.clone());
        let mut crew = Self { commands: Vec::new(), threads: Vec::new(), connections, in_use };
        for index in 0..workers {
            let sockets =
                bound.iter_mut().filter_map(|bound| Some(((bound.name, bound.http2), bound.sockets.pop()?))).collect();
            crew.start_one(index, workers, sockets, start)?;
        }
        Ok(crew)
    }

    fn start_one(
        &mut self,
        index: usize,
        workers: usize,
        sockets: Vec<((ListenerName, bool), BoundSocket)>,
        start: &Start,
    ) -> std::io::Result<()> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let runtime = || {
            Builder::new_current_thread()
                .enable_all()
                // For looking up names only.
                .max_blocking_threads(2)
                .on_thread_park(|| CURRENT.with_borrow(|worker| worker.iter().for_each(|worker| worker.flush_lines())))
                .build_local(LocalOptions::default())
        };
        let (generation, sink, form) = (start.generation.clone(), start.sink.clone(), start.form);
        let (meters, connections) = (start.meters.clone(), self.connections.clone());
        let learning = Learning::new(start.reports.clone());
        let (started, has_started) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let runtime = match runtime() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            let worker = Rc::new(Worker::new(generation, sink, form, workers, learning));
            CURRENT.set(Some(worker.clone()));
            runtime.block_on(async {
                let listening = listen(&worker, sockets, &connections, &meters);
                let up = listening.is_ok();
                let _ = started.send(listening);
                if up {
                    obey(&worker, receiver).await;
                }
            });
            CURRENT.take();
            // A look-up of a name may still be waiting for its resolver; it is not waited for. What is under way ends
            // here, and its lines are the last.
            worker.end();
            runtime.shutdown_background();
            worker.flush_lines();
        })?;
        has_started.recv().unwrap_or_else(|_| Err(std::io::Error::other("the worker ended at its start")))?;
        self.commands.push(sender);
        self.threads.push(thread);
        Ok(())
    }

    /// Gives every worker a new generation; returns when all use it.
    pub async fn install(&self, generation: &Arc<Generation>) {
        let mut acknowledged = Vec::new();
        for worker in &self.commands {
            let (sender, receiver) = oneshot::channel();
            if worker.send(Command::Install(generation.clone(), sender)).is_ok() {
                acknowledged.push(receiver);
            }
        }
        for receiver in acknowledged {
            let _ = receiver.await;
        }
        *self.in_use.lock().unwrap_or_else(PoisonError::into_inner) = generation.clone();
    }

    /// Tells every worker what was learnt of a token.
    pub fn learn(&self, sender: Sender, fact: &Fact) {
        for worker in &self.commands {
            let _ = worker.send(Command::Learn(sender, fact.clone()));
        }
    }

    /// The sum of what the workers counted; `None` when one does not answer in `limit`.
    pub async fn counts(&self, limit: Duration) -> Option<Shard> {
        let mut asked = Vec::new();
        for worker in &self.commands {
            let (sender, receiver) = oneshot::channel();
            worker.send(Command::Count(sender)).ok()?;
            asked.push(receiver);
        }
        let mut sum = Shard::default();
        for receiver in asked {
            sum.add(&tokio::time::timeout(limit, receiver).await.ok()?.ok()?);
        }
        let in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sum.prepare(&in_use.policy);
        Some(sum)
    }

    /// Whether every worker answers in `limit`.
    pub async fn is_alive(&self, limit: Duration) -> bool {
        for worker in &self.commands {
            let (sender, receiver) = oneshot::channel();
            let asked = worker.send(Command::Ping(sender)).is_ok();
            if !asked || !tokio::time::timeout(limit, receiver).await.is_ok_and(|answer| answer.is_ok()) {
                return false;
            }
        }
        true
    }

    /// Tells the workers to accept no more and to end.
    pub fn drain(&self) {
        for worker in &self.commands {
            let _ = worker.send(Command::Drain);
        }
    }

    /// How many connections of callers are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.open()
    }

    /// Lets the workers end, and with them what is still under way.
    pub fn end(self) {
        let Self { commands, threads, .. } = self;
        drop(commands);
        for thread in threads {
            // A worker that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn listen(
    worker: &Rc<Worker>,
    sockets: Vec<((ListenerName, bool), BoundSocket)>,
    connections: &Arc<Connections>,
    meters: &Arc<ProcessMeters>,
) -> std::io::Result<()> {
    for (listener, socket) in sockets {
        let accepting = socket.accepting()?;
        tokio::task::spawn_local(accept(worker.clone(), listener, accepting, connections.clone(), meters.clone()));
    }
    Ok(())
}

async fn obey(worker: &Worker, mut commands: mpsc::UnboundedReceiver<Command>) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Install(generation, done) => {
                worker.install(generation);
                let _ = done.send(());
            }
            Command::Learn(sender, fact) => worker.learning.take(sender, &fact),
            Command::Count(wanted) => drop(wanted.send(worker.counts())),
            Command::Ping(wanted) => drop(wanted.send(())),
            Command::Drain => worker.drain(),
        }
    }
}
