//! Who calls, and may it? The order of the answers is rule 2 of the stand-in.

use std::collections::BTreeMap;

use http::request::Parts;
use http::{HeaderMap, header};
use serde::Serialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::query::Query;
use super::refusal::{ErrorType, Refusal};
use super::{FakeToken, Permission, day};
use crate::operation::{Catalogue, Lookup, Operation, Verb};
use crate::scope::Scope;
use crate::symbol::OperationId;

/// The tokens, and what became of them.
pub struct Keyring(Vec<Holder>);

struct Holder {
    token: FakeToken,
    revoked: bool,
    requests: u64,
    last: Option<(OperationId, String)>,
}

/// A call that is allowed.
pub struct Call<'a> {
    pub operation: &'a Operation,
    /// Which token was sent.
    pub holder: usize,
    /// The login of the token's owner.
    pub owner: String,
    /// The counter in the path and the owner's level on it.
    pub counter: Option<(u64, Permission)>,
    /// The other numbers in the path, by their names.
    pub numbers: BTreeMap<&'a str, u64>,
    pub query: Query,
    /// The path ended in `.csv`.
    pub wants_csv: bool,
    pub content_type: String,
}

impl Call<'_> {
    /// The two words of the operation's id: on what, and what.
    pub fn noun_and_act(&self) -> (&'static str, &'static str) {
        let id = self.operation.id.as_str();
        id.split_once('.').unwrap_or((id, ""))
    }

    /// The body is counted rather than read.
    pub fn is_upload(&self) -> bool {
        self.operation.upload || self.noun_and_act().1.starts_with("upload")
    }

    /// The counter in the path, for operations that have one.
    pub fn counter(&self) -> u64 {
        self.counter.map_or(0, |(counter, _)| counter)
    }

    /// The one other number in the path.
    pub fn number(&self) -> Result<u64, Refusal> {
        self.numbers.values().next().copied().ok_or_else(|| ErrorType::NotFound.into())
    }

    pub fn json(&self, value: &impl Serialize) -> Answer {
        Answer::json(value, self.query.has("pretty"))
    }
}

impl Keyring {
    pub fn new(tokens: Vec<FakeToken>) -> Self {
        Self(tokens.into_iter().map(|token| Holder { token, revoked: false, requests: 0, last: None }).collect())
    }

    /// Says whether a token is valid. False when it is unknown.
    pub fn set_revoked(&mut self, secret: &str, revoked: bool) -> bool {
        let holder = self.0.iter_mut().find(|holder| holder.token.secret == secret);
        holder.map(|holder| holder.revoked = revoked).is_some()
    }

    /// Gives an account a counter that it has just made.
    pub fn give(&mut self, owner: &str, counter: u64) {
        for holder in self.0.iter_mut().filter(|holder| holder.token.owner == owner) {
            holder.token.counters.push((counter, Permission::Own));
        }
    }

    /// Tokens without their secrets, for the control panel.
    pub fn state(&self) -> Value {
        let tokens = self.0.iter().map(|holder| {
            json!({
                "owner": holder.token.owner,
                "scopes": holder.token.scopes.iter().map(Scope::as_str).collect::<Vec<_>>(),
                "revoked": holder.revoked,
                "requests": holder.requests,
                "last_operation": holder.last.as_ref().map(|(operation, _)| operation.as_str()),
                "last_time": holder.last.as_ref().map(|(_, time)| time),
            })
        });
        tokens.collect()
    }

    /// Every counter that a token knows, with the login it belongs to.
    pub fn counters(&self) -> BTreeMap<u64, String> {
        let mut counters = BTreeMap::new();
        for Holder { token, .. } in &self.0 {
            for (counter, permission) in &token.counters {
                if *permission == Permission::Own {
                    counters.insert(*counter, token.owner.clone());
                } else {
                    counters.entry(*counter).or_insert_with(|| "another-owner".to_owned());
                }
            }
        }
        counters
    }

    /// The counters that the sender of a token has a grant on.
    pub fn counters_of(&self, holder: usize) -> BTreeMap<u64, Permission> {
        self.0.get(holder).into_iter().flat_map(|holder| holder.token.counters.iter().copied()).collect()
    }

    /// Decides about a request.
    pub fn admit<'a>(&mut self, catalogue: &'a Catalogue, head: &Parts) -> Result<Call<'a>, Refused> {
        let index = self.identify(&head.headers)?;
        let holder = self.0.get_mut(index).ok_or(ErrorType::InvalidToken)?;
        let path = head.uri.path();
        let operation = find(catalogue, head)?;
        holder.requests += 1;
        holder.last = Some((operation.id, day::now()));
        if !holder.token.scopes.covers(operation.scopes) {
            return Err(ErrorType::AccessDenied.into());
        }
        let mut call = Call {
            operation,
            holder: index,
            owner: holder.token.owner.clone(),
            counter: None,
            numbers: BTreeMap::new(),
            query: Query::parse(head.uri.query()),
            wants_csv: path.ends_with(".csv"),
            content_type: text(&head.headers, header::CONTENT_TYPE),
        };
        for (name, value) in parameters(operation, path) {
            let number = value.parse().map_err(|_| Refusal::invalid(name))?;
            if name == "counter_id" {
                call.counter = Some((number, holder.permission(number, needed(operation))?));
            } else {
                call.numbers.insert(name, number);
            }
        }
        if call.noun_and_act().0 == "report" {
            for id in call.query.list("ids").iter().chain(&call.query.list("id")) {
                let number = id.trim_start_matches("ga:").parse().map_err(|_| Refusal::invalid("ids"))?;
                holder.permission(number, Permission::View)?;
            }
        }
        Ok(call)
    }

    /// Whose is the one token that was sent?
    fn identify(&self, headers: &HeaderMap) -> Result<usize, Refusal> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Err(ErrorType::Unauthorized.into()) };
        let secret = value.as_bytes().strip_prefix(b"OAuth ").filter(|secret| !secret.is_empty());
        let secret = secret.ok_or(ErrorType::Unauthorized)?;
        let is_it = |holder: &Holder| !holder.revoked && holder.token.secret.as_bytes() == secret;
        self.0.iter().position(is_it).ok_or_else(|| ErrorType::InvalidToken.into())
    }
}

impl Holder {
    /// The owner's level on a counter, which must be high enough.
    fn permission(&self, counter: u64, needed: Permission) -> Result<Permission, ErrorType> {
        let mut grants = self.token.counters.iter().filter(|(granted, _)| *granted == counter);
        let grant = grants.find(|(_, permission)| *permission >= needed);
        grant.map(|(_, permission)| *permission).ok_or(ErrorType::AccessDenied)
    }
}

/// The operation that is asked for.
fn find<'a>(catalogue: &'a Catalogue, head: &Parts) -> Result<&'a Operation, Refused> {
    let path = head.uri.path();
    let found = |verb: Verb| catalogue.find(verb, path);
    match Verb::of(&head.method).map(found) {
        Some(Lookup::Known(operation)) => Ok(operation),
        Some(Lookup::Unknown) => Err(ErrorType::NotFound.into()),
        Some(Lookup::OtherMethod) | None => {
            let has = |verb: &Verb| matches!(found(*verb), Lookup::Known(_));
            let methods: Vec<_> = Verb::ALL.into_iter().filter(has).map(Verb::as_str).collect();
            let error_type = if methods.is_empty() { ErrorType::NotFound } else { ErrorType::MethodNotAllowed };
            Err(Refused { refusal: error_type.into(), allow: Some(methods.join(", ")).filter(|text| !text.is_empty()) })
        }
    }
}

/// A refusal, and the methods that the path has where the method was wrong.
pub struct Refused {
    pub refusal: Refusal,
    pub allow: Option<String>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, allow: None }
    }
}

impl From<ErrorType> for Refused {
    fn from(error_type: ErrorType) -> Self {
        Refusal::from(error_type).into()
    }
}

/// What an operation needs of the counter in its path. Grants are not even shown to those who only view.
fn needed(operation: &Operation) -> Permission {
    let reads = operation.scopes.iter().any(|scope| scope == Scope::Read);
    let is_grants = matches!(operation.id.as_str(), "grants.list" | "grant.get");
    if reads && !is_grants { Permission::View } else { Permission::Edit }
}

/// The names in braces of the template, and what the path has in their places.
fn parameters<'a, 'b>(operation: &'a Operation, path: &'b str) -> impl Iterator<Item = (&'a str, &'b str)> {
    let plain = path.strip_suffix(".json").or_else(|| path.strip_suffix(".csv")).filter(|_| operation.suffixes);
    let segments = operation.template.split('/').zip(plain.unwrap_or(path).split('/'));
    segments.filter_map(|(name, value)| Some((name.strip_prefix('{')?.strip_suffix('}')?, value)))
}

pub fn text(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}
