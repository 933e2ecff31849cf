//! Admission: the keys `hosts` and `require_header` of a listener, and warnings about callers known only by address.

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use strict_http::host::{Host, Hosts};

use super::reader::{At, Findings, Table};
use super::{Admission, Bind, Config, Listener};
use crate::policy::admission::{self as policy, Admissions};
use crate::policy::caller::{Caller, CallerId, Condition, Conditions};

/// Reads the admission keys of a listener; `tcp` is whether it has hosts.
pub fn admission(table: &Table<'_>, tcp: bool, findings: &mut Findings) -> Option<Admission> {
    let hosts = match table.optional("hosts") {
        Some(at) if tcp => hosts(&at, findings),
        Some(at) => {
            at.wrong(findings, "a unix socket accepts any host; remove the key");
            None
        }
        None => Some(Vec::new()),
    };
    let required = match table.optional("require_header") {
        Some(at) => at.text(findings, field).map(Some),
        None => Some(None),
    };
    Some(Admission { hosts: hosts?, required: required? })
}

impl Config {
    /// Returns the admission rules of every listener.
    #[must_use]
    pub fn admissions(&self) -> Admissions {
        Admissions::new(
            self.listeners.iter().map(|listener| (listener.name, listener.admission_for(&self.upstream.host))),
        )
    }
}

impl Listener {
    /// Returns the admission rules of this listener, for the upstream host `upstream`.
    #[must_use]
    pub fn admission_for(&self, upstream: &str) -> policy::Admission {
        let listed = self.admission.hosts.iter().map(AsRef::as_ref);
        let hosts = match &self.bind {
            Bind::Tcp(address) => Some(Hosts::new(address.ip(), upstream, listed)),
            Bind::Unix { .. } => None,
        };
        policy::Admission::new(hosts, self.admission.required.clone(), self.proxy)
    }

    /// Whether a connection to this listener could meet all of `conditions`.
    #[must_use]
    pub fn can_be_of(&self, conditions: &Conditions) -> bool {
        let can_hold = |condition: &Condition| match (condition, &self.bind) {
            (Condition::Listener(stated), Bind::Tcp(_) | Bind::Unix { .. }) => *stated == self.name,
            (
                Condition::Key(_) | Condition::San(_) | Condition::ServiceAccount(_),
                Bind::Tcp(_) | Bind::Unix { .. },
            ) => true,
            (Condition::Source(_), Bind::Tcp(_)) | (Condition::Uid(_) | Condition::Gid(_), Bind::Unix { .. }) => true,
            (Condition::Source(_), Bind::Unix { .. }) | (Condition::Uid(_) | Condition::Gid(_), Bind::Tcp(_)) => false,
        };
        conditions.iter().all(can_hold)
    }
}

fn hosts(at: &At<'_>, findings: &mut Findings) -> Option<Vec<Box<str>>> {
    let elements = at.list(findings)?;
    let read: Vec<_> = elements.iter().map(|at| at.text(findings, host)).collect();
    read.into_iter().collect()
}

fn host(text: &str) -> Result<Box<str>, String> {
    let bare = text.starts_with('[') || !text.contains(':');
    let ends_in_port = text.starts_with('[') && !text.ends_with(']');
    let fits = bare && !ends_in_port && Host::of(text.as_bytes()).is_some();
    fits.then(|| text.into()).ok_or_else(|| {
        "a host without a port, as in metrika-gate.metrika.svc, 10.1.2.3 or [2001:db8::1]; wildcards are not supported"
            .to_owned()
    })
}

/// The maximum length of the value in bytes; a client has no reason to be given a longer one.
const LONGEST_VALUE: usize = 256;

/// Reads a field in the form of `curl -H`. The prefix `X-` keeps it apart from the fields that are forwarded to
/// Metrica, except for `X-Request-ID`.
fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let expected = || {
        "a header field whose name begins with X- (not X-Request-ID) and a value of visible characters, as in \"X-Metrika-Gate: 1\""
            .to_owned()
    };
    let (name, value) = text.split_once(':').ok_or_else(expected)?;
    let value = value.trim_matches(' ');
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| expected())?;
    let is_ours = name.as_str().starts_with("x-") && name.as_str() != "x-request-id";
    let fits = (1..=LONGEST_VALUE).contains(&value.len()) && value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    match HeaderValue::from_str(value) {
        Ok(value) if is_ours && fits => Ok((name, value)),
        Ok(_) | Err(_) => Err(expected()),
    }
}

impl Listener {
    /// Whether other hosts can reach this listener.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self.bind, Bind::Tcp(address) if !address.ip().to_canonical().is_loopback())
    }
}

impl Config {
    /// Returns the callers that only an address on a network identifies; another host can have the same address
    /// later.
    #[must_use]
    pub fn address_only_callers(&self) -> Vec<CallerId> {
        let remote: Vec<_> =
            self.listeners.iter().filter(|listener| listener.is_remote()).map(|listener| listener.name).collect();
        let is_one = |caller: &&Caller| {
            let conditions = &caller.conditions;
            let there = conditions.listener().map_or(!remote.is_empty(), |listener| remote.contains(&listener));
            there && conditions.iter().map(strength).max() == Some(Strength::Address)
        };
        self.callers.iter().filter(is_one).map(|caller| caller.id).collect()
    }
}

/// The strength of a condition as proof of identity, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    /// Nothing about the network.
    Nothing,
    /// An address on a network.
    Address,
    /// Credentials that the kernel guarantees.
    Process,
    /// A proof that only the caller can give.
    Proof,
}

fn strength(condition: &Condition) -> Strength {
    match condition {
        Condition::Listener(_) => Strength::Nothing,
        Condition::Source(networks) if networks.iter().all(is_of_loopback) => Strength::Nothing,
        Condition::Source(_) => Strength::Address,
        Condition::Uid(_) | Condition::Gid(_) => Strength::Process,
        Condition::Key(_) | Condition::San(_) | Condition::ServiceAccount(_) => Strength::Proof,
    }
}

fn is_of_loopback(network: &IpNet) -> bool {
    match network {
        IpNet::V4(network) => network.addr().is_loopback() && network.prefix_len() >= 8,
        IpNet::V6(network) => {
            let mapped = network.addr().to_ipv4_mapped().is_some_and(|address| address.is_loopback());
            network.addr().is_loopback() && network.prefix_len() == 128 || mapped && network.prefix_len() >= 104
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_loopback_is_no_network() {
        for (network, expected) in [
            ("127.0.0.0/8", true),
            ("127.0.0.1/32", true),
            ("::1/128", true),
            ("::ffff:127.0.0.0/104", true),
            ("127.0.0.0/7", false),
            ("::/0", false),
            ("10.0.0.0/8", false),
        ] {
            assert_eq!(is_of_loopback(&network.parse().unwrap()), expected, "{network}");
        }
    }

    #[test]
    fn hosts_are_hosts_without_ports() {
        for fine in ["gate", "metrika-gate.metrika.svc", "Gate.Example.", "a_b", "10.1.2.3", "[2001:db8::1]"] {
            assert_eq!(host(fine).as_deref(), Ok(fine));
        }
        for wrong in ["", "gate:80", "[::1]:80", "::1", "*.svc", "*", "http://gate", "user@gate", "a b", "\u{430}"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_required_field_is_one_that_stays_here() {
        let (name, value) = field("X-Metrika-Gate:  a b ").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-metrika-gate", "a b"));
        for wrong in ["", "X-A", "X-A:", "X-A: ", "X-Request-ID: 1", "Accept: 1", "Host: a", "X A: 1", "X-A: \u{430}"] {
            assert!(field(wrong).is_err(), "{wrong}");
        }
        assert!(field(&format!("X-A: {}", "b".repeat(257))).is_err());
    }
}
