//! The headers by which proxies that speak HTTP say for whom: `Forwarded`
//! (RFC 7239) and `X-Forwarded-For`.

use std::net::IpAddr;
use std::net::SocketAddr;

use actix_web::http::header::HeaderMap;
use actix_web::http::header::HeaderName;

use crate::server::network::Trusted;
use crate::types::setting::Form;
use crate::types::setting::Raw;
use crate::types::setting::Refusal;
use crate::types::setting::Setting;
use crate::types::setting::Written;

/// Which header the proxies write. The other one is whatever a client sent, for
/// a proxy passes on what it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedHeader {
    None,
    Forwarded,
    XForwardedFor,
}

impl Setting for ForwardedHeader {
    const FORM: Form = Form {
        text: "`\"none\"`, `\"forwarded\"` or `\"x-forwarded-for\"`",
        written: Written::Text,
    };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        let choices = [
            ("none", Self::None),
            ("forwarded", Self::Forwarded),
            ("x-forwarded-for", Self::XForwardedFor),
        ];
        raw.choose(&Self::FORM, &choices)
    }
}

/// Returns the address of the client: that of the peer, unless it is trusted and
/// names another.
///
/// Each proxy adds whom it heard at the right end, so that only what stands right
/// of the first stranger was written by somebody who is trusted. Reading therefore
/// begins at the right and ends at the first address that is not trusted, or at
/// what can't be read: whoever wrote that is then the client, as far as is known.
pub(in crate::server) fn client(
    headers: &HeaderMap,
    header: ForwardedHeader,
    peer: IpAddr,
    trusted: &Trusted,
) -> IpAddr {
    let (name, read): (_, fn(&str) -> Option<IpAddr>) = match header {
        ForwardedHeader::None => return peer,
        ForwardedHeader::Forwarded => ("forwarded", forwarded_for),
        ForwardedHeader::XForwardedFor => ("x-forwarded-for", address),
    };
    let lines: Vec<&[u8]> =
        headers.get_all(HeaderName::from_static(name)).map(|value| value.as_bytes()).collect();
    let hops = lines.into_iter().rev().flat_map(|line| match str::from_utf8(line) {
        Ok(line) => Hops(Some(line)),
        // A hop that can't be read.
        Err(_) => Hops(Some("?")),
    });
    let mut client = peer;
    for hop in hops.take(HOPS_MAX) {
        if !trusted.contains(client) {
            break;
        }
        match read(hop) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// The entries of a header from the right; a comma between quotes ends none.
struct Hops<'h>(Option<&'h str>);

impl<'h> Iterator for Hops<'h> {
    type Item = &'h str;

    fn next(&mut self) -> Option<&'h str> {
        let line = self.0?;
        let mut quoted = false;
        for (at, byte) in line.bytes().enumerate().rev() {
            match byte {
                b'"' => quoted = !quoted,
                b',' if !quoted => {
                    self.0 = Some(&line[..at]);
                    return Some(line[at + 1..].trim());
                }
                _ => {}
            }
        }
        self.0 = None;
        Some(line.trim())
    }
}

/// Reads the `for` of an entry of `Forwarded`, which is no address where the
/// proxy hides it.
fn forwarded_for(entry: &str) -> Option<IpAddr> {
    let mut values = entry.split(';').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim())
    });
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    address(unquoted.unwrap_or(value))
}

/// Reads an address, with or without a port; one of IPv6 may stand in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let address = text.parse().ok().or_else(bare);
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|at| at.ip()));
    address.map(|address| address.to_canonical())
}

/// Proxies that are followed back; a longer way ends at the last of them.
const HOPS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::server::network::Network;

    fn trusted() -> Trusted {
        let read = |text: &str| Network::read(Raw::Text(text.to_owned())).expect("a network");
        Trusted::new(&[read("10.0.0.0/8"), read("2001:db8::/32")])
    }

    fn found(header: ForwardedHeader, peer: &str, lines: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            let name = match header {
                ForwardedHeader::Forwarded => "forwarded",
                _ => "x-forwarded-for",
            };
            let value = HeaderValue::from_bytes(line).expect("a value");
            headers.append(HeaderName::from_static(name), value);
        }
        client(&headers, header, peer.parse().expect("an address"), &trusted()).to_string()
    }

    fn check_x(peer: &str, lines: &[&str], expected: &str) {
        let bytes: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        assert_eq!(found(ForwardedHeader::XForwardedFor, peer, &bytes), expected, "{lines:?}");
    }

    fn check(line: &str, expected: &str) {
        let found = found(ForwardedHeader::Forwarded, "10.0.0.1", &[line.as_bytes()]);
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn a_stranger_is_not_believed() {
        check_x("203.0.113.9", &["192.0.2.7"], "203.0.113.9");
        check_x("127.0.0.1", &["192.0.2.7"], "127.0.0.1");
        let lines: &[&[u8]] = &[b"192.0.2.7"];
        assert_eq!(found(ForwardedHeader::None, "10.0.0.1", lines), "10.0.0.1");
    }

    #[test]
    fn the_way_back_ends_at_the_first_stranger() {
        check_x("10.0.0.1", &["192.0.2.7"], "192.0.2.7");
        check_x("::ffff:10.0.0.1", &["192.0.2.7"], "192.0.2.7");
        check_x("10.0.0.1", &["6.6.6.6, 192.0.2.7"], "192.0.2.7");
        check_x("10.0.0.1", &["6.6.6.6, 192.0.2.7, 10.0.0.2"], "192.0.2.7");
        check_x("10.0.0.1", &["6.6.6.6,10.0.0.3,192.0.2.7,2001:db8::2"], "192.0.2.7");
        check_x("10.0.0.1", &["6.6.6.6", "192.0.2.7", "10.0.0.2"], "192.0.2.7");
        check_x("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
        check_x("10.0.0.1", &["192.0.2.7:4711"], "192.0.2.7");
        check_x("10.0.0.1", &["[2001:db9::7]:4711"], "2001:db9::7");
        check_x("10.0.0.1", &["[2001:db9::7]"], "2001:db9::7");
        check_x("10.0.0.1", &["::ffff:192.0.2.7"], "192.0.2.7");
        check_x("10.0.0.1", &[&"10.0.0.2, ".repeat(40)], "10.0.0.1");
    }

    #[test]
    fn what_can_not_be_read_ends_the_way_where_it_was_written() {
        check_x("10.0.0.1", &[], "10.0.0.1");
        check_x("10.0.0.1", &[""], "10.0.0.1");
        check_x("10.0.0.1", &["6.6.6.6, unknown"], "10.0.0.1");
        check_x("10.0.0.1", &["6.6.6.6, unknown, 10.0.0.2"], "10.0.0.2");
        check_x("10.0.0.1", &["192.0.2.7 6.6.6.6"], "10.0.0.1");
        let lines: &[&[u8]] = &[b"6.6.6.6", b"\xff"];
        assert_eq!(found(ForwardedHeader::XForwardedFor, "10.0.0.1", lines), "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_as_its_standard_has_it() {
        check("for=192.0.2.7", "192.0.2.7");
        check("For=\"192.0.2.7:4711\"", "192.0.2.7");
        check("for=\"[2001:db9:cafe::17]:4711\"", "2001:db9:cafe::17");
        check("for=192.0.2.7;proto=https;by=203.0.113.43", "192.0.2.7");
        check("proto=https; for=192.0.2.7", "192.0.2.7");
        check("for=6.6.6.6, for=192.0.2.7, for=10.0.0.2", "192.0.2.7");
        check("for=\"_hidden, of course\", for=10.0.0.2", "10.0.0.2");
        check("for=unknown", "10.0.0.1");
        check("for=_SEVKISEK", "10.0.0.1");
        check("by=203.0.113.43", "10.0.0.1");
        check("for=6.6.6.6;for=192.0.2.7", "10.0.0.1");
    }

    #[test]
    fn a_quote_that_a_stranger_opens_swallows_nothing() {
        check("for=\"6.6.6.6, for=192.0.2.7", "192.0.2.7");
        check("for=\", for=192.0.2.7, for=10.0.0.2", "192.0.2.7");
        check("for=\"\\\", for=192.0.2.7", "192.0.2.7");
    }

    proptest! {
        #[test]
        fn whatever_stands_left_of_a_trusted_word_changes_nothing(noise in "[ -~]{0,60}") {
            let line = format!("{noise},for=192.0.2.7");
            let lines: &[&[u8]] = &[line.as_bytes()];
            prop_assert_eq!(found(ForwardedHeader::Forwarded, "10.0.0.1", lines), "192.0.2.7");
            let line = format!("{noise},192.0.2.7");
            let lines: &[&[u8]] = &[line.as_bytes()];
            prop_assert_eq!(found(ForwardedHeader::XForwardedFor, "10.0.0.1", lines), "192.0.2.7");
        }

        #[test]
        fn whatever_is_sent_it_ends(line in proptest::collection::vec(32_u8..127, 0..80)) {
            let lines: &[&[u8]] = &[&line];
            for header in [ForwardedHeader::Forwarded, ForwardedHeader::XForwardedFor] {
                found(header, "10.0.0.1", lines);
            }
        }
    }
}
