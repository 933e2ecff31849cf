//! Configurations that are made to harm: refused by the real program in bounded time and memory, at its start and
//! while it serves.

use std::time::{Duration, Instant};

use crate::harness::gate::program;
use crate::harness::{Gate, TWO_CALLERS, Upstream};

/// Aliases of aliases: nine to the power of twelve values in a kilobyte.
fn aliases() -> String {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", vec![below; 9].join(", "));
    }
    text
}

fn harmful() -> Vec<(&'static str, String)> {
    vec![
        ("aliases", aliases()),
        ("an alias of itself", "listeners: &a [*a]\n".to_owned()),
        ("lists in lists", "listeners: ".to_owned() + &"[".repeat(100_000)),
        ("mappings in mappings", "listeners: ".to_owned() + &"{a: ".repeat(100_000)),
        ("blocks in blocks", (0..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect()),
        ("a long text", format!("listeners: {}\n", "x".repeat(1 << 20))),
        ("many keys", (0..2_000).map(|key| format!("k{key}: 1\n")).collect()),
        ("a merge of mappings", "a: &a {listeners: 1}\n<<: *a\n".to_owned()),
        ("a tag", "listeners: !!binary aGVsbG8=\n".to_owned()),
        ("two documents", "listeners: []\n---\nlisteners: []\n".to_owned()),
        ("a zero byte", "listeners: \0\n".to_owned()),
        ("a mark of byte order alone", "\u{feff}".to_owned()),
    ]
}

/// at the start; `check` does as `run` does.
#[test]
fn harmful_yaml_is_refused_in_bounded_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gate.yaml");
    for (what, text) in harmful() {
        std::fs::write(&file, text).unwrap();
        for command in ["check", "run"] {
            let start = Instant::now();
            let output = program().args([command, "--config"]).arg(&file).output().unwrap();
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert_eq!(output.status.code(), Some(78), "{command}, {what}: {said:.2000}");
            assert!(said.contains("gate.yaml"), "{command}, {what}: {said:.2000}");
            assert!(start.elapsed() < Duration::from_secs(10), "{command}, {what}: {:?}", start.elapsed());
        }
    }
}

/// a file beyond all measure is not read to its end.
#[test]
fn a_file_without_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gate.yaml");
    std::fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
    let endless = std::path::Path::new("/dev/zero");
    for (file, code, why) in [(file.as_path(), 78, "is larger than"), (endless, 66, "not a regular file")] {
        let output = program().args(["check", "--config"]).arg(file).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(why), "{said}");
    }
}

/// while it serves, they change nothing, and cost no more than a moment and some memory.
#[test]
fn harmful_yaml_harms_no_gate_that_runs() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let good = gate.config();
    for (what, text) in harmful() {
        gate.replace_config(&text);
        gate.signal("HUP");
        gate.until_metric(&["config_last_reload_successful"], 0.0);
        assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200", "{what}");
        gate.replace_config(&good);
        gate.until_metric(&["config_last_reload_successful"], 1.0);
    }
    let peak = gate.peak_resident_bytes();
    assert!(peak < 256 * 1024 * 1024, "{peak} bytes");
}

/// a duplicate or unknown key, in every mapping of the configuration.
#[test]
fn repeated_and_unknown_keys_are_refused_at_every_depth() {
    let upstream = Upstream::plain();
    let config = format!(
        "{TWO_CALLERS}
admin: {{address: '127.0.0.1:0'}}
upstream: {{ca_file: '{{ca}}', connect_to: '{{upstream}}', timeouts: {{connect: 5s}}}}
tokens:
  analytics: {{file: '{{folder}}/analytics', scopes: [metrika:read]}}
  crm: {{file: '{{folder}}/crm', scopes: [metrika:write]}}
operations: [{{method: GET, path: '/management/v1/new', scope: [metrika:read]}}]
timeouts: {{keep_alive: 75s}}
limits: {{connections: 100}}
shutdown: {{timeout: 30s}}
log: {{level: info}}
sandbox: true
"
    );
    let plan = Gate::plan(&upstream, &config);
    let file = plan.file();
    let good = std::fs::read_to_string(&file).unwrap();
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = program().args(["check", "--config"]).arg(&file).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(check(&good).0, Some(0), "{}", check(&good).1);
    let mut places = 0;
    // In flow style every mapping begins with a brace, and its first key is repeated by writing it twice.
    for (at, _) in good.match_indices('{') {
        let rest = &good[at + 1..];
        let first = rest.split([',', '}']).next().unwrap();
        if rest.starts_with("listener:") || first.contains('{') {
            continue;
        }
        let (before, after) = good.split_at(at + 1);
        let (code, said) = check(&format!("{before}{first}, {after}"));
        assert!(code == Some(78) && said.contains("duplicate key"), "{first}: {said}");
        let (code, said) = check(&format!("{before}nobody_knows: 1, {after}"));
        assert!(code == Some(78) && said.contains("nobody_knows: unknown key"), "{first}: {said}");
        places += 1;
    }
    assert!(places >= 12, "{places} mappings were tried");
    for (line, word) in [("sandbox: true\n", "duplicate key"), ("nobody_knows: 1\n", "unknown key")] {
        let (code, said) = check(&format!("{good}{line}"));
        assert!(code == Some(78) && said.contains(word), "{said}");
    }
}
