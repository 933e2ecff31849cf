//! The needs of the callers in a log: the lines that count for `suggest`, and their content.
//!
//! 1. Requests that the gate refused or that Metrica rejected do not count.
//! 2. Requests that were sent only because rules were not enforced, or that the given configuration would refuse,
//!    count only when widening is requested. Widening cannot help where no token of the caller has the scope, or the
//!    catalogue lacks the operation.
//! 3. An unreadable counter cannot be stated in a configuration; such a line has no influence on `counters`.
//! 4. Lines that do not count are tallied by reason, with their counters and logins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::bail;
use metrica::login;
use metrica::operation::{Catalogue, Destructive, Operation, Reach, Shares};
use metrica::scope::{Scope, ScopeSet};
use metrica::subject::{Counters, Subject};
use strict_http::target::Names;

use super::lines::{self, Line, Named};
use super::replay;
use crate::config::{Config, ConfiguredAccounts};
use crate::policy::caller::Caller;
use crate::policy::rejection::Reason;
use crate::policy::rules::{Breach, Call, List, Rules};
use crate::policy::{Policy, Wish};

/// The criteria for counting lines.
pub(super) struct CountingCriteria<'a> {
    /// The given configuration, if any.
    pub(super) given: Option<(&'a Config, &'a Policy)>,
    pub(super) catalogue: &'a Catalogue,
    /// Whether lines excluded by rule 2 count.
    pub(super) widen: bool,
}

/// The content of a log.
#[derive(Default)]
pub(super) struct AccessLog {
    pub(super) count: lines::Count,
    pub(super) callers: BTreeMap<String, SeenRequests>,
    /// The needed scopes, by token.
    pub(super) tokens: BTreeMap<String, BTreeSet<usize>>,
    /// Whether the scope of a request was derived from its method alone.
    pub(super) by_method: bool,
}

/// The requests of a caller.
#[derive(Default)]
pub(super) struct SeenRequests {
    /// The number of lines that count.
    pub(super) counted: u64,
    pub(super) let_through: u64,
    /// Lines that do not count (rule 4).
    pub(super) not_counted: BTreeMap<(NotCounted, String), (u64, Named)>,
    /// The number of unreadable lines (rule 3).
    pub(super) unreadable: u64,
    /// The needed scopes, as indices of scope sets; any scope of a set satisfies it.
    pub(super) needs: BTreeSet<usize>,
    pub(super) operations: BTreeSet<String>,
    pub(super) unknown: BTreeSet<String>,
    pub(super) tokens: BTreeSet<String>,
    pub(super) counters: BTreeSet<u64>,
    pub(super) logins: BTreeSet<String>,
    pub(super) destructive: BTreeSet<String>,
    /// Operations that are destructive only with settings that lines do not show.
    pub(super) perhaps_destructive: BTreeSet<String>,
    pub(super) shares: BTreeSet<String>,
    /// Operations whose response contains a token of the Measurement Protocol.
    pub(super) secrets: BTreeSet<String>,
    /// Whether a request that concerns an account named no `ulogin`.
    pub(super) without_login: bool,
    pub(super) lists: bool,
    pub(super) has_bodies: bool,
    /// Reasons against stating `counters`.
    pub(super) beyond_counters: BTreeSet<String>,
    /// Operations of lines with more counters than they show.
    pub(super) more_counters: BTreeSet<String>,
    /// Reasons against stating `ulogin`.
    pub(super) beyond_logins: BTreeSet<&'static str>,
    /// The operations that exceed each right of the given configuration, with their counts. Without a configuration,
    /// the key is the rule that would have refused the request.
    pub(super) beyond_given: BTreeMap<String, BTreeMap<String, u64>>,
}

/// The reason why a line does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NotCounted {
    Gate,
    Metrica(u16),
    Shadow,
    Given,
}

impl NotCounted {
    pub(super) fn explanation(self) -> String {
        match self {
            Self::Gate => "refused by the gate".to_owned(),
            Self::Metrica(status) => format!("refused by Metrica with {status}"),
            Self::Shadow => "forwarded only because of enforce: false".to_owned(),
            Self::Given => "that this configuration would refuse".to_owned(),
        }
    }

    /// Whether wider rights of the caller would make the line count (rule 2).
    pub(super) fn can_be_widened(self, reason: &str) -> bool {
        let beyond_rights = [Reason::UnknownOperation, Reason::UnknownCaller, Reason::TokenScopeMissing];
        match self {
            Self::Gate | Self::Metrica(_) => false,
            Self::Shadow => true,
            Self::Given => beyond_rights.iter().all(|other| other.as_str() != reason),
        }
    }
}

/// The alias for a token that lines do not name.
pub(super) const NO_TOKEN: &str = "metrika";

/// Whether the text is a valid name: a log is untrusted input.
fn is_name(text: &str) -> bool {
    crate::config::name_text(text).is_ok()
}

/// The operation of a line.
enum LineOperation<'a> {
    Operation(&'a Operation),
    /// An operation outside of the catalogue, whose scope follows from its method.
    Method,
    Lacking,
}

impl CountingCriteria<'_> {
    /// Reads the log `from`.
    ///
    /// # Errors
    /// When it has no request that was allowed.
    pub(super) fn read(&self, from: &Path) -> anyhow::Result<AccessLog> {
        let mut log = AccessLog::default();
        let count = lines::read(from, |line| self.take(&mut log, line))?;
        log.count = count;
        if log.callers.values().all(|seen| seen.let_through == 0) {
            bail!("{} has no allowed request of a caller", from.display());
        }
        Ok(log)
    }

    fn take(&self, log: &mut AccessLog, line: &Line) {
        if line.caller == "unknown" || line.operation == "none" || !is_name(&line.caller) {
            return;
        }
        let AccessLog { callers, tokens, by_method, .. } = log;
        let seen = callers.entry(line.caller.clone()).or_default();
        if line.was_refused() {
            seen.pass_over(NotCounted::Gate, line.reason(), line, None);
            return;
        }
        seen.let_through += 1;
        if let Some(status) = line.not_taken() {
            seen.pass_over(NotCounted::Metrica(status), line.reason(), line, None);
            return;
        }
        if let Some(reason) = line.would_refuse().filter(|_| !self.widen) {
            seen.pass_over(NotCounted::Shadow, reason, line, None);
            return;
        }
        let asked = self.asked(line);
        if !self.is_within(seen, line, &asked) {
            return;
        }
        let (needs, operation) = match asked {
            LineOperation::Operation(operation) => (operation.scopes, Some(operation)),
            LineOperation::Method => {
                *by_method = true;
                let scope = if matches!(line.method.as_str(), "GET" | "HEAD") { Scope::Read } else { Scope::Write };
                ([scope].into_iter().collect(), None)
            }
            LineOperation::Lacking => return,
        };
        let token = if is_name(&line.token) { line.token.as_str() } else { NO_TOKEN };
        tokens.entry(token.to_owned()).or_default().insert(needs.index());
        seen.tokens.insert(token.to_owned());
        seen.take(line, operation, needs);
    }

    fn asked(&self, line: &Line) -> LineOperation<'_> {
        if let Some((_, policy)) = self.given {
            return match replay::operation(policy, line) {
                Some(Ok(operation)) => LineOperation::Operation(operation),
                Some(Err(_)) | None => LineOperation::Lacking,
            };
        }
        let known = self.catalogue.operations().iter().find(|operation| operation.id.as_str() == line.operation);
        match known {
            Some(operation) => LineOperation::Operation(operation),
            None if line.operation == "unknown" => LineOperation::Method,
            None => LineOperation::Lacking,
        }
    }

    /// Whether the line counts under the given configuration (rule 2).
    fn is_within(&self, seen: &mut SeenRequests, line: &Line, asked: &LineOperation<'_>) -> bool {
        if let LineOperation::Lacking = asked {
            seen.unknown.insert(line.operation.clone());
            seen.pass_over(NotCounted::Given, Reason::UnknownOperation.as_str(), line, None);
            return false;
        }
        let (Some((config, policy)), LineOperation::Operation(operation)) = (self.given, asked) else {
            if let Some(reason) = line.would_refuse() {
                seen.goes_beyond(reason, &line.operation);
            }
            return true;
        };
        let known = config.callers.iter().enumerate().find(|(_, caller)| caller.id.as_str() == line.caller);
        let Some((position, caller)) = known else {
            seen.pass_over(NotCounted::Given, Reason::UnknownCaller.as_str(), line, None);
            return false;
        };
        let subject = line.subject();
        let call = call(operation, &subject);
        let denial = match policy.permit(position, &call, &ConfiguredAccounts(&config.tokens), Wish::default()) {
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
            seen.pass_over(NotCounted::Given, Reason::TokenScopeMissing.as_str(), line, Some(&caller.rules));
            return false;
        }
        if !self.widen {
            seen.pass_over(NotCounted::Given, denial.reason().as_str(), line, Some(&caller.rules));
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

/// Returns the rights of `caller` that `call` exceeds, by their keys; `None` if a counter is unreadable (rule 3).
fn beyond(caller: &Caller, call: &Call<'_>) -> Option<Vec<&'static str>> {
    let mut beyond = Vec::new();
    if !caller.scopes.covers(call.operation.scopes) {
        beyond.push("scopes");
    }
    let mut rules: Rules = caller.rules.clone();
    // Each breach is lifted once; there are eight rights.
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
            // Lines do not show the subject of these.
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

impl SeenRequests {
    /// Records a line that does not count (rule 4).
    fn pass_over(&mut self, why: NotCounted, reason: &str, line: &Line, rules: Option<&Rules>) {
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
            (_, Reach::Account) => Some("accesses the whole account"),
            (Counters::Unreadable, _) => None,
            (Counters::None, Reach::Reports | Reach::Counter(_)) if subject.clients.is_empty() => {
                Some("names no counter")
            }
            (counters, _) if !counters.as_slice().iter().all(|counter| can_be_stated(*counter)) => {
                Some("names a counter outside the range that a configuration accepts")
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
            self.beyond_logins.insert("a line does not show all logins of its request");
        }
        self.without_login |= subject.login.is_none() && reach != Reach::Nobody;
        for login in subject.login.iter().chain(&subject.clients) {
            if login::is_one(login) {
                self.logins.insert(login::canonical(login).into());
            } else {
                self.beyond_logins.insert("a line has an invalid login");
            }
        }
    }
}

impl SeenRequests {
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
