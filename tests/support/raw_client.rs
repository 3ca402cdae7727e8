//! A WebSocket client that may break every rule: it sends whatever bytes a test
//! wants and shows whatever comes back.

use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

/// An open WebSocket, on a socket or on what stands before one.
pub struct RawClient<S = TcpStream> {
    pub stream: S,
    received: Vec<u8>,
}

/// What came.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    Json(Value),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// A Close frame with its number.
    Close(u16),
    /// The socket ended; `true` stands for a reset.
    End {
        reset: bool,
    },
}

/// An answer that is no WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub status: u16,
    pub head: String,
    pub code: String,
    pub body: String,
}

impl Refused {
    /// Says whether the answer has a header that begins so.
    pub fn has_header(&self, start: &str) -> bool {
        self.head.lines().any(|line| line.to_ascii_lowercase().starts_with(start))
    }
}

impl RawClient {
    /// Connects with a right handshake and these lines besides.
    pub fn connect(address: SocketAddr, lines: &[&str]) -> Result<Self, Refused> {
        Self::connect_on(dial(address), lines)
    }

    /// Sends a request and takes what comes: a WebSocket with the head of the
    /// answer, or a refusal.
    pub fn request(
        address: SocketAddr,
        line: &str,
        head: &[&str],
    ) -> Result<(Self, String), Refused> {
        Self::request_on(dial(address), line, head)
    }
}

impl<S: Read + Write> RawClient<S> {
    /// Does a right handshake with these lines besides, on a stream that is open.
    pub fn connect_on(stream: S, lines: &[&str]) -> Result<Self, Refused> {
        let mut head = vec!["Host: 127.0.0.1", UPGRADE, "Connection: Upgrade", VERSION, KEY];
        head.extend(lines);
        Self::request_on(stream, "GET /v1/ws HTTP/1.1", &head).map(|(client, _)| client)
    }

    /// Goes on with a stream on which the handshake was done.
    pub fn opened(stream: S) -> Self {
        Self { stream, received: Vec::new() }
    }

    /// Sends a request on a stream that is open, and takes what comes.
    pub fn request_on(mut stream: S, line: &str, head: &[&str]) -> Result<(Self, String), Refused> {
        let request = format!("{line}\r\n{}\r\n\r\n", head.join("\r\n"));
        stream.write_all(request.as_bytes()).expect("the server reads");
        let mut received = Vec::new();
        let end = loop {
            if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            let mut some = [0; 1024];
            let length = stream.read(&mut some).expect("the server answers");
            assert!(length > 0, "the server ended after {:?}", String::from_utf8_lossy(&received));
            received.extend_from_slice(&some[..length]);
        };
        let rest = received.split_off(end);
        let head = String::from_utf8(received).expect("heads are ASCII");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status: u16 = status.expect("a status line");
        if status == 101 {
            return Ok((Self { stream, received: rest }, head));
        }
        let mut body = rest;
        // After a refusal the server ends the connection.
        stream.read_to_end(&mut body).expect("the server ends it in order");
        let body = String::from_utf8(body).expect("bodies are UTF-8");
        let json: Value = serde_json::from_str(&body).unwrap_or_default();
        let code = json["code"].as_str().unwrap_or_default().to_owned();
        Err(Refused { status, head, code, body })
    }

    /// Sends JSON as a text message.
    pub fn send(&mut self, frame: &Value) {
        self.send_message(TEXT, frame.to_string().as_bytes());
    }

    /// Sends a whole message.
    pub fn send_message(&mut self, opcode: u8, payload: &[u8]) {
        let mut bytes = header(opcode, payload.len() as u64);
        // Masked with zeros, the bytes stay as they are.
        bytes.extend_from_slice(payload);
        self.send_bytes(&bytes).expect("the server reads");
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Returns what comes next.
    ///
    /// # Panics
    ///
    /// When nothing comes for a long time.
    pub fn next(&mut self) -> Incoming {
        loop {
            if let Some(incoming) = self.take_frame() {
                return incoming;
            }
            let mut some = vec![0; 64 << 10];
            match self.stream.read(&mut some) {
                Ok(0) => return Incoming::End { reset: false },
                Ok(length) => self.received.extend_from_slice(&some[..length]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Incoming::End { reset: true };
                }
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// Returns the next frame of this type; frames of other types are passed over,
    /// an error is not.
    pub fn expect(&mut self, kind: &str) -> Value {
        loop {
            match self.next() {
                Incoming::Json(frame) if frame["type"] == kind => return frame,
                Incoming::Json(frame) if frame["type"] == "error" => panic!("{frame}"),
                Incoming::Json(_) | Incoming::Ping(_) | Incoming::Pong(_) => {}
                other => panic!("waited for {kind}, got {other:?}"),
            }
        }
    }

    /// Returns the Close frame's number, passing over all before it.
    pub fn expect_close(&mut self) -> u16 {
        loop {
            match self.next() {
                Incoming::Close(code) => return code,
                Incoming::End { .. } => panic!("the socket ended without a Close frame"),
                _ => {}
            }
        }
    }

    /// Returns the values of the next `count` records.
    pub fn values(&mut self, count: usize) -> Vec<Value> {
        let mut values = Vec::new();
        while values.len() < count {
            let frame = self.expect("records");
            let records = frame["records"].as_array().expect("records").clone();
            values.extend(records.into_iter().map(|record| record["value"].clone()));
        }
        values
    }

    fn take_frame(&mut self) -> Option<Incoming> {
        let &[first, second, ..] = self.received.as_slice() else { return None };
        assert_eq!(second & 0x80, 0, "servers do not mask");
        assert_eq!(first & 0xf0, 0x80, "whole messages without extension");
        let wide = |range: std::ops::Range<usize>| {
            let bytes = self.received.get(range)?;
            Some(bytes.iter().fold(0, |sum: usize, byte| sum << 8 | usize::from(*byte)))
        };
        let (start, length) = match second {
            126 => (4, wide(2..4)?),
            127 => (10, wide(2..10)?),
            length => (2, usize::from(length)),
        };
        let payload = self.received.get(start..start + length)?.to_vec();
        self.received.drain(..start + length);
        Some(match first & 0x0f {
            TEXT => Incoming::Json(serde_json::from_slice(&payload).expect("frames are JSON")),
            BINARY => Incoming::Binary(payload),
            PING => Incoming::Ping(payload),
            PONG => Incoming::Pong(payload),
            CLOSE => Incoming::Close(u16::from_be_bytes([payload[0], payload[1]])),
            other => panic!("opcode {other}"),
        })
    }
}

/// Connects, for calls that wait no longer than a test may.
pub fn dial(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect(address).expect("the listener is there"))
}

/// Connects so that the system keeps little of what is not read, and the server
/// feels it. The bound is set before: a buffer that shrinks afterwards drops what
/// it had promised to take.
pub fn dial_narrow(address: SocketAddr, buffer_bytes: usize) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(buffer_bytes).expect("a small buffer");
    socket.connect(&address.into()).expect("the listener is there");
    patient(socket.into())
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// Returns the header of a masked frame with a mask of zeros.
pub fn header(opcode: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

pub const UPGRADE: &str = "Upgrade: websocket";
pub const VERSION: &str = "Sec-WebSocket-Version: 13";
pub const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
/// How long nothing may come before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);
