//! `explain`: what would become of a request? The answer of the real policy, without traffic.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap::builder::ArgPredicate;
use http::Method;
use http::uri::Authority;
use serde_json::json;

use super::{ConfigArgs, Format};
use crate::caller::{Caller, Condition, Conditions};
use crate::config::Config;
use crate::gateway::admit::Admission;
use crate::operation::{Operation, Verb};
use crate::policy::{Denial, Permission, Policy};
use crate::rejection::Reason;
use crate::rules::{Breach, Call};
use crate::subject::{Counters, Subject};
use crate::symbol::ListenerName;
use crate::target::{self, BadTarget, Broken, Names};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The method, as in GET
    #[arg(required = false, required_unless_present = "from", default_value_if("from", ArgPredicate::IsPresent, ""))]
    method: String,
    /// The path and query, or the whole URL
    #[arg(required = false, required_unless_present = "from", default_value_if("from", ArgPredicate::IsPresent, ""))]
    url: String,
    /// In the place of one request, those of a log: access lines as JSON in a file, or - for stdin
    #[arg(long, value_name = "FILE", env = "METRIKA_GATE_EXPLAIN_FROM", conflicts_with_all = ["method", "url"])]
    from: Option<PathBuf>,
    /// The caller; without it, every caller
    #[arg(long = "as", value_name = "CALLER", env = "METRIKA_GATE_EXPLAIN_AS")]
    caller: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
    /// How the result is shown
    #[arg(long, value_name = "FORM", env = "METRIKA_GATE_FORMAT", default_value = "human")]
    format: Format,
}

/// What would become of it for one caller.
struct Verdict<'a> {
    caller: &'a Caller,
    /// An earlier caller that takes all its connections.
    shadow: Option<&'a Caller>,
    result: Result<Permission, Refused>,
}

/// Why it would be refused.
#[derive(Clone, Copy)]
struct Refused {
    reason: Reason,
    /// The rule of the caller that is broken, where it is one.
    breach: Option<Breach>,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self { reason, breach: None }
    }
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        Self { reason: denial.reason(), breach: denial.breach() }
    }
}

impl Verdict<'_> {
    fn permission(&self) -> Option<Permission> {
        self.result.ok()
    }

    /// What would refuse it if the caller's rules were enforced.
    fn shadowed(&self) -> Option<Refused> {
        self.permission()?.shadowed.map(Into::into)
    }

    /// Which rule of the caller it breaks, whether that is enforced or not.
    fn breach(&self) -> Option<Breach> {
        self.result.err().or_else(|| self.shadowed())?.breach
    }
}

pub(super) fn explain(args: &ExplainArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    if let Some(from) = &args.from {
        return super::replay::replay(from, args.caller.as_deref(), &args.config.config, args.format, out);
    }
    let config = Config::load(&args.config.config)?;
    let policy = crate::reload::policy(&config);
    let Ok(method) = Method::from_bytes(args.method.as_bytes()) else {
        return wrong_usage("the method is none; one is written as GET");
    };
    let Some(target) = Target::of(&args.url) else {
        return wrong_usage(
            "a path begins with a slash, as in /stat/v1/data?ids=1; a whole URL with http:// or https:// and a host",
        );
    };
    let asked = Asked::of(&config, &policy, &method, target);
    let callers: Vec<_> = config.callers.iter().enumerate().collect();
    let chosen: Vec<_> = match &args.caller {
        Some(id) => callers.into_iter().filter(|(_, caller)| caller.id.as_str() == id).collect(),
        None => callers,
    };
    if chosen.is_empty() {
        return no_such_caller(&config, args.caller.as_deref().unwrap_or_default());
    }
    let strangers = strangers(&config, &asked.target);
    let verdict = |(position, caller)| {
        let admitted = may_call(&config, &strangers, caller);
        let result = admitted
            .and(asked.operation)
            .map_err(Refused::from)
            .and_then(|operation| Ok(policy.decide(position, &asked.call(operation))?));
        Verdict { caller, shadow: policy.callers.shadow_of(position), result }
    };
    let verdicts: Vec<_> = chosen.into_iter().map(verdict).collect();
    match args.format {
        Format::Human => human(out, args, &asked, &verdicts, &strangers)?,
        Format::Json => writeln!(out, "{}", machine(args, &asked, &verdicts, &strangers))?,
    }
    Ok(u8::from(verdicts.iter().any(|verdict| verdict.result.is_err())))
}

/// Whoever was asked about is nobody of the configuration.
pub(super) fn no_such_caller(config: &Config, wanted: &str) -> anyhow::Result<u8> {
    let known: Vec<_> = config.callers.iter().map(|caller| caller.id.as_str()).collect();
    wrong_usage(&format!("there is no caller '{wanted}'; the callers are {}", known.join(", ")))
}

/// Not a question that has an answer, so not the code of "no".
fn wrong_usage(what: &str) -> anyhow::Result<u8> {
    writeln!(std::io::stderr(), "metrika-gate: {what}")?;
    Ok(2)
}

/// The URL that is asked for, right or wrong: what is wrong with it is a part of the answer.
#[derive(Clone, Copy)]
struct Target<'a> {
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let rest = ["http://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        let (authority, target) = match rest {
            Some(rest) => {
                let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                (Some(authority), target)
            }
            None => (None, url),
        };
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let path = if authority.is_some() && path.is_empty() { "/" } else { path };
        let is_one = path.starts_with('/') || path == "*";
        (is_one && authority.is_none_or(|authority| authority.parse::<Authority>().is_ok())).then_some(Self {
            authority,
            path,
            query,
        })
    }

    fn check(self, limit: usize) -> Result<Names, BadTarget> {
        let whole = self.query.map_or_else(|| self.path.to_owned(), |query| format!("{}?{query}", self.path));
        target::unfit(whole.as_bytes()).map_or(Ok(()), |broken| Err(BadTarget::Ambiguous(broken)))?;
        target::check(self.path, self.query, limit)
    }
}

/// What is asked.
struct Asked<'a> {
    target: Target<'a>,
    operation: Result<&'a Operation, Reason>,
    /// Which names stand in the query, and on whose data it works, where it is an operation.
    names: Names,
    subject: Subject,
    /// Why the target is refused; the log of a gate says the same.
    cause: Option<Broken>,
}

impl<'a> Asked<'a> {
    fn of(config: &Config, policy: &'a Policy, method: &Method, target: Target<'a>) -> Self {
        let (mut cause, mut names) = (None, Names::default());
        let verb = Verb::of(method).ok_or(Reason::MethodNotAllowed);
        let operation = verb.and_then(|verb| {
            names = target.check(config.limits.target_bytes).map_err(|bad| match bad {
                BadTarget::Ambiguous(broken) => {
                    cause = Some(broken);
                    Reason::BadTarget
                }
                BadTarget::TooLong => Reason::TargetTooLong,
            })?;
            policy.operation(verb, target.path).map_err(Denial::reason)
        });
        let subject = |operation| Subject::of(operation, target.path, target.query, names);
        let subject = operation.map_or_else(|_| Subject::default(), subject);
        Self { target, operation, names, subject, cause }
    }

    const fn call(&'a self, operation: &'a Operation) -> Call<'a> {
        let Target { path, query, .. } = self.target;
        Call { operation, path, query, names: self.names, subject: &self.subject }
    }
}

/// The listeners that are not called by the host of a whole URL, with what they answer.
fn strangers(config: &Config, target: &Target<'_>) -> Vec<(ListenerName, Reason)> {
    let Some(authority) = target.authority else { return Vec::new() };
    let refused = |listener| {
        let admission = Admission::new(listener, &config.upstream.host);
        admission.check_host(authority.as_bytes()).err().map(|refused| (listener.name, refused.reason))
    };
    config.listeners.iter().filter_map(refused).collect()
}

/// Refused when every listener that the caller can use is among `strangers`.
fn may_call(config: &Config, strangers: &[(ListenerName, Reason)], caller: &Caller) -> Result<(), Reason> {
    let mut reason = None;
    for listener in &config.listeners {
        if caller.conditions.listener().is_some_and(|stated| stated != listener.name) {
            continue;
        }
        match strangers.iter().find(|(name, _)| *name == listener.name) {
            Some((_, refused)) => reason = Some(*refused),
            None => return Ok(()),
        }
    }
    reason.map_or(Ok(()), Err)
}

fn dropped(query: Option<&str>) -> bool {
    query.is_some_and(|query| target::without_credentials("", query).is_some())
}

fn human(
    out: &mut dyn Write,
    args: &ExplainArgs,
    asked: &Asked<'_>,
    verdicts: &[Verdict<'_>],
    strangers: &[(ListenerName, Reason)],
) -> std::io::Result<()> {
    writeln!(out, "request    {} {}", args.method, asked.target.path)?;
    match asked.operation {
        Ok(operation) => {
            writeln!(out, "operation  {} ({})", operation.id, operation.template)?;
            writeln!(
                out,
                "needs      {}",
                operation.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" or ")
            )?;
        }
        Err(reason) => writeln!(out, "operation  none: {}", reason.as_str())?,
    }
    if let Some(cause) = asked.cause {
        writeln!(out, "because    {cause}")?;
    }
    for (listener, reason) in strangers {
        writeln!(out, "host       is refused by listener {listener}: {}", reason.as_str())?;
    }
    if asked.target.authority.is_some() && strangers.is_empty() {
        writeln!(out, "host       is ignored: everything goes to the upstream of the configuration")?;
    }
    if dropped(asked.target.query) {
        writeln!(out, "query      has a credential, which would not be sent")?;
    }
    subject(out, &asked.subject)?;
    verdicts.iter().try_for_each(|verdict| of_caller(out, asked, verdict))
}

/// The counters and logins that are named. What a percent sign hid is escaped: it could move a terminal's cursor.
fn subject(out: &mut dyn Write, subject: &Subject) -> std::io::Result<()> {
    match &subject.counters {
        Counters::None => {}
        Counters::Unreadable => writeln!(out, "counters   cannot be read")?,
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

fn of_caller(out: &mut dyn Write, asked: &Asked<'_>, verdict: &Verdict<'_>) -> std::io::Result<()> {
    let caller = verdict.caller;
    writeln!(out)?;
    writeln!(out, "caller     {} ({})", caller.id, said(&caller.conditions))?;
    writeln!(out, "has        {}", caller.scopes)?;
    if let Some(earlier) = verdict.shadow {
        writeln!(out, "but        it is never reached: '{}' stands before it and takes its connections", earlier.id)?;
    }
    let answer = |Refused { reason, .. }: Refused| {
        let answer = reason.answer();
        format!("{} {} ({})", answer.status.as_u16(), reason.as_str(), answer.message)
    };
    match verdict.result {
        Ok(permission) => {
            writeln!(out, "verdict    sent with token {}, if its file is right", permission.grant.token())?;
            if let Some(refused) = verdict.shadowed() {
                writeln!(out, "would be   refused without enforce: false: {}", answer(refused))?;
            }
            if body_is_read(asked, permission) {
                writeln!(
                    out,
                    "body       would be read first: JSON of at most 1 MiB, with no other counters than the caller's"
                )?;
            }
            if permission.duties.list {
                writeln!(out, "list       comes back with the caller's counters only")?;
            }
        }
        Err(refused) => writeln!(out, "verdict    refused: {}", answer(refused))?,
    }
    verdict.breach().map_or(Ok(()), |breach| writeln!(out, "because    {breach}"))
}

/// Of a read there is no body to be read, unless somebody sends one.
fn body_is_read(asked: &Asked<'_>, permission: Permission) -> bool {
    permission.duties.body && asked.operation.is_ok_and(|operation| !operation.verb.is_safe())
}

fn machine(
    args: &ExplainArgs,
    asked: &Asked<'_>,
    verdicts: &[Verdict<'_>],
    strangers: &[(ListenerName, Reason)],
) -> serde_json::Value {
    let operation = asked.operation.ok();
    let one = |verdict: &Verdict<'_>| {
        let (caller, permission, refused) = (verdict.caller, verdict.permission(), verdict.result.err());
        json!({
            "caller": caller.id.as_str(),
            "never_reached_behind": verdict.shadow.map(|earlier| earlier.id.as_str()),
            "scopes": caller.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>(),
            "allowed": permission.is_some(),
            "token": permission.map(|permission| permission.grant.token().as_str()),
            "status": refused.map(|refused| refused.reason.answer().status.as_u16()),
            "reason": refused.map(|refused| refused.reason.as_str()),
            "would_refuse": verdict.shadowed().map(|refused| refused.reason.as_str()),
            "because": verdict.breach().map(|breach| breach.to_string()),
            "body_is_read": permission.is_some_and(|permission| body_is_read(asked, permission)),
            "list_is_filtered": permission.is_some_and(|permission| permission.duties.list),
        })
    };
    let subject = &asked.subject;
    json!({
        "method": args.method,
        "operation": operation.map(|operation| operation.id.as_str()),
        "template": operation.map(|operation| &*operation.template),
        "needs_any_of": operation.map(|operation| operation.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>()),
        "counters": subject.counters.as_slice(),
        "counters_are_readable": subject.counters != Counters::Unreadable,
        "ulogin": subject.login,
        "direct_client_logins": subject.clients,
        "cause": asked.cause.map(|cause| cause.to_string()),
        "host_refused_by": strangers.iter().map(|(listener, _)| listener.as_str()).collect::<Vec<_>>(),
        "query_credential_dropped": dropped(asked.target.query),
        "verdicts": verdicts.iter().map(one).collect::<Vec<_>>(),
    })
}

fn said(conditions: &Conditions) -> String {
    conditions.iter().map(said_of).collect::<Vec<_>>().join(", ")
}

fn said_of(condition: &Condition) -> String {
    let values: Vec<String> = match condition {
        Condition::Listener(name) => vec![name.to_string()],
        Condition::Source(networks) => networks.iter().map(ToString::to_string).collect(),
        Condition::Uid(ids) | Condition::Gid(ids) => ids.iter().map(ToString::to_string).collect(),
    };
    format!("{} {}", condition.kind(), values.join(" or "))
}
