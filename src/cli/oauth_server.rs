//! Requests to the OAuth server (rule 3 of the module).

use std::cell::Cell;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::oauth_device::Device;
use super::oauth_fault::{Fault, OAuthError, Step};
use super::oauth_paste::{self as paste, Received};
use super::oauth_pkce::Verifier;
use super::oauth_secret::{ClientSecret, Code, RefreshToken};
use crate::config::Config;
use crate::health::probe::{Place, ProbeResponse};
use crate::health::question;
use crate::token::Token;
use crate::upstream::Upstream;

/// The OAuth server.
pub struct Server {
    place: Place,
    /// Whether a difference of the clocks was shown.
    is_shown: Cell<bool>,
}

/// The difference of the clocks of the server and of this machine that is shown.
const FAR: Duration = Duration::from_secs(300);

/// An application.
#[derive(Debug, Clone)]
pub struct Client {
    /// The id.
    pub id: String,
    /// The secret, if it is known.
    pub secret: Option<ClientSecret>,
}

/// A code for a device, and what to show a person.
#[derive(Debug, Clone)]
pub struct DeviceCode {
    /// The code that the program sends.
    pub code: Code,
    /// The code that the person enters.
    pub user_code: String,
    /// The seconds between two requests.
    pub interval: u64,
    /// The seconds until the code expires.
    pub expires_in: u64,
}

/// What is exchanged for a token.
pub enum Grant<'a> {
    /// A code, with the verifier of its request.
    Code(&'a Code, &'a Verifier),
    /// A device.
    Device(&'a DeviceCode),
    /// A refresh token.
    Refresh(&'a RefreshToken),
}

impl Grant<'_> {
    const fn step(&self) -> Step {
        match self {
            Self::Code(..) => Step::Code,
            Self::Device(_) => Step::Device,
            Self::Refresh(_) => Step::Refresh,
        }
    }
}

/// The longest interval that is obeyed, in seconds.
const LONGEST_INTERVAL: u64 = 60;

/// The longest lifetime of a device code that is obeyed, in seconds.
const LONGEST_WAIT: u64 = 3600;

impl Server {
    /// Returns the server that the configuration names.
    ///
    /// # Errors
    /// When no certificate can be trusted.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let place = Place::new(Arc::new(Upstream::new(config.oauth.clone())?));
        Ok(Self { place, is_shown: Cell::new(false) })
    }

    /// Requests a code for a device.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn device_code(&self, client: &Client, device: &Device) -> Result<DeviceCode, Fault> {
        #[derive(Deserialize)]
        struct Answer {
            device_code: Zeroizing<String>,
            user_code: String,
            interval: u64,
            expires_in: u64,
        }
        let step = Step::DeviceCode;
        let fields = [("client_id", client.id.as_str()), ("device_id", &device.id), ("device_name", &device.name)];
        let response = self.post(step, "/device/code", &fields).await?;
        let unreadable = || Fault::Unreadable(step, response.status.as_u16());
        let answer: Answer = serde_json::from_slice(&response.body).map_err(|_| unreadable())?;
        // It is shown on a terminal.
        let is_code = |text: &str| (4..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_code(&answer.user_code) {
            return Err(unreadable());
        }
        Ok(DeviceCode {
            code: Code::parse(answer.device_code.as_bytes()).map_err(|_| unreadable())?,
            user_code: answer.user_code,
            interval: answer.interval.min(LONGEST_INTERVAL),
            expires_in: answer.expires_in.min(LONGEST_WAIT),
        })
    }

    /// Exchanges `grant` for a token.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn token(&self, client: &Client, grant: &Grant<'_>) -> Result<Received, Fault> {
        let mut fields = vec![("client_id", client.id.as_str())];
        fields.extend(client.secret.as_ref().map(|secret| ("client_secret", secret.text())));
        match grant {
            Grant::Code(code, verifier) => fields.extend([
                ("grant_type", "authorization_code"),
                ("code", code.text()),
                ("code_verifier", verifier.text()),
            ]),
            Grant::Device(device) => fields.extend([("grant_type", "device_code"), ("code", device.code.text())]),
            Grant::Refresh(token) => fields.extend([("grant_type", "refresh_token"), ("refresh_token", token.text())]),
        }
        let response = self.post(grant.step(), "/token", &fields).await?;
        paste::response(&response.body).ok_or_else(|| Fault::Unreadable(grant.step(), response.status.as_u16()))
    }

    /// Ends a token that is bound to a device.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn revoke(&self, client: &Client, token: &Token) -> Result<(), Fault> {
        let field = token.authorization();
        let text = field.to_str().ok().and_then(|text| text.strip_prefix(crate::token::SCHEME));
        let text = text.ok_or(Fault::Unreadable(Step::Revoke, 0))?;
        let mut fields = vec![("access_token", text), ("client_id", client.id.as_str())];
        fields.extend(client.secret.as_ref().map(|secret| ("client_secret", secret.text())));
        self.post(Step::Revoke, "/revoke_token", &fields).await.map(|_| ())
    }

    /// Sends a form. Returns a successful response.
    async fn post(&self, step: Step, path: &str, fields: &[(&str, &str)]) -> Result<ProbeResponse, Fault> {
        let response = self.place.post(path, form(fields)).await;
        let response = response.map_err(|unheard| Fault::Unreached(step, question::obstacle(unheard)))?;
        let difference = response.date.and_then(|date| clock_differs(date, SystemTime::now()));
        if let Some(difference) = difference.filter(|_| !self.is_shown.replace(true)) {
            // A closed stderr only loses the words.
            let _ = writeln!(std::io::stderr(), "{difference}");
        }
        if response.status == StatusCode::OK {
            return Ok(response);
        }
        #[derive(Deserialize)]
        struct Refusal {
            error: Zeroizing<String>,
        }
        let refusal: Option<Refusal> = serde_json::from_slice(&response.body).ok();
        Err(match refusal {
            Some(refusal) => Fault::Refused(step, OAuthError::named(&refusal.error)),
            None => Fault::Unreadable(step, response.status.as_u16()),
        })
    }
}

/// Returns the words for clocks that are far apart.
fn clock_differs(server: SystemTime, here: SystemTime) -> Option<String> {
    let (apart, how) = match here.duration_since(server) {
        Ok(apart) => (apart, "ahead of"),
        Err(before) => (before.duration(), "behind"),
    };
    let shown = |time| humantime::format_rfc3339_seconds(time);
    (apart >= FAR).then(|| {
        format!(
            "the clock of this machine is {} {how} that of the OAuth server ({} here, {} there); set it (for example with NTP) and run the command again: until then, the expiry of tokens is wrong, and certificates can look invalid",
            humantime::format_duration(Duration::from_secs(apart.as_secs())),
            shown(here),
            shown(server)
        )
    })
}

/// Writes a form, in memory that is wiped.
fn form(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    // Each byte of a value takes three at most; the memory is allocated once, so no copy of it stays behind.
    let longest = fields.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
    let mut form = Zeroizing::new(Vec::with_capacity(longest));
    for (position, (name, value)) in fields.iter().enumerate() {
        if position > 0 {
            form.push(b'&');
        }
        form.extend_from_slice(name.as_bytes());
        form.push(b'=');
        push_encoded(&mut form, value);
    }
    form
}

/// Appends a value, percent-encoded.
fn push_encoded(out: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte);
        } else {
            let digit = |half: u8| if half < 10 { b'0' + half } else { b'A' + half - 10 };
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// Returns a value, percent-encoded, for the address of a page.
#[must_use]
pub fn encoded(value: &str) -> String {
    let mut out = Vec::with_capacity(3 * value.len());
    push_encoded(&mut out, value);
    out.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_far_apart_have_words() {
        let there = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for near in [there, there + FAR - Duration::from_secs(1), there - FAR + Duration::from_secs(1)] {
            assert_eq!(clock_differs(there, near), None);
        }
        let ahead = clock_differs(there, there + Duration::from_secs(7260)).unwrap();
        assert!(ahead.contains("is 2h 1m ahead of that") && ahead.contains("2027-01-15T10:01:00Z here"), "{ahead}");
        let behind = clock_differs(there, SystemTime::UNIX_EPOCH).unwrap();
        assert!(behind.contains(" behind that") && behind.contains("1970-01-01T00:00:00Z here"), "{behind}");
    }

    #[test]
    fn a_form_is_encoded_and_allocated_once() {
        let form = form(&[("a", "1:x&y z"), ("b", "\u{e9}~")]);
        assert_eq!(form.as_slice(), b"a=1%3Ax%26y%20z&b=%C3%A9~");
        assert!(form.capacity() >= form.len());
        assert_eq!(encoded("mgate crm"), "mgate%20crm");
    }
}
