//! The sections of the status page about callers, tokens and refusals.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::page_parts::{absent, lasting, number, section, span, table, text, time, time_or_absent};
use super::page_plots::{Series, highest, legend, small, stacked};
use super::status_page::Facts;
use crate::metrics::overview::{CallerFigures, Sample};
use crate::metrics::{Origin, Refusal};
use crate::policy::caller::{Caller, Condition, ConditionKind, Conditions};
use crate::policy::names::CallerId;
use crate::policy::rules::{List, Rules};
use crate::worker::Slot;

/// The maximum number of callers in the table; `/usage` has all of them.
const CALLERS: usize = 200;

/// The maximum number of values of one condition or rule that are listed.
const VALUES: usize = 4;

/// The refusals of the last hour: two plots, and a row for each reason.
pub fn refusals(facts: &Facts<'_>) -> Markup {
    let count = |minute: &Sample, origin: Origin| -> u64 {
        minute.refusals.iter().filter(|(refusal, _)| refusal.origin() == origin).map(|(_, count)| count).sum()
    };
    let series = |class, name, origin| Series {
        class,
        name,
        values: facts.minutes.iter().map(|minute| as_value(count(minute, origin))).collect(),
    };
    let both = [
        series("gate", "refused by the gate", Origin::Gate),
        series("metrica", "refused by Metrica", Origin::Upstream),
    ];
    let sums: Vec<u64> = [Origin::Gate, Origin::Upstream]
        .map(|origin| facts.minutes.iter().map(|minute| count(minute, origin)).sum())
        .into();
    let mut reasons: BTreeMap<Refusal, u64> = BTreeMap::new();
    for (refusal, count) in facts.minutes.iter().flat_map(|minute| &minute.refusals) {
        *reasons.entry(*refusal).or_default() += count;
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let row = |(refusal, count): &(Refusal, u64)| reason(*refusal, *count, &facts.minutes);
    let rows: Vec<_> = reasons.iter().map(row).collect();
    let columns = [
        ("Reason", false),
        ("From", false),
        ("Last hour", false),
        ("Count", true),
        ("What it means, and the remedy", false),
    ];
    let most = format!("{} a minute", highest(&both));
    let total: u64 = sums.iter().sum();
    let content = html! {
        @if total == 0 {
            p class="quiet" { "No response had the status 401 or 403 in the last hour." }
        } @else {
            (stacked(&format!("Responses with 401 or 403 in each minute of the last hour: {total} in all"), &both, &most))
            (legend(&both, |one| number(sums.iter().zip(["gate", "metrica"]).filter(|(_, class)| *class == one.class).map(|(sum, _)| *sum).sum())))
            (table("reasons", "Refusals of the last hour by reason", &columns, &rows))
        }
    };
    section("refusals", "401 and 403 in the last hour", &content)
}

/// Returns the row of one reason.
fn reason(refusal: Refusal, count: u64, minutes: &[Sample]) -> Vec<Markup> {
    let values = minutes.iter().map(|minute| minute.refusals.get(&refusal).map_or(0.0, |count| as_value(*count)));
    let (class, origin) = match refusal.origin() {
        Origin::Gate => ("gate", "gate"),
        Origin::Upstream => ("metrica", "Metrica"),
    };
    let title = format!("{count} in the last hour");
    let explained = match refusal {
        Refusal::Gate(reason) => text(reason.answer().message),
        Refusal::Upstream(cause) => text(cause.advice()),
    };
    vec![
        html! { code { (refusal.reason()) } },
        html! { span class={ "badge " (class) } { (origin) } },
        small(&title, class, values.collect()),
        text(number(count)),
        explained,
    ]
}

/// A count as a value of a plot.
#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a plot needs no more than 53 bits")]
pub fn as_value(count: u64) -> f64 {
    count as f64
}

/// The callers: their identity, their rights and their use.
pub fn callers(facts: &Facts<'_>) -> Markup {
    let all = facts.generation.policy.callers.all();
    let figures = |id: CallerId| facts.overview.callers.get(&Some(id)).copied();
    let mut shown: Vec<_> = all.iter().map(|caller| (caller, figures(caller.id))).collect();
    if shown.len() > CALLERS {
        // The most recently used ones first; the others keep the order of the configuration.
        shown.sort_by_key(|(_, figures)| (figures.is_none(), figures.and_then(|figures| figures.last)));
    }
    let mut rows: Vec<_> = shown.iter().take(CALLERS).map(|(caller, figures)| row(caller, *figures)).collect();
    if let Some(unknown) = facts.overview.callers.get(&None) {
        let none = || text("no entry under callers matches the connection");
        rows.push([vec![html! { em { "unknown" } }, none(), absent(), absent()], use_of(Some(*unknown))].concat());
    }
    let columns = [
        ("Caller", false),
        ("Identified by", false),
        ("Rights", false),
        ("Tokens", false),
        ("Last request", false),
        ("In flight", true),
        ("Requests", true),
        ("Refused by the gate", true),
        ("Refused by Metrica", true),
    ];
    let content = html! {
        (table("callers-table", "Callers", &columns, &rows))
        @if all.len() > CALLERS {
            p class="quiet" {
                "The " (CALLERS) " most recently used of " (number(strict_http::number::count(all.len())))
                " callers. " a href="/usage" { "/usage" } " has all that sent requests."
            }
        }
    };
    section("callers", "Callers", &content)
}

fn row(caller: &Caller, figures: Option<CallerFigures>) -> Vec<Markup> {
    let tokens = html! { @for token in &caller.tokens { span class="name" { (token.as_str()) } " " } };
    let identity = vec![text(caller.id.as_str()), identity(&caller.conditions), rights(caller), tokens];
    [identity, use_of(figures)].concat()
}

fn use_of(figures: Option<CallerFigures>) -> Vec<Markup> {
    let zero = || text("0");
    let Some(figures) = figures else { return vec![never(), zero(), zero(), zero(), zero()] };
    let refused = |count: u64| {
        if count == 0 {
            zero()
        } else {
            html! { b { (number(count)) } }
        }
    };
    vec![
        figures.last.map_or_else(never, |last| text(format!("{} ago", span(last)))),
        text(figures.in_flight),
        text(number(figures.requests)),
        refused(figures.refused_by_gate),
        refused(figures.refused_by_upstream),
    ]
}

fn never() -> Markup {
    html! { span class="absent" { "never" } }
}

/// Lists at most [`VALUES`] values.
fn listed<T: std::fmt::Display>(values: &[T]) -> String {
    let shown: Vec<_> = values.iter().take(VALUES).map(ToString::to_string).collect();
    let more = values.len().saturating_sub(VALUES);
    let shown = shown.join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// The conditions on a caller's connections.
fn identity(conditions: &Conditions) -> Markup {
    let condition = |condition: &Condition| {
        let values = match condition {
            Condition::Listener(name) => name.to_string(),
            Condition::Source(networks) => listed(networks),
            Condition::Uid(ids) | Condition::Gid(ids) => listed(ids),
            // Not even the hash of a key (rule 4 of the page).
            Condition::Key(hashes) if hashes.len() == 1 => "one key".to_owned(),
            Condition::Key(hashes) => format!("one of {} keys", hashes.len()),
            Condition::San(names) => listed(names),
            Condition::ServiceAccount(accounts) => listed(accounts),
        };
        let kind = match condition.kind() {
            ConditionKind::Key => "key",
            kind @ (ConditionKind::Listener
            | ConditionKind::Source
            | ConditionKind::Uid
            | ConditionKind::Gid
            | ConditionKind::San
            | ConditionKind::ServiceAccount) => kind.key(),
        };
        (kind, values)
    };
    html! {
        @if conditions.is_empty() { "every connection" }
        @for (kind, values) in conditions.iter().map(condition) {
            span class="pair" { span class="kind" { (kind) } " " (values) } " "
        }
    }
}

/// The scopes of a caller, and the rules that limit it.
fn rights(caller: &Caller) -> Markup {
    let rules = limits(&caller.rules);
    html! {
        (caller.scopes.to_string())
        @for rule in rules { " " span class="pair" { (rule) } }
        @if caller.strict { " " span class="pair" { "strict" } }
        @if !caller.rules.enforce { " " span class="badge warn" { "not enforced" } }
    }
}

/// The rules that limit a caller within its scopes.
fn limits(rules: &Rules) -> Vec<String> {
    let Rules {
        counters,
        logins,
        ulogin_absent,
        grantees,
        list,
        destructive,
        sharing,
        callback,
        measurement_tokens,
        enforce: _,
    } = rules;
    let filters = counters.is_some() && *list == List::Filter;
    [
        counters.as_ref().map(|counters| format!("counters: {}", listed(counters))),
        filters.then(|| "list: filter".to_owned()),
        logins.as_ref().map(|logins| format!("ulogin: {}", listed(logins))),
        (!ulogin_absent).then(|| "ulogin required".to_owned()),
        grantees.as_ref().map(|grantees| format!("grantees: {}", listed(grantees))),
        (!destructive).then(|| "destructive: deny".to_owned()),
        (!sharing).then(|| "sharing: deny".to_owned()),
        callback.then(|| "callback: allow".to_owned()),
        measurement_tokens.then(|| "measurement_tokens: allow".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The tokens, by alias.
pub fn tokens(facts: &Facts<'_>) -> Markup {
    let columns = [
        ("Token", false),
        ("State", false),
        ("Owner", false),
        ("Scopes", false),
        ("Age", false),
        ("Expires", false),
        ("Last success", false),
        ("Requests", true),
        ("Counters known", true),
    ];
    let rows: Vec<_> = facts.generation.tokens.iter().map(|slot| token(slot, facts)).collect();
    section("tokens", "Tokens", &table("tokens-table", "Tokens", &columns, &rows))
}

fn token(slot: &Slot, facts: &Facts<'_>) -> Vec<Markup> {
    let state = facts.state.token_states.get(&slot.alias);
    let name = state
        .and_then(|state| state.states().into_iter().find(|(_, holds)| *holds))
        .map_or("missing", |(name, _)| name);
    let class = match name {
        "healthy" => "good",
        "suspect" => "warn",
        _ => "bad",
    };
    let since = state.map(|state| state.since);
    let standby = slot.standby.and_then(|position| facts.generation.tokens.get(position));
    let age = state.map(|state| (state.issued, state.loaded_at)).filter(|(_, loaded)| *loaded > 0);
    let age = age.map_or_else(absent, |(issued, loaded)| match issued {
        Some(issued) => html! { "issued " (time(issued, facts.now)) },
        None => html! { "loaded " (time(loaded, facts.now)) },
    });
    let counters = facts.overview.token_counters.get(&slot.alias);
    vec![
        text(slot.alias.as_str()),
        html! {
            span class={ "badge " (class) } { (name) }
            @if let Some(since) = since { " for " (lasting(since, facts.now)) }
            @if let Some(standby) = standby {
                @let in_use = state.is_some_and(|state| state.standby_in_use == Some(true));
                " " span class="pair" { span class="kind" { "standby" } " " (standby.alias.as_str()) @if in_use { " (in use)" } }
            }
        },
        slot.owner.as_deref().map_or_else(absent, text),
        text(slot.scopes.to_string()),
        age,
        time_or_absent(state.and_then(|state| state.expires), facts.now),
        time_or_absent(state.and_then(|state| state.worked_at), facts.now),
        text(number(facts.overview.token_requests.get(&slot.alias).map_or(0, |requests| *requests))),
        counters.map_or_else(absent, |counters| text(number(strict_http::number::count(*counters)))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::names::ListenerName;
    use crate::policy::proof::KeyHash;

    #[test]
    fn it_names_no_key_and_no_hash_of_one() {
        let hash = KeyHash::of(b"mgk_0123456789");
        let shown = |hashes: &[KeyHash]| {
            let key = Condition::Key(hashes.into());
            identity(&Conditions::new([Condition::Listener(ListenerName::new("app")), key]).unwrap()).into_string()
        };
        for page in [shown(&[hash]), shown(&[hash, KeyHash::of(b"mgk_9876543210")])] {
            assert!(page.contains("<span class=\"kind\">key</span> one") && page.contains("listener"), "{page}");
            assert!(!page.contains(&hash.to_string()[..4]), "no part of the hash is shown: {page}");
        }
        assert!(identity(&Conditions::ANYONE).into_string().contains("every connection"));
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(listed(&[1, 2, 3, 4]), "1, 2, 3, 4");
        assert_eq!(listed(&[1, 2, 3, 4, 5, 6]), "1, 2, 3, 4 and 2 more");
    }
}
