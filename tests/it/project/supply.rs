//! The program's dependencies, and what they cannot log: read from `Cargo.toml`, `Cargo.lock` and
//! `deny.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Package to its dependencies: an optional dependency is listed only when a feature enables it.
fn locked() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = file("Cargo.lock");
    let value = |part: &str, key: &str| {
        let line = part.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")));
        line.map_or_else(String::new, |value| value.trim_matches('"').to_owned())
    };
    let packages: BTreeMap<_, _> = text
        .split("[[package]]")
        .skip(1)
        .map(|part| {
            let lines = part.lines().filter(|line| line.starts_with(" \""));
            let name = |line: &str| line.trim_matches([' ', '"', ',']).split(' ').next().unwrap().to_owned();
            (value(part, "name"), (value(part, "version"), lines.map(name).collect()))
        })
        .collect();
    assert!(packages.len() > 80, "the file was read");
    packages
}

fn dependents(of: &str) -> BTreeSet<String> {
    locked().into_iter().filter(|(_, (_, with))| with.contains(of)).map(|(name, _)| name).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// a log that is not built in cannot be switched on. TLS and the HTTP/1 parser see tokens and have no log; records of
/// `log` go nowhere, as nothing bridges them. HTTP/2's log is always there, and `secrets` and the canary hold it to silence.
#[test]
fn crates_that_see_tokens_have_no_log_of_their_own() {
    assert_eq!(dependents("tracing"), set(&["fake-metrica", "h2", "metrika-gate", "tracing-subscriber"]));
    assert_eq!(dependents("log"), set(&["mio", "notify"]));
    let locked = locked();
    for absent in ["tracing-log", "env_logger", "console-subscriber", "tracing-appender"] {
        assert!(!locked.contains_key(absent), "{absent}");
    }
}

/// crates with unfixed advisories, and second crates of the same kind, are not built in.
#[test]
fn banned_crates_are_not_built_in() {
    let (locked, deny) = (locked(), file("deny.toml"));
    for banned in ["openssl", "native-tls", "rustls-pemfile", "serde_yml", "protobuf"] {
        assert!(!locked.contains_key(banned), "{banned}");
        assert!(deny.contains(&format!("crate = \"{banned}\"")), "{banned} is not in deny.toml");
    }
    for rule in ["unknown-registry = \"deny\"", "unknown-git = \"deny\"", "wildcards = \"deny\""] {
        assert!(deny.contains(rule), "{rule}");
    }
    assert!(file("test.sh").contains("cargo deny --locked check bans licenses sources"));
}

/// the first version without a fault that would break a promise, of each that had one.
#[test]
fn crates_with_known_faults_have_fixed_versions() {
    let locked = locked();
    let numbers = |version: &str| version.split('.').map(|number| number.parse::<u64>().unwrap()).collect::<Vec<_>>();
    for (name, least, why) in [
        ("hyper", "1.11.0", "Content-Length beside Transfer-Encoding"),
        ("h2", "0.4.16", "RUSTSEC-2026-0258, empty DATA frames"),
        ("rustls", "0.23.18", "RUSTSEC-2024-0336 and 2024-0399"),
        ("rustls-webpki", "0.103.10", "RUSTSEC-2026-0049 and those after it"),
        ("tracing-subscriber", "0.3.20", "RUSTSEC-2025-0055, escape sequences"),
    ] {
        let (version, _) = locked.get(name).unwrap_or_else(|| panic!("no {name}"));
        assert!(numbers(version) >= numbers(least), "{name} {version} has {why}");
    }
}

/// there is no way to write that a certificate is not verified, nor in which version TLS is spoken.
#[test]
fn verification_cannot_be_switched_off() {
    for name in ["src/upstream.rs", "src/upstream/dial.rs", "src/config/upstream.rs"] {
        let text = file(name);
        for word in ["dangerous", "ServerCertVerifier", "insecure", "danger_", "skip_verify"] {
            assert!(!text.contains(word), "{name} has {word}");
        }
    }
    let features = file("Cargo.toml").lines().find(|line| line.starts_with("rustls = ")).unwrap().to_owned();
    assert!(features.contains("default-features = false") && !features.contains("dangerous"), "{features}");
}

/// Promise 7 and the clock: decisions on the path of a request do not use the wall clock, so a jump of it changes
/// nothing. The clock of the wall is read to be written down only: in lines, in `Date` and in metrics, and
/// by the commands `doctor`, `check` and `token`, which count the days of tokens and of key files. The exception is identity:
/// certificates of clients and tokens of service accounts have their times on that clock.
#[test]
fn no_decision_reads_the_wall_clock() {
    let known = set(&[
        "src/process/admin.rs",
        "src/process/page_parts.rs",
        "src/process/readiness.rs",
        "src/process/status_page.rs",
        "src/cli/app.rs",
        "src/cli/ca.rs",
        "src/cli/check.rs",
        "src/cli/doctor.rs",
        "src/cli/identity.rs",
        "src/cli/oauth_server.rs",
        "src/cli/token_proof.rs",
        "src/cli/token_revoke.rs",
        "src/cli/token_status.rs",
        "src/config/health.rs",
        "src/config/service_accounts.rs",
        "src/config/tls.rs",
        "src/doctor.rs",
        "src/doctor/candidate.rs",
        "src/doctor/file.rs",
        "src/doctor/reach.rs",
        "src/files.rs",
        "src/gateway/identify.rs",
        "src/gateway/service_account.rs",
        "src/health/probe.rs",
        "src/health/published_keys.rs",
        "src/policy/service_account.rs",
        "src/policy/service_account/tests.rs",
        "src/metrics/key_set.rs",
        "src/reload/key_set.rs",
        "src/worker/service_accounts.rs",
        "src/gateway/record.rs",
        "src/metrics/process.rs",
        "src/metrics/token_state.rs",
        "src/reload/renewal.rs",
        "src/telemetry/access.rs",
        "src/telemetry/written_time.rs",
        "src/token/record.rs",
        "src/config/authority.rs",
        "src/config/client_auth.rs",
        "src/config/leaf.rs",
        "src/cli/certificates.rs",
        "src/worker/turns.rs",
    ]);
    let mut found = BTreeSet::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("crates/metrica/src"), root.join("crates/strict-http/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let program = super::architecture::program(&text);
                if ["SystemTime", "UNIX_EPOCH", ".modified()", "mtime"].iter().any(|word| program.contains(word)) {
                    found.insert(name);
                }
            }
        }
    }
    assert_eq!(found, known);
}
