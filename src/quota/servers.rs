//! Stores for tests: a real Redis and a real Valkey, each on a socket of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Connection, PushInfo, PushKind, Script, Value};

use super::{Call, Reply, SCRIPT, Told};

/// The program of a server: the environment variable, or a folder of `./test.sh`, or the path.
#[expect(clippy::disallowed_methods, reason = "a test names the program of a server")]
pub(super) fn program(variable: &str, name: &str) -> PathBuf {
    let tools = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.tools/stores")).join(name);
    match std::env::var_os(variable) {
        Some(given) => given.into(),
        None if tools.exists() => tools,
        None => name.into(),
    }
}

pub(super) const SERVERS: [(&str, &str); 2] = [("REDIS_SERVER", "redis-server"), ("VALKEY_SERVER", "valkey-server")];

/// A server that ends with the test.
pub(super) struct Server {
    child: Child,
    folder: tempfile::TempDir,
}

impl Server {
    pub(super) fn start((variable, name): (&str, &str)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = program(variable, name);
        let child = Command::new(&program)
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .arg("--unixsocket")
            .arg(folder.path().join("store.sock"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; ./test.sh fetches it, or {variable} names it", program.display())
            });
        Self { child, folder }
    }

    fn connect(&self) -> Connection {
        let url = format!("redis+unix://{}?protocol=resp3", self.folder.path().join("store.sock").display());
        let client = redis::Client::open(url).unwrap();
        let start = Instant::now();
        loop {
            match client.get_connection() {
                Ok(connection) => return connection,
                Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The store of a fleet in virtual time: each call is made at a time that the test gives.
pub(super) struct Store {
    connection: Connection,
    pushes: std::sync::mpsc::Receiver<PushInfo>,
    script: Script,
    /// The calls so far.
    pub(super) calls: u64,
    _server: Server,
}

const PREFIX: &str = "{gate}";

impl Store {
    pub(super) fn start(server: (&str, &str)) -> Self {
        let server = Server::start(server);
        let mut connection = server.connect();
        let (sender, pushes) = std::sync::mpsc::channel();
        connection.set_push_sender(sender);
        connection.psubscribe_resp3(format!("{PREFIX}:to:*")).unwrap();
        Self { connection, pushes, script: Script::new(SCRIPT), calls: 0, _server: server }
    }

    /// Makes a call, and returns the messages that it caused: to which gate, and what.
    pub(super) fn call(&mut self, call: &Call) -> (Reply, Vec<(String, Told)>) {
        self.calls += 1;
        let text = serde_json::to_string(call).unwrap();
        let reply: String = self.script.key(PREFIX).arg(text).invoke(&mut self.connection).unwrap();
        // Every message of the call is read before the answer to this.
        redis::cmd("PING").exec(&mut self.connection).unwrap();
        let messages = self.pushes.try_iter().filter(|push| push.kind == PushKind::PMessage).map(|push| {
            let [_, Value::BulkString(channel), Value::BulkString(told)] = &push.data[..] else { panic!("{push:?}") };
            let gate = String::from_utf8(channel.clone()).unwrap().rsplit_once(':').unwrap().1.to_owned();
            (gate, serde_json::from_slice(told).unwrap())
        });
        (serde_json::from_str(&reply).unwrap(), messages.collect())
    }

    /// The answer to a command, if it is a number or a text.
    pub(super) fn ask<T: redis::FromRedisValue>(&mut self, command: &[&str]) -> T {
        redis::cmd(command[0]).arg(&command[1..]).query(&mut self.connection).unwrap()
    }

    /// Everything is lost.
    pub(super) fn empty(&mut self) {
        redis::cmd("FLUSHALL").exec(&mut self.connection).unwrap();
    }

    /// A number of the store's own: commands that it has processed, or its use of the processor in seconds.
    pub(super) fn figure(&mut self, section: &str, name: &str) -> f64 {
        let info: String = redis::cmd("INFO").arg(section).query(&mut self.connection).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().parse().unwrap()
    }
}
