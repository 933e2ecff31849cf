//! The rules of the module, one by one.

use super::outcome::{COUNTERS_FOR_IDS, LOGIN_NOT_KNOWN, WITHOUT_IDS};
use super::*;
use crate::observed_rights::{Fact, Permission};
use crate::operation::OperationId;

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
        demands: Demands::Usual,
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
        (401, ErrorType::Other, true, Cause::Other),
        (401, ErrorType::Other, false, Cause::HeaderMalformed),
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
fn rule_3_a_token_for_an_organisation_that_is_refused_everything_was_issued_personally() {
    let (none, read) = (Subject::default(), set(&[Scope::Read]));
    let cause = |expected_owner, facts: &[Fact]| {
        let known = knowledge(facts);
        let list = Case { reach: Reach::Counters, expected_owner: Some(expected_owner), ..case(&none, &known) };
        list.diagnose().cause
    };
    assert_eq!(cause("porg-abc", &[]), Cause::Ambiguous, "a question tells");
    assert_eq!(cause("porg-abc", &[Fact::Lacks(read), Fact::Excluded]), Cause::OrganizationTokenRequired);
    assert_eq!(cause("porg-abc", &[Fact::Lacks(read)]), Cause::ScopeMissing, "what is public it is shown");
    assert_eq!(cause("porg-abc", &[Fact::Proven(set(&[Scope::Expenses]))]), Cause::ScopeMissing);
    assert_eq!(cause("porg-abc", &[Fact::Excluded, Fact::Proven(read)]), Cause::RequestRefused, "it works again");
    assert_eq!(cause("shop", &[Fact::Lacks(read), Fact::Excluded]), Cause::ScopeMissing);
}

#[test]
fn rule_4_a_report_that_names_no_counter_in_ids() {
    let known = knowledge(&[Fact::Proven(set(&[Scope::Read]))]);
    let diagnose = |subject: &Subject, knowledge: &Knowledge| {
        let report = Case { reach: Reach::Reports, ..case(subject, knowledge) }.diagnose();
        (report.cause, report.hint().into_owned())
    };
    let misnamed = Subject { misnamed: true, ..of_counter() };
    for known in [&known, &Knowledge::default()] {
        assert_eq!(diagnose(&Subject::default(), known), (Cause::Other, WITHOUT_IDS.to_owned()));
        assert_eq!(diagnose(&misnamed, known), (Cause::Other, COUNTERS_FOR_IDS.to_owned()));
    }
    let of_clients = Subject { clients: ["partner".into()].into(), ..Subject::default() };
    assert_eq!(diagnose(&of_clients, &known).0, Cause::Ambiguous, "it names the counters of these");
}

#[test]
fn rule_5_a_login_that_is_not_represented() {
    let read = set(&[Scope::Read]);
    let of_login = |login: &str| Subject { login: Some(login.into()), ..of_counter() };
    let diagnose = |login: &str, facts: &[Fact]| case(&of_login(login), &knowledge(facts)).diagnose();
    let cause = |login: &str, facts: &[Fact]| diagnose(login, facts).cause;
    let none = || Fact::Logins(Box::default());
    assert_eq!(cause("partner", &[]), Cause::Ambiguous, "nobody knows");
    assert_eq!(diagnose("partner", &[]).hint(), LOGIN_NOT_KNOWN);
    assert_eq!(cause("partner", &[Fact::Lacks(read)]), Cause::ScopeMissing, "that much is known");
    assert_eq!(cause("partner", &[none()]), Cause::NotRepresentative);
    assert_eq!(cause("porg-abc", &[none()]), Cause::OrganizationTokenRequired);
    let of_organization = [Fact::Owner("porg-xyz".into()), none()];
    assert_eq!(cause("porg-abc", &of_organization), Cause::NotRepresentative);
    let represented = || Fact::Logins(Box::new(["Partner.A".into()]));
    assert_eq!(cause("partner-a", &[represented()]), Cause::Ambiguous, "it is something else, in any spelling");
    assert_eq!(cause("partner-a", &[represented(), none()]), Cause::NotRepresentative, "no longer");
    assert_eq!(cause("partner-a", &[none(), Fact::Represents("partner-a".into())]), Cause::Ambiguous, "since then");
}

#[test]
fn rule_5_the_permissions_of_a_represented_login_decide() {
    let of_login = Subject { login: Some("partner".into()), ..of_counter() };
    let (read, write) = (set(&[Scope::Read]), set(&[Scope::Write]));
    let of_partner = |permission| Fact::PermissionOf("Partner".into(), 5, permission);
    let represents = Fact::Represents("partner".into());
    for (fact, needs, expected, hint) in [
        (Fact::Permission(5, Permission::Nothing), write, Cause::Ambiguous, "token has the scope"),
        (of_partner(Permission::Nothing), write, Cause::CounterNotGranted, "The login in ulogin"),
        (of_partner(Permission::View), write, Cause::CounterViewOnly, "The login in ulogin"),
        (of_partner(Permission::Edit), write, Cause::RequestRefused, "are sufficient"),
        (Fact::Permission(5, Permission::Edit), read, Cause::Ambiguous, "token has the scope"),
        (of_partner(Permission::View), read, Cause::RequestRefused, "are sufficient"),
    ] {
        let known = knowledge(&[represents.clone(), Fact::Proven(read), Fact::Proven(write), fact]);
        let diagnosis = Case { needs, ..case(&of_login, &known) }.diagnose();
        assert!(diagnosis.cause == expected && diagnosis.hint().contains(hint), "{known:?}: {diagnosis:?}");
    }
    let list = Subject { login: Some("partner".into()), ..Subject::default() };
    let known = knowledge(&[represents, Fact::Lacks(read)]);
    assert_eq!(Case { reach: Reach::Counters, ..case(&list, &known) }.diagnose().cause, Cause::ScopeMissing);
}

#[test]
fn rule_6_without_a_counter_the_scope_or_the_request_is_the_cause() {
    let (none, nothing) = (Subject::default(), Knowledge::default());
    let (read, write) = (set(&[Scope::Read]), set(&[Scope::Write]));
    let proven = knowledge(&[Fact::Proven(read), Fact::Proven(write)]);
    let lacks = knowledge(&[Fact::Lacks(read)]);
    for reach in [Reach::Counters, Reach::Account, Reach::Nobody] {
        for subject in [&none, &of_counter()] {
            let said = |needs, known| {
                let diagnosis = Case { reach, needs, ..case(subject, known) }.diagnose();
                (diagnosis.cause, diagnosis.doubts_token())
            };
            assert_eq!(
                (said(read, &proven), said(write, &proven)),
                ((Cause::RequestRefused, true), (Cause::RequestRefused, true))
            );
            assert_eq!(said(read, &lacks), (Cause::ScopeMissing, false));
            assert_eq!(said(write, &nothing), (Cause::ScopeMissing, false), "no question proves it");
            // The follow-up would ask for the list itself.
            let asked = if reach == Reach::Counters { Cause::ScopeMissing } else { Cause::Ambiguous };
            assert_eq!(said(read, &nothing), (asked, false));
        }
    }
}

#[test]
fn rule_6_a_login_may_no_longer_be_represented() {
    let list = Subject { login: Some("partner".into()), ..Subject::default() };
    let proven = || Fact::Proven(set(&[Scope::Read]));
    let said = |fact| {
        let known = knowledge(&[proven(), fact]);
        let diagnosis = Case { reach: Reach::Counters, ..case(&list, &known) }.diagnose();
        (diagnosis.cause, diagnosis.doubts_token(), diagnosis.hint() == LOGIN_NOT_KNOWN)
    };
    assert_eq!(said(Fact::Represents("partner".into())), (Cause::Ambiguous, true, true));
    assert_eq!(said(Fact::Logins(["Partner".into()].into())), (Cause::RequestRefused, true, false));
}

/// The rows of the table of the module: the owner's permission, and six causes.
fn table() -> Vec<(&'static str, Vec<&'static str>)> {
    let rows = include_str!("../cause.rs").lines().filter_map(|line| {
        let (label, cells) = line.strip_prefix("//!  ")?.split_at_checked(28)?;
        let cells: Vec<_> = cells.split_whitespace().collect();
        let is_cell = |cell: &&str| matches!(cell.trim_end_matches('?'), "G" | "V" | "S" | "R" | "A");
        (cells.len() == 6 && cells.iter().all(is_cell)).then_some((label.trim(), cells))
    });
    rows.collect()
}

fn permission(label: &str) -> Option<Permission> {
    Some(match label {
        "nothing" => Permission::Nothing,
        "what is public" => Permission::Public,
        "look, as was seen" => Permission::Seen,
        "look" => Permission::View,
        "change it, as was seen" => Permission::Changed,
        "change it" => Permission::Edit,
        "anything" => Permission::Own,
        "not known" => return None,
        other => panic!("{other}"),
    })
}

#[test]
fn rule_7_scope_or_grant_or_the_request_itself() {
    let subject = of_counter();
    let (read, write) = (set(&[Scope::Read]), set(&[Scope::Write]));
    let table = table();
    assert_eq!(table.len(), 8);
    for (label, cells) in table {
        for (position, cell) in cells.into_iter().enumerate() {
            let expected = match cell.trim_end_matches('?') {
                "G" => Cause::CounterNotGranted,
                "V" => Cause::CounterViewOnly,
                "S" => Cause::ScopeMissing,
                "R" => Cause::RequestRefused,
                _ => Cause::Ambiguous,
            };
            let kinds = if position < 3 {
                [(READ, read, Demands::Usual), (Reach::Reports, read, Demands::Usual)]
            } else {
                [(READ, write, Demands::Usual), (READ, read, Demands::Change)]
            };
            for (reach, needs, demands) in kinds {
                let scope = match position % 3 {
                    0 => Some(Fact::Proven(needs)),
                    1 => Some(Fact::Lacks(needs)),
                    _ => None,
                };
                let known = permission(label).map(|permission| Fact::Permission(5, permission));
                let facts: Vec<_> = known.into_iter().chain(scope).collect();
                let known = knowledge(&facts);
                let diagnosis = Case { needs, reach, demands, ..case(&subject, &known) }.diagnose();
                let said = (diagnosis.cause, diagnosis.doubts_token());
                assert_eq!(said, (expected, cell.ends_with('?')), "{label}, {position}: {facts:?} {needs} {reach:?}");
            }
        }
    }
}

#[test]
fn rule_7_operations_of_the_owner_are_refused_to_editors() {
    let (subject, write) = (of_counter(), set(&[Scope::Write]));
    let said = |known: Option<Permission>, scope: Option<Fact>| {
        let facts: Vec<_> = known.map(|known| Fact::Permission(5, known)).into_iter().chain(scope).collect();
        let known = knowledge(&facts);
        let diagnosis = Case { needs: write, demands: Demands::Ownership, ..case(&subject, &known) }.diagnose();
        (diagnosis.cause, diagnosis.doubts_token())
    };
    let proven = || Some(Fact::Proven(write));
    for scope in [None, proven(), Some(Fact::Lacks(write))] {
        assert_eq!(said(Some(Permission::Edit), scope.clone()), (Cause::RequestRefused, false));
        assert_eq!(said(Some(Permission::View), scope).0, Cause::CounterViewOnly);
    }
    assert_eq!(said(Some(Permission::Own), None).0, Cause::ScopeMissing);
    assert_eq!(said(Some(Permission::Own), proven()), (Cause::RequestRefused, true));
    assert_eq!((said(Some(Permission::Changed), None).0, said(None, proven()).0), (Cause::Ambiguous, Cause::Ambiguous));
    for (id, demands) in [
        ("counter.delete", Demands::Ownership),
        ("counter.undelete", Demands::Ownership),
        ("grants.list", Demands::Change),
        ("grant.get", Demands::Change),
        ("counter.update", Demands::Usual),
    ] {
        assert!(
            crate::operation::Catalogue::built_in().operations().iter().any(|known| known.id.as_str() == id),
            "{id}"
        );
        assert_eq!(Demands::of(OperationId::new(id)), demands, "{id}");
    }
}

#[test]
fn rule_7_one_counter_without_access_among_several_decides() {
    let subject = Subject { counters: Counters::Several([5, 6].into()), ..Subject::default() };
    let cause = |one: Option<Permission>, other: Option<Permission>| {
        let facts = [(5, one), (6, other)].into_iter();
        let facts = facts.filter_map(|(counter, known)| Some(Fact::Permission(counter, known?)));
        let known = knowledge(&facts.chain([Fact::Proven(set(&[Scope::Read]))]).collect::<Vec<_>>());
        Case { reach: Reach::Reports, ..case(&subject, &known) }.diagnose().cause
    };
    let (nothing, view) = (Some(Permission::Nothing), Some(Permission::View));
    assert_eq!((cause(nothing, None), cause(None, nothing)), (Cause::CounterNotGranted, Cause::CounterNotGranted));
    assert_eq!((cause(nothing, view), cause(view, nothing)), (Cause::CounterNotGranted, Cause::CounterNotGranted));
    assert_eq!((cause(view, None), cause(None, view)), (Cause::Ambiguous, Cause::Ambiguous));
    assert_eq!(
        (cause(view, view), cause(view, Some(Permission::Edit))),
        (Cause::RequestRefused, Cause::RequestRefused)
    );
}

#[test]
fn a_hint_names_no_scope_that_the_token_has() {
    let subject = of_counter();
    let (read, write) = (set(&[Scope::Read]), set(&[Scope::Write]));
    let unknown = case(&subject, &Knowledge::default()).diagnose().with_rights(read, write).hint().into_owned();
    assert!(unknown.contains("needs metrika:read"), "{unknown}");
    let known = knowledge(&[Fact::Proven(write)]);
    let proven = Case { needs: write, ..case(&subject, &known) }.diagnose();
    assert_eq!(proven.cause, Cause::Ambiguous);
    let hint = proven.with_rights(write, write).hint().into_owned();
    assert!(hint.contains("token has the scope") && !hint.contains("operation needs"), "{hint}");
    let known = knowledge(&[Fact::Proven(read), Fact::Permission(5, Permission::Public)]);
    let public = case(&subject, &known).diagnose();
    assert!(public.cause == Cause::CounterNotGranted && public.hint().contains("only public access"), "{public:?}");
}

#[test]
fn the_conclusion_about_the_token_decides() {
    let cause = |diagnosis: Diagnosis, conclusion| diagnosis.concluded(conclusion).cause;
    let invalid = Diagnosis::from(Cause::TokenInvalid);
    assert_eq!(cause(invalid, Conclusion::Accepted), Cause::Other);
    assert_eq!(
        (cause(invalid, Conclusion::Rejected), cause(invalid, Conclusion::Unknown)),
        (Cause::TokenInvalid, Cause::TokenInvalid)
    );
    let bare = Diagnosis::IN_BETWEEN;
    assert_eq!((cause(bare, Conclusion::Accepted), cause(bare, Conclusion::Unknown)), (Cause::Other, Cause::Other));
    assert_eq!(cause(bare, Conclusion::Rejected), Cause::TokenInvalid);
    assert!(invalid.reads_as_invalid() && bare.reads_as_invalid() && !bare.doubts_token());
    let denied = Diagnosis::doubtful(Cause::RequestRefused);
    assert!(denied.doubts_token() && !denied.reads_as_invalid());
    assert_eq!(denied.concluded(Conclusion::Rejected).cause, Cause::TokenInvalid);
    for conclusion in [Conclusion::Accepted, Conclusion::Unknown] {
        assert_eq!(denied.concluded(conclusion), denied);
    }
    let of_a_grant = Diagnosis::from(Cause::CounterNotGranted);
    assert_eq!(of_a_grant.concluded(Conclusion::Rejected), of_a_grant);
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
        rights.hint().ends_with(
            "The operation needs metrika:write or metrika:expenses; the token is configured with metrika:read."
        ),
        "{}",
        rights.hint()
    );
    let names: std::collections::BTreeSet<_> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
    assert_eq!(names.len(), 19);
}
