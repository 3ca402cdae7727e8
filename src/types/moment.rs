//! A moment, told by both clocks.

use std::time::Duration;
use std::time::Instant;

use crate::types::ids::Timestamp;

/// Now, as the edge read it: the pure rooms have no clock of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// For deadlines and intervals; never jumps.
    pub instant: Instant,
    /// For tokens and times that people name; may jump.
    pub wall: Timestamp,
}

/// Returns milliseconds; as many as there can be, where there are more.
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Moment {
    /// Returns the wall time so long before this moment.
    pub fn wall_before(self, span: Duration) -> Timestamp {
        let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.wall.as_millis().saturating_sub(span))
    }
}
