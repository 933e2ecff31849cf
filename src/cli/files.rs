//! Checks the files that a configuration names, row by row of [`crate::files`], for `check`.

use super::check::{Warning, key};
use crate::config::Config;
use crate::config::document::Step;
use crate::files::guard::Refusal;
use crate::files::{ExternalFile, Purpose};
use crate::policy::names::{ListenerName, TokenAlias};
use crate::token::store;

/// The problems that were found in files, with the purpose of each.
#[derive(Default)]
pub(super) struct Files {
    pub mistakes: Vec<(Purpose, Warning)>,
    pub warnings: Vec<Warning>,
    pub code: u8,
}

/// Checks every file against the guard of its row, and the content of token files.
pub(super) fn files<'a>(rows: impl Iterator<Item = &'a ExternalFile>, config: Option<&Config>) -> Files {
    let mut found = Files::default();
    for row in rows {
        let path = row.path.display();
        let wrong = match row.purpose {
            Purpose::Token(alias) => token(row, alias, &mut found.warnings),
            // Their content was read with the configuration.
            Purpose::Configuration
            | Purpose::Upstream
            | Purpose::Identity
            | Purpose::OAuth
            | Purpose::Proxy
            | Purpose::Store
            | Purpose::Keys
            | Purpose::Certificate(_)
            | Purpose::CertificateKey(_)
            | Purpose::Authority(_)
            | Purpose::AuthorityKey(_)
            | Purpose::ClientAuthority(_)
            | Purpose::KeySet
            | Purpose::Renewed(_) => row.check().err().map(|refusal| (format!("{path}: {refusal}"), 77)),
            // Until the first login, there is no record and no refresh token.
            Purpose::Record(_) | Purpose::ClientSecret(_) | Purpose::RefreshToken(_) => match row.check() {
                Ok(()) | Err(Refusal::Missing(_)) => None,
                Err(refusal) => Some((format!("{} in {path}: {refusal}", row.purpose), 77)),
            },
            Purpose::Listener(name) => {
                row.check().err().map(|refusal| (format!("listener '{name}' at {path}: {refusal}"), 77))
            }
            Purpose::StorePassword => {
                row.check().err().map(|refusal| (format!("the password of the quota store in {path}: {refusal}"), 77))
            }
            Purpose::KeyServerToken => {
                row.check().err().map(|refusal| (format!("{} in {path}: {refusal}", row.purpose), 77))
            }
            Purpose::State => {
                row.check().err().map(|refusal| (format!("the counts of the day in {path}: {refusal}"), 77))
            }
        };
        if let Some((message, code)) = wrong {
            // Permissions take precedence, as in `run`.
            found.code = if found.code == 77 { 77 } else { code };
            found.mistakes.push((row.purpose, (place(row.purpose, config), message)));
        }
    }
    found
}

/// Returns the problem of a token file and its exit code.
fn token(row: &ExternalFile, alias: TokenAlias, warnings: &mut Vec<Warning>) -> Option<(String, u8)> {
    match store::read_from(row, alias, false) {
        Ok(token) => {
            if token.is_short() {
                let message = format!(
                    "token '{alias}' is shorter than any known token of Yandex; check that the file is complete"
                );
                warnings.push((vec![key("tokens"), key(alias.as_str())], message));
            }
            None
        }
        Err(error) => Some((error.to_string(), if error.is_of_permissions() { 77 } else { 78 })),
    }
}

/// Returns the path of the key that names a file.
fn place(purpose: Purpose, config: Option<&Config>) -> Vec<Step> {
    match purpose {
        Purpose::Configuration => Vec::new(),
        Purpose::Upstream => vec![key("upstream"), key("ca_file")],
        Purpose::Identity => vec![key("identity"), key("ca_file")],
        Purpose::Proxy => vec![key("upstream"), key("proxy_auth_file")],
        Purpose::OAuth => vec![key("oauth"), key("ca_file")],
        Purpose::ClientSecret(alias) => vec![key("tokens"), key(alias.as_str()), key("client_secret_file")],
        Purpose::RefreshToken(alias) => vec![key("tokens"), key(alias.as_str()), key("refresh_file")],
        Purpose::State => vec![key("state_dir")],
        Purpose::Keys => vec![key("keys_file")],
        Purpose::KeySet => vec![key("service_accounts")],
        Purpose::KeyServerToken => vec![key("service_accounts"), key("bearer_file")],
        Purpose::Store => vec![key("quota"), key("store"), key("ca_file")],
        Purpose::StorePassword => vec![key("quota"), key("store"), key("password_file")],
        Purpose::Token(alias) | Purpose::Record(alias) => vec![key("tokens"), key(alias.as_str()), key("file")],
        Purpose::Listener(name) => of_listener(name, &["unix", "path"], config),
        Purpose::Certificate(name)
        | Purpose::CertificateKey(name)
        | Purpose::Authority(name)
        | Purpose::AuthorityKey(name)
        | Purpose::Renewed(name) => of_listener(name, &["tls"], config),
        Purpose::ClientAuthority(name) => of_listener(name, &["tls", "client_ca"], config),
    }
}

/// Returns the path of a key of a listener.
fn of_listener(name: ListenerName, keys: &[&str], config: Option<&Config>) -> Vec<Step> {
    let position = config.and_then(|config| config.listeners.iter().position(|one| one.name == name));
    let inner = position
        .into_iter()
        .flat_map(|position| std::iter::once(Step::Index(position)).chain(keys.iter().map(|name| key(name))));
    std::iter::once(key("listeners")).chain(inner).collect()
}
