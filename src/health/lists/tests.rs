//! Tests of the numbered rules of the module.

use metrica::response::listed_in;
use metrica::scope::ScopeSet;

use super::*;

fn one(alias: &str, epoch: u64) -> TokenUse {
    TokenUse { alias: TokenAlias::new(alias), scopes: ScopeSet::EMPTY, epoch }
}

fn t() -> TokenAlias {
    TokenAlias::new("t")
}

fn owner() -> Account {
    Account::Owner("shop".into())
}

fn wanted(account: Account, asker: TokenUse) -> BTreeMap<Account, (TokenUse, Vec<TokenAlias>)> {
    [(account, (asker, vec![asker.alias]))].into()
}

fn followed(now: Instant) -> Lists {
    let mut lists = Lists::default();
    lists.follow(wanted(owner(), one("t", 1)), now);
    lists
}

fn due(lists: &Lists, start: Instant) -> u64 {
    lists.due(t()).unwrap().saturating_duration_since(start).as_secs()
}

/// A page with one counter of a list of `rows`.
fn page(counter: usize, rows: usize) -> Option<Listed> {
    listed_in(format!(r#"{{"rows":{rows},"counters":[{{"id":{counter},"permission":"own"}}]}}"#).as_bytes())
}

/// Reads a list of this number of pages, all at `now`.
fn read(lists: &mut Lists, pages: usize, changed: bool, now: Instant) {
    for index in 1..=pages {
        let (offset, begins) = lists.begin(t(), now).unwrap();
        assert_eq!((offset, begins), (index, index == 1));
        assert_eq!(lists.page(t(), page(index, pages), 1, now).is_some(), index == pages);
    }
    lists.finish(t(), changed, now);
}

fn everybody(_: TokenAlias) -> bool {
    true
}

#[test]
fn rule_1_a_long_list_is_asked_for_less_often() {
    for (pages, seconds) in [(1, 3600), (3, 3600), (4, 4320), (10, 10_800), (100, 108_000)] {
        let start = Instant::now();
        let mut lists = followed(start);
        assert_eq!(due(&lists, start), 0);
        read(&mut lists, pages, true, start);
        assert_eq!(due(&lists, start), seconds, "{pages}");
    }
}

#[test]
fn rule_2_a_reason_makes_it_sooner_and_not_at_once() {
    let start = Instant::now();
    let mut lists = followed(start);
    read(&mut lists, 1, true, start);
    let now = start + Duration::from_secs(5);
    lists.ask_again(Again::Denied, now, |alias| alias.as_str() == "another");
    assert_eq!(due(&lists, start), 3600, "no caller has both");
    lists.ask_again(Again::Denied, now, everybody);
    assert_eq!(due(&lists, start), 50);
    lists.ask_again(Again::Contradicted, now, everybody);
    assert_eq!(due(&lists, start), 10);
    lists.ask_again(Again::Denied, start + Duration::from_secs(9), everybody);
    assert_eq!(due(&lists, start), 10, "it stays as soon as it was");
    let mut long = followed(start);
    read(&mut long, 30, true, start);
    long.ask_again(Again::Changed, now, everybody);
    assert_eq!(due(&long, start), 300, "as many times as it takes requests");
}

#[test]
fn rule_2_only_lists_that_a_denial_caused_make_the_gate_wait_longer() {
    let start = Instant::now();
    let mut lists = followed(start);
    let mut after = |cause: Option<Again>, changed| {
        if let Some(cause) = cause {
            lists.ask_again(cause, start, everybody);
        }
        read(&mut lists, 1, changed, start);
        lists.ask_again(Again::Denied, start, everybody);
        let after_a_denial = due(&lists, start);
        // The reason is taken back for the next step.
        let listing = lists.of(t()).unwrap();
        (listing.cause, listing.due) = (None, start + PERIOD);
        after_a_denial
    };
    assert_eq!(after(None, true), 50);
    let scheduled: Vec<_> = (0..4).map(|_| after(None, false)).collect();
    assert_eq!(scheduled, [50; 4]);
    let denied: Vec<_> = (0..8).map(|_| after(Some(Again::Denied), false)).collect();
    assert_eq!(denied, [100, 200, 400, 800, 1600, 3200, 3600, 3600]);
    assert_eq!(after(None, true), 50);
}

#[test]
fn rule_3_a_page_that_was_not_read_is_asked_for_again_and_ever_later() {
    let start = Instant::now();
    let mut lists = followed(start);
    assert_eq!(lists.begin(t(), start), Some((1, true)));
    assert!(lists.page(t(), page(1, 2), 1, start).is_none());
    let mut failed = || {
        assert_eq!(lists.begin(t(), start), Some((2, false)), "the list goes on where it was");
        assert!(lists.page(t(), None, 1, start).is_none());
        lists.ask_again(Again::Changed, start, everybody);
        due(&lists, start)
    };
    let waits: Vec<_> = (0..5).map(|_| failed()).collect();
    assert_eq!(waits, [360, 720, 1440, 2880, 3600]);
    let later = start + PERIOD;
    assert_eq!(lists.begin(t(), later), Some((1, true)), "what is too old is begun again");
}

#[test]
fn rule_4_a_day_of_any_reasons_stays_within_the_budget() {
    for (pages, fails, step) in [(1, false, 1), (1, true, 1), (7, false, 1), (101, false, 5), (40, true, 5)] {
        let start = Instant::now();
        let mut lists = followed(start);
        let mut requests = Vec::new();
        let mut index = 0;
        for second in (0..2 * 86_400).step_by(step) {
            let now = start + Duration::from_secs(second);
            lists.ask_again(Again::Changed, now, everybody);
            while lists.due(t()).is_some_and(|due| due <= now) {
                requests.push(second);
                let (offset, begins) = lists.begin(t(), now).unwrap();
                index = if begins { 0 } else { index };
                assert_eq!(offset, index + 1);
                let answer = if fails && second % 3 == 0 { None } else { page(index + 1, pages) };
                index += usize::from(answer.is_some());
                if lists.page(t(), answer, 1, now).is_some() {
                    lists.finish(t(), true, now);
                }
            }
        }
        let of_day = |from: &u64| requests.iter().filter(|second| (*from..from + 86_400).contains(*second)).count();
        let most = requests.iter().map(of_day).max().unwrap();
        assert!(most <= 241, "{pages} {fails}: {most}");
        assert!(fails || most > 200, "{pages}: {most}");
    }
}

#[test]
fn rule_5_what_a_token_has_spent_counts_for_its_owner() {
    let start = Instant::now();
    let mut lists = Lists::default();
    lists.follow(wanted(Account::Token(t()), one("t", 1)), start);
    read(&mut lists, 1, true, start);
    let later = start + Duration::from_secs(1);
    lists.follow(wanted(owner(), one("t", 1)), later);
    assert_eq!(due(&lists, start), 3600, "it is not read again");
    // A sibling asks instead.
    lists.follow(wanted(owner(), one("other", 2)), later);
    let sibling = TokenAlias::new("other");
    assert_eq!(lists.due(sibling), Some(start + PERIOD));
    lists.ask_again(Again::Changed, later, everybody);
    assert_eq!(lists.due(sibling), Some(start + AFTER_CHANGE));
    // All its tokens are replaced.
    lists.follow(BTreeMap::new(), later);
    assert_eq!(lists.due(sibling), None);
    lists.follow(wanted(owner(), one("t", 3)), later);
    assert_eq!(due(&lists, start), 10, "nothing is known of it, but it was just asked");
    let spent = lists.accounts[&owner()].whole;
    assert!(spent > later, "and what it spent counts");
    lists.follow(wanted(Account::Token(t()), one("t", 4)), later);
    assert_eq!(due(&lists, start), 1, "of an unknown owner");
}

#[test]
fn rule_6_a_change_while_a_list_is_read_is_not_lost() {
    let start = Instant::now();
    let mut lists = followed(start);
    lists.begin(t(), start);
    lists.ask_again(Again::Changed, start, everybody);
    lists.ask_again(Again::Denied, start, everybody);
    assert!(lists.page(t(), page(1, 1), 1, start).is_some());
    lists.finish(t(), true, start);
    assert_eq!(due(&lists, start), 10);
    read(&mut lists, 1, true, start + AFTER_CHANGE);
    assert_eq!(due(&lists, start), 3610);
}
