//! The keys `tokens`, `callers` and `operations`.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use metrica::operation::OperationId;
use metrica::operation::{Adds, Catalogue, Destructive, Operation, QuotaGroup, Reach, Shares, UnknownOperations, Verb};
use metrica::scope::ScopeSet;

use super::process::ReadListener;
use super::proofs::{check_proofs, key_hash, service_account, subject_name};
use super::reader::{At, Findings, Table};
use super::values::allow_mode;
use super::{Bind, Origin, TokenSource, accounts, document, health, name, name_text, rules};
use crate::policy::caller::{Caller, Condition, ConditionKind, Conditions, are_everyone};
use crate::policy::names::{CallerId, ListenerName, TokenAlias};

/// The names that callers can refer to.
#[derive(Debug)]
pub struct KnownNames<'a> {
    /// The names of all listeners, including invalid ones.
    pub listener_names: Vec<&'a str>,
    /// The valid listeners.
    pub listeners: &'a [ReadListener],
    /// The names of all tokens, including invalid ones.
    pub token_names: Vec<&'a str>,
    /// Whether service account tokens are verified.
    pub has_service_accounts: bool,
}

/// Reads `tokens`.
pub fn tokens(at: &At<'_>, findings: &mut Findings) -> Option<Vec<TokenSource>> {
    let table = at.any_table(findings)?;
    let names: Vec<_> = table.entries_at().map(|(alias, _)| alias).collect();
    let mut tokens = Vec::new();
    let mut complete = true;
    for (alias, at) in table.entries_at() {
        if let Err(expected) = name_text(alias) {
            at.wrong(findings, format!("invalid token name; expected {expected}"));
        }
        match token(alias, &at, &names, findings) {
            Some(token) => tokens.push(token),
            None => complete = false,
        }
    }
    if tokens.len() > usize::from(u16::MAX) {
        at.wrong(findings, format!("has {} tokens; at most {} are supported", tokens.len(), u16::MAX));
    }
    health::check_standbys(&tokens, at, findings);
    accounts::check_readers(&tokens, at, findings);
    complete.then_some(tokens)
}

/// Returns the tokens of a configuration that may have mistakes elsewhere, so that their files can be checked. Only
/// `alias`, `file` and `allow_mode` are read.
#[must_use]
pub fn tokens_beside_mistakes(bytes: &[u8]) -> Vec<TokenSource> {
    let ignored = &mut Findings::default();
    let document = str::from_utf8(bytes).ok().and_then(|text| document::parse(document::without_mark(text)).ok());
    let Some(root) = document.as_ref().and_then(|document| At::root(document).any_table(ignored)) else {
        return Vec::new();
    };
    let Some(tokens) = root.optional("tokens").and_then(|at| at.any_table(ignored)) else { return Vec::new() };
    let token = |(alias, at): (&str, At<'_>)| {
        name_text(alias).ok()?;
        let table = at.any_table(ignored)?;
        let file = table.optional("file")?.text(ignored, file)?;
        let allow_mode = allow_mode(&table, ignored).flatten();
        let (alias, scopes, origin) = (TokenAlias::new(alias), ScopeSet::EMPTY, Origin::default());
        Some(TokenSource { alias, file, allow_mode, scopes, origin })
    };
    tokens.entries_at().filter_map(token).collect()
}

fn token(alias: &str, at: &At<'_>, names: &[&str], findings: &mut Findings) -> Option<TokenSource> {
    let table = at.table(findings, &[["file", "allow_mode", "scopes"].as_slice(), &health::TOKEN_KEYS].concat())?;
    let file = table.required(findings, "file").and_then(|at| at.text(findings, file));
    let allow_mode = allow_mode(&table, findings);
    let scopes = table.required(findings, "scopes").and_then(|at| scopes(&at, findings));
    let origin = health::origin(&table, alias, names, findings);
    let alias = TokenAlias::new(alias);
    Some(TokenSource { alias, file: file?, allow_mode: allow_mode?, scopes: scopes?, origin: origin? })
}

pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') || document::unreplaced(text).is_some() {
        return Err("the path of a file".to_owned());
    }
    if text.contains("://") || text.contains("access_token") {
        return Err("the path of a file that contains the token; this looks like a URL".to_owned());
    }
    if looks_like_a_token(text) {
        return Err("the path of a file that contains the token; this looks like a token itself".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// Returns the expected value, with the known names when there are ten at most.
fn one_of(expected: &str, names: &[&str]) -> String {
    let shown: Vec<_> = names.iter().map(|name| super::error::shown_key(name)).collect();
    if (1..=10).contains(&shown.len()) { format!("{expected}: {}", shown.join(", ")) } else { expected.to_owned() }
}

/// Whether a path looks like a token, which has no slash; messages must not repeat it.
fn looks_like_a_token(text: &str) -> bool {
    let alphabet = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    alphabet && (text.starts_with("y0_") || text.starts_with("AQA") || text.len() >= 32)
}

fn scopes(at: &At<'_>, findings: &mut Findings) -> Option<ScopeSet> {
    let elements = at.filled_list(findings)?;
    let read = elements.into_iter().map(|at| at.text(findings, |text| text.parse().map_err(|_| expected_scope(text))));
    let scopes: Vec<_> = read.collect();
    scopes.into_iter().collect()
}

const EXPECTED_SCOPE: &str =
    "metrika:read, metrika:write, metrika:expenses, metrika:user_params or metrika:offline_data";

/// Returns the expected value. For a scope of another Yandex service it includes where such a scope is granted.
fn expected_scope(text: &str) -> String {
    let is_of_another = text.split_once(':').is_some_and(|(service, _)| service != "metrika");
    let elsewhere = if is_of_another {
        "; grant rights of other services, such as passport:business or login:info, to the application at oauth.yandex.ru; they are not configured here"
    } else {
        ""
    };
    format!("{EXPECTED_SCOPE}{elsewhere}")
}

/// Reads `callers`.
pub fn callers(at: &At<'_>, known: &KnownNames<'_>, findings: &mut Findings) -> Option<Vec<Caller>> {
    let elements = at.filled_list(findings)?;
    let expected = elements.len();
    let mut ids = rustc_hash::FxHashSet::default();
    let mut callers = Vec::with_capacity(expected);
    for element in elements {
        let Some(caller) = caller(&element, known, findings) else { continue };
        if !ids.insert(caller.id) {
            element.wrong(findings, format!("duplicate id '{}'; each caller needs a unique id", caller.id));
        }
        callers.push(caller);
    }
    (callers.len() == expected).then_some(callers)
}

fn caller(at: &At<'_>, known: &KnownNames<'_>, findings: &mut Findings) -> Option<Caller> {
    let table = at
        .table(findings, &[["id", "match", "scopes", "tokens", "strict", "quota"].as_slice(), &rules::KEYS].concat())?;
    let id = table.required(findings, "id").and_then(|at| name(&at, findings));
    let conditions = table.required(findings, "match").and_then(|at| conditions(&at, known, findings));
    let scopes = table.required(findings, "scopes").and_then(|at| scopes(&at, findings));
    let tokens = table.required(findings, "tokens").and_then(|at| token_names(&at, known, findings));
    let rules = rules::rules(&table, findings);
    let strict = table.optional("strict").map_or(Some(false), |at| at.bool(findings));
    let id = CallerId::new(id?);
    let (conditions, scopes, tokens, rules, strict) = (conditions?, scopes?, tokens?, rules?, strict?);
    Some(Caller { id, conditions, scopes, tokens, rules, strict })
}

fn token_names(at: &At<'_>, known: &KnownNames<'_>, findings: &mut Findings) -> Option<Vec<TokenAlias>> {
    let elements = at.filled_list(findings)?;
    let read = elements.into_iter().map(|at| {
        at.text(findings, |text| {
            if known.token_names.contains(&text) {
                Ok(TokenAlias::new(text))
            } else {
                Err(one_of("the name of a token under 'tokens'", &known.token_names))
            }
        })
    });
    let names: Vec<_> = read.collect();
    names.into_iter().collect()
}

fn conditions(at: &At<'_>, known: &KnownNames<'_>, findings: &mut Findings) -> Option<Conditions> {
    let table = at.table(findings, &ConditionKind::ALL.map(ConditionKind::key))?;
    let stated = ConditionKind::ALL.into_iter().filter_map(|kind| Some((kind, table.optional(kind.key())?)));
    let read: Vec<_> = stated.map(|(kind, at)| condition(kind, &at, known, findings)).collect();
    match Conditions::new(read.into_iter().collect::<Option<Vec<_>>>()?) {
        Ok(conditions) => {
            check_conditions(at, &conditions, known, findings);
            Some(conditions)
        }
        Err(repeated) => {
            at.wrong(findings, repeated.to_string());
            None
        }
    }
}

fn condition(kind: ConditionKind, at: &At<'_>, known: &KnownNames<'_>, findings: &mut Findings) -> Option<Condition> {
    let number = |at: &At<'_>, findings: &mut Findings| at.integer(findings, 0..=u32::MAX.into())?.try_into().ok();
    let listener = |text: &str| {
        if known.listener_names.contains(&text) {
            Ok(ListenerName::new(text))
        } else {
            Err(one_of("the name of a listener under 'listeners'", &known.listener_names))
        }
    };
    Some(match kind {
        ConditionKind::Listener => Condition::Listener(at.text(findings, listener)?),
        ConditionKind::Source => Condition::Source(values(at, findings, |at, findings| at.text(findings, network))?),
        ConditionKind::Uid => Condition::Uid(values(at, findings, number)?),
        ConditionKind::Gid => Condition::Gid(values(at, findings, number)?),
        // An empty list gets its keys from `keys_file`.
        ConditionKind::Key => {
            let elements = at.list(findings)?;
            let hashes: Vec<_> = elements.iter().map(|at| at.text(findings, key_hash)).collect();
            Condition::Key(hashes.into_iter().collect::<Option<_>>()?)
        }
        ConditionKind::San => Condition::San(values(at, findings, |at, findings| at.text(findings, subject_name))?),
        ConditionKind::ServiceAccount => {
            Condition::ServiceAccount(values(at, findings, |at, findings| at.text(findings, service_account))?)
        }
    })
}

/// Reads a non-empty list of values.
fn values<T>(
    at: &At<'_>,
    findings: &mut Findings,
    mut read: impl FnMut(&At<'_>, &mut Findings) -> Option<T>,
) -> Option<Box<[T]>> {
    let elements = at.filled_list(findings)?;
    let values: Vec<Option<T>> = elements.iter().map(|at| read(at, findings)).collect();
    values.into_iter().collect::<Option<Box<[T]>>>().filter(|values| !values.is_empty())
}

fn network(text: &str) -> Result<IpNet, String> {
    let read = text.parse::<IpNet>().ok().or_else(|| text.parse().map(|host: IpAddr| host.into()).ok());
    read.ok_or_else(|| "an address or a network, as in 10.1.2.3, 10.0.0.0/8 or 2001:db8::/32".to_owned())
}

fn check_conditions(at: &At<'_>, conditions: &Conditions, known: &KnownNames<'_>, findings: &mut Findings) {
    if conditions.is_empty() {
        let keys = ConditionKind::ALL.map(ConditionKind::key).join(", ");
        at.wrong(findings, format!("has no conditions; expected one or more of {keys}"));
        return;
    }
    let of_process = conditions.iter().any(is_of_process);
    let of_network = conditions.iter().any(is_of_network);
    if of_process && of_network {
        at.wrong(findings, "never matches: uid and gid require a unix socket, source requires TCP; use one kind");
        return;
    }
    check_proofs(at, conditions, known, findings);
    let (stated, states_nothing) = (conditions.listener(), !conditions.iter().any(is_narrow));
    for read in known.listeners {
        let name = read.listener.name;
        let named = stated == Some(name);
        let unix = matches!(read.listener.bind, Bind::Unix { .. });
        if named && unix && of_network {
            at.wrong(
                findings,
                format!(
                    "never matches: listener '{name}' is a unix socket, whose peers have no source; use uid or gid"
                ),
            );
        }
        if named && !unix && of_process {
            at.wrong(
                findings,
                format!("never matches: listener '{name}' is TCP, whose peers have no uid or gid; use source"),
            );
        }
        let applies = (named || stated.is_none()) && !unix && !of_process;
        if applies && read.remote && states_nothing {
            let message = format!(
                "matches anyone who can reach listener '{name}', which has allow_remote; add a source narrower than everyone"
            );
            at.wrong(findings, message);
        }
    }
}

/// Whether only peers of unix sockets can meet the condition.
const fn is_of_process(condition: &Condition) -> bool {
    match condition {
        Condition::Uid(_) | Condition::Gid(_) => true,
        Condition::Listener(_)
        | Condition::Source(_)
        | Condition::Key(_)
        | Condition::San(_)
        | Condition::ServiceAccount(_) => false,
    }
}

/// Whether only TCP peers can meet the condition.
const fn is_of_network(condition: &Condition) -> bool {
    match condition {
        Condition::Source(_) => true,
        Condition::Listener(_)
        | Condition::Uid(_)
        | Condition::Gid(_)
        | Condition::Key(_)
        | Condition::San(_)
        | Condition::ServiceAccount(_) => false,
    }
}

/// Whether the condition excludes some clients of a listener.
fn is_narrow(condition: &Condition) -> bool {
    match condition {
        Condition::Listener(_) => false,
        Condition::Source(networks) => !are_everyone(networks),
        Condition::Uid(_)
        | Condition::Gid(_)
        | Condition::Key(_)
        | Condition::San(_)
        | Condition::ServiceAccount(_) => true,
    }
}

/// Reads `operations` and `unknown_operations`.
pub fn catalogue(root: &Table<'_>, findings: &mut Findings) -> Catalogue {
    let mut catalogue = Catalogue::built_in();
    let operations = root.optional("operations").and_then(|at| at.list(findings));
    for at in operations.into_iter().flatten() {
        let Some(operation) = operation(&at, findings) else { continue };
        if catalogue.operations().iter().any(|known| known.id == operation.id) {
            at.wrong(findings, format!("duplicate id '{}'; choose another", operation.id));
        } else if let Err(wrong) = catalogue.add(operation) {
            at.wrong(findings, wrong.to_string());
        }
    }
    let unknown = root.optional("unknown_operations").and_then(|at| {
        at.text(findings, |text| match text {
            "deny" => Ok(UnknownOperations::Deny),
            "by_method" => Ok(UnknownOperations::ByMethod),
            _ => Err("deny or by_method".to_owned()),
        })
    });
    match unknown {
        Some(unknown) => catalogue.with_unknown(unknown),
        None => catalogue,
    }
}

/// Reads a path template. Rules check a single counter in a path.
fn template(text: &str) -> Result<&str, String> {
    let counters = text.split('/').filter(|segment| Reach::is_counter(segment)).count();
    if counters > 1 { Err("a path with at most one {counter_id}".to_owned()) } else { Ok(text) }
}

fn operation(at: &At<'_>, findings: &mut Findings) -> Option<Operation> {
    let table =
        at.table(findings, &["method", "path", "scope", "id", "long", "upload", "acts", "destructive", "shares"])?;
    let verb = table.required(findings, "method").and_then(|at| {
        at.text(findings, |text| {
            let known = Verb::ALL.into_iter().find(|verb| verb.as_str() == text && *verb != Verb::Head);
            known.ok_or_else(|| "GET (includes HEAD), POST, PUT, PATCH or DELETE".to_owned())
        })
    });
    let template = table.required(findings, "path").and_then(|at| at.text(findings, template));
    let scopes = table.required(findings, "scope").and_then(|at| scopes(&at, findings));
    let id = table.optional("id").map(|at| name(&at, findings));
    let long = table.flag("long", findings);
    let mut flag = |key: &str, otherwise| table.optional(key).map_or(otherwise, |at| at.bool(findings));
    let (upload, acts, shares) = (flag("upload", Some(false)), flag("acts", Some(false)), flag("shares", Some(false)));
    let destructive = flag("destructive", verb.map(|verb| verb == Verb::Delete));
    let (verb, template) = (verb?, template?);
    let id = match id {
        Some(id) => id?.to_owned(),
        None => format!("{} {template}", verb.as_str()),
    };
    Some(Operation {
        id: OperationId::new(&id),
        verb,
        reach: Reach::of(verb, template),
        scopes: scopes?,
        quota: if verb.is_safe() { QuotaGroup::ClientRead } else { QuotaGroup::ClientWrite },
        suffixes: Operation::may_have_suffixes(template),
        upload: upload?,
        bulk: upload?,
        long,
        acts: acts? || !verb.is_safe(),
        destructive: Destructive::of(destructive?),
        shares: if shares? { Shares::Named } else { Shares::Nothing },
        adds: Adds::Nothing,
        template: template.into(),
        deprecated: false,
    })
}
