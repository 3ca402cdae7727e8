//! The one clock of a run.

use std::time::Duration;
use std::time::Instant;

/// Milliseconds since the run began. Copies show the same time.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts a clock at 0.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).expect("a run is short")
    }

    /// Returns how long ago a moment was.
    pub fn since(&self, at: u64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(at))
    }
}
