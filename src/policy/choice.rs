//! The choice among a caller's tokens, for a caller with tokens of several accounts.
//!
//! 1. Only tokens whose declared scopes cover the operation are candidates. A token that is known to lack the scope comes last.
//! 2. A candidate whose owner is known to have the access that the operation needs, on every counter that the request names,
//!    comes before a candidate whose owner's access is unknown, and both come before a candidate whose owner is known to lack
//!    it. The fewer counters are lacked, the earlier the candidate comes: a public counter is in no list. With `ulogin`, the
//!    same holds for representing that login.
//! 3. Among equals of rule 2 that are known to have the access, the narrowest comes first. Otherwise the account of the first
//!    listed candidate does, and of its tokens the narrowest. A token without a known owner counts as an account of its
//!    own, so that an owner that becomes known moves no request to another account.
//! 4. `X-Gate-Account` restricts the candidates to one token. A name that is not among them is refused (`bad_account`, 400),
//!    whether the token exists or not; so are several names.
//! 5. If each of several counters is known to be granted to a candidate's owner, but none has access to all, Metrica cannot
//!    answer the request, and it is refused (`several_accounts`, 400). A counter that was seen is no evidence of a grant.
//! 6. An operation that names no counter and no `ulogin` uses the account of the first listed candidate.
//! 7. The knowledge only orders the candidates. It never allows what the caller's rules refuse.
//! 8. A token that cannot be sent comes after the other tokens of its account. It comes after other accounts too if their
//!    access is known as well, or if the operation is a read of a counter or of a `ulogin`.
//! 9. If the access of the first candidate is not known, the next to try after a denial is the best of another account that
//!    can be sent and whose owner is not known to lack the access. A token that is known to be of another account comes before
//!    a token whose account is not known.

use std::cmp::Reverse;
use std::fmt;

use metrica::cause::Demands;
use metrica::login;
use metrica::observed_rights::Access;
use metrica::operation::{Operation, OperationId, Reach};
use metrica::scope::ScopeSet;
use metrica::subject::Subject;

use crate::policy::TokenRights;
use crate::policy::names::TokenAlias;

/// The knowledge about the owners of tokens, by the position of the token in the policy.
pub trait Accounts {
    /// Whether the owner has this access on the counter; `None` if that is unknown.
    fn access(&self, position: usize, counter: u64, needed: Access) -> Option<bool>;

    /// Whether the owner is known to have a permission of its own on the counter, which need not be public then.
    fn is_granted(&self, position: usize, counter: u64) -> bool {
        self.access(position, counter, Access::View) == Some(true)
    }

    /// Whether the owner may act on behalf of the login; `None` if that is unknown.
    fn represents(&self, position: usize, login: &str) -> Option<bool>;

    /// Calls `then` with the login of the owner, if it is known.
    fn owner(&self, position: usize, then: &mut dyn FnMut(&str));

    /// Whether the token is known to have none of these scopes.
    fn lacks(&self, _: usize, _: ScopeSet) -> bool {
        false
    }

    /// Whether the token, or its standby, can be sent now.
    fn can_be_sent(&self, _: usize) -> bool {
        true
    }
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

/// The known access of a candidate's owner, from the best to the worst (rule 2).
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

    /// The operation.
    pub(super) const fn operation_id(&self) -> OperationId {
        self.operation.id
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

    /// Returns the known access of the candidate's owner, and the number of counters on which it lacks the access (rule 2).
    fn fit(&self, candidate: Candidate) -> (Fit, usize) {
        if let Some(login) = self.subject.login.as_deref() {
            return (self.accounts.represents(candidate.position.into(), login).into(), 0);
        }
        let mut worst = if self.counters().is_empty() { Fit::Unknown } else { Fit::Granted };
        let mut lacked = 0;
        for counter in self.counters() {
            let fit = Fit::from(self.access(candidate, *counter));
            lacked += usize::from(fit == Fit::Lacking);
            worst = worst.max(fit);
        }
        (worst, lacked)
    }

    /// The canonical login of the candidate's owner, if it is known.
    fn owner(&self, candidate: Candidate) -> Option<Box<str>> {
        let mut owner = None;
        self.accounts.owner(candidate.position.into(), &mut |login| owner = Some(login::canonical(login)));
        owner
    }

    /// Whether the request names what belongs to an account.
    fn is_of_an_account(&self) -> bool {
        !self.counters().is_empty() || self.subject.login.is_some()
    }

    /// Returns the `candidates` that can be of another account than the token `tried`.
    #[must_use]
    pub fn others(&self, candidates: &[Candidate], tried: u16) -> Vec<Candidate> {
        let owner = |position| self.owner(Candidate { position, listed: 0 });
        let of_tried = owner(tried);
        let is_same =
            |other: &Candidate| other.position == tried || of_tried.is_some() && self.owner(*other) == of_tried;
        candidates.iter().filter(|candidate| !is_same(candidate)).copied().collect()
    }

    /// Ranks `candidates`, which have the narrowest first.
    #[must_use]
    pub fn rank(&self, candidates: &[Candidate]) -> Ranking<'a> {
        let known: Vec<_> = candidates.iter().map(|candidate| (*candidate, self.owner(*candidate))).collect();
        // Rule 3.
        let account = |candidate: Candidate, owner: &Option<Box<str>>| {
            let same = known.iter().filter(|(_, other)| owner.is_some() && other == owner);
            same.map(|(other, _)| other.listed).min().unwrap_or(candidate.listed)
        };
        let rank = |(candidate, owner): &(Candidate, Option<Box<str>>)| {
            let (fit, lacked) = self.fit(*candidate);
            let is_granted = fit == Fit::Granted;
            let position = candidate.position.into();
            let is_blocked = !self.accounts.can_be_sent(position);
            let may_change = is_granted || self.is_of_an_account() && !self.operation.acts;
            Rank {
                lacks_scope: self.accounts.lacks(position, self.operation.scopes),
                fit,
                lacked,
                is_blocked: is_blocked && may_change,
                account: if is_granted { 0 } else { account(*candidate, owner) },
                is_blocked_in_account: is_blocked,
            }
        };
        let ranks: Vec<_> = known.iter().map(rank).collect();
        let mut ranked: Vec<_> = known.into_iter().zip(ranks).map(|((one, owner), rank)| (one, owner, rank)).collect();
        // A stable sort keeps the narrowest first.
        ranked.sort_by_key(|(.., rank)| *rank);
        Ranking { request: *self, ranked }
    }

    /// Chooses among `candidates`, which have the narrowest first; `None` if there are none.
    #[must_use]
    pub fn choose(&self, candidates: &[Candidate]) -> Option<Chosen> {
        if let [only] = candidates {
            return Some(Chosen { first: only.position, next: None });
        }
        self.rank(candidates).choose()
    }
}

/// The rank of a candidate, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Rule 1.
    lacks_scope: bool,
    /// Rule 2.
    fit: Fit,
    /// Rule 2.
    lacked: usize,
    /// Rule 8.
    is_blocked: bool,
    /// The place of the first candidate of the same account (rule 3).
    account: u16,
    /// Rule 8.
    is_blocked_in_account: bool,
}

/// The candidates of a request in order of preference.
pub struct Ranking<'a> {
    request: Request<'a>,
    ranked: Vec<(Candidate, Option<Box<str>>, Rank)>,
}

impl Ranking<'_> {
    /// The candidates in order, with what is known of each.
    pub fn order(&self) -> impl Iterator<Item = (Candidate, Fit)> {
        self.ranked.iter().map(|(candidate, _, rank)| (*candidate, rank.fit))
    }

    /// The first candidate, and the next to try.
    #[must_use]
    pub fn choose(&self) -> Option<Chosen> {
        let (first, owner, rank) = self.ranked.first()?;
        let is_open = self.request.is_of_an_account() && rank.fit != Fit::Granted;
        let next = if is_open { self.next(owner.as_deref()) } else { None };
        Some(Chosen { first: first.position, next })
    }

    /// The candidate to try after the first, which is of this owner (rule 9).
    fn next(&self, owner: Option<&str>) -> Option<u16> {
        let others = self.ranked.iter().skip(1).filter(|(_, other, rank)| {
            let is_same = owner.is_some() && other.as_deref() == owner;
            !is_same && rank.fit != Fit::Lacking && !rank.lacks_scope && !rank.is_blocked_in_account
        });
        let is_unsure = |other: Option<&str>| owner.is_none() || other.is_none();
        let best = others.min_by_key(|(_, other, rank)| (rank.fit, is_unsure(other.as_deref()), *rank));
        best.map(|(candidate, ..)| candidate.position)
    }

    /// If each counter is granted to a candidate's owner, but none has access to all (rule 5): a candidate for each
    /// counter.
    #[must_use]
    pub fn split(&self) -> Option<Vec<(u64, Candidate)>> {
        let Self { request, ranked } = self;
        let counters = request.counters();
        if counters.len() < 2 || ranked.len() < 2 || request.subject.login.is_some() {
            return None;
        }
        if !ranked.iter().all(|(.., rank)| rank.fit == Fit::Lacking) {
            return None;
        }
        let has = |counter: u64| {
            let is_granted = |candidate: &Candidate| {
                request.accounts.is_granted(candidate.position.into(), counter)
                    && request.access(*candidate, counter) == Some(true)
            };
            let granted = ranked.iter().map(|(candidate, ..)| candidate).filter(|candidate| is_granted(candidate));
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

/// The maximum number of tokens that a message names.
const MOST_TOKENS: usize = 10;

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

    /// The tokens, each with the counters of others, which its owner is known to lack.
    pub fn lacking(&self) -> impl Iterator<Item = (TokenAlias, Vec<u64>)> {
        let of_others = |own: TokenAlias| {
            let others = self.0.iter().filter(move |(alias, _)| *alias != own);
            others.flat_map(|(_, counters)| counters.iter().copied()).collect()
        };
        self.0.iter().map(move |(alias, _)| (*alias, of_others(*alias)))
    }
}

impl fmt::Display for SeveralAccounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the counters belong to several accounts, and Metrica serves one at a time: ")?;
        for (index, (alias, counters)) in self.0.iter().take(MOST_TOKENS).enumerate() {
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
        let further = self.0.len().saturating_sub(MOST_TOKENS);
        if further > 0 {
            write!(f, "; the others with {further} more tokens")?;
        }
        f.write_str("; send one request per account")
    }
}

impl std::error::Error for SeveralAccounts {}

#[cfg(test)]
mod tests;
