//! The device that a token is issued to: a token of a device is not shared with other programs, and can be revoked.
//!
//! 1. The id stays the same for a token, so that a login does not use up another of the 30 devices: it is kept beside
//!    the token ([`crate::token::record`]), and is derived from the machine, the application and the alias at first.
//! 2. It has 6 to 50 printable ASCII characters (<https://yandex.com/dev/id/doc/en/codes/code-url>).

use aws_lc_rs::digest::{SHA256, digest};

use crate::policy::names::TokenAlias;

/// A device of the OAuth server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The id.
    pub id: String,
    /// The name, which the person sees in the list of accesses.
    pub name: String,
}

/// The number of characters of an alias that are part of an id.
const ALIAS: usize = 24;

/// The number of bytes of the digest that are part of an id.
const DIGEST: usize = 6;

impl Device {
    /// Returns the device of a token: `kept` is its id so far.
    #[must_use]
    pub fn of(alias: TokenAlias, client_id: &str, kept: Option<String>) -> Self {
        let node = rustix::system::uname();
        let machine = node.nodename().to_string_lossy();
        let id = kept.filter(|id| is_id(id)).unwrap_or_else(|| derived(&machine, alias, client_id));
        let machine: String = machine.chars().filter(char::is_ascii_graphic).take(40).collect();
        Self { id, name: format!("metrika-gate {alias} on {machine}") }
    }
}

/// Whether a text can be an id (rule 2).
#[must_use]
pub fn is_id(text: &str) -> bool {
    (6..=50).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

fn derived(machine: &str, alias: TokenAlias, client_id: &str) -> String {
    let digest = digest(&SHA256, format!("{machine}\n{alias}\n{client_id}").as_bytes());
    let hash: String = digest.as_ref().iter().take(DIGEST).map(|byte| format!("{byte:02x}")).collect();
    let alias: String = alias.as_str().chars().filter(char::is_ascii_graphic).take(ALIAS).collect();
    format!("mgate-{alias}-{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_1_the_id_stays_the_same() {
        let alias = TokenAlias::new("crm");
        let first = Device::of(alias, "0123456789abcdef", None);
        assert_eq!(first, Device::of(alias, "0123456789abcdef", None));
        assert_ne!(first.id, Device::of(alias, "fedcba9876543210", None).id);
        assert_eq!(Device::of(alias, "0123456789abcdef", Some("kept-id".to_owned())).id, "kept-id");
        assert_eq!(Device::of(alias, "0123456789abcdef", Some("bad".to_owned())), first);
    }

    #[test]
    fn rule_2_every_id_is_accepted() {
        for alias in ["a", "crm", &"x".repeat(64)] {
            let device = Device::of(TokenAlias::new(alias), "0123456789abcdef", None);
            assert!(is_id(&device.id) && device.id.is_ascii(), "{device:?}");
        }
        assert!(!is_id("short") && !is_id(&"x".repeat(51)) && !is_id("caf\u{e9}-device"));
    }
}
