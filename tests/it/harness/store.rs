//! A store for the quotas of a fleet: a real Redis or Valkey on a port of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::gate::until;

/// The servers with which the fleet is tested: the environment variable that names the program, and its usual name.
pub const SERVERS: [(&str, &str); 2] = [("REDIS_SERVER", "redis-server"), ("VALKEY_SERVER", "valkey-server")];
pub const REDIS: (&str, &str) = SERVERS[0];

/// A server that ends with the test.
pub struct Store {
    program: PathBuf,
    pub port: u16,
    child: Child,
    arguments: Vec<String>,
    /// The folder in which it works: it starts with what it finds there.
    _folder: tempfile::TempDir,
}

#[expect(clippy::disallowed_methods, reason = "a test names the program of a server")]
fn program((variable, name): (&str, &str)) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/stores").join(name);
    match std::env::var_os(variable) {
        Some(given) => given.into(),
        None if tools.exists() => tools,
        None => name.into(),
    }
}

impl Store {
    pub fn start(server: (&str, &str)) -> Self {
        Self::with(server, &[])
    }

    pub fn with(server: (&str, &str), arguments: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let program = program(server);
        let folder = tempfile::tempdir().unwrap();
        let of_folder = ["--dir".to_owned(), folder.path().display().to_string()];
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).chain(of_folder).collect();
        let child = launch(&program, port, &arguments);
        let store = Self { program, port, child, arguments, _folder: folder };
        store.is_ready();
        store
    }

    fn is_ready(&self) {
        until("the store answers", || self.try_ask(&["PING"]).is_ok());
    }

    /// Ends it at once, as by `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again at the same port: it is empty.
    pub fn restart(&mut self) {
        self.child = launch(&self.program, self.port, &self.arguments);
        self.is_ready();
    }

    /// Sends a signal: `STOP`, and `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    pub fn connect(&self) -> redis::RedisResult<redis::Connection> {
        redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?.get_connection()
    }

    fn try_ask(&self, command: &[&str]) -> redis::RedisResult<redis::Value> {
        let mut connection = self.connect()?;
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection)
    }

    /// Sends a command, and returns the answer.
    pub fn ask(&self, command: &[&str]) -> redis::Value {
        self.try_ask(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// A number of `INFO`.
    pub fn figure(&self, section: &str, name: &str) -> f64 {
        let redis::Value::BulkString(text) = self.ask(&["INFO", section]) else { panic!("INFO is no text") };
        let text = String::from_utf8(text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.trim_start_matches(':').split(',').next().unwrap().trim_start_matches("calls=").trim().parse().unwrap()
    }

    /// The calls of the script so far.
    pub fn calls(&self) -> f64 {
        self.figure("commandstats", "cmdstat_evalsha")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(program: &Path, port: u16, arguments: &[String]) -> Child {
    Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; ./test.sh fetches it", program.display()))
}
