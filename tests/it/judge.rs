//! The judge of reasons: no reported reason, hint or advice is wrong.
//!
//! A table gives the state at Metrica, the request, and the expected reports of the refusal: the reason, the caller's hint,
//! the operator's advice, the metric, the alert, the doctor's line. Each row runs against a real gate, in front of a Metrica
//! that is written from its documentation alone (`judge/world.rs`) and knows nothing of the gate.

mod cast;
mod changes;
mod content;
mod double;
mod double_tests;
mod known;
mod observe;
mod own;
mod owners;
mod quotas;
mod row;
mod run;
mod sequences;
mod several;
mod siblings;
mod troubleshooting;
mod wire;
mod world;

use std::collections::BTreeSet;

use row::Row;

/// Every row, in groups that run for themselves.
fn rows() -> impl Iterator<Item = &'static Row> {
    let groups = [
        troubleshooting::ROWS,
        content::ROWS,
        sequences::ROWS,
        changes::ROWS,
        owners::ROWS,
        siblings::ROWS,
        several::ROWS,
        quotas::ROWS,
        own::ROWS,
    ];
    groups.into_iter().flatten()
}

#[test]
fn the_table_is_long_enough_and_explains_ambiguous_rows() {
    let causes: BTreeSet<_> = rows().map(|row| row.cause).collect();
    assert_eq!(causes.len(), rows().count(), "two rows with one cause");
    assert!(causes.len() >= 60, "{} rows", causes.len());
    let ambiguous: Vec<_> = rows().filter(|row| row.reasons[0] == "ambiguous").collect();
    assert!(ambiguous.len() <= 10, "{} rows stay ambiguous", ambiguous.len());
    for row in rows() {
        assert_eq!(row.reasons[0] == "ambiguous", !row.why.is_empty(), "{}", row.cause);
    }
    for (cause, _) in known::KNOWN {
        assert!(causes.contains(cause), "no row is called so: {cause}");
    }
}
