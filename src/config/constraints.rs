//! Name constraints of an authority (RFC 5280, section 4.2.1.10).
//!
//! 1. Names of hosts and addresses are permitted one by one, so every other is excluded. Loopback addresses are always
//!    permitted.
//! 2. For e-mail addresses and URIs, one name is permitted that cannot exist: an empty list would permit all of them, and
//!    implementations differ in their reading of an empty excluded name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use strict_http::number;
use x509_parser::extensions::{GeneralName, NameConstraints};

/// The object identifier of the extension.
pub const NAME_CONSTRAINTS: [u64; 4] = [2, 5, 29, 30];

/// A host that cannot exist (RFC 6761, section 6.4).
const NOBODY: &str = "nobody.invalid";

/// The tags of names (RFC 5280, section 4.2.1.6), as primitive context-specific types.
const EMAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const ADDRESS: u8 = 0x87;
/// The tag of a sequence, and that of `permittedSubtrees`.
const SEQUENCE: u8 = 0x30;
const PERMITTED: u8 = 0xa0;

/// Encodes the extension: hosts with these names and addresses are permitted, in addition to loopback addresses.
pub fn encoded(names: &[String], addresses: &[IpAddr]) -> Vec<u8> {
    let loopback = [
        network(Ipv4Addr::new(127, 0, 0, 0).into(), Ipv4Addr::new(255, 0, 0, 0).into()),
        network(Ipv6Addr::LOCALHOST.into(), Ipv6Addr::from_bits(u128::MAX).into()),
    ];
    let hosts = names.iter().map(|name| (DNS, name.as_bytes().to_vec()));
    let given = addresses.iter().map(|address| {
        let mask = match address {
            IpAddr::V4(_) => Ipv4Addr::BROADCAST.into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(u128::MAX).into(),
        };
        network(*address, mask)
    });
    let addresses = loopback.into_iter().chain(given).map(|network| (ADDRESS, network));
    let none = [(EMAIL, NOBODY.into()), (URI, NOBODY.into())];
    let subtrees: Vec<u8> =
        hosts.chain(addresses).chain(none).flat_map(|(tag, base)| tagged(SEQUENCE, &tagged(tag, &base))).collect();
    tagged(SEQUENCE, &tagged(PERMITTED, &subtrees))
}

fn network(address: IpAddr, mask: IpAddr) -> Vec<u8> {
    let bytes = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    [bytes(address), bytes(mask)].concat()
}

/// Encodes a value in DER with its tag and length.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let short = u8::try_from(length).ok().filter(|length| *length < 0x80);
    let length: Vec<u8> = short.map_or_else(|| long(length), |length| vec![length]);
    [&[tag], length.as_slice(), content].concat()
}

/// Encodes a length in its long form: the number of bytes of the length, then the length.
fn long(length: usize) -> Vec<u8> {
    let bytes: Vec<u8> = number::count(length).to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    // A length has at most eight bytes.
    let count = bytes.iter().fold(0x80, |count: u8, _| count.saturating_add(1));
    [&[count], bytes.as_slice()].concat()
}

/// Returns the names and single addresses that the constraints of a certificate permit.
pub fn permitted(constraints: &NameConstraints<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for subtree in constraints.permitted_subtrees.iter().flatten() {
        if let GeneralName::DNSName(name) = &subtree.base {
            names.push((*name).to_owned());
        } else if let GeneralName::IPAddress(network) = &subtree.base {
            addresses.extend(single(network));
        }
    }
    (names, addresses)
}

/// Returns the address of a network of one address.
fn single(network: &[u8]) -> Option<IpAddr> {
    let (address, mask) = network.split_at_checked(network.len() / 2)?;
    let is_single = mask.iter().all(|byte| *byte == 0xff);
    let v4 = || <[u8; 4]>::try_from(address).ok().map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(address).ok().map(IpAddr::from);
    if is_single { v4().or_else(v6) } else { None }
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::FromDer;

    use super::*;

    #[test]
    fn rules_1_and_2_the_constraints_are_read_back() {
        let names: Vec<_> = (0..40).map(|number| format!("name-{number}.example")).collect();
        let addresses: Vec<IpAddr> = vec!["10.1.2.3".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let encoded = encoded(&names, &addresses);
        let (rest, read) = NameConstraints::from_der(&encoded).unwrap();
        assert!(rest.is_empty());
        let (read_names, read_addresses) = permitted(&read);
        assert_eq!(read_names, names);
        assert_eq!(read_addresses, [vec![Ipv6Addr::LOCALHOST.into()], addresses].concat());
        let bases: Vec<_> = read.permitted_subtrees.iter().flatten().map(|subtree| &subtree.base).collect();
        assert!(bases.contains(&&GeneralName::RFC822Name(NOBODY)) && bases.contains(&&GeneralName::URI(NOBODY)));
        assert!(bases.contains(&&GeneralName::IPAddress(&[127, 0, 0, 0, 255, 0, 0, 0])));
    }

    #[test]
    fn lengths_have_their_shortest_form() {
        assert_eq!(tagged(4, &[7]), [4, 1, 7]);
        assert_eq!(tagged(4, &[0; 127]).get(..2), Some([4, 127].as_slice()));
        assert_eq!(tagged(4, &[0; 128]).get(..3), Some([4, 0x81, 128].as_slice()));
        assert_eq!(tagged(4, &[0; 256]).get(..4), Some([4, 0x82, 1, 0].as_slice()));
    }
}
