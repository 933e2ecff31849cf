//! Access lines, read from a log.
//!
//! 1. An access line is a JSON object with `"target":"access"`. A prefix added by a log collector is skipped, and so
//!    are other lines.
//! 2. Lines are read one by one, so memory use does not depend on the length of the log.
//! 3. A request counts as refused if the gate responded with a status below 500; later failures were allowed first.
//! 4. A request counts as rejected by Metrica if it responded with 4xx, except for an invalid token and quotas (420,
//!    429), which are not due to the request.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use metrica::login;
use metrica::subject::{Counters, Subject};
use serde::Deserialize;

use crate::policy::rejection::Reason;
use crate::policy::rules::Rules;

/// The parts of an access line that concern policy.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Line {
    target: String,
    /// The caller; `unknown` is outside of the configuration.
    pub(super) caller: String,
    /// The operation; `none` means that it was not determined.
    pub(super) operation: String,
    pub(super) method: String,
    status: u16,
    /// The token; `none` means that none was chosen.
    pub(super) token: String,
    upstream_status: Option<u16>,
    #[serde(default)]
    origin: String,
    #[serde(default)]
    reason: String,
    /// The reason that would have refused the request if its caller's rules had been enforced.
    #[serde(default)]
    would_refuse: String,
    #[serde(default)]
    counters: Vec<u64>,
    /// Whether the request has more counters than the line shows.
    #[serde(default)]
    pub(super) more_counters: bool,
    #[serde(default)]
    unreadable_counters: bool,
    ulogin: Option<String>,
    #[serde(default)]
    direct_client_logins: Vec<String>,
    /// Whether the request has more logins than the line shows.
    #[serde(default)]
    pub(super) more_logins: bool,
    /// The path, only present if no operation was found.
    pub(super) path: Option<String>,
}

impl Line {
    /// Whether the gate refused the request (rule 3).
    pub(super) fn was_refused(&self) -> bool {
        self.origin == "gate" && self.status < 500
    }

    /// Returns the 4xx with which Metrica rejected the request (rule 4).
    pub(super) fn not_taken(&self) -> Option<u16> {
        let answered = self.upstream_status.or(Some(self.status).filter(|status| *status != CALLER_GONE))?;
        let unlucky = match answered {
            401 | 403 => self.reason == "token_invalid",
            420 | 429 => true,
            _ => false,
        };
        ((400..500).contains(&answered) && !unlucky).then_some(answered)
    }

    /// Returns the reason of the refusal, by the gate or by Metrica; empty if it is not a valid word.
    pub(super) fn reason(&self) -> &str {
        word(&self.reason)
    }

    /// Returns the reason that would have refused the request, had rules been enforced.
    pub(super) fn would_refuse(&self) -> Option<&str> {
        (!self.would_refuse.is_empty()).then(|| word(&self.would_refuse))
    }

    /// Returns the counters and logins of the request, as far as the line shows them.
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
            misnamed: false,
        }
    }
}

/// The status of a line whose caller disconnected before the response.
const CALLER_GONE: u16 = 499;

/// Returns `text` if it can be a reason, otherwise an empty string: a log is untrusted input.
fn word(text: &str) -> &str {
    if text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') { text } else { "" }
}

/// The maximum number of counters, logins or operations listed for several lines.
pub(super) const SHOWN: usize = 5;

/// The counters and logins of several lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Named {
    pub(super) counters: BTreeSet<u64>,
    pub(super) logins: BTreeSet<String>,
}

impl Named {
    /// Adds those of one line. If a rule of `rules` refuses it for `reason`, only those that the rule does not list.
    pub(super) fn add(&mut self, subject: &Subject, reason: &str, rules: Option<&Rules>) {
        let (of_counters, of_logins) = (Reason::CounterDenied.as_str(), Reason::LoginDenied.as_str());
        if reason != of_logins {
            let listed = rules.filter(|_| reason == of_counters).and_then(|rules| rules.counters.as_deref());
            let stranger = |counter: &&u64| listed.is_none_or(|listed| !listed.contains(counter));
            self.counters.extend(subject.counters.as_slice().iter().filter(stranger));
        }
        if reason != of_counters {
            let listed = rules.filter(|_| reason == of_logins).and_then(|rules| rules.logins.as_deref());
            for login in subject.login.iter().chain(&subject.clients) {
                if listed.is_none_or(|listed| !login::is_among(listed, login)) {
                    self.logins.insert(login.escape_debug().to_string());
                }
            }
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counters: Vec<_> = self.counters.iter().take(SHOWN).map(u64::to_string).collect();
        let logins: Vec<_> = self.logins.iter().take(SHOWN).cloned().collect();
        let kinds = [("counters", counters, self.counters.len()), ("logins", logins, self.logins.len())];
        let said: Vec<_> = kinds
            .iter()
            .filter(|(_, shown, _)| !shown.is_empty())
            .map(|(kind, shown, all)| format!("{kind} {}", first_of(shown, *all)))
            .collect();
        f.write_str(&said.join("; "))
    }
}

/// Joins the first items, and states how many of `all` are left out.
pub(super) fn first_of(shown: &[String], all: usize) -> String {
    let more = all.saturating_sub(shown.len());
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{rest}", shown.join(", "))
}

/// The number of lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Access lines.
    pub(super) access: u64,
    /// Other lines (rule 1).
    pub(super) others: u64,
}

/// The maximum length of a line in bytes; the gate writes no longer one.
const LONGEST: u64 = 1024 * 1024;

/// Passes every access line of `from` (`-` is stdin) to `take`.
pub(super) fn read(from: &Path, mut take: impl FnMut(&Line)) -> anyhow::Result<Count> {
    let name = from.display();
    let source: Box<dyn Read> = if from.as_os_str() == super::STDIN {
        Box::new(std::io::stdin())
    } else {
        Box::new(crate::files::reading::open(from).with_context(|| format!("cannot read {name}"))?.0)
    };
    let mut reader = BufReader::new(source);
    let (mut bytes, mut count) = (Vec::new(), Count::default());
    loop {
        bytes.clear();
        let read = reader.by_ref().take(LONGEST).read_until(b'\n', &mut bytes);
        if read.with_context(|| format!("cannot read {name}"))? == 0 {
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
        bail!("{name} has no access lines; expected the log of a gate with log.access: true and log.format: json");
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
        assert!(read(Path::new("/nowhere"), |_| ()).unwrap_err().to_string().contains("cannot read /nowhere"));
    }

    #[test]
    fn rule_3_a_request_that_failed_later_was_allowed() {
        let refused = |from: &str, to: &str| parse(LINE.replace(from, to).as_bytes()).unwrap().was_refused();
        assert!(refused("", ""));
        assert!(!refused("\"gate\"", "\"upstream\""), "Metrica refused");
        assert!(!refused("403", "504"), "the answer was too late");
        assert!(!refused(r#","origin":"gate""#, ""), "it was answered");
    }

    #[test]
    fn rule_4_a_refusal_by_metrica_has_its_status() {
        let not_taken = |upstream: u16, status: u16, reason: &str| {
            let more = format!(r#""status":{status},"upstream_status":{upstream}"#);
            let line = LINE.replace(r#""status":403"#, &more).replace("scope_denied", reason);
            parse(line.replace("\"gate\"", "\"upstream\"").as_bytes()).unwrap().not_taken()
        };
        assert_eq!(not_taken(403, 403, "no_grant"), Some(403));
        assert_eq!(not_taken(404, 502, "upstream_reflection"), Some(404), "the gate held the answer back");
        for (status, reason) in
            [(401, "token_invalid"), (403, "token_invalid"), (420, "other"), (429, "other"), (200, "")]
        {
            assert_eq!(not_taken(status, status, reason), None, "{status} {reason}");
        }
        let without = LINE.replace("\"gate\"", "\"upstream\"");
        let status = |status: &str| parse(without.replace("403", status).as_bytes()).unwrap().not_taken();
        assert_eq!((status("404"), status("499")), (Some(404), None), "499 is a caller that went away");
    }

    #[test]
    fn up_to_five_denied_names_are_printed() {
        let mut named = Named::default();
        let rules = Rules { counters: Some([2].into()), ..Rules::default() };
        let subject = Subject { counters: Counters::Several((1..9).collect()), ..Subject::default() };
        named.add(&subject, "counter_denied", Some(&rules));
        assert_eq!(named.to_string(), "counters 1, 3, 4, 5, 6 and 2 more");
        let subject = Subject { login: Some("a\nb".into()), ..Subject::default() };
        named.add(&subject, "login_denied", Some(&rules));
        assert!(named.to_string().ends_with(r"; logins a\nb"), "{named}");
    }

    #[test]
    fn the_subject_is_read_from_the_line() {
        let subject = |line: String| parse(line.as_bytes()).unwrap().subject();
        let read = subject(LINE.to_owned());
        assert_eq!((read.counters.as_slice(), read.login.as_deref()), (&[1, 2][..], Some("x")));
        let unreadable = subject(LINE.replace(r#""counters":[1,2]"#, r#""unreadable_counters":true"#));
        assert_eq!(unreadable.counters, Counters::Unreadable);
    }
}
