//! The keys of a caller that restrict requests within its scopes, and `counter_groups`.

use metrica::login;

use super::CounterGroup;
use super::reader::{At, Findings, Table};
use crate::policy::names::GroupName;
use crate::policy::rules::{List, Rules};

/// The keys of a caller that are read here.
pub const KEYS: [&str; 10] = [
    "counters",
    "ulogin",
    "ulogin_absent",
    "grantees",
    "list",
    "destructive",
    "sharing",
    "callback",
    "measurement_tokens",
    "enforce",
];

/// Reads the rules of a caller.
pub fn rules(table: &Table<'_>, findings: &mut Findings) -> Option<Rules> {
    let otherwise = Rules::default();
    let counters = table.optional("counters").map(|at| counters(&at, findings));
    let listed = table.optional("ulogin").map(|at| logins(&at, findings));
    let grantees = table.optional("grantees").map(|at| logins(&at, findings));
    let list = table.optional("list").map(|at| {
        if counters.is_none() {
            at.wrong(findings, "has no effect without 'counters' of the caller");
        }
        at.text(findings, |text| match text {
            "refuse" => Ok(List::Refuse),
            "filter" => Ok(List::Filter),
            _ => Err("refuse or filter".to_owned()),
        })
    });
    let mut allowed = |key: &str, otherwise: bool| match table.optional(key) {
        Some(at) => at.text(findings, |text| match text {
            "allow" => Ok(true),
            "deny" => Ok(false),
            _ => Err("allow or deny".to_owned()),
        }),
        None => Some(otherwise),
    };
    let destructive = allowed("destructive", otherwise.destructive);
    let sharing = allowed("sharing", otherwise.sharing);
    let ulogin_absent = allowed("ulogin_absent", Rules::allows_absent_ulogin(listed.is_some(), counters.is_some()));
    let callback = allowed("callback", otherwise.callback);
    let measurement_tokens = allowed("measurement_tokens", otherwise.measurement_tokens);
    if let (Some(at), Some(false)) = (table.optional("ulogin_absent"), ulogin_absent)
        && listed.is_none()
        && counters.is_some()
    {
        at.wrong(
            findings,
            "would refuse every request: with 'counters' and without 'ulogin', the caller may not use any login",
        );
    }
    let enforce = table.optional("enforce").map_or(Some(otherwise.enforce), |at| at.bool(findings));
    Some(Rules {
        counters: given(counters)?.map(Into::into),
        logins: given(listed)?,
        ulogin_absent: ulogin_absent?,
        grantees: given(grantees)?.map(Into::into),
        list: list.map_or(Some(otherwise.list), |list| list)?,
        destructive: destructive?,
        sharing: sharing?,
        callback: callback?,
        measurement_tokens: measurement_tokens?,
        enforce: enforce?,
    })
}

/// Returns `None` when a value is present and wrong, `Some(None)` when it is absent.
#[expect(clippy::option_option, reason = "absent and wrong are different answers")]
fn given<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(None) => None,
        Some(read) => Some(read),
    }
}

/// Reads a list of counters, which comes back in ascending order, each once.
pub fn counters(at: &At<'_>, findings: &mut Findings) -> Option<Box<[u64]>> {
    let elements = at.filled_list(findings)?;
    let read: Vec<_> = elements.iter().map(|at| counter(at, findings)).collect();
    let mut counters: Vec<u64> = read.into_iter().collect::<Option<_>>()?;
    counters.sort_unstable();
    counters.dedup();
    Some(counters.into())
}

fn counter(at: &At<'_>, findings: &mut Findings) -> Option<u64> {
    u64::try_from(at.integer(findings, 1..=i64::MAX)?).ok()
}

fn logins(at: &At<'_>, findings: &mut Findings) -> Option<Box<[Box<str>]>> {
    let elements = at.filled_list(findings)?;
    let read: Vec<_> = elements.iter().map(|at| at.text(findings, login)).collect();
    read.into_iter().collect::<Option<Vec<_>>>().map(login::each_once)
}

/// Reads a Yandex login: letters, digits, `-`, `_`, `.`, and `@` in logins of organisations.
///
/// # Errors
/// The expected value.
pub fn login(text: &str) -> Result<Box<str>, String> {
    let expected = || "a login: 1 to 128 letters, digits, '-', '_', '.' or '@'".to_owned();
    login::is_one(text).then(|| text.into()).ok_or_else(expected)
}

/// Reads `counter_groups`.
pub fn counter_groups(at: &At<'_>, findings: &mut Findings) -> Option<Vec<CounterGroup>> {
    let table = at.any_table(findings)?;
    let mut groups: Vec<CounterGroup> = Vec::new();
    let mut complete = true;
    for (text, at) in table.entries_at() {
        let named = super::name_text(text).and_then(|name| match name {
            "other" => Err("another name; 'other' is reserved for counters without a group".to_owned()),
            name => Ok(GroupName::new(name)),
        });
        let name = named.map_err(|expected| {
            at.wrong(findings, format!("invalid group name; expected {expected}"));
        });
        let counters = counters(&at, findings);
        if let Some(twice) =
            counters.iter().flatten().find(|one| groups.iter().any(|group| group.counters.contains(one)))
        {
            at.wrong(findings, format!("counter {twice} is already in another group"));
        }
        match (name, counters) {
            (Ok(name), Some(counters)) => groups.push(CounterGroup { name, counters }),
            _ => complete = false,
        }
    }
    complete.then_some(groups)
}
