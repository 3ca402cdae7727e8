//! What an operator may change about delivery.

use std::time::Duration;

use crate::types::limits;

/// When a frame of records is full. A record that is larger is a frame of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    pub bytes: usize,
    pub records: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { bytes: limits::RECORDS_FRAME_BYTES, records: limits::RECORDS_FRAME_RECORDS_MAX }
    }
}

/// Limits and intervals of every connection.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Time from the handshake until a token must have arrived.
    pub authentication_timeout: Duration,
    /// Bytes of encoded frames that may be unsent before a connection's
    /// subscriptions are behind.
    pub unsent_bytes_max: usize,
    pub frame: FrameLimits,
    /// How long a peer may read nothing at all of what waits for it.
    pub stuck_reader_timeout: Duration,
    /// Silence after which the server sends a ping.
    pub heartbeat_interval: Duration,
    /// How long the answer to a ping may take.
    pub pong_timeout: Duration,
    /// How often a position that moved without records is told.
    pub progress_interval: Duration,
    /// Subscriptions that one connection may hold.
    pub subscriptions_per_connection_max: u32,
    /// Connections that one shard may hold.
    pub connections_max: usize,
    /// Frames that a client may send each second, on average.
    pub frames_per_second: u32,
    /// Frames that a client may send at once.
    pub frames_burst: u32,
    /// How long before a token's end its client is warned.
    pub expiry_warning: Duration,
    /// How long finding the start of a subscription may take.
    pub start_timeout: Duration,
    /// How long a peer has to read what is left and answer a Close frame.
    pub close_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            authentication_timeout: Duration::from_secs(5),
            unsent_bytes_max: limits::UNSENT_BYTES_MAX,
            frame: FrameLimits::default(),
            stuck_reader_timeout: Duration::from_secs(120),
            heartbeat_interval: limits::HEARTBEAT_INTERVAL,
            pong_timeout: Duration::from_secs(60),
            progress_interval: limits::PROGRESS_INTERVAL,
            subscriptions_per_connection_max: limits::SUBSCRIPTIONS_PER_CONNECTION_MAX,
            connections_max: 1_000_000,
            frames_per_second: 50,
            frames_burst: 200,
            expiry_warning: Duration::from_secs(30),
            start_timeout: Duration::from_secs(15),
            close_timeout: Duration::from_secs(5),
        }
    }
}
