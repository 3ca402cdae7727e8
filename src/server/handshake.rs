//! What a request for a WebSocket must be before anything is spent on it.

use actix_http::RequestHead;
use actix_http::ws::HandshakeError;
use actix_http::ws::verify_handshake;
use actix_web::http::Version;
use actix_web::http::header;
use actix_web::http::header::HeaderName;

use crate::protocol::frame::Encoding;
use crate::protocol::frame::Token;
use crate::server::origin::Origin;
use crate::server::refusal::Refusal;
use crate::server::settings::HandshakeRules;
use crate::server::settings::Hosts;
use crate::server::settings::QueryToken;

/// What a client asked for with its handshake.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::server) struct Handshake {
    pub(in crate::server) encoding: Encoding,
    /// The subprotocol to name in the answer; `None` when none was offered.
    pub(in crate::server) subprotocol: Option<&'static str>,
    pub(in crate::server) token: Option<Token>,
}

/// Reads a handshake.
///
/// # Errors
///
/// The first [`Refusal`] that applies. actix by itself would let pass HTTP/1.0,
/// a second `Origin` and a second key.
pub(in crate::server) fn read(
    head: &RequestHead,
    rules: &HandshakeRules,
) -> Result<Handshake, Refusal> {
    if head.version != Version::HTTP_11 {
        return Err(Refusal::BadHandshake("a WebSocket needs HTTP/1.1"));
    }
    check_host(head, &rules.hosts)?;
    check_origin(head, &rules.origins)?;
    once(head, &header::SEC_WEBSOCKET_KEY, "there is more than one Sec-WebSocket-Key")?;
    once(head, &header::SEC_WEBSOCKET_VERSION, "there is more than one Sec-WebSocket-Version")?;
    verify_handshake(head).map_err(refuse)?;
    if head.headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Refusal::BadHandshake("a request for a WebSocket has no body"));
    }
    let offer = Offer::read(head)?;
    let token = token(head, offer.token, rules.query_token)?;
    Ok(Handshake { encoding: offer.encoding, subprotocol: offer.subprotocol, token })
}

fn refuse(error: HandshakeError) -> Refusal {
    match error {
        HandshakeError::GetMethodRequired => Refusal::MethodNotAllowed,
        HandshakeError::NoWebsocketUpgrade | HandshakeError::NoConnectionUpgrade => {
            Refusal::UpgradeRequired
        }
        HandshakeError::NoVersionHeader | HandshakeError::UnsupportedVersion => {
            Refusal::VersionUnsupported
        }
        HandshakeError::BadWebsocketKey => {
            Refusal::BadHandshake("Sec-WebSocket-Key is not 16 bytes in base64")
        }
    }
}

/// Returns the only value of a header; `None` when it is absent.
fn once<'a>(
    head: &'a RequestHead,
    name: &HeaderName,
    message: &'static str,
) -> Result<Option<&'a str>, Refusal> {
    let mut values = head.headers.get_all(name);
    let first = values.next();
    if values.next().is_some() {
        return Err(Refusal::BadHandshake(message));
    }
    let text = first.map(|value| value.to_str()).transpose();
    text.map_err(|_| Refusal::BadHandshake("a header is not plain ASCII"))
}

fn check_host(head: &RequestHead, hosts: &Hosts) -> Result<(), Refusal> {
    let host = once(head, &header::HOST, "there is more than one Host")?;
    let host = host.ok_or(Refusal::BadHandshake("there is no Host"))?;
    let Hosts::Only(allowed) = hosts else { return Ok(()) };
    let name = without_port(host);
    let known = allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
    known.then_some(()).ok_or(Refusal::HostForbidden)
}

/// Returns `localhost` of `localhost:80`, and `[::1]` of `[::1]:80`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn check_origin(head: &RequestHead, allowed: &[Origin]) -> Result<(), Refusal> {
    let mut origins = head.headers.get_all(header::ORIGIN);
    let Some(origin) = origins.next() else { return Ok(()) };
    let known = allowed.iter().any(|allowed| allowed.is(origin.as_bytes()));
    if !known || origins.next().is_some() {
        return Err(Refusal::OriginForbidden);
    }
    Ok(())
}

/// What stands in `Sec-WebSocket-Protocol`.
struct Offer {
    encoding: Encoding,
    subprotocol: Option<&'static str>,
    token: Option<Token>,
}

impl Offer {
    fn read(head: &RequestHead) -> Result<Self, Refusal> {
        let mut chosen = None;
        let mut token = None;
        let mut offered = false;
        for value in head.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
            let text = value.to_str();
            let text = text.map_err(|_| Refusal::BadHandshake("a header is not plain ASCII"))?;
            for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                offered = true;
                if let Some(secret) = entry.strip_prefix(BEARER_PREFIX) {
                    let another = token.replace(Token::new(secret.to_owned()));
                    if another.is_some() {
                        return Err(Refusal::TokenMisplaced(TWO_TOKENS));
                    }
                } else if chosen.is_none() {
                    chosen = SUBPROTOCOLS.iter().find(|(name, _)| *name == entry);
                }
            }
        }
        match chosen {
            Some((name, encoding)) => {
                Ok(Self { encoding: *encoding, subprotocol: Some(name), token })
            }
            // A browser that offered something, if only its token, gives up
            // unless one of its offers is chosen: say so rather than let it.
            None if offered => Err(Refusal::SubprotocolUnknown),
            None => Ok(Self { encoding: Encoding::Json, subprotocol: None, token: None }),
        }
    }
}

/// Returns the only token of the request, wherever it stands.
fn token(
    head: &RequestHead,
    offered: Option<Token>,
    query_token: QueryToken,
) -> Result<Option<Token>, Refusal> {
    let header = once(head, &header::AUTHORIZATION, "there is more than one Authorization")?;
    let header = match header.map(|value| value.split_once(' ')) {
        None => None,
        Some(Some((scheme, secret))) if scheme.eq_ignore_ascii_case("bearer") => {
            Some(Token::new(secret.trim().to_owned()))
        }
        Some(_) => return Err(Refusal::TokenMisplaced("Authorization must be Bearer and a token")),
    };
    let query = query_value(head, QUERY_KEY).map(|secret| Token::new(secret.to_owned()));
    if query.is_some() && query_token == QueryToken::Refused {
        return Err(Refusal::TokenMisplaced(
            "tokens in the URL are not taken here; send it as the first frame instead",
        ));
    }
    let mut tokens = [header, offered, query].into_iter().flatten();
    let first = tokens.next();
    if tokens.next().is_some() {
        return Err(Refusal::TokenMisplaced(TWO_TOKENS));
    }
    Ok(first)
}

fn query_value<'a>(head: &'a RequestHead, key: &str) -> Option<&'a str> {
    let mut pairs = head.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
}

const SUBPROTOCOLS: [(&str, Encoding); 2] =
    [("brucke.v1.json", Encoding::Json), ("brucke.v1.protobuf", Encoding::Protobuf)];
const BEARER_PREFIX: &str = "brucke.bearer.";
const QUERY_KEY: &str = "access_token";
const TWO_TOKENS: &str = "there is more than one token; send one";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_compared_without_its_port() {
        let check = |host: &str, name: &str| assert_eq!(without_port(host), name);
        check("localhost", "localhost");
        check("localhost:8080", "localhost");
        check("[::1]:8080", "[::1]");
        check("[::1]", "[::1]");
        check("localhost:evil", "localhost:evil");
    }
}
