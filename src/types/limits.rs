//! Bounds that hold whatever the configuration says, and the defaults of those
//! that it may change. Relations between them are asserted at compile time.

use std::ops::Range;
use std::time::Duration;

/// Bytes of one frame that a client may send before it has authenticated.
pub const CLIENT_FRAME_UNAUTHENTICATED_BYTES_MAX: usize = 4 << 10;
/// Bytes of one frame that a client may send; beyond it, close code 1009.
pub const CLIENT_FRAME_BYTES_MAX: usize = 64 << 10;
/// Bytes of a token, by whichever way it comes.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Default of the subscriptions that one connection may hold.
pub const SUBSCRIPTIONS_PER_CONNECTION_MAX: u32 = 100;
/// Keys that one subscription may name.
pub const KEYS_PER_SUBSCRIPTION_MAX: usize = 1_000;
/// Bytes of one key or prefix that a subscription may name.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// Bytes of a tenant's name, in a token or on a record.
pub const TENANT_BYTES_MAX: usize = 249;
/// Bytes of a channel's name.
pub const CHANNEL_BYTES_MAX: usize = 249;
/// Channels that one configuration may have.
pub const CHANNELS_MAX: usize = 1_000;
/// Records that a `window` may allow unacknowledged.
pub const WINDOW_RECORDS_MAX: u32 = 100_000;
/// Partitions of one topic; positions that name more are refused.
pub const PARTITIONS_MAX: usize = 10_000;
/// Sources (topic and tenancy rule) that one process may read.
pub const SOURCES_MAX: usize = 100_000;

/// Bytes of records after which a `records` frame is ended. One record may be
/// larger than this by itself; it then travels in a frame of its own.
pub const RECORDS_FRAME_BYTES: usize = 64 << 10;
/// Records after which a `records` frame is ended.
pub const RECORDS_FRAME_RECORDS_MAX: usize = 1_000;

/// Milliseconds until something may be tried again where others must leave first;
/// drawn anew for each who is refused.
pub const CROWDED_MILLIS: Range<u64> = 2_000..10_000;
/// Default bytes of encoded frames one connection may have unsent. Beyond it
/// its subscriptions are behind: their cursors stay, and they read on when the
/// peer has read.
pub const UNSENT_BYTES_MAX: usize = 256 << 10;

/// Default bytes of all tails of a process.
pub const TAIL_BYTES_MAX: u64 = 256 << 20;
/// Default bytes of records read back from Kafka that a process keeps.
pub const HISTORY_BYTES_MAX: u64 = 64 << 20;
/// Bytes that one read of history brings before it is published.
pub const HISTORY_CHUNK_BYTES: usize = 1 << 20;

/// Default interval between a server's pings.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(25);
/// Default interval after which a position that moved without records is told.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

const _: () = assert!(CLIENT_FRAME_UNAUTHENTICATED_BYTES_MAX <= CLIENT_FRAME_BYTES_MAX);
const _: () = assert!(RECORDS_FRAME_BYTES < UNSENT_BYTES_MAX);
const _: () = assert!(KEY_BYTES_MAX < CLIENT_FRAME_BYTES_MAX);
