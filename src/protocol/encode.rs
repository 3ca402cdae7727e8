//! From words to bytes ready for the socket.

use bytes::Bytes;

use crate::protocol::frame::Encoding;
use crate::protocol::frame::ServerFrame;
use crate::protocol::json;
use crate::protocol::protobuf;
use crate::protocol::websocket::write::HEADER_BYTES_MAX;
use crate::protocol::websocket::write::MessageKind;
use crate::protocol::websocket::write::seal;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SubId;
use crate::types::record::Record;

/// One whole WebSocket message of the server's, header and all, ready for the
/// socket and shared by everybody who gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireFrame(Bytes);

impl WireFrame {
    /// Wraps bytes that are a whole WebSocket frame.
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Returns the bytes for the socket.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

/// Returns `frame`, encoded and framed.
pub fn encode(frame: &ServerFrame, encoding: Encoding) -> WireFrame {
    let mut out = Vec::with_capacity(256);
    out.resize(HEADER_BYTES_MAX, 0);
    match encoding {
        Encoding::Json => {
            json::server::write(&mut out, frame);
            seal(out, HEADER_BYTES_MAX, MessageKind::Text)
        }
        Encoding::Protobuf => {
            protobuf::server::write(&mut out, frame);
            seal(out, HEADER_BYTES_MAX, MessageKind::Binary)
        }
    }
}

/// Writes one `records` frame, record by record, into one buffer that becomes
/// the wire frame as it is.
#[derive(Debug)]
pub struct RecordsEncoder {
    encoding: Encoding,
    /// Room for the headers, then what is written so far.
    out: Vec<u8>,
    records: usize,
}

impl RecordsEncoder {
    /// Begins a frame that covers `partition` from `from` on.
    pub fn start(encoding: Encoding, sub: SubId, partition: PartitionId, from: Offset) -> Self {
        let mut out = Vec::with_capacity(512);
        match encoding {
            Encoding::Json => {
                out.resize(HEADER_BYTES_MAX, 0);
                json::records::start(&mut out, sub, partition, from);
            }
            Encoding::Protobuf => {
                out.resize(protobuf::records::ROOM_BYTES, 0);
                protobuf::records::start(&mut out, sub, partition, from);
            }
        }
        Self { encoding, out, records: 0 }
    }

    /// Adds a record; offsets must grow.
    pub fn push(&mut self, record: &Record<'_>) {
        self.records += 1;
        match self.encoding {
            Encoding::Json => json::records::push(&mut self.out, record),
            Encoding::Protobuf => protobuf::records::push(&mut self.out, record),
        }
    }

    /// Returns how many records the frame has.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Returns how many bytes the frame has so far, a few for its headers
    /// included.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Ends the frame, which covers all up to `to`, exclusive.
    pub fn finish(mut self, to: Offset) -> WireFrame {
        match self.encoding {
            Encoding::Json => {
                json::records::finish(&mut self.out, to);
                seal(self.out, HEADER_BYTES_MAX, MessageKind::Text)
            }
            Encoding::Protobuf => {
                let start = protobuf::records::finish(&mut self.out, to);
                seal(self.out, start, MessageKind::Binary)
            }
        }
    }
}
