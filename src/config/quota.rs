//! The key `quota`, and the key of the same name of a caller.

use metrica::login;

use super::reader::{At, Findings, Table};
use super::store::Store;
use super::{TokenSource, name, name_text, timeout};
use crate::policy::names::CallerId;
use crate::quota::{Bounds, CallerSettings, Class, EgressName, LimitName, Limits, Mode, OwnerName, SECOND, Settings};

/// The quotas of Metrica, and how callers share them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// The limits.
    pub limits: Limits,
    /// The bounds of the queue.
    pub bounds: Bounds,
    /// The mode of all limits that state none, and of the budgets of callers.
    pub mode: Mode,
    /// The name of the address that requests leave from.
    pub egress: EgressName,
    /// The number of gates that use the same accounts.
    pub replicas: u32,
    /// The store in which they share the limits, if any.
    pub store: Option<Store>,
}

/// The part of a caller in the quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallerQuota {
    /// The class of its requests.
    pub class: Class,
    /// The weight, the longest wait and the budgets; `None` without the key.
    pub settings: Option<CallerSettings>,
}

/// The caller of the gate's own requests; no caller of a configuration can have this name.
pub const OWN: &str = "none";

impl Quota {
    /// Returns the settings of the broker.
    #[must_use]
    pub fn settings(&self, tokens: &[TokenSource], callers: &[(CallerId, CallerQuota)]) -> Settings {
        let of_caller = |(id, quota): &(CallerId, CallerQuota)| quota.settings.unwrap_or(CallerSettings::new(*id));
        let own = CallerSettings { wait: 10 * SECOND, ..CallerSettings::new(CallerId::new(OWN)) };
        Settings {
            limits: self.limits.clone(),
            bounds: self.bounds,
            budgets: self.mode,
            owners: tokens.iter().map(owner).collect(),
            egresses: vec![self.egress],
            callers: callers.iter().map(of_caller).chain([own]).collect(),
        }
    }
}

/// Returns the owner whose limits a token shares: the configured one, or the token itself.
#[must_use]
pub fn owner(token: &TokenSource) -> OwnerName {
    match &token.origin.owner {
        Some(login) => OwnerName::new(&login::canonical(login)),
        None => OwnerName::new(token.alias.as_str()),
    }
}

/// Reads `quota`.
pub fn quota(at: Option<&At<'_>>, findings: &mut Findings) -> Option<Option<Quota>> {
    let Some(at) = at else { return Some(None) };
    let table = at.table(findings, &["mode", "egress", "limits", "queue", "replicas", "store"])?;
    let mode = table.optional("mode").map_or(Some(Mode::Enforce), |at| mode(&at, findings));
    let egress = table.optional("egress").map_or(Some("default"), |at| name(&at, findings));
    let replicas = table.optional("replicas").map_or(Some(1), |at| at.integer(findings, 1..=1000));
    let limits = limits(table.optional("limits").as_ref(), mode.map_or(Mode::Enforce, |mode| mode), findings);
    let bounds = bounds(table.optional("queue").as_ref(), findings);
    let store = table.optional("store").map(|at| super::store::store(&at, findings));
    let (mode, egress, replicas) = (mode?, EgressName::new(egress?), u32::try_from(replicas?).ok()?);
    let store = store.map_or(Some(None), |read| read.map(Some))?;
    // Gates that share a store need no fixed parts.
    let limits = if store.is_some() { limits? } else { limits?.divided(replicas) };
    Some(Some(Quota { limits, bounds: bounds?, mode, egress, replicas, store }))
}

fn mode(at: &At<'_>, findings: &mut Findings) -> Option<Mode> {
    at.text(findings, |text| match text {
        "enforce" => Ok(Mode::Enforce),
        "observe" => Ok(Mode::Observe),
        "off" => Ok(Mode::Off),
        _ => Err("enforce, observe or off".to_owned()),
    })
}

/// Reads `quota.limits`: a number, or a table, for each limit.
fn limits(at: Option<&At<'_>>, mode: Mode, findings: &mut Findings) -> Option<Limits> {
    let limits = Limits::default().with_modes(mode);
    let Some(at) = at else { return Some(limits) };
    let table = at.table(findings, &LimitName::ALL.iter().map(|limit| limit.as_str()).collect::<Vec<_>>())?;
    let stated = LimitName::ALL.iter().filter_map(|limit| Some((*limit, table.optional(limit.as_str())?)));
    let read: Vec<_> = stated.map(|(limit, at)| one_limit(limit, &at, findings)).collect();
    let read = read.into_iter().collect::<Option<Vec<_>>>()?;
    Some(read.into_iter().fold(limits, |limits, (name, number, mode)| {
        let limits = number.map_or(limits.clone(), |number| limits.with_limit(name, number));
        mode.map_or(limits.clone(), |mode| limits.with_mode(name, mode))
    }))
}

fn one_limit(limit: LimitName, at: &At<'_>, findings: &mut Findings) -> Option<(LimitName, Option<u32>, Option<Mode>)> {
    if at.is_integer() {
        return Some((limit, Some(number(limit, at, false, findings)?), None));
    }
    let table = at.table(findings, &["limit", "mode", "raised"])?;
    let raised = table.optional("raised").map_or(Some(false), |at| at.bool(findings));
    let allowed = table.optional("limit").map(|at| number(limit, &at, raised == Some(true), findings));
    let mode = table.optional("mode").map(|at| mode(&at, findings));
    raised?;
    Some((limit, allowed.map_or(Some(None), |read| read.map(Some))?, mode.map_or(Some(None), |read| read.map(Some))?))
}

/// Reads the number of a limit. More than Metrica documents needs `raised: true`.
fn number(limit: LimitName, at: &At<'_>, raised: bool, findings: &mut Findings) -> Option<u32> {
    let number = u32::try_from(at.integer(findings, 1..=1_000_000)?).ok()?;
    let limits = Limits::default();
    let documented = limits.all().find(|known| known.name == limit).map(|known| known.documented)?;
    if number > documented && !raised {
        at.wrong(
            findings,
            format!(
                "exceeds the {documented} that Metrica documents; if Metrica has raised it for you, write {{limit: {number}, raised: true}}"
            ),
        );
        return None;
    }
    Some(number)
}

fn bounds(at: Option<&At<'_>>, findings: &mut Findings) -> Option<Bounds> {
    let mut bounds = Bounds::default();
    let Some(at) = at else { return Some(bounds) };
    let table = at.table(findings, &["per_caller", "per_owner", "total"])?;
    let mut number = |key, value: &mut u32| {
        let Some(at) = table.optional(key) else { return Some(()) };
        *value = u32::try_from(at.integer(findings, 1..=100_000)?).ok()?;
        Some(())
    };
    let per_caller = number("per_caller", &mut bounds.per_caller);
    let per_owner = number("per_owner", &mut bounds.per_owner);
    let total = number("total", &mut bounds.total);
    per_caller.and(per_owner).and(total)?;
    Some(bounds)
}

/// Reads the key `quota` of every caller.
pub fn callers(at: &At<'_>, findings: &mut Findings) -> Option<Vec<(CallerId, CallerQuota)>> {
    let ignored = &mut Findings::default();
    let Some(list) = at.list(ignored) else { return Some(Vec::new()) };
    let tables = list.iter().filter_map(|at| at.any_table(ignored));
    let ids = tables.filter_map(|table| {
        let id = table.optional("id")?.text(&mut Findings::default(), name_text)?;
        Some((CallerId::new(id), table))
    });
    let read: Vec<_> = ids.map(|(id, table)| Some((id, caller(id, &table, findings)?))).collect();
    read.into_iter().collect()
}

fn caller(id: CallerId, table: &Table<'_>, findings: &mut Findings) -> Option<CallerQuota> {
    let Some(at) = table.optional("quota") else { return Some(CallerQuota::default()) };
    let table = at.table(findings, &["class", "weight", "wait", "per_day", "per_5m", "share"])?;
    let class = table.optional("class").map_or(Some(Class::Normal), |at| {
        at.text(findings, |text| match text {
            "interactive" => Ok(Class::Interactive),
            "normal" => Ok(Class::Normal),
            "batch" => Ok(Class::Batch),
            _ => Err("interactive, normal or batch".to_owned()),
        })
    });
    let wait = timeout(Some(&table), "wait", std::time::Duration::from_secs(30), findings);
    let mut number = |key, most| match table.optional(key) {
        Some(at) => at.integer(findings, 1..=most).map(|number| u32::try_from(number).ok()),
        None => Some(None),
    };
    let (weight, per_day, per_5m) = (number("weight", 1000), number("per_day", 1_000_000), number("per_5m", 1_000_000));
    let share = table.optional("share").map(|at| at.text(findings, percent));
    let settings = CallerSettings {
        weight: weight?.map_or(1, |weight| weight),
        wait: strict_http::number::saturated(wait?.as_micros()),
        per_day: per_day?,
        per_5m: per_5m?,
        share: share.map_or(Some(None), |read| read.map(Some))?,
        ..CallerSettings::new(id)
    };
    Some(CallerQuota { class: class?, settings: Some(settings) })
}

fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
    number
        .filter(|number| (1..=100).contains(number))
        .ok_or_else(|| "a percentage as in 50%, from 1% to 100%".to_owned())
}

/// Checks that the shares of callers that use one account do not exceed the whole, and that the keys have an effect.
pub fn check(callers: &[(CallerId, CallerQuota)], quota: Option<&Quota>, at: &At<'_>, findings: &mut Findings) {
    let ignored = &mut Findings::default();
    let Some(list) = at.list(ignored) else { return };
    let keys = list.iter().map(|at| at.any_table(ignored)?.optional("quota")).collect::<Vec<_>>();
    for at in keys.iter().flatten().filter(|_| quota.is_none()) {
        at.wrong(findings, "has no effect without the key 'quota' of the configuration; add `quota: {}`");
    }
    let shares = callers.iter().filter_map(|(_, quota)| quota.settings?.share).map(u32::from).sum::<u32>();
    if shares > 100
        && let Some(at) = keys.iter().flatten().filter_map(|at| at.any_table(ignored)?.optional("share")).next_back()
    {
        at.wrong(findings, format!("the shares of all callers add up to {shares} %; reduce them to 100 % at most"));
    }
}
