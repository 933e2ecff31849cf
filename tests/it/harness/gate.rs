//! The real program, with a configuration of its own in a folder of its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::files::write_private;
use super::over::{Over, authority_at};
use super::{Answer, Caller, READ_TOKEN, Upstream, WRITE_TOKEN};

/// How long a test waits for what should happen at once. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A gate that runs.
pub struct Gate {
    child: Child,
    folder: tempfile::TempDir,
    places: HashMap<String, String>,
    admin: String,
    log: Arc<Mutex<Vec<String>>>,
    over: Over,
}

/// A gate that is not started yet.
pub struct Plan {
    folder: tempfile::TempDir,
    config: String,
    arguments: Vec<String>,
    descriptors: Option<u32>,
    open_mask: bool,
    environment: Vec<(String, String)>,
    mount: Option<(PathBuf, PathBuf)>,
    configuration: Option<String>,
    passed: Vec<(String, OwnedFd)>,
    /// Copies that the program inherits; they are closed once it has started.
    inherited: RefCell<Vec<OwnedFd>>,
    over: Over,
}

impl Gate {
    /// A gate in front of `upstream` with `config`, which needs only listeners and callers: admin, upstream (unless it
    /// has one) and the tokens `analytics` (read) and `crm` (write) are added.
    pub fn plan(upstream: &Upstream, config: &str) -> Plan {
        Self::plan_for(&upstream.address().to_string(), upstream.ca_pem(), config)
    }

    /// The same for an upstream at `address` whose certificate `ca_pem` signed.
    pub fn plan_for(address: &str, ca_pem: &str, config: &str) -> Plan {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        std::fs::write(folder.path().join("ca.pem"), ca_pem).unwrap();
        let over = Over::selected();
        let mut config = over.applied(config).replace("{folder}", &at.to_string());
        if config.contains(&format!("authority: '{at}/ca'")) {
            authority_at(&folder.path().join("ca"), SystemTime::now());
        }
        if !config.contains("\nadmin:") {
            config += "\nadmin: {address: '127.0.0.1:0'}\n";
        }
        if !config.contains("\nupstream:") {
            config += "\nupstream: {ca_file: '{ca}', connect_to: '{upstream}'}\n";
        }
        if !config.contains("\ntokens:") {
            config += &format!(
                "\ntokens:\n  analytics: {{file: '{at}/analytics', scopes: [metrika:read]}}\n  crm: {{file: '{at}/crm', scopes: [metrika:write]}}\n"
            );
        }
        let config = config.replace("{ca}", &format!("{at}/ca.pem")).replace("{upstream}", address);
        let plan = Plan {
            folder,
            config,
            arguments: vec!["--workers".into(), "2".into()],
            descriptors: None,
            open_mask: false,
            environment: Vec::new(),
            mount: None,
            configuration: None,
            passed: Vec::new(),
            inherited: RefCell::default(),
            over,
        };
        plan.token("analytics", READ_TOKEN).token("crm", WRITE_TOKEN)
    }

    /// A gate in front of `upstream` that runs.
    pub fn start(upstream: &Upstream, config: &str) -> Self {
        Self::plan(upstream, config).start()
    }

    /// Starts another gate on the same files; returns its output if it does not start.
    pub fn again(&self) -> Result<Self, String> {
        let mut command = program();
        command.args(["run", "--log-format", "json", "--workers", "1", "--config"]).arg(self.file("gate.yaml"));
        serving(command, (), tempfile::tempdir().unwrap(), self.over)
    }

    /// The address of a listener, as `127.0.0.1:1234` or a path.
    pub fn place(&self, listener: &str) -> &str {
        self.places.get(listener).unwrap_or_else(|| panic!("no listener {listener} in {:?}", self.places))
    }

    /// A connection of a caller to a listener.
    pub fn connect(&self, listener: &str) -> Caller {
        Caller::connect(self.place(listener))
    }

    /// The address of the admin listener, as `127.0.0.1:1234`.
    pub fn admin_place(&self) -> &str {
        &self.admin
    }

    /// The caller that a connection is identified as, from the access line of one read.
    pub fn caller_of(&self, caller: &mut Caller) -> String {
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let id = format!("who-{}.", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        caller.send(format!("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {id}\r\n\r\n"));
        caller.answer();
        let line: serde_json::Value = serde_json::from_str(&self.until_log(&[&id])).unwrap();
        line["caller"].as_str().unwrap().to_owned()
    }

    /// Puts another configuration in the place of the one in use, at once.
    pub fn replace_config(&self, config: &str) {
        std::fs::write(self.file("gate.yaml.new"), config).unwrap();
        std::fs::rename(self.file("gate.yaml.new"), self.file("gate.yaml")).unwrap();
    }

    /// Sends one request as it is, on a connection of its own, and reads the answer to the end.
    pub fn send(&self, listener: &str, request: impl AsRef<[u8]>) -> Answer {
        let mut caller = self.connect(listener);
        caller.send(request);
        caller.answer()
    }

    /// `GET path` with nothing but a host.
    pub fn get(&self, listener: &str, path: &str) -> Answer {
        self.send(listener, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    /// The admin's answer to `GET path`.
    pub fn admin(&self, path: &str) -> Answer {
        let mut caller = Caller::connect(&self.admin);
        caller.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        caller.answer()
    }

    /// Every sample line of the metrics page that has all of `parts`.
    pub fn metrics(&self, parts: &[&str]) -> Vec<String> {
        let page = self.admin("/metrics").text();
        // The ledger counts everything once more.
        let wants_usage = parts.is_empty() || parts.iter().any(|part| part.contains("usage"));
        page.lines()
            .filter(|line| wants_usage || !line.starts_with("metrika_gate_usage_"))
            .filter(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)))
            .map(str::to_owned)
            .collect()
    }

    /// The sum of the samples that have all of `parts`.
    pub fn metric(&self, parts: &[&str]) -> f64 {
        self.metrics(parts).iter().filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until the sum of such samples is `wanted`.
    pub fn until_metric(&self, parts: &[&str], wanted: f64) {
        until(&format!("{parts:?} is {wanted}"), || (self.metric(parts) - wanted).abs() < 0.001);
    }

    /// Every log line so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits until a log line has all of `parts`, and returns it.
    pub fn until_log(&self, parts: &[&str]) -> String {
        let find = || self.log().into_iter().find(|line| parts.iter().all(|part| line.contains(part)));
        until(&format!("a log line with {parts:?}"), || find().is_some());
        find().unwrap()
    }

    /// A file in the gate's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration's text.
    pub fn config(&self) -> String {
        std::fs::read_to_string(self.file("gate.yaml")).unwrap()
    }

    /// Puts another token in a file's place, at once (write beside it, rename over it).
    pub fn replace_token(&self, name: &str, secret: &str) {
        write_private(&self.file(&format!("{name}.new")), secret);
        std::fs::rename(self.file(&format!("{name}.new")), self.file(name)).unwrap();
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, as `HUP` or `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// From now on the process has no descriptor numbered `most` or higher, but for those that it has already.
    pub fn allow_descriptors(&self, most: u64) {
        let process = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw);
        let limit = rustix::process::Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::prlimit(process, rustix::process::Resource::Nofile, limit).unwrap();
    }

    /// Resident memory now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The most resident memory that it ever had, in bytes.
    pub fn peak_resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The processor time that it used so far.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        // utime and stime, the fields 14 and 15 of proc(5), in hundredths of a second.
        let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until the process ends.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the gate ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Plan {
    /// Puts a token in a file of the gate's folder.
    pub fn token(self, name: &str, secret: &str) -> Self {
        let file = self.folder.path().join(name);
        let _ = std::fs::remove_file(&file);
        write_private(&file, secret);
        self
    }

    /// Takes a file away.
    pub fn without(self, name: &str) -> Self {
        std::fs::remove_file(self.folder.path().join(name)).unwrap();
        self
    }

    /// Callers speak HTTP/2 to every listener on TCP.
    pub fn with_http2(mut self) -> Self {
        self.config = self.config.replace(", address: '127.0.0.1:0'}", ", address: '127.0.0.1:0', http2: true}");
        self
    }

    /// Adds an argument to the command line.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Sets the number of workers, 2 by default. With one, two requests certainly meet in the same pool.
    pub fn workers(mut self, workers: usize) -> Self {
        self.arguments[1] = workers.to_string();
        self
    }

    /// Limits the number of descriptors; the program cannot raise the limit.
    pub fn descriptors(mut self, most: u32) -> Self {
        self.descriptors = Some(most);
        self
    }

    /// With a file mode creation mask that takes nothing away.
    pub fn open_mask(mut self) -> Self {
        self.open_mask = true;
        self
    }

    /// With a variable of the environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With `hosts`, a file of the gate's folder that can be rewritten, in the place of `/etc/hosts`; `None` where the
    /// system does not let a test do that.
    pub fn hosts(self, hosts: &str) -> Option<Self> {
        std::fs::write(self.folder.path().join("hosts"), hosts).unwrap();
        let file = self.folder.path().join("hosts");
        self.mounted(file, "/etc/hosts".into())
    }

    /// With a resolver that asks the DNS server at `address`, and no other; `None` as for `hosts`.
    pub fn resolver(self, address: Ipv4Addr) -> Option<Self> {
        let file = self.folder.path().join("resolv.conf");
        std::fs::write(&file, format!("nameserver {address}\n")).unwrap();
        self.mounted(file, "/etc/resolv.conf".into())
    }

    /// With a file of the gate's folder mounted by itself: its `outside` is beside it. `None` as for `hosts`.
    pub fn mounted_alone(self, name: &str) -> Option<Self> {
        let (inside, outside) = (self.folder.path().join(name), self.folder.path().join(format!("{name}.outside")));
        std::fs::copy(&inside, &outside).unwrap();
        self.mounted(outside, inside)
    }

    fn mounted(mut self, file: PathBuf, over: PathBuf) -> Option<Self> {
        self.mount = Some((file, over));
        let may = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
        may.is_ok_and(|status| status.success()).then_some(self)
    }

    /// With a descriptor of the service manager (sd_listen_fds(3)).
    pub fn passed(mut self, name: &str, descriptor: OwnedFd) -> Self {
        self.passed.push((name.to_owned(), descriptor));
        self
    }

    /// A shell that puts the descriptors where the program expects them: from 3 on, in the process that has `LISTEN_PID`.
    fn passing(&self) -> Command {
        let mut redirections = String::new();
        for (number, (_, descriptor)) in self.passed.iter().enumerate() {
            // Above all that are in use, and inherited; the process of the test has no other children meanwhile.
            let high = rustix::io::fcntl_dupfd_cloexec(descriptor, 100).unwrap();
            rustix::io::fcntl_setfd(&high, rustix::io::FdFlags::empty()).unwrap();
            redirections += &format!(" {}<&{high} {high}<&-", number + 3, high = high.as_raw_fd());
            self.inherited.borrow_mut().push(high);
        }
        let names: Vec<_> = self.passed.iter().map(|(name, _)| name.as_str()).collect();
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(format!("LISTEN_PID=$$ exec \"$0\" \"$@\"{redirections}")).arg(binary());
        shell.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        shell
    }

    /// Runs in the gate's folder, with the configuration at this path in the place of its own.
    pub fn configured_at(mut self, path: &str) -> Self {
        self.configuration = Some(path.to_owned());
        self
    }

    /// The text of the configuration.
    pub fn text(&self) -> &str {
        &self.config
    }

    /// The gate's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder, for as long as a test keeps it.
    pub fn into_folder(self) -> tempfile::TempDir {
        self.folder
    }

    /// The configuration's file, written now.
    pub fn file(&self) -> PathBuf {
        let file = self.folder.path().join("gate.yaml");
        std::fs::write(&file, &self.config).unwrap();
        file
    }

    fn command(&self) -> Command {
        let file = self.file();
        let program = binary();
        let mut command = if !self.passed.is_empty() {
            self.passing()
        } else if let Some((file, over)) = &self.mount {
            let mut shell = Command::new("unshare");
            shell.args(["--mount", "sh", "-c", "mount --bind \"$0\" \"$1\" && shift && exec \"$@\""]);
            shell.arg(file).arg(over).arg(program);
            shell
        } else if self.descriptors.is_none() && !self.open_mask {
            self::program()
        } else {
            let most = self.descriptors.map_or_else(String::new, |most| format!("ulimit -n {most} && "));
            let mask = if self.open_mask { "umask 000 && " } else { "" };
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("{most}{mask}exec \"$0\" \"$@\"")).arg(program);
            shell
        };
        let file = self.configuration.as_ref().map_or(file, |path| {
            command.current_dir(self.folder.path());
            path.into()
        });
        command.arg("run").arg("--config").arg(file).args(["--log-format", "json"]).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a gate that is expected to end by itself: its exit code and its output.
    pub fn fails(self) -> (i32, String) {
        ended(self.command())
    }

    /// The same, and the folder stays for the test to look at and remove.
    pub fn fails_in_place(self) -> (i32, String) {
        let ended = ended(self.command());
        let _ = self.folder.keep();
        ended
    }

    /// Starts it and waits until it serves.
    pub fn start(self) -> Gate {
        let command = self.command();
        let started = serving(command, (self.passed, self.inherited), self.folder, self.over);
        started.unwrap_or_else(|said| panic!("it does not start: {said}"))
    }
}

/// Starts a program and waits until it serves; returns its output if it ends instead.
fn serving<D>(mut command: Command, passed: D, folder: tempfile::TempDir, over: Over) -> Result<Gate, String> {
    let mut child = command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    // The program has its own copies.
    drop(passed);
    let log = Arc::new(Mutex::new(Vec::new()));
    let (lines, stderr) = (log.clone(), child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
    let mut gate = Gate { child, folder, places: HashMap::new(), admin: String::new(), log, over };
    let is_started = |gate: &Gate| gate.log().iter().any(|line| line.contains("\"started\""));
    until("it serves, or ends", || gate.child.try_wait().unwrap().is_some() || is_started(&gate));
    if !is_started(&gate) {
        reader.join().unwrap();
        return Err(gate.log().join("\n"));
    }
    let started: serde_json::Value = serde_json::from_str(&gate.until_log(&["\"started\""])).unwrap();
    gate.admin = started["admin"].as_str().unwrap().to_owned();
    for line in gate.log().iter().filter(|line| line.contains("\"listening\"")) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let place = line["place"].as_str().unwrap();
        let place = ["http://", "https://", "unix:"].into_iter().find_map(|scheme| place.strip_prefix(scheme)).unwrap();
        over.register(place, &gate.file("ca"));
        gate.places.insert(line["listener"].as_str().unwrap().to_owned(), place.to_owned());
    }
    Ok(gate)
}

/// Waits for a program that ends by itself: its exit code and its output.
fn ended(mut command: Command) -> (i32, String) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = child.stderr.take().unwrap();
    let said = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap());
    let start = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
            None => {
                child.kill().and_then(|()| child.wait()).unwrap();
                panic!("it serves, where it should have failed: {}", said.join().unwrap());
            }
        }
    };
    (status.code().unwrap(), said.join().unwrap())
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the gate's log ---\n{}", self.log().join("\n"));
        }
    }
}

/// The file of the program. `METRIKA_GATE_BIN` names another one: so a new test can be seen to fail on an older binary.
#[expect(clippy::disallowed_methods, reason = "it is a setting of the tests, not of the program")]
pub fn binary() -> PathBuf {
    std::env::var_os("METRIKA_GATE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_metrika-gate").into(), PathBuf::from)
}

/// The program, with no setting but those that the test gives it.
pub fn program() -> Command {
    let mut command = Command::new(binary());
    let own = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("METRIKA_GATE_"));
    for (name, _) in own {
        command.env_remove(name);
    }
    command
}

/// A number of things as a sample has it.
pub fn count(things: usize) -> f64 {
    f64::from(u32::try_from(things).unwrap())
}

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
