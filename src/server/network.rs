//! Networks of which somebody is a part, and whom they make believable.

use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::types::address::ClientAddress;
use crate::types::setting::Form;
use crate::types::setting::Raw;
use crate::types::setting::Refusal;
use crate::types::setting::Setting;
use crate::types::setting::Written;

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// The peers whose word about others is believed.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Trusted(Arc<[Network]>);

impl Trusted {
    pub(in crate::server) fn new(networks: &[Network]) -> Self {
        Self(networks.into())
    }

    /// Says whether an address is one of theirs. The two forms of an address of
    /// IPv4 are one.
    pub(in crate::server) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.0.contains(&address))
    }
}

impl Setting for Network {
    const FORM: Form = Form {
        text: "a network, such as `\"10.0.0.0/8\"` or `\"2001:db8::/32\"`, or an address",
        written: Written::Text,
    };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        let Raw::Text(text) = raw else { return Err(Refusal::of_kind(&raw, &Self::FORM)) };
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().into()));
        }
        let network: IpNet = text
            .parse()
            .map_err(|_| Refusal(format!("has {text:?}; write {}", Self::FORM.text)))?;
        if network.trunc() != network {
            let meant = network.trunc();
            return Err(Refusal(format!(
                "has {text:?}, with bits after the prefix; write {meant}"
            )));
        }
        Ok(Self(network))
    }
}

/// Returns an address as plain data.
pub(in crate::server) fn told(address: IpAddr) -> ClientAddress {
    ClientAddress::from_octets(match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    })
}

/// Returns an address as people write it.
pub fn written(address: ClientAddress) -> IpAddr {
    Ipv6Addr::from(address.octets()).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, inside: &[&str], outside: &[&str]) {
        let network = Network::read(Raw::Text(text.to_owned())).expect("a network");
        let trusted = Trusted::new(&[network]);
        let holds = |address: &&str| trusted.contains(address.parse().expect("an address"));
        assert!(inside.iter().all(holds), "{text} has {inside:?}");
        assert!(!outside.iter().any(holds), "{text} has none of {outside:?}");
    }

    fn check_refused(text: &str, part: &str) {
        let refused = Network::read(Raw::Text(text.to_owned())).expect_err("no network");
        assert!(refused.to_string().contains(part), "{text}: {refused}");
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_like_it() {
        let beyond = ["11.0.0.1", "9.255.255.255", "::1", "::ffff:11.0.0.1"];
        check("10.0.0.0/8", &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], &beyond);
        check("192.0.2.7", &["192.0.2.7"], &["192.0.2.6", "192.0.2.8"]);
        check("::ffff:192.0.2.7", &["192.0.2.7"], &["192.0.2.6"]);
        check("2001:db8::/32", &["2001:db8::1", "2001:db8:ffff::"], &["2001:db9::", "10.0.0.1"]);
        check("::1/128", &["::1"], &["::2", "127.0.0.1"]);
        check("0.0.0.0/0", &["203.0.113.9"], &["2001:db8::1"]);
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_was_meant() {
        check_refused("10.0.0.1/8", "write 10.0.0.0/8");
        check_refused("10.0.0.0/33", "write a network");
        check_refused("proxy.example", "write a network");
        check_refused("*", "write a network");
        check_refused("", "write a network");
    }

    #[test]
    fn an_address_is_written_as_it_was_told() {
        for text in ["192.0.2.7", "2001:db8::1", "::1"] {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(written(told(address)), address);
        }
    }
}
