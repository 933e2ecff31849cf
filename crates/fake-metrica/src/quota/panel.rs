//! The knobs of the control panel for the quotas.

use std::time::Duration;

use http::StatusCode;
use metrica::login::{canonical, is_same};
use serde_json::{Value, json};

use super::lease::{Quotas, written};
use super::ledger::Outsider;
use super::{Charged, Limit, Quota, RefusedCount, TypeNames};
use crate::knobs::answerable;
use crate::query::Query;
use crate::refusal::{ErrorType, Refusal};
use crate::world::Shared;

const DAY: u64 = 24 * 60 * 60;

/// The former name of `by_ip`.
const PER_SECOND: &str = "per_second";

const SETTINGS: [&str; 8] =
    ["documented", "status", "names", "reports_type", "refused", "ulogin", "abandoned_ms", PER_SECOND];

/// Changes the limits that are named; a misspelt one would be off without a word, so it is refused.
pub fn quota(quotas: &Quotas, query: &Query) -> Result<Value, Refusal> {
    let is_known = |name: &str| SETTINGS.contains(&name) || Limit::ALL.iter().any(|limit| limit.as_str() == name);
    if let Some(unknown) = query.names().find(|name| !is_known(name)) {
        return Err(Refusal::because(ErrorType::InvalidParameter, format!("No such limit or setting: '{unknown}'")));
    }
    let mut quota = quotas.quota();
    if query.has("documented") {
        let documented = Quota::documented();
        Limit::ALL.into_iter().for_each(|limit| *quota.limit_mut(limit) = documented.limit(limit));
    }
    let off = |value: u32| Some(value).filter(|value| *value > 0);
    for limit in Limit::ALL {
        if let Some(value) = query.number(limit.as_str())? {
            *quota.limit_mut(limit) = off(value);
        }
    }
    quota.by_ip = query.number(PER_SECOND)?.map_or(quota.by_ip, off);
    form(&mut quota, query)?;
    let state = quota.state();
    quotas.set(quota);
    Ok(state)
}

/// Reads the settings that are not limits.
fn form(quota: &mut Quota, query: &Query) -> Result<(), Refusal> {
    let is_refusal = |status: &StatusCode| status.is_client_error() || status.is_server_error();
    if let Some(status) = query.number("status")? {
        quota.status = answerable(status).filter(is_refusal).ok_or_else(|| Refusal::invalid("status"))?;
    }
    if let Some(name) = query.get("reports_type") {
        let is_one = name.starts_with("quota_");
        quota.reports_type =
            Some(name.to_owned().into()).filter(|_| is_one).ok_or_else(|| Refusal::invalid("reports_type"))?;
    }
    if let Some(milliseconds) = query.number("abandoned_ms")? {
        quota.abandoned = Duration::from_millis(milliseconds);
    }
    quota.names =
        word(query, "names", quota.names, &[("live", TypeNames::Live), ("documented", TypeNames::Documented)])?;
    quota.ulogin =
        word(query, "ulogin", quota.ulogin, &[("owner", Charged::Owner), ("represented", Charged::Represented)])?;
    quota.refused = word(
        query,
        "refused",
        quota.refused,
        &[("nowhere", RefusedCount::Nowhere), ("day", RefusedCount::Day), ("everywhere", RefusedCount::Everywhere)],
    )?;
    Ok(())
}

/// One of several words, or the present value if the parameter is absent.
fn word<T: Copy>(query: &Query, name: &str, present: T, words: &[(&str, T)]) -> Result<T, Refusal> {
    let Some(word) = query.get(name) else { return Ok(present) };
    words.iter().find(|(known, _)| *known == word).map(|(_, value)| *value).ok_or_else(|| Refusal::invalid(name))
}

/// Returns the counts, then resets the maxima.
pub fn quota_use(quotas: &Quotas, query: &Query) -> Result<Value, Refusal> {
    let usage = json!(quotas.usage());
    if query.has("clear") {
        quotas.clear();
    }
    Ok(usage)
}

/// Lets an outsider use an account.
pub fn outsider(shared: &Shared, query: &Query) -> Result<Value, Refusal> {
    let owner = query.required("owner")?;
    let is_known = shared
        .world()
        .keyring
        .representatives()
        .any(|(login, represented)| is_same(login, owner) || represented.iter().any(|login| is_same(login, owner)));
    if !is_known {
        return Err(Refusal::because(ErrorType::NotFound, "No token is of that account"));
    }
    let lasting = query.number("ms")?.map_or(Duration::from_secs(DAY), Duration::from_millis);
    let slots = query.number("slots")?.map(|slots| (slots, lasting));
    let spent = |name| query.number::<u32>(name).map(|number| number.map_or(0, u64::from));
    let counters = match (query.number("counter")?, spent("counter_day")?) {
        (Some(counter), requests) => vec![(counter, requests)],
        (None, 0) => Vec::new(),
        (None, _) => return Err(Refusal::missing("counter")),
    };
    let outsider = Outsider { slots, day: spent("day")?, reports: spent("reports")?, counters };
    shared.quotas.outsider(owner, &outsider);
    Ok(json!(shared.quotas.usage().login(&canonical(owner))))
}

/// Moves the clock forward.
pub fn clock(quotas: &Quotas, query: &Query) -> Result<Value, Refusal> {
    if let Some(text) = query.get("forward") {
        quotas.forward(humantime::parse_duration(text).map_err(|_| Refusal::invalid("forward"))?);
    }
    if let Some(text) = query.get("to") {
        let to = time_of_day(text).ok_or_else(|| Refusal::invalid("to"))?;
        quotas.forward(until(quotas.now(), to));
    }
    Ok(json!({ "clock": written(quotas.now()) }))
}

/// A time of day such as `23:59:58`, in seconds.
fn time_of_day(text: &str) -> Option<Duration> {
    // A longer text would have a fraction or a zone of its own.
    let text = Some(text).filter(|text| text.len() == "23:59:58".len())?;
    let time = humantime::parse_rfc3339(&format!("1970-01-01T{text}Z")).ok()?;
    time.duration_since(std::time::UNIX_EPOCH).ok()
}

/// The time from `now` until the next such time of day; a whole day if it is that time.
fn until(now: Duration, time_of_day: Duration) -> Duration {
    let day = Duration::from_secs(DAY);
    let today = now - Duration::from_secs(now.as_secs() / DAY * DAY);
    if time_of_day > today { time_of_day - today } else { time_of_day + day - today }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Query {
        Query::parse(Some(text))
    }

    #[test]
    fn limits_are_set_and_ended() {
        let quotas = Quotas::new(Quota::default());
        let state = quota(&quotas, &parse("documented&day=7&grants=0&status=420&names=documented")).unwrap();
        assert_eq!((&state["parallel"], &state["day"], &state["grants"]), (&json!(3), &json!(7), &Value::Null));
        let expected = Quota {
            day: Some(7),
            grants: None,
            status: StatusCode::from_u16(420).unwrap(),
            names: TypeNames::Documented,
            ..Quota::documented()
        };
        assert_eq!(quotas.quota(), expected);
        quota(
            &quotas,
            &parse("refused=everywhere&ulogin=represented&reports_type=quota_x&abandoned_ms=5&per_second=2"),
        )
        .unwrap();
        let expected = Quota {
            refused: RefusedCount::Everywhere,
            ulogin: Charged::Represented,
            reports_type: "quota_x".into(),
            abandoned: Duration::from_millis(5),
            by_ip: Some(2),
            ..expected
        };
        assert_eq!(quotas.quota(), expected);
    }

    #[test]
    fn a_mistake_changes_nothing() {
        let quotas = Quotas::new(Quota::default());
        for text in [
            "day=7&paralel=3",
            "day=-1",
            "day=7&status=200",
            "day=7&status=99",
            "day=7&names=x",
            "day=7&reports_type=x",
            "day=7&refused=",
        ] {
            assert!(quota(&quotas, &parse(text)).is_err(), "{text}");
            assert_eq!(quotas.quota(), Quota::default(), "{text}");
        }
    }

    #[test]
    fn the_clock_moves_to_the_next_time_of_day() {
        let at = |text: &str| time_of_day(text).unwrap() + Duration::from_secs(20_000 * DAY);
        for (now, to, seconds) in [
            ("23:59:58", "00:00:00", 2),
            ("00:00:00", "00:00:00", DAY),
            ("12:00:00", "23:59:58", 12 * 60 * 60 - 2),
            ("12:00:01", "12:00:00", DAY - 1),
        ] {
            assert_eq!(until(at(now), time_of_day(to).unwrap()).as_secs(), seconds, "{now} to {to}");
        }
        for text in ["24:00:00", "1:00", "", "00:00:00Z"] {
            assert_eq!(time_of_day(text), None, "{text}");
        }
        let quotas = Quotas::new(Quota::default());
        assert!(clock(&quotas, &parse("to=23:59:58")).unwrap()["clock"].as_str().unwrap().contains("T23:59:5"));
        assert!(clock(&quotas, &parse("forward=soon")).is_err());
        for _ in 0..3 {
            let moved = clock(&quotas, &parse("forward=9000years")).unwrap();
            assert!(moved["clock"].as_str().unwrap() > "9000", "{moved}");
        }
    }
}
