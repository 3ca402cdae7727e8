//! How many connections each client address may hold.

use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::sync::Arc;

use dashmap::DashMap;

/// The places of every address that holds any, shared by all workers. It is asked
/// once when a connection begins and once when it ends.
#[derive(Debug)]
pub(in crate::server) struct Places {
    max: u32,
    taken: DashMap<IpAddr, u32>,
}

/// The place of one connection; dropped, it is free again.
#[derive(Debug)]
pub(in crate::server) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

/// The address has all its places taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct NoPlace;

impl Places {
    /// Returns places of which each address may have so many; 0 for any number.
    pub(in crate::server) fn new(max: u32) -> Arc<Self> {
        Arc::new(Self { max, taken: DashMap::new() })
    }

    /// Takes a place for a connection from this address; `None` where they are not
    /// counted, or the address is not known.
    pub(in crate::server) fn take(
        self: &Arc<Self>,
        address: Option<IpAddr>,
    ) -> Result<Option<Box<Place>>, NoPlace> {
        let (Some(address), 1..) = (address.map(counted), self.max) else { return Ok(None) };
        let mut taken = self.taken.entry(address).or_insert(0);
        if *taken >= self.max {
            return Err(NoPlace);
        }
        *taken += 1;
        Ok(Some(Box::new(Place { places: Arc::clone(self), address })))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut taken) = self.places.taken.get_mut(&self.address) {
            *taken -= 1;
        }
        self.places.taken.remove_if(&self.address, |_, taken| *taken == 0);
    }
}

/// Returns the address under which a client is counted: of IPv6 the network, for
/// that is what one client is given.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn an_address_has_so_many_places_and_no_more() {
        let places = Places::new(2);
        let first = places.take(at("192.0.2.7")).expect("a place");
        let _second = places.take(at("::ffff:192.0.2.7")).expect("a place");
        assert_eq!(places.take(at("192.0.2.7")).err(), Some(NoPlace));
        let _other = places.take(at("192.0.2.8")).expect("a place of its own");
        drop(first);
        assert!(places.take(at("192.0.2.7")).is_ok(), "a place is free again");
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_are_one() {
        let places = Places::new(1);
        let _first = places.take(at("2001:db8::1")).expect("a place");
        assert_eq!(places.take(at("2001:db8::ffff:2")).err(), Some(NoPlace));
        assert!(places.take(at("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn nothing_is_kept_of_who_is_gone() {
        let places = Places::new(2);
        drop(places.take(at("192.0.2.7")).expect("a place"));
        assert!(places.taken.is_empty());
        let unlimited = Places::new(0);
        assert!(unlimited.take(at("192.0.2.7")).is_ok_and(|place| place.is_none()));
        assert!(places.take(None).is_ok_and(|place| place.is_none()));
    }
}
