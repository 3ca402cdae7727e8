//! What a client hears, `records` included, owned by whoever read it.

use bytes::Bytes;

use crate::protocol::frame::ServerFrame;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SubId;
use crate::types::ids::Timestamp;
use crate::types::positions::Reached;

/// What the server says, as a client reads it.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerMessage {
    /// Anything but records.
    Frame(ServerFrame),
    Records(Records),
}

/// All that matches in `[from, to)` of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    pub sub: SubId,
    pub partition: PartitionId,
    pub from: Offset,
    pub to: Offset,
    /// In which leader's log stood what was read, where that is known.
    pub epoch: Option<Reached>,
    pub records: Vec<OwnedRecord>,
}

/// One record, as a client reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    pub offset: Offset,
    /// `None` where Kafka has none.
    pub timestamp: Option<Timestamp>,
    pub key: Option<Bytes>,
    /// `None` for a tombstone. JSON comes as its own bytes, unparsed.
    pub value: Option<Bytes>,
    /// In the order of the record, but for JSON, which groups equal names.
    pub headers: Vec<(String, Option<Bytes>)>,
}
