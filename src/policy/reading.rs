//! The inspection of bodies (rules 1, 4, 7 and 9 of [`super::rules`]).

use std::sync::Arc;

use metrica::operation::Setting;
use metrica::subject::json;

use super::grantees::{self, Grantees};
use super::rules::{Breach, Rules, check_listed};
use super::setting;

/// The things to look for in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// Counters.
    pub counters: bool,
    /// Whether the body is data for the counter of the path; such a multipart or CSV body is not read for counters.
    pub is_data: bool,
    /// Recipients of access.
    pub grantees: Grantees,
    /// A setting that makes the operation destructive.
    pub setting: Option<Setting>,
}

impl Look {
    /// Whether there is anything to look for.
    #[must_use]
    pub fn is_due(self) -> bool {
        self.counters || self.grantees != Grantees::Free || self.setting.is_some()
    }
}

/// The things to look for in a body, with the allowed values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    counters: Option<Arc<[u64]>>,
    grantees: Option<(Arc<[Box<str>]>, Grantees)>,
    setting: Option<Setting>,
}

impl Rules {
    /// Returns the inspection of a body that `look` requires.
    #[must_use]
    pub fn reading(&self, look: Look) -> Reading {
        Reading {
            counters: self.counters.clone().filter(|_| look.counters),
            grantees: match look.grantees {
                Grantees::Free => None,
                Grantees::Nobody => Some((Arc::default(), Grantees::Nobody)),
                one @ (Grantees::Others | Grantees::Someone) => self.grantees.clone().map(|listed| (listed, one)),
            },
            setting: look.setting,
        }
    }
}

impl Reading {
    /// Checks a complete body against the rules.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, body: &[u8]) -> Result<(), Breach> {
        if let Some(counters) = &self.counters {
            check_body(counters, body)?;
        }
        if let Some(setting) = self.setting {
            check_setting(setting, body)?;
        }
        self.grantees.as_ref().map_or(Ok(()), |(listed, look)| check_grantees(listed, *look, body))
    }
}

/// Checks that every counter in a body is one of `counters`, which are in ascending order.
///
/// # Errors
/// The rule that the body breaks.
pub fn check_body(counters: &[u64], body: &[u8]) -> Result<(), Breach> {
    let listed = check_listed(counters, &json::counters_in(body));
    listed.map_err(|stranger| stranger.map_or(Breach::Body, |counter| Breach::Counter(counter, "the body")))
}

fn check_setting(setting: Setting, body: &[u8]) -> Result<(), Breach> {
    let mut sought = setting::InBody { setting, is_there: false };
    match (json::read(body, &mut sought), sought.is_there) {
        (false, _) => Err(Breach::Body),
        (true, true) => Err(Breach::Setting(setting)),
        (true, false) => Ok(()),
    }
}

fn check_grantees(listed: &[Box<str>], look: Grantees, body: &[u8]) -> Result<(), Breach> {
    let mut sought = grantees::InBody { listed, is_named: false, is_other: false };
    if !json::read(body, &mut sought) {
        return Err(Breach::Body);
    }
    let is_due = look == Grantees::Someone && !body.is_empty();
    if look == Grantees::Nobody && (sought.is_other || sought.is_named) {
        return Err(Breach::Sharing);
    }
    if sought.is_other || (is_due && !sought.is_named) { Err(Breach::Grantee) } else { Ok(()) }
}
