//! The choice among a caller's tokens, for a caller with tokens of several accounts.
//!
//! 1. Only tokens whose declared scopes cover the operation are candidates.
//! 2. A candidate whose owner is known to have the access that the operation needs, on every counter that the request names,
//!    comes before one of which that is unknown, and that before one whose owner is known to lack it. With `ulogin`, the
//!    same holds for representing that login.
//! 3. Among equals of rule 2 that are known to have the access, the narrowest comes first. Otherwise the account of the first
//!    listed candidate does, and of its tokens the narrowest. Tokens without a known owner count as of one account.
//! 4. `X-Gate-Account` restricts the candidates to one token. A name that is not among them is refused (`bad_account`, 400),
//!    whether the token exists or not.
//! 5. If each of several counters is known to be accessible to a candidate, but none is to all, Metrica cannot answer the
//!    request, and it is refused (`several_accounts`, 400).
//! 6. An operation that names no counter and no `ulogin` uses the account of the first listed candidate.
//! 7. The knowledge only orders the candidates. It never allows what the caller's rules refuse.

use std::cmp::Reverse;
use std::fmt;

use metrica::cause::Demands;
use metrica::login;
use metrica::observed_rights::Access;
use metrica::operation::{Operation, Reach};
use metrica::subject::Subject;

use crate::policy::TokenRights;
use crate::policy::names::TokenAlias;

/// The knowledge about the owners of tokens, by the position of the token in the policy.
pub trait Accounts {
    /// Whether the owner has this access on the counter; `None` if that is unknown.
    fn access(&self, position: usize, counter: u64, needed: Access) -> Option<bool>;

    /// Whether the owner may act on behalf of the login; `None` if that is unknown.
    fn represents(&self, position: usize, login: &str) -> Option<bool>;

    /// Calls `then` with the login of the owner, if it is known.
    fn owner(&self, position: usize, then: &mut dyn FnMut(&str));
}

/// Knows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAccounts;

impl Accounts for NoAccounts {
    fn access(&self, _: usize, _: u64, _: Access) -> Option<bool> {
        None
    }

    fn represents(&self, _: usize, _: &str) -> Option<bool> {
        None
    }

    fn owner(&self, _: usize, _: &mut dyn FnMut(&str)) {}
}

/// A candidate: the position of a token in the policy, and its place in the caller's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The position in the policy.
    pub position: u16,
    /// The place in the caller's list of tokens.
    pub listed: u16,
}

/// What is known of the access of a candidate's owner, from the best to the worst (rule 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// The owner has the access.
    Granted,
    /// Unknown.
    Unknown,
    /// The owner lacks the access.
    Lacking,
}

impl From<Option<bool>> for Fit {
    fn from(known: Option<bool>) -> Self {
        match known {
            Some(true) => Self::Granted,
            None => Self::Unknown,
            Some(false) => Self::Lacking,
        }
    }
}

/// The chosen candidate, and the next one to try if Metrica denies the first for lack of access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// The position of the token to use.
    pub first: u16,
    /// The position of the next token, if the access of the first one's owner is not known.
    pub next: Option<u16>,
}

/// A request for which a token is chosen.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    operation: &'a Operation,
    subject: &'a Subject,
    accounts: &'a dyn Accounts,
}

impl<'a> Request<'a> {
    /// A request for `operation` on `subject`.
    #[must_use]
    pub const fn new(operation: &'a Operation, subject: &'a Subject, accounts: &'a dyn Accounts) -> Self {
        Self { operation, subject, accounts }
    }

    /// The counters on which access is needed.
    fn counters(&self) -> &'a [u64] {
        match self.operation.reach {
            Reach::Counter(_) | Reach::Reports => self.subject.counters.as_slice(),
            Reach::Counters | Reach::Nobody | Reach::Account => &[],
        }
    }

    fn access(&self, candidate: Candidate, counter: u64) -> Option<bool> {
        let needed = Demands::of(self.operation.id).access(self.operation.scopes);
        self.accounts.access(candidate.position.into(), counter, needed)
    }

    /// What is known of the candidate's owner (rule 2).
    #[must_use]
    pub fn fit(&self, candidate: Candidate) -> Fit {
        if let Some(login) = self.subject.login.as_deref() {
            return self.accounts.represents(candidate.position.into(), login).into();
        }
        let counters = self.counters().iter();
        counters.map(|counter| self.access(candidate, *counter).into()).max().unwrap_or(Fit::Unknown)
    }

    /// The canonical login of the candidate's owner, if it is known.
    fn owner(&self, candidate: Candidate) -> Option<Box<str>> {
        let mut owner = None;
        self.accounts.owner(candidate.position.into(), &mut |login| owner = Some(login::canonical(login)));
        owner
    }

    /// The place of the first candidate that counts as of the same account (rule 3).
    fn account(&self, candidate: Candidate, candidates: &[Candidate]) -> u16 {
        let own = self.owner(candidate);
        let same = candidates.iter().filter(|other| self.owner(**other) == own);
        same.map(|other| other.listed).min().unwrap_or(candidate.listed)
    }

    /// The rank of a candidate, the best first; candidates come with the narrowest first.
    fn rank(&self, candidate: Candidate, candidates: &[Candidate]) -> (Fit, u16) {
        let fit = self.fit(candidate);
        (fit, if fit == Fit::Granted { 0 } else { self.account(candidate, candidates) })
    }

    /// Orders `candidates`, which have the narrowest first, by preference (rules 2 and 3), with what is known of each.
    #[must_use]
    pub fn order(&self, candidates: &[Candidate]) -> Vec<(Candidate, Fit)> {
        let mut ranked: Vec<_> = candidates.iter().map(|one| (*one, self.rank(*one, candidates))).collect();
        // A stable sort keeps the narrowest first.
        ranked.sort_by_key(|(_, rank)| *rank);
        ranked.into_iter().map(|(candidate, (fit, _))| (candidate, fit)).collect()
    }

    /// Chooses among `candidates`, which have the narrowest first; `None` if there are none.
    #[must_use]
    pub fn choose(&self, candidates: &[Candidate]) -> Option<Chosen> {
        if let [only] = candidates {
            return Some(Chosen { first: only.position, next: None });
        }
        let rank = |candidate: &&Candidate| self.rank(**candidate, candidates);
        let first = candidates.iter().min_by_key(rank)?;
        let is_of_an_account = !self.counters().is_empty() || self.subject.login.is_some();
        let is_open = is_of_an_account && self.fit(*first) != Fit::Granted;
        let next = if is_open { self.next(*first, candidates) } else { None };
        Some(Chosen { first: first.position, next })
    }

    /// The candidate to try after `first`: the best of those that can be of another account.
    fn next(&self, first: Candidate, candidates: &[Candidate]) -> Option<u16> {
        let owner = self.owner(first);
        let is_other = |other: &&Candidate| **other != first && (owner.is_none() || self.owner(**other) != owner);
        let others = candidates.iter().filter(is_other);
        others.min_by_key(|other| self.rank(**other, candidates)).map(|candidate| candidate.position)
    }

    /// If each counter is accessible to a candidate, but none of the candidates to all (rule 5): a candidate for each
    /// counter.
    #[must_use]
    pub fn split(&self, candidates: &[Candidate]) -> Option<Vec<(u64, Candidate)>> {
        let counters = self.counters();
        if counters.len() < 2 || candidates.len() < 2 || self.subject.login.is_some() {
            return None;
        }
        let is_lacking = |candidate: &Candidate| self.fit(*candidate) == Fit::Lacking;
        if !candidates.iter().all(is_lacking) {
            return None;
        }
        let has = |counter: u64| {
            let granted = candidates.iter().filter(|candidate| self.access(**candidate, counter) == Some(true));
            granted.min_by_key(|candidate| candidate.listed).map(|candidate| (counter, *candidate))
        };
        counters.iter().map(|counter| has(*counter)).collect()
    }
}

/// The message of rule 5: which counter belongs to which token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeveralAccounts(Vec<(TokenAlias, Vec<u64>)>);

/// The maximum number of counters that a message names per token.
const MOST_NAMED: usize = 10;

impl SeveralAccounts {
    /// Groups the counters by token, in the order of the request.
    #[must_use]
    pub fn new(split: &[(u64, Candidate)], tokens: &[TokenRights]) -> Self {
        let mut groups: Vec<(TokenAlias, Vec<u64>)> = Vec::new();
        for (counter, candidate) in split {
            let Some(token) = tokens.get(usize::from(candidate.position)) else { continue };
            match groups.iter_mut().find(|(alias, _)| *alias == token.alias) {
                Some((_, counters)) if counters.contains(counter) => {}
                Some((_, counters)) => counters.push(*counter),
                None => groups.push((token.alias, vec![*counter])),
            }
        }
        groups.sort_by_key(|(_, counters)| Reverse(counters.len()));
        Self(groups)
    }
}

impl fmt::Display for SeveralAccounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the counters belong to several accounts, and Metrica serves one at a time: ")?;
        for (index, (alias, counters)) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "; " })?;
            for (index, counter) in counters.iter().take(MOST_NAMED).enumerate() {
                f.write_str(if index == 0 { "" } else { ", " })?;
                counter.fmt(f)?;
            }
            let further = counters.len().saturating_sub(MOST_NAMED);
            if further > 0 {
                write!(f, " and {further} more")?;
            }
            write!(f, " with token {alias}")?;
        }
        f.write_str("; send one request per account")
    }
}

impl std::error::Error for SeveralAccounts {}

#[cfg(test)]
mod tests;
