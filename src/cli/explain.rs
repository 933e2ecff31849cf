//! `explain`: shows how the policy treats a request, without sending it.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap::builder::ArgPredicate;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Version};
use metrica::operation::{Operation, Verb};
use metrica::subject::{Counters, Subject};
use serde_json::json;
use strict_http::target::{BadTarget, Broken, Target};

use super::candidates::CandidateTokens;
use super::proofs::ProofArgs;
use super::quota::{CallerPart, RequestLimits};
use super::traits::{describe_conditions, kind, looked_for, subject};
use super::url::{Read, Url, fields, strangers};
use super::{ConfigArgs, Format};
use super::{no_such_caller, wrong_usage};
use crate::config::{Config, ConfiguredAccounts};
use crate::policy::caller::{Caller, NoCaller};
use crate::policy::choice::SeveralAccounts;
use crate::policy::decide::{self, Candidates, Decision, Identified, KnownState, RequestHead, Shadowed};
use crate::policy::names::ListenerName;
use crate::policy::rejection::{Reason, Rejection};
use crate::policy::rules::Breach;
use crate::policy::{Denial, Policy};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The method, for example GET
    #[arg(required = false, required_unless_present = "from", default_value_if("from", ArgPredicate::IsPresent, ""))]
    method: String,
    /// The path and query, or the URL
    #[arg(required = false, required_unless_present = "from", default_value_if("from", ArgPredicate::IsPresent, ""))]
    url: String,
    /// Evaluate every request in a log instead: JSON access lines in a file, or - for stdin
    #[arg(long, value_name = "FILE", env = "METRIKA_GATE_EXPLAIN_FROM", conflicts_with_all = ["method", "url"])]
    from: Option<PathBuf>,
    /// The caller [default: every caller]
    #[arg(long = "as", value_name = "CALLER", env = "METRIKA_GATE_EXPLAIN_AS")]
    caller: Option<String>,
    /// A header field of the request, as in 'X-Metrika-Gate: 1'; repeatable, ';'-separated in the variable
    #[arg(
        short = 'H',
        long = "header",
        value_name = "FIELD",
        env = "METRIKA_GATE_EXPLAIN_HEADERS",
        value_delimiter = ';'
    )]
    #[arg(conflicts_with = "from")]
    headers: Vec<String>,
    #[command(flatten)]
    proofs: ProofArgs,
    #[command(flatten)]
    config: ConfigArgs,
    /// The output format
    #[arg(long, value_name = "FORM", env = "METRIKA_GATE_FORMAT", default_value = "human")]
    format: Format,
}

/// The decision for one caller.
struct CallerDecision<'a> {
    caller: &'a Caller,
    /// Whether the given proofs name it.
    identity: Option<String>,
    /// An earlier caller that gets all connections of this one.
    shadow: Option<&'a Caller>,
    /// The tokens that it can use, if it has a choice.
    candidates: Option<CandidateTokens>,
    quota: Option<CallerPart>,
    result: Result<Decision, Rejection>,
}

impl CallerDecision<'_> {
    fn decision(&self) -> Option<&Decision> {
        self.result.as_ref().ok()
    }

    /// Returns the refusal that would apply if the caller's rules were enforced.
    fn shadowed(&self) -> Option<Shadowed> {
        self.decision()?.shadowed()
    }

    /// Returns the rule that the request breaks, or what it lacks. Problems of target or host are reported for all callers.
    fn because(&self) -> Option<String> {
        let rejection = match &self.result {
            Ok(_) => return self.shadowed()?.breach.map(|breach| breach.to_string()),
            Err(rejection) => rejection,
        };
        let is_told = |cause: &&anyhow::Error| {
            cause.is::<Breach>()
                || cause.is::<NoCaller>()
                || cause.is::<SeveralAccounts>()
                || rejection.reason == Reason::HeaderRequired
        };
        let cause = rejection.cause.as_ref().filter(is_told).map(ToString::to_string);
        cause.or_else(|| rejection.lacking.map(|lacking| lacking.to_string()))
    }
}

pub(super) fn explain(args: &ExplainArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    if let Some(from) = &args.from {
        return super::replay::replay(from, args.caller.as_deref(), &args.config.config, args.format, out);
    }
    let config = super::load_config(&args.config.config)?;
    let policy = crate::reload::policy(&config);
    let Ok(method) = Method::from_bytes(args.method.as_bytes()) else {
        return wrong_usage("invalid method; expected for example GET");
    };
    let Some(url) = Url::of(&args.url) else {
        return wrong_usage(
            "invalid target; expected a path as in /stat/v1/data?ids=1, or a URL with http:// or https:// and a host",
        );
    };
    let asked = ExplainedRequest::of(&config, &policy, &method, url);
    let given = match args.proofs.read()? {
        Ok(given) => given,
        Err(mistake) => return wrong_usage(&mistake),
    };
    let callers: Vec<_> = config.callers.iter().enumerate().collect();
    let chosen: Vec<_> = match &args.caller {
        Some(id) => match callers.into_iter().find(|(_, caller)| caller.id.as_str() == id) {
            Some(caller) => vec![caller],
            None => return no_such_caller(&config, id),
        },
        None => {
            let is_named = |(_, caller): &(usize, &Caller)| given.as_ref().is_none_or(|given| given.concerns(caller));
            callers.into_iter().filter(is_named).collect()
        }
    };
    let strangers = strangers(&config, asked.url);
    let Some(fields) = fields(&args.headers, asked.url.authority) else {
        return wrong_usage("invalid header field; expected a name, a colon and a value, as in -H 'X-Metrika-Gate: 1'");
    };
    let admissions = config.admissions();
    // Assumes that the file of every token is valid.
    let tokens = Candidates::of(&vec![Ok(()); policy.tokens().len()], |_| None);
    let accounts = ConfiguredAccounts(&config.tokens);
    let known = KnownState {
        policy: &policy,
        admissions: &admissions,
        limits: &config.limits,
        tokens: &tokens,
        accounts: &accounts,
    };
    let account = decide::wanted(&fields);
    let verdict = |(position, caller)| {
        let unproven = given.as_ref().and_then(|given| given.refusal(caller, &policy.callers));
        let result = unproven.map_or_else(|| would_be(&config, &asked, &fields, (position, caller), &known), Err);
        let identity = given.as_ref().map(|given| given.identity(caller));
        let read = asked.operation.ok().zip(asked.target.as_ref());
        let candidates = read.map(|(operation, target)| {
            CandidateTokens::of(&config, &policy, position, (operation, target, &asked.subject), account.as_ref())
        });
        let quota = asked.operation.ok().and_then(|operation| CallerPart::of(&config, caller.id, operation));
        CallerDecision { caller, identity, shadow: policy.callers.shadow_of(position), candidates, quota, result }
    };
    let verdicts: Vec<_> = chosen.into_iter().map(verdict).collect();
    match args.format {
        Format::Human => {
            given.as_ref().map_or(Ok(()), |given| writeln!(out, "proofs     {}", given.line()))?;
            human(out, args, &asked, &verdicts, &strangers)?;
            let nobody = given.as_ref().filter(|_| verdicts.is_empty());
            nobody.map_or(Ok(()), |given| given.write_nobody(out, &policy.callers))?;
        }
        Format::Json => {
            let mut value = machine(args, &asked, &verdicts, &strangers);
            if let (Some(given), Some(fields)) = (&given, value.as_object_mut()) {
                fields.insert("proofs".to_owned(), given.json());
            }
            writeln!(out, "{value}")?;
        }
    }
    let is_nobody = given.is_some() && verdicts.is_empty();
    Ok(u8::from(is_nobody || verdicts.iter().any(|verdict| verdict.result.is_err())))
}

/// The request in question.
struct ExplainedRequest<'a> {
    method: Method,
    url: Url<'a>,
    /// The target as it is read; `None` if no request can have it.
    read: Option<Read>,
    /// The target that policy reads and that would be sent.
    target: Option<Target>,
    operation: Result<&'a Operation, Reason>,
    /// The counters and logins that the operation concerns.
    subject: Subject,
    /// The limits that count it.
    limits: Option<RequestLimits>,
    /// The reason why the target is refused, as the gate logs it.
    cause: Option<Broken>,
}

impl<'a> ExplainedRequest<'a> {
    fn of(config: &Config, policy: &'a Policy, method: &Method, url: Url<'a>) -> Self {
        let (read, limit) = (url.read(), config.limits.target_bytes);
        let target = read.as_ref().map_err(|bad| *bad);
        let target = target.and_then(|read| Target::canonical(&read.uri, limit, |path| policy.knows(path)));
        let reason = |bad| match bad {
            BadTarget::Ambiguous(_) => Reason::BadTarget,
            BadTarget::TooLong => Reason::TargetTooLong,
        };
        let cause = match &target {
            Err(BadTarget::Ambiguous(broken)) => Some(*broken),
            Err(BadTarget::TooLong) | Ok(_) => None,
        };
        let verb = Verb::of(method).ok_or(Reason::MethodNotAllowed);
        let operation = verb.and_then(|verb| {
            let target = target.as_ref().map_err(|bad| reason(*bad))?;
            policy.operation(verb, target.path()).map_err(Denial::reason)
        });
        let subject = match (&operation, &target) {
            (Ok(operation), Ok(target)) => Subject::of(operation, target.path(), target.query(), target.names()),
            _ => Subject::default(),
        };
        let limits = operation.ok().and_then(|operation| RequestLimits::of(config, operation, &subject));
        Self { method: method.clone(), url, read: read.ok(), target: target.ok(), operation, subject, limits, cause }
    }

    /// Returns the target that would be sent, and the rule that the given one breaks, if the two differ.
    fn changed(&self) -> Option<(&str, Broken)> {
        let target = self.target.as_ref()?;
        let broken = self.read.as_ref().and_then(|read| read.encoded).or(target.was_changed())?;
        Some((target.origin_form(), broken))
    }

    fn drops_credentials(&self) -> bool {
        self.target.as_ref().is_some_and(Target::held_credentials)
    }
}

/// Returns the decision for a caller: the permission of any listener that it can use, otherwise a refusal.
fn would_be(
    config: &Config,
    asked: &ExplainedRequest<'_>,
    fields: &HeaderMap,
    (position, caller): (usize, &Caller),
    known: &KnownState<'_>,
) -> Result<Decision, Rejection> {
    let Some(Read { uri, encoded }) = &asked.read else { return Err(Reason::BadTarget.into()) };
    let (method, version) = (&asked.method, Version::HTTP_11);
    // A request with a content type has a body.
    let body = fields.contains_key(CONTENT_TYPE).then_some(1);
    let head = RequestHead { method, version, uri, fields, body, encoded: *encoded, opened_for: [None; 2] };
    let mut refused = Reason::UnknownCaller.into();
    for listener in config.listeners.iter().filter(|listener| listener.can_be_of(&caller.conditions)) {
        match decide::decide_for(Identified::supposed(position), &head, listener.name, known) {
            Ok(decision) => return Ok(decision),
            Err(rejection) => refused = rejection,
        }
    }
    Err(refused)
}

fn human(
    out: &mut dyn Write,
    args: &ExplainArgs,
    asked: &ExplainedRequest<'_>,
    verdicts: &[CallerDecision<'_>],
    strangers: &[(ListenerName, Reason)],
) -> std::io::Result<()> {
    writeln!(out, "request    {} {}", args.method, asked.url.path)?;
    match asked.operation {
        Ok(operation) => {
            writeln!(out, "operation  {} ({})", operation.id, operation.template)?;
            writeln!(
                out,
                "needs      {}",
                operation.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" or ")
            )?;
            writeln!(out, "kind       {}", kind(operation))?;
        }
        Err(reason) => writeln!(out, "operation  none: {}", reason.as_str())?,
    }
    if let Some(cause) = asked.cause {
        writeln!(out, "because    {cause}")?;
    }
    if let Some((target, broken)) = asked.changed() {
        writeln!(out, "sent as    {target}")?;
        writeln!(out, "because    {broken}; refused for callers with strict: true")?;
    }
    for (listener, reason) in strangers {
        writeln!(out, "host       refused by listener {listener}: {}", reason.as_str())?;
    }
    if asked.url.authority.is_some() && strangers.is_empty() {
        writeln!(out, "host       ignored: requests go to the configured upstream")?;
    }
    if asked.drops_credentials() {
        writeln!(out, "query      the gate removes its credential before forwarding")?;
    }
    subject(out, &asked.subject)?;
    if let Some(limits) = &asked.limits {
        writeln!(out, "limits     {}", limits.line())?;
    }
    verdicts.iter().try_for_each(|verdict| of_caller(out, asked, verdict))
}

fn of_caller(out: &mut dyn Write, asked: &ExplainedRequest<'_>, verdict: &CallerDecision<'_>) -> std::io::Result<()> {
    let caller = verdict.caller;
    writeln!(out)?;
    writeln!(out, "caller     {} ({})", caller.id, describe_conditions(&caller.conditions))?;
    if let Some(identity) = &verdict.identity {
        writeln!(out, "identity   {identity}")?;
    }
    writeln!(out, "has        {}", caller.scopes)?;
    if let Some(earlier) = verdict.shadow {
        writeln!(out, "but        unreachable: '{}' precedes it and matches all its connections", earlier.id)?;
    }
    let answer = |reason: Reason| {
        let answer = reason.answer();
        format!("{} {} ({})", answer.status.as_u16(), reason.as_str(), answer.message)
    };
    match &verdict.result {
        Ok(decision) => {
            writeln!(out, "decision   allowed, using token {}", decision.grant().token())?;
            if let Some(candidates) = verdict.candidates.as_ref().and_then(CandidateTokens::line) {
                writeln!(out, "candidates {candidates}")?;
            }
            if let Some(shadowed) = verdict.shadowed() {
                writeln!(out, "would be   refused if enforced (enforce: false): {}", answer(shadowed.reason))?;
            }
            if body_is_read(asked, decision) {
                let look = looked_for(decision.duties().body);
                writeln!(out, "body       checked before forwarding: JSON of at most 1 MiB, {look}")?;
            }
            if decision.duties().list {
                writeln!(out, "list       filtered to the caller's counters")?;
            }
            if let Some(quota) = &verdict.quota {
                writeln!(out, "waits      {}", quota.line())?;
                quota.budgets().map_or(Ok(()), |budgets| writeln!(out, "budgets    {budgets}"))?;
            }
        }
        Err(rejection) => writeln!(out, "decision   refused: {}", answer(rejection.reason))?,
    }
    verdict.because().map_or(Ok(()), |because| writeln!(out, "because    {because}"))
}

/// Whether a body would be checked: only for writes, as reads usually have none.
fn body_is_read(asked: &ExplainedRequest<'_>, decision: &Decision) -> bool {
    decision.duties().body.is_due() && asked.operation.is_ok_and(|operation| !operation.verb.is_safe())
}

fn machine(
    args: &ExplainArgs,
    asked: &ExplainedRequest<'_>,
    verdicts: &[CallerDecision<'_>],
    strangers: &[(ListenerName, Reason)],
) -> serde_json::Value {
    let operation = asked.operation.ok();
    let one = |verdict: &CallerDecision<'_>| {
        let (caller, decision, refused) = (verdict.caller, verdict.decision(), verdict.result.as_ref().err());
        json!({
            "caller": caller.id.as_str(),
            "identity": verdict.identity,
            "never_reached_behind": verdict.shadow.map(|earlier| earlier.id.as_str()),
            "scopes": caller.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>(),
            "allowed": decision.is_some(),
            "token": decision.map(|decision| decision.grant().token().as_str()),
            "candidates": verdict.candidates.as_ref().map_or_else(|| json!([]), CandidateTokens::json),
            "status": refused.map(|refused| refused.reason.answer().status.as_u16()),
            "reason": refused.map(|refused| refused.reason.as_str()),
            "would_refuse": verdict.shadowed().map(|shadowed| shadowed.reason.as_str()),
            "because": verdict.because(),
            "body_is_read": decision.is_some_and(|decision| body_is_read(asked, decision)),
            "quota": verdict.quota.as_ref().map(CallerPart::json),
            "list_is_filtered": decision.is_some_and(|decision| decision.duties().list),
        })
    };
    let subject = &asked.subject;
    json!({
        "method": args.method,
        "operation": operation.map(|operation| operation.id.as_str()),
        "template": operation.map(|operation| &*operation.template),
        "needs_any_of": operation.map(|operation| operation.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>()),
        "kind": operation.map(kind),
        "counters": subject.counters.as_slice(),
        "counters_are_readable": subject.counters != Counters::Unreadable,
        "ulogin": subject.login,
        "direct_client_logins": subject.clients,
        "limits": asked.limits.as_ref().map(RequestLimits::json),
        "cause": asked.cause.map(|cause| cause.to_string()),
        "host_refused_by": strangers.iter().map(|(listener, _)| listener.as_str()).collect::<Vec<_>>(),
        "sent_as": asked.changed().map(|(target, _)| target),
        "changed_because": asked.changed().map(|(_, broken)| broken.to_string()),
        "query_credential_dropped": asked.drops_credentials(),
        "verdicts": verdicts.iter().map(one).collect::<Vec<_>>(),
    })
}
