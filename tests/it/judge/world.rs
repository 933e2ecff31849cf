//! Metrica as its documentation describes it: accounts, tokens with scopes, counters with grants, and what it answers.
//!
//! The judge measures the gate with this, so nothing here is taken from the gate or from its stand-in. Sources:
//! <https://yandex.com/dev/metrika/en/intro/authorization>, <https://yandex.com/dev/metrika/en/intro/errors>,
//! <https://yandex.com/dev/id/doc/en/user-information>, and bodies that public clients were seen to receive.
//!
//! 1. A missing scope and a missing grant get the same bytes: 403 `access_denied`. The message has several spellings in the
//!    wild; a world keeps to one of them.
//! 2. A report on a counter with public statistics is shown to every live token, whatever its scopes.
//! 3. The list has the counters on which the account has a grant, each with `permission` and `owner_login`; public ones are
//!    not in it.
//! 4. `ulogin` acts as an account that the token's owner represents, writes included; for any other login it is refused.
//! 5. A dead token is refused in one of the forms that documentation and clients report ([`Death`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use super::wire::{Request, Said};

/// The documentation's counter, which everybody may look at.
pub const DEMO: u64 = 44_147_844;

/// A metric or dimension that is refused on every counter.
pub const RESTRICTED: &str = "ym:s:restricted";

/// A segment that belongs to another source than any counter here.
pub const FOREIGN_SEGMENT: &str = "77";

/// The way in which Metrica refuses a token that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// 403 `invalid_token`: the page of errors, and most bodies that were seen.
    Revoked,
    /// 401 `invalid_token`.
    Expired,
    /// 401 `unauthorized`, in Russian.
    Unauthorized,
    /// 403 `access_denied` to everything: the troubleshooting text files an expired token there.
    Denied,
    /// 403 `access_denied` to everything but the list of counters, which returns `invalid_token`.
    DeniedButForTheList,
}

/// A token that was issued.
#[derive(Debug, Clone)]
pub struct Token {
    /// The login of its owner.
    pub of: String,
    /// Its scopes, without `metrika:`.
    pub scopes: BTreeSet<String>,
    /// The way it ended, if it did.
    pub death: Option<Death>,
    /// It was issued personally for an account of an organisation, and everything is refused to it.
    pub is_personal: bool,
}

/// A counter.
#[derive(Debug, Clone, Default)]
pub struct Counter {
    /// The login of its owner.
    pub owner: String,
    /// Grants: login to `edit`, `view` or `analyst`.
    pub grants: BTreeMap<String, String>,
    /// Its statistics are public.
    pub is_public: bool,
    /// Access to it is managed by an organisation.
    pub in_connect: bool,
}

/// The whole state of the world.
#[derive(Debug, Default)]
pub struct State {
    /// By secret.
    pub tokens: BTreeMap<String, Token>,
    /// By number.
    pub counters: BTreeMap<u64, Counter>,
    /// Pairs of a representative and an account that it represents.
    pub represents: BTreeSet<(String, String)>,
    /// Replaced responses: `GET /path`, where `*` at the end matches anything.
    pub broken: Vec<(String, Said)>,
    /// Rule 1: which spelling.
    pub wording: usize,
    /// Every request so far.
    pub heard: Vec<Request>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct World(Mutex<State>);

/// The requirements of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Needs {
    /// Any one of these scopes.
    scopes: &'static [&'static str],
    /// On the counter.
    right: Right,
}

/// The permission that an account needs on a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Right {
    Public,
    View,
    Edit,
    Own,
}

impl World {
    /// A world in this state.
    pub fn new(state: State) -> Self {
        Self(Mutex::new(state))
    }

    /// Its state, to look at and to change.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Every request that it heard.
    pub fn heard(&self) -> Vec<Request> {
        self.state().heard.clone()
    }

    /// Answers a request.
    pub fn answer(&self, request: &Request) -> Said {
        let mut state = self.state();
        state.heard.push(request.clone());
        let line = format!("{} {}", request.method, request.path);
        let is_it = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => line.starts_with(start),
            None => line == pattern,
        };
        if let Some((_, said)) = state.broken.iter().find(|(pattern, _)| is_it(pattern)) {
            return said.clone();
        }
        state.answer(request)
    }
}

impl State {
    fn answer(&self, request: &Request) -> Said {
        let Some(secret) = request.token.as_deref().filter(|secret| secret.len() >= 32) else {
            return Said::error(401, "unauthorized", "Неавторизованный пользователь");
        };
        let token = self.tokens.get(secret);
        if request.host == "login.yandex.ru" {
            return match token.filter(|token| token.death.is_none()) {
                Some(token) => issuer(&token.of),
                None => Said::page(401, ""),
            };
        }
        let Some(token) = token else { return Said::invalid_token(403) };
        if let Some(death) = token.death {
            let is_list = request.path == "/management/v1/counters";
            return match death {
                Death::Revoked => Said::invalid_token(403),
                Death::Expired => Said::invalid_token(401),
                Death::Unauthorized => Said::error(401, "unauthorized", "Неавторизованный пользователь"),
                Death::DeniedButForTheList if is_list => Said::invalid_token(403),
                Death::Denied | Death::DeniedButForTheList => self.denied(),
            };
        }
        if token.is_personal {
            return self.denied();
        }
        // Rule 4.
        let account = match request.parameter("ulogin") {
            Some(login) if login != token.of => {
                if !self.represents.contains(&(token.of.clone(), login.to_owned())) {
                    return self.denied();
                }
                login
            }
            _ => &token.of,
        };
        self.of_account(request, token, account)
    }

    fn of_account(&self, request: &Request, token: &Token, account: &str) -> Said {
        let path: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        let has = |scopes: &[&str]| scopes.iter().any(|scope| token.scopes.contains(*scope));
        let reads = request.method == "GET";
        match path.as_slice() {
            ["stat", "v1", "data", ..] if reads => self.report(request, token, account),
            ["management", "v1", "counter", counter, rest @ ..]
            | ["cdp", "api", "v1", "counter", counter, rest @ ..] => {
                let needs = needs(&request.method, path[0] == "cdp", rest);
                let Some((id, known)) = counter.parse().ok().and_then(|id| self.counters.get_key_value(&id)) else {
                    return Said::error(404, "not_found", "Entity not found");
                };
                if !has(needs.scopes) || self.right(account, *id) < Some(needs.right) {
                    return self.denied();
                }
                if rest == ["apisegment", "segment", FOREIGN_SEGMENT] {
                    return Said::error(403, "access_denied", "Сегмент принадлежит другому источнику");
                }
                if known.in_connect && rest.first().is_some_and(|first| first.contains("grant")) && !reads {
                    return Said::error(403, "counter_in_connect", "Counter is in Connect");
                }
                self.of_counter(*id, account, rest)
            }
            ["management", "v1", ..] => {
                if !has(if reads { &["read"] } else { &["write"] }) {
                    return self.denied();
                }
                match (path[2..] == ["counters"], path[2..] == ["accounts"]) {
                    (true, _) if reads => self.list(request, account),
                    (_, true) if reads => self.accounts(account),
                    _ => Said::json(200, r#"{"success":true}"#.to_owned()),
                }
            }
            _ => Said::error(404, "not_found", "Entity not found"),
        }
    }

    /// The permission of an account on a counter, in the API's word.
    fn permission(&self, account: &str, counter: u64) -> Option<&str> {
        let counter = self.counters.get(&counter)?;
        if counter.owner == account {
            return Some("own");
        }
        counter.grants.get(account).map(String::as_str).or(counter.is_public.then_some("public_stat"))
    }

    fn right(&self, account: &str, counter: u64) -> Option<Right> {
        Some(match self.permission(account, counter)? {
            "own" => Right::Own,
            "edit" => Right::Edit,
            "public_stat" => Right::Public,
            _ => Right::View,
        })
    }

    fn report(&self, request: &Request, token: &Token, account: &str) -> Said {
        // `counters=` in the place of `ids=` is a report without a counter, and refused as one.
        let Some(ids) = request.parameter("ids") else { return self.denied() };
        for id in ids.split(',') {
            let Some((id, counter)) = id.parse().ok().and_then(|id| self.counters.get_key_value(&id)) else {
                return self.denied();
            };
            let is_granted = token.scopes.contains("read") && self.right(account, *id).is_some();
            // Rule 2.
            if !is_granted && !counter.is_public {
                return self.denied();
            }
        }
        if request.query.iter().any(|(_, value)| value.contains(RESTRICTED)) {
            let message = format!("Нет доступа, значение: {RESTRICTED}, код ошибки: 4019");
            return Said::error(403, "access_denied", &message);
        }
        Said::json(200, r#"{"query":{},"data":[],"total_rows":0,"totals":[0.0]}"#.to_owned())
    }

    /// Rule 3.
    fn list(&self, request: &Request, account: &str) -> Said {
        let number = |name: &str, default: usize| {
            request.parameter(name).and_then(|value| value.parse().ok()).unwrap_or(default)
        };
        let wanted = request.parameter("permission");
        let is_wanted = |word: &&str| wanted.is_none_or(|wanted| wanted.split(',').any(|one| one == *word));
        let searched = request.parameter("search_string");
        let granted = self.counters.keys().filter(|id| {
            let word = self.permission(account, **id);
            searched.is_none_or(|searched| id.to_string().contains(searched))
                && word.filter(|word| *word != "public_stat").as_ref().is_some_and(is_wanted)
        });
        let all: Vec<_> = granted.map(|id| self.counter(*id, account)).collect();
        let shown: Vec<_> =
            all.iter().skip(number("offset", 1).saturating_sub(1)).take(number("per_page", 1000)).cloned().collect();
        Said::json(200, format!(r#"{{"rows":{},"counters":[{}]}}"#, all.len(), shown.join(",")))
    }

    fn accounts(&self, account: &str) -> Said {
        let of = self.represents.iter().filter(|(who, _)| who == account);
        let rows: Vec<_> = of
            .map(|(_, whom)| format!(r#"{{"user_login":"{whom}","created_at":"2020-01-01T00:00:00+03:00"}}"#))
            .collect();
        Said::json(200, format!(r#"{{"accounts":[{}]}}"#, rows.join(",")))
    }

    fn counter(&self, id: u64, account: &str) -> String {
        let owner = &self.counters[&id].owner;
        let permission = self.permission(account, id).unwrap_or("none");
        format!(
            r#"{{"id":{id},"status":"Active","owner_login":"{owner}","code_status":"CS_OK","name":"shop","type":"simple","favorite":0,"permission":"{permission}","time_zone_name":"Europe/Moscow"}}"#
        )
    }

    fn of_counter(&self, id: u64, account: &str, rest: &[&str]) -> Said {
        let permission = self.permission(account, id).unwrap_or("none");
        Said::json(
            200,
            match rest {
                [] => format!(r#"{{"counter":{}}}"#, self.counter(id, account)),
                ["my_grant"] => format!(r#"{{"grant":{{"perm":"{permission}","user_login":"{account}"}}}}"#),
                _ => r#"{"success":true}"#.to_owned(),
            },
        )
    }

    /// Rule 1.
    fn denied(&self) -> Said {
        let message = ["Access is denied", "Access Denied", "Доступ запрещён"][self.wording % 3];
        Said::error(403, "access_denied", message)
    }
}

/// The requirements of an operation on a counter, by its path behind the counter.
fn needs(method: &str, is_cdp: bool, rest: &[&str]) -> Needs {
    let reads = method == "GET";
    let scopes: &[&str] = match rest {
        ["measurement", "generate"] => &["write"],
        ["logrequests" | "logrequest", ..] => &["read"],
        _ if reads => &["read"],
        ["expense", ..] => &["expenses", "write"],
        ["offline_conversions", "upload" | "upload_calls"] => &["offline_data", "write"],
        ["user_params", ..] => &["user_params", "write"],
        _ if is_cdp => &["offline_data", "write"],
        _ => &["write"],
    };
    let right = match (method, rest) {
        ("DELETE", []) | (_, ["undelete"]) => Right::Own,
        ("GET", []) => Right::Public,
        ("GET", ["grants" | "grant"] | ["measurement", "generate"]) => Right::Edit,
        (_, ["logrequests" | "logrequest", ..]) | ("GET", _) => Right::View,
        _ => Right::Edit,
    };
    Needs { scopes, right }
}

/// The response of Yandex ID about a token of `login`.
fn issuer(login: &str) -> Said {
    let client_id = "0123456789abcdef0123456789abcdef";
    Said::json(200, format!(r#"{{"login":"{login}","id":"1000","client_id":"{client_id}","psuid":"1.AA.b"}}"#))
}
