//! The quotas of a configuration, as `explain`, `doctor` and `check` show them.

use std::time::Duration;

use metrica::operation::Operation;
use metrica::subject::Subject;
use serde_json::{Value, json};

use super::check::{Warning, key};
use crate::config::quota::owner;
use crate::config::{CallerQuota, Config};
use crate::policy::caller::Caller;
use crate::policy::names::CallerId;
use crate::quota::{CallerSettings, Class, Groups, Key, Limit, Mode};

/// The limits that count a request.
pub(super) struct RequestLimits(Vec<Limit>);

impl RequestLimits {
    /// Returns the limits that count a request, or `None` without `quota` in the configuration. Limits of counters count
    /// requests that name one.
    pub(super) fn of(config: &Config, operation: &Operation, subject: &Subject) -> Option<Self> {
        let (groups, names_counter) = (Groups::of(operation), !subject.counters.as_slice().is_empty());
        let counts = |limit: &&Limit| {
            limit.mode != Mode::Off && limit.applies.meets(groups) && (limit.key != Key::Counter || names_counter)
        };
        let mut limits: Vec<_> = config.quota.as_ref()?.limits.all().filter(counts).copied().collect();
        limits.sort_by_key(|limit| limit.name);
        Some(Self(limits))
    }

    pub(super) fn line(&self) -> String {
        if self.0.is_empty() {
            return "no limit counts the request".to_owned();
        }
        let one = |limit: &Limit| match limit.mode {
            Mode::Enforce => format!("{} {}", limit.name.as_str(), limit.limit),
            Mode::Observe | Mode::Off => {
                format!("{} {} ({})", limit.name.as_str(), limit.limit, limit.mode.as_str())
            }
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn json(&self) -> Value {
        let one = |limit: &Limit| {
            json!({
                "limit": limit.name.as_str(),
                "of": counted_for(limit.key),
                "allowed": limit.limit,
                "mode": limit.mode.as_str(),
            })
        };
        self.0.iter().map(one).collect()
    }
}

const fn counted_for(key: Key) -> &'static str {
    match key {
        Key::Owner => "owner",
        Key::Egress => "egress",
        Key::Counter => "counter",
    }
}

/// The part of a caller in the quotas, for one operation.
pub(super) struct CallerPart {
    settings: CallerSettings,
    class: Class,
    is_bulk: bool,
    budgets: Mode,
}

impl CallerPart {
    /// Returns the part of a caller, or `None` without `quota` in the configuration.
    pub(super) fn of(config: &Config, caller: CallerId, operation: &Operation) -> Option<Self> {
        let budgets = config.quota.as_ref()?.mode;
        let stated = config.caller_quotas.iter().find(|(id, _)| *id == caller);
        let stated = stated.map_or(CallerQuota::default(), |(_, quota)| *quota);
        let settings = stated.settings.unwrap_or(CallerSettings::new(caller));
        let class = Class::of(stated.class, operation.bulk);
        Some(Self { settings, class, is_bulk: operation.bulk, budgets })
    }

    pub(super) fn line(&self) -> String {
        let wait = humantime::format_duration(Duration::from_micros(self.settings.wait));
        let bulk = if self.is_bulk { " (bulk operation)" } else { "" };
        format!("up to {wait}, class {}{bulk}, weight {}", class(self.class), self.settings.weight)
    }

    /// Returns the budgets, if the caller has any.
    pub(super) fn budgets(&self) -> Option<String> {
        let CallerSettings { per_day, per_5m, share, .. } = self.settings;
        let budgets = [
            per_day.map(|most| format!("{most} requests a day")),
            per_5m.map(|most| format!("{most} reports in 5 minutes")),
            share.map(|share| format!("{share} % of the day")),
        ];
        let budgets = budgets.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let mode = match self.budgets {
            Mode::Enforce => String::new(),
            Mode::Observe | Mode::Off => format!(" ({})", self.budgets.as_str()),
        };
        (!budgets.is_empty()).then(|| format!("{budgets}{mode}"))
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "class": class(self.class),
            "weight": self.settings.weight,
            "wait_ms": self.settings.wait / 1000,
            "per_day": self.settings.per_day,
            "per_5m": self.settings.per_5m,
            "share": self.settings.share,
            "budgets": self.budgets.as_str(),
        })
    }
}

const fn class(class: Class) -> &'static str {
    match class {
        Class::Interactive => "interactive",
        Class::Normal => "normal",
        Class::Batch => "batch",
    }
}

/// Returns the names of the limits that the configuration enforces, or `None` without `quota` in it.
pub(super) fn enforced(config: &Config) -> Option<Vec<&'static str>> {
    let limits = config.quota.as_ref()?.limits.all().filter(|limit| limit.mode == Mode::Enforce);
    let mut names: Vec<_> = limits.map(|limit| limit.name).collect();
    names.sort();
    Some(names.into_iter().map(crate::quota::LimitName::as_str).collect())
}

/// Returns the note of the doctor about quotas, or `None` without `quota` in the configuration.
pub(super) fn note(config: &Config) -> Option<String> {
    let enforced = match enforced(config)?.as_slice() {
        [] => "no limit".to_owned(),
        names => names.join(", "),
    };
    Some(format!(
        "note: the doctor is a process of its own, and a running gate does not count its requests; the gate enforces {enforced}"
    ))
}

/// Notes the accounts that several callers share while the configuration has no `quota`.
pub(super) fn shared_accounts(config: &Config) -> Vec<Warning> {
    if config.quota.is_some() {
        return Vec::new();
    }
    let mut noted = Vec::new();
    let mut notes = Vec::new();
    for token in &config.tokens {
        let account = owner(token);
        if noted.contains(&account) {
            continue;
        }
        noted.push(account);
        let of_account: Vec<_> =
            config.tokens.iter().filter(|other| owner(other) == account).map(|other| other.alias).collect();
        let uses = |caller: &&Caller| caller.tokens.iter().any(|alias| of_account.contains(alias));
        let callers: Vec<_> = config.callers.iter().filter(uses).map(|caller| caller.id.as_str()).collect();
        if callers.len() > 1 {
            let message = format!(
                "the callers {} share the account of token '{}'; without 'quota', one of them can use all of its 3 parallel requests and the whole day (docs/quota.md)",
                listed(&callers),
                token.alias
            );
            notes.push((vec![key("tokens"), key(token.alias.as_str())], message));
        }
    }
    notes
}

/// The number of callers that a note lists.
const LISTED: usize = 5;

fn listed(callers: &[&str]) -> String {
    let (some, rest) = callers.split_at(callers.len().min(LISTED));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("{}{more}", some.join(", "))
}
