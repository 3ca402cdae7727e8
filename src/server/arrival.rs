//! From a socket that was accepted to a stream on which HTTP is spoken.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::server::link;
use crate::server::stream::ClientStream;
use crate::server::tls::keeper::Keeper;
use crate::telemetry::events::ArrivalRefused;

/// What a socket goes through before there is a request on it.
#[derive(Clone)]
pub(in crate::server) struct Arrivals(Arc<Rules>);

struct Rules {
    tls: Option<Keeper>,
    /// Time for all of it.
    timeout: Duration,
}

/// A client with whom HTTP can be spoken.
pub(in crate::server) struct Arrived {
    pub(in crate::server) stream: ClientStream,
    /// From where; `None` when it is gone already.
    pub(in crate::server) peer: Option<SocketAddr>,
}

/// Why there is no stream to speak HTTP on.
#[derive(Debug, Error)]
pub(in crate::server) enum Unfit {
    /// A request in the clear where TLS is spoken.
    #[error("the first byte is not one of TLS")]
    TlsRequired,
    #[error("{0}")]
    TlsFailed(io::Error),
    /// The time for TLS was up.
    #[error("nothing complete came in time")]
    Late,
}

impl Arrivals {
    pub(in crate::server) fn new(tls: Option<Keeper>, timeout: Duration) -> Self {
        Self(Arc::new(Rules { tls, timeout }))
    }

    /// Takes a socket; `None` for one that was refused, which is counted.
    pub(in crate::server) async fn admit(&self, socket: TcpStream) -> Option<Arrived> {
        // A socket that can't be set is gone, and the next call finds that out.
        let _ = socket.set_nodelay(true);
        let peer = socket.peer_addr().ok();
        let Some(keeper) = &self.0.tls else {
            return Some(Arrived { stream: ClientStream::Plain(socket), peer });
        };
        let within = timeout(self.0.timeout, secure(socket, keeper)).await;
        match within.unwrap_or(Err(Unfit::Late)) {
            Ok(stream) => Some(Arrived { stream, peer }),
            Err(unfit) => {
                ArrivalRefused { reason: unfit.reason(), peer, error: &unfit }.emit();
                None
            }
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
    pub(in crate::server) const REASONS: [&str; 3] = ["tls_required", "tls_failed", "tls_timeout"];

    fn reason(&self) -> &'static str {
        match self {
            Self::TlsRequired => Self::REASONS[0],
            Self::TlsFailed(_) => Self::REASONS[1],
            Self::Late => Self::REASONS[2],
        }
    }
}

/// Does the handshake of TLS, with the pair that is in force now.
async fn secure(socket: TcpStream, keeper: &Keeper) -> Result<ClientStream, Unfit> {
    let mut first = [0];
    let seen = socket.peek(&mut first).await.map_err(Unfit::TlsFailed)?;
    if seen > 0 && first[0].is_ascii_uppercase() {
        // Whoever speaks HTTP can read why it gets no further.
        return Err(refuse_plain(socket).await);
    }
    let handshake = TlsAcceptor::from(keeper.current()).accept(socket);
    let stream = handshake.await.map_err(Unfit::TlsFailed)?;
    Ok(ClientStream::Tls(Box::new(stream)))
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
        assert_eq!(body["code"], Unfit::TlsRequired.reason());
    }
}
