//! The header by which a proxy that only passes bytes on says for whom: PROXY
//! protocol, version 2.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::types::setting::Form;
use crate::types::setting::Raw;
use crate::types::setting::Refusal;
use crate::types::setting::Setting;
use crate::types::setting::Written;

/// Whether proxies say for whom they pass bytes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They don't, or nobody listens.
    Off,
    /// Those that are trusted begin each connection with a header of version 2.
    V2,
}

impl Setting for ProxyProtocol {
    const FORM: Form = Form { text: "`\"off\"` or `\"v2\"`", written: Written::Text };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        raw.choose(&Self::FORM, &[("off", Self::Off), ("v2", Self::V2)])
    }
}

/// Who is at the other end of a connection, by the word of its proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Origin {
    /// The proxy speaks for somebody at this address.
    Client(SocketAddr),
    /// The proxy speaks for itself, or does not know: the address is its own.
    Proxy,
}

/// What the beginning of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Parsed {
    /// A part of a header, which has this many bytes or more.
    Partial {
        least: usize,
    },
    Whole(Origin),
}

/// Not a header of version 2 for a stream of TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there is no header of PROXY protocol v2 for TCP")]
pub(in crate::server) struct Malformed;

/// Reads a header off the socket, and no byte more.
///
/// # Errors
///
/// As the socket's; `InvalidData` for what is no header, `UnexpectedEof` for a
/// part of one.
pub(in crate::server) async fn read(socket: &mut TcpStream) -> io::Result<Origin> {
    let mut bytes = Vec::with_capacity(FIXED_BYTES);
    loop {
        let parsed = parse(&bytes);
        match parsed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
            Parsed::Whole(origin) => return Ok(origin),
            Parsed::Partial { least } => {
                let missing = (least - bytes.len()) as u64;
                if (&mut *socket).take(missing).read_buf(&mut bytes).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}

/// Reads what has come so far.
///
/// # Errors
///
/// As soon as the bytes can't become a header any more.
pub(in crate::server) fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let signature = bytes.len().min(SIGNATURE.len());
    if bytes[..signature] != SIGNATURE[..signature] {
        return Err(Malformed);
    }
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else {
        return Ok(Parsed::Partial { least: FIXED_BYTES });
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > REST_BYTES_MAX {
        return Err(Malformed);
    }
    let Some(rest) = bytes.get(FIXED_BYTES..FIXED_BYTES + length) else {
        return Ok(Parsed::Partial { least: FIXED_BYTES + length });
    };
    // What follows the addresses says more of the proxy's own connection, and
    // nothing that is asked for here.
    match (command, family) {
        (LOCAL, _) | (PROXY, UNSPECIFIED) => Ok(Parsed::Whole(Origin::Proxy)),
        (PROXY, TCP_OVER_IPV4) => {
            let [a, b, c, d, _, _, _, _, port @ ..] = rest.first_chunk::<10>().ok_or(Malformed)?;
            whole(rest, 12, Ipv4Addr::new(*a, *b, *c, *d), *port)
        }
        (PROXY, TCP_OVER_IPV6) => {
            let source = rest.first_chunk::<16>().ok_or(Malformed)?;
            let port = rest.get(32..34).and_then(|port| port.first_chunk::<2>());
            whole(rest, 36, Ipv6Addr::from(*source), *port.ok_or(Malformed)?)
        }
        _ => Err(Malformed),
    }
}

/// Returns the source of a header whose addresses take so many bytes.
fn whole(
    rest: &[u8],
    addresses: usize,
    source: impl Into<IpAddr>,
    port: [u8; 2],
) -> Result<Parsed, Malformed> {
    if rest.len() < addresses {
        return Err(Malformed);
    }
    let source = source.into().to_canonical();
    let client = SocketAddr::new(source, u16::from_be_bytes(port));
    Ok(Parsed::Whole(Origin::Client(client)))
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, the command, the family and the length of what follows.
const FIXED_BYTES: usize = 16;
/// Bytes that may follow. Addresses have 36; proxies add a few dozen of their own.
const REST_BYTES_MAX: usize = 2_048;
/// Version 2 with each of its commands.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn v4(more: &[u8]) -> Vec<u8> {
        let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb];
        header(PROXY, TCP_OVER_IPV4, &[&addresses[..], more].concat())
    }

    fn v6() -> Vec<u8> {
        let source = "2001:db8::7".parse::<Ipv6Addr>().expect("an address").octets();
        let rest = [&source[..], &[0; 16], &[0x30, 0x39, 0x01, 0xbb]].concat();
        header(PROXY, TCP_OVER_IPV6, &rest)
    }

    fn client(text: &str) -> Result<Parsed, Malformed> {
        Ok(Parsed::Whole(Origin::Client(text.parse().expect("an address"))))
    }

    #[test]
    fn headers_say_who_the_client_is() {
        let check = |bytes: &[u8], expected| assert_eq!(parse(bytes), expected, "{bytes:x?}");
        check(&v4(&[]), client("192.0.2.7:12345"));
        check(&v4(&[0xea, 0, 4, 1, 2, 3, 4]), client("192.0.2.7:12345"));
        check(&v6(), client("[2001:db8::7]:12345"));
        check(&header(LOCAL, UNSPECIFIED, &[]), Ok(Parsed::Whole(Origin::Proxy)));
        check(&header(LOCAL, TCP_OVER_IPV4, &[0; 12]), Ok(Parsed::Whole(Origin::Proxy)));
        check(&header(PROXY, UNSPECIFIED, &[1, 2, 3]), Ok(Parsed::Whole(Origin::Proxy)));
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        let check = |bytes: &[u8]| assert_eq!(parse(bytes), Err(Malformed), "{bytes:x?}");
        check(b"G");
        check(b"GET /v1/ws HTTP/1.1\r\n");
        check(b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n");
        check(&[0x16, 0x03, 0x01]);
        check(b"\r\n\r\n\0\r\nQUIX");
        // Version 1 and 3, an unknown command, datagrams, sockets of Unix.
        for (command, family) in
            [(0x11, 0x11), (0x31, 0x11), (0x22, 0x11), (PROXY, 0x12), (PROXY, 0x31)]
        {
            check(&header(command, family, &[0; 216]));
        }
        // Addresses that are cut short, and a header without end.
        check(&header(PROXY, TCP_OVER_IPV4, &[0; 11]));
        check(&header(PROXY, TCP_OVER_IPV6, &[0; 35]));
        check(&header(PROXY, TCP_OVER_IPV4, &[0; REST_BYTES_MAX + 1])[..FIXED_BYTES]);
    }

    #[test]
    fn every_part_of_a_header_waits_for_the_rest() {
        for whole in [v4(&[]), v4(&[9; 100]), v6(), header(LOCAL, 0, &[])] {
            for length in 0..whole.len() {
                let Ok(Parsed::Partial { least }) = parse(&whole[..length]) else {
                    panic!("{length} bytes of {whole:x?}");
                };
                assert!(length < least && least <= whole.len(), "{length} bytes want {least}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_it_ends(noise: Vec<u8>, at in 0_usize..60, byte: u8) {
            let _ = parse(&noise);
            let _ = parse(&[&SIGNATURE[..], &noise].concat());
            let mut broken = v6();
            if let Some(place) = broken.get_mut(at) {
                *place = byte;
            }
            if let Ok(Parsed::Partial { least }) = parse(&broken) {
                prop_assert!(least > broken.len() && least <= FIXED_BYTES + REST_BYTES_MAX);
            }
        }
    }
}
