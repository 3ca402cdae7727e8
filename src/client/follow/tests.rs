//! A follower against a server that says what the test tells it to.

use std::io::Write;

use futures_util::SinkExt;
use futures_util::StreamExt;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::ErrorResponse;
use tokio_tungstenite::tungstenite::handshake::server::Request;
use tokio_tungstenite::tungstenite::handshake::server::Response;
use tokio_tungstenite::tungstenite::http::header;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::*;

const TOPIC: &str = "0000000000000000000000000000abcd";

/// One replica, which a test plays by hand.
struct Replica {
    listener: TcpListener,
    url: String,
}

impl Replica {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        Self { listener, url: format!("ws://{address}/v1/ws") }
    }

    async fn accept(&self) -> Peer {
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        fn choose(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
            let offered = &request.headers()[header::SEC_WEBSOCKET_PROTOCOL];
            assert_eq!(offered, "brucke.v1.json");
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, offered.clone());
            Ok(response)
        }
        let (stream, _) = self.listener.accept().await.expect("a client comes");
        Peer(accept_hdr_async(stream, choose).await.expect("a WebSocket"))
    }
}

/// A connection, seen from the server.
struct Peer(WebSocketStream<TcpStream>);

impl Peer {
    async fn hear(&mut self) -> Value {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("a frame of the client's expected, not {other:?}"),
        }
    }

    async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.expect("the client listens");
    }

    async fn welcome(&mut self) {
        let welcome = json!({
            "type": "welcome", "connection": "1", "tenant": "acme", "heartbeat_ms": 25_000,
        });
        self.say(welcome).await;
    }

    /// Lets the client in and its subscription begin; returns what it asked for.
    async fn begin(&mut self, positions: Value) -> Value {
        self.welcome().await;
        let request = self.hear().await;
        assert_eq!(request["type"], "subscribe");
        let subscribed = json!({
            "type": "subscribed", "id": request["id"], "sub": 7, "channel": "orders",
            "topic_id": TOPIC, "positions": positions,
        });
        self.say(subscribed).await;
        request
    }

    async fn records(&mut self, from: u64, to: u64, offsets: &[u64]) {
        let records: Vec<Value> =
            offsets.iter().map(|offset| json!({"offset": offset, "value": offset})).collect();
        let frame = json!({
            "type": "records", "sub": 7, "partition": 0, "from": from, "to": to,
            "records": records,
        });
        self.say(frame).await;
    }

    async fn close(mut self, number: u16) {
        let frame = CloseFrame { code: number.into(), reason: "".into() };
        self.0.close(Some(frame)).await.expect("the client listens");
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

fn wish(replicas: &[&Replica], credentials: Credentials) -> Wish {
    Wish {
        urls: replicas.iter().map(|replica| replica.url.clone()).collect(),
        credentials,
        channel: ChannelName::new("orders"),
        filter: KeyFilter::All,
        from: StartAt::Latest,
        on_gap: OnGap::Continue,
    }
}

fn follow(replicas: &[&Replica], credentials: Credentials) -> Follower {
    Follower::new(wish(replicas, credentials), 1)
}

/// Returns what happens next; the offsets, where it is records.
async fn told(follower: &mut Follower) -> (Event, Vec<u64>) {
    let event = follower.next().await.expect("it goes on");
    let offsets = match &event {
        Event::Records { records, .. } => records.iter().map(|r| r.offset.as_u64()).collect(),
        _ => Vec::new(),
    };
    (event, offsets)
}

#[tokio::test]
async fn a_cut_connection_goes_on_at_another_replica_where_it_stopped() {
    let (one, other) = (Replica::start().await, Replica::start().await);
    let server = async {
        let mut peer = one.accept().await;
        let asked = peer.begin(json!({"0": 43})).await;
        assert_eq!(asked["channel"], "orders");
        peer.records(43, 57, &[44, 56]).await;
        drop(peer);
        let mut peer = other.accept().await;
        let asked = peer.begin(json!({"0": 57})).await;
        assert_eq!(asked["from"], json!({"positions": {"0": 57}, "topic_id": TOPIC}));
        // A feed that others follow already may begin below.
        peer.records(50, 60, &[56, 59]).await;
        peer.say(json!({"type": "live", "sub": 7})).await;
        peer
    };
    let client = async {
        let mut follower = follow(&[&one, &other], Credentials::Anonymous);
        assert!(matches!(told(&mut follower).await.0, Event::Subscribed { .. }));
        assert_eq!(told(&mut follower).await.1, [44, 56]);
        assert!(matches!(told(&mut follower).await.0, Event::Waiting { .. }));
        assert!(matches!(told(&mut follower).await.0, Event::Subscribed { .. }));
        let (event, offsets) = told(&mut follower).await;
        assert!(matches!(event, Event::Records { repeats: 1, .. }), "{event:?}");
        assert_eq!(offsets, [59]);
        assert_eq!(told(&mut follower).await.0, Event::Live);
        let positions = &follower.place().expect("it began").positions;
        assert_eq!(positions.values().map(|p| p.as_u64()).collect::<Vec<_>>(), [60]);
    };
    let (_peer, ()) = tokio::join!(server, client);
}

#[tokio::test]
async fn a_hole_is_a_violation() {
    let replica = Replica::start().await;
    let server = async {
        let mut peer = replica.accept().await;
        peer.begin(json!({"0": 43})).await;
        peer.records(44, 57, &[44]).await;
        peer
    };
    let client = async {
        let mut follower = follow(&[&replica], Credentials::Anonymous);
        assert!(matches!(told(&mut follower).await.0, Event::Subscribed { .. }));
        let error = follower.next().await.expect_err("offset 43 is covered by no frame");
        assert!(matches!(error, FollowError::Violation(Violation::Hole { .. })), "{error:?}");
    };
    let (_peer, ()) = tokio::join!(server, client);
}

#[tokio::test]
async fn a_wait_that_a_draining_server_names_is_honoured() {
    let replica = Replica::start().await;
    let server = async {
        let mut peer = replica.accept().await;
        peer.begin(json!({"0": 43})).await;
        let closing = json!({
            "type": "closing", "code": "draining", "reconnect": true, "retry_after_ms": 40,
        });
        peer.say(closing).await;
        peer.close(1012).await;
        replica.accept().await.begin(json!({"0": 43})).await;
    };
    let client = async {
        let mut follower = follow(&[&replica], Credentials::Anonymous);
        assert!(matches!(told(&mut follower).await.0, Event::Subscribed { .. }));
        let (event, _) = told(&mut follower).await;
        let wait = Duration::from_millis(40);
        assert_eq!(event, Event::Waiting { why: "closed with 1012".to_owned(), wait });
        assert!(matches!(told(&mut follower).await.0, Event::Subscribed { .. }));
    };
    tokio::join!(server, client);
}

#[tokio::test]
async fn a_refused_token_is_not_shown_again() {
    let replica = Replica::start().await;
    let server = async {
        let mut peer = replica.accept().await;
        assert_eq!(peer.hear().await, json!({"type": "authenticate", "token": "old"}));
        peer.close(4002).await;
    };
    let client = async {
        let token = Token::new("old".to_owned());
        let mut follower = follow(&[&replica], Credentials::Fixed(token));
        let error = follower.next().await.expect_err("there is no other token");
        assert!(matches!(error, FollowError::TokenRefused), "{error:?}");
    };
    tokio::join!(server, client);
}

#[tokio::test]
async fn a_token_that_runs_out_is_renewed_from_its_file() {
    let replica = Replica::start().await;
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"old\n").expect("written");
    let credentials = Credentials::File(file.path().to_owned());
    let server = async {
        let mut peer = replica.accept().await;
        assert_eq!(peer.hear().await["token"], "old");
        peer.begin(json!({"0": 43})).await;
        std::fs::write(file.path(), "new").expect("written");
        let expiring = json!({"type": "expiring", "expires_at": "2026-11-23T08:00:00Z"});
        peer.say(expiring).await;
        assert_eq!(peer.hear().await, json!({"type": "authenticate", "token": "new"}));
        peer.say(json!({"type": "live", "sub": 7})).await;
        peer
    };
    let client = async {
        let mut follower = follow(&[&replica], credentials);
        assert!(matches!(told(&mut follower).await.0, Event::Subscribed { .. }));
        assert_eq!(told(&mut follower).await.0, Event::Live);
    };
    let (_peer, ()) = tokio::join!(server, client);
}

#[tokio::test]
async fn a_refusal_that_may_pass_is_tried_again_and_another_ends_it() {
    let replica = Replica::start().await;
    let server = async {
        let mut peer = replica.accept().await;
        peer.welcome().await;
        peer.say(json!({"type": "song", "text": "of a later version"})).await;
        for code in ["unavailable", "channel_forbidden"] {
            let request = peer.hear().await;
            let error = json!({
                "type": "error", "id": request["id"], "code": code, "message": "no",
                "retry": code == "unavailable", "retry_after_ms": 20,
            });
            peer.say(error).await;
        }
        peer
    };
    let client = async {
        let mut follower = follow(&[&replica], Credentials::Anonymous);
        let wait = Duration::from_millis(20);
        assert_eq!(told(&mut follower).await.0, Event::Refused { why: "no".to_owned(), wait });
        let error = follower.next().await.expect_err("the channel is not for us");
        assert_eq!(error.to_string(), "channel_forbidden: no");
    };
    let (_peer, ()) = tokio::join!(server, client);
}
