//! The applications, the accounts and what the accounts have allowed the applications.

use std::collections::BTreeMap;
use std::time::Duration;

use metrica::scope::ScopeSet;
use serde_json::{Value, json};

use super::super::access::Keyring;
use super::super::{FakeToken, Permission};
use super::{OAuthError, error};

/// The maximum number of tokens that are bound to devices, for one application and account.
pub const MOST_DEVICES: usize = 30;

/// The time for which a code of a person is valid.
pub const CODE: Duration = Duration::from_secs(600);

/// The right that makes a token one of an organisation.
pub const BUSINESS: &str = "passport:business";

/// An application, as registered at the OAuth server.
#[derive(Clone)]
pub struct Application {
    /// The id.
    pub client_id: String,
    /// The secret.
    pub secret: String,
    /// The rights.
    pub scopes: ScopeSet,
    /// Whether it has the right `passport:business` too.
    pub business: bool,
    /// The redirect URIs; an application for API access has none, and its answers go to `/verification_code`.
    pub redirects: Vec<String>,
    /// Whether the server refuses it (`unauthorized_client`).
    pub is_blocked: bool,
}

impl std::fmt::Debug for Application {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Application(redacted, {}, {})", self.client_id, self.scopes)
    }
}

/// An account that can sign in.
#[derive(Debug, Clone)]
pub struct Account {
    /// The login.
    pub login: String,
    /// The counters that it has access to.
    pub counters: Vec<(u64, Permission)>,
    /// The person who signs in for an organisation.
    pub person: Option<String>,
}

/// How the server behaves where its documentation leaves it open, or where it can be configured.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// The lifetime of tokens.
    pub lifetime: Duration,
    /// The lifetime of codes of devices. The documentation's text has ten minutes, live answers have five.
    pub device_lifetime: Duration,
    /// The interval of requests for a device, in seconds.
    pub interval: u64,
    /// Whether a refresh always returns another access token.
    pub rotates: bool,
    /// Whether a refreshed access token ends the one before it.
    pub ends_old: bool,
    /// Whether a device and a refresh need the secret.
    pub needs_secret: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(365 * 24 * 60 * 60),
            device_lifetime: Duration::from_secs(300),
            interval: 5,
            rotates: false,
            ends_old: false,
            needs_secret: true,
        }
    }
}

/// A code that a person can pass on.
pub struct Code {
    pub client_id: String,
    pub login: String,
    pub device: Option<String>,
    pub scopes: ScopeSet,
    pub narrowed: bool,
    pub challenge: Option<String>,
    pub until: Duration,
}

/// A device that waits for a person.
pub struct Waiting {
    pub client_id: String,
    pub user_code: String,
    pub device: Option<String>,
    pub scopes: ScopeSet,
    pub narrowed: bool,
    pub until: Duration,
    pub next: Duration,
    /// The login that allowed it, or `None` inside if somebody denied it.
    pub decided: Option<Option<String>>,
}

/// A token that was issued.
pub struct Granted {
    pub secret: String,
    pub refresh: String,
    pub client_id: String,
    pub login: String,
    pub device: Option<String>,
    pub until: Duration,
}

/// The state of the OAuth server.
pub struct Authority {
    pub(super) applications: Vec<Application>,
    pub(super) accounts: Vec<Account>,
    pub(super) manner: Manner,
    pub(super) codes: BTreeMap<String, Code>,
    pub(super) waiting: BTreeMap<String, Waiting>,
    pub(super) granted: Vec<Granted>,
    /// The error of the next response to a path.
    fail: Option<(String, OAuthError)>,
}

/// What a grant is for.
pub struct Grant<'a> {
    pub client_id: &'a str,
    pub login: &'a str,
    pub device: Option<&'a str>,
    pub scopes: ScopeSet,
}

impl Authority {
    pub fn new(applications: Vec<Application>, accounts: Vec<Account>) -> Self {
        let (codes, waiting) = (BTreeMap::new(), BTreeMap::new());
        Self { applications, accounts, manner: Manner::default(), codes, waiting, granted: Vec::new(), fail: None }
    }

    /// The manner, to change it.
    pub const fn manner(&mut self) -> &mut Manner {
        &mut self.manner
    }

    /// Makes the next response to a path an error. Returns false for an unknown error.
    pub fn fail(&mut self, path: &str, name: &str) -> bool {
        let known = super::NAMES.into_iter().find(|known| *known == name);
        self.fail = known.map(|name| (path.to_owned(), error(name, "set on the control panel")));
        known.is_some()
    }

    pub(super) fn failure(&mut self, path: &str) -> Option<OAuthError> {
        self.fail.take_if(|(failing, _)| failing == path).map(|(_, error)| error)
    }

    pub fn application(&self, client_id: &str) -> Option<&Application> {
        self.applications.iter().find(|application| application.client_id == client_id)
    }

    /// Blocks an application, or ends that. Returns false if there is none.
    pub fn block(&mut self, client_id: &str, blocked: bool) -> bool {
        let mut all = self.applications.iter_mut();
        all.find(|application| application.client_id == client_id).map(|one| one.is_blocked = blocked).is_some()
    }

    /// The account with a login.
    pub(super) fn account(&self, login: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.login == login)
    }

    /// The application that a person or a program names.
    pub(super) fn known(&self, client_id: Option<&str>) -> Result<&Application, OAuthError> {
        let application = client_id.and_then(|id| self.application(id));
        let application = application.ok_or(error("invalid_client", "Client not found"))?;
        if application.is_blocked {
            return Err(error("unauthorized_client", "Client blocked"));
        }
        Ok(application)
    }

    /// Ends tokens that have expired.
    pub fn sweep(&mut self, keyring: &mut Keyring, now: Duration) {
        let (live, over): (Vec<_>, Vec<_>) = self.granted.drain(..).partition(|granted| granted.until > now);
        self.granted = live;
        for granted in over {
            keyring.set_revoked(&granted.secret, true);
        }
        self.codes.retain(|_, code| code.until > now);
    }

    /// Ends all tokens of an application, of an account, or of both (rule 6). Returns their number.
    pub fn end(&mut self, keyring: &mut Keyring, client_id: Option<&str>, login: Option<&str>) -> usize {
        let is_meant = |granted: &Granted| {
            client_id.is_none_or(|id| id == granted.client_id) && login.is_none_or(|login| login == granted.login)
        };
        let (over, live): (Vec<_>, Vec<_>) = self.granted.drain(..).partition(is_meant);
        self.granted = live;
        for granted in &over {
            keyring.set_revoked(&granted.secret, true);
        }
        over.len()
    }

    /// Issues a token, or the one that is there already (rule 4). Returns its index.
    pub(super) fn issue(
        &mut self,
        keyring: &mut Keyring,
        grant: &Grant<'_>,
        now: Duration,
    ) -> Result<&Granted, OAuthError> {
        let is_same = |granted: &Granted| {
            granted.client_id == grant.client_id
                && granted.login == grant.login
                && granted.device.as_deref() == grant.device
        };
        let until = now + self.manner.lifetime;
        if let Some(position) = self.granted.iter().position(is_same) {
            let granted = self.granted.get_mut(position).ok_or(LOST)?;
            granted.refresh = refresh_token();
            return Ok(granted);
        }
        let (secret, refresh) = (access_token(), refresh_token());
        self.hold(keyring, grant, &secret)?;
        self.granted.push(Granted {
            secret,
            refresh,
            client_id: grant.client_id.to_owned(),
            login: grant.login.to_owned(),
            device: grant.device.map(str::to_owned),
            until,
        });
        let is_of_device = |granted: &Granted| {
            granted.client_id == grant.client_id && granted.login == grant.login && granted.device.is_some()
        };
        if grant.device.is_some() && self.granted.iter().filter(|granted| is_of_device(granted)).count() > MOST_DEVICES
        {
            let oldest = self.granted.iter().position(is_of_device).ok_or(LOST)?;
            let oldest = self.granted.remove(oldest);
            keyring.set_revoked(&oldest.secret, true);
        }
        self.granted.last().ok_or(LOST)
    }

    /// Makes the API accept a token (rule 7).
    fn hold(&self, keyring: &mut Keyring, grant: &Grant<'_>, secret: &str) -> Result<(), OAuthError> {
        let account = self.account(grant.login).ok_or(LOST)?;
        let application = self.application(grant.client_id).ok_or(LOST)?;
        keyring.issue(FakeToken {
            secret: secret.to_owned(),
            owner: account.login.clone(),
            scopes: grant.scopes,
            counters: account.counters.clone(),
            client_id: grant.client_id.to_owned(),
            login: account.person.clone().filter(|_| !application.business),
            represents: Vec::new(),
        });
        Ok(())
    }

    /// Replaces the pair of a refresh token (rule 5).
    pub(super) fn refresh(
        &mut self,
        keyring: &mut Keyring,
        client_id: &str,
        refresh: &str,
        now: Duration,
    ) -> Result<&Granted, OAuthError> {
        let position = self.granted.iter().position(|granted| granted.refresh == refresh);
        let position = position.ok_or(error("invalid_grant", "expired_token"))?;
        let manner = self.manner;
        let granted = self.granted.get_mut(position).ok_or(LOST)?;
        if granted.client_id != client_id {
            return Err(error("invalid_grant", "Token doesn't belong to client"));
        }
        granted.refresh = refresh_token();
        if manner.rotates || granted.until.saturating_sub(now) < manner.lifetime / 2 {
            let secret = access_token();
            let scopes = keyring.scopes(&granted.secret).ok_or(LOST)?;
            let old = std::mem::replace(&mut granted.secret, secret.clone());
            granted.until = now + manner.lifetime;
            let (login, device) = (granted.login.clone(), granted.device.clone());
            let grant = Grant { client_id, login: &login, device: device.as_deref(), scopes };
            self.hold(keyring, &grant, &secret)?;
            if manner.ends_old {
                keyring.set_revoked(&old, true);
            }
        }
        self.granted.get(position).ok_or(LOST)
    }

    /// The tokens that were issued, without secrets, for the control panel.
    pub fn state(&self) -> Value {
        let one = |granted: &Granted| json!({ "client_id": granted.client_id, "login": granted.login, "device": granted.device });
        json!({ "tokens": self.granted.iter().map(one).collect::<Vec<_>>(), "devices_waiting": self.waiting.len() })
    }
}

/// The state contradicts itself.
const LOST: OAuthError = error("server_error", "The stand-in has lost an account or application");

fn text(length: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(length).collect()
}

/// A token that `run` accepts, and that nobody takes for a real one.
fn access_token() -> String {
    format!("test-{}", text(48))
}

/// A refresh token: it has colons, which access tokens do not have.
fn refresh_token() -> String {
    format!("1:{}:{}", text(22), text(69))
}

/// A code of 16 characters.
pub fn code() -> String {
    text(16).to_ascii_lowercase()
}
