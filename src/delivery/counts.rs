//! What a shard has counted since it was last asked: plain numbers, added up on
//! the hot path and published by the edge once in a while.

use std::collections::BTreeMap;

use crate::protocol::close_code::CloseCode;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::GapReason;

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
    /// Milliseconds from Kafka's append to the outbox, and how many deliveries.
    pub latencies: Vec<(u64, u32)>,
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
}

/// Latencies kept between two takings; further ones are left out.
const LATENCIES_MAX: usize = 4_096;

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

    /// Counts how long a record took to so many followers.
    pub fn latency(&mut self, millis: u64, deliveries: u32) {
        if self.latencies.len() < LATENCIES_MAX {
            self.latencies.push((millis, deliveries));
        }
    }
}

/// Returns the name of a reason, as it stands on the wire and in metrics.
fn gap_name(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Retention => "retention",
        GapReason::Truncated => "truncated",
        GapReason::TopicRecreated => "topic_recreated",
        GapReason::Skipped => "skipped",
    }
}
