//! Doctor: diagnoses the tokens of a configuration by asking Metrica, as its documentation advises
//! (<https://yandex.com/dev/metrika/en/intro/authorization>, troubleshooting).
//!
//! 1. Questions are GET requests ([`crate::health::probe`]), sent one after another. The doctor writes nothing; a right that only
//!    a write would prove is reported as unproven.
//! 2. The issuer of a token is asked for only if the configuration names the place (`identity`), because that place
//!    receives the token.
//! 3. The list of counters needs no grant, so a refusal of the list shows that `metrika:read` is missing. A token that may
//!    read the list lacks the grant where one counter is refused. If the list gives no answer, a refusal of the
//!    documentation's open counter, which everybody may read, shows that `metrika:read` is missing.
//! 4. Permissions belong to the account. A token without `metrika:read` sees no counter, so its counters are asked for
//!    with a token of the same account that has it.
//! 5. At most [`COUNTERS`] counters are asked for with each token: the wanted ones first, then those of its callers. If
//!    neither names one, the first [`SEEN`] counters that the owner sees are used. Omitted counters are reported.
//! 6. An obstacle that every further question would meet (a quota, no connection) ends the questions about a token.
//! 7. The list of findings is closed ([`finding`]). The report repeats no text of a response except a login and an
//!    application id that [`crate::health::identity`] validated, and no part of a certificate except dates and host names.
//! 8. If a place cannot be reached, the doctor connects once more, without a token, to find the reason and the remedy
//!    (`doctor/reach.rs`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;
use metrica::login;
use metrica::scope::{Scope, ScopeSet};
use serde::Deserialize;

use crate::config::{Config, TokenSource};
use crate::files::Purpose;
use crate::health::identity::Issuer;
use crate::health::question::{Obstacle, Question, Reply};
use crate::health::{probe, question};
use crate::policy::names::TokenAlias;
use crate::token::Token;
use crate::upstream::Upstream;

pub mod assumed;
pub mod assumptions;
mod candidate;
mod counters;
mod elsewhere;
mod file;
pub mod finding;
mod issuer;
mod keys;
mod raw;
mod reach;

pub use candidate::examine_candidate;
use finding::{Finding, Rights, Severity};
use issuer::Identity;
use reach::Unreached;

/// The maximum number of counters that are asked for with each token.
pub const COUNTERS: usize = 50;

/// The number of the owner's counters that are asked for if no counter is named.
pub const SEEN: usize = 5;

/// The path and query of the list of the first [`SEEN`] counters.
const LIST: &str = "/management/v1/counters?per_page=5";

/// The tokens and counters to examine.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The tokens to examine; empty for all.
    pub tokens: Vec<TokenAlias>,
    /// The counters to ask for in addition to those of the callers.
    pub counters: Vec<u64>,
}

/// A finding and its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The examined token; `None` for the keys of service accounts.
    pub token: Option<TokenAlias>,
    /// The counter, if the finding is about one.
    pub counter: Option<u64>,
    /// The finding.
    pub finding: Finding,
}

/// All findings of one run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The findings, in the order of the tokens in the configuration.
    pub lines: Vec<Line>,
    /// The number of requests sent.
    pub requests: usize,
}

impl Report {
    /// Returns the worst standing of all findings.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.lines.iter().map(|line| line.finding.severity()).max().unwrap_or(Severity::Well)
    }

    /// Returns the exit code (sysexits(3)): 77 for the permissions of a file and 78 for its content, as in `check`; 1 if
    /// something else is wrong; 75 if a question could not be answered; 0 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let has = |is_it: fn(&Finding) -> bool| self.lines.iter().any(|line| is_it(&line.finding));
        if has(|finding| matches!(finding, Finding::FilePermissions { .. })) {
            return 77;
        }
        if has(|finding| matches!(finding, Finding::FileContent { .. })) {
            return 78;
        }
        match self.severity() {
            Severity::Wrong => 1,
            Severity::Unknown => 75,
            Severity::Well | Severity::Note | Severity::Warning => 0,
        }
    }
}

/// Examines the tokens of `config`. Calls `tell` before every question. Must run on a single-threaded runtime.
///
/// # Errors
/// When no certificate can be trusted, or TLS cannot be set up.
pub async fn examine(
    config: &Config,
    wanted: &Wanted,
    now: SystemTime,
    tell: &mut dyn FnMut(TokenAlias, Question),
) -> anyhow::Result<Report> {
    let mut doctor = Doctor::new(config, wanted, now, tell)?;
    let is_wanted = |source: &&TokenSource| wanted.tokens.is_empty() || wanted.tokens.contains(&source.alias);
    let sources: Vec<_> = config.tokens.iter().filter(is_wanted).collect();
    let mut examined_tokens = Vec::new();
    // All tokens are read before the first question, because responses are searched for each of them.
    let held: Vec<_> = sources.iter().filter_map(|source| Some((*source, doctor.token(source)?))).collect();
    doctor.compare_files(&held);
    for (source, token) in held {
        doctor.expiry(source, now);
        examined_tokens.extend(doctor.admit(source, token).await);
    }
    for index in 0..examined_tokens.len() {
        doctor.look_at_counters(&mut examined_tokens, index).await;
    }
    // A choice of tokens leaves out the rest.
    if wanted.tokens.is_empty() {
        doctor.look_at_keys().await;
    }
    let mut report = doctor.report;
    elsewhere::settle(&mut report.lines, config);
    let place = |line: &Line| sources.iter().position(|source| Some(source.alias) == line.token);
    report.lines.sort_by_key(|line| place(line).unwrap_or(sources.len()));
    Ok(report)
}

/// A server that is asked: Metrica or Yandex ID.
struct Place {
    /// The purpose of its connections, which names its key in the configuration.
    purpose: Purpose,
    upstream: Arc<Upstream>,
    /// The reason why it cannot be reached, after that was examined (rule 8).
    unreached: Option<Unreached>,
}

impl Place {
    fn new(purpose: Purpose, settings: crate::config::Upstream) -> anyhow::Result<Self> {
        Ok(Self { purpose, upstream: Arc::new(Upstream::new(settings)?), unreached: None })
    }
}

struct Doctor<'a> {
    config: &'a Config,
    wanted: &'a Wanted,
    metrica: Place,
    issuer: Option<Place>,
    now: SystemTime,
    tell: &'a mut dyn FnMut(TokenAlias, Question),
    secrets: Vec<HeaderValue>,
    /// The replies about counters, by token and counter.
    replies: HashMap<(TokenAlias, u64), Reply>,
    report: Report,
}

/// A token that Metrica did not reject as invalid.
struct ExaminedToken<'a> {
    source: &'a TokenSource,
    token: Token,
    issuer: Option<Issuer>,
    /// The domain of the site that shows its application.
    site: &'static str,
    /// Whether the token has `metrika:read`, if known.
    reads: Option<bool>,
    /// The first counters that the owner sees.
    sees: Vec<u64>,
    /// The number of counters that the owner sees.
    sees_in_all: usize,
    /// Whether the open counter was asked for (rule 3).
    asked_open: bool,
    /// Whether an obstacle ended the questions about this token (rule 6).
    is_blocked: bool,
}

impl ExaminedToken<'_> {
    fn rights(&self) -> Rights {
        let seen = self.issuer.as_ref().map(|issuer| &issuer.client_id);
        Rights(seen.or(self.source.origin.client_id.as_ref()).cloned(), self.site)
    }

    /// Whether a person issued the token although `owner` names an account of an organisation.
    fn is_personal(&self) -> bool {
        let stated = self.source.origin.owner.as_deref();
        let is_other = self.issuer.as_ref().is_some_and(|issuer| !login::is_organisation(&issuer.login));
        stated.is_some_and(login::is_organisation) && is_other
    }

    /// Returns the declared scopes without `metrika:read`.
    fn declared_writes(&self) -> ScopeSet {
        self.source.scopes.iter().filter(|scope| *scope != Scope::Read).collect()
    }
}

impl<'a> Doctor<'a> {
    fn new(
        config: &'a Config,
        wanted: &'a Wanted,
        now: SystemTime,
        tell: &'a mut dyn FnMut(TokenAlias, Question),
    ) -> anyhow::Result<Self> {
        let metrica = Place::new(Purpose::Upstream, config.upstream.clone())?;
        let issuer = match &config.identity {
            Some(identity) => Some(Place::new(Purpose::Identity, identity.place.clone())?),
            None => None,
        };
        let (secrets, replies, report) = (Vec::new(), HashMap::new(), Report::default());
        Ok(Self { config, wanted, metrica, issuer, now, tell, secrets, replies, report })
    }

    fn report(&mut self, source: &TokenSource, finding: Finding) {
        self.report.lines.push(Line { token: Some(source.alias), counter: None, finding });
    }

    fn report_counter(&mut self, source: &TokenSource, counter: u64, finding: Finding) {
        self.report.lines.push(Line { token: Some(source.alias), counter: Some(counter), finding });
    }

    /// Asks Metrica one question.
    async fn ask(&mut self, alias: TokenAlias, token: &Token, question: Question) -> Reply {
        let place = probe::Place::new(self.metrica.upstream.clone());
        self.ask_at(&place, alias, token, question, "").await
    }

    async fn ask_at(
        &mut self,
        place: &probe::Place,
        alias: TokenAlias,
        token: &Token,
        question: Question,
        issuer: &str,
    ) -> Reply {
        (self.tell)(alias, question);
        let target = if question == Question::List { LIST.to_owned() } else { question.target(issuer) };
        let (reply, requests) = question::ask(place, token, &target).await;
        self.report.requests += requests;
        reply
    }

    /// Determines whether the token is valid and can read (rules 2 and 3). Returns `None` for an invalid token.
    async fn admit(&mut self, source: &'a TokenSource, token: Token) -> Option<ExaminedToken<'a>> {
        let identity = self.identify(source, &token).await;
        let reply = self.ask(source.alias, &token, Question::List).await;
        self.report_proxy(source, &reply);
        if reply == Reply::Invalid {
            let finding = match identity {
                Identity::Silent => Finding::Invalid,
                Identity::Invalid => Finding::Dead,
                Identity::Known(_) => Finding::Disputed,
            };
            self.report(source, finding);
            return None;
        }
        let issuer = match identity {
            Identity::Known(issuer) => Some(issuer),
            Identity::Silent => None,
            Identity::Invalid => {
                self.report(source, Finding::IssuerInvalid);
                None
            }
        };
        let mut examined = ExaminedToken {
            source,
            token,
            issuer,
            site: self.config.oauth_site(),
            reads: None,
            sees: Vec::new(),
            sees_in_all: 0,
            asked_open: false,
            is_blocked: false,
        };
        let sees = if let Reply::Yes(body) = &reply { counters_in(body) } else { None };
        let obstacle = match (sees, &reply) {
            (Some((sees, all)), _) => {
                (examined.reads, examined.sees, examined.sees_in_all) = (Some(true), sees, all);
                None
            }
            (None, Reply::Denied) => {
                examined.reads = Some(false);
                None
            }
            (None, _) => Some(reply.unexpected()),
        };
        examined.is_blocked = obstacle.as_ref().is_some_and(Obstacle::stays);
        let alive = match obstacle {
            None => Finding::Alive,
            Some(why) => {
                let unreached = Self::unreached(&mut self.metrica, &why, self.now).await;
                unreached.unwrap_or_else(|| Finding::AliveUnknown { mend: remedy(&why), why })
            }
        };
        self.report(source, alive);
        if examined.reads.is_some() {
            self.report_reads(&examined);
        }
        let scopes = examined.declared_writes();
        if !scopes.is_empty() {
            self.report(source, Finding::WriteUnproven { scopes, rights: examined.rights() });
        }
        Some(examined)
    }

    /// Reports whether the token has `metrika:read`, compared with its declared scopes.
    fn report_reads(&mut self, examined: &ExaminedToken<'_>) {
        let declared = examined.source.scopes.iter().any(|scope| scope == Scope::Read);
        let finding = match (examined.reads, declared) {
            (Some(true), true) => Finding::Read,
            (Some(true), false) => Finding::ReadUndeclared,
            (Some(false), true) if examined.is_personal() => Finding::ReadPersonal,
            (Some(false), true) => Finding::ReadMissing { rights: examined.rights() },
            (Some(false), false) => Finding::NoRead,
            (None, _) => Finding::ReadUnknown,
        };
        self.report(examined.source, finding);
    }

    /// Returns the counters to ask for with a token, and their number before the limit (rule 5).
    fn counters_of(&self, source: &TokenSource) -> (Vec<u64>, usize) {
        // A standby serves the callers of the token that it stands by for.
        let stands_for = |alias: &TokenAlias| {
            let mut tokens = self.config.tokens.iter();
            *alias == source.alias
                || tokens.any(|token| token.alias == *alias && token.origin.standby == Some(source.alias))
        };
        let users = self.config.callers.iter().filter(|caller| caller.tokens.iter().any(stands_for));
        let of_callers: BTreeSet<u64> =
            users.filter_map(|caller| caller.rules.counters.as_deref()).flatten().copied().collect();
        let wanted: BTreeSet<u64> = self.wanted.counters.iter().copied().collect();
        let mut counters: Vec<u64> = wanted.iter().chain(of_callers.difference(&wanted)).copied().collect();
        let all = counters.len();
        counters.truncate(COUNTERS);
        (counters, all)
    }
}

/// Returns the remedy for an obstacle that the token did not cause.
const fn remedy(why: &Obstacle) -> &'static str {
    match why {
        Obstacle::Quota(_) => {
            "retry when the quota is renewed: by_ip and parallel quotas after a second, daily ones at 00:00 GMT; reduce the requests that use it"
        }
        Obstacle::Answer(..) | Obstacle::Unreadable | Obstacle::Refused(_) => {
            "check that upstream.url and upstream.connect_to lead to Metrica and that no proxy responds in its place; then retry"
        }
        Obstacle::Broken => "check that upstream.connect_to or upstream.url leads to an HTTP server; then retry",
        Obstacle::Timeout => "retry; if this persists, check proxies in between, and upstream.timeouts",
        Obstacle::Connection(_) => "try again: a second connection was made",
    }
}

/// Returns the first counters of a list and its total length; `None` if `body` is not a list of counters.
fn counters_in(body: &[u8]) -> Option<(Vec<u64>, usize)> {
    #[derive(Deserialize)]
    struct List {
        rows: Option<usize>,
        counters: Vec<Counter>,
    }
    #[derive(Deserialize)]
    struct Counter {
        id: u64,
    }
    let list: List = serde_json::from_slice(body).ok()?;
    let counters: Vec<_> = list.counters.iter().map(|counter| counter.id).take(SEEN).collect();
    let shown = list.counters.len();
    let all = list.rows.map_or(shown, |rows| rows.max(shown));
    Some((counters, all))
}
