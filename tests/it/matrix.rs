//! The matrix: every caller against every operation, as text. A changed permission is a changed character in review.

use std::fmt::Write;
use std::path::Path;

use metrika_gate::config::Config;
use metrika_gate::policy::{Denial, Policy};

use crate::harness::files::same_as_file;

const CONFIG: &str = "
listeners: [{name: app, address: '127.0.0.1:8080'}]
tokens:
  analytics: {file: /t/analytics, scopes: [metrika:read]}
  crm: {file: /t/crm, scopes: [metrika:write]}
  expenses: {file: /t/expenses, scopes: [metrika:expenses]}
  params: {file: /t/params, scopes: [metrika:user_params]}
  offline: {file: /t/offline, scopes: [metrika:offline_data]}
callers:
  - {id: reader, match: {uid: [1]}, scopes: [metrika:read], tokens: [analytics]}
  - {id: writer, match: {uid: [2]}, scopes: [metrika:write], tokens: [crm]}
  - {id: both, match: {uid: [3]}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm]}
  - {id: expenses, match: {uid: [4]}, scopes: [metrika:expenses], tokens: [expenses]}
  - {id: params, match: {uid: [5]}, scopes: [metrika:user_params], tokens: [params]}
  - {id: offline, match: {uid: [6]}, scopes: [metrika:offline_data], tokens: [offline]}
  - {id: everything, match: {uid: [7]}, scopes: [metrika:read, metrika:write], tokens: [crm, analytics, expenses, params, offline]}
  - {id: mistaken, match: {uid: [8]}, scopes: [metrika:read, metrika:write], tokens: [analytics]}
";

/// The matrix of a policy: for every operation, one character a caller.
fn matrix(policy: &Policy) -> String {
    let mut text = "# Who may do what, and with which token: the initial of its name; '-' is scope_denied, '!' token_scope_missing.\n\
        # Written by tests/it/matrix.rs; UPDATE=1 writes it anew.\n"
        .to_owned();
    let callers = policy.callers.all();
    for (position, caller) in callers.iter().enumerate() {
        let tokens: Vec<_> = caller.tokens.iter().map(|token| token.as_str()).collect();
        let column = "| ".repeat(position);
        writeln!(text, "# {column}{} ({}; tokens {})", caller.id, caller.scopes, tokens.join(", ")).unwrap();
    }
    for operation in policy.catalogue.operations() {
        let one = |position| match policy.authorize(position, operation) {
            Ok(grant) => &grant.token().as_str()[..1],
            Err(Denial::ScopeDenied(_)) => "-",
            Err(Denial::TokenScopeMissing(_)) => "!",
            Err(Denial::UnknownOperation | Denial::MethodDenied | Denial::Rule(..)) => "?",
        };
        let row: Vec<_> = (0..callers.len()).map(one).collect();
        let line = format!("  {}  {:6} {}", row.join(" "), operation.verb.as_str(), operation.template);
        writeln!(text, "{line}").unwrap();
    }
    text
}

#[test]
fn who_may_do_what() {
    let config = Config::parse(CONFIG, Path::new("matrix.yaml")).unwrap_or_else(|error| panic!("{error}"));
    let policy = metrika_gate::reload::policy(&config);
    same_as_file("tests/it/fixtures/matrix.txt", &matrix(&policy));
}
