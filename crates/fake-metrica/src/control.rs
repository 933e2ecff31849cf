//! The control panel, below `/_fake/`, which is not part of the API. It accepts POST, and GET for short curl commands.

use std::time::Duration;

use http::Method;
use http::request::Parts;
use serde_json::{Value, json};

use super::Permission;
use super::answer::Answer;
use super::knobs::{Cut, Fail, Form, answerable};
use super::query::Query;
use super::quota::panel;
use super::refusal::{ErrorType, Refusal};
use super::world::Shared;

/// The knobs: name, parameters, effect.
const KNOBS: &[(&str, &str, &str)] = &[
    ("revoke", "token", "makes the token invalid"),
    ("restore", "token", "makes the token valid again"),
    ("slow", "ms, path", "delays responses to paths with that prefix, or all without a path; 0 ends it"),
    (
        "fail",
        "error_type, status, message, times, path, html, half, huge, gzip",
        "the next responses are this error, by default with its documented status; html: a page instead of JSON; half: truncated JSON; huge: that many bytes; gzip: compressed",
    ),
    (
        "invalid",
        "status, error_type",
        "the response to an invalid token: status 403, or 401, both documented; error_type invalid_token, or access_denied, as documented under troubleshooting",
    ),
    (
        "wording",
        "lang, error_type, message",
        "lang=ru: messages in Russian; error_type and message: sets the message of that error, none resets it",
    ),
    (
        "account",
        "token, client_id, login, represents",
        "the application and login of a token in /info; the accounts that ulogin may name, comma-separated",
    ),
    ("organisation", "counter, off", "the counter belongs to an organisation: refusals are counter_in_connect"),
    ("public", "counter, off", "the counter's statistics are public: any valid token reads them"),
    ("grant", "owner, counter, permission", "the account's permission for the counter: view, edit, own or none"),
    ("restricted", "name, off", "refuses reports with that metric or dimension for every token"),
    (
        "break",
        "after, times, path",
        "the next responses end prematurely after that many bytes of the body; without after, before the status line",
    ),
    ("part_bytes", "n", "the size of every log part"),
    (
        "logs",
        "reads, parts, instant",
        "the number of reads for which a log request stays created before it is processed (instant: 0); the number of its parts",
    ),
    (
        "quota",
        "parallel, by_ip, logs_by_ip, reports_5m, day, counter_day, grants, delegates, documented, status, names, \
         reports_type, refused, ulogin, abandoned_ms",
        "enforces these limits; 0 disables one; documented: all, as in the documentation. How they are refused: status 429 or \
         420, names live or documented, the error type of reports_5m. Refused requests count nowhere, for the day, or \
         everywhere; ulogin charges the owner of the token, or the represented account; a disconnected client keeps its slot \
         for abandoned_ms",
    ),
    ("quota_use", "clear", "the counts of the quotas, enforced or not; clear resets maxima and refusals"),
    (
        "outsider",
        "owner, slots, ms, day, reports, counter, counter_day",
        "another user of the account: occupies slots for ms, uses up part of the day, of the reports, of a counter's day",
    ),
    (
        "clock",
        "forward, to",
        "moves the clock of the quotas forward by a duration such as 5m, or to the next such time in GMT; to=00:00:00 \
         starts a new day",
    ),
    (
        "oauth",
        "lifetime, device_lifetime, interval, rotates, ends_old, needs_secret",
        "the OAuth server: lifetimes of tokens and codes of devices, such as 1d; interval in seconds; rotates: a refresh \
         returns another access token; ends_old: which ends the old one; needs_secret=0: devices and refreshes need no secret",
    ),
    (
        "oauth_end",
        "client_id, login",
        "ends all tokens of that application or account, as an edited application or a password does",
    ),
    ("oauth_fail", "path, error", "the next response of the OAuth server to that path is this error"),
    ("oauth_block", "client_id, off", "the OAuth server refuses the application: unauthorized_client"),
    ("state", "", "the requests received so far, and the active knobs, without secrets"),
    ("reset", "", "resets everything to the initial state; POST only"),
];

/// The knobs as text, for `--help`.
pub fn help() -> String {
    let lines = KNOBS.iter().map(|(name, parameters, effect)| match *parameters {
        "" => format!("  {name}: {effect}\n"),
        parameters => format!("  {name} ({parameters}): {effect}\n"),
    });
    format!(
        "Control panel, without a token, such as https://127.0.0.1:8443/_fake/state:\n{}",
        lines.collect::<String>()
    )
}

/// Answers a request to turn a knob.
pub fn answer(shared: &Shared, knob: &str, head: &Parts) -> Answer {
    let query = Query::parse(head.uri.query());
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    let outcome = if !is_read && head.method != Method::POST {
        Err(ErrorType::MethodNotAllowed.into())
    } else {
        match (knob, is_read) {
            ("reset", true) => Err(ErrorType::MethodNotAllowed.into()),
            _ => perform(shared, knob, &query),
        }
    };
    match outcome {
        // Indented, because people read the output of curl.
        Ok(value) => Answer::json(&value, true),
        Err(refusal) => Answer::from(&refusal),
    }
}

/// Turns a knob, written as `fail?error_type=backend_error`.
pub fn turn(shared: &Shared, knob: &str) -> Result<Value, Refusal> {
    let (knob, query) = knob.split_once('?').unwrap_or((knob, ""));
    perform(shared, knob, &Query::parse(Some(query)))
}

fn perform(shared: &Shared, knob: &str, query: &Query) -> Result<Value, Refusal> {
    match knob {
        "reset" => {
            shared.reset();
            Ok(json!({ "reset": true }))
        }
        "" => Ok(knobs()),
        "revoke" => set_revoked(shared, query, true),
        "restore" => set_revoked(shared, query, false),
        "slow" => slow(shared, query),
        "fail" => fail(shared, query),
        "invalid" => invalid(shared, query),
        "wording" => wording(shared, query),
        "account" => account(shared, query),
        "organisation" => organisation(shared, query),
        "public" => public(shared, query),
        "grant" => grant(shared, query),
        "restricted" => restricted(shared, query),
        "break" => cut(shared, query),
        "part_bytes" => part_bytes(shared, query),
        "logs" => logs(shared, query),
        "quota" => panel::quota(&shared.quotas, query),
        "quota_use" => panel::quota_use(&shared.quotas, query),
        "outsider" => panel::outsider(shared, query),
        "clock" => panel::clock(&shared.quotas, query),
        "oauth" => oauth(shared, query),
        "oauth_end" => {
            let world = &mut *shared.world();
            Ok(json!({ "ended": world.authority.end(&mut world.keyring, query.get("client_id"), query.get("login")) }))
        }
        "oauth_fail" => {
            let (path, error) = (query.required("path")?, query.required("error")?);
            let is_known = shared.world().authority.fail(path, error);
            is_known.then(|| json!({ "path": path, "error": error })).ok_or_else(|| Refusal::invalid("error"))
        }
        "oauth_block" => {
            let (client_id, blocked) = (query.required("client_id")?, !query.has("off"));
            let is_known = shared.world().authority.block(client_id, blocked);
            let unknown = || Refusal::because(ErrorType::NotFound, "No such application");
            is_known.then(|| json!({ "blocked": blocked })).ok_or_else(unknown)
        }
        "state" => Ok(shared.world().state(&shared.quotas)),
        _ => Err(Refusal::because(ErrorType::NotFound, "No such knob; GET /_fake/ lists them")),
    }
}

fn knobs() -> Value {
    let knob = |(name, parameters, effect): &(&str, &str, &str)| json!({ "knob": format!("/_fake/{name}"), "parameters": parameters, "effect": effect });
    KNOBS.iter().map(knob).collect()
}

fn set_revoked(shared: &Shared, query: &Query, revoked: bool) -> Result<Value, Refusal> {
    let is_known = shared.world().keyring.set_revoked(query.required("token")?, revoked);
    is_known.then(|| json!({ "revoked": revoked })).ok_or_else(no_such_token)
}

fn no_such_token() -> Refusal {
    Refusal::because(ErrorType::NotFound, "No such token")
}

fn account(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let mut world = shared.world();
    let mut changed = None;
    let is_known = world.keyring.change(query.required("token")?, |token| {
        if let Some(client_id) = query.get("client_id") {
            token.client_id = client_id.to_owned();
        }
        if let Some(login) = query.get("login") {
            token.login = Some(login.to_owned()).filter(|login| !login.is_empty());
        }
        if query.get("represents").is_some() {
            token.represents = query.list("represents").into_iter().map(str::to_owned).collect();
        }
        changed = Some(token.clone());
    });
    let Some(token) = changed.filter(|_| is_known) else { return Err(no_such_token()) };
    world.collections.represent(&token.owner, &token.represents);
    Ok(json!({ "client_id": token.client_id, "login": token.login, "represents": token.represents }))
}

/// The counter that a knob applies to, and whether it is switched on.
fn counter(query: &Query) -> Result<(u64, bool), Refusal> {
    Ok((query.number("counter")?.ok_or_else(|| Refusal::missing("counter"))?, !query.has("off")))
}

fn organisation(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let (counter, on) = counter(query)?;
    let counters = &mut shared.world().keyring.organisation;
    if on {
        counters.insert(counter)
    } else {
        counters.remove(&counter)
    };
    Ok(json!({ "organisation": counters }))
}

fn public(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let (counter, on) = counter(query)?;
    let mut world = shared.world();
    if on {
        world.counters.exists(counter);
        world.keyring.public.insert(counter);
    } else {
        world.keyring.public.remove(&counter);
    }
    Ok(json!({ "public": world.keyring.public }))
}

fn grant(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let (owner, (counter, _)) = (query.required("owner")?, counter(query)?);
    let word = query.required("permission")?;
    let levels = [Permission::View, Permission::Edit, Permission::Own];
    let permission = levels.into_iter().find(|level| level.as_str() == word);
    if permission.is_none() && word != "none" {
        return Err(Refusal::invalid("permission"));
    }
    let mut world = shared.world();
    world.counters.exists(counter);
    if !world.keyring.grant(owner, counter, permission) {
        return Err(Refusal::because(ErrorType::NotFound, "No token belongs to that account"));
    }
    Ok(json!({ "owner": owner, "counter": counter, "permission": word }))
}

fn restricted(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let name = query.required("name")?;
    let restricted = &mut shared.world().keyring.restricted;
    if query.has("off") {
        restricted.remove(name)
    } else {
        restricted.insert(name.to_owned())
    };
    Ok(json!({ "restricted": restricted }))
}

fn invalid(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let status = query.number("status")?.ok_or_else(|| Refusal::missing("status"))?;
    let status = answerable(status).ok_or_else(|| Refusal::invalid("status"))?;
    let name = query.get_or("error_type", ErrorType::InvalidToken.as_str());
    let error_type = ErrorType::parse(name).ok_or_else(|| Refusal::invalid("error_type"))?;
    let knobs = &mut shared.world().knobs;
    (knobs.invalid_status, knobs.invalid_type) = (status, error_type);
    Ok(json!({ "status": status.as_u16(), "error_type": name }))
}

fn wording(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let lang = query.get("lang");
    if lang.is_some_and(|lang| !matches!(lang, "en" | "ru")) {
        return Err(Refusal::invalid("lang"));
    }
    if lang.is_none() && query.get("error_type").is_none() {
        return Err(Refusal::missing("lang"));
    }
    let knobs = &mut shared.world().knobs;
    knobs.is_russian = lang.map_or(knobs.is_russian, |lang| lang == "ru");
    match (query.get("error_type"), query.get("message").filter(|message| !message.is_empty())) {
        (Some(error_type), Some(message)) => {
            knobs.wording.insert(error_type.to_owned(), message.to_owned());
        }
        (Some(error_type), None) => {
            knobs.wording.remove(error_type);
        }
        (None, _) => {}
    }
    Ok(json!({ "lang": if knobs.is_russian { "ru" } else { "en" }, "messages": knobs.wording }))
}

fn slow(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let milliseconds = query.number("ms")?.ok_or_else(|| Refusal::missing("ms"))?;
    let path = query.get_or("path", "").to_owned();
    let slow = &mut shared.world().knobs.slow;
    let ends_all = milliseconds == 0 && path.is_empty();
    slow.retain(|(prefix, _)| *prefix != path && !ends_all);
    if milliseconds > 0 {
        slow.push((path.clone(), Duration::from_millis(milliseconds)));
    }
    Ok(json!({ "path": path, "slow_ms": milliseconds }))
}

fn oauth(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let time = |name: &str, now: Duration| match query.get(name) {
        Some(text) => humantime::parse_duration(text).map_err(|_| Refusal::invalid(name)),
        None => Ok(now),
    };
    let flag = |name: &str, now: bool| if query.get(name).is_some() { query.has(name) } else { now };
    let mut world = shared.world();
    let manner = world.authority.manner();
    manner.lifetime = time("lifetime", manner.lifetime)?;
    manner.device_lifetime = time("device_lifetime", manner.device_lifetime)?;
    manner.interval = query.number_or("interval", manner.interval)?;
    manner.rotates = flag("rotates", manner.rotates);
    manner.ends_old = flag("ends_old", manner.ends_old);
    manner.needs_secret = flag("needs_secret", manner.needs_secret);
    Ok(json!({
        "lifetime": manner.lifetime.as_secs(),
        "device_lifetime": manner.device_lifetime.as_secs(),
        "interval": manner.interval,
        "rotates": manner.rotates,
        "ends_old": manner.ends_old,
        "needs_secret": manner.needs_secret,
    }))
}

/// The maximum size of a generated error, in bytes.
const HUGE: u32 = 64 * 1024 * 1024;

fn fail(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let name = query.required("error_type")?;
    let known = ErrorType::parse(name);
    let documented = Refusal::from(known.unwrap_or(ErrorType::BackendError));
    let status = match query.number("status")? {
        Some(status) => answerable(status).ok_or_else(|| Refusal::invalid("status"))?,
        None if known.is_some() => documented.status,
        None => return Err(Refusal::missing("status")),
    };
    let message = query.get("message").map_or(documented.message, |message| message.to_owned().into());
    let refusal = Refusal { status, error_type: name.to_owned().into(), message };
    let times = query.number_or("times", 1)?;
    let path = query.get_or("path", "").to_owned();
    let told = json!({ "status": status.as_u16(), "error_type": name, "times": times, "path": path });
    let form = match query.number("huge")? {
        Some(bytes) if bytes > 0 && bytes <= HUGE => Form::Huge(bytes),
        Some(_) => return Err(Refusal::invalid("huge")),
        None if query.has("html") => Form::Page,
        None if query.has("half") => Form::Half,
        None => Form::Json,
    };
    shared.world().knobs.fail = Some(Fail { refusal, form, is_packed: query.has("gzip"), times, path });
    Ok(told)
}

fn cut(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let after = query.number("after")?;
    let times = query.number_or("times", 1)?;
    let path = query.get_or("path", "").to_owned();
    let told = json!({ "after": after, "times": times, "path": path });
    shared.world().knobs.cut = Some(Cut { after, times, path });
    Ok(told)
}

fn part_bytes(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let bytes = query.number("n")?.ok_or_else(|| Refusal::missing("n"))?;
    shared.world().knobs.part_bytes = bytes;
    Ok(json!({ "part_bytes": bytes }))
}

fn logs(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let (reads, parts) = (query.number("reads")?, query.number("parts")?);
    let knobs = &mut shared.world().knobs;
    knobs.status_reads = reads.unwrap_or(if query.has("instant") { 0 } else { knobs.status_reads });
    knobs.parts = parts.unwrap_or(knobs.parts);
    Ok(json!({ "reads": knobs.status_reads, "parts": knobs.parts }))
}
