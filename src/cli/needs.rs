//! What the callers of a log needed: which of its lines count for `suggest`, and what they say.
//!
//! 1. What the gate refused is no need, nor is what Metrica did not take.
//! 2. Nor is what was sent in the shadow alone, or what the given configuration would refuse, unless that is to be widened.
//!    Nobody can widen by rights what no token of the caller has the scope for, or what the catalogue lacks.
//! 3. A counter that cannot be read is none that could be stated: such a line says nothing for or against `counters`.
//! 4. What does not count is counted by reason, with the counters and logins of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::bail;

use super::lines::{self, Line, Named};
use super::replay;
use crate::caller::Caller;
use crate::config::Config;
use crate::login;
use crate::operation::{Catalogue, Destructive, Operation, Reach, Shares};
use crate::policy::Policy;
use crate::rejection::Reason;
use crate::rules::{Breach, Call, List, Rules};
use crate::scope::{Scope, ScopeSet};
use crate::subject::{Counters, Subject};
use crate::target::Names;

/// Under what lines are judged.
pub(super) struct Judge<'a> {
    /// The given configuration, where there is one.
    pub(super) given: Option<(&'a Config, &'a Policy)>,
    pub(super) catalogue: &'a Catalogue,
    /// What rule 2 passes over counts too.
    pub(super) widen: bool,
}

/// What the lines of a log say.
#[derive(Default)]
pub(super) struct Log {
    pub(super) count: lines::Count,
    pub(super) callers: BTreeMap<String, Seen>,
    /// By token, what it was used for.
    pub(super) tokens: BTreeMap<String, BTreeSet<usize>>,
    /// A request was taken by its method alone.
    pub(super) by_method: bool,
}

/// What a caller did.
#[derive(Default)]
pub(super) struct Seen {
    /// Lines that count.
    pub(super) counted: u64,
    pub(super) let_through: u64,
    /// Rule 4.
    pub(super) not_counted: BTreeMap<(Why, String), (u64, Named)>,
    /// Rule 3.
    pub(super) unreadable: u64,
    /// The sets of scopes of which one each is needed, by their index.
    pub(super) needs: BTreeSet<usize>,
    pub(super) operations: BTreeSet<String>,
    pub(super) unknown: BTreeSet<String>,
    pub(super) tokens: BTreeSet<String>,
    pub(super) counters: BTreeSet<u64>,
    pub(super) logins: BTreeSet<String>,
    pub(super) destructive: BTreeSet<String>,
    /// Operations that are destructive by what was asked of them, which lines do not tell.
    pub(super) perhaps_destructive: BTreeSet<String>,
    pub(super) shares: BTreeSet<String>,
    /// Operations whose answer is a token of the Measurement Protocol.
    pub(super) secrets: BTreeSet<String>,
    /// A request named no `ulogin` and was about somebody.
    pub(super) without_login: bool,
    pub(super) lists: bool,
    pub(super) has_bodies: bool,
    /// What stands against `counters`.
    pub(super) beyond_counters: BTreeSet<String>,
    /// Operations of lines that name counters which the lines do not tell.
    pub(super) more_counters: BTreeSet<String>,
    /// What stands against `ulogin`.
    pub(super) beyond_logins: BTreeSet<&'static str>,
    /// Which operations go beyond which right of the given configuration, and how often; without one, beyond which rule of
    /// the shadow.
    pub(super) beyond_given: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Why a line does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    Gate,
    Metrica(u16),
    Shadow,
    Given,
}

impl Why {
    pub(super) fn said(self) -> String {
        match self {
            Self::Gate => "refused by the gate".to_owned(),
            Self::Metrica(status) => format!("answered by Metrica with {status}"),
            Self::Shadow => "sent only because nothing was enforced".to_owned(),
            Self::Given => "that this configuration would refuse".to_owned(),
        }
    }

    /// Whether rights of the caller could have it count (rule 2).
    pub(super) fn can_be_widened(self, reason: &str) -> bool {
        let beyond_rights = [Reason::UnknownOperation, Reason::UnknownCaller, Reason::TokenScopeMissing];
        match self {
            Self::Gate | Self::Metrica(_) => false,
            Self::Shadow => true,
            Self::Given => beyond_rights.iter().all(|other| other.as_str() != reason),
        }
    }
}

/// What a token is called that lines do not name.
pub(super) const NO_TOKEN: &str = "metrika";

/// Whether a configuration can have such a name: a log is what somebody gave.
fn is_name(text: &str) -> bool {
    crate::config::name_text(text).is_ok()
}

/// What a line asked for.
enum Asked<'a> {
    Operation(&'a Operation),
    /// Nothing of the catalogue, which goes by its method.
    Method,
    Lacking,
}

impl Judge<'_> {
    /// Reads the lines of `from`.
    ///
    /// # Errors
    /// When there is none of a caller that was let through.
    pub(super) fn read(&self, from: &Path) -> anyhow::Result<Log> {
        let mut log = Log::default();
        let count = lines::read(from, |line| self.take(&mut log, line))?;
        log.count = count;
        if log.callers.values().all(|seen| seen.let_through == 0) {
            bail!("{} has no request of a caller that was let through", from.display());
        }
        Ok(log)
    }

    fn take(&self, log: &mut Log, line: &Line) {
        if line.caller == "unknown" || line.operation == "none" || !is_name(&line.caller) {
            return;
        }
        let Log { callers, tokens, by_method, .. } = log;
        let seen = callers.entry(line.caller.clone()).or_default();
        if line.was_refused() {
            seen.pass_over(Why::Gate, line.reason(), line, None);
            return;
        }
        seen.let_through += 1;
        if let Some(status) = line.not_taken() {
            seen.pass_over(Why::Metrica(status), line.reason(), line, None);
            return;
        }
        if let Some(reason) = line.would_refuse().filter(|_| !self.widen) {
            seen.pass_over(Why::Shadow, reason, line, None);
            return;
        }
        let asked = self.asked(line);
        if !self.is_within(seen, line, &asked) {
            return;
        }
        let (needs, operation) = match asked {
            Asked::Operation(operation) => (operation.scopes, Some(operation)),
            Asked::Method => {
                *by_method = true;
                let scope = if matches!(line.method.as_str(), "GET" | "HEAD") { Scope::Read } else { Scope::Write };
                ([scope].into_iter().collect(), None)
            }
            Asked::Lacking => return,
        };
        let token = if is_name(&line.token) { line.token.as_str() } else { NO_TOKEN };
        tokens.entry(token.to_owned()).or_default().insert(needs.index());
        seen.tokens.insert(token.to_owned());
        seen.take(line, operation, needs);
    }

    fn asked(&self, line: &Line) -> Asked<'_> {
        if let Some((_, policy)) = self.given {
            return match replay::operation(policy, line) {
                Some(Ok(operation)) => Asked::Operation(operation),
                Some(Err(_)) | None => Asked::Lacking,
            };
        }
        let known = self.catalogue.operations().iter().find(|operation| operation.id.as_str() == line.operation);
        match known {
            Some(operation) => Asked::Operation(operation),
            None if line.operation == "unknown" => Asked::Method,
            None => Asked::Lacking,
        }
    }

    /// Whether the given configuration has it count (rule 2).
    fn is_within(&self, seen: &mut Seen, line: &Line, asked: &Asked<'_>) -> bool {
        if let Asked::Lacking = asked {
            seen.unknown.insert(line.operation.clone());
            seen.pass_over(Why::Given, Reason::UnknownOperation.as_str(), line, None);
            return false;
        }
        let (Some((config, policy)), Asked::Operation(operation)) = (self.given, asked) else {
            if let Some(reason) = line.would_refuse() {
                seen.goes_beyond(reason, &line.operation);
            }
            return true;
        };
        let known = config.callers.iter().enumerate().find(|(_, caller)| caller.id.as_str() == line.caller);
        let Some((position, caller)) = known else {
            seen.pass_over(Why::Given, Reason::UnknownCaller.as_str(), line, None);
            return false;
        };
        let subject = line.subject();
        let call = call(operation, &subject);
        let denial = match policy.permit(position, &call) {
            Ok(permission) => permission.shadowed,
            Err(denial) => Some(denial),
        };
        let Some(denial) = denial else { return true };
        let beyond = beyond(caller, &call);
        if beyond.is_none() {
            seen.unreadable += 1;
            return false;
        }
        let token = || config.tokens.iter().filter(|token| caller.tokens.contains(&token.alias));
        if !token().any(|token| token.scopes.covers(operation.scopes)) {
            seen.pass_over(Why::Given, Reason::TokenScopeMissing.as_str(), line, Some(&caller.rules));
            return false;
        }
        if !self.widen {
            seen.pass_over(Why::Given, denial.reason().as_str(), line, Some(&caller.rules));
            return false;
        }
        for right in beyond.iter().flatten() {
            seen.goes_beyond(right, &line.operation);
        }
        true
    }
}

fn call<'a>(operation: &'a Operation, subject: &'a Subject) -> Call<'a> {
    Call { operation, path: &operation.template, query: None, names: Names::default(), subject }
}

/// The rights of `caller` that `call` goes beyond, by their keys; `None` where a counter cannot be read (rule 3).
fn beyond(caller: &Caller, call: &Call<'_>) -> Option<Vec<&'static str>> {
    let mut beyond = Vec::new();
    if !caller.scopes.covers(call.operation.scopes) {
        beyond.push("scopes");
    }
    let mut rules: Rules = caller.rules.clone();
    // Each breach is mended once: there are eight rights.
    for _ in 0..8 {
        let Err(breach) = rules.check(call) else { break };
        match breach {
            Breach::Unreadable(_) => return None,
            Breach::Destructive => {
                rules.destructive = true;
                beyond.push("destructive");
            }
            Breach::Sharing => {
                rules.sharing = true;
                beyond.push("sharing");
            }
            Breach::SecretAnswer => {
                rules.measurement_tokens = true;
                beyond.push("measurement_tokens");
            }
            Breach::Login(_) => {
                rules.logins = Some(login::each_once(call.subject.login.iter().chain(&call.subject.clients).cloned()));
                beyond.push("ulogin");
            }
            Breach::NoLogin => {
                rules.ulogin_absent = true;
                beyond.push("ulogin_absent");
            }
            Breach::List => {
                rules.list = List::Filter;
                beyond.push("list");
            }
            Breach::Counter(..) | Breach::NoCounter | Breach::Account => {
                rules.counters = None;
                beyond.push("counters");
            }
            // Lines do not tell what these are about.
            Breach::Search
            | Breach::Setting(_)
            | Breach::Grantee
            | Breach::Callback
            | Breach::Secret
            | Breach::BodyKind
            | Breach::Body
            | Breach::Part
            | Breach::PartName
            | Breach::BodyLength => break,
        }
    }
    Some(beyond)
}

impl Seen {
    /// Rule 4.
    fn pass_over(&mut self, why: Why, reason: &str, line: &Line, rules: Option<&Rules>) {
        let (lines, named) = self.not_counted.entry((why, reason.to_owned())).or_default();
        *lines += 1;
        named.add(&line.subject(), reason, rules);
    }

    fn goes_beyond(&mut self, right: &str, operation: &str) {
        let operations = self.beyond_given.entry(right.to_owned()).or_default();
        *operations.entry(operation.to_owned()).or_default() += 1;
    }

    fn take(&mut self, line: &Line, operation: Option<&Operation>, needs: ScopeSet) {
        let id = operation.map_or(line.operation.as_str(), |operation| operation.id.as_str());
        self.counted += 1;
        self.needs.insert(needs.index());
        self.operations.insert(id.to_owned());
        if let Some(operation) = operation {
            self.mark(operation);
        }
        self.has_bodies |= !matches!(line.method.as_str(), "GET" | "HEAD");
        let subject = line.subject();
        let reach = operation.map_or(Reach::Account, |operation| operation.reach);
        let against = match (&subject.counters, reach) {
            (_, Reach::Account) => Some("works on the whole account"),
            (Counters::Unreadable, _) => None,
            (Counters::None, Reach::Reports | Reach::Counter(_)) if subject.clients.is_empty() => {
                Some("names no counter")
            }
            (counters, _) if !counters.as_slice().iter().all(|counter| can_be_stated(*counter)) => {
                Some("names a counter that no configuration can have")
            }
            _ => None,
        };
        if let Some(against) = against {
            self.beyond_counters.insert(format!("{id} {against}"));
        }
        if line.more_counters {
            self.more_counters.insert(id.to_owned());
        }
        self.unreadable += u64::from(subject.counters == Counters::Unreadable);
        self.lists |= reach == Reach::Counters;
        self.counters.extend(subject.counters.as_slice());
        if line.more_logins {
            self.beyond_logins.insert("a line names more logins than it has room for");
        }
        self.without_login |= subject.login.is_none() && reach != Reach::Nobody;
        for login in subject.login.iter().chain(&subject.clients) {
            if login::is_one(login) {
                self.logins.insert(login::canonical(login).into());
            } else {
                self.beyond_logins.insert("a line names a login that is none");
            }
        }
    }
}

impl Seen {
    fn mark(&mut self, operation: &Operation) {
        let id = operation.id.as_str().to_owned();
        match operation.destructive {
            Destructive::Never => {}
            Destructive::Always => drop(self.destructive.insert(id.clone())),
            Destructive::With(_) => drop(self.perhaps_destructive.insert(id.clone())),
        }
        if operation.shares == Shares::Secret {
            self.secrets.insert(id.clone());
        }
        if !matches!(operation.shares, Shares::Nothing | Shares::Perhaps) {
            self.shares.insert(id);
        }
    }
}

fn can_be_stated(counter: u64) -> bool {
    counter > 0 && i64::try_from(counter).is_ok()
}
