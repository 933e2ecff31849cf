//! The process: ordered start, main loop, and graceful shutdown.
//!
//! 1. The start order is configuration, log, tokens, upstream, listeners, admin, sandbox, and then threads. The process is
//!    ready afterwards.
//! 2. SIGTERM, SIGINT and SIGQUIT begin the shutdown. The gate is not ready at once, and every response closes its
//!    connection (HTTP/2: GOAWAY). After `shutdown.delay` it stops accepting and closes connections after their request,
//!    idle ones first. The process ends when all connections are closed, or after `shutdown.timeout`. Requests that are
//!    likely to be cut are logged before. The exit code is 0, or 69 if something was cut. A second signal ends the process
//!    at once, and a stalled worker does not delay the end.
//!    The counts of the day are kept after that (`process/kept_counts.rs`).
//!    The service manager is told about each of these steps (`process/manager.rs`).
//! 3. SIGHUP reloads, and is ignored during the shutdown. SIGUSR1 and SIGUSR2, which end a process by default, are ignored.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::shutdown::{CUT, Signals, end};
use crate::config::service_accounts::ServiceAccounts;
use crate::config::{Config, Listener, LogFormat};
use crate::files::descriptors::Descriptors;
use crate::files::{External, Purpose};
use crate::health::Health;
use crate::health::published_keys::PublishedKeys;
use crate::metrics::process::{Confinement, ProcessMeters};
use crate::process::admin::{Admin, Recheck};
use crate::process::kept_counts::KeptCounts;
use crate::process::manager::Manager;
use crate::process::readiness::Readiness;
use crate::process::sandbox::{Needs, Sandbox};
use crate::process::status_page::StatusPage;
use crate::process::store::StoreTask;
use crate::process::workers::{Start, Workers};
use crate::reload::{Folders, LOOK, LOOK_AT_UNWATCHED, Reloader, Source};
use crate::server::listen::{Bound, bind};
use crate::server::passed::{Distribution, PassedSockets, Taken};
use crate::telemetry::{self, Form, Sink};
use crate::upstream::own::look_for_loop;

/// Settings of the start that are not part of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The source of the configuration, if it is a file.
    pub source: Option<Source>,
    /// Overrides `log.format` of the configuration.
    pub log_format: Option<LogFormat>,
    /// Overrides `log.level` of the configuration.
    pub log_level: Option<String>,
    /// Overrides `workers` of the configuration.
    pub workers: Option<usize>,
    /// Whether demo tokens are accepted.
    pub demo: bool,
    /// Whether the process belongs to a service manager: it takes sockets from it, and notifies it.
    pub managed: bool,
}

/// A gate that has started.
pub struct App {
    runtime: LocalRuntime,
    reloader: Reloader,
    health: Health,
    workers: Arc<Workers>,
    bound: Vec<Bound>,
    admin: TcpListener,
    descriptors: Descriptors,
    meters: Arc<ProcessMeters>,
    readiness: Arc<Readiness>,
    kept: Option<Arc<KeptCounts>>,
    sink: Sink,
    since: SystemTime,
    signals: Signals,
    manager: Rc<Manager>,
}

impl App {
    /// Starts a gate with `config`.
    ///
    /// # Errors
    /// The reason why the start failed; [`crate::reload::exit_code`] returns its exit code, and 69 is for an address in use.
    pub fn start(config: Config, options: Options) -> anyhow::Result<Self> {
        super::harden::harden();
        let meters = Arc::new(ProcessMeters::default());
        let format = options.log_format.unwrap_or(config.log.format);
        let level = options.log_level.clone().unwrap_or_else(|| config.log.level.clone());
        let sink = telemetry::start(format, &level, meters.clone())?;
        // Lines that were logged before a failed start are written before the process ends.
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
        let worker_count = options.workers.or(config.workers).unwrap_or_else(super::cpus);
        let descriptors = Descriptors::here(worker_count);
        if let Some(fit) = config.fit(descriptors) {
            descriptors.log_state(fit);
        }
        let external = External::of(&config, options.source.as_ref().map(Source::file));
        let mut reloader = Reloader::new(options.source, config.clone(), meters.clone(), options.demo)?;
        reloader.fit_to(descriptors);
        let manager = if options.managed { Manager::of_environment() } else { Manager::default() };
        let passed = if options.managed { PassedSockets::take()? } else { PassedSockets::default() };
        let mut bound = open(&config.listeners, worker_count, &manager, passed)?;
        let with_tls = bound.iter().filter(|bound| bound.kind.tls && !bound.kind.proxy);
        reloader.own_listeners().listen_on(with_tls.filter_map(|bound| bound.address).collect());
        let runtime =
            Builder::new_current_thread().enable_all().max_blocking_threads(1).build_local(LocalOptions::default())?;
        // Signals are queued from now on; an earlier SIGHUP ends the process.
        let signals = runtime.block_on(async { Signals::new() })?;
        let admin = admin_listener(&runtime, config.admin.address)?;
        let sandbox =
            if config.sandbox { Sandbox::enter(&Needs::of(&external)) } else { Sandbox::none(Confinement::Off) };
        sandbox.log_state();
        meters.confined(sandbox.confinement());
        reloader.keep_to(sandbox);
        let kept = external.written().find(|file| file.purpose == Purpose::State).cloned();
        let kept = kept.map(|file| Arc::new(KeptCounts::restored(file, reloader.generation().turns.clone())));
        // This starts the first thread.
        sink.write_to_stderr()?;
        let (reports, reported) = mpsc::unbounded_channel();
        let generation = reloader.generation().clone();
        let health = Health::new(&config, generation.clone(), reported, meters.clone())?;
        let start = Start { generation, sink: sink.clone(), form, meters: meters.clone(), reports };
        let since = SystemTime::now();
        let workers = Arc::new(Workers::start(&mut bound, worker_count, &start)?);
        let readiness = Arc::new(Readiness::default());
        readiness.serving();
        let app = Self {
            runtime,
            reloader,
            health,
            workers,
            bound,
            admin,
            descriptors,
            meters,
            readiness,
            kept,
            sink,
            since,
            signals,
            manager: Rc::new(manager),
        };
        app.log_start(worker_count);
        app.manager.show(&app.readiness, &app.meters);
        app.manager.ready();
        Ok(app)
    }

    fn log_start(&self, worker_count: usize) {
        super::environment::log_proxy_variables(self.reloader.config().upstream.proxy.is_some());
        for bound in &self.bound {
            tracing::info!(listener = bound.kind.name.as_str(), place = %bound.place, "listening");
        }
        let upstream = &self.reloader.generation().upstream;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            admin = %self.admin_place(),
            upstream = %upstream.settings.authority,
            proxy = upstream.tunnel.as_ref().map(|tunnel| tunnel.proxy.as_str()),
            roots = %upstream.roots,
            callers = self.reloader.generation().policy.callers.all().len(),
            workers = worker_count,
            "started"
        );
    }

    /// Returns the address of the admin listener.
    #[must_use]
    pub fn admin_place(&self) -> String {
        self.admin.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string())
    }

    /// Returns the name and the address or path of each listener.
    pub fn places(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.bound.iter().map(|bound| (bound.kind.name.as_str(), bound.place.as_str()))
    }

    /// Runs until a signal ends the process. Returns the exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let Self {
            runtime,
            mut reloader,
            mut health,
            workers,
            bound,
            admin,
            descriptors,
            meters,
            readiness,
            kept,
            sink,
            since,
            mut signals,
            manager,
        } = self;
        let bound = Rc::new(bound);
        let code = runtime.block_on(async {
            let readiness = readiness.clone();
            let recheck = Arc::new(Notify::new());
            let listeners = bound.iter().map(|bound| (bound.kind.name, bound.place.clone())).collect();
            let shown = Admin {
                workers: workers.clone(),
                meters: meters.clone(),
                readiness: readiness.clone(),
                since,
                recheck: reloader.config().admin.recheck.then(|| Recheck::new(recheck.clone())),
                page: reloader.config().admin.page.then(|| StatusPage::start(&workers, listeners)),
            };
            let shown = Arc::new(shown);
            tokio::task::spawn_local(shown.serve(admin, descriptors.admin()));
            watch(&workers, &meters, kept.as_ref());
            let store = reloader.config().store().and_then(|store| StoreTask::start(store, workers.turns()));
            tokio::task::spawn_local(look_for_loop(reloader.generation().upstream.clone()));
            let (kept, counted, sockets) = (workers.clone(), meters.clone(), bound.clone());
            let told = manager.clone();
            let keeping = tokio::task::spawn_local(async move { kept.keep_sockets(&sockets, &counted, &told).await });
            let service = Service { manager: &manager, readiness: &readiness, meters: &meters };
            live(&mut signals, &mut reloader, &mut health, &workers, (&recheck, service)).await;
            keeping.abort();
            readiness.draining();
            let code = end(&mut signals, reloader.shutdown(), &workers, &manager).await;
            if let Some(store) = store {
                store.end().await;
            }
            code
        });
        // Tasks of this runtime hold references to the workers; they end with it.
        runtime.shutdown_background();
        drop(bound);
        let all_ended = Arc::try_unwrap(workers).is_ok_and(Workers::end);
        let code = if all_ended { code } else { CUT };
        kept.iter().for_each(|kept| kept.save());
        if !all_ended {
            tracing::error!("a worker has stalled; exiting without waiting for it");
        }
        tracing::info!(code, "ended");
        sink.flush(Duration::from_secs(1));
        code
    }
}

/// The time within which the service manager closes the sockets that it is told to forget.
const RELEASE: Duration = Duration::from_secs(2);

/// Opens `listeners`: on the sockets that the service manager passed, as far as there are any.
fn open(
    listeners: &[Listener],
    worker_count: usize,
    manager: &Manager,
    passed: PassedSockets,
) -> anyhow::Result<Vec<Bound>> {
    passed.check(listeners)?;
    let Distribution { listeners: taken, stale } = passed.distribute(listeners, worker_count)?;
    stale.iter().for_each(|name| manager.forget(name));
    // The manager closes its copies of these sockets soon.
    let patience = if stale.is_empty() { Duration::ZERO } else { RELEASE };
    let until = Instant::now() + patience;
    let mut opened = Vec::new();
    for (listener, taken) in listeners.iter().zip(taken) {
        let (bound, is_stored) = match taken {
            Some(Taken { bound, is_stored }) => (bound, is_stored),
            None => {
                let failed = || format!("cannot open listener '{}' at {}", listener.name, listener.bind);
                let bind = || bind(listener, worker_count, manager.keeper());
                (bind_until(until, bind).with_context(failed)?, false)
            }
        };
        if !is_stored {
            manager.keep(listener.name, bound.keeper, &bound.sockets);
        }
        opened.push(bound);
    }
    Ok(opened)
}

/// Tries again while the address is in use, until a time.
fn bind_until(until: Instant, bind: impl Fn() -> io::Result<Bound>) -> io::Result<Bound> {
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(RELEASE / 100);
            }
            bound => return bound,
        }
    }
}

fn admin_listener(runtime: &LocalRuntime, address: SocketAddr) -> anyhow::Result<TcpListener> {
    runtime
        .block_on(TcpListener::bind(address))
        .with_context(|| format!("the admin listener cannot listen on {address}"))
}

/// Starts the tasks that watch the clock of quotas and the workers, and keep the counts of the day.
fn watch(workers: &Arc<Workers>, meters: &Arc<ProcessMeters>, kept: Option<&Arc<KeptCounts>>) {
    let turns = workers.turns();
    tokio::task::spawn_local(async move { turns.run().await });
    let (watched, counted) = (workers.clone(), meters.clone());
    tokio::task::spawn_local(async move { watched.watch(&counted).await });
    if let Some(kept) = kept {
        tokio::task::spawn_local(kept.clone().run());
    }
}

/// What the service manager is told, and from what.
#[derive(Clone, Copy)]
struct Service<'a> {
    manager: &'a Manager,
    readiness: &'a Readiness,
    meters: &'a Arc<ProcessMeters>,
}

/// Reloads and follows the health of tokens until a signal ends the process.
async fn live(
    signals: &mut Signals,
    reloader: &mut Reloader,
    health: &mut Health,
    workers: &Workers,
    (recheck, service): (&Notify, Service<'_>),
) {
    let manager = service.manager;
    let mut folders = Folders::new();
    let mut keys = PublishedKeys::new(reloader.keys_wanted(), service.meters.clone());
    // Changes between reading at the start and the first watch are noticed at once.
    let mut next_look = Instant::now();
    loop {
        let all_are_watched = folders.watch(reloader.folders());
        health.follow(reloader.config(), reloader.generation());
        manager.show(service.readiness, service.meters);
        keys.follow(reloader.config().service_accounts.as_ref().and_then(ServiceAccounts::server));
        tokio::select! {
            () = signals.end.recv() => return,
            _ = signals.hangup.recv() => {
                manager.reloading();
                reloader.reload(workers).await;
                health.look_again(None);
                manager.show(service.readiness, service.meters);
                manager.ready();
            }
            () = manager.watchdog_is_due(), if manager.has_watchdog() => {
                manager.notify_watchdog(workers).await;
                continue;
            }
            () = recheck.notified() => health.look_again(None),
            Some(()) = folders.changed() => {}
            Some((server, keys)) = keys.next() => reloader.use_keys(server, keys, workers).await,
            () = tokio::time::sleep_until(next_look) => {}
            () = process_health(reloader, health, workers) => {}
        }
        let again = reloader.look(workers).await;
        let rewritten = reloader.take_rewritten();
        if !rewritten.is_empty() {
            health.look_again(Some(&rewritten));
        }
        let unless_sooner = if all_are_watched { LOOK } else { LOOK_AT_UNWATCHED };
        next_look = Instant::now() + again.unwrap_or(unless_sooner);
    }
}

/// Suspends and restores tokens; never returns.
async fn process_health(reloader: &mut Reloader, health: &mut Health, workers: &Workers) {
    loop {
        if health.next_event(workers).await {
            reloader.apply_concerns(health.concerns(), workers).await;
            health.follow(reloader.config(), reloader.generation());
        }
    }
}
