//! The process: starts everything in order, lives until it is told to end, and ends in order.
//!
//! 1. Start: configuration, log, tokens, upstream, listeners, admin, sandbox, and only then threads; then it is ready.
//! 2. SIGTERM, SIGINT or SIGQUIT: not ready at once, and every answer says that its connection ends with it (HTTP/2: GOAWAY).
//!    `shutdown.delay` later it accepts no more, and connections end after their request, those without one first; when all
//!    have ended, or after `shutdown.timeout`, the process ends: 0 when nothing was cut, 69 when something was; what is likely
//!    to be cut is named in the log before. A second signal ends it at once, and a worker that has stalled keeps it no longer.
//! 3. SIGHUP reloads; while ending it is ignored. SIGUSR1 and SIGUSR2, which would end the process, are ignored always.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::config::{Config, LogFormat, Shutdown};
use crate::files::External;
use crate::files::descriptors::Descriptors;
use crate::health::Health;
use crate::metrics::process::{Confinement, ProcessMeters};
use crate::process::admin::{Admin, Recheck};
use crate::process::readiness::Readiness;
use crate::process::sandbox::{Needs, Sandbox};
use crate::process::workers::{Crew, Start};
use crate::reload::{Folders, LOOK, LOOK_AT_UNWATCHED, Reloader, Source};
use crate::server::listen::{Bound, bind};
use crate::telemetry::{self, Form, Sink};

/// How the process is started, beside the configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What said the configuration, when that is a file.
    pub source: Option<Source>,
    /// In the place of the configuration's.
    pub log_format: Option<LogFormat>,
    /// In the place of the configuration's.
    pub log_level: Option<String>,
    /// In the place of the configuration's.
    pub workers: Option<usize>,
    /// Demo tokens are taken, and no others.
    pub demo: bool,
}

/// A gate that has started.
pub struct App {
    runtime: tokio::runtime::LocalRuntime,
    reloader: Reloader,
    health: Health,
    crew: Arc<Crew>,
    bound: Vec<Bound>,
    admin: TcpListener,
    descriptors: Descriptors,
    meters: Arc<ProcessMeters>,
    readiness: Arc<Readiness>,
    sink: Sink,
    since: SystemTime,
    signals: Signals,
}

impl App {
    /// Starts everything that `config` says.
    ///
    /// # Errors
    /// What is wrong; [`crate::reload::exit_code`] knows the code of it. An address that is taken is 69.
    pub fn start(config: Config, options: Options) -> anyhow::Result<Self> {
        harden();
        let meters = Arc::new(ProcessMeters::default());
        let format = options.log_format.unwrap_or(config.log.format);
        let level = options.log_level.clone().unwrap_or_else(|| config.log.level.clone());
        let sink = telemetry::start(format, &level, meters.clone())?;
        // What was logged before a start failed is said before the process ends.
        Self::start_logging_to(sink.clone(), telemetry::resolve(format), meters, config, options).inspect_err(|_| {
            if sink.write_to_stderr().is_ok() {
                sink.flush(Duration::from_secs(1));
            }
        })
    }

    fn start_logging_to(
        sink: Sink,
        form: Form,
        meters: Arc<ProcessMeters>,
        mut config: Config,
        options: Options,
    ) -> anyhow::Result<Self> {
        let workers = options.workers.or(config.workers).unwrap_or_else(cpus);
        let descriptors = Descriptors::here(workers);
        if let Some(fit) = config.fit(descriptors) {
            descriptors.say(fit);
        }
        let needs = Needs::of(&External::of(&config, options.source.as_ref().map(Source::file)));
        let mut reloader = Reloader::new(options.source, config.clone(), meters.clone(), options.demo)?;
        reloader.fit_to(descriptors);
        let mut bound = Vec::new();
        for listener in &config.listeners {
            let opened = bind(listener, workers);
            bound.push(
                opened
                    .with_context(|| format!("listener '{}' cannot be opened at {}", listener.name, listener.bind))?,
            );
        }
        let runtime =
            Builder::new_current_thread().enable_all().max_blocking_threads(1).build_local(LocalOptions::default())?;
        // One that comes from now on waits for its turn; before, SIGHUP ends the process.
        let signals = runtime.block_on(async { Signals::new() })?;
        let address = config.admin.address;
        let admin = runtime
            .block_on(TcpListener::bind(address))
            .with_context(|| format!("admin cannot listen on {address}"))?;
        let sandbox = if config.sandbox { Sandbox::enter(&needs) } else { Sandbox::none(Confinement::Off) };
        sandbox.say();
        meters.confined(sandbox.confinement());
        reloader.keep_to(sandbox);
        // No thread was started before this.
        sink.write_to_stderr()?;
        let (reports, reported) = mpsc::unbounded_channel();
        let generation = reloader.generation().clone();
        let health = Health::new(&config, generation.clone(), reported, meters.clone())?;
        let start = Start { generation, sink: sink.clone(), form, meters: meters.clone(), reports };
        let since = SystemTime::now();
        let crew = Arc::new(Crew::start(&mut bound, workers, &start)?);
        let readiness = Arc::new(Readiness::default());
        readiness.serving();
        let app = Self {
            runtime,
            reloader,
            health,
            crew,
            bound,
            admin,
            descriptors,
            meters,
            readiness,
            sink,
            since,
            signals,
        };
        app.say_started(workers);
        Ok(app)
    }

    fn say_started(&self, workers: usize) {
        for bound in &self.bound {
            tracing::info!(listener = bound.name.as_str(), place = %bound.place, "listening");
        }
        let upstream = &self.reloader.generation().upstream;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            admin = %self.admin_place(),
            upstream = %upstream.settings.authority,
            roots = %upstream.roots,
            callers = self.reloader.generation().policy.callers.all().len(),
            workers,
            "started"
        );
    }

    /// Where the admin listener is.
    #[must_use]
    pub fn admin_place(&self) -> String {
        self.admin.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string())
    }

    /// Where callers connect: the name and place of each listener.
    pub fn places(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.bound.iter().map(|bound| (bound.name.as_str(), bound.place.as_str()))
    }

    /// Lives until it is told to end; the exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let Self {
            runtime,
            mut reloader,
            mut health,
            crew,
            bound,
            admin,
            descriptors,
            meters,
            readiness,
            sink,
            since,
            mut signals,
        } = self;
        let bound = Rc::new(bound);
        let code = runtime.block_on(async {
            let readiness = readiness.clone();
            let recheck = Arc::new(Notify::new());
            let shown = Admin {
                crew: crew.clone(),
                meters: meters.clone(),
                readiness: readiness.clone(),
                since,
                recheck: reloader.config().admin.recheck.then(|| Recheck::new(recheck.clone())),
            };
            let shown = Arc::new(shown);
            tokio::task::spawn_local(shown.serve(admin, descriptors.admin()));
            let (watched, counted) = (crew.clone(), meters.clone());
            tokio::task::spawn_local(async move { watched.watch(&counted).await });
            let (kept, counted, sockets) = (crew.clone(), meters.clone(), bound.clone());
            let keeping = tokio::task::spawn_local(async move { kept.keep_sockets(&sockets, &counted).await });
            live(&mut signals, &mut reloader, &mut health, &crew, &recheck).await;
            keeping.abort();
            readiness.draining();
            end(&mut signals, reloader.shutdown(), &crew).await
        });
        // The tasks of this runtime hold the crew too; they end with it.
        runtime.shutdown_background();
        drop(bound);
        let all_ended = Arc::try_unwrap(crew).is_ok_and(Crew::end);
        let code = if all_ended { code } else { CUT };
        if !all_ended {
            tracing::error!("a worker has stalled; the process ends without it");
        }
        tracing::info!(code, "ended");
        sink.flush(Duration::from_secs(1));
        code
    }
}

/// The exit code of a process that cut something (`EX_UNAVAILABLE` of sysexits(3)).
const CUT: u8 = 69;

struct Signals {
    end: EndSignals,
    hangup: Signal,
    /// Held so that they do not end the process.
    _ignored: [Signal; 2],
}

/// Those that end the process.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let end = EndSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        };
        let ignored = [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?];
        Ok(Self { end, hangup: signal(SignalKind::hangup())?, _ignored: ignored })
    }
}

impl EndSignals {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

/// Until a signal to end: reloads, and looks after the tokens.
async fn live(signals: &mut Signals, reloader: &mut Reloader, health: &mut Health, crew: &Crew, recheck: &Notify) {
    let mut folders = Folders::new();
    // What changed between the start's reading and the first watching is seen at once.
    let mut next_look = Instant::now();
    loop {
        let all_are_watched = folders.watch(reloader.folders());
        health.follow(reloader.config(), reloader.generation());
        tokio::select! {
            () = signals.end.recv() => return,
            _ = signals.hangup.recv() => {
                reloader.reload(crew).await;
                health.look_again(None);
            }
            () = recheck.notified() => health.look_again(None),
            () = folders.changed() => {}
            () = tokio::time::sleep_until(next_look) => {}
            () = look_after(reloader, health, crew) => {}
        }
        let again = reloader.look(crew).await;
        let rewritten = reloader.take_rewritten();
        if !rewritten.is_empty() {
            health.look_again(Some(&rewritten));
        }
        let unless_sooner = if all_are_watched { LOOK } else { LOOK_AT_UNWATCHED };
        next_look = Instant::now() + again.unwrap_or(unless_sooner);
    }
}

/// Parks tokens and takes them back, for ever.
async fn look_after(reloader: &mut Reloader, health: &mut Health, crew: &Crew) {
    loop {
        if health.attend(crew).await {
            reloader.heed(health.concerns(), crew).await;
            health.follow(reloader.config(), reloader.generation());
        }
    }
}

/// So often it is logged what has become likely to be cut: every eighth of the time that is left at first, but between these.
const NAMES_AT_LEAST: Duration = Duration::from_millis(20);
const NAMES_AT_MOST: Duration = Duration::from_secs(1);

/// No shutdown takes longer, whatever the configuration says.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Rule 2.
async fn end(signals: &mut Signals, shutdown: Shutdown, crew: &Crew) -> u8 {
    tracing::info!(delay = ?shutdown.delay, timeout = ?shutdown.timeout, "ending");
    let whole = shutdown.delay.saturating_add(shutdown.timeout);
    let now = Instant::now();
    crew.leave(now.checked_add(whole).unwrap_or(now + YEAR));
    let all_ended = async {
        tokio::time::sleep(shutdown.delay).await;
        crew.drain();
        let deadline = Instant::now() + shutdown.timeout.min(YEAR);
        while crew.connections() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        crew.connections()
    };
    let names = async {
        let mut next = tokio::time::interval((whole / 8).clamp(NAMES_AT_LEAST, NAMES_AT_MOST));
        loop {
            next.tick().await;
            crew.name_what_may_be_cut();
        }
    };
    let left = tokio::select! {
        left = all_ended => left,
        () = names => 0,
        () = signals.end.recv() => {
            tracing::warn!("ended at once by a second signal");
            crew.connections()
        }
    };
    if left > 0 {
        tracing::warn!(connections = left, "connections were cut");
        return CUT;
    }
    0
}

/// The CPUs that the process may use: affinity and the container's quota count.
#[must_use]
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// No core dump can hold a token, no other process of the user can read this one's memory, no program that is executed
/// gains a right, and the limit of descriptors is what the system allows.
fn harden() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Each is best effort: a system that has none of these runs the gate all the same.
    let _ = rustix::process::setrlimit(Resource::Core, none);
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = rustix::thread::set_no_new_privs(true);
    crate::files::descriptors::raise();
}
