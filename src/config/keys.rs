//! `keys_file`: hashes of keys in a file of their own, beside `key_sha256` of the callers.
//!
//! 1. A line is the id of a caller and the SHA-256 of one of its keys. Empty lines, and text behind `#`, mean nothing.
//! 2. A caller in the file states `key_sha256`, which can be an empty list. So a caller whose last line is removed matches
//!    nobody, and does not become one without that condition.
//! 3. Two callers can have the same key only if their other conditions differ.
//! 4. A message names the line of a mistake, and nothing of its content but the id of a caller.

use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;

use super::document::Step;
use super::error::shown_key;
use super::name_text;
use super::reader::{At, Findings, Table};
use crate::files::{ExternalFile, Purpose, reading};
use crate::policy::caller::{Caller, KeyHash};
use crate::policy::key::PREFIX;

/// The maximum size of the file in bytes.
const MOST: usize = 4 * 1024 * 1024;

/// The number of lines with mistakes that are reported.
const REPORTED: usize = 10;

/// Reads `keys_file`, and gives its keys to `callers`. Returns the path.
pub fn keys_file(table: &Table<'_>, callers: Option<&mut Vec<Caller>>, findings: &mut Findings) -> Option<PathBuf> {
    let at = table.optional("keys_file");
    let file = at.as_ref().and_then(|at| at.text(findings, |text| Ok(PathBuf::from(text))));
    let content = at.as_ref().and_then(|at| at.text(findings, read));
    let Some(callers) = callers else { return file };
    if let (Some(at), Some(content), Some(file)) = (&at, &content, &file) {
        give(at, content, file, callers, findings);
    }
    check_shared(callers, findings);
    file
}

fn key(name: &str) -> Step {
    Step::Key(name.to_owned(), 0)
}

/// The place of a caller in the configuration.
fn of(position: usize) -> [Step; 2] {
    [key("callers"), Step::Index(position)]
}

fn read(path: &str) -> Result<String, String> {
    let file = ExternalFile::new(Purpose::Keys, Path::new(path));
    let unusable = |why: &dyn std::fmt::Display| {
        format!("a readable file of callers and hashes ({why}){}", reading::relative_to(&file.path))
    };
    let opened = file.open().map_err(|refusal| unusable(&refusal))?;
    let bytes = reading::read_from(opened, MOST).map_err(|error| unusable(&error))?;
    if bytes.len() > MOST {
        return Err(unusable(&"it is longer than 4 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| unusable(&"it is not UTF-8"))
}

/// Adds the keys of the file to the conditions of their callers.
fn give(at: &At<'_>, content: &str, file: &Path, callers: &mut [Caller], findings: &mut Findings) {
    let positions: FxHashMap<String, usize> =
        callers.iter().enumerate().map(|(position, caller)| (caller.id.to_string(), position)).collect();
    let mut known: FxHashMap<(usize, KeyHash), usize> = FxHashMap::default();
    let mut of_caller: FxHashMap<usize, Vec<KeyHash>> = FxHashMap::default();
    let mut mistakes = Vec::new();
    for (number, line) in (1..).zip(content.lines()) {
        let line = line.split_once('#').map_or(line, |(before, _)| before).trim();
        if line.is_empty() {
            continue;
        }
        let found = entry(line, &positions).and_then(|(position, hash)| {
            let states_keys = callers.get(position).is_some_and(|caller| caller.conditions.keys().is_some());
            if !states_keys {
                return Err(
                    "the caller has no key_sha256 under match; add it, for example as key_sha256: []".to_owned()
                );
            }
            match known.insert((position, hash), number) {
                Some(first) => Err(format!("repeats line {first}; remove one of them")),
                None => Ok((position, hash)),
            }
        });
        match found {
            Ok((position, hash)) => of_caller.entry(position).or_default().push(hash),
            Err(mistake) => mistakes.push((number, mistake)),
        }
    }
    for (number, mistake) in mistakes.iter().take(REPORTED) {
        at.wrong(findings, format!("line {number} of {}: {mistake}", reading::shown(file)));
    }
    if mistakes.len() > REPORTED {
        at.wrong(findings, format!("{} more lines have mistakes", mistakes.len() - REPORTED));
    }
    for (position, hashes) in of_caller {
        if let Some(caller) = callers.get_mut(position) {
            caller.conditions.add_keys(hashes);
        }
    }
}

/// Reads a line (rules 1 and 4).
fn entry(line: &str, callers: &FxHashMap<String, usize>) -> Result<(usize, KeyHash), String> {
    const EXPECTED: &str = "expected the id of a caller and the SHA-256 of a key, 64 lower-case hexadecimal digits";
    if line.contains(PREFIX) {
        return Err(format!("contains a key itself, which everyone who can read the file could use; {EXPECTED}"));
    }
    let mut words = line.split_whitespace();
    let (Some(id), Some(hash), None) = (words.next(), words.next(), words.next()) else {
        return Err(EXPECTED.to_owned());
    };
    let hash = KeyHash::parse(hash).ok_or_else(|| EXPECTED.to_owned())?;
    let shown = || name_text(id).map_or("of this name".to_owned(), |id| format!("'{}'", shown_key(id)));
    let position = callers.get(id).ok_or_else(|| format!("there is no caller {} under callers", shown()))?;
    Ok((*position, hash))
}

/// Checks rule 3.
fn check_shared(callers: &[Caller], findings: &mut Findings) {
    let mut of_key: FxHashMap<KeyHash, Vec<usize>> = FxHashMap::default();
    for (position, caller) in callers.iter().enumerate() {
        for hash in caller.conditions.keys().into_iter().flatten() {
            let others = of_key.entry(*hash).or_default();
            let is_same = |other: &&Caller| other.conditions.equal_but_for_keys(&caller.conditions);
            let earlier = others.iter().filter_map(|other| callers.get(*other)).find(is_same);
            if let Some(earlier) = earlier.filter(|earlier| earlier.id != caller.id) {
                let message = format!(
                    "has the key with the SHA-256 {}... of caller '{}' and the same other conditions; give each caller a key of its own",
                    hash.short(),
                    earlier.id
                );
                findings.add(&of(position), message);
            }
            others.push(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Error};
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222222222222222222222222222";

    fn parsed(keys: Option<&str>, of_a: &str, of_b: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let named = keys.map_or_else(String::new, |content| {
            std::fs::write(&path, content).unwrap();
            format!("keys_file: {}", path.display())
        });
        let text = format!(
            "
listeners: [{{name: app, address: '127.0.0.1:0'}}]
tokens: {{t: {{file: /nowhere/t, scopes: [metrika:read]}}}}
callers:
  - {{id: a, match: {{{of_a}}}, scopes: [metrika:read], tokens: [t]}}
  - {{id: b, match: {{{of_b}}}, scopes: [metrika:read], tokens: [t]}}
{named}
"
        );
        Config::parse(&text, Path::new("gate.yaml")).map_err(|error| match error {
            Error::Invalid(mistakes) => mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            other @ (Error::Unreadable { .. } | Error::Permissions { .. }) => other.to_string(),
        })
    }

    fn keys(config: &Config, position: usize) -> Vec<String> {
        config.callers[position].conditions.keys().unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rule_1_a_line_is_a_caller_and_a_hash() {
        let content = format!("# of a\n\na {ONE}\r\n  b\t{ONE}   # the old one\nb {TWO}");
        let config =
            parsed(Some(&content), &format!("key_sha256: ['{TWO}']"), "key_sha256: [], listener: app").unwrap();
        assert_eq!((keys(&config, 0), keys(&config, 1)), (vec![TWO.into(), ONE.into()], vec![ONE.into(), TWO.into()]));
        assert!(config.keys_file.is_some());
    }

    #[test]
    fn rule_2_a_caller_without_the_condition_gets_no_key() {
        let said = parsed(Some(&format!("a {ONE}")), "listener: app", "listener: app").unwrap_err();
        assert!(said.contains("keys_file: line 1 of ") && said.contains("no key_sha256 under match"), "{said}");
        let none = parsed(Some("# nobody\n"), "key_sha256: []", "listener: app").unwrap();
        assert_eq!(keys(&none, 0).len(), 0, "it matches nobody");
        let none = parsed(None, "key_sha256: []", "listener: app").unwrap();
        assert_eq!(keys(&none, 0).len(), 0, "the last key of a caller was removed");
    }

    #[test]
    fn rule_3_a_key_names_one_caller() {
        let of_a = format!("key_sha256: ['{ONE}']");
        let said = parsed(Some(&format!("b {ONE}")), &of_a, "key_sha256: []").unwrap_err();
        assert!(said.contains("callers[1]: has the key with the SHA-256 11111111... of caller 'a'"), "{said}");
        parsed(Some(&format!("b {ONE}")), &of_a, "key_sha256: [], listener: app").unwrap();
        // Twice at one caller is no mistake: the file may repeat what the configuration has.
        let config = parsed(Some(&format!("a {ONE}")), &of_a, "listener: app").unwrap();
        assert_eq!(keys(&config, 0), [ONE]);
    }

    #[test]
    fn rule_4_a_mistake_names_its_line_and_shows_no_key() {
        let key = crate::policy::key::of_random(&[1; 43]).unwrap();
        for (line, expected) in [
            (key.as_str().to_owned(), "contains a key itself"),
            (format!("a {}", key.as_str()), "contains a key itself"),
            (format!("nobody {ONE}"), "there is no caller 'nobody'"),
            (format!("{TWO}{ONE} {ONE}"), "there is no caller of this name"),
            ("a".to_owned(), "expected the id of a caller"),
            (format!("a {ONE} b"), "expected the id of a caller"),
            (format!("a {}", &ONE[1..]), "expected the id of a caller"),
            (format!("a {}", TWO.replace('2', "A")), "expected the id of a caller"),
            (format!("a {TWO}"), "repeats line 1"),
        ] {
            let said = parsed(Some(&format!("a {TWO}\n{line}\n")), "key_sha256: []", "listener: app").unwrap_err();
            assert!(said.contains("keys_file: line 2 of ") && said.contains(expected), "{line}: {said}");
            assert!(!said.contains("mgk_1") && !said.contains(&ONE[..40]) && said.lines().count() == 1, "{said}");
        }
        let said = parsed(Some(&"x\n".repeat(12)), "key_sha256: []", "listener: app").unwrap_err();
        assert!(said.lines().count() == 11 && said.ends_with("2 more lines have mistakes"), "{said}");
    }
}
