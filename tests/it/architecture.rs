//! The house: which module may use which, and how large a file may be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Plain values and pure decisions; they use nothing but each other.
const VOCABULARY: [&str; 17] = [
    "symbol",
    "scope",
    "operation",
    "target",
    "host",
    "line",
    "lists",
    "caller",
    "token",
    "policy",
    "rules",
    "subject",
    "verdict",
    "diagnosis",
    "knowledge",
    "login",
    "rejection",
];

/// The process around the data path, which does not know of it.
const PROCESS: [&str; 10] = ["app", "health", "cli", "admin", "reload", "crew", "server", "sandbox", "demo", "fake"];

/// Every source file, with its path below `src`.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 50, "the sources were found");
    found
}

/// The module of a file: `gateway` for `gateway.rs` and for `gateway/inject.rs`.
fn module(file: &Path) -> String {
    let first = file.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules that a file names, outside comments and outside its own tests.
fn used(text: &str) -> BTreeSet<String> {
    let program = text.split("#[cfg(test)]").next().unwrap();
    let code: Vec<&str> = program.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut modules = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let names = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap().split(',').map(str::trim).collect(),
            None => vec![rest],
        };
        for name in names {
            let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
            modules.insert(name[..end].to_owned());
        }
    }
    modules.remove("");
    modules
}

/// Every use by files of `modules` of what `allowed` refuses.
fn offenders(modules: &[&str], allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (file, text) in sources() {
        let module = module(&file);
        if !modules.contains(&module.as_str()) {
            continue;
        }
        for other in used(&text) {
            if other != module && !allowed(&other) {
                found.push(format!("src/{} uses {other}", file.display()));
            }
        }
        seen.insert(module);
    }
    assert_eq!(seen.len(), modules.len(), "of {modules:?} only {seen:?} exist");
    found
}

#[test]
fn the_vocabulary_uses_only_itself() {
    let found = offenders(&VOCABULARY, |other| VOCABULARY.contains(&other));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_vocabulary_has_no_async_and_no_input_or_output() {
    for (file, text) in sources() {
        let program = text.split("#[cfg(test)]").next().unwrap();
        if VOCABULARY.contains(&module(&file).as_str()) {
            for word in ["async ", "tokio", "hyper", "tower", "std::fs", "std::net::Tcp", "std::io"] {
                let lines = program.lines().filter(|line| !line.trim_start().starts_with("//"));
                let found: Vec<_> = lines.filter(|line| line.contains(word)).collect();
                assert!(found.is_empty(), "src/{}: {found:?}", file.display());
            }
        }
    }
}

#[test]
fn the_data_path_does_not_know_the_process() {
    for module in ["gateway", "upstream", "worker", "metrics", "telemetry"] {
        let found = offenders(&[module], |other| !PROCESS.contains(&other));
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

#[test]
fn the_gate_does_not_know_its_stand_in() {
    let everything: BTreeSet<String> = sources().iter().map(|(file, _)| module(file)).collect();
    let others: Vec<&str> = everything
        .iter()
        .map(String::as_str)
        .filter(|name| !["cli", "demo", "fake", "lib", "main"].contains(name))
        .collect();
    let found = offenders(&others, |other| !["fake", "demo", "cli"].contains(&other));
    assert!(found.is_empty(), "{}", found.join("\n"));
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

/// Who may do what with a file is judged when it is opened, by its row of the table; nothing else opens one that a
/// configuration names.
#[test]
fn files_that_a_configuration_names_are_opened_by_their_rows() {
    // What a command line names, and the hosts file: nothing that decides who may do what.
    let others = ["cli/lines.rs", "cli/check.rs"].map(PathBuf::from);
    for (file, text) in sources() {
        if ["file", "fake"].contains(&module(&file).as_str()) || others.contains(&file) || file.ends_with("tests.rs") {
            continue;
        }
        let program = text.split("#[cfg(test)]").next().unwrap();
        for opens in
            ["file::open(", "fs::open(", "fs::read(", "fs::read_to", "File::open(", "guard.open(", "guard.check("]
        {
            let is_row = file == Path::new("external.rs") && opens.starts_with("guard.");
            assert!(is_row || !program.contains(opens), "src/{} has {opens}", file.display());
        }
    }
}

#[test]
fn files_have_names_and_a_size() {
    let mut found = Vec::new();
    for (file, text) in sources() {
        if file.file_name().is_some_and(|name| name == "mod.rs") {
            found.push(format!("src/{} is called mod.rs", file.display()));
        }
        if file.components().count() > 2 {
            found.push(format!("src/{} is deeper than src/x/y.rs", file.display()));
        }
        // What a file says of itself in tests is beside the limit: it does not have to be read to follow the program.
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
