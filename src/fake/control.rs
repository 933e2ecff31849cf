//! The control panel, below `/_fake/`: POST, or GET where a short curl line is wanted. Not part of the API.

use std::time::Duration;

use http::Method;
use http::request::Parts;
use serde_json::{Value, json};

use super::answer::Answer;
use super::knobs::{Cut, Fail, answerable};
use super::query::Query;
use super::refusal::{ErrorType, Refusal};
use super::world::Shared;

/// The knobs: name, parameters, effect.
const KNOBS: &[(&str, &str, &str)] = &[
    ("revoke", "token", "the token is invalid"),
    ("restore", "token", "the token is valid again"),
    ("slow", "ms, path", "answers to paths with that prefix come later; 0 ends it, without a path every one"),
    (
        "fail",
        "error_type, status, message, times, path, html",
        "the next answers are this error; without status the documented one; with html a page in place of JSON",
    ),
    (
        "break",
        "after, times, path",
        "the next answers break off after that many bytes of the body; without after, before the status line",
    ),
    ("part_bytes", "n", "the size of every log part"),
    (
        "logs",
        "reads, parts, instant",
        "how often a log request is read as created before it is processed (instant: 0); how many parts it has",
    ),
    ("quota", "parallel, per_second", "enforces limits per account and per address; 0 ends it"),
    ("state", "", "what was received so far, and the knobs in force, without secrets"),
    ("reset", "", "everything is as at the start; POST only"),
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

/// Turns a knob.
pub fn answer(shared: &Shared, knob: &str, head: &Parts) -> Answer {
    let query = Query::parse(head.uri.query());
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    let outcome = if !is_read && head.method != Method::POST {
        Err(ErrorType::MethodNotAllowed.into())
    } else {
        match (knob, is_read) {
            ("reset", true) => Err(ErrorType::MethodNotAllowed.into()),
            ("reset", false) => {
                shared.reset();
                Ok(json!({ "reset": true }))
            }
            ("", _) => Ok(knobs()),
            ("revoke", _) => set_revoked(shared, &query, true),
            ("restore", _) => set_revoked(shared, &query, false),
            ("slow", _) => slow(shared, &query),
            ("fail", _) => fail(shared, &query),
            ("break", _) => cut(shared, &query),
            ("part_bytes", _) => part_bytes(shared, &query),
            ("logs", _) => logs(shared, &query),
            ("quota", _) => quota(shared, &query),
            ("state", _) => Ok(shared.world().state()),
            _ => Err(Refusal::because(ErrorType::NotFound, "No such knob; GET /_fake/ lists them")),
        }
    };
    match outcome {
        // For eyes: a curl line is all that ever calls this by hand.
        Ok(value) => Answer::json(&value, true),
        Err(refusal) => Answer::from(&refusal),
    }
}

fn knobs() -> Value {
    let knob = |(name, parameters, effect): &(&str, &str, &str)| json!({ "knob": format!("/_fake/{name}"), "parameters": parameters, "effect": effect });
    KNOBS.iter().map(knob).collect()
}

fn set_revoked(shared: &Shared, query: &Query, revoked: bool) -> Result<Value, Refusal> {
    if shared.world().keyring.set_revoked(query.required("token")?, revoked) {
        Ok(json!({ "revoked": revoked }))
    } else {
        Err(Refusal::because(ErrorType::NotFound, "No such token"))
    }
}

fn slow(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let milliseconds = query.number("ms")?.ok_or_else(|| Refusal::missing("ms"))?;
    let path = query.get("path").unwrap_or_default().to_owned();
    let slow = &mut shared.world().knobs.slow;
    let ends_all = milliseconds == 0 && path.is_empty();
    slow.retain(|(prefix, _)| *prefix != path && !ends_all);
    if milliseconds > 0 {
        slow.push((path.clone(), Duration::from_millis(milliseconds)));
    }
    Ok(json!({ "path": path, "slow_ms": milliseconds }))
}

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
    let times = query.number("times")?.unwrap_or(1);
    let path = query.get("path").unwrap_or_default().to_owned();
    let told = json!({ "status": status.as_u16(), "error_type": name, "times": times, "path": path });
    shared.world().knobs.fail = Some(Fail { refusal, is_page: query.has("html"), times, path });
    Ok(told)
}

fn cut(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let after = query.number("after")?;
    let times = query.number("times")?.unwrap_or(1);
    let path = query.get("path").unwrap_or_default().to_owned();
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

fn quota(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let (parallel, per_second) = (query.number("parallel")?, query.number("per_second")?);
    let quota = &mut shared.world().quota;
    quota.parallel = parallel.unwrap_or(quota.parallel);
    quota.per_second = per_second.unwrap_or(quota.per_second);
    Ok(json!({ "parallel": quota.parallel, "per_second": quota.per_second }))
}
