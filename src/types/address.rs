//! Where a client is, as plain data.

/// The address of a client, without its port: 16 bytes, in which an address of
/// IPv4 stands as one of IPv6 (`::ffff:…`; RFC 4291, 2.5.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress([u8; 16]);

impl ClientAddress {
    /// Wraps the octets of an address of IPv6.
    pub const fn from_octets(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// Returns the octets of an address of IPv6.
    pub const fn octets(self) -> [u8; 16] {
        self.0
    }
}
