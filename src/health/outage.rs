//! Outage: tokens of several owners that are rejected at the same time are unlikely to be all revoked.
//!
//! 1. Two tokens whose owners are known to differ and that become rejected within [`TOGETHER`] are an outage. The
//!    configuration (`owner`) or `identity` names the owner.
//! 2. Other tokens that become rejected within [`TOGETHER`] of one of these are part of the outage, whoever owns them.
//! 3. Tokens that were rejected earlier are not part of it.

use std::time::Duration;

use metrica::login;
use tokio::time::Instant;

/// The maximum time between rejections of one outage (rule 1). A rarely used token is noticed late.
pub const TOGETHER: Duration = Duration::from_secs(300);

/// A rejected token.
#[derive(Debug, Clone, Copy)]
pub struct Rejected<'a> {
    /// The login of its owner, if known.
    pub owner: Option<&'a str>,
    /// When the token became rejected.
    pub since: Instant,
}

/// Whether each of these tokens is part of an outage.
#[must_use]
pub fn parts(rejected: &[Rejected<'_>]) -> Vec<bool> {
    let apart = |one: &Rejected<'_>, other: &Rejected<'_>| one.since.max(other.since) - one.since.min(other.since);
    let together = |one: &Rejected<'_>, other: &Rejected<'_>| apart(one, other) <= TOGETHER;
    let differ = |one: &Rejected<'_>, other: &Rejected<'_>| {
        one.owner.zip(other.owner).is_some_and(|(one, other)| !login::is_same(one, other))
    };
    let at_the_core = |one: &Rejected<'_>| rejected.iter().any(|other| differ(one, other) && together(one, other));
    let core: Vec<_> = rejected.iter().filter(|one| at_the_core(one)).collect();
    rejected.iter().map(|one| core.iter().any(|other| together(one, other))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_1_to_3_two_owners_within_five_minutes() {
        let start = Instant::now();
        let at = |owner, seconds| Rejected { owner, since: start + Duration::from_secs(seconds) };
        let (shop, other) = (Some("shop"), Some("other"));
        assert_eq!(parts(&[at(shop, 0), at(shop, 1)]), [false, false], "one owner: a password was changed");
        assert_eq!(parts(&[at(shop, 0), at(None, 1)]), [false, false], "perhaps the same one");
        assert_eq!(parts(&[at(shop, 0), at(other, 300)]), [true, true]);
        assert_eq!(parts(&[at(shop, 0), at(other, 301)]), [false, false]);
        assert_eq!(parts(&[at(shop, 0), at(other, 9), at(None, 99), at(shop, 999)]), [true, true, true, false]);
        assert!(parts(&[]).is_empty());
    }
}
