//! One WebSocket to a server: frames out, messages in.

use std::borrow::Cow;
use std::time::Duration;

use futures_util::SinkExt;
use futures_util::StreamExt;
use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::connect_async_tls_with_config;
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header;
use tokio_tungstenite::tungstenite::http::response::Response;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::client::trust::Trust;
use crate::protocol::close_code::CloseCode;
use crate::protocol::close_code::Reconnect;
use crate::protocol::frame::ClientFrame;
use crate::protocol::frame::Encoding;
use crate::protocol::json;
use crate::protocol::message::ServerMessage;

/// A connection that speaks `brucke.v1.json`.
#[derive(Debug)]
pub struct Connection {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    silence_max: Duration,
}

impl Connection {
    /// Connects to `url`, which is `ws://` or `wss://` and names the path.
    ///
    /// # Errors
    ///
    /// Nobody there, or an answer that is no WebSocket of Brücke's.
    pub async fn open(url: &str) -> Result<Self, Ended> {
        Self::open_trusting(url, &Trust::System).await
    }

    /// Connects to `url`, where that is `wss://` to whom `trust` believes.
    ///
    /// # Errors
    ///
    /// Nobody there whom it believes, or an answer that is no WebSocket of
    /// Brücke's.
    pub async fn open_trusting(url: &str, trust: &Trust) -> Result<Self, Ended> {
        let mut request = url.into_client_request().map_err(unusable)?;
        let subprotocol = HeaderValue::from_static(Encoding::Json.subprotocol());
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(SERVER_FRAME_BYTES_MAX))
            .max_frame_size(Some(SERVER_FRAME_BYTES_MAX));
        let connected =
            connect_async_tls_with_config(request, Some(config), true, trust.connector()).await;
        let (socket, _) = connected.map_err(|error| match error {
            SocketError::Http(response) => refused(&response),
            SocketError::Url(_) | SocketError::HttpFormat(_) => unusable(error),
            error => Ended::Unreachable(error.to_string()),
        })?;
        Ok(Self { socket, silence_max: SILENCE_MAX })
    }

    /// Expects a sign of life from the server at least this often.
    pub fn expect_heartbeat(&mut self, interval: Duration) {
        self.silence_max = (interval * 2).max(SILENCE_MIN);
    }

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub async fn send(&mut self, frame: &ClientFrame) -> Result<(), Ended> {
        let message = Message::text(json::encode_client(frame));
        self.socket.send(message).await.map_err(|error| Ended::Lost(error.to_string()))
    }

    /// Returns what the server says next. Nothing is lost when this is dropped
    /// before it is done.
    ///
    /// # Errors
    ///
    /// The connection ended, went silent, or carries what no client can read.
    pub async fn next(&mut self) -> Result<ServerMessage, Ended> {
        loop {
            let next = timeout(self.silence_max, self.socket.next());
            let message = match next.await.map_err(|_| Ended::Silent(self.silence_max))? {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(Ended::Lost(error.to_string())),
                None => return Err(Ended::Lost("end of stream".to_owned())),
            };
            match message {
                Message::Text(text) => match json::decode_server(&text) {
                    Ok(message) => return Ok(message),
                    // A newer server may say more than this client understands.
                    Err(_) if is_of_unknown_type(&text) => {}
                    Err(error) => return Err(Ended::Unreadable(error.message)),
                },
                Message::Close(frame) => {
                    let number = frame.as_ref().map_or(NO_STATUS, |frame| frame.code.into());
                    let reason = frame.map_or(String::new(), |frame| frame.reason.to_string());
                    return Err(Ended::Closed { number, reason });
                }
                // Answered by the library when the socket is next read.
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Binary(_) | Message::Frame(_) => {
                    return Err(Ended::Unreadable("a binary message".to_owned()));
                }
            }
        }
    }

    /// Says goodbye, and does not wait long for the answer.
    pub async fn close(mut self) {
        // The connection is done with, whether or not the other side hears it.
        let _ = timeout(GOODBYE_MAX, self.socket.close(None)).await;
    }
}

/// Why there is no connection, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Ended {
    /// Nobody answers at the address.
    #[error("can't connect: {0}")]
    Unreachable(String),
    /// The address is no address.
    #[error("not an address to connect to: {0}")]
    Unusable(String),
    /// The server answered with HTTP instead of a WebSocket.
    #[error("refused with HTTP status {status}")]
    Refused { status: u16, retry_after: Option<Duration> },
    /// The server closed, and said why.
    #[error("closed with {number}{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Closed { number: u16, reason: String },
    /// The connection broke.
    #[error("lost: {0}")]
    Lost(String),
    /// Not even a ping arrived for this long.
    #[error("silent for {0:?}")]
    Silent(Duration),
    /// The server said something that the protocol does not have.
    #[error("unreadable: {0}")]
    Unreadable(String),
}

impl Ended {
    /// Returns what to do now, by the protocol's table of close codes.
    pub fn advice(&self) -> Reconnect {
        match self {
            // As with `overloaded`: many lose their connection at once.
            Self::Unreachable(_) | Self::Lost(_) | Self::Silent(_) => Reconnect::Backoff,
            Self::Refused { status: 401, .. } => Reconnect::NewToken,
            Self::Refused { status: 429 | 500..=599, .. } => Reconnect::Backoff,
            // A number of somebody between, such as a proxy that goes away.
            Self::Closed { number, .. } => {
                CloseCode::from_number(*number).map_or(Reconnect::Backoff, CloseCode::reconnect)
            }
            Self::Refused { .. } | Self::Unusable(_) | Self::Unreadable(_) => Reconnect::Never,
        }
    }

    /// Says whether the server ended it for want of a token.
    pub fn wants_token(&self) -> bool {
        let timeout = CloseCode::AuthenticationTimeout.number();
        self.advice() == Reconnect::NewToken
            || matches!(self, Self::Closed { number, .. } if *number == timeout)
    }

    /// Returns how long the server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Bytes of one frame that a server may send: a record may be large, and is
/// larger by a third in base64.
const SERVER_FRAME_BYTES_MAX: usize = 256 << 20;
/// Bytes read from the socket at once.
const READ_BUFFER_BYTES: usize = 64 << 10;
/// Silence after which a server that has not named its heartbeat is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Least silence after which a server is given up.
const SILENCE_MIN: Duration = Duration::from_secs(5);
/// How long to wait for the answer to a Close frame.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// The types of frames that this client knows.
const TYPES: [&str; 12] = [
    "welcome",
    "renewed",
    "expiring",
    "subscribed",
    "records",
    "progress",
    "gap",
    "live",
    "unsubscribed",
    "error",
    "closing",
    "pong",
];
/// The number that stands for a Close frame without one (RFC 6455, 7.1.5).
const NO_STATUS: u16 = 1005;

/// Says whether a frame is of a type that this client does not know.
fn is_of_unknown_type(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, rename = "type")]
        name: Cow<'a, str>,
    }
    serde_json::from_str::<Kind<'_>>(text).is_ok_and(|kind| !TYPES.contains(&&*kind.name))
}

fn unusable(error: SocketError) -> Ended {
    Ended::Unusable(error.to_string())
}

fn refused(response: &Response<Option<Vec<u8>>>) -> Ended {
    let header = response.headers().get(header::RETRY_AFTER);
    let seconds = || header?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs);
    let millis = response.body().as_deref().and_then(|body| {
        let body: Problem = serde_json::from_slice(body).ok()?;
        body.retry_after_ms.map(Duration::from_millis)
    });
    // A server that says it to the millisecond has spread its clients so.
    let retry_after = millis.or_else(seconds);
    Ended::Refused { status: response.status().as_u16(), retry_after }
}

/// What concerns a client of the body of a refusal.
#[derive(Deserialize)]
struct Problem {
    retry_after_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    fn check(ended: Ended, advice: Reconnect) {
        assert_eq!(ended.advice(), advice, "{ended:?}");
    }

    fn closed(number: u16) -> Ended {
        Ended::Closed { number, reason: String::new() }
    }

    #[tokio::test]
    async fn a_server_without_tls_is_no_secure_server() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("wss://{}/v1/ws", listener.local_addr().expect("bound"));
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a client comes");
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("written");
            stream
        };
        let (_stream, opened) = tokio::join!(server, Connection::open(&url));
        assert!(matches!(opened, Err(Ended::Unreachable(_))), "{opened:?}");
    }

    #[test]
    fn the_table_of_close_codes_says_what_to_do() {
        for code in CloseCode::ALL {
            check(closed(code.number()), code.reconnect());
        }
        check(closed(1001), Reconnect::Backoff);
        check(closed(NO_STATUS), Reconnect::Backoff);
        check(Ended::Refused { status: 503, retry_after: None }, Reconnect::Backoff);
        check(Ended::Refused { status: 401, retry_after: None }, Reconnect::NewToken);
        check(Ended::Refused { status: 404, retry_after: None }, Reconnect::Never);
        check(Ended::Lost(String::new()), Reconnect::Backoff);
    }

    #[test]
    fn frames_of_later_versions_are_told_from_broken_ones() {
        assert!(is_of_unknown_type(r#"{"type":"song","text":"la"}"#));
        assert!(!is_of_unknown_type(r#"{"type":"live"}"#));
        assert!(!is_of_unknown_type("{}"));
    }

    #[test]
    fn an_end_reads_as_a_sentence() {
        assert_eq!(closed(1012).to_string(), "closed with 1012");
        let reason = "token_expired".to_owned();
        let ended = Ended::Closed { number: 4003, reason };
        assert_eq!(ended.to_string(), "closed with 4003: token_expired");
    }
}
