//! Access lines, read back from a log.
//!
//! 1. An access line is a JSON object with `"target":"access"`; what a log collector puts before it is passed over, and so are
//!    other lines of the log.
//! 2. A line is read on its own: a log of any length takes the memory of one.
//! 3. A request was refused when the gate said so with a status below 500; what failed later had been let through.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::subject::{Counters, Subject};

/// What an access line says of a request, as far as policy is concerned.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Line {
    target: String,
    /// Who; `unknown` is nobody of the configuration.
    pub(super) caller: String,
    /// What; `none` was not known.
    pub(super) operation: String,
    pub(super) method: String,
    status: u16,
    /// With which token; `none` when it did not come so far.
    pub(super) token: String,
    #[serde(default)]
    origin: String,
    #[serde(default)]
    counters: Vec<u64>,
    /// There were more than the line has room for.
    #[serde(default)]
    pub(super) more_counters: bool,
    #[serde(default)]
    unreadable_counters: bool,
    ulogin: Option<String>,
    #[serde(default)]
    direct_client_logins: Vec<String>,
    /// There were more than the line has room for.
    #[serde(default)]
    pub(super) more_logins: bool,
    /// Only where no operation was found.
    pub(super) path: Option<String>,
}

impl Line {
    /// Rule 3.
    pub(super) fn was_refused(&self) -> bool {
        self.origin == "gate" && self.status < 500
    }

    /// On whose data the request worked, as far as the line says.
    pub(super) fn subject(&self) -> Subject {
        let counters = match &self.counters[..] {
            _ if self.unreadable_counters => Counters::Unreadable,
            [] => Counters::None,
            [one] => Counters::One(*one),
            several => Counters::Several(several.into()),
        };
        Subject {
            counters,
            login: self.ulogin.as_deref().map(Into::into),
            clients: self.direct_client_logins.iter().map(|login| login.as_str().into()).collect(),
        }
    }
}

/// How many lines there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Access lines.
    pub(super) access: u64,
    /// Others (rule 1).
    pub(super) others: u64,
}

/// A longer line is none of the gate's.
const LONGEST: u64 = 1024 * 1024;

/// Gives every access line of `from` (`-` is stdin) to `take`.
pub(super) fn read(from: &Path, mut take: impl FnMut(&Line)) -> anyhow::Result<Count> {
    let name = from.display();
    let source: Box<dyn Read> = if from.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(crate::file::open(from).with_context(|| format!("{name} cannot be read"))?.0)
    };
    let mut reader = BufReader::new(source);
    let (mut bytes, mut count) = (Vec::new(), Count::default());
    loop {
        bytes.clear();
        let read = reader.by_ref().take(LONGEST).read_until(b'\n', &mut bytes);
        if read.with_context(|| format!("{name} cannot be read"))? == 0 {
            break;
        }
        match parse(&bytes) {
            Some(line) => {
                count.access += 1;
                take(&line);
            }
            None => count.others += 1,
        }
    }
    if count.access == 0 {
        bail!("{name} has no access line; expected lines of a gate with log.access and log.format: json");
    }
    Ok(count)
}

fn parse(bytes: &[u8]) -> Option<Line> {
    let begin = bytes.iter().position(|byte| *byte == b'{')?;
    let line: Line = serde_json::from_slice(bytes.get(begin..)?).ok()?;
    (line.target == "access").then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"timestamp":"t","level":"INFO","target":"access","message":"request","caller":"reports","operation":"report.table","method":"GET","status":403,"token":"analytics","origin":"gate","reason":"scope_denied","counters":[1,2],"ulogin":"x"}"#;

    fn written(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn rules_1_and_2_access_lines_are_found_among_others() {
        let long = "x".repeat(3 * 1024 * 1024);
        let other = LINE.replace("\"access\"", "\"metrika_gate::app\"");
        let log = written(&format!("{other}\nnot JSON\n{long}\n2026-11-22T08:00:00Z stderr F {LINE}\n{LINE}"));
        let mut callers = Vec::new();
        let count = read(log.path(), |line| callers.push(line.caller.clone())).unwrap();
        assert_eq!((count.access, callers), (2, vec!["reports".to_owned(); 2]));
        let none = written("2026-11-22 ACCESS 200 reports GET report.table\n");
        let said = read(none.path(), |_| ()).unwrap_err().to_string();
        assert!(said.contains("has no access line") && said.contains("log.format: json"), "{said}");
        assert!(read(Path::new("/nowhere"), |_| ()).unwrap_err().to_string().contains("/nowhere cannot be read"));
    }

    #[test]
    fn rule_3_what_failed_later_was_let_through() {
        let refused = |from: &str, to: &str| parse(LINE.replace(from, to).as_bytes()).unwrap().was_refused();
        assert!(refused("", ""));
        assert!(!refused("\"gate\"", "\"upstream\""), "Metrica refused");
        assert!(!refused("403", "504"), "the answer was too late");
        assert!(!refused(r#","origin":"gate""#, ""), "it was answered");
    }

    #[test]
    fn the_subject_is_what_the_line_says() {
        let subject = |line: String| parse(line.as_bytes()).unwrap().subject();
        let read = subject(LINE.to_owned());
        assert_eq!((read.counters.as_slice(), read.login.as_deref()), (&[1, 2][..], Some("x")));
        let unreadable = subject(LINE.replace(r#""counters":[1,2]"#, r#""unreadable_counters":true"#));
        assert_eq!(unreadable.counters, Counters::Unreadable);
    }
}
