//! What a shard has counted since it was last asked: plain numbers, added up on
//! the hot path and published by the edge once in a while.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::delivery::tally::Tally;
use crate::protocol::close_code::CloseCode;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::GapReason;
use crate::types::latency::Latencies;

/// What happened on a shard since [`crate::delivery::shard::Shard::take_counts`]
/// was last called, and what is there now.
#[derive(Debug, Default)]
pub struct Counts {
    /// Records looked at on the live path, once each.
    pub records_matched: u64,
    /// Records put into the outboxes of connections.
    pub deliveries: u64,
    /// Frames put into the outboxes of connections.
    pub frames: u64,
    /// Frames encoded: how many of `frames` were not shared.
    pub frames_encoded: u64,
    /// Bytes put into the outboxes of connections.
    pub bytes: u64,
    /// Times that a live subscription fell behind.
    pub fell_behind: u64,
    /// Times that a subscription became live.
    pub became_live: u64,
    pub gaps: BTreeMap<&'static str, u64>,
    pub refusals: BTreeMap<&'static str, u64>,
    /// Tokens refused, by the verifier's reason.
    pub authentication_refusals: BTreeMap<&'static str, u64>,
    pub closes: BTreeMap<&'static str, u64>,
    /// From a record's timestamp to the outbox, once for each live follower.
    pub delivered: Latencies,
    /// From the arrival of a batch in memory to the turn that encodes it.
    pub dispatched: Latencies,
    /// From the first unsent record frame of a connection to its last write.
    pub written: Latencies,
    /// From a record frame on its way to its acknowledgement.
    pub acknowledged: Latencies,
    /// What each tenant has that is told apart, and all others together.
    pub tenants: Vec<Tally>,
    /// The same for channels.
    pub channels: Vec<Tally>,
    pub now: Standing,
}

/// What is there now.
#[derive(Debug, Default, Clone, Copy)]
pub struct Standing {
    pub connections: usize,
    pub subscriptions: usize,
    pub behind: usize,
    pub feeds: usize,
    pub unsent_bytes: u64,
    /// Cursors that wait for history.
    pub waiting: usize,
    /// Subscriptions that are behind and wait for their turn.
    pub runnable: usize,
    /// Partitions in which more is to be read than one turn allowed.
    pub unfinished: usize,
    pub lag: Lag,
}

/// How far those are behind who are: of the last round in which each connection
/// was looked at, which takes a second.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Connections with a subscription that is behind.
    pub clients: usize,
    /// Offsets between their cursors and the shard's, all together.
    pub offsets: u64,
    /// The same, of the subscription that is furthest behind.
    pub offsets_max: u64,
    /// How long the subscription is behind that has been so for longest.
    pub longest: Duration,
}

impl Counts {
    /// Counts a gap frame.
    pub fn gap(&mut self, reason: GapReason) {
        *self.gaps.entry(gap_name(reason)).or_default() += 1;
    }

    /// Counts an error frame.
    pub fn refusal(&mut self, code: ErrorCode) {
        *self.refusals.entry(code.name()).or_default() += 1;
    }

    /// Counts a token that was refused.
    pub fn authentication_refusal(&mut self, reason: &'static str) {
        *self.authentication_refusals.entry(reason).or_default() += 1;
    }

    /// Counts the end of a connection.
    pub fn close(&mut self, code: CloseCode) {
        *self.closes.entry(code.name()).or_default() += 1;
    }
}

/// Returns the name of a reason, as it stands on the wire and in metrics.
pub fn gap_name(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Retention => "retention",
        GapReason::Truncated => "truncated",
        GapReason::TopicRecreated => "topic_recreated",
        GapReason::Skipped => "skipped",
    }
}
