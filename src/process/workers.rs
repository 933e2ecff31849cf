//! Worker threads: starting them, sending them commands, and detecting stalled ones.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrica::observed_rights::Fact;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use super::sockets::Accepts;
use crate::metrics::Shard;
use crate::metrics::process::ProcessMeters;
use crate::quota::QuotaSnapshot;
use crate::server::Connections;
use crate::server::listen::{Bound, BoundSocket, Kind};
use crate::telemetry::{Form, Sink};
use crate::worker::{Generation, Learning, Report, TokenUse, Turns, Worker};

/// A command to a worker.
pub(super) enum Command {
    /// Use this generation from the next request on, and acknowledge it.
    Install(Arc<Generation>, oneshot::Sender<()>),
    /// Record facts about a token that another worker or a probe learnt.
    Learn(TokenUse, Arc<[Fact]>),
    /// Send a copy of the worker's counts. The command was sent at this time.
    Count(oneshot::Sender<Shard>, Instant),
    /// Reply at once, to show that the loop runs. The command was sent at this time.
    Ping(oneshot::Sender<()>, Instant),
    /// Close each connection with its next response; cut all exchanges still open at this time.
    Leave(tokio::time::Instant),
    /// Log the requests that are likely to be cut.
    Name,
    /// Accept on this socket of the listener, in place of the previous one.
    Listen(Kind, BoundSocket),
    /// Stop accepting, and close each connection after its request.
    Drain,
    /// Block the loop for this long.
    #[cfg(test)]
    Stall(Duration),
}

/// The worker threads.
pub struct Workers {
    pub(super) members: Vec<WorkerThread>,
    connections: Arc<Connections>,
    /// The generation in use, which lists the series that exist before their first event.
    in_use: Mutex<Arc<Generation>>,
}

/// One worker thread.
pub(super) struct WorkerThread {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    thread: JoinHandle<()>,
    /// Whether the worker is parked in its loop, waiting for an event.
    rests: Arc<AtomicBool>,
    /// The counts of its last reply; a scrape uses them while the worker does not reply.
    counted: Mutex<Shard>,
}

/// The interval between two checks of the workers.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// A worker that does not reply within this time has stalled: no request blocks the loop that long, and nothing
/// waits longer for a reply.
const STALLED: Duration = Duration::from_secs(2);

/// The time in which the workers have to end after they were told to.
const END: Duration = Duration::from_secs(2);

/// The initial state of every worker.
pub struct Start {
    /// The first generation.
    pub generation: Arc<Generation>,
    /// The destination of log lines.
    pub sink: Sink,
    /// The form of log lines.
    pub form: Form,
    /// The counters of the process.
    pub meters: Arc<ProcessMeters>,
    /// The channel on which workers report facts about tokens.
    pub reports: mpsc::UnboundedSender<Report>,
}

thread_local! {
    /// The worker of this thread, for the park hook, which has no parameters.
    static CURRENT: RefCell<Option<Rc<Worker>>> = const { RefCell::new(None) };
}

impl Workers {
    /// Returns the state of the quota broker, if the configuration has a quota.
    #[must_use]
    pub fn quota(&self) -> Option<QuotaSnapshot> {
        let in_use = lock(&self.in_use).clone();
        in_use.quota.as_ref().map(|_| in_use.turns.snapshot())
    }

    /// Returns the generation in use.
    #[must_use]
    pub fn generation(&self) -> Arc<Generation> {
        lock(&self.in_use).clone()
    }

    /// Returns the turns of requests, which all generations share.
    #[must_use]
    pub fn turns(&self) -> Arc<Turns> {
        lock(&self.in_use).turns.clone()
    }

    /// Starts `workers` threads, each with one socket of every listener.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be started.
    pub fn start(bound: &mut [Bound], worker_count: usize, start: &Start) -> std::io::Result<Self> {
        let connections = Arc::new(Connections::default());
        let in_use = Mutex::new(start.generation.clone());
        let mut workers = Self { members: Vec::new(), connections, in_use };
        for index in 0..worker_count {
            let sockets = bound.iter_mut().filter_map(|bound| Some((bound.kind, bound.sockets.pop()?))).collect();
            workers.start_one(index, worker_count, sockets, start)?;
        }
        Ok(workers)
    }

    fn start_one(
        &mut self,
        index: usize,
        worker_count: usize,
        sockets: Vec<(Kind, BoundSocket)>,
        start: &Start,
    ) -> std::io::Result<()> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let rests = Arc::new(AtomicBool::new(false));
        let (parks, unparks) = (rests.clone(), rests.clone());
        let runtime = || {
            Builder::new_current_thread()
                .enable_all()
                // Only name look-ups use blocking threads.
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
            let worker = Rc::new(Worker::new(generation, sink, form, worker_count, learning));
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
            // A pending name look-up is abandoned. Open exchanges are cut here, and their lines are the last ones.
            worker.cut();
            runtime.shutdown_background();
            worker.flush_lines();
        })?;
        has_started.recv().unwrap_or_else(|_| Err(std::io::Error::other("the worker ended during startup")))?;
        self.members.push(WorkerThread { commands, thread, rests, counted: Mutex::default() });
        Ok(())
    }

    fn send_to_all(&self, command: impl Fn() -> Command) {
        for member in &self.members {
            // Sending fails only if the worker panicked.
            let _ = member.commands.send(command());
        }
    }

    /// Gives every worker a new generation, and returns when all have acknowledged it. It does not wait for a stalled
    /// worker, which installs the generation before it handles any later command.
    pub async fn install(&self, generation: &Arc<Generation>) {
        let mut acknowledged = Vec::new();
        for (worker, member) in self.members.iter().enumerate() {
            let (token_use, receiver) = oneshot::channel();
            if member.commands.send(Command::Install(generation.clone(), token_use)).is_ok() {
                acknowledged.push((worker, receiver));
            }
        }
        let deadline = tokio::time::Instant::now() + STALLED;
        for (worker, receiver) in acknowledged {
            if tokio::time::timeout_at(deadline, receiver).await.is_err() {
                tracing::error!(worker, "the worker has stalled; it still uses the previous configuration and tokens");
            }
        }
        *lock(&self.in_use) = generation.clone();
    }

    /// Sends facts about a token to every worker.
    pub fn learn(&self, token_use: TokenUse, facts: &Arc<[Fact]>) {
        self.send_to_all(|| Command::Learn(token_use, facts.clone()));
    }

    /// Returns the sum of the workers' counts. A worker that does not reply contributes the counts of its last reply.
    pub async fn counts(&self) -> Shard {
        let ask = |member: &WorkerThread| {
            let (token_use, receiver) = oneshot::channel();
            let _ = member.commands.send(Command::Count(token_use, Instant::now()));
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

    /// Checks the workers for the lifetime of the process; a stall is counted and logged. The check does not wake a
    /// parked worker.
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

    /// Whether every worker replies within `limit`.
    pub async fn is_alive(&self, limit: Duration) -> bool {
        let mut asked = Vec::new();
        for member in &self.members {
            let (token_use, receiver) = oneshot::channel();
            if member.commands.send(Command::Ping(token_use, Instant::now())).is_err() {
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

    /// Announces the end of the process: workers still accept, but close each connection with its next response.
    /// Exchanges still open at `cuts` are cut.
    pub fn leave(&self, cuts: tokio::time::Instant) {
        self.send_to_all(|| Command::Leave(cuts));
    }

    /// Makes every worker log the requests that have become likely to be cut.
    pub fn log_connections_at_risk(&self) {
        self.send_to_all(|| Command::Name);
    }

    /// Makes every worker stop accepting and close its connections after their requests.
    pub fn drain(&self) {
        self.send_to_all(|| Command::Drain);
    }

    /// Returns the number of workers.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.members.len()
    }

    /// Returns the number of open caller connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.open()
    }

    /// Ends the workers and the exchanges that are still open. Returns whether all workers ended within two seconds; a
    /// stalled worker does not prevent the end of the process.
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

/// A ping that a worker has not answered yet.
struct Ping {
    since: Instant,
    answer: oneshot::Receiver<()>,
    is_late: bool,
}

impl Ping {
    fn send(member: &WorkerThread) -> Option<Self> {
        let (token_use, answer) = oneshot::channel();
        member.commands.send(Command::Ping(token_use, Instant::now())).ok()?;
        Some(Self { since: Instant::now(), answer, is_late: false })
    }

    /// Returns `self` while the worker numbered `worker` has not replied.
    fn look(mut self, worker: usize, meters: &ProcessMeters) -> Option<Self> {
        match self.answer.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => {
                if !self.is_late && self.since.elapsed() >= STALLED {
                    self.is_late = true;
                    meters.worker_stalled();
                    tracing::error!(worker, "the worker has stalled; its connections are not served");
                }
                Some(self)
            }
            Ok(()) => {
                if self.is_late {
                    let after = humantime::format_duration(Duration::from_secs(self.since.elapsed().as_secs()));
                    tracing::warn!(worker, %after, "the worker has resumed");
                }
                None
            }
            // The worker panicked, which is logged already.
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
            Command::Learn(token_use, facts) => worker.learning.take(token_use, &facts),
            Command::Count(wanted, sent) => {
                worker.count(|shard| shard.lag(sent.elapsed()));
                let _ = wanted.send(worker.counts());
            }
            Command::Ping(wanted, sent) => {
                worker.count(|shard| shard.lag(sent.elapsed()));
                let _ = wanted.send(());
            }
            Command::Leave(cuts) => worker.leave(cuts),
            Command::Name => worker.under_way.name(),
            Command::Listen(listener, socket) => {
                if let Err(error) = accepts.on(listener, socket) {
                    tracing::error!(listener = listener.name.as_str(), %error, "the worker cannot accept connections on a socket");
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
    use crate::process::manager::Manager;
    use crate::reload::Reloader;
    use crate::server::listen::{Keeper, bind};

    /// Returns two workers without traffic.
    fn idle_workers() -> (Workers, Arc<ProcessMeters>) {
        let text = "
listeners: [{name: app, address: '127.0.0.1:0'}]
admin: {address: '127.0.0.1:0'}
tokens: {t: {file: /nowhere/t, scopes: [metrika:read]}}
callers: [{id: c, match: {listener: app}, scopes: [metrika:read], tokens: [t]}]
";
        let config = Config::parse(text, std::path::Path::new("gate.yaml")).unwrap();
        let meters = Arc::new(ProcessMeters::default());
        let reloader = Reloader::new(None, config.clone(), meters.clone(), false).unwrap();
        let mut bound: Vec<_> =
            config.listeners.iter().map(|listener| bind(listener, 2, Keeper::Process).unwrap()).collect();
        let (reports, _) = mpsc::unbounded_channel();
        let generation = reloader.generation().clone();
        let sink = Sink::new(meters.clone());
        let start = Start { generation, sink, form: Form::Json, meters: meters.clone(), reports };
        (Workers::start(&mut bound, 2, &start).unwrap(), meters)
    }

    #[tokio::test]
    async fn a_worker_that_does_not_come_back_to_its_loop_is_seen() {
        let (workers, meters) = idle_workers();
        let (workers, watched) = (Arc::new(workers), meters.clone());
        let watching = tokio::spawn({
            let workers = workers.clone();
            async move { workers.watch(&watched).await }
        });
        tokio::time::sleep(LOOK * 2).await;
        assert_eq!(meters.worker_stalls(), (0, 0), "one that rests has not stalled");
        workers.members[0].commands.send(Command::Stall(Duration::from_secs(7))).unwrap();
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
        assert!(!workers.is_alive(Duration::from_millis(100)).await);
        let asked = Instant::now();
        drop(workers.counts().await);
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
    async fn a_worker_that_has_stalled_loses_the_watchdog() {
        let (workers, _) = idle_workers();
        let manager = Manager::with_watchdog(Duration::from_secs(1));
        assert!(manager.notify_watchdog(&workers).await);
        workers.members[1].commands.send(Command::Stall(Duration::from_secs(2))).unwrap();
        assert!(!manager.notify_watchdog(&workers).await, "one of two");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(manager.notify_watchdog(&workers).await, "it is back");
    }

    #[tokio::test]
    async fn a_worker_that_has_stalled_does_not_keep_a_reload() {
        let (workers, _) = idle_workers();
        workers.members[0].commands.send(Command::Stall(Duration::from_secs(60))).unwrap();
        let in_use = lock(&workers.in_use).clone();
        tokio::time::timeout(STALLED * 2, workers.install(&in_use))
            .await
            .expect("it would keep the process from ending");
    }

    #[test]
    fn a_worker_that_has_stalled_does_not_keep_the_process() {
        let (ends, _) = idle_workers();
        assert!(ends.end());
        let (stalls, _) = idle_workers();
        stalls.members[1].commands.send(Command::Stall(Duration::from_secs(60))).unwrap();
        let told = Instant::now();
        assert!(!stalls.end());
        assert!(told.elapsed() < END * 2);
    }
}
