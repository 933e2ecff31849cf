//! The host that a request is addressed to, from `Host` or from the authority of the target.
//!
//! 1. An authority is a host and an optional port of digits (RFC 9110, section 7.2). User information and white space are
//!    not allowed.
//! 2. A host is an IP address (IPv6 in brackets), or a name of letters, digits, `-`, `_` and `.`. Case is ignored, and so
//!    is one dot at the end of a name, as in DNS.
//! 3. Names are compared as a whole; the port is ignored.
//! 4. A TCP listener accepts `localhost`, any loopback address, the address that it is bound to, the host of the upstream,
//!    the hosts of the Metrica API, and the entries of its `hosts` list.
//!
//! A web page can make its own name resolve to any address (DNS rebinding), but `Host` still contains that name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cut;

/// The hosts of the Metrica API; a hosts file or DNS can direct them to the gate.
pub const METRICA: [&str; 5] = [
    "api-metrika.yandex.net",
    "api-metrika.yandex.ru",
    "api-metrika.yandex.com",
    "api-metrica.yandex.com",
    "api-metrica.yandex.net",
];

/// The host of an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host<'a> {
    /// A name, without a trailing dot.
    Name(&'a [u8]),
    /// An IP address.
    Address(IpAddr),
}

impl<'a> Host<'a> {
    /// Returns the host of `authority`, or `None` if it is invalid (rules 1 and 2).
    #[must_use]
    pub fn of(authority: &'a [u8]) -> Option<Self> {
        if let Some(rest) = authority.strip_prefix(b"[") {
            let end = rest.iter().position(|byte| *byte == b']')?;
            let (address, port) = (rest.get(..end)?, rest.get(end + 1..)?);
            let address: Ipv6Addr = std::str::from_utf8(address).ok()?.parse().ok()?;
            return is_port(port).then_some(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        let (host, port) = authority.split_at_checked(cut::before(authority, b':').len())?;
        if !is_port(port) || !host.iter().all(is_of_a_name) {
            return None;
        }
        let name = host.strip_suffix(b".").unwrap_or(host);
        if name.is_empty() || name.ends_with(b".") {
            return None;
        }
        // Fast path: only a text that begins with a digit can be an IPv4 address, and few names do.
        let address = name.first().filter(|byte| byte.is_ascii_digit()).and_then(|_| address(name));
        Some(address.map_or(Self::Name(name), |address| Self::Address(address.into())))
    }
}

impl Host<'_> {
    /// Whether both are the same host (rules 2 and 3).
    #[must_use]
    pub fn is(self, other: Host<'_>) -> bool {
        match (self, other) {
            (Self::Name(one), Host::Name(other)) => one.eq_ignore_ascii_case(other),
            (Self::Address(one), Host::Address(other)) => one == other,
            (Self::Name(_), Host::Address(_)) | (Self::Address(_), Host::Name(_)) => false,
        }
    }
}

/// Parses an IPv4 address as the standard library does, in a sixth of its 350 instructions.
fn address(text: &[u8]) -> Option<Ipv4Addr> {
    let mut parts = text.split(|byte| *byte == b'.');
    let mut octets = [0; 4];
    for octet in &mut octets {
        *octet = match *parts.next()? {
            [one] => digit(one)?,
            [ten @ b'1'..=b'9', one] => digit(ten)? * 10 + digit(one)?,
            [hundred @ (b'1' | b'2'), ten, one] => {
                (digit(hundred)? * 100).checked_add(digit(ten)? * 10)?.checked_add(digit(one)?)?
            }
            _ => return None,
        };
    }
    parts.next().is_none().then(|| octets.into())
}

fn digit(byte: u8) -> Option<u8> {
    byte.checked_sub(b'0').filter(|digit| *digit < 10)
}

const fn is_of_a_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Whether the text is empty, or a colon and up to five digits.
fn is_port(text: &[u8]) -> bool {
    text.split_first()
        .is_none_or(|(colon, digits)| *colon == b':' && digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit))
}

/// The hosts that a TCP listener accepts, in addition to loopback addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    names: Vec<Box<[u8]>>,
    addresses: Vec<IpAddr>,
}

impl Hosts {
    /// Hosts of a listener bound to `address`, for the upstream host `upstream`, plus the entries `listed` (rule 4).
    #[must_use]
    pub fn new<'a>(address: IpAddr, upstream: &'a str, listed: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hosts = Self { names: Vec::new(), addresses: Vec::new() };
        if !address.is_unspecified() {
            hosts.addresses.push(address.to_canonical());
        }
        for host in ["localhost", upstream].into_iter().chain(listed).chain(METRICA) {
            match Host::of(host.as_bytes()) {
                Some(Host::Name(name)) if !hosts.has_name(name) => hosts.names.push(name.into()),
                Some(Host::Address(address)) => hosts.addresses.push(address),
                Some(Host::Name(_)) | None => {}
            }
        }
        hosts
    }

    /// Whether the listener accepts `host` (rule 3).
    #[must_use]
    pub fn know(&self, host: Host<'_>) -> bool {
        match host {
            Host::Name(name) => self.has_name(name),
            Host::Address(address) => address.is_loopback() || self.addresses.contains(&address),
        }
    }

    fn has_name(&self, name: &[u8]) -> bool {
        self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(authority: &str) -> Option<&str> {
        match Host::of(authority.as_bytes())? {
            Host::Name(name) => std::str::from_utf8(name).ok(),
            Host::Address(_) => None,
        }
    }

    #[test]
    fn rule_1_a_host_and_a_port_and_nothing_else() {
        for (authority, expected) in [
            ("gate", Some("gate")),
            ("gate:8080", Some("gate")),
            ("gate:", Some("gate")),
            ("", None),
            (":8080", None),
            ("gate:http", None),
            ("gate:123456", None),
            ("gate:80:80", None),
            ("user@gate", None),
            ("localhost:80@evil", None),
            ("user:1@localhost", None),
            (" gate", None),
            ("gate\t", None),
            ("gate/", None),
            ("gate,evil", None),
            ("gate%2eexample", None),
            ("g\u{430}te", None),
        ] {
            assert_eq!(name(authority), expected, "{authority:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn rule_2_addresses_are_those_of_the_standard_library(
            text in "(([0-9]|[1-9][0-9]|[0-3][0-9]{2})\\.){3}([0-9]|[1-9][0-9]|[12][0-9]{2})|[0-9.]{0,16}|([0-9]{1,4}\\.){2,4}[0-9]{0,4}",
        ) {
            proptest::prop_assert_eq!(address(text.as_bytes()), text.parse::<Ipv4Addr>().ok());
        }
    }

    #[test]
    fn rule_2_names_and_addresses() {
        assert_eq!((name("a_b-1.example."), name("a.."), name(".")), (Some("a_b-1.example"), None, None));
        fn address(text: &str) -> Option<Host<'_>> {
            Host::of(text.as_bytes())
        }
        let is = |text: &str| Some(Host::Address(text.parse().unwrap()));
        assert_eq!(address("127.0.0.1:80"), is("127.0.0.1"));
        assert_eq!(address("127.0.0.1."), is("127.0.0.1"));
        assert_eq!(address("[::1]:80"), is("::1"));
        assert_eq!(address("[::ffff:10.0.0.1]"), is("10.0.0.1"));
        for wrong in ["[::1", "[::1]80", "::1", "[127.0.0.1]", "[::1%lo]", "[]", "[::1]]"] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
        // Other spellings of addresses are read as names, which no listener accepts.
        for odd in ["127.1", "0x7f.0.0.1", "2130706433", "0177.0.0.1", "127.0.0.01"] {
            assert_eq!(name(odd), Some(odd));
        }
    }

    #[test]
    fn rules_3_and_4_a_listener_knows_its_own_hosts() {
        let listed = ["Gate.Example", "10.9.9.9", "[2001:db8::9]"];
        let hosts = Hosts::new("10.0.0.1".parse().unwrap(), "metrica.example", listed);
        let known = |authority: &str| Host::of(authority.as_bytes()).is_some_and(|host| hosts.know(host));
        for yes in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1",
            "127.255.3.4:80",
            "[::1]",
            "10.0.0.1:8080",
            "metrica.example",
            "Api-Metrika.Yandex.NET:443",
            "api-metrica.yandex.com.",
            "gate.example",
            "GATE.EXAMPLE.:8080",
            "10.9.9.9",
            "[2001:db8::9]:80",
        ] {
            assert!(known(yes), "{yes}");
        }
        for no in [
            "evil.example",
            "localhost.evil.example",
            "xlocalhost",
            "evil.localhost",
            "gate.example.evil",
            "x.gate.example",
            "gate",
            "10.0.0.2",
            "0.0.0.0",
            "[::]",
            "yandex.net",
            "api-metrika.yandex.net.evil.example",
        ] {
            assert!(!known(no), "{no}");
        }
        let everywhere = Hosts::new("0.0.0.0".parse().unwrap(), "h", []);
        assert!(!everywhere.know(Host::Address("0.0.0.0".parse().unwrap())), "that is no address of anybody");
    }
}
