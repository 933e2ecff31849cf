//! Rules: the limits of a caller within its scopes.
//!
//! 1. A destructive operation needs `destructive: allow`, also if a query parameter or a body member makes it destructive;
//!    anything that could be read as that parameter with that value is refused (`destructive_denied`, 403; `setting.rs`).
//! 2. A response as a script needs `callback: allow`, in any spelling of the parameter (`callback_denied`, 403).
//! 3. The tokens of the Measurement Protocol need `measurement_tokens: allow`. Without it, a `field` that any reader could
//!    interpret as naming them, one of several or encoded twice, is refused, and so is creating one (`secret_denied`, 403).
//! 4. If `counters` is set, every counter that a request names must be one of them, wherever it is named. An unreadable
//!    counter, a report without counters, and an operation on the whole account are refused (`counter_denied`, 403).
//!    Dictionaries belong to nobody and are allowed.
//! 5. If `counters` is set, the list of all counters is refused (`list_denied`, 403), or filtered to these counters if the
//!    caller has `list: filter` or names its own in `counter_ids`. A filtered list must be requested as JSON and with no
//!    parameters except paging and its own counters ([`PAGING`]): a search would find, and count, counters of others.
//! 6. If `ulogin` is set, every login in `ulogin` and `direct_client_logins` must be one of them; if only `counters` is set,
//!    no login is allowed. With `ulogin_absent: deny`, a request must have `ulogin` unless it affects nobody's data: without
//!    it, it would affect the whole account of the token's owner (`login_denied`, 403).
//! 7. If `counters` is set, a body must be one JSON document of at most [`BODY_BYTES`] with a JSON type (`body_unreadable`,
//!    415; `body_too_large`, 413), compressed with gzip or not, and rule 4 applies to the counters in it. In uploads,
//!    also those of customer data below `/cdp/`, a multipart or CSV body belongs to the counter of the path and is not read, except
//!    for the names of its parts, which are also checked for a caller with `ulogin` or `destructive: deny` ([`Parts`]). A
//!    body that rule 1 or 9 applies to is read in the same way ([`Reading`]).
//! 8. Granting access to somebody else needs `sharing: allow` (`sharing_denied`, 403), also if the grant is in the body of a
//!    counter.
//! 9. If `grantees` is set, access is granted only by name and only to one of them (`login_denied`, 403; `grantees.rs`).
//!
//! With `enforce: false` these rules refuse nothing; breaches are logged and counted.

use std::sync::Arc;

use metrica::login;
use metrica::operation::{Destructive, Operation, Place, Reach, Setting, Shares};
use metrica::subject::{Counters, Subject, counter};
use strict_http::target::{Names, letters, name_and_value, plain};

pub use super::breach::Breach;
pub use super::grantees::Grantees;
pub use super::parts::Parts;
pub use super::reading::{Look, Reading, check_body};
use super::{grantees, setting};

/// The maximum length in bytes of a body that is read as a whole (rule 7): enough for a list of fifty thousand counters.
pub const BODY_BYTES: usize = 1024 * 1024;

/// Parameters that a filtered list may have (rule 5): none that selects among counters, except those that name counters
/// (rule 4).
pub const PAGING: [&[u8]; 8] = [b"", b"per_page", b"offset", b"field", b"pretty", b"lang", b"ulogin", b"counter_ids"];

/// Parameters that select and sort, allowed if `counter_ids` names counters: they then select among these.
const CHOOSING: [&[u8]; 7] = [b"sort", b"reverse", b"permission", b"type", b"status", b"favorite", b"search_string"];

/// The rules of a caller. Unset rules do not limit, except that scripts and secrets must be allowed explicitly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The allowed counters, in ascending order; `None` allows all.
    pub counters: Option<Arc<[u64]>>,
    /// The allowed logins in `ulogin` and `direct_client_logins`, in canonical spelling; `None` allows all, or none if
    /// `counters` is set.
    pub logins: Option<Box<[Box<str>]>>,
    /// Whether a request may omit `ulogin`.
    pub ulogin_absent: bool,
    /// The logins that may be granted access, in canonical spelling; `None` allows all.
    pub grantees: Option<Arc<[Box<str>]>>,
    /// The treatment of a list of all counters if `counters` is set.
    pub list: List,
    /// Whether destructive operations are allowed.
    pub destructive: bool,
    /// Whether granting access to somebody else is allowed.
    pub sharing: bool,
    /// Whether a response may be a script (`callback`, JSONP).
    pub callback: bool,
    /// Whether reading (`field=measurement_tokens`) and creating tokens of the Measurement Protocol is allowed.
    pub measurement_tokens: bool,
    /// Whether rules and scopes are enforced; otherwise breaches are only logged and counted.
    pub enforce: bool,
}

/// The treatment of a list of all counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum List {
    /// The request is refused.
    #[default]
    Refuse,
    /// The response is filtered to the caller's counters.
    Filter,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            counters: None,
            logins: None,
            ulogin_absent: true,
            grantees: None,
            list: List::Refuse,
            destructive: true,
            sharing: true,
            callback: false,
            measurement_tokens: false,
            enforce: true,
        }
    }
}

/// The parts of a request that rules examine.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The operation.
    pub operation: &'a Operation,
    /// The checked path.
    pub path: &'a str,
    /// The checked query.
    pub query: Option<&'a str>,
    /// The names in the query.
    pub names: Names,
    /// The data that the request affects.
    pub subject: &'a Subject,
}

/// The duties that remain when a request is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Duties {
    /// The things to look for in the body before anything is sent (rule 7).
    pub body: Look,
    /// Whether the response must be filtered to the caller's counters (rule 5).
    pub list: bool,
}

impl Rules {
    /// The default of `ulogin_absent`, given which other rules are set.
    #[must_use]
    pub const fn allows_absent_ulogin(ulogin: bool, counters: bool) -> bool {
        !ulogin || counters
    }

    /// Checks `call` against the rules (1 to 6, 8 and 9), and returns the remaining duties.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, call: &Call<'_>) -> Result<Duties, Breach> {
        let setting = self.check_destructive(call)?;
        let gives_access = !matches!(call.operation.shares, Shares::Nothing | Shares::Perhaps);
        if gives_access && !self.sharing {
            return Err(Breach::Sharing);
        }
        let odd = call.odd_names();
        if !self.callback && (call.names | odd).has(Names::CALLBACK) {
            return Err(Breach::Callback);
        }
        if !self.measurement_tokens {
            check_secrets(call, odd)?;
        }
        self.check_logins(call, odd)?;
        let mut duties = match &self.counters {
            Some(counters) => self.check_counters(counters, call, odd)?,
            None => Duties::default(),
        };
        duties.body.setting = setting;
        if let Some(grantees) = &self.grantees {
            duties.body.grantees = grantees::check(grantees, call)?;
        }
        if call.operation.shares == Shares::Perhaps && !self.sharing {
            duties.body.grantees = Grantees::Nobody;
        }
        Ok(duties)
    }

    /// Checks rule 1. Returns the setting to look for in the body.
    fn check_destructive(&self, call: &Call<'_>) -> Result<Option<Setting>, Breach> {
        match call.operation.destructive {
            Destructive::Always if !self.destructive => Err(Breach::Destructive),
            Destructive::With(setting) if !self.destructive => match setting.place {
                Place::Query if call.query.is_some_and(|query| setting::may_be_set_in(query, setting)) => {
                    Err(Breach::Setting(setting))
                }
                Place::Query => Ok(None),
                Place::Body => Ok(Some(setting)),
            },
            Destructive::Never | Destructive::Always | Destructive::With(_) => Ok(None),
        }
    }

    /// Checks rule 6.
    fn check_logins(&self, call: &Call<'_>, odd: Names) -> Result<(), Breach> {
        let subject = call.subject;
        let is_absent = subject.login.is_none() && call.operation.reach != Reach::Nobody;
        let listed: &[Box<str>] = match (&self.logins, &self.counters) {
            (Some(logins), _) => logins,
            (None, Some(_)) => &[],
            (None, None) if is_absent && !self.ulogin_absent => return Err(Breach::NoLogin),
            (None, None) => return Ok(()),
        };
        let mut named = subject.login.iter().chain(&subject.clients);
        let is_odd = odd.has(Names::ULOGIN | Names::DIRECT_CLIENT_LOGINS);
        if is_odd || !named.all(|login| login::is_among(listed, login)) {
            let is_of_ulogin = subject.login.as_ref().is_some_and(|login| !login::is_among(listed, login));
            return Err(Breach::Login(match (is_odd, is_of_ulogin) {
                (true, _) => "a parameter with a name similar to ulogin or direct_client_logins",
                (false, true) => "ulogin",
                (false, false) => "direct_client_logins",
            }));
        }
        if is_absent && !self.ulogin_absent { Err(Breach::NoLogin) } else { Ok(()) }
    }

    /// Checks rules 4, 5 and 7.
    fn check_counters(&self, counters: &[u64], call: &Call<'_>, odd: Names) -> Result<Duties, Breach> {
        if odd.has(Names::IDS | Names::ID | Names::COUNTER) {
            return Err(Breach::Unreadable("a parameter with a name similar to ids"));
        }
        check_listed(counters, &call.subject.counters).map_err(|stranger| call.breach_of(stranger))?;
        let names_none = call.subject.counters == Counters::None;
        let list = match call.operation.reach {
            // With direct_client_logins alone, a report could cover any counter linked with them.
            Reach::Counter(_) | Reach::Reports if names_none => return Err(Breach::NoCounter),
            Reach::Counter(_) | Reach::Reports | Reach::Nobody => false,
            Reach::Counters => {
                let is_json = !call.path.ends_with(".csv") && !(call.names | odd).has(Names::CALLBACK);
                let names_own = call.pairs().any(|(name, _)| name == b"counter_ids");
                if (self.list == List::Refuse && !names_own) || !is_json {
                    return Err(Breach::List);
                }
                // Some readers treat a semicolon as an ampersand.
                let is_cut = call.query.is_some_and(|query| query.contains(';'));
                let may_be_asked = |name| PAGING.contains(&name) || (names_own && CHOOSING.contains(&name));
                if is_cut || !call.pairs().all(|(name, _)| may_be_asked(name)) {
                    return Err(Breach::Search);
                }
                true
            }
            Reach::Account => return Err(Breach::Account),
        };
        let body = Look { counters: true, is_data: belongs_to_its_path(call.operation), ..Look::default() };
        Ok(Duties { body, list })
    }
}

/// Checks rule 3.
fn check_secrets(call: &Call<'_>, odd: Names) -> Result<(), Breach> {
    if call.operation.shares == Shares::Secret {
        return Err(Breach::SecretAnswer);
    }
    let names_some = (call.names | odd).has(Names::FIELD) && call.could_show_secrets();
    if names_some { Err(Breach::Secret) } else { Ok(()) }
}

/// Checks that all counters are listed; returns the first that is not, or `None` if they are unreadable.
pub(super) fn check_listed(listed: &[u64], named: &Counters) -> Result<(), Option<u64>> {
    if *named == Counters::Unreadable {
        return Err(None);
    }
    let stranger = named.as_slice().iter().find(|counter| listed.binary_search(counter).is_err());
    stranger.map_or(Ok(()), |counter| Err(Some(*counter)))
}

/// Whether a body is data for the counter in the path, and for no other (rule 7).
fn belongs_to_its_path(operation: &Operation) -> bool {
    operation.upload && matches!(operation.reach, Reach::Counter(_))
}

impl Call<'_> {
    /// The breach of naming this counter, or an unreadable one (`None`), with the place where it is named.
    #[cold]
    fn breach_of(&self, stranger: Option<u64>) -> Breach {
        let is_it = |value: &[u8]| value.split(|byte| *byte == b',').any(|one| self.is_counter(one, stranger));
        let pair = self.pairs().find_map(|(name, value)| {
            let known = ["ids", "id", "counter", "counters", "counter_id", "counter_ids"];
            known.into_iter().find(|known| known.as_bytes() == name).filter(|_| is_it(&plain(value)))
        });
        let place = pair.unwrap_or("the path");
        stranger.map_or(Breach::Unreadable(place), |counter| Breach::Counter(counter, place))
    }

    /// Whether an element of a list is this counter, or is unreadable if `expected` is `None`.
    fn is_counter(&self, element: &[u8], expected: Option<u64>) -> bool {
        let bare = element.strip_prefix(b"ga:").filter(|_| self.operation.template.starts_with("/analytics/"));
        counter(bare.unwrap_or(element)) == expected
    }

    /// The possible meanings of names that have an unusual spelling.
    fn odd_names(&self) -> Names {
        if !self.names.has(Names::ODD) {
            return Names::default();
        }
        let names = self.pairs().map(|(name, _)| name).filter(|name| Names::of(name).has(Names::ODD));
        names.fold(Names::default(), |all, name| all | Names::like(name))
    }

    /// Whether a `field` parameter could name secrets (rule 3).
    #[cold]
    fn could_show_secrets(&self) -> bool {
        let of_fields =
            |name: &[u8]| Names::of(name).has(Names::FIELD | Names::ODD) && Names::like(name).has(Names::FIELD);
        self.pairs().any(|(name, value)| of_fields(name) && could_name_secrets(value))
    }

    fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let pairs = self.query.into_iter().flat_map(|query| query.split('&'));
        pairs.map(name_and_value).map(|(name, value)| (name.as_bytes(), value.as_bytes()))
    }
}

/// No field of a counter contains a percent sign; a remaining one was put there to be decoded by another reader.
fn could_name_secrets(value: &[u8]) -> bool {
    let once = plain(value);
    once.contains(&b'%') || letters(&once).contains("measurementtoken")
}

#[cfg(test)]
pub(super) mod tests;
