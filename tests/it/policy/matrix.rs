//! The matrix: every caller against every operation, as text. A changed permission is a changed character in review.

use std::fmt::Write;
use std::path::Path;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use metrica::operation::Operation;
use metrika_gate::config::{Config, ConfiguredAccounts};
use metrika_gate::policy::Policy;
use metrika_gate::policy::caller::{Evidence, ListenerName, Peer, Proofs};
use metrika_gate::policy::decide::{self, Candidates, KnownState, RequestHead};
use metrika_gate::policy::rejection::Reason;

use crate::harness::files::same_as_file;

const CONFIG: &str = "
listeners: [{name: app, address: '127.0.0.1:8080'}]
tokens:
  analytics: {file: /t/analytics, owner: shop, scopes: [metrika:read]}
  crm: {file: /t/crm, owner: shop, scopes: [metrika:write]}
  expenses: {file: /t/expenses, owner: shop, scopes: [metrika:expenses]}
  params: {file: /t/params, owner: shop, scopes: [metrika:user_params]}
  offline: {file: /t/offline, owner: shop, scopes: [metrika:offline_data]}
callers:
  - {id: reader, match: {uid: [1]}, scopes: [metrika:read], tokens: [analytics]}
  - {id: writer, match: {uid: [2]}, scopes: [metrika:write], tokens: [crm], measurement_tokens: allow}
  - {id: both, match: {uid: [3]}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm], measurement_tokens: allow}
  - {id: expenses, match: {uid: [4]}, scopes: [metrika:expenses], tokens: [expenses]}
  - {id: params, match: {uid: [5]}, scopes: [metrika:user_params], tokens: [params]}
  - {id: offline, match: {uid: [6]}, scopes: [metrika:offline_data], tokens: [offline]}
  - {id: everything, match: {uid: [7]}, scopes: [metrika:read, metrika:write], tokens: [crm, analytics, expenses, params, offline], measurement_tokens: allow}
  - {id: mistaken, match: {uid: [8]}, scopes: [metrika:read, metrika:write], tokens: [analytics], measurement_tokens: allow}
";

/// The gate's decision on a request of the caller that runs as `uid`, as one character.
fn decided(operation: &Operation, uid: u32, known: &KnownState<'_>) -> String {
    let segment = |segment: &str| if segment.starts_with('{') { "1".to_owned() } else { segment.to_owned() };
    let path: Vec<_> = operation.template.split('/').map(segment).collect();
    let (method, uri): (Method, Uri) = (operation.verb.as_str().parse().unwrap(), path.join("/").parse().unwrap());
    let fields = HeaderMap::from_iter([(HOST, HeaderValue::from_static("localhost"))]);
    let head = RequestHead {
        method: &method,
        version: Version::HTTP_11,
        uri: &uri,
        fields: &fields,
        body: None,
        encoded: None,
        opened_for: [None; 2],
    };
    let evidence = Evidence::new(ListenerName::new("app"), Peer::Process { uid, gid: 0 });
    match decide::decide(&head, (&evidence, &Proofs::NONE), known) {
        Ok(decision) => decision.grant().token().as_str()[..1].to_owned(),
        Err(rejection) if rejection.reason == Reason::ScopeDenied => "-".to_owned(),
        Err(rejection) if rejection.reason == Reason::TokenScopeMissing => "!".to_owned(),
        Err(rejection) => panic!("{} {uri}: {rejection:?}", operation.id),
    }
}

/// The matrix of a configuration: for every operation, one character a caller.
fn matrix(config: &Config, policy: &Policy) -> String {
    let admissions = config.admissions();
    let tokens = Candidates::of(&vec![Ok(()); policy.tokens().len()], |_| None);
    let accounts = &ConfiguredAccounts(&config.tokens);
    let (admissions, limits, tokens) = (&admissions, &config.limits, &tokens);
    let known = KnownState { policy, admissions, limits, tokens, accounts };
    let mut text = "# Who may do what, and with which token: the initial of its name; '-' is scope_denied, '!' token_scope_missing.\n\
        # Written by tests/it/policy/matrix.rs; UPDATE=1 writes it anew.\n"
        .to_owned();
    let callers = policy.callers.all();
    for (position, caller) in callers.iter().enumerate() {
        let tokens: Vec<_> = caller.tokens.iter().map(|token| token.as_str()).collect();
        let column = "| ".repeat(position);
        writeln!(text, "# {column}{} ({}; tokens {})", caller.id, caller.scopes, tokens.join(", ")).unwrap();
    }
    for operation in policy.catalogue.operations() {
        let uids = 1..=u32::try_from(callers.len()).unwrap();
        let row: Vec<_> = uids.map(|uid| decided(operation, uid, &known)).collect();
        let line = format!("  {}  {:6} {}", row.join(" "), operation.verb.as_str(), operation.template);
        writeln!(text, "{line}").unwrap();
    }
    text
}

#[test]
fn the_matrix_of_permissions_is_unchanged() {
    let config = Config::parse(CONFIG, Path::new("matrix.yaml")).unwrap_or_else(|error| panic!("{error}"));
    let policy = metrika_gate::reload::policy(&config);
    same_as_file("tests/it/fixtures/matrix.txt", &matrix(&config, &policy));
}
