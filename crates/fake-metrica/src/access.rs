//! Authentication and authorization of requests. The order of the checks is rule 2 of the stand-in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderMap, header};
use metrica::login::{canonical, is_same};
use metrica::operation::{Catalogue, Lookup, Operation, OperationId, Verb};
use metrica::scope::Scope;
use serde::Serialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::query::Query;
use super::quota::Charged;
use super::quota::charge::Charge;
use super::refusal::{ErrorType, Refusal};
use super::{FakeToken, Permission, day};

/// The tokens and their usage, and the properties of counters that do not depend on the token.
pub struct Keyring {
    holders: Vec<Holder>,
    /// Counters with public statistics.
    pub public: BTreeSet<u64>,
    /// Counters of organisations.
    pub organisation: BTreeSet<u64>,
    /// Metrics and dimensions that are refused, whoever asks.
    pub restricted: BTreeSet<String>,
}

struct Holder {
    token: FakeToken,
    revoked: bool,
    requests: u64,
    last: Option<(OperationId, String)>,
}

/// An authorized request.
pub struct Call<'a> {
    pub operation: &'a Operation,
    /// The index of a token of the account that the request acts for, usually the one that was sent.
    pub holder: usize,
    /// The login of that account.
    pub owner: String,
    /// The counter in the path and the owner's access level.
    pub counter: Option<(u64, Permission)>,
    /// The other numbers in the path, by parameter name.
    pub numbers: BTreeMap<&'a str, u64>,
    pub query: Query,
    /// Whether the path ended in `.csv`.
    pub wants_csv: bool,
    pub content_type: String,
}

impl Call<'_> {
    /// The two words of the operation's id: the object and the action.
    pub fn noun_and_act(&self) -> (&'static str, &'static str) {
        let id = self.operation.id.as_str();
        id.split_once('.').unwrap_or((id, ""))
    }

    /// Whether the body is counted instead of parsed.
    pub fn is_upload(&self) -> bool {
        self.operation.upload || self.noun_and_act().1.starts_with("upload")
    }

    /// The counter in the path, or 0 if the operation has none.
    pub fn counter(&self) -> u64 {
        self.counter.map_or(0, |(counter, _)| counter)
    }

    /// The other number in the path, for operations that have one.
    pub fn number(&self) -> Result<u64, Refusal> {
        self.numbers.values().next().copied().ok_or_else(|| ErrorType::NotFound.into())
    }

    pub fn json(&self, value: &impl Serialize) -> Answer {
        Answer::json(value, self.query.has("pretty"))
    }
}

impl Keyring {
    pub fn new(tokens: Vec<FakeToken>) -> Self {
        let holder = |token| Holder { token, revoked: false, requests: 0, last: None };
        let holders = tokens.into_iter().map(holder).collect();
        let (public, organisation, restricted) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { holders, public, organisation, restricted }
    }

    /// Accepts a token from now on.
    pub fn issue(&mut self, token: FakeToken) {
        self.holders.push(Holder { token, revoked: false, requests: 0, last: None });
    }

    /// Returns the scopes of a token, revoked or not.
    pub fn scopes(&self, secret: &str) -> Option<metrica::scope::ScopeSet> {
        self.holders.iter().find(|holder| holder.token.secret == secret).map(|holder| holder.token.scopes)
    }

    /// Sets whether a token is revoked. Returns false if it is unknown.
    pub fn set_revoked(&mut self, secret: &str, revoked: bool) -> bool {
        self.holder_mut(secret).map(|holder| holder.revoked = revoked).is_some()
    }

    /// Changes the properties of a token. Returns false if it is unknown.
    pub fn change(&mut self, secret: &str, change: impl FnOnce(&mut FakeToken)) -> bool {
        self.holder_mut(secret).map(|holder| change(&mut holder.token)).is_some()
    }

    fn holder_mut(&mut self, secret: &str) -> Option<&mut Holder> {
        self.holders.iter_mut().find(|holder| holder.token.secret == secret)
    }

    /// Returns the valid token that was sent.
    pub fn token(&self, headers: &HeaderMap) -> Result<&FakeToken, Refusal> {
        let holder = self.holders.get(self.identify(headers)?).ok_or(ErrorType::InvalidToken)?;
        Ok(&holder.token)
    }

    /// Returns each owner with the accounts that its owner represents.
    pub fn representatives(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.holders.iter().map(|holder| (holder.token.owner.as_str(), &*holder.token.represents))
    }

    /// Grants an account a counter that it has created.
    pub fn give(&mut self, owner: &str, counter: u64) {
        for holder in self.holders.iter_mut().filter(|holder| holder.token.owner == owner) {
            holder.token.counters.push((counter, Permission::Own));
        }
    }

    /// Gives an account access to a counter, or revokes it. Returns false when no token belongs to that account.
    pub fn grant(&mut self, owner: &str, counter: u64, permission: Option<Permission>) -> bool {
        let mut is_known = false;
        for holder in self.holders.iter_mut().filter(|holder| holder.token.owner == owner) {
            holder.token.counters.retain(|(other, _)| *other != counter);
            holder.token.counters.extend(permission.map(|permission| (counter, permission)));
            is_known = true;
        }
        is_known
    }

    /// The tokens without their secrets, for the control panel.
    pub fn state(&self) -> Value {
        let tokens = self.holders.iter().map(|holder| {
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

    /// Every counter of the tokens, with the login of its owner.
    pub fn counters(&self) -> BTreeMap<u64, String> {
        let mut counters = BTreeMap::new();
        for Holder { token, .. } in &self.holders {
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

    /// The counters that the owner of a token has access to.
    pub fn counters_of(&self, holder: usize) -> BTreeMap<u64, Permission> {
        self.holders.get(holder).into_iter().flat_map(|holder| holder.token.counters.iter().copied()).collect()
    }

    /// Authenticates and authorizes a request.
    pub fn admit<'a>(&mut self, catalogue: &'a Catalogue, head: &Parts) -> Result<Call<'a>, Refused> {
        let sent = self.identify(&head.headers)?;
        let operation = find(catalogue, head)?;
        let holder = self.holders.get_mut(sent).ok_or(ErrorType::InvalidToken)?;
        holder.requests += 1;
        holder.last = Some((operation.id, day::now()));
        let query = Query::parse(head.uri.query());
        let asked = counters(operation, head.uri.path(), &query);
        let known: &[u64] = asked.as_ref().map_or(&[], |counters| counters);
        let refused = |error_type: ErrorType| {
            let is_of_organisation = known.iter().any(|counter| self.organisation.contains(counter));
            if is_of_organisation { ErrorType::CounterInConnect } else { error_type }
        };
        let (worked_for, level) = self.rights(sent, operation, &query, known).map_err(refused)?;
        asked?;
        if is_report(operation) && self.is_refused(&query) {
            return Err(ErrorType::AccessDenied.into());
        }
        let mut call = Call {
            operation,
            holder: worked_for,
            owner: self.holders.get(worked_for).ok_or(ErrorType::InvalidToken)?.token.owner.clone(),
            counter: None,
            numbers: BTreeMap::new(),
            query,
            wants_csv: head.uri.path().ends_with(".csv"),
            content_type: text(&head.headers, header::CONTENT_TYPE),
        };
        for (name, value) in parameters(operation, head.uri.path()) {
            let number = value.parse().map_err(|_| Refusal::invalid(name))?;
            if name == "counter_id" {
                call.counter = Some((number, level));
            } else {
                call.numbers.insert(name, number);
            }
        }
        Ok(call)
    }

    /// The keys that the quotas charge a request to (rule 7 of the quotas).
    pub fn charge(&self, catalogue: &Catalogue, peer: IpAddr, head: &Parts, charged: Charged) -> Charge {
        let operation = find(catalogue, head).ok();
        let mut charge = Charge::new(peer, operation);
        let Ok(sent) = self.identify(&head.headers) else { return charge };
        let mut login = self.holders.get(sent).map(|holder| holder.token.owner.as_str());
        let query = Query::parse(head.uri.query());
        if let Some(operation) = operation
            && let Ok(mut asked) = counters(operation, head.uri.path(), &query)
            && self.rights(sent, operation, &query, &asked).is_ok()
        {
            asked.sort_unstable();
            asked.dedup();
            charge.counters = asked;
            if charged == Charged::Represented {
                login = query.get("ulogin").filter(|named| !named.is_empty()).or(login);
            }
        }
        charge.login = login.map(|login| canonical(login).into());
        charge
    }

    /// Whether a report is refused to every account (rule 10 of the stand-in).
    fn is_refused(&self, query: &Query) -> bool {
        let is_misnamed = query.get("ids").or(query.get("id")).is_none() && query.get("counters").is_some();
        let names = [query.list("metrics"), query.list("dimensions")].concat();
        is_misnamed || names.into_iter().any(|name| self.restricted.contains(name))
    }

    /// Returns the token whose rights apply, and its lowest access level to the requested counters (rules 2, 7 and 8 of the
    /// stand-in).
    fn rights(
        &self,
        sent: usize,
        operation: &Operation,
        query: &Query,
        asked: &[u64],
    ) -> Result<(usize, Permission), ErrorType> {
        let token = &self.holders.get(sent).ok_or(ErrorType::InvalidToken)?.token;
        let is_personal = token.login.as_ref().is_some_and(|login| !login.starts_with(ORGANISATION));
        let is_open = is_report(operation) && !asked.is_empty() && asked.iter().all(|id| self.public.contains(id));
        let changes = !operation.scopes.iter().any(|scope| scope == Scope::Read);
        let changes_grants = changes && operation.id.as_str().starts_with("grant");
        if (token.owner.starts_with(ORGANISATION) && is_personal)
            || !(token.scopes.covers(operation.scopes) || is_open)
            || (changes_grants && asked.iter().any(|counter| self.organisation.contains(counter)))
        {
            return Err(ErrorType::AccessDenied);
        }
        let worked_for = match query.get("ulogin").filter(|named| !named.is_empty() && !is_same(named, &token.owner)) {
            Some(named) if !is_among(&token.represents, named) => return Err(ErrorType::AccessDenied),
            Some(named) => self.holders.iter().position(|holder| is_same(&holder.token.owner, named)).unwrap_or(sent),
            None => sent,
        };
        let mut lowest = Permission::Own;
        for counter in asked {
            lowest = lowest.min(self.permission(worked_for, *counter, needed(operation))?);
        }
        Ok((worked_for, lowest))
    }

    /// Returns the access level of a token's owner to a counter, if it is at least `needed`.
    fn permission(&self, holder: usize, counter: u64, needed: Permission) -> Result<Permission, ErrorType> {
        let granted = self.counters_of(holder).get(&counter).copied();
        let public = self.public.contains(&counter).then_some(Permission::Public);
        granted.max(public).filter(|permission| *permission >= needed).ok_or(ErrorType::AccessDenied)
    }

    /// Returns the index of the one token that was sent.
    fn identify(&self, headers: &HeaderMap) -> Result<usize, Refusal> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Err(ErrorType::Unauthorized.into()) };
        let secret = value.as_bytes().strip_prefix(b"OAuth ").filter(|secret| !secret.is_empty());
        let secret = secret.ok_or(ErrorType::Unauthorized)?;
        let is_it = |holder: &Holder| !holder.revoked && holder.token.secret.as_bytes() == secret;
        self.holders.iter().position(is_it).ok_or_else(|| ErrorType::InvalidToken.into())
    }
}

fn is_among(logins: &[String], login: &str) -> bool {
    logins.iter().any(|one| is_same(one, login))
}

/// The prefix of the logins of organisations.
const ORGANISATION: &str = "porg-";

/// The counters of a request: from its path or, for a report, from `ids` or `id`.
fn counters(operation: &Operation, path: &str, query: &Query) -> Result<Vec<u64>, Refusal> {
    let in_path = parameters(operation, path).find(|(name, _)| *name == "counter_id");
    if let Some((name, value)) = in_path {
        return Ok(vec![value.parse().map_err(|_| Refusal::invalid(name))?]);
    }
    if !is_report(operation) {
        return Ok(Vec::new());
    }
    let ids = [query.list("ids"), query.list("id")].concat();
    let number = |id: &&str| id.trim_start_matches("ga:").parse().map_err(|_| Refusal::invalid("ids"));
    ids.iter().map(number).collect()
}

fn is_report(operation: &Operation) -> bool {
    operation.id.as_str().starts_with("report.")
}

/// Looks up the operation of a request.
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

/// An error, and the methods that the path supports if the method was wrong.
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

/// The access level that an operation requires. Viewers may not even see grants.
fn needed(operation: &Operation) -> Permission {
    let reads = operation.scopes.iter().any(|scope| scope == Scope::Read);
    match operation.id.as_str() {
        "grants.list" | "grant.get" => Permission::Edit,
        "counter.get" | "my_grant.get" => Permission::Public,
        _ if is_report(operation) => Permission::Public,
        _ if reads => Permission::View,
        _ => Permission::Edit,
    }
}

/// The parameter names of the template, with their values in the path.
fn parameters<'a, 'b>(operation: &'a Operation, path: &'b str) -> impl Iterator<Item = (&'a str, &'b str)> {
    let plain = path.strip_suffix(".json").or_else(|| path.strip_suffix(".csv")).filter(|_| operation.suffixes);
    let segments = operation.template.split('/').zip(plain.unwrap_or(path).split('/'));
    segments.filter_map(|(name, value)| Some((name.strip_prefix('{')?.strip_suffix('}')?, value)))
}

pub fn text(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).map_or_else(String::new, str::to_owned)
}
