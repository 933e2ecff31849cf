//! Rules: what a caller may touch within its scopes.
//!
//! 1. What is destructive needs `destructive: allow`, also where a parameter of the query or a member of the body makes it so;
//!    what could be taken for that parameter with that value is refused (`destructive_denied`, 403; `rules/setting.rs`).
//! 2. A script as an answer needs `callback: allow`, in whatever spelling it is asked for (`callback_denied`, 403).
//! 3. The tokens of the Measurement Protocol need `measurement_tokens: allow`: a `field` that could name them in any
//!    reading is refused, one of several or encoded twice, and so is making one (`secret_denied`, 403).
//! 4. Where `counters` are stated, every counter that a request names is one of them, wherever it names it. What could name
//!    one and cannot be read, a report that names none, and what works on the whole account are refused
//!    (`counter_denied`, 403). Dictionaries are nobody's, and free.
//! 5. Where `counters` are stated, the list of all counters is refused (`list_denied`, 403), or goes on with those alone
//!    where the caller has `list: filter` or names its own in `counter_ids`, asks for JSON, and for nothing but a page of it,
//!    or its own ([`PAGING`]): a search would find, and count, those of others.
//! 6. Where `ulogin` is stated, every login in `ulogin` and `direct_client_logins` is one of them; where only `counters`
//!    are, there is none. With `ulogin_absent: deny` a request names one in `ulogin`, unless it is about nobody: without it,
//!    it would be about the whole account of the token's owner (`login_denied`, 403).
//! 7. Where `counters` are stated, a body is one JSON document of at most [`BODY_BYTES`] whose type says so
//!    (`body_unreadable`, 415; `body_too_large`, 413), packed with gzip or not, and rule 4 holds for the counters in it. Of
//!    uploads, and of customer data below `/cdp/`, what comes in parts or as CSV belongs to the counter of the path and is not
//!    read, but for the names of its parts, which also a caller with `ulogin` or `destructive: deny` is held to ([`Parts`]). A
//!    body that rule 1 or 9 is about is read in the same way ([`Reading`]).
//! 8. What gives somebody else access needs `sharing: allow` (`sharing_denied`, 403), also where that stands in the body of a
//!    counter.
//! 9. Where `grantees` are stated, whoever is given access by name is one of them, and nobody is without a name
//!    (`login_denied`, 403; `rules/grantees.rs`).
//!
//! With `enforce: false` nothing of this refuses; it is said and counted.

use std::sync::Arc;

use metrica::login;
use metrica::operation::{Destructive, Operation, Place, Reach, Setting, Shares};
use metrica::subject::{Counters, Subject, counter};
use strict_http::target::{Names, letters, name_of, plain};

pub use super::breach::Breach;
pub use super::grantees::Grantees;
pub use super::parts::Parts;
pub use super::reading::{Look, Reading, check_body};
use super::{grantees, setting};

/// The longest body that is read whole (rule 7): a list of fifty thousand counters fits, and memory stays small.
pub const BODY_BYTES: usize = 1024 * 1024;

/// What may be asked of a list that is filtered (rule 5): no parameter that chooses among counters, but for those that name
/// them (rule 4).
pub const PAGING: [&[u8]; 8] = [b"", b"per_page", b"offset", b"field", b"pretty", b"lang", b"ulogin", b"counter_ids"];

/// What chooses and orders, and may be asked where `counter_ids` names counters: then it chooses among these.
const CHOOSING: [&[u8]; 7] = [b"sort", b"reverse", b"permission", b"type", b"status", b"favorite", b"search_string"];

/// The rules of one caller. What is not stated is not limited, but for scripts and secrets, which have to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The only counters, in ascending order; `None` is all.
    pub counters: Option<Arc<[u64]>>,
    /// The only logins in `ulogin` and `direct_client_logins`, in their canonical spelling; `None` is all, or none where
    /// `counters` are stated.
    pub logins: Option<Box<[Box<str>]>>,
    /// Whether a request may go without `ulogin`.
    pub ulogin_absent: bool,
    /// The only ones that may be given access, in their canonical spelling; `None` is all.
    pub grantees: Option<Arc<[Box<str>]>>,
    /// What becomes of a list of all counters where `counters` are stated.
    pub list: List,
    /// Whether it may do what is destructive.
    pub destructive: bool,
    /// Whether it may give somebody else access.
    pub sharing: bool,
    /// Whether an answer may be a script (`callback`, JSONP).
    pub callback: bool,
    /// Whether it may read the tokens of the Measurement Protocol (`field=measurement_tokens`), and make one.
    pub measurement_tokens: bool,
    /// Whether its rules and scopes refuse; otherwise what they would refuse is only said and counted.
    pub enforce: bool,
}

/// What becomes of a list of all counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum List {
    /// It is refused.
    #[default]
    Refuse,
    /// It goes on with the caller's counters only.
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

/// What is asked, as far as rules look at it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The operation.
    pub operation: &'a Operation,
    /// The path, which was checked.
    pub path: &'a str,
    /// The query, which was checked.
    pub query: Option<&'a str>,
    /// The names in it.
    pub names: Names,
    /// On whose data it works.
    pub subject: &'a Subject,
}

/// What is still owed to the rules when a request goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Duties {
    /// What a body has to be read for before anything is sent (rule 7).
    pub body: Look,
    /// Of the answer, only the caller's counters may go on (rule 5).
    pub list: bool,
}

impl Rules {
    /// Whether a request may go without `ulogin` where nothing is said of that, by which rules are stated.
    #[must_use]
    pub const fn lets_ulogin_be_absent(ulogin: bool, counters: bool) -> bool {
        !ulogin || counters
    }

    /// Whether `call` is within them (rules 1 to 6, 8 and 9), and what is still owed when it goes on.
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

    /// Rule 1. What is left to look for in a body.
    fn check_destructive(&self, call: &Call<'_>) -> Result<Option<Setting>, Breach> {
        match call.operation.destructive {
            Destructive::Always if !self.destructive => Err(Breach::Destructive),
            Destructive::With(setting) if !self.destructive => match setting.place {
                Place::Query if setting::could_stand_in(call.query.unwrap_or_default(), setting) => {
                    Err(Breach::Setting(setting))
                }
                Place::Query => Ok(None),
                Place::Body => Ok(Some(setting)),
            },
            Destructive::Never | Destructive::Always | Destructive::With(_) => Ok(None),
        }
    }

    /// Rule 6.
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
                (true, _) => "a parameter with a name like ulogin or direct_client_logins",
                (false, true) => "ulogin",
                (false, false) => "direct_client_logins",
            }));
        }
        if is_absent && !self.ulogin_absent { Err(Breach::NoLogin) } else { Ok(()) }
    }

    /// Rules 4, 5 and 7.
    fn check_counters(&self, counters: &[u64], call: &Call<'_>, odd: Names) -> Result<Duties, Breach> {
        if odd.has(Names::IDS | Names::ID | Names::COUNTER) {
            return Err(Breach::Unreadable("a parameter with a name like ids"));
        }
        check_listed(counters, &call.subject.counters).map_err(|stranger| call.breach_of(stranger))?;
        let names_none = call.subject.counters == Counters::None;
        let list = match call.operation.reach {
            // With direct_client_logins alone, a report could be about any counter that is linked with them.
            Reach::Counter(_) | Reach::Reports if names_none => return Err(Breach::NoCounter),
            Reach::Counter(_) | Reach::Reports | Reach::Nobody => false,
            Reach::Counters => {
                let is_json = !call.path.ends_with(".csv") && !(call.names | odd).has(Names::CALLBACK);
                let names_own = call.pairs().any(|(name, _)| name == b"counter_ids");
                if (self.list == List::Refuse && !names_own) || !is_json {
                    return Err(Breach::List);
                }
                // Some readers take a semicolon for an ampersand.
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

/// Rule 3.
fn check_secrets(call: &Call<'_>, odd: Names) -> Result<(), Breach> {
    if call.operation.shares == Shares::Secret {
        return Err(Breach::SecretAnswer);
    }
    let names_some = (call.names | odd).has(Names::FIELD) && call.could_show_secrets();
    if names_some { Err(Breach::Secret) } else { Ok(()) }
}

/// Whether all are of those listed; otherwise the first that is not, or `None` where they cannot be read.
pub(super) fn check_listed(listed: &[u64], named: &Counters) -> Result<(), Option<u64>> {
    if *named == Counters::Unreadable {
        return Err(None);
    }
    let stranger = named.as_slice().iter().find(|counter| listed.binary_search(counter).is_err());
    stranger.map_or(Ok(()), |counter| Err(Some(*counter)))
}

/// Rule 7: whether a body is data for the counter in the path, and for no other.
fn belongs_to_its_path(operation: &Operation) -> bool {
    operation.upload && matches!(operation.reach, Reach::Counter(_))
}

impl Call<'_> {
    /// The breach of naming this counter, or one that cannot be read: where that stands.
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

    /// Whether an element of a list is this counter, or none.
    fn is_counter(&self, element: &[u8], expected: Option<u64>) -> bool {
        let bare = element.strip_prefix(b"ga:").filter(|_| self.operation.template.starts_with("/analytics/"));
        counter(bare.unwrap_or(element)) == expected
    }

    /// What those names could mean that are in no ordinary spelling.
    fn odd_names(&self) -> Names {
        if !self.names.has(Names::ODD) {
            return Names::default();
        }
        let names = self.pairs().map(|(name, _)| name).filter(|name| Names::of(name).has(Names::ODD));
        names.fold(Names::default(), |all, name| all | Names::like(name))
    }

    /// Rule 3.
    #[cold]
    fn could_show_secrets(&self) -> bool {
        let of_fields =
            |name: &[u8]| Names::of(name).has(Names::FIELD | Names::ODD) && Names::like(name).has(Names::FIELD);
        self.pairs().any(|(name, value)| of_fields(name) && could_name_secrets(value))
    }

    fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.query.unwrap_or_default().split('&').map(|pair| {
            let name = name_of(pair.as_bytes());
            (name, pair.as_bytes().get(name.len() + 1..).unwrap_or_default())
        })
    }
}

/// No field of a counter has a percent sign: one that is left was put there to be taken off by somebody else.
fn could_name_secrets(value: &[u8]) -> bool {
    let once = plain(value);
    once.contains(&b'%') || letters(&once).contains("measurementtoken")
}

#[cfg(test)]
pub(super) mod tests;
