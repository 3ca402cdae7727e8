//! From words to bytes ready for the socket.

use bytes::Bytes;

use crate::protocol::frame::Encoding;
use crate::protocol::frame::ServerFrame;
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
    let _ = (frame, encoding);
    unimplemented!()
}

/// Writes one `records` frame, record by record, into one buffer.
#[derive(Debug)]
pub struct RecordsEncoder {
    encoding: Encoding,
}

impl RecordsEncoder {
    /// Begins a frame that covers `partition` from `from` on.
    pub fn start(encoding: Encoding, sub: SubId, partition: PartitionId, from: Offset) -> Self {
        let _ = (sub, partition, from);
        Self { encoding }
    }

    /// Adds a record; offsets must grow.
    pub fn push(&mut self, record: &Record<'_>) {
        let _ = record;
        unimplemented!()
    }

    /// Returns how many records the frame has.
    pub fn records(&self) -> usize {
        unimplemented!()
    }

    /// Returns how many bytes the frame has so far.
    pub fn bytes(&self) -> usize {
        unimplemented!()
    }

    /// Ends the frame, which covers all up to `to`, exclusive.
    pub fn finish(self, to: Offset) -> WireFrame {
        let _ = (to, self.encoding);
        unimplemented!()
    }
}
