//! The house: which module may use which, and how large a file may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Every module of the gate from the bottom up, its layer, and exactly which other modules it uses. A module uses only those above
/// it in this table, so there is no circle.
const MODULES: [(&str, &str, &[&str]); 19] = [
    ("policy", "values", &[]),
    ("files", "values", &["policy"]),
    ("quota", "values", &["policy"]),
    ("config", "values", &["files", "policy", "quota"]),
    ("token", "values", &["config", "files", "policy"]),
    ("metrics", "request path", &["config", "files", "policy", "quota", "token"]),
    ("telemetry", "request path", &["config", "metrics", "policy"]),
    ("upstream", "request path", &["config", "files", "metrics"]),
    ("body", "request path", &["policy"]),
    ("worker", "request path", &["body", "config", "metrics", "policy", "quota", "telemetry", "token", "upstream"]),
    ("response", "request path", &["body", "metrics", "policy", "token", "upstream", "worker"]),
    (
        "gateway",
        "request path",
        &["body", "config", "metrics", "policy", "quota", "response", "telemetry", "upstream", "worker"],
    ),
    ("server", "request path", &["config", "files", "gateway", "metrics", "policy", "response", "upstream", "worker"]),
    (
        "process",
        "process",
        &["config", "files", "metrics", "policy", "quota", "response", "server", "telemetry", "token", "worker"],
    ),
    ("reload", "process", &["config", "files", "metrics", "policy", "process", "token", "upstream", "worker"]),
    (
        "health",
        "process",
        &["config", "files", "metrics", "policy", "process", "quota", "reload", "token", "upstream", "worker"],
    ),
    ("doctor", "commands", &["config", "files", "health", "policy", "token", "upstream"]),
    (
        "cli",
        "commands",
        &[
            "config",
            "doctor",
            "files",
            "health",
            "metrics",
            "policy",
            "process",
            "quota",
            "reload",
            "server",
            "telemetry",
            "token",
            "upstream",
        ],
    ),
    ("main", "commands", &[]),
];

/// The crates below the gate, which may use no sockets, no clock and no thread.
const CRATES: [&str; 2] = ["metrica", "strict-http"];

/// Every source file of the gate, with its path below `src`.
fn sources() -> Vec<(PathBuf, String)> {
    let found = sources_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(found.len() > 50, "the sources were found");
    found
}

/// Every source file below `root`, with its path from there.
fn sources_of(root: &Path) -> Vec<(PathBuf, String)> {
    let mut folders = vec![root.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// The module of a file: `gateway` for `gateway.rs` and for `gateway/inject.rs`.
fn module(file: &Path) -> String {
    let first = file.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The program of a file: without its module of tests, which stands at its end, and without comments.
pub fn program(text: &str) -> String {
    let tests = ["#[cfg(test)]\nmod tests", "#[cfg(test)]\npub mod tests"];
    let end = tests.iter().filter_map(|tests| text.rfind(tests)).min().unwrap_or(text.len());
    let code: Vec<&str> = text[..end].lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    code.join("\n")
}

/// The first names of a list in braces: `a` and `b` of `{a::{c, d}, b}`.
fn first_names(list: &str) -> Vec<&str> {
    let (mut names, mut depth, mut begins) = (Vec::new(), 0, 1);
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => {
                names.push(&list[begins..at]);
                begins = at + 1;
            }
            _ => {}
        }
        if depth == 0 {
            names.push(&list[begins..at]);
            break;
        }
    }
    names
}

/// The modules that a file names, outside comments and outside its own tests.
fn used(text: &str) -> BTreeSet<String> {
    let code = program(text);
    assert!(!code.contains("use crate as") && !code.contains("use crate::*"), "the crate has another name");
    let mut modules = BTreeSet::new();
    for rest in code.split("super::super::").skip(1).chain(code.split("crate::").skip(1)) {
        let names = if rest.starts_with('{') { first_names(rest) } else { vec![rest] };
        for name in names {
            let name = name.trim();
            let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
            modules.insert(name[..end].to_owned());
        }
    }
    modules.remove("");
    modules
}

#[test]
fn every_module_has_a_layer_and_uses_only_modules_above_it() {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in sources().into_iter().filter(|(file, _)| file != Path::new("lib.rs")) {
        let module = module(&file);
        let others = used(&text).into_iter().filter(|other| *other != module);
        found.entry(module.clone()).or_default().extend(others);
    }
    let mut wrong = Vec::new();
    for module in found.keys().filter(|module| !MODULES.iter().any(|(known, ..)| known == module)) {
        wrong.push(format!("src/{module} has no row in MODULES"));
    }
    for (position, (module, _, uses)) in MODULES.iter().enumerate() {
        let expected: BTreeSet<String> = uses.iter().map(|other| (*other).to_owned()).collect();
        let Some(found) = found.get(*module) else {
            wrong.push(format!("MODULES has {module}, which is not there"));
            continue;
        };
        wrong.extend(found.difference(&expected).map(|other| format!("{module} uses {other}")));
        wrong.extend(expected.difference(found).map(|other| format!("{module} does not use {other}; take it out")));
        let below = MODULES.get(..position).unwrap();
        let above = uses.iter().filter(|other| !below.iter().any(|(known, ..)| known == *other));
        wrong.extend(above.map(|other| format!("{module} uses {other}, which does not stand above it: a circle")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_libraries_have_no_async_and_no_input_or_output() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
    let of_crates = CRATES.iter().flat_map(|name| sources_of(&root.join(name).join("src")));
    // The servers that the tests of a fleet start are no part of the program.
    let is_pure = |file: &Path| ["policy", "quota"].contains(&module(file).as_str()) && !file.ends_with("servers.rs");
    let of_pure = sources().into_iter().filter(|(file, _)| is_pure(file));
    for (file, text) in of_crates.chain(of_pure) {
        let program = program(&text);
        for word in ["async ", "tokio", "hyper::", "tower", "std::fs", "std::net::Tcp", "std::io", "std::thread"] {
            let lines = program.lines().filter(|line| !line.trim_start().starts_with("//"));
            let found: Vec<_> = lines.filter(|line| line.contains(word)).collect();
            assert!(found.is_empty(), "{}: {found:?}", file.display());
        }
    }
}

#[test]
fn the_gate_does_not_know_its_stand_in() {
    for (file, text) in sources() {
        let may = ["cli"].contains(&module(&file).as_str());
        assert!(may || !text.contains("fake_metrica::"), "src/{} uses the stand-in", file.display());
    }
}

#[test]
fn a_grant_is_made_in_policy_only() {
    for (file, text) in sources() {
        let places = text.lines().filter(|line| line.contains("Grant {") && !line.trim_start().starts_with("//"));
        if module(&file) != "policy" {
            let places: Vec<_> =
                places.filter(|line| !line.contains("for Grant {") && !line.contains("-> Grant {")).collect();
            assert!(places.is_empty(), "src/{}: {places:?}", file.display());
        }
    }
}

/// Permissions of a file are checked when it is opened, by its row of the table; nothing else opens one that a
/// configuration names.
#[test]
fn files_that_a_configuration_names_are_opened_by_their_rows() {
    // Files named on a command line, and the hosts file: they decide nothing about permissions.
    let others = ["cli/lines.rs", "cli/check.rs"].map(PathBuf::from);
    for (file, text) in sources() {
        if file.starts_with("files") || others.contains(&file) || file.ends_with("tests.rs") {
            continue;
        }
        let program = program(&text);
        for opens in
            ["reading::open(", "fs::open(", "fs::read(", "fs::read_to", "File::open(", "guard.open(", "guard.check("]
        {
            let is_row = file == Path::new("files.rs") && opens.starts_with("guard.");
            assert!(is_row || !program.contains(opens), "src/{} has {opens}", file.display());
        }
    }
}

#[test]
fn files_have_names_and_a_size() {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates =
        ["metrica", "strict-http", "fake-metrica"].map(|name| sources_of(&root.join("crates").join(name).join("src")));
    for (file, text) in sources().into_iter().chain(crates.into_iter().flatten()) {
        if file.file_name().is_some_and(|name| name == "mod.rs") {
            found.push(format!("src/{} is called mod.rs", file.display()));
        }
        // The tests of a file may be a file of their own below it.
        if file.components().count() > 2 && !file.ends_with("tests.rs") {
            found.push(format!("src/{} is deeper than src/x/y.rs", file.display()));
        }
        // Unit tests do not count towards the limit: they need not be read to follow the program.
        let lines = text.split("#[cfg(test)]\nmod tests").next().unwrap().lines().count();
        if lines > 400 {
            found.push(format!("src/{} has {lines} lines without its tests", file.display()));
        }
        if !text.starts_with("//!") {
            found.push(format!("src/{} does not say what it is", file.display()));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
