//! From a socket that was accepted to a stream on which HTTP is spoken.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::server::link;
use crate::server::network::Trusted;
use crate::server::proxy_protocol;
use crate::server::proxy_protocol::Origin;
use crate::server::proxy_protocol::ProxyProtocol;
use crate::server::refusal::Refusal;
use crate::server::settings::ServerSettings;
use crate::server::stream::ClientStream;
use crate::server::tls::keeper::Keeper;
use crate::telemetry::arrivals::ArrivalRefused;

/// What a socket goes through before there is a request on it.
#[derive(Clone)]
pub(in crate::server) struct Arrivals(Arc<Rules>);

struct Rules {
    proxy_protocol: ProxyProtocol,
    trusted: Trusted,
    tls: Option<Keeper>,
    /// Time for all of it.
    timeout: Duration,
    /// Places for those who are on their way in, at all workers together.
    handshakes: Arc<Semaphore>,
    /// Places for those who are told that there is none.
    farewells: Arc<Semaphore>,
}

/// A client with whom HTTP can be spoken.
pub(in crate::server) struct Arrived {
    pub(in crate::server) stream: ClientStream,
    /// From where; `None` when it is gone already.
    pub(in crate::server) peer: Option<SocketAddr>,
    /// Its place among those who are on their way in, until it has its answer.
    pub(in crate::server) handshake: OwnedSemaphorePermit,
}

/// Why there is no stream to speak HTTP on.
#[derive(Debug, Error)]
pub(in crate::server) enum Unfit {
    /// A request in the clear where TLS is spoken.
    #[error("the first byte is not one of TLS")]
    TlsRequired,
    #[error("{0}")]
    TlsFailed(io::Error),
    /// A trusted proxy did not say for whom it speaks.
    #[error("{0}")]
    ProxyHeaderMissing(io::Error),
    /// Somebody else did.
    #[error("a header of PROXY protocol from an address that is not trusted")]
    ProxyHeaderUntrusted,
    /// It left without a word, as balancers do that only see whether they can
    /// connect. Not counted, for nobody was refused.
    #[error("it left without a word")]
    Gone,
    /// As many as may be are on their way in.
    #[error("too many are on their way in")]
    HandshakesFull,
    /// The time for all this was up.
    #[error("nothing complete came in time")]
    Late,
}

impl Arrivals {
    pub(in crate::server) fn new(
        settings: &ServerSettings,
        trusted: Trusted,
        tls: Option<Keeper>,
    ) -> Self {
        let (proxy_protocol, timeout) = (settings.proxies.protocol, settings.head_timeout);
        let places = || Arc::new(Semaphore::new(settings.handshakes_max as usize));
        let (handshakes, farewells) = (places(), places());
        Self(Arc::new(Rules { proxy_protocol, trusted, tls, timeout, handshakes, farewells }))
    }

    /// Takes a socket; `None` for one that was refused, which is counted.
    pub(in crate::server) async fn admit(&self, socket: TcpStream) -> Option<Arrived> {
        // A socket that can't be set is gone, and the next call finds that out.
        let _ = socket.set_nodelay(true);
        let peer = socket.peer_addr().ok();
        let Ok(handshake) = Arc::clone(&self.0.handshakes).try_acquire_owned() else {
            self.0.turn_away(socket, peer).await;
            return None;
        };
        if self.0.tls.is_none() && self.0.proxy_protocol == ProxyProtocol::Off {
            return Some(Arrived { stream: ClientStream::Plain(socket), peer, handshake });
        }
        let within = timeout(self.0.timeout, self.0.greet(socket, peer)).await;
        match within.unwrap_or(Err(Unfit::Late)) {
            Ok((stream, peer)) => Some(Arrived { stream, peer, handshake }),
            Err(unfit) => {
                if let Some(reason) = unfit.reason() {
                    ArrivalRefused { reason, peer, error: &unfit }.emit();
                }
                None
            }
        }
    }
}

impl Rules {
    /// Hears for whom a proxy speaks, and then does the handshake of TLS.
    async fn greet(
        &self,
        mut socket: TcpStream,
        mut peer: Option<SocketAddr>,
    ) -> Result<(ClientStream, Option<SocketAddr>), Unfit> {
        let first = first_byte(&socket).await.ok_or(Unfit::Gone)?;
        if self.proxy_protocol == ProxyProtocol::V2 {
            if peer.is_some_and(|peer| self.trusted.contains(peer.ip())) {
                let origin = proxy_protocol::read(&mut socket).await;
                if let Origin::Client(client) = origin.map_err(Unfit::ProxyHeaderMissing)? {
                    peer = Some(client);
                }
            } else if first == b'\r' {
                // No request and no TLS begins so.
                return Err(Unfit::ProxyHeaderUntrusted);
            }
        }
        let stream = match &self.tls {
            Some(keeper) => secure(socket, keeper).await?,
            None => ClientStream::Plain(socket),
        };
        Ok((stream, peer))
    }

    /// Refuses a socket for which there is no place, where that can be said before
    /// anything is spent on it. Those who are told so are bounded too: beyond that
    /// sockets are closed.
    async fn turn_away(&self, mut socket: TcpStream, peer: Option<SocketAddr>) {
        let (reason, error) = (Refusal::HandshakesFull.row().1, &Unfit::HandshakesFull);
        ArrivalRefused { reason, peer, error }.emit();
        if self.tls.is_some() {
            return;
        }
        let Ok(_place) = self.farewells.try_acquire() else { return };
        // A new socket takes so little at once.
        if socket.write_all(Refusal::HandshakesFull.unasked().as_bytes()).await.is_ok() {
            link::linger(&socket).await;
        }
    }
}

impl fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrivals").finish_non_exhaustive()
    }
}

impl Unfit {
    /// The reasons that there are, for metrics.
    pub(in crate::server) const REASONS: [&str; 5] = [
        "tls_required",
        "tls_failed",
        "proxy_header_missing",
        "proxy_header_untrusted",
        "handshake_timeout",
    ];

    /// Returns how it is counted, if it is.
    fn reason(&self) -> Option<&'static str> {
        let index = match self {
            Self::TlsRequired => 0,
            Self::TlsFailed(_) => 1,
            Self::ProxyHeaderMissing(_) => 2,
            Self::ProxyHeaderUntrusted => 3,
            Self::Late => 4,
            // Counted where it is refused.
            Self::HandshakesFull | Self::Gone => return None,
        };
        Some(Self::REASONS[index])
    }
}

/// Does the handshake of TLS, with the pair that is in force now.
async fn secure(socket: TcpStream, keeper: &Keeper) -> Result<ClientStream, Unfit> {
    if first_byte(&socket).await.is_some_and(|byte| byte.is_ascii_uppercase()) {
        // Whoever speaks HTTP can read why it gets no further.
        return Err(refuse_plain(socket).await);
    }
    let handshake = TlsAcceptor::from(keeper.current()).accept(socket);
    let stream = handshake.await.map_err(Unfit::TlsFailed)?;
    Ok(ClientStream::Tls(Box::new(stream)))
}

/// Returns the first byte and leaves it where it is; `None` when none comes.
async fn first_byte(socket: &TcpStream) -> Option<u8> {
    let mut first = [0];
    let seen = socket.peek(&mut first).await.ok()?;
    (seen > 0).then_some(first[0])
}

async fn refuse_plain(mut socket: TcpStream) -> Unfit {
    match socket.write_all(TLS_REQUIRED).await {
        Ok(()) => {
            link::linger(&socket).await;
            Unfit::TlsRequired
        }
        Err(error) => Unfit::TlsFailed(error),
    }
}

const TLS_REQUIRED: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\
    Content-Type: application/json\r\nContent-Length: 84\r\n\r\n\
    {\"code\":\"tls_required\",\"message\":\"TLS is spoken here; connect with wss:// instead\"}\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_requests_says_its_own_length() {
        let answer = str::from_utf8(TLS_REQUIRED).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{}", body.len());
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["code"].as_str(), Unfit::TlsRequired.reason());
    }

    #[test]
    fn who_left_without_a_word_is_not_counted() {
        assert_eq!(Unfit::Gone.reason(), None);
        assert_eq!(Unfit::Late.reason(), Some("handshake_timeout"));
    }
}
