//! What a person decides: on the page of an application, and on the page where the code of a device is entered.

use std::time::Duration;

use metrica::scope::{Scope, ScopeSet};

use super::super::access::Keyring;
use super::super::answer::Answer;
use super::super::query::Query;
use super::authority::{Application, Authority, BUSINESS, CODE, Code, Grant, Waiting, code};
use super::{OAuthError, error, page};

/// The page of answers for applications without a redirect URI of their own.
pub const VERIFICATION: &str = "/verification_code";

/// A checked request of an application.
struct Wanted<'a> {
    application: &'a Application,
    wants_token: bool,
    redirect: String,
    device: Option<String>,
    scopes: ScopeSet,
    narrowed: bool,
    challenge: Option<String>,
    state: Option<&'a str>,
}

/// The device of a request: its id has 6 to 50 printable ASCII characters.
fn device(query: &Query) -> Result<Option<String>, OAuthError> {
    let Some(id) = query.get("device_id") else { return Ok(None) };
    let fits = (6..=50).contains(&id.len()) && id.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if !fits {
        return Err(error("invalid_request", "device_id must have 6 to 50 printable ASCII characters"));
    }
    if query.get("device_name").is_some_and(|name| name.chars().count() > 100) {
        return Err(error("invalid_request", "device_name is longer than 100 characters"));
    }
    Ok(Some(id.to_owned()))
}

/// The scopes of a request, and whether they are fewer than the application's.
fn scopes(application: &Application, query: &Query) -> Result<(ScopeSet, bool), OAuthError> {
    let Some(wanted) = query.get("scope").filter(|scope| !scope.is_empty()) else {
        return Ok((application.scopes, false));
    };
    let wrong = error("invalid_scope", "The application does not have this right");
    let mut scopes = Vec::new();
    for name in wanted.split(' ').filter(|name| !name.is_empty()) {
        if name == BUSINESS && application.business {
            continue;
        }
        let scope: Scope = name.parse().map_err(|_| wrong)?;
        if !application.scopes.contains(scope) {
            return Err(wrong);
        }
        scopes.push(scope);
    }
    let scopes: ScopeSet = scopes.into_iter().collect();
    Ok((scopes, scopes != application.scopes))
}

impl Authority {
    fn wanted<'a>(&'a self, query: &'a Query) -> Result<Wanted<'a>, OAuthError> {
        let application = self.known(query.get("client_id"))?;
        let wants_token = match query.get("response_type") {
            Some("token") => true,
            Some("code") => false,
            Some(_) | None => return Err(error("invalid_request", "response_type must be code or token")),
        };
        let redirect = match (query.get("redirect_uri"), application.redirects.first()) {
            (Some(uri), _) if application.redirects.iter().any(|own| own == uri) => uri.to_owned(),
            (Some(_), _) => return Err(error("invalid_request", "redirect_uri does not match the application's")),
            (None, Some(own)) => own.clone(),
            (None, None) => VERIFICATION.to_owned(),
        };
        if query.get("code_challenge").is_some() && query.get("code_challenge_method") != Some("S256") {
            return Err(error("invalid_request", "code_challenge_method must be S256"));
        }
        let (scopes, narrowed) = scopes(application, query)?;
        Ok(Wanted {
            application,
            wants_token,
            redirect,
            device: device(query)?,
            scopes,
            narrowed,
            challenge: query.get("code_challenge").map(str::to_owned),
            state: query.get("state"),
        })
    }

    /// Shows the page on which a person decides (rule 1).
    pub(super) fn ask(&self, query: &Query) -> Result<Answer, OAuthError> {
        let wanted = self.wanted(query)?;
        Ok(page::authorize(self, wanted.application, wanted.scopes, query))
    }

    /// Follows the decision of a person (rule 1).
    pub(super) fn decide(&mut self, keyring: &mut Keyring, form: &Query, now: Duration) -> Result<Answer, OAuthError> {
        let wanted = self.wanted(form)?;
        let state = wanted.state.map_or_else(String::new, |state| format!("&state={}", page::encoded(state)));
        let (redirect, mark) = (wanted.redirect.clone(), if wanted.wants_token { '#' } else { '?' });
        let to = |answer: String| Answer::redirect(&format!("{redirect}{mark}{answer}{state}"));
        if form.get("decision") != Some("allow") {
            return Ok(to("error=access_denied&error_description=The+user+denied+access".to_owned()));
        }
        let login = form.get("login").and_then(|login| self.account(login)).map(|account| account.login.clone());
        let login = login.ok_or(error("invalid_request", "No such account is signed in"))?;
        let (client_id, scopes) = (wanted.application.client_id.clone(), wanted.scopes);
        let (device, narrowed, challenge) = (wanted.device.clone(), wanted.narrowed, wanted.challenge.clone());
        if wanted.wants_token {
            let grant = Grant { client_id: &client_id, login: &login, device: device.as_deref(), scopes };
            let granted = self.issue(keyring, &grant, now)?;
            let expires = granted.until.saturating_sub(now).as_secs();
            return Ok(to(format!("access_token={}&token_type=bearer&expires_in={expires}", granted.secret)));
        }
        let text = code();
        let until = now + CODE;
        self.codes.insert(text.clone(), Code { client_id, login, device, scopes, narrowed, challenge, until });
        Ok(to(format!("code={text}")))
    }

    /// Gives a device a code (rule 3).
    pub(super) fn device_code(&mut self, form: &Query, now: Duration) -> Result<Answer, OAuthError> {
        let application = self.known(form.get("client_id"))?;
        let (scopes, narrowed) = scopes(application, form)?;
        let (client_id, device) = (application.client_id.clone(), device(form)?);
        let (device_code, user_code) = (format!("{}{}", code(), code()), code().chars().take(8).collect::<String>());
        let until = now + self.manner.device_lifetime;
        let waiting = Waiting {
            client_id,
            user_code: user_code.clone(),
            device,
            scopes,
            narrowed,
            until,
            next: now,
            decided: None,
        };
        self.waiting.insert(device_code.clone(), waiting);
        let body = serde_json::json!({
            "device_code": device_code,
            "user_code": user_code,
            "verification_url": "https://oauth.yandex.ru/device",
            "interval": self.manner.interval,
            "expires_in": self.manner.device_lifetime.as_secs(),
        });
        Ok(Answer::json(&body, false))
    }

    /// Follows the decision of a person about a device.
    pub(super) fn enter(&mut self, _: &mut Keyring, form: &Query, now: Duration) -> Result<Answer, OAuthError> {
        let entered = form.get("user_code").map(|code| code.trim().to_ascii_lowercase());
        let login = form.get("login").and_then(|login| self.account(login)).map(|account| account.login.clone());
        let waiting = self.waiting.values_mut().find(|waiting| {
            Some(&waiting.user_code) == entered.as_ref() && waiting.until > now && waiting.decided.is_none()
        });
        let waiting = waiting.ok_or(error("invalid_grant", "The code is wrong or has expired"))?;
        let login = login.ok_or(error("invalid_request", "No such account is signed in"))?;
        waiting.decided = Some((form.get("decision") == Some("allow")).then_some(login));
        Ok(page::done())
    }
}
