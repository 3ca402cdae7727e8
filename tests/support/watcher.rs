//! A client of one subscription that proves its ranges, one frame at a time.

use std::collections::VecDeque;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

use brucke::client::ranges::RangeChecker;
use brucke::protocol::error_code::ErrorCode;
use brucke::protocol::frame::ClientFrame;
use brucke::protocol::frame::Encoding;
use brucke::protocol::frame::ErrorFrame;
use brucke::protocol::frame::GapReason;
use brucke::protocol::frame::OnGap;
use brucke::protocol::frame::ServerFrame;
use brucke::protocol::frame::StartAt;
use brucke::protocol::frame::Subscribe;
use brucke::protocol::frame::Token;
use brucke::protocol::json;
use brucke::protocol::message::ServerMessage;
use brucke::protocol::protobuf;
use brucke::types::filter::KeyFilter;
use brucke::types::ids::ChannelName;
use brucke::types::ids::RequestId;
use brucke::types::ids::SubId;
use brucke::types::positions::Place;
use brucke::types::positions::Positions;
use bytes::Bytes;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::WebSocket;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::client::client_with_config;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::support::server_process::token;

/// What to follow of the channel `feed`, as whom, and how.
#[derive(Debug, Clone)]
pub struct Wish {
    pub tenant: String,
    pub filter: KeyFilter,
    pub from: StartAt,
    pub on_gap: OnGap,
    pub encoding: Encoding,
}

impl Wish {
    /// Returns the wish for every record from some place on.
    pub fn new(from: StartAt) -> Self {
        Self {
            tenant: "acme".to_owned(),
            filter: KeyFilter::All,
            from,
            on_gap: OnGap::Continue,
            encoding: Encoding::Json,
        }
    }
}

/// What a subscription tells its application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Record { partition: u32, offset: u64, key: Option<String>, value: Option<String> },
    Gap { partition: u32, from: u64, to: u64, reason: GapReason },
    Live,
    Ended(ErrorCode),
}

impl Heard {
    /// Returns a record with key and value.
    pub fn record(partition: u32, offset: u64, key: &str, value: &str) -> Self {
        let (key, value) = (Some(key.to_owned()), Some(value.to_owned()));
        Self::Record { partition, offset, key, value }
    }

    /// Says whether it is a record with this value.
    pub fn has_value(&self, wanted: &str) -> bool {
        matches!(self, Self::Record { value: Some(value), .. } if value == wanted)
    }
}

/// A subscription on a connection of its own. It panics where ranges do not
/// join; dropping it cuts the connection.
pub struct Watcher<S = TcpStream> {
    socket: WebSocket<S>,
    encoding: Encoding,
    checker: RangeChecker,
    sub: SubId,
    starts: Positions,
    told: VecDeque<Heard>,
}

impl Watcher {
    /// Connects and subscribes.
    pub fn start(server: SocketAddr, wish: &Wish) -> Self {
        Self::try_start(server, wish).expect("the subscription begins")
    }

    /// Connects and subscribes, or returns why that is refused.
    pub fn try_start(server: SocketAddr, wish: &Wish) -> Result<Self, ErrorFrame> {
        let stream = TcpStream::connect(server).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self::over(stream, server, wish)
    }
}

impl<S: Read + Write> Watcher<S> {
    /// Returns the stream below.
    pub fn stream(&mut self) -> &mut S {
        self.socket.get_mut()
    }

    /// Subscribes over a stream that is connected to `server`.
    pub fn over(stream: S, server: SocketAddr, wish: &Wish) -> Result<Self, ErrorFrame> {
        let url = format!("ws://{server}/v1/ws");
        let mut request = url.into_client_request().expect("a request");
        let subprotocol = HeaderValue::from_static(wish.encoding.subprotocol());
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let (socket, _) = client_with_config(request, stream, Some(config))
            .unwrap_or_else(|error| panic!("the handshake: {error}"));
        let mut watcher = Self {
            socket,
            encoding: wish.encoding,
            checker: match &wish.from {
                StartAt::Place(place) => RangeChecker::resume(place.clone()),
                _ => RangeChecker::new(),
            },
            sub: SubId::new(0),
            starts: Positions::new(),
            told: VecDeque::new(),
        };
        let token = Token::new(token(&wish.tenant));
        watcher.send(&ClientFrame::Authenticate { token });
        watcher.send(&ClientFrame::Subscribe(Subscribe {
            id: RequestId::new(1),
            channel: ChannelName::new("feed"),
            filter: wish.filter.clone(),
            from: wish.from.clone(),
            on_gap: wish.on_gap,
            window: None,
        }));
        let ServerMessage::Frame(ServerFrame::Welcome { .. }) = watcher.hear() else {
            panic!("no welcome");
        };
        match watcher.hear() {
            ServerMessage::Frame(ServerFrame::Subscribed {
                sub,
                topic_id,
                positions,
                epochs,
                ..
            }) => {
                let joined = watcher.checker.handle_subscribed(topic_id, &positions, &epochs);
                joined.expect("the start is not above the position");
                (watcher.sub, watcher.starts) = (sub, positions);
                Ok(watcher)
            }
            ServerMessage::Frame(ServerFrame::Error(error)) => Err(error),
            other => panic!("instead of `subscribed`: {other:?}"),
        }
    }

    /// Returns where the subscription began.
    pub fn starts(&self) -> Vec<u64> {
        self.starts.values().map(|offset| offset.as_u64()).collect()
    }

    /// Returns where to go on, once all that was heard has been dealt with.
    ///
    /// # Panics
    ///
    /// Something that the server said has not been taken yet.
    pub fn place(&self) -> Place {
        assert!(self.told.is_empty(), "{:?} would be lost", self.told);
        self.checker.place().expect("the subscription began").clone()
    }

    /// Returns the position of each partition that has one.
    pub fn positions(&self) -> Vec<u64> {
        let place = self.checker.place().expect("the subscription began");
        place.positions.values().map(|offset| offset.as_u64()).collect()
    }

    /// Says whether all that was heard so far has been taken.
    pub fn is_between_frames(&self) -> bool {
        self.told.is_empty()
    }

    /// Returns what is heard next.
    pub fn next(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.told.pop_front() {
                return heard;
            }
            self.step();
        }
    }

    /// Returns all that is heard up to and with the first that is `last`.
    pub fn hear_until(&mut self, mut last: impl FnMut(&Heard) -> bool) -> Vec<Heard> {
        let mut all = Vec::new();
        loop {
            let heard = self.next();
            let done = last(&heard);
            all.push(heard);
            if done {
                return all;
            }
        }
    }

    /// Takes frames until the position of each partition is as wanted; nothing
    /// else may be heard meanwhile.
    pub fn progress_to(&mut self, positions: &[u64]) {
        while self.positions() != positions {
            assert!(self.told.is_empty(), "{:?}", self.told);
            self.step();
        }
    }

    /// Takes one frame.
    fn step(&mut self) {
        let message = self.hear();
        let checked = match message {
            ServerMessage::Records(records) => {
                assert_eq!(records.sub, self.sub);
                let offsets = records.records.iter().map(|record| record.offset);
                let (partition, from, to) = (records.partition, records.from, records.to);
                let checked =
                    self.checker.handle_records(partition, from, to, records.epoch, offsets);
                checked.map(|repeats| {
                    let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
                    let new = records.records.into_iter().skip(repeats);
                    self.told.extend(new.map(|record| Heard::Record {
                        partition: partition.as_u32(),
                        offset: record.offset.as_u64(),
                        key: record.key.map(text),
                        value: record.value.map(text),
                    }));
                })
            }
            ServerMessage::Frame(ServerFrame::Progress { sub, to, epochs }) => {
                assert_eq!(sub, self.sub);
                self.checker.handle_progress(&to, &epochs)
            }
            ServerMessage::Frame(ServerFrame::Gap(gap)) => {
                assert_eq!(gap.sub, self.sub);
                self.checker.handle_gap(&gap).map(|()| {
                    self.told.push_back(Heard::Gap {
                        partition: gap.partition.as_u32(),
                        from: gap.from.as_u64(),
                        to: gap.to.as_u64(),
                        reason: gap.reason,
                    });
                })
            }
            ServerMessage::Frame(ServerFrame::Live { sub }) => {
                assert_eq!(sub, self.sub);
                self.told.push_back(Heard::Live);
                Ok(())
            }
            ServerMessage::Frame(ServerFrame::Error(error)) => {
                assert_eq!(error.sub, Some(self.sub), "{error:?}");
                self.told.push_back(Heard::Ended(error.code));
                Ok(())
            }
            ServerMessage::Frame(other) => panic!("nobody asked for {other:?}"),
        };
        checked.unwrap_or_else(|violation| panic!("{violation}"));
    }

    fn send(&mut self, frame: &ClientFrame) {
        let message = match self.encoding {
            Encoding::Json => Message::text(json::encode_client(frame)),
            Encoding::Protobuf => Message::binary(protobuf::encode_client(frame)),
        };
        self.socket.send(message).expect("the server reads");
    }

    fn hear(&mut self) -> ServerMessage {
        loop {
            let message = self.socket.read().unwrap_or_else(|error| {
                panic!("nothing more is heard at {:?}: {error}", self.checker.place())
            });
            let decoded = match message {
                Message::Text(text) => json::decode_server(&text),
                Message::Binary(bytes) => protobuf::decode_server(bytes),
                Message::Ping(_) | Message::Pong(_) => continue,
                other => panic!("{other:?}"),
            };
            return decoded.expect("a frame of the protocol");
        }
    }
}

const READ_BUFFER_BYTES: usize = 16 << 10;
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);
