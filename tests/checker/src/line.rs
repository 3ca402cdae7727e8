//! The vocabulary of the logs: one JSON object a line.
//!
//! Moments (`at`, `from`, `to` of a window) are milliseconds of one monotonic
//! clock that all logs of a run share. Sums are [`checksum`]s.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

/// What was done to Kafka, and what it answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TruthLine {
    /// A topic exists from now on; `topic` is its id, 32 hexadecimal digits.
    Topic {
        topic: String,
        name: String,
        cleanup: Cleanup,
        /// When that was known; absent in logs of before there was a time, and of
        /// those the first bounds of the topic tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<u64>,
    },
    /// A record is acknowledged.
    Put(Put),
    /// A record may stand in the log, at an offset that nobody was told.
    Maybe(Maybe),
    /// A record with this sum stands there, of which no producer was told:
    /// somebody else than the server read the log, to find what stands in it. It
    /// is one that was never acknowledged, or a copy of one that was: a producer
    /// writes again what was not acknowledged in time.
    Found { topic: String, p: u32, o: u64, sum: u32 },
    /// A transaction ended so.
    Ended { tx: u64, how: TransactionEnd },
    /// Kafka was asked at `asked` for the bounds of a partition, and answered at
    /// `at`. `end` is the last stable offset.
    Bounds { topic: String, p: u32, start: u64, end: u64, asked: u64, at: u64 },
    /// The log of a partition ended at `end` then, below where it had been.
    Cut { topic: String, p: u32, end: u64, at: u64 },
    /// Between these moments, because of `why`, nobody could be served, or nobody by
    /// one replica.
    Excuse {
        from: u64,
        to: u64,
        why: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replica: Option<usize>,
    },
    /// From now on nothing is broken and nothing is produced.
    Over { at: u64 },
}

/// A record in the log, as a client of its tenant should see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    pub topic: String,
    pub p: u32,
    pub o: u64,
    /// As clients see it; absent where it has none. A compacted topic keeps the
    /// last record of each tenant and key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub tenant: Tenant,
    pub sum: u32,
    pub at: u64,
    /// The transaction that it stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<u64>,
}

/// A record of which its producer does not know whether or where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maybe {
    pub topic: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub tenant: Tenant,
    pub sum: u32,
    pub at: u64,
}

/// Whose a record is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tenant {
    One(String),
    /// Everybody's.
    Shared,
    /// It can't be told, so that nobody may see it.
    Nobody,
}

/// What Kafka removes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cleanup {
    Delete,
    Compact,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionEnd {
    Committed,
    Aborted,
}

/// What one client did and heard, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientLine {
    /// Who it is and what it wants; the first line.
    Client {
        name: String,
        tenant: String,
        filter: Filter,
        start: Start,
    },
    Connect {
        at: u64,
        /// By whom it is served from now on, where there are several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replica: Option<usize>,
    },
    /// It asks for the subscription.
    Ask {
        at: u64,
    },
    Subscribed {
        at: u64,
        topic: String,
        pos: BTreeMap<u32, u64>,
    },
    Records {
        at: u64,
        p: u32,
        from: u64,
        to: u64,
        /// Records of the frame, from the first on, that the client took for
        /// repeats and did not hand to its application.
        drop: usize,
        /// Offset, key and sum of each record of the frame.
        r: Vec<(u64, Option<String>, u32)>,
    },
    Progress {
        at: u64,
        to: BTreeMap<u32, u64>,
    },
    Gap {
        at: u64,
        p: u32,
        from: u64,
        to: u64,
        why: GapReason,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic: Option<String>,
    },
    Live {
        at: u64,
    },
    /// The subscription or a request was refused.
    Error {
        at: u64,
        code: String,
    },
    Closing {
        at: u64,
        code: String,
    },
    /// The connection is no more; the code of the Close frame, if there was one.
    Disconnect {
        at: u64,
        code: Option<u16>,
    },
    /// The client reads nothing, by its own choice, until it says otherwise.
    Asleep {
        at: u64,
    },
    Awake {
        at: u64,
    },
}

/// Which keys a client asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    All,
    Keys(Vec<String>),
    Prefix(String),
}

/// Where a client asked to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    Earliest,
    Latest,
}

/// Why offsets are gone, as the protocol names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    Retention,
    Truncated,
    TopicRecreated,
    Skipped,
}

impl Filter {
    /// Says whether a record with this key was asked for.
    pub fn wants(&self, key: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Keys(keys) => key.is_some_and(|key| keys.iter().any(|wanted| wanted == key)),
            Self::Prefix(prefix) => key.is_some_and(|key| key.starts_with(prefix.as_str())),
        }
    }
}

impl ClientLine {
    /// Returns when it happened; `None` for who the client is.
    pub fn at(&self) -> Option<u64> {
        match self {
            Self::Client { .. } => None,
            Self::Connect { at, .. }
            | Self::Ask { at }
            | Self::Subscribed { at, .. }
            | Self::Records { at, .. }
            | Self::Progress { at, .. }
            | Self::Gap { at, .. }
            | Self::Live { at }
            | Self::Error { at, .. }
            | Self::Closing { at, .. }
            | Self::Disconnect { at, .. }
            | Self::Asleep { at }
            | Self::Awake { at } => Some(*at),
        }
    }
}

/// Returns the sum that stands for a value; 0 is a tombstone's.
pub fn checksum(value: Option<&[u8]>) -> u32 {
    let Some(value) = value else { return TOMBSTONE };
    let hash = value.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let folded = (hash ^ (hash >> 32)) & u64::from(u32::MAX);
    u32::try_from(folded).expect("masked").max(1)
}

/// The sum of no value.
pub const TOMBSTONE: u32 = 0;
