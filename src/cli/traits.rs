//! Texts of `explain` about the traits of an operation, and about bodies.

use std::io::Write;

use metrica::operation::{Destructive, Operation, Shares};
use metrica::subject::{Counters, Subject};

use crate::policy::caller::{Condition, Conditions};
use crate::policy::rules::{Grantees, Look};

/// Returns the traits of the operation in the catalogue, other than its scopes.
pub(super) fn kind(operation: &Operation) -> String {
    let destructive = match operation.destructive {
        Destructive::Never => None,
        Destructive::Always => Some("destructive".to_owned()),
        Destructive::With(setting) => Some(format!("destructive with {setting}")),
    };
    let words = [
        (operation.long, "slow or large response"),
        (operation.upload, "an upload"),
        (!matches!(operation.shares, Shares::Nothing | Shares::Perhaps), "grants access"),
        (operation.shares == Shares::Perhaps, "may grant access"),
        (operation.deprecated, "deprecated"),
    ];
    let words = words.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word.to_owned());
    let group = format!("quota group {}", operation.quota.as_str());
    [group].into_iter().chain(destructive).chain(words).collect::<Vec<_>>().join(", ")
}

/// Returns the requirements on a body.
pub(super) fn looked_for(look: Look) -> String {
    let counters = look.counters.then(|| "with only the caller's counters".to_owned());
    let setting = look.setting.map(|setting| format!("without {setting}"));
    let grantees = match look.grantees {
        Grantees::Free => None,
        Grantees::Others => Some("granting access only to grantees of the caller"),
        Grantees::Someone => Some("granting access to grantees of the caller"),
        Grantees::Nobody => Some("granting no access"),
    };
    let all: Vec<_> = [counters, setting, grantees.map(str::to_owned)].into_iter().flatten().collect();
    all.join(", ")
}

/// Returns the conditions of a caller as text.
pub(super) fn describe_conditions(conditions: &Conditions) -> String {
    conditions.iter().map(describe_condition).collect::<Vec<_>>().join(", ")
}

/// The number of keys that are shown of a caller.
const SHOWN_KEYS: usize = 3;

fn describe_condition(condition: &Condition) -> String {
    let values: Vec<String> = match condition {
        Condition::Listener(name) => vec![name.to_string()],
        Condition::Source(networks) => networks.iter().map(ToString::to_string).collect(),
        Condition::Uid(ids) | Condition::Gid(ids) => ids.iter().map(ToString::to_string).collect(),
        Condition::Key(hashes) => {
            let others = hashes.len().saturating_sub(SHOWN_KEYS);
            let others = (others > 0).then(|| format!("{others} others"));
            hashes.iter().take(SHOWN_KEYS).map(|hash| format!("{}...", hash.short())).chain(others).collect()
        }
        Condition::San(names) => names.iter().map(ToString::to_string).collect(),
        Condition::ServiceAccount(accounts) => accounts.iter().map(ToString::to_string).collect(),
    };
    format!("{} {}", condition.kind(), values.join(" or "))
}

/// Prints the counters and logins. Decoded percent-encoding is escaped, because it could control the terminal.
pub(super) fn subject(out: &mut dyn Write, subject: &Subject) -> std::io::Result<()> {
    match &subject.counters {
        Counters::None => {}
        Counters::Unreadable => writeln!(out, "counters   unreadable")?,
        Counters::One(_) | Counters::Several(_) => {
            let counters: Vec<_> = subject.counters.as_slice().iter().map(ToString::to_string).collect();
            writeln!(out, "counters   {}", counters.join(", "))?;
        }
    }
    if let Some(login) = &subject.login {
        writeln!(out, "ulogin     {}", login.escape_debug())?;
    }
    if !subject.clients.is_empty() {
        let clients: Vec<_> = subject.clients.iter().map(|login| login.escape_debug().to_string()).collect();
        writeln!(out, "clients    {}", clients.join(", "))?;
    }
    Ok(())
}
