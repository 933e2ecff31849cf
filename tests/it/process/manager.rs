//! The service manager: what it is told, the sockets that it passes, and a restart that no caller notices.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::gate::{Plan, binary, until};
use crate::harness::manager::Manager;
use crate::harness::traffic::{self, Traffic};
use crate::harness::{Caller, Gate, Signal, TWO_CALLERS, Upstream};

const COUNTERS: &str = "/management/v1/counters";

/// A listening socket, and the configuration of [`TWO_CALLERS`] with its address for listener `crm`.
fn crm_on_a_socket() -> (TcpListener, String) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let config = with_address(&socket.local_addr().unwrap().to_string());
    (socket, config)
}

fn with_address(address: &str) -> String {
    TWO_CALLERS.replace("{name: crm, address: '127.0.0.1:0'}", &format!("{{name: crm, address: '{address}'}}"))
}

fn passed(plan: Plan, name: &str, socket: &impl AsFd) -> Plan {
    plan.passed(name, socket.as_fd().try_clone_to_owned().unwrap())
}

fn notified(plan: Plan, manager: &Manager) -> Plan {
    plan.environment("NOTIFY_SOCKET", &manager.socket())
        .environment("INVOCATION_ID", "0123456789abcdef0123456789abcdef")
}

#[test]
fn the_manager_is_told_each_step() {
    let upstream = Upstream::plain();
    let manager = Manager::start();
    let config = format!("{TWO_CALLERS}shutdown: {{delay: 0s, timeout: 7s}}\n");
    let mut gate = notified(Gate::plan(&upstream, &config), &manager).start();
    let at = manager.until(0, "READY=1");
    let started = manager.messages().join("\n");
    assert!(started.contains("STATUS=ready\n"), "before READY: {started}");
    assert_eq!(gate.get("app", COUNTERS).summary(), "200", "ready means that it serves");
    gate.signal("HUP");
    let at = manager.until(at, "RELOADING=1 MONOTONIC_USEC=");
    let at = manager.until(at, "READY=1");
    gate.replace_config("listeners: 7");
    gate.signal("HUP");
    let at = manager.until(at, "RELOADING=1");
    let at = manager.until(at, "STATUS=ready; the configuration was rejected");
    let at = manager.until(at, "READY=1");
    gate.replace_config(&gate.config().replace("listeners: 7", ""));
    std::fs::remove_file(gate.file("analytics")).unwrap();
    let at = manager.until(at, "token analytics: ");
    gate.signal("TERM");
    // The configured 7 s and ten for the rest.
    manager.until(at, "STOPPING=1 EXTEND_TIMEOUT_USEC=17000000 STATUS=stopping");
    assert_eq!(gate.wait().code(), Some(0));
    assert!(!manager.messages().concat().contains("canary"), "no token");
}

#[test]
fn the_watchdog_is_notified_at_half_of_its_interval_until_the_end() {
    let (upstream, manager) = (Upstream::plain(), Manager::start());
    let plan = notified(Gate::plan(&upstream, TWO_CALLERS), &manager).environment("WATCHDOG_USEC", "1000000");
    let gate = plan.start();
    let start = Instant::now();
    until("five pings", || manager.count("WATCHDOG=1") >= 5);
    let (took, pings) = (start.elapsed(), manager.count("WATCHDOG=1"));
    assert!(took > Duration::from_millis(900) && pings < 12, "{pings} in {took:?}");
    // A process that does not run is the plainest case of one that is stuck.
    gate.signal("STOP");
    let stuck = manager.count("WATCHDOG=1");
    std::thread::sleep(Duration::from_millis(1200));
    assert!(manager.count("WATCHDOG=1") <= stuck + 1);
    gate.signal("CONT");
    until("it goes on", || manager.count("WATCHDOG=1") > stuck + 2);
}

#[test]
fn nothing_is_sent_to_a_manager_that_is_gone() {
    let upstream = Upstream::plain();
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("notify").display().to_string();
    let gate = Gate::plan(&upstream, TWO_CALLERS).environment("NOTIFY_SOCKET", &nowhere).start();
    gate.until_log(&["the service manager (NOTIFY_SOCKET) cannot be notified"]);
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
    assert_eq!(gate.log().iter().filter(|line| line.contains("NOTIFY_SOCKET")).count(), 1, "it is logged once");
}

#[test]
fn a_socket_of_a_unit_serves_the_listener_of_its_name() {
    let upstream = Upstream::plain();
    let (socket, config) = crm_on_a_socket();
    // A caller that is there before the gate.
    let mut early = Caller::connect(&socket.local_addr().unwrap().to_string());
    early.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let gate = passed(Gate::plan(&upstream, &config), "crm", &socket).start();
    assert_eq!(early.answer().summary(), "200");
    assert_eq!(gate.place("crm"), socket.local_addr().unwrap().to_string());
    for listener in ["app", "crm"] {
        assert_eq!(gate.get(listener, COUNTERS).summary(), "200");
    }
}

#[test]
fn a_unix_socket_of_a_unit_stays_its_own() {
    let upstream = Upstream::plain();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    let config = TWO_CALLERS.replace(
        "{name: crm, address: '127.0.0.1:0'}",
        &format!("{{name: crm, unix: {{path: '{}', mode: '0660'}}}}", path.display()),
    );
    let plan = || passed(Gate::plan(&upstream, &config), "crm", &socket);
    mode(0o666);
    let (code, said) = plan().fails();
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("its mode is 0666, and not 0660; write") && said.contains("SocketMode="), "{said}");
    mode(0o600);
    let mut gate = plan().start();
    assert_eq!(gate.get("crm", COUNTERS).summary(), "200");
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(0));
    assert!(path.exists(), "the file belongs to the unit");
}

#[test]
fn a_socket_that_does_not_fit_the_configuration_is_an_error() {
    let upstream = Upstream::plain();
    let (socket, config) = crm_on_a_socket();
    let address = socket.local_addr().unwrap();
    let datagrams = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let connected = TcpStream::connect(address).unwrap();
    let other = with_address("127.0.0.1:1");
    let clone = |socket: &dyn Fn() -> OwnedFd| socket();
    let tcp = || socket.as_fd().try_clone_to_owned().unwrap();
    for (config, name, descriptor, expected) in [
        (&config, "nobody", clone(&tcp), "'nobody' that no listener uses; write one socket unit per listener"),
        (&config, "metrika-gate.socket", clone(&tcp), "the name of the listener as FileDescriptorName= (app, crm)"),
        (&other, "crm", clone(&tcp), &*format!("listens on {address}, but the configuration has 127.0.0.1:1")),
        (&config, "crm", datagrams.into(), "'crm', which is not a listening stream socket"),
        (&config, "crm", connected.into(), "'crm', which is not a listening stream socket"),
    ] {
        let (code, said) = Gate::plan(&upstream, config).passed(name, descriptor).fails();
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // Two for one listener.
    let plan = passed(passed(Gate::plan(&upstream, &config), "crm", &socket), "crm", &socket);
    assert!(plan.fails().1.contains("'crm' that no listener uses"));
}

/// The sockets of a gate that opened them itself survive it in the descriptor store.
#[test]
fn the_next_process_gets_the_sockets_from_the_store() {
    let (upstream, manager) = (Upstream::plain(), Manager::start());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.sock").display().to_string();
    let unix = |mode: &str| {
        TWO_CALLERS.replace(
            "{name: crm, address: '127.0.0.1:0'}",
            &format!("{{name: crm, unix: {{path: '{path}', mode: '{mode}'}}}}"),
        )
    };
    let mut gate = notified(Gate::plan(&upstream, &unix("0600")), &manager).start();
    let app = gate.place("app").to_owned();
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(0));
    // Nobody accepts now, and nobody is refused.
    let mut between = [Caller::connect(&app), Caller::connect(&path)];
    for caller in &mut between {
        caller.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }
    let store = manager.take_store();
    let mut names: Vec<_> = store.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["stored/app", "stored/crm"], "one socket each");
    let copies = || store.iter().map(|(name, socket)| (name.clone(), socket.try_clone().unwrap()));
    let plan = |config: &str| {
        let plan = notified(Gate::plan(&upstream, config), &manager);
        copies().fold(plan, |plan, (name, socket)| plan.passed(&name, socket))
    };
    let before = manager.messages().len();
    let mut next = plan(&unix("0600")).start();
    for caller in &mut between {
        assert_eq!(caller.answer().summary(), "200");
    }
    assert_eq!(next.place("app"), app, "port 0 keeps its port");
    assert_eq!(manager.messages()[before..].concat().matches("FDSTORE").count(), 0, "they are there already");
    next.signal("TERM");
    next.wait();
    // A changed mode makes another socket, which takes the place of the stored one; a listener that is gone leaves the store.
    let before = manager.messages().len();
    let changed = unix("0660").replace("{name: app, address: '127.0.0.1:0'}", "{name: app, address: '127.0.0.2:0'}");
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let last = passed(plan(&changed), "stored/gone", &gone).start();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(last.get("crm", COUNTERS).summary(), "200");
    let sent = manager.messages()[before..].join("\n");
    for listener in ["app", "crm"] {
        assert!(sent.contains(&format!("FDSTOREREMOVE=1 FDNAME=stored/{listener}")), "{sent}");
        assert!(sent.contains(&format!("FDSTORE=1 FDNAME=stored/{listener}")), "{sent}");
    }
    assert!(sent.contains("FDSTOREREMOVE=1 FDNAME=stored/gone"), "{sent}");
    drop(store);
    until("the old address is closed", || TcpStream::connect(&app).is_err());
}

/// The sockets of the store follow their addresses and paths: under a new name, exchanged, and where a new address overlaps an
/// old one, whose copy the manager closes only when it is told to.
#[test]
fn listeners_that_change_their_names_or_addresses_open_after_a_restart() {
    let (upstream, manager) = (Upstream::plain(), Manager::start());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.sock").display().to_string();
    let free = |address: &str| TcpListener::bind(address).unwrap().local_addr().unwrap().port();
    let (one, two) = (free("127.0.0.1:0"), free("127.0.0.1:0"));
    let listeners = |app: &str, crm: &str| {
        let config = TWO_CALLERS.replace("{name: app, address: '127.0.0.1:0'}", &format!("{{name: app, {app}}}"));
        config.replace("{name: crm, address: '127.0.0.1:0'}", &format!("{{name: crm, {crm}}}"))
    };
    let (at_one, at_two) = (format!("address: '127.0.0.1:{one}'"), format!("address: '127.0.0.1:{two}'"));
    let (wide, unix) = (format!("address: '0.0.0.0:{one}', allow_remote: true"), format!("unix: {{path: '{path}'}}"));
    let renamed =
        |config: &str| config.replace("listener: crm", "listener: renamed").replace("name: crm", "name: renamed");
    let configs = [
        listeners(&at_one, &at_two),
        // Exchanged.
        listeners(&at_two, &at_one),
        renamed(&listeners(&at_two, &at_one)),
        renamed(&listeners(&at_two, &unix)),
        listeners(&at_two, &unix),
        listeners(&unix, &at_one),
        // Wider, and narrow again.
        listeners(&unix, &wide).replace("match: {listener: crm", "match: {source: [127.0.0.0/8], listener: crm"),
        listeners(&unix, &at_one),
    ];
    for (position, config) in configs.iter().enumerate() {
        let plan = notified(Gate::plan(&upstream, config), &manager);
        let store = manager.copies();
        // Both sockets stay, for the other listener or for one of another name.
        let stays = [1, 2].contains(&position);
        let waiting = [one, two].map(|port| stays.then(|| TcpStream::connect(("127.0.0.1", port)).unwrap()));
        let mut gate = store.into_iter().fold(plan, |plan, (name, socket)| plan.passed(&name, socket)).start();
        for (port, mut waiting) in [one, two].into_iter().zip(waiting).filter_map(|(port, one)| Some((port, one?))) {
            write!(waiting, "GET {COUNTERS} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n").unwrap();
            let mut begin = [0; 12];
            waiting.read_exact(&mut begin).unwrap();
            assert_eq!(begin, *b"HTTP/1.1 200", "{position}: a connection from before the start");
        }
        let names = [("app", "app"), ("crm", if config.contains("renamed") { "renamed" } else { "crm" })];
        for (_, listener) in names {
            assert_eq!(gate.get(listener, COUNTERS).summary(), "200", "{position}: {listener}");
        }
        gate.signal("TERM");
        assert_eq!(gate.wait().code(), Some(0), "{position}");
        let mut stored: Vec<_> = manager.copies().into_iter().map(|(name, _)| name).collect();
        stored.sort_unstable();
        let expected = names.map(|(_, listener)| format!("stored/{listener}"));
        assert_eq!(stored, expected, "{position}");
    }
}

/// A socket unit that takes the path of a stored socket keeps its file.
#[test]
fn a_stored_socket_does_not_take_the_file_of_a_unit_along() {
    let (upstream, manager) = (Upstream::plain(), Manager::start());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.sock");
    let config = TWO_CALLERS.replace(
        "{name: crm, address: '127.0.0.1:0'}",
        &format!("{{name: crm, unix: {{path: '{}'}}}}", path.display()),
    );
    let mut gate = notified(Gate::plan(&upstream, &config), &manager).start();
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(0));
    std::fs::remove_file(&path).unwrap();
    let unit = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).unwrap();
    let plan = notified(Gate::plan(&upstream, &config), &manager);
    let plan = manager.copies().into_iter().fold(plan, |plan, (name, socket)| plan.passed(&name, socket));
    let next = passed(plan, "crm", &unit).start();
    assert!(path.exists() && next.get("crm", COUNTERS).summary() == "200");
}

/// Another manager has no store: the sockets end with the process, and so does the file.
#[test]
fn a_manager_without_a_store_keeps_no_socket() {
    let (upstream, manager) = (Upstream::plain(), Manager::start());
    let mut gate = Gate::plan(&upstream, TWO_CALLERS).environment("NOTIFY_SOCKET", &manager.socket()).start();
    manager.until(0, "READY=1");
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(0));
    assert!(!manager.messages().concat().contains("FDSTORE"), "{:?}", manager.messages());
}

/// An upgrade under load: the old process ends with its longest report, and the next one gets the sockets.
#[test]
fn a_restart_with_handed_over_sockets_loses_no_request() {
    let (arrived, release) = (Signal::default(), Signal::default());
    let (is_there, released) = (arrived.clone(), release.clone());
    let upstream = Upstream::run(move |conversation| {
        let peeked = &is_there;
        while let Some(long) = traffic::answer_one_or_hold(conversation, "/management/v1/counter/1") {
            if long {
                peeked.give();
                released.wait("the test lets the report go");
                conversation.answer("200 OK", "application/json", "{}");
            }
        }
    });
    let (socket, config) = crm_on_a_socket();
    let place = socket.local_addr().unwrap().to_string();
    let config = format!("{config}shutdown: {{delay: 300ms, timeout: 20s}}\n");
    let plan = || passed(Gate::plan(&upstream, &config), "crm", &socket);
    let mut old = plan().start();
    let mut report = Caller::connect(&place);
    report.send("GET /management/v1/counter/1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    arrived.wait("the report is at Metrica");
    let kept = Traffic::on(&place, 2);
    let fresh = fresh_connections(&place, 2);
    std::thread::sleep(Duration::from_millis(300));
    let restart = Instant::now();
    old.signal("TERM");
    std::thread::sleep(Duration::from_millis(700));
    assert!(old.is_running(), "the report is not cut");
    release.give();
    assert_eq!(report.answer().summary(), "200");
    assert_eq!(old.wait().code(), Some(0));
    let next = plan().start();
    let pause = restart.elapsed();
    kept.go_on();
    let ledger = kept.end();
    ledger.assert_all_right();
    ledger.assert_writes_once(&upstream);
    let (asked, longest) = fresh.end();
    let all = ledger.0.len() + asked;
    assert!(all >= 200, "{all} requests");
    assert!(next.metric(&["metrika_gate_requests_total", "code=\"200\""]) > 50.0, "the next one serves");
    println!("{all} requests, none failed; restart {pause:?}, longest request {longest:?}");
}

struct Fresh {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<(usize, Duration)>>,
}

/// Callers that connect anew for each request, and panic when one fails.
fn fresh_connections(place: &str, callers: usize) -> Fresh {
    let stop = Arc::new(AtomicBool::new(false));
    let one = |_| {
        let (stop, place) = (stop.clone(), place.to_owned());
        std::thread::spawn(move || {
            let (mut asked, mut longest) = (0, Duration::ZERO);
            while !stop.load(Ordering::SeqCst) {
                let begun = Instant::now();
                let mut caller = Caller::connect(&place);
                caller.send(format!("GET {COUNTERS}?n=0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
                assert_eq!(caller.answer().summary(), "200");
                (asked, longest) = (asked + 1, longest.max(begun.elapsed()));
            }
            (asked, longest)
        })
    };
    let threads = (0..callers).map(one).collect();
    Fresh { stop, threads }
}

impl Fresh {
    fn end(self) -> (usize, Duration) {
        self.stop.store(true, Ordering::SeqCst);
        let all = self.threads.into_iter().map(|thread| thread.join().expect("no request failed"));
        all.fold((0, Duration::ZERO), |(asked, longest), (more, other)| (asked + more, longest.max(other)))
    }
}

/// The manager's own tool, where it is installed.
#[test]
fn systemd_socket_activate_starts_it_with_the_first_connection() {
    let tool = "systemd-socket-activate";
    if Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: {tool} is not installed");
        return;
    }
    let upstream = Upstream::plain();
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().to_string();
    let plan = Gate::plan(&upstream, &with_address(&address));
    let file = plan.file();
    let mut child = Command::new(tool)
        .args(["--listen", &address, "--fdname=crm"])
        .arg(binary())
        .args(["run", "--config"])
        .arg(&file)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it listens", || TcpStream::connect(&address).is_ok());
    let mut caller = Caller::connect(&address);
    caller.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let answer = caller.try_answer(false);
    child.kill().and_then(|()| child.wait()).unwrap();
    assert_eq!(answer.map(|answer| answer.summary()), Ok("200".to_owned()));
}
