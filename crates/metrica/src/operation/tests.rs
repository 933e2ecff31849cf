//! Tests of the numbered rules of the catalogue.

use super::*;

fn id(catalogue: &Catalogue, verb: Verb, path: &str) -> &'static str {
    match catalogue.find(verb, path) {
        Lookup::Known(operation) => operation.id.as_str(),
        Lookup::OtherMethod => "(other method)",
        Lookup::Unknown => "(unknown)",
    }
}

#[test]
fn every_line_is_in_the_table() {
    let lines = BUILT_IN.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    assert_eq!(Catalogue::built_in().operations().len(), lines);
    assert_eq!(lines, 127);
}

#[test]
fn every_path_fits_exactly_one_line() {
    let catalogue = Catalogue::built_in();
    for operation in catalogue.operations() {
        let path: String = operation.template.replace(['{', '}'], "7");
        assert_eq!(id(&catalogue, operation.verb, &path), operation.id.as_str(), "{path}");
        let fitting = catalogue
            .operations()
            .iter()
            .filter(|other| other.verb == operation.verb && overlap(&other.template, &operation.template));
        assert_eq!(fitting.count(), 1, "{} overlaps another line", operation.template);
    }
}

#[test]
fn ids_are_unique() {
    let catalogue = Catalogue::built_in();
    let mut ids: Vec<_> = catalogue.operations().iter().map(|operation| operation.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), catalogue.operations().len());
}

#[test]
fn rule_1_methods_and_segments() {
    let catalogue = Catalogue::built_in();
    for (verb, path, expected) in [
        (Verb::Get, "/management/v1/counters", "counters.list"),
        (Verb::Post, "/management/v1/counters", "counters.create"),
        (Verb::Put, "/management/v1/counter/1/goal/2", "goal.update"),
        (Verb::Post, "/management/v1/counter/1/logrequest/2/clean", "log_request.clean"),
        (Verb::Get, "/management/v1/counter/1/logrequests/evaluate", "log_requests.evaluate"),
        (Verb::Put, "/management/v1/delegates", "delegates.replace"),
        (Verb::Put, "/management/v1/counter/1/grant/ivan", "grant.update_old"),
        (Verb::Delete, "/management/v1/counter/1/grant/ivan", "grant.delete_old"),
        (Verb::Delete, "/management/v1/delegate/ivan", "delegate.delete_old"),
        (Verb::Delete, "/management/v1/account/ivan", "account.delete_old"),
        (Verb::Delete, "/management/v1/counters", "(other method)"),
        (Verb::Patch, "/management/v1/counters", "(other method)"),
        (Verb::Get, "/management/v1/counter", "(unknown)"),
        (Verb::Get, "/management/v2/counters", "(unknown)"),
        (Verb::Get, "/", "(unknown)"),
        (Verb::Get, "/other", "(unknown)"),
    ] {
        assert_eq!(id(&catalogue, verb, path), expected, "{verb:?} {path}");
    }
}

#[test]
fn rule_2_suffixes() {
    let catalogue = Catalogue::built_in();
    for (path, expected) in [
        ("/stat/v1/data.csv", "report.table"),
        ("/stat/v1/data.json", "report.table"),
        ("/stat/v1/data/bytime.csv", "report.by_time"),
        ("/management/v1/counters.json", "counters.list"),
        ("/management/v1/counter/7.json", "counter.get"),
        ("/stat/v1/data.xml", "(unknown)"),
        ("/stat/v1/.csv", "(unknown)"),
        ("/stat/v1/data.csv.csv", "(unknown)"),
        ("/cdp/api/v1/counter/7/last_uploadings.json", "(unknown)"),
        ("/export/v1/cloud/counter/5", "cloud_exports.list"),
        ("/export/v1/cloud/counter/5.json", "(unknown)"),
        ("/export/v1/cloud/counter/5.csv", "(unknown)"),
        ("/management/v1/counter/5/grant/ivan.petrov", "grant.get_old"),
        ("/management/v1/counter/5/grant/ivan.json", "grant.get_old"),
    ] {
        assert_eq!(id(&catalogue, Verb::Get, path), expected, "{path}");
    }
}

#[test]
fn rule_3_head_is_get_unless_that_acts() {
    let catalogue = Catalogue::built_in();
    let generate = "/management/v1/counter/7/measurement/generate";
    assert_eq!(id(&catalogue, Verb::Head, "/stat/v1/data"), "report.table");
    assert_eq!(id(&catalogue, Verb::Get, generate), "measurement_token.generate");
    assert_eq!(id(&catalogue, Verb::Head, generate), "(other method)");
    let by_method = catalogue.with_unknown(UnknownOperations::ByMethod);
    assert_eq!(id(&by_method, Verb::Head, generate), "(other method)");
    assert_eq!(id(&by_method, Verb::Head, "/management/v2/thing"), "unknown");
}

#[test]
fn the_logs_api_needs_only_read() {
    let catalogue = Catalogue::built_in();
    let read: ScopeSet = [Scope::Read].into_iter().collect();
    for operation in catalogue.operations().iter().filter(|operation| operation.quota == QuotaGroup::Logs) {
        assert_eq!(operation.scopes, read, "{}", operation.id);
    }
}

#[test]
fn bulk_operations_carry_a_file() {
    for operation in Catalogue::built_in().operations() {
        let carries_a_file = operation.upload || operation.id.as_str() == "log_request.download";
        assert_eq!(operation.bulk, carries_a_file, "{}", operation.id);
    }
}

#[test]
fn grants_and_delegates_are_counted_by_the_hour() {
    let catalogue = Catalogue::built_in();
    let adding = catalogue.operations().iter().filter(|operation| operation.adds != Adds::Nothing);
    let found: Vec<_> = adding.map(|operation| (operation.id.as_str(), operation.adds)).collect();
    assert_eq!(found, [("grants.create", Adds::Grant), ("delegates.create", Adds::Delegate)]);
}

#[test]
fn rule_4_no_line_is_changed_or_shadowed() {
    let mut catalogue = Catalogue::built_in();
    let line = |verb, template: &str| Operation {
        id: OperationId::new("added"),
        verb,
        template: template.into(),
        ..catalogue_line()
    };
    assert!(matches!(catalogue.add(line(Verb::Get, "/management/v1/counters")), Err(BadOperation::Taken(_))));
    assert!(matches!(catalogue.add(line(Verb::Head, "/stat/v1/data")), Err(BadOperation::Taken(_))));
    assert!(matches!(catalogue.add(line(Verb::Get, "/management/v1/{x}")), Err(BadOperation::Overlaps(_))));
    assert!(matches!(catalogue.add(line(Verb::Get, "/a/{x}y")), Err(BadOperation::Template)));
    assert!(matches!(catalogue.add(line(Verb::Get, "/a//b")), Err(BadOperation::Template)));
    assert_eq!(catalogue.add(line(Verb::Patch, "/management/v1/counters")), Ok(()));
    assert_eq!(catalogue.add(line(Verb::Get, "/management/v1/new/{id}")), Ok(()));
    assert_eq!(id(&catalogue, Verb::Get, "/management/v1/new/8"), "added");
}

#[test]
fn rule_5_unknown_operations_by_method() {
    let catalogue = Catalogue::built_in().with_unknown(UnknownOperations::ByMethod);
    for (verb, scope) in [(Verb::Get, Scope::Read), (Verb::Head, Scope::Read), (Verb::Post, Scope::Write)] {
        let Lookup::Known(operation) = catalogue.find(verb, "/management/v2/thing") else {
            panic!("{verb:?} is unknown")
        };
        assert_eq!(operation.scopes, [scope].into_iter().collect(), "{verb:?}");
        for path in ["/", "/metrics", "/internal/x", "/management", "/Management/v1/x", "/new/stat/v1"] {
            assert!(matches!(catalogue.find(verb, path), Lookup::Unknown), "{path}");
        }
    }
    for area in ["stat", "analytics", "cdp", "export"] {
        assert_eq!(id(&catalogue, Verb::Get, &format!("/{area}/v9")), "unknown");
    }
}

fn catalogue_line() -> Operation {
    Catalogue::built_in().operations()[0].clone()
}
