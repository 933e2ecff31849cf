//! Limits that only observe, and budgets that keep a part of the day for a caller.

use fake_metrica::Quota;

use super::sharing::{get, metrica, start};

#[test]
fn an_observed_limit_refuses_nothing_and_counts() {
    let fake = metrica(Quota::default());
    let gate = start(&fake, "{limits: {day: {limit: 2, mode: observe}}}", "", "");
    for _ in 0..5 {
        assert_eq!(get(&gate, "greedy").status, 200);
    }
    assert_eq!(gate.metric(&["quota_observed_total", "limit=\"day\""]), 3.0);
    assert_eq!(gate.metric(&["quota_observed_total", "limit=\"parallel\""]), 0.0);
    assert_eq!(gate.metric(&["quota_refused_total", "caller=\"etl\"", "limit=\"day\""]), 0.0);
    assert_eq!(gate.metric(&["quota_remaining", "owner=\"shop\"", "limit=\"day\""]), 0.0);
}

#[test]
fn observed_budgets_refuse_nothing_and_count() {
    let fake = metrica(Quota::default());
    let gate = start(&fake, "{mode: observe}", ", quota: {per_day: 2}", "");
    for _ in 0..3 {
        assert_eq!(get(&gate, "greedy").status, 200);
    }
    let state: serde_json::Value = serde_json::from_str(&gate.admin("/quota").text()).unwrap();
    assert_eq!(state["budgets_observed"].as_u64(), Some(1), "{state}");
}

#[test]
fn a_share_is_lent_until_most_of_the_day_is_spent_and_kept_after_that() {
    let fake = metrica(Quota::default());
    let gate = start(&fake, "{limits: {day: 10}}", ", quota: {share: 50%}", "");
    for _ in 0..8 {
        assert_eq!(get(&gate, "polite").status, 200, "80 % of the day are for everyone");
    }
    let refused = get(&gate, "polite");
    assert_eq!((refused.status, refused.field("x-gate-error")), (429, Some("quota_budget")));
    assert_eq!(gate.metric(&["denied_total", "caller=\"dash\"", "reason=\"quota_budget\""]), 1.0);
    for _ in 0..2 {
        assert_eq!(get(&gate, "greedy").status, 200, "the rest is kept for the caller with the share");
    }
    let refused = get(&gate, "greedy");
    assert_eq!((refused.status, refused.field("x-gate-error")), (429, Some("quota_wait")), "the day itself is over");
}
