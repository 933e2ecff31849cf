//! Grantees: the recipients of access that a request grants (rule 9 of [`super::rules`]).
//!
//! 1. A recipient is named in `user_login`: in the path, in the query, and in the body, at any depth and in lists. Each must
//!    be one of the grantees, in any spelling of the login.
//! 2. An account number (`user_uid`) is not a login and is refused; so are other spellings of the two names.
//! 3. Access for everybody is refused, also as `perm: public_stat` in a grant.
//! 4. A body must name a recipient unless the path or the query does. An empty body grants no access.

use metrica::login;
use metrica::operation::Shares;
use metrica::subject::json::{Scalar, Sought};
use metrica::subject::text;
use strict_http::target::{name_and_value, plain, spelled};

use super::rules::{Breach, Call};
use super::setting::is_plainly_another;

/// The query parameter, and the path parameter, that names a recipient.
const LOGIN: &str = "user_login";

/// The recipients to look for in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Grantees {
    /// No check is needed.
    #[default]
    Free,
    /// Recipients other than the grantees.
    Others,
    /// Recipients other than the grantees, or no recipient, because neither the path nor the query names one.
    Someone,
    /// Any recipient, because granting access is not allowed.
    Nobody,
}

/// Checks rules 1 to 4, except for the body.
pub(super) fn check(listed: &[Box<str>], call: &Call<'_>) -> Result<Grantees, Breach> {
    match call.operation.shares {
        Shares::Nothing | Shares::Secret => Ok(Grantees::Free),
        Shares::Anyone => Err(Breach::Grantee),
        Shares::Perhaps => Ok(Grantees::Others),
        Shares::Named => {
            let in_path = login_in_path(call);
            if in_path.as_deref().is_some_and(|login| !login::is_among(listed, login)) {
                return Err(Breach::Grantee);
            }
            let in_query = named_in_query(listed, call.query)?;
            Ok(if in_path.is_some() || in_query { Grantees::Others } else { Grantees::Someone })
        }
    }
}

/// The login in the path.
fn login_in_path(call: &Call<'_>) -> Option<String> {
    let is_login = |segment: &str| segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) == Some(LOGIN);
    let position = call.operation.template.split('/').skip(1).position(is_login)?;
    // A log line may contain only the template instead of the path; a real path has no braces.
    // A possible suffix is kept: of the two possible logins, the one with the suffix is not among the grantees.
    let segment = call.path.split('/').nth(position + 1).filter(|segment| !segment.starts_with('{'))?;
    Some(String::from_utf8_lossy(&plain(segment.as_bytes())).into_owned())
}

/// Whether the query names a recipient, which must be one of `listed`.
fn named_in_query(listed: &[Box<str>], query: Option<&str>) -> Result<bool, Breach> {
    let mut is_named = false;
    for pair in query.into_iter().flat_map(|query| query.split(['&', ';'])) {
        let (name, value) = name_and_value(pair);
        match Key::of(name.as_bytes()) {
            Some(Key::Login) if name == LOGIN => {
                let login = text(value.as_bytes());
                if !login::is_among(listed, &login) {
                    return Err(Breach::Grantee);
                }
                is_named = true;
            }
            Some(Key::Login | Key::Account) => return Err(Breach::Grantee),
            Some(Key::Permission) | None => {}
        }
    }
    Ok(is_named)
}

/// The meaning of a name that determines recipients.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Login,
    Account,
    Permission,
}

impl Key {
    /// Returns the meaning of a name to the most lenient reader.
    fn of(name: &[u8]) -> Option<Self> {
        match spelled(name).as_str() {
            "userlogin" => Some(Self::Login),
            "useruid" => Some(Self::Account),
            "perm" => Some(Self::Permission),
            _ => None,
        }
    }
}

/// The search for recipients in a body (rules 1 to 4).
pub(super) struct InBody<'a> {
    pub(super) listed: &'a [Box<str>],
    pub(super) is_named: bool,
    /// Whether the body grants access to anybody else.
    pub(super) is_other: bool,
}

impl Sought for InBody<'_> {
    type Place = Key;

    fn place(&mut self, key: &str, outer: Option<Key>) -> Option<Key> {
        Key::of(key.as_bytes()).or(outer)
    }

    fn take(&mut self, place: Key, value: Scalar<'_>) -> bool {
        let is_fine = match (place, value) {
            (Key::Account, _) => false,
            (Key::Login, Scalar::Text(login)) => login::is_among(self.listed, login),
            (Key::Permission, Scalar::Text(permission)) => is_plainly_another(permission.as_bytes(), "public_stat"),
            (Key::Login | Key::Permission, Scalar::Number(_) | Scalar::Other) => return false,
        };
        self.is_named |= place == Key::Login;
        self.is_other |= !is_fine;
        true
    }
}

#[cfg(test)]
mod tests {
    use metrica::operation::Verb;

    use super::*;
    use crate::policy::rules::tests::{NOTHING, NOTHING_OWED, decide};
    use crate::policy::rules::{Duties, Look, Rules};

    #[test]
    fn rules_1_to_3_only_grantees_are_given_access() {
        let rules = Rules { grantees: Some(["a-b".into(), "c".into()].into()), ..Rules::default() };
        let body_policy = |grantees| Ok(Duties { body: Look { grantees, ..NOTHING }, list: false });
        let grant = "/management/v1/counter/1/grant";
        for (verb, target, expected) in [
            (Verb::Post, "/management/v1/counter/1/grants".to_owned(), body_policy(Grantees::Someone)),
            (Verb::Post, "/management/v1/delegates".to_owned(), body_policy(Grantees::Someone)),
            (Verb::Put, format!("{grant}?user_login=A.b"), body_policy(Grantees::Others)),
            (Verb::Put, format!("{grant}/A.b"), body_policy(Grantees::Others)),
            (Verb::Put, format!("{grant}/c.json"), Err(Breach::Grantee)),
            (Verb::Put, format!("{grant}/d"), Err(Breach::Grantee)),
            (Verb::Put, format!("{grant}?user_login=d"), Err(Breach::Grantee)),
            (Verb::Put, format!("{grant}?user_login="), Err(Breach::Grantee)),
            (Verb::Put, format!("{grant}?user_login=c&user_login=d"), Err(Breach::Grantee)),
            (Verb::Put, format!("{grant}?user_login=c;user_login=d"), Err(Breach::Grantee)),
            (Verb::Put, format!("{grant}?user_login=c&userLogin=c"), Err(Breach::Grantee)),
            (Verb::Put, format!("{grant}?user_login=c&user_login[]=d"), Err(Breach::Grantee)),
            (Verb::Put, format!("{grant}?user_login=c&user_uid=7"), Err(Breach::Grantee)),
            (Verb::Post, "/management/v1/counter/1/public_grant".to_owned(), Err(Breach::Grantee)),
            (Verb::Delete, format!("{grant}?user_login=d"), NOTHING_OWED),
            (Verb::Get, "/management/v1/counter/1/grants".to_owned(), NOTHING_OWED),
        ] {
            assert_eq!(decide(&rules, verb, &target), expected, "{target}");
            if expected != Err(Breach::Grantee) {
                continue;
            }
            assert_eq!(decide(&Rules::default(), verb, &target), NOTHING_OWED, "{target}");
        }
    }

    #[test]
    fn rule_4_a_body_gives_access_to_grantees_alone() {
        let rules = Rules { grantees: Some(["a-b".into(), "c".into()].into()), ..Rules::default() };
        let check = |grantees, body: &str| rules.reading(Look { grantees, ..NOTHING }).check(body.as_bytes());
        for (body, someone, others) in [
            ("", Ok(()), Ok(())),
            (r#"{"grant":{"user_login":"A.b","perm":"view","comment":"d"}}"#, Ok(()), Ok(())),
            (r#"{"delegates":[{"user_login":"a-b"},{"user_login":"c"}]}"#, Ok(()), Ok(())),
            (r#"{"user_login":"c"}"#, Ok(()), Ok(())),
            (r#"{"grant":{"perm":"edit"}}"#, Err(Breach::Grantee), Ok(())),
            (r#"{"grant":{"user_login":"d","perm":"view"}}"#, Err(Breach::Grantee), Err(Breach::Grantee)),
            (r#"{"delegate":{"user_login":"d"}}"#, Err(Breach::Grantee), Err(Breach::Grantee)),
            (r#"{"delegates":[{"user_login":"c"},{"user_login":"d"}]}"#, Err(Breach::Grantee), Err(Breach::Grantee)),
            (r#"{"grant":{"userLogin":["c","d"]}}"#, Err(Breach::Grantee), Err(Breach::Grantee)),
            (r#"{"grant":{"user_login":{"x":"d"}}}"#, Err(Breach::Grantee), Err(Breach::Grantee)),
            (r#"{"grant":{"user_login":"c","user_uid":7}}"#, Err(Breach::Grantee), Err(Breach::Grantee)),
            (r#"{"grant":{"user_login":"c","perm":"public_stat"}}"#, Err(Breach::Grantee), Err(Breach::Grantee)),
            (r#"{"grant":{"user_login":""}}"#, Err(Breach::Grantee), Err(Breach::Grantee)),
            (r#"{"grant":{"user_login":7}}"#, Err(Breach::Body), Err(Breach::Body)),
            (r#"{"user_login":"c","user_login":"d"}"#, Err(Breach::Body), Err(Breach::Body)),
            ("user_login=c", Err(Breach::Body), Err(Breach::Body)),
        ] {
            assert_eq!((check(Grantees::Someone, body), check(Grantees::Others, body)), (someone, others), "{body}");
        }
    }
}
