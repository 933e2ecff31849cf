//! The rules of the module, one by one.

use super::*;
use crate::observed_rights::Fact;

const READ: Reach = Reach::Counter(3);

fn set(scopes: &[Scope]) -> ScopeSet {
    scopes.iter().copied().collect()
}

fn knowledge(facts: &[Fact]) -> Knowledge {
    let mut knowledge = Knowledge::default();
    facts.iter().for_each(|fact| _ = knowledge.learn(fact));
    knowledge
}

/// A read of counter 5 with a token that is declared to read and write, refused with `access_denied`.
fn case<'a>(subject: &'a Subject, knowledge: &'a Knowledge) -> Case<'a> {
    Case {
        status: 403,
        error_type: ErrorType::AccessDenied,
        is_silent: false,
        needs: set(&[Scope::Read]),
        reach: READ,
        guarded: false,
        subject,
        well_formed: true,
        expected_owner: None,
        knowledge,
    }
}

fn of_counter() -> Subject {
    Subject { counters: Counters::One(5), ..Subject::default() }
}

#[test]
fn rule_1_the_error_type_decides_whatever_the_status() {
    let (subject, nothing) = (of_counter(), Knowledge::default());
    for (error_type, expected) in [
        (ErrorType::InvalidToken, Cause::TokenInvalid),
        (ErrorType::CounterInConnect, Cause::CounterInOrganization),
        (ErrorType::QuotaRequestsByUid, Cause::QuotaUid),
        (ErrorType::QuotaRequestsByIp, Cause::QuotaIp),
        (ErrorType::QuotaRequestsByCounterId, Cause::QuotaCounter),
        (ErrorType::QuotaParallelRequests, Cause::QuotaParallel),
        (ErrorType::QuotaParallelRequestsByUid, Cause::QuotaParallel),
        (ErrorType::QuotaDelegateRequests, Cause::QuotaDelegates),
        (ErrorType::QuotaGrantsRequests, Cause::QuotaGrants),
        (ErrorType::QuotaOther, Cause::QuotaOther),
    ] {
        for status in [401, 403, 420, 429] {
            let case = Case { status, error_type, ..case(&subject, &nothing) };
            assert_eq!(case.diagnose().cause, expected, "{status} {error_type:?}");
        }
    }
}

#[test]
fn rule_2_the_status_decides_where_the_body_does_not() {
    let (subject, nothing) = (of_counter(), Knowledge::default());
    for (status, error_type, well_formed, expected) in [
        (401, ErrorType::Unauthorized, true, Cause::TokenInvalid),
        (401, ErrorType::Unauthorized, false, Cause::HeaderMalformed),
        (401, ErrorType::Other, true, Cause::TokenInvalid),
        (403, ErrorType::Other, true, Cause::Other),
        (420, ErrorType::Other, true, Cause::QuotaOther),
        (429, ErrorType::Other, true, Cause::QuotaOther),
        (429, ErrorType::BackendError, true, Cause::QuotaOther),
    ] {
        let case = Case { status, error_type, well_formed, ..case(&subject, &nothing) };
        assert_eq!(case.diagnose().cause, expected, "{status} {error_type:?}");
    }
    let to_a_head = Case { error_type: ErrorType::Other, is_silent: true, ..case(&subject, &nothing) };
    assert_eq!(to_a_head.diagnose().cause, Cause::Ambiguous);
}

#[test]
fn rule_3_another_owner() {
    let subject = of_counter();
    for (expected_owner, actual, expected) in [
        ("shop", "someone", Cause::OwnerMismatch),
        ("porg-abc", "someone", Cause::OrganizationTokenRequired),
        ("porg-abc", "porg-xyz", Cause::OwnerMismatch),
        ("Shop.Metrika", "shop-metrika", Cause::Ambiguous),
    ] {
        let known = knowledge(&[Fact::Owner(actual.into())]);
        let case = Case { expected_owner: Some(expected_owner), ..case(&subject, &known) };
        assert_eq!(case.diagnose().cause, expected, "{expected_owner} {actual}");
    }
}

#[test]
fn rule_4_a_login_that_is_not_represented() {
    let of_login = |login: &str| Subject { login: Some(login.into()), ..of_counter() };
    let cause = |login: &str, facts: &[Fact]| case(&of_login(login), &knowledge(facts)).diagnose().cause;
    assert_eq!(cause("partner", &[]), Cause::Ambiguous, "nobody knows");
    assert_eq!(cause("partner", &[Fact::AllLogins]), Cause::NotRepresentative);
    assert_eq!(cause("porg-abc", &[Fact::AllLogins]), Cause::OrganizationTokenRequired);
    let of_organization = [Fact::Owner("porg-xyz".into()), Fact::AllLogins];
    assert_eq!(cause("porg-abc", &of_organization), Cause::NotRepresentative);
    let seen = [Fact::Represents("partner".into()), Fact::AllLogins];
    assert_eq!(cause("partner", &seen), Cause::Ambiguous, "it is something else");
}

#[test]
fn rule_5_what_needs_no_counter_lacks_the_scope() {
    let (none, nothing) = (Subject::default(), Knowledge::default());
    let list = |knowledge| Case { reach: Reach::Counters, ..case(&none, knowledge) };
    assert_eq!(list(&nothing).diagnose().cause, Cause::ScopeMissing);
    let proven = knowledge(&[Fact::Proven(set(&[Scope::Read]))]);
    assert_eq!(list(&proven).diagnose().cause, Cause::Other);
    let report = Case { reach: Reach::Reports, ..case(&none, &proven) };
    assert_eq!((report.diagnose().cause, &*report.diagnose().hint()), (Cause::Other, WITHOUT_IDS));
}

#[test]
fn rule_6_scope_or_grant() {
    let subject = of_counter();
    let proven = |scope| Fact::Proven(set(&[scope]));
    let permission = |permission| Fact::Permission(5, permission);
    let (read, write) = (set(&[Scope::Read]), set(&[Scope::Write]));
    for (facts, needs, guarded, expected) in [
        (vec![], read, false, Cause::Ambiguous),
        (vec![proven(Scope::Read)], read, false, Cause::CounterNotGranted),
        (vec![permission(Permission::Nothing)], read, false, Cause::CounterNotGranted),
        (vec![permission(Permission::View)], read, false, Cause::ScopeMissing),
        (vec![permission(Permission::Public)], read, false, Cause::Ambiguous),
        (vec![Fact::Lacks(read)], read, false, Cause::ScopeMissing),
        (vec![Fact::Lacks(read)], write, false, Cause::Ambiguous),
        (vec![], write, false, Cause::Ambiguous),
        (vec![proven(Scope::Read), permission(Permission::Seen)], write, false, Cause::Ambiguous),
        (vec![permission(Permission::View)], write, false, Cause::CounterViewOnly),
        (vec![permission(Permission::Edit)], write, false, Cause::ScopeMissing),
        (vec![proven(Scope::Write)], write, false, Cause::CounterNotGranted),
        (vec![proven(Scope::Write), permission(Permission::Seen)], write, false, Cause::CounterViewOnly),
        (vec![permission(Permission::Nothing), proven(Scope::Write)], write, false, Cause::CounterNotGranted),
        (vec![proven(Scope::Read), permission(Permission::View)], read, true, Cause::CounterViewOnly),
        (vec![proven(Scope::Read), permission(Permission::Seen)], read, true, Cause::CounterViewOnly),
        (vec![permission(Permission::Edit)], read, true, Cause::ScopeMissing),
        (vec![proven(Scope::Read), permission(Permission::Seen)], read, false, Cause::CounterNotGranted),
        (vec![proven(Scope::Write), permission(Permission::Edit)], write, false, Cause::CounterNotGranted),
    ] {
        let known = knowledge(&facts);
        let case = Case { needs, guarded, ..case(&subject, &known) };
        assert_eq!(case.diagnose().cause, expected, "{facts:?} {needs} {guarded}");
    }
}

#[test]
fn hints_are_one_line_that_a_field_can_hold() {
    for cause in Cause::ALL {
        let all = set(&Scope::ALL);
        for text in [&*Diagnosis::from(*cause).with_rights(all, all).hint(), cause.advice()] {
            assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.len() < 500, "{cause:?}");
        }
        // A caller has no token, file or configuration of the gate's.
        let hint = cause.hint();
        let is_of_operators = ["file", "metrika-gate", "oauth.", "configur", "declare"];
        assert!(hint.len() < 250 && !is_of_operators.iter().any(|word| hint.contains(word)), "{cause:?}: {hint}");
    }
    let rights =
        Diagnosis::from(Cause::ScopeMissing).with_rights(set(&[Scope::Write, Scope::Expenses]), set(&[Scope::Read]));
    assert!(
        rights.hint().ends_with("It needs metrika:write or metrika:expenses; the token should have metrika:read."),
        "{}",
        rights.hint()
    );
    let names: std::collections::BTreeSet<_> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
    assert_eq!(names.len(), 18);
}
