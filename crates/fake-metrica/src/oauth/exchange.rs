//! The requests of an application: a token for a code, a device or a refresh token, and the end of a token.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::super::access::Keyring;
use super::super::answer::Answer;
use super::super::query::Query;
use super::authority::{Application, Authority, Grant};
use super::{OAuthError, error};

/// The client of a request, and the secret that it passed.
struct Client {
    id: String,
    secret: Option<String>,
}

/// Reads the client; the header takes precedence over the form.
fn client(headers: &HeaderMap, form: &Query) -> Result<Client, OAuthError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        let id = form.get("client_id").filter(|id| !id.is_empty());
        let id = id.ok_or(error("invalid_request", "client_id not passed"))?.to_owned();
        return Ok(Client { id, secret: form.get("client_secret").map(str::to_owned) });
    };
    let value = value.to_str().map_err(|_| error("Malformed Authorization header", "not ASCII"))?;
    let packed = value.strip_prefix("Basic ").ok_or(error("Basic auth required", "another scheme was used"))?;
    let malformed = error("Malformed Authorization header", "not base64 of id:secret");
    let plain = STANDARD.decode(packed).ok().and_then(|plain| String::from_utf8(plain).ok()).ok_or(malformed)?;
    let (id, secret) = plain.split_once(':').ok_or(malformed)?;
    Ok(Client { id: id.to_owned(), secret: Some(secret.to_owned()) })
}

/// Checks the secret of a client.
fn authenticate(application: &Application, client: &Client, is_needed: bool) -> Result<(), OAuthError> {
    match &client.secret {
        Some(secret) if *secret == application.secret => Ok(()),
        Some(_) => Err(error("invalid_client", "Wrong client secret")),
        None if is_needed => Err(error("invalid_client", "Client secret not passed")),
        None => Ok(()),
    }
}

impl Authority {
    /// Answers a request to `/token`.
    pub(super) fn token(
        &mut self,
        keyring: &mut Keyring,
        headers: &HeaderMap,
        form: &Query,
        now: Duration,
    ) -> Result<Answer, OAuthError> {
        let client = client(headers, form)?;
        let application = self.known(Some(&client.id))?.clone();
        match form.get("grant_type") {
            Some("authorization_code") => self.of_code(keyring, &application, &client, form, now),
            Some("device_code") => self.of_device(keyring, &application, &client, form, now),
            Some("refresh_token") => {
                authenticate(&application, &client, self.manner.needs_secret)?;
                let refresh = form.get("refresh_token").ok_or(error("invalid_request", "refresh_token not passed"))?;
                let granted = self.refresh(keyring, &client.id, refresh, now)?;
                Ok(granted_answer(&granted.secret, &granted.refresh, granted.until, now, None))
            }
            Some(_) => Err(error("unsupported_grant_type", "Unknown grant_type")),
            None => Err(error("invalid_request", "grant_type not passed")),
        }
    }

    fn of_code(
        &mut self,
        keyring: &mut Keyring,
        application: &Application,
        client: &Client,
        form: &Query,
        now: Duration,
    ) -> Result<Answer, OAuthError> {
        let text = form.get("code").ok_or(error("invalid_request", "code not passed"))?;
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(error("bad_verification_code", "Code is not 16 letters and digits"));
        }
        let code = self.codes.get(text).ok_or(error("invalid_grant", "Code has expired"))?;
        if code.client_id != client.id {
            return Err(error("invalid_grant", "Code was issued to another client"));
        }
        authenticate(application, client, code.challenge.is_none())?;
        if let Some(challenge) = &code.challenge {
            let verifier = form.get("code_verifier").ok_or(error("invalid_grant", "code_verifier not passed"))?;
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
            if URL_SAFE_NO_PAD.encode(digest) != *challenge {
                return Err(error("invalid_grant", "code_verifier not matched"));
            }
        }
        if form.get("device_id").is_some_and(|device| code.device.as_deref() != Some(device)) {
            return Err(error("invalid_grant", "device_id not matched"));
        }
        // A code is used once, whatever becomes of it (rule 2).
        let code = self.codes.remove(text).ok_or(error("invalid_grant", "Code has expired"))?;
        let grant = Grant {
            client_id: &code.client_id,
            login: &code.login,
            device: code.device.as_deref(),
            scopes: code.scopes,
        };
        let narrowed = code.narrowed.then_some(code.scopes);
        let granted = self.issue(keyring, &grant, now)?;
        Ok(granted_answer(&granted.secret, &granted.refresh, granted.until, now, narrowed))
    }

    fn of_device(
        &mut self,
        keyring: &mut Keyring,
        application: &Application,
        client: &Client,
        form: &Query,
        now: Duration,
    ) -> Result<Answer, OAuthError> {
        authenticate(application, client, self.manner.needs_secret)?;
        let code = form.get("code").ok_or(error("invalid_request", "code not passed"))?.to_owned();
        let interval = Duration::from_secs(self.manner.interval);
        let waiting = self.waiting.get_mut(&code).ok_or(error("invalid_grant", "Unknown device code"))?;
        if waiting.client_id != client.id {
            return Err(error("invalid_grant", "Code was issued to another client"));
        }
        if waiting.until <= now {
            return Err(error("expired_token", "The device code has expired"));
        }
        if now < waiting.next {
            waiting.next = now + interval;
            return Err(error("slow_down", "Requests are too frequent"));
        }
        waiting.next = now + interval;
        match &waiting.decided {
            None => Err(error("authorization_pending", "User has not yet authorized your application")),
            Some(None) => Err(error("access_denied", "User denied access")),
            Some(Some(login)) => {
                let (login, device, scopes) = (login.clone(), waiting.device.clone(), waiting.scopes);
                let narrowed = waiting.narrowed.then_some(scopes);
                self.waiting.remove(&code);
                let grant = Grant { client_id: &client.id, login: &login, device: device.as_deref(), scopes };
                let granted = self.issue(keyring, &grant, now)?;
                Ok(granted_answer(&granted.secret, &granted.refresh, granted.until, now, narrowed))
            }
        }
    }

    /// Answers a request to `/revoke_token` (rule 6).
    pub(super) fn revoke(
        &mut self,
        keyring: &mut Keyring,
        headers: &HeaderMap,
        form: &Query,
    ) -> Result<Answer, OAuthError> {
        let client = client(headers, form)?;
        authenticate(self.known(Some(&client.id))?, &client, true)?;
        let token = form.get("access_token").ok_or(error("invalid_request", "access_token not passed"))?;
        let position = self.granted.iter().position(|granted| granted.secret == token);
        let position = position.ok_or(error("invalid_grant", "Token not found or expired"))?;
        let is_right = |granted: &super::authority::Granted| granted.client_id == client.id;
        if !self.granted.get(position).is_some_and(is_right) {
            return Err(error("invalid_grant", "Token doesn't belong to client"));
        }
        if self.granted.get(position).is_none_or(|granted| granted.device.is_none()) {
            return Err(error("unsupported_token_type", "Only tokens that are bound to a device can be revoked"));
        }
        let granted = self.granted.remove(position);
        keyring.set_revoked(&granted.secret, true);
        Ok(Answer::json(&json!({ "status": "ok" }), false))
    }
}

/// The response with a token; `scope` is there only if fewer rights were granted than requested.
fn granted_answer(
    secret: &str,
    refresh: &str,
    until: Duration,
    now: Duration,
    narrowed: Option<metrica::scope::ScopeSet>,
) -> Answer {
    let mut body = json!({
        "access_token": secret,
        "expires_in": until.saturating_sub(now).as_secs(),
        "refresh_token": refresh,
        "token_type": "bearer",
    });
    if let (Some(scopes), Some(body)) = (narrowed, body.as_object_mut()) {
        body.insert(
            "scope".to_owned(),
            Value::String(scopes.iter().map(metrica::scope::Scope::as_str).collect::<Vec<_>>().join(" ")),
        );
    }
    Answer::json(&body, false)
}
