//! The routes of the clients' listener.

use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::body::MessageBody;
use actix_web::body::SizedStream;
use actix_web::http::Method;
use actix_web::http::header;
use actix_web::web;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::sleep;

use crate::delivery::connection::Opening;
use crate::server::forwarded;
use crate::server::forwarded::ForwardedHeader;
use crate::server::handshake;
use crate::server::network::Trusted;
use crate::server::network::told;
use crate::server::pace::Pace;
use crate::server::pace::TooFast;
use crate::server::places::NoPlace;
use crate::server::places::Place;
use crate::server::places::Places;
use crate::server::refusal::Refusal;
use crate::server::settings::Authentication;
use crate::server::worker;
use crate::server::worker::NoRoom;
use crate::server::worker::Worker;
use crate::telemetry::arrivals::HandshakeDelayed;
use crate::telemetry::arrivals::HandshakeRefused;
use crate::telemetry::arrivals::TokenRefused;
use crate::tenancy::verify::Verify;

/// What a worker's handlers need.
#[derive(Debug)]
pub(in crate::server) struct Gate {
    pub(in crate::server) worker: Rc<Worker>,
    pub(in crate::server) authentication: Authentication,
    pub(in crate::server) verifier: Arc<dyn Verify>,
    /// Whose word about addresses is believed, and where it stands.
    pub(in crate::server) trusted: Trusted,
    pub(in crate::server) forwarded_header: ForwardedHeader,
    pub(in crate::server) places: Arc<Places>,
    pub(in crate::server) pace: Arc<Pace>,
}

/// Marks an answer whose connection becomes a WebSocket.
#[derive(Debug)]
pub(in crate::server) struct Takeover {
    pub(in crate::server) opening: Opening,
    pub(in crate::server) client: Client,
}

/// Where a client is, and its place among those of its address.
#[derive(Debug)]
pub(in crate::server) struct Client {
    pub(in crate::server) address: Option<IpAddr>,
    pub(in crate::server) place: Option<Box<Place>>,
}

/// Adds the routes of requests whose stream can be taken over.
pub(in crate::server) fn upgradable(config: &mut web::ServiceConfig) {
    config.service(
        web::resource(PATH).route(web::get().to(connect)).default_service(web::to(refuse_method)),
    );
    config.default_service(web::to(refuse_path));
}

/// Adds the routes of all other requests.
pub(in crate::server) fn plain(config: &mut web::ServiceConfig) {
    config.default_service(web::to(refuse_plain));
}

async fn connect(
    request: HttpRequest,
    payload: web::Payload,
    gate: web::Data<Gate>,
) -> HttpResponse {
    let address = address(&request, &gate);
    let admitted = admit(&request, payload, &gate, address).await;
    admitted.unwrap_or_else(|refusal| refuse(&refusal, address))
}

/// Returns where the client is, by the word of the proxies that are trusted.
fn address(request: &HttpRequest, gate: &Gate) -> Option<IpAddr> {
    let peer = peer(request)?;
    Some(forwarded::client(request.headers(), gate.forwarded_header, peer, &gate.trusted))
}

/// Returns where the peer is.
fn peer(request: &HttpRequest) -> Option<IpAddr> {
    request.peer_addr().map(|peer| peer.ip().to_canonical())
}

/// Refuses a request whose stream can't be taken over.
///
/// The answer keeps the payload: actix reads a chunked body that nobody keeps to
/// its end before it closes, without a deadline, and a client could hold the
/// connection for ever.
async fn refuse_plain(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let refusal = match (request.path(), request.method()) {
        (PATH, &Method::GET) => Refusal::UpgradeRequired,
        (PATH, _) => Refusal::MethodNotAllowed,
        _ => Refusal::NotFound,
    };
    refuse(&refusal, peer(&request)).map_body(|_, body| keep(payload, body))
}

/// Returns a body that keeps `payload` until it is sent.
fn keep(payload: web::Payload, body: BoxBody) -> BoxBody {
    let bytes = body.try_into_bytes().expect("refusals are a piece of JSON");
    let length = bytes.len() as u64;
    let bytes = stream::iter([bytes]).map(move |bytes| {
        let _kept = &payload;
        Ok::<_, Infallible>(bytes)
    });
    BoxBody::new(SizedStream::new(length, bytes))
}

async fn refuse_method(request: HttpRequest) -> HttpResponse {
    refuse(&Refusal::MethodNotAllowed, peer(&request))
}

async fn refuse_path(request: HttpRequest) -> HttpResponse {
    refuse(&Refusal::NotFound, peer(&request))
}

/// Answers with a refusal, and counts it.
pub(in crate::server) fn refuse(refusal: &Refusal, address: Option<IpAddr>) -> HttpResponse {
    let (status, reason) = refusal.row();
    HandshakeRefused { reason, status: status.as_u16(), address }.emit();
    refusal.response()
}

/// Checks a handshake, cheapest first: when there is no room, no token is
/// looked at.
async fn admit(
    request: &HttpRequest,
    payload: web::Payload,
    gate: &Gate,
    address: Option<IpAddr>,
) -> Result<HttpResponse, Refusal> {
    gate.worker.room()?;
    let place = gate.places.take(address).map_err(|NoPlace| Refusal::AddressFull)?;
    let edge = gate.worker.edge();
    let handshake = handshake::read(request.head(), &edge.rules)?;
    let wait = gate.pace.take(edge.connections_per_second, worker::now().instant)?;
    if wait > Duration::ZERO {
        HandshakeDelayed { wait }.emit();
        let _waiting = gate.worker.waiting();
        sleep(wait).await;
        gate.worker.room()?;
    }
    let principal = match (&gate.authentication, handshake.token) {
        (Authentication::Off(principal), _) => Some(Arc::clone(principal)),
        (Authentication::Required, None) => None,
        (Authentication::Required, Some(token)) => {
            let verified = gate.verifier.verify(&token, worker::now().wall);
            let verified = verified.map_err(|refusal| {
                TokenRefused { reason: refusal.reason }.emit();
                Refusal::TokenRefused(refusal.message)
            });
            Some(Arc::new(verified?))
        }
    };
    let user_agent = user_agent(request);
    // The session and the stream of messages are not used: see `Takeover`.
    let (mut response, _, _) =
        actix_ws::handle_with_protocols(request, payload, handshake.subprotocol.as_slice())
            .map_err(|_| Refusal::BadHandshake("the handshake is not one of RFC 6455"))?;
    let opening = Opening {
        encoding: handshake.encoding,
        principal,
        user_agent,
        address: address.map(told),
        trace: None,
    };
    response.extensions_mut().insert(Takeover { opening, client: Client { address, place } });
    Ok(response)
}

/// Returns the beginning of what the client says it is, where that is text.
fn user_agent(request: &HttpRequest) -> Option<Box<str>> {
    let text = request.headers().get(header::USER_AGENT)?.to_str().ok()?;
    Some(text.get(..USER_AGENT_BYTES_MAX).unwrap_or(text).into())
}

impl From<TooFast> for Refusal {
    fn from(TooFast { retry_after }: TooFast) -> Self {
        Self::TooFast(retry_after)
    }
}

impl From<NoRoom> for Refusal {
    fn from(reason: NoRoom) -> Self {
        match reason {
            NoRoom::Full => Self::Full,
            NoRoom::TenantFull => Self::TenantFull,
            NoRoom::Draining => Self::Draining,
        }
    }
}

/// Bytes of a client's name that are kept, for as long as its connection is.
const USER_AGENT_BYTES_MAX: usize = 128;
/// Where WebSockets are.
const PATH: &str = "/v1/ws";
