//! The rights of a caller as derived from its requests, compared with its current rights.
//!
//! 1. They are the fewest that cover its operations and the counters and logins it named. `destructive: allow`,
//!    `sharing: allow`, `measurement_tokens: allow` and `ulogin_absent: allow` are included only where needed.
//! 2. `counters` is stated only if it would cover every counted request: no request works on the whole account, lacks
//!    a required counter, or names one that its line does not show. Otherwise a comment gives the reason.
//! 3. If `counters` or `ulogin` is configured and no line shows a used value, it stays unchanged, because removing it
//!    would widen the rights.
//! 4. Any right that the caller did not have before is a widening, and is reported. Settings that lines do not show
//!    stay unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use metrica::scope::{Scope, ScopeSet};

use super::lines::{SHOWN, first_of};
use super::needs::SeenRequests;
use crate::policy::rules::{List, Rules};

/// The rights of a caller.
#[derive(Debug, Clone, Default)]
pub(super) struct Rights {
    pub(super) scopes: ScopeSet,
    pub(super) rules: Rules,
}

impl Rights {
    /// Returns the rights that `seen` needs, for a caller with the rights `known`, and comments about them.
    pub(super) fn drawn(seen: &SeenRequests, known: &Self) -> (Self, Vec<String>) {
        let mut comments = Vec::new();
        let (counters, used) = (counters(seen, &known.rules, &mut comments), !seen.logins.is_empty());
        let stated = counters.is_some();
        let list = if stated && seen.lists { List::Filter } else { List::Refuse };
        if stated && seen.has_bodies {
            comments
                .push("access lines do not contain the counters of request bodies; add those to counters".to_owned());
        }
        let beyond = !seen.beyond_logins.is_empty();
        let logins: Option<BTreeSet<&str>> = match &known.rules.logins {
            Some(listed) if beyond || (!used && !stated) => {
                let kept = listed.iter().map(|login| &**login);
                Some(kept.chain(seen.logins.iter().map(String::as_str)).collect())
            }
            None if beyond && !stated => None,
            _ => used.then(|| seen.logins.iter().map(String::as_str).collect()),
        };
        let instead = if logins.is_some() { "ulogin kept" } else { "ulogin omitted" };
        comments.extend(seen.beyond_logins.iter().map(|against| format!("{instead}: {against}")));
        let by_default = Rules::allows_absent_ulogin(logins.is_some(), stated);
        let unnamed = logins.is_none() && stated;
        let stays_destructive = known.rules.destructive && !seen.perhaps_destructive.is_empty();
        comments.extend(of_settings(seen, stays_destructive));
        let rules = Rules {
            counters,
            logins: logins.map(|logins| logins.into_iter().map(Into::into).collect()),
            list,
            // With `counters` alone, no login could be named.
            ulogin_absent: seen.without_login || (known.rules.ulogin_absent && by_default) || unnamed,
            grantees: known.rules.grantees.clone(),
            destructive: !seen.destructive.is_empty() || stays_destructive,
            sharing: !seen.shares.is_empty(),
            measurement_tokens: known.rules.measurement_tokens || !seen.secrets.is_empty(),
            ..known.rules
        };
        (Self { scopes: narrowest(&seen.needs, known.scopes), rules }, comments)
    }

    /// Returns the minimal rights, for a caller without known ones.
    pub(super) fn least() -> Self {
        let rules = Rules { destructive: false, sharing: false, ..Rules::default() };
        Self { scopes: ScopeSet::EMPTY, rules }
    }

    /// Writes the rights as keys of a caller.
    pub(super) fn keys(&self, text: &mut String, seen: &SeenRequests) -> std::fmt::Result {
        let Self { scopes, rules } = self;
        writeln!(text, "    scopes: {}", quoted(scopes.iter().map(Scope::as_str)))?;
        if let Some(counters) = &rules.counters {
            writeln!(text, "    counters: {}", numbers(counters))?;
            if rules.list == List::Filter {
                writeln!(text, "    list: filter")?;
            }
        }
        if let Some(logins) = &rules.logins {
            writeln!(text, "    ulogin: {}", quoted(logins.iter().map(|login| &**login)))?;
        }
        if rules.ulogin_absent != Rules::allows_absent_ulogin(rules.logins.is_some(), rules.counters.is_some()) {
            writeln!(text, "    ulogin_absent: {}", if rules.ulogin_absent { "allow" } else { "deny" })?;
        }
        if let Some(grantees) = &rules.grantees {
            writeln!(
                text,
                "    grantees: {}   # unchanged: not visible in access lines",
                quoted(grantees.iter().map(|one| &**one))
            )?;
        }
        allowed(text, "destructive", rules.destructive, &seen.destructive)?;
        allowed(text, "sharing", rules.sharing, &seen.shares)?;
        if rules.callback {
            writeln!(text, "    callback: allow   # unchanged: not visible in access lines")?;
        }
        match (rules.measurement_tokens, seen.secrets.is_empty()) {
            (false, _) => {}
            (true, true) => writeln!(text, "    measurement_tokens: allow   # unchanged: not visible in access lines")?,
            (true, false) => allowed(text, "measurement_tokens", true, &seen.secrets)?,
        }
        if !rules.enforce {
            writeln!(text, "    enforce: false   # unchanged")?;
        }
        Ok(())
    }

    /// Returns the rights that `known` lacks (rule 4), each with the operations that need it.
    pub(super) fn widened(&self, known: &Self, seen: &SeenRequests) -> Vec<String> {
        let (now, before) = (&self.rules, &known.rules);
        let mut widened = Vec::new();
        let mut say = |right: &str, what: String| {
            let operations = seen.beyond_given.get(right).map(operations);
            widened
                .push(format!("{right} {what}{}", operations.map_or_else(String::new, |said| format!(", for {said}"))));
        };
        if !known.scopes.with_implied().contains_all(self.scopes.with_implied()) {
            say("scopes", format!("[{}] -> [{}]", known.scopes, self.scopes));
        }
        if let Some(had) = &before.counters {
            match &now.counters {
                Some(has) if has.iter().all(|counter| had.contains(counter)) => {}
                Some(has) => say("counters", format!("{} -> {}", numbers(had), numbers(has))),
                None => say("counters", format!("{} -> none", numbers(had))),
            }
        }
        let (had, has) = (logins_of(before), logins_of(now));
        if let Some(had) = had
            && has.is_none_or(|has| has.iter().any(|login| !had.contains(login)))
        {
            let said = |logins: Option<&[Box<str>]>| {
                logins.map_or_else(|| "any".to_owned(), |all| format!("[{}]", all.join(", ")))
            };
            say("ulogin", format!("{} -> {}", said(Some(had)), said(has)));
        }
        if before.counters.is_some() && before.list == List::Refuse && now.list == List::Filter {
            say("list", "refuse -> filter".to_owned());
        }
        for (key, before, now) in [
            ("ulogin_absent", before.ulogin_absent, now.ulogin_absent),
            ("destructive", before.destructive, now.destructive),
            ("sharing", before.sharing, now.sharing),
            ("measurement_tokens", before.measurement_tokens, now.measurement_tokens),
        ] {
            if now && !before {
                say(key, "deny -> allow".to_owned());
            }
        }
        widened
    }
}

/// Writes `key` as allowed or denied, with the operations that need it.
fn allowed(text: &mut String, key: &str, is_allowed: bool, needing: &BTreeSet<String>) -> std::fmt::Result {
    let needing: Vec<_> = needing.iter().map(String::as_str).collect();
    match (is_allowed, needing.is_empty()) {
        (false, _) => writeln!(text, "    {key}: deny"),
        (true, true) => writeln!(text, "    {key}: allow"),
        (true, false) => writeln!(text, "    {key}: allow   # for {}", needing.join(", ")),
    }
}

/// Returns a comment on operations that are destructive only with certain settings.
fn of_settings(seen: &SeenRequests, stays: bool) -> Option<String> {
    let operations: Vec<_> = seen.perhaps_destructive.iter().map(String::as_str).collect();
    let then = if stays { "destructive is unchanged" } else { "destructive is denied" };
    let said = || format!("access lines do not show whether {} had destructive effects; {then}", operations.join(", "));
    seen.destructive.is_empty().then_some(()).filter(|()| !operations.is_empty()).map(|()| said())
}

/// Returns the value of `counters` (rules 2 and 3).
fn counters(seen: &SeenRequests, known: &Rules, comments: &mut Vec<String>) -> Option<std::sync::Arc<[u64]>> {
    let instead =
        if known.counters.is_some() && seen.beyond_counters.is_empty() { "counters kept" } else { "counters omitted" };
    comments.extend(seen.beyond_counters.iter().map(|against| format!("counters omitted: {against}")));
    let hidden = |operation| format!("{instead}: a line of {operation} does not show all counters of its request");
    comments.extend(seen.more_counters.iter().map(hidden));
    if !seen.beyond_counters.is_empty() {
        return None;
    }
    let used = seen.counters.iter().copied();
    match &known.counters {
        Some(listed) if seen.counters.is_empty() => {
            comments.push("counters unchanged: no counted line names one".to_owned());
            Some(listed.clone())
        }
        Some(listed) if !seen.more_counters.is_empty() => {
            Some(listed.iter().copied().chain(used).collect::<BTreeSet<_>>().into_iter().collect())
        }
        Some(_) => Some(used.collect()),
        None if !seen.more_counters.is_empty() => None,
        None if seen.counters.is_empty() => {
            comments.push("counters omitted: no line names one".to_owned());
            None
        }
        // With `counters` and without `ulogin`, no login would be allowed.
        None if !seen.beyond_logins.is_empty() && known.logins.is_none() => {
            comments.push("counters omitted: lines have logins that a configuration cannot list".to_owned());
            None
        }
        None => Some(used.collect()),
    }
}

/// Returns the logins that `rules` allow; `None` means all.
fn logins_of(rules: &Rules) -> Option<&[Box<str>]> {
    match (&rules.logins, &rules.counters) {
        (Some(logins), _) => Some(logins),
        (None, Some(_)) => Some(&[]),
        (None, None) => None,
    }
}

/// Lists the first operations, each with its count.
pub(super) fn operations(times: &BTreeMap<String, u64>) -> String {
    let shown: Vec<_> = times.iter().take(SHOWN).map(|(operation, times)| format!("{times} {operation}")).collect();
    first_of(&shown, times.len())
}

/// Returns the smallest set that covers all `needs`: with the fewest scopes that `known` lacks, then the fewest
/// allowed scopes, then the fewest names.
pub(super) fn narrowest(needs: &BTreeSet<usize>, known: ScopeSet) -> ScopeSet {
    let covers = |set: &ScopeSet| needs.iter().all(|index| set.covers(ScopeSet::from_index(*index)));
    let sets = (0..ScopeSet::COUNT).map(ScopeSet::from_index).filter(covers);
    let more = |set: ScopeSet| set.with_implied().iter().filter(|scope| !known.with_implied().contains(*scope)).count();
    sets.min_by_key(|set| (more(*set), set.with_implied().len(), set.len())).unwrap_or_default()
}

fn numbers(counters: &[u64]) -> String {
    let counters: Vec<_> = counters.iter().map(u64::to_string).collect();
    format!("[{}]", counters.join(", "))
}

/// Returns a YAML list of quoted names, which need no escaping.
pub(super) fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = names.map(|name| format!("\"{name}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_1_rights_are_the_fewest() {
        let set = |scopes: &[Scope]| scopes.iter().copied().collect::<ScopeSet>();
        let needs = |sets: &[&[Scope]], known: &[Scope]| {
            narrowest(&sets.iter().map(|scopes| set(scopes).index()).collect(), set(known)).to_string()
        };
        let (read, write, expenses) = (Scope::Read, Scope::Write, Scope::Expenses);
        assert_eq!(needs(&[&[read]], &[]), "metrika:read");
        assert_eq!(needs(&[&[write, expenses]], &[]), "metrika:expenses");
        assert_eq!(needs(&[&[write, expenses], &[write]], &[]), "metrika:write");
        assert_eq!(needs(&[&[read], &[write, expenses]], &[]), "metrika:read, metrika:expenses");
        assert_eq!(needs(&[&[read, write]], &[]), "metrika:read");
        assert_eq!(needs(&[&[read, write]], &[write]), "metrika:write", "what the caller has comes first");
        assert_eq!(needs(&[&[write, expenses]], &[write]), "metrika:expenses", "which write implies");
    }

    /// Rule 3: without its configured `ulogin`, a caller that named no login could use every login.
    #[test]
    fn rule_3_an_unused_restriction_is_not_dropped() {
        let mut seen = SeenRequests::default();
        let mut known = Rights::default();
        known.rules.logins = Some(["x".into()].into());
        let (rights, _) = Rights::drawn(&seen, &known);
        assert_eq!(rights.rules.logins.as_deref(), Some(&["x".into()][..]));
        assert!(rights.widened(&known, &seen).is_empty());
        seen.counters.insert(1);
        let (rights, _) = Rights::drawn(&seen, &known);
        assert_eq!(
            (rights.rules.counters.as_deref(), rights.rules.logins),
            (Some(&[1][..]), None),
            "none beside counters"
        );
        known.rules.counters = Some([1, 2].into());
        seen.more_counters.insert("report.table".to_owned());
        let (rights, said) = Rights::drawn(&seen, &known);
        assert_eq!(rights.rules.counters.as_deref(), Some(&[1, 2][..]), "{said:?}");
    }
}
