//! The crew: the worker threads, what they are told, and whether they come back to their loop.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use crate::knowledge::Fact;
use crate::metrics::Shard;
use crate::metrics::process::ProcessMeters;
use crate::server::Connections;
use crate::server::listen::{Bound, BoundSocket};
use crate::symbol::ListenerName;
use crate::telemetry::{Form, Sink};
use crate::worker::{Generation, Learning, Report, Sender, Worker};

mod sockets;

use sockets::Accepts;

/// What a worker is told.
enum Command {
    /// Use this from the next request on.
    Install(Arc<Generation>, oneshot::Sender<()>),
    /// Another worker, or a question, learnt this of a token.
    Learn(Sender, Arc<[Fact]>),
    /// Send a copy of your counts.
    Count(oneshot::Sender<Shard>),
    /// Answer.
    Ping(oneshot::Sender<()>),
    /// Say with every answer that the connection ends with it; what is under way then is cut.
    Leave(tokio::time::Instant),
    /// Log what is likely to be cut.
    Name,
    /// Accept on this socket of a listener, and no more on the one before it.
    Listen((ListenerName, bool), BoundSocket),
    /// Accept no more, and end connections after their request.
    Drain,
    /// Do not come back to your loop for so long.
    #[cfg(test)]
    Stall(Duration),
}

/// The worker threads.
pub struct Crew {
    members: Vec<Member>,
    connections: Arc<Connections>,
    /// What they use, for the series that exist before anything happened.
    in_use: Mutex<Arc<Generation>>,
}

/// One worker thread.
struct Member {
    commands: mpsc::UnboundedSender<Command>,
    thread: JoinHandle<()>,
    /// It waits in its loop for something to happen.
    rests: Arc<AtomicBool>,
    /// What it had counted when it last answered: a scrape has to come out while it does not.
    counted: Mutex<Shard>,
}

/// A worker is looked at so often.
const LOOK: Duration = Duration::from_secs(1);

/// One that does not come back to its loop in this time has stalled: no request takes it so long, and nothing waits longer for
/// its answer.
const STALLED: Duration = Duration::from_secs(2);

/// A worker has so long to end, once it is told to.
const END: Duration = Duration::from_secs(2);

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
        let mut crew = Self { members: Vec::new(), connections, in_use };
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
        let (commands, receiver) = mpsc::unbounded_channel();
        let rests = Arc::new(AtomicBool::new(false));
        let (parks, unparks) = (rests.clone(), rests.clone());
        let runtime = || {
            Builder::new_current_thread()
                .enable_all()
                // For looking up names only.
                .max_blocking_threads(2)
                .on_thread_park(move || {
                    CURRENT.with_borrow(|worker| worker.iter().for_each(|worker| worker.flush_lines()));
                    parks.store(true, Ordering::Relaxed);
                })
                .on_thread_unpark(move || unparks.store(false, Ordering::Relaxed))
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
                let mut accepts = Accepts { worker: worker.clone(), connections, meters, replace: BTreeMap::new() };
                let listening = sockets.into_iter().try_for_each(|(listener, socket)| accepts.on(listener, socket));
                let up = listening.is_ok();
                let _ = started.send(listening);
                if up {
                    obey(&worker, receiver, &mut accepts).await;
                }
            });
            CURRENT.take();
            // A look-up of a name may still be waiting for its resolver; it is not waited for. What is under way ends
            // here, and its lines are the last.
            worker.cut();
            runtime.shutdown_background();
            worker.flush_lines();
        })?;
        has_started.recv().unwrap_or_else(|_| Err(std::io::Error::other("the worker ended at its start")))?;
        self.members.push(Member { commands, thread, rests, counted: Mutex::default() });
        Ok(())
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for member in &self.members {
            // One that panicked is gone.
            let _ = member.commands.send(command());
        }
    }

    /// Gives every worker a new generation; returns when all use it. One that has stalled is not waited for: it takes the
    /// generation up before anything else it is told, should it ever come back.
    pub async fn install(&self, generation: &Arc<Generation>) {
        let mut acknowledged = Vec::new();
        for (worker, member) in self.members.iter().enumerate() {
            let (sender, receiver) = oneshot::channel();
            if member.commands.send(Command::Install(generation.clone(), sender)).is_ok() {
                acknowledged.push((worker, receiver));
            }
        }
        let deadline = tokio::time::Instant::now() + STALLED;
        for (worker, receiver) in acknowledged {
            if tokio::time::timeout_at(deadline, receiver).await.is_err() {
                tracing::error!(worker, "the worker has stalled, and works with what it was told before");
            }
        }
        *lock(&self.in_use) = generation.clone();
    }

    /// Tells every worker what was learnt of a token.
    pub fn learn(&self, sender: Sender, facts: &Arc<[Fact]>) {
        self.tell(|| Command::Learn(sender, facts.clone()));
    }

    /// The sum of what the workers counted; of one that does not answer, what it had counted when it last did.
    pub async fn counts(&self) -> Shard {
        let ask = |member: &Member| {
            let (sender, receiver) = oneshot::channel();
            let _ = member.commands.send(Command::Count(sender));
            receiver
        };
        let asked: Vec<_> = self.members.iter().map(ask).collect();
        let deadline = tokio::time::Instant::now() + STALLED;
        let mut sum = Shard::default();
        for (member, receiver) in self.members.iter().zip(asked) {
            let answered = tokio::time::timeout_at(deadline, receiver).await;
            let mut counted = lock(&member.counted);
            if let Ok(Ok(counts)) = answered {
                *counted = counts;
            }
            sum.add(&counted);
        }
        let in_use = lock(&self.in_use).clone();
        sum.prepare(&in_use.policy);
        sum
    }

    /// Looks at the workers for as long as the process lives: one that stalls is counted and logged. One that rests is not
    /// woken for that.
    pub async fn watch(&self, meters: &ProcessMeters) {
        let mut asked: Vec<Option<Ping>> = self.members.iter().map(|_| None).collect();
        loop {
            tokio::time::sleep(LOOK).await;
            for (number, (member, ping)) in self.members.iter().zip(&mut asked).enumerate() {
                *ping = match ping.take() {
                    Some(ping) => ping.look(number, meters),
                    None if member.rests.load(Ordering::Relaxed) => None,
                    None => Ping::send(member),
                };
            }
            let stalled = asked.iter().flatten().filter(|ping| ping.is_late).count();
            meters.workers_stalled_now(stalled);
        }
    }

    /// Whether every worker answers in `limit`.
    pub async fn is_alive(&self, limit: Duration) -> bool {
        let mut asked = Vec::new();
        for member in &self.members {
            let (sender, receiver) = oneshot::channel();
            if member.commands.send(Command::Ping(sender)).is_err() {
                return false;
            }
            asked.push(receiver);
        }
        let deadline = tokio::time::Instant::now() + limit;
        for receiver in asked {
            if !matches!(tokio::time::timeout_at(deadline, receiver).await, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }

    /// The process will end: every worker says so with its answers, and still accepts. What is under way at `cuts` is cut.
    pub fn leave(&self, cuts: tokio::time::Instant) {
        self.tell(|| Command::Leave(cuts));
    }

    /// Every worker logs which requests have become likely to be cut.
    pub fn name_what_may_be_cut(&self) {
        self.tell(|| Command::Name);
    }

    /// Every worker accepts no more and ends its connections after their requests.
    pub fn drain(&self) {
        self.tell(|| Command::Drain);
    }

    /// How many connections of callers are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.open()
    }

    /// Lets the workers end, and with them what is still under way; whether all did. One that has stalled is left behind:
    /// the process ends all the same.
    #[must_use]
    pub fn end(self) -> bool {
        let threads: Vec<_> = self.members.into_iter().map(|member| member.thread).collect();
        let deadline = Instant::now() + END;
        while threads.iter().any(|thread| !thread.is_finished()) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

/// A worker that was asked to come back to its loop.
struct Ping {
    since: Instant,
    answer: oneshot::Receiver<()>,
    is_late: bool,
}

impl Ping {
    fn send(member: &Member) -> Option<Self> {
        let (sender, answer) = oneshot::channel();
        member.commands.send(Command::Ping(sender)).ok()?;
        Some(Self { since: Instant::now(), answer, is_late: false })
    }

    /// Itself while the worker numbered `worker` has not answered.
    fn look(mut self, worker: usize, meters: &ProcessMeters) -> Option<Self> {
        match self.answer.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => {
                if !self.is_late && self.since.elapsed() >= STALLED {
                    self.is_late = true;
                    meters.worker_stalled();
                    tracing::error!(
                        worker,
                        "the worker does not come back to its loop; its connections are not served"
                    );
                }
                Some(self)
            }
            Ok(()) => {
                if self.is_late {
                    let after = humantime::format_duration(Duration::from_secs(self.since.elapsed().as_secs()));
                    tracing::warn!(worker, %after, "the worker is back in its loop");
                }
                None
            }
            // It panicked, and that was logged.
            Err(oneshot::error::TryRecvError::Closed) => None,
        }
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn obey(worker: &Worker, mut commands: mpsc::UnboundedReceiver<Command>, accepts: &mut Accepts) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Install(generation, done) => {
                worker.install(generation);
                let _ = done.send(());
            }
            Command::Learn(sender, facts) => worker.learning.take(sender, &facts),
            Command::Count(wanted) => drop(wanted.send(worker.counts())),
            Command::Ping(wanted) => drop(wanted.send(())),
            Command::Leave(cuts) => worker.leave(cuts),
            Command::Name => worker.under_way.name(),
            Command::Listen(listener, socket) => {
                if let Err(error) = accepts.on(listener, socket) {
                    tracing::error!(listener = listener.0.as_str(), %error, "a socket cannot be accepted on");
                }
            }
            Command::Drain => worker.drain(),
            #[cfg(test)]
            Command::Stall(time) => std::thread::sleep(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::reload::Reloader;
    use crate::server::listen::bind;

    /// Two workers, without traffic.
    fn crew() -> (Crew, Arc<ProcessMeters>) {
        let text = "
listeners: [{name: app, address: '127.0.0.1:0'}]
admin: {address: '127.0.0.1:0'}
tokens: {t: {file: /nowhere/t, scopes: [metrika:read]}}
callers: [{id: c, match: {listener: app}, scopes: [metrika:read], tokens: [t]}]
";
        let config = Config::parse(text, std::path::Path::new("gate.yaml")).unwrap();
        let meters = Arc::new(ProcessMeters::default());
        let reloader = Reloader::new(None, config.clone(), meters.clone(), false).unwrap();
        let mut bound: Vec<_> = config.listeners.iter().map(|listener| bind(listener, 2).unwrap()).collect();
        let (reports, _) = mpsc::unbounded_channel();
        let generation = reloader.generation().clone();
        let sink = Sink::new(meters.clone());
        let start = Start { generation, sink, form: Form::Json, meters: meters.clone(), reports };
        (Crew::start(&mut bound, 2, &start).unwrap(), meters)
    }

    #[tokio::test]
    async fn a_worker_that_does_not_come_back_to_its_loop_is_seen() {
        let (crew, meters) = crew();
        let (crew, watched) = (Arc::new(crew), meters.clone());
        let watching = tokio::spawn({
            let crew = crew.clone();
            async move { crew.watch(&watched).await }
        });
        tokio::time::sleep(LOOK * 2).await;
        assert_eq!(meters.worker_stalls(), (0, 0), "one that rests has not stalled");
        crew.members[0].commands.send(Command::Stall(Duration::from_secs(7))).unwrap();
        let until = |stalls| async move {
            for _ in 0..1000 {
                if meters.worker_stalls() == stalls {
                    return meters;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("{:?}", meters.worker_stalls());
        };
        let meters = until((1, 1)).await;
        assert!(!crew.is_alive(Duration::from_millis(100)).await);
        let asked = Instant::now();
        drop(crew.counts().await);
        assert!(asked.elapsed() < STALLED * 2, "a scrape comes out all the same");
        for _ in 0..1000 {
            if meters.worker_stalls() == (0, 1) {
                watching.abort();
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it is back: {:?}", meters.worker_stalls());
    }

    #[tokio::test]
    async fn a_worker_that_has_stalled_does_not_keep_a_reload() {
        let (crew, _) = crew();
        crew.members[0].commands.send(Command::Stall(Duration::from_secs(60))).unwrap();
        let in_use = lock(&crew.in_use).clone();
        tokio::time::timeout(STALLED * 2, crew.install(&in_use)).await.expect("it would keep the process from ending");
    }

    #[test]
    fn a_worker_that_has_stalled_does_not_keep_the_process() {
        let (ends, _) = crew();
        assert!(ends.end());
        let (stalls, _) = crew();
        stalls.members[1].commands.send(Command::Stall(Duration::from_secs(60))).unwrap();
        let told = Instant::now();
        assert!(!stalls.end());
        assert!(told.elapsed() < END * 2);
    }
}
