//! Files that are incomplete, and paths that are no files at all: partly written ones, and endless ones.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use metrika_gate::config::Config;

use crate::harness::gate::until;
use crate::harness::{Gate, READ_TOKEN, TWO_CALLERS, Upstream};

const COUNTERS: &str = "/management/v1/counters";

/// Without its last line, the caller is recognised from everywhere.
const NEAR_ONLY: &str = "
listeners:
  - {name: app, address: '127.0.0.1:0'}
admin: {address: '127.0.0.1:0'}
upstream: {ca_file: '{ca}', connect_to: '{upstream}'}
tokens:
  analytics: {file: '{folder}/analytics', scopes: [metrika:read]}
callers:
  - id: reports
    scopes: [metrika:read]
    tokens: [analytics]
    match:
      listener: app
      source: [127.0.0.77]
";

/// half a configuration can allow more than the whole, and is not used while the rest is being written.
#[test]
fn a_configuration_rewritten_in_place_is_not_used_half_written() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, NEAR_ONLY);
    assert_eq!(gate.get("app", COUNTERS).summary(), "401 unknown_caller");
    let whole = gate.config();
    let (half, _) = whole.split_once("      source:").unwrap();
    let mut file = std::fs::File::create(gate.file("gate.yaml")).unwrap();
    file.write_all(half.as_bytes()).unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(450) {
        assert_eq!(gate.get("app", COUNTERS).summary(), "401 unknown_caller", "{:?}", start.elapsed());
    }
    file.write_all(b"      source: [127.0.0.0/8]\n").unwrap();
    assert!(start.elapsed() < Duration::from_millis(950), "this machine is too busy for this test");
    until("the whole is in use", || gate.get("app", COUNTERS).summary() == "200");
    gate.until_metric(&["config_reloads_total"], 2.0);
}

/// the bound that operators are told.
#[test]
fn a_configuration_renamed_over_the_old_one_is_used_within_two_seconds() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, NEAR_ONLY);
    let start = Instant::now();
    gate.replace_config(&gate.config().replace("127.0.0.77", "127.0.0.1"));
    until("it is in use", || gate.get("app", COUNTERS).summary() == "200");
    assert!(start.elapsed() < Duration::from_secs(2), "it took {:?}", start.elapsed());
}

fn fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// opening a FIFO without a writer blocks indefinitely.
#[test]
fn a_fifo_in_the_place_of_a_token_holds_nothing_up() {
    let upstream = Upstream::plain();
    let mut gate = Gate::start(&upstream, TWO_CALLERS);
    fifo(&gate.file("fifo"));
    std::fs::rename(gate.file("fifo"), gate.file("analytics")).unwrap();
    gate.until_log(&["the token was not reloaded", "it is not a regular file", "the previous token stays in use"]);
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
    assert_eq!(gate.admin("/livez").status, 200);
    gate.replace_token("analytics", READ_TOKEN);
    gate.until_log(&["the token file is valid again"]);
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(0));
}

/// Each of these is examined before it is read: `/dev/null` would read as empty, `/dev/zero` has no end.
#[test]
fn a_device_or_oversized_file_is_no_configuration_or_certificate() {
    let null = Path::new("/dev/null");
    assert!(
        Config::load(null).unwrap_err().to_string().contains("cannot read the configuration: it is not a regular file")
    );
    let large = tempfile::NamedTempFile::new().unwrap();
    large.as_file().set_len(5 * 1024 * 1024).unwrap();
    for (file, said) in [(null, "it is not a regular file"), (large.path(), "at most 4MiB")] {
        let text = format!("{TWO_CALLERS}upstream: {{ca_file: '{}'}}\n", file.display());
        let error = Config::parse(&text, Path::new("gate.yaml")).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
