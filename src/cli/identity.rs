//! Warnings of `check` about how callers are identified.

use std::time::SystemTime;

use super::check::{Warning, key};
use crate::config::document::Step;
use crate::config::{Bind, Config, Listener};
use crate::policy::caller::{Caller, Condition, KeyHash};

/// Returns the warnings.
pub(super) fn warnings(config: &Config, now: SystemTime) -> Vec<Warning> {
    let mut warnings: Vec<_> = old_key_set(config, now).into_iter().collect();
    let address_only = config.address_only_callers();
    for (position, caller) in config.callers.iter().enumerate() {
        let mut warn = |message| warnings.push((vec![key("callers"), Step::Index(position)], message));
        let id = caller.id;
        if caller.conditions.keys().is_some_and(<[KeyHash]>::is_empty) {
            let place = if config.keys_file.is_some() { "keys_file and key_sha256 have" } else { "key_sha256 has" };
            warn(format!("caller '{id}' has no key, so it matches nobody: {place} no hash for it"));
        }
        if let Some(listener) = config.listeners.iter().find(|listener| sends_clear_keys(listener, caller)) {
            let name = listener.name;
            let remedy = if listener.proxy {
                "which is a forward proxy: a key in Proxy-Authorization travels there in clear text; send it as Authorization inside the tunnel"
            } else {
                "which has no tls: others on the network can read it; add tls to the listener"
            };
            warn(format!("caller '{id}' sends its key to listener '{name}', {remedy}"));
        }
        if address_only.contains(&id) {
            warn(format!(
                "caller '{id}' is known by its network address alone, which another host can have; require a key (key_sha256, made by 'metrika-gate key new {id}') or a client certificate (san) too"
            ));
        }
    }
    warnings
}

/// Warns of an old file with the keys of service account tokens.
fn old_key_set(config: &Config, now: SystemTime) -> Option<Warning> {
    let days = config.service_accounts.as_ref()?.days_of_old_file(now)?;
    let message = format!(
        "the file was written {days} days ago; after a rotation of the cluster's keys, new tokens are refused: write it again regularly (kubectl get --raw /openid/v1/jwks), or use jwks_url"
    );
    Some((vec![key("service_accounts"), key("jwks_file")], message))
}

/// Whether the caller can send a key to this listener in clear text over a network.
fn sends_clear_keys(listener: &Listener, caller: &Caller) -> bool {
    let has_keys = caller.conditions.iter().any(|condition| matches!(condition, Condition::Key(_)));
    let is_clear = match listener.bind {
        Bind::Tcp(_) => listener.is_remote() && (listener.tls.is_none() || listener.proxy),
        Bind::Unix { .. } => false,
    };
    has_keys && is_clear && listener.can_be_of(&caller.conditions)
}
