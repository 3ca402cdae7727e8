//! What a worker counted, published once in a while: on the way of a record
//! only plain numbers are added.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use metrics::counter;
use metrics::gauge;
use metrics::histogram;

use crate::delivery::counts::Counts;
use crate::delivery::counts::Standing;
use crate::telemetry::metric;

/// Publishes the counts of one worker. What the worker has now is taken back
/// when it ends.
#[derive(Debug)]
pub struct Publisher {
    published_at: Instant,
    standing: Standing,
    writes: u64,
    written_bytes: u64,
    read_bytes: u64,
}

impl Default for Publisher {
    fn default() -> Self {
        Self {
            published_at: Instant::now(),
            standing: Standing::default(),
            writes: 0,
            written_bytes: 0,
            read_bytes: 0,
        }
    }
}

impl Publisher {
    /// Counts a write to a socket.
    pub fn written(&mut self, bytes: usize) {
        self.writes += 1;
        self.written_bytes += bytes as u64;
    }

    /// Counts bytes that a client sent.
    pub fn read(&mut self, bytes: usize) {
        self.read_bytes += bytes as u64;
    }

    /// Returns when to publish next.
    pub fn next_at(&self) -> Instant {
        self.published_at + PUBLISH_INTERVAL
    }

    /// Says whether it is time to publish.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next_at() <= now
    }

    /// Publishes what was counted since the last time.
    pub fn publish(&mut self, counts: Counts) {
        self.published_at = Instant::now();
        counter!(metric::SOCKET_WRITES).increment(std::mem::take(&mut self.writes));
        counter!(metric::SOCKET_WRITTEN_BYTES).increment(std::mem::take(&mut self.written_bytes));
        counter!(metric::SOCKET_READ_BYTES).increment(std::mem::take(&mut self.read_bytes));
        counter!(metric::RECORDS_MATCHED).increment(counts.records_matched);
        counter!(metric::DELIVERIES).increment(counts.deliveries);
        counter!(metric::FRAMES).increment(counts.frames);
        counter!(metric::FRAMES_ENCODED).increment(counts.frames_encoded);
        counter!(metric::FRAME_BYTES).increment(counts.bytes);
        counter!(metric::FELL_BEHIND).increment(counts.fell_behind);
        counter!(metric::BECAME_LIVE).increment(counts.became_live);
        add_each(metric::GAPS, "reason", &counts.gaps);
        add_each(metric::REFUSALS, "code", &counts.refusals);
        add_each(metric::TOKEN_REFUSALS, "reason", &counts.authentication_refusals);
        add_each(metric::CLOSES, "code", &counts.closes);
        for (millis, deliveries) in &counts.latencies {
            let seconds = Duration::from_millis(*millis).as_secs_f64();
            histogram!(metric::DELIVERY_LATENCY).record_many(seconds, *deliveries as usize);
        }
        self.stand(counts.now);
    }

    /// Moves the gauges, which all workers share, by what changed.
    fn stand(&mut self, now: Standing) {
        let before = std::mem::replace(&mut self.standing, now);
        move_gauge(metric::CONNECTIONS, before.connections, now.connections);
        move_gauge(metric::SUBSCRIPTIONS, before.subscriptions, now.subscriptions);
        move_gauge(metric::SUBSCRIPTIONS_BEHIND, before.behind, now.behind);
        move_gauge(metric::FEEDS, before.feeds, now.feeds);
        let unsent =
            |standing: Standing| usize::try_from(standing.unsent_bytes).unwrap_or(usize::MAX);
        move_gauge(metric::UNSENT_BYTES, unsent(before), unsent(now));
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stand(Standing::default());
    }
}

fn add_each(name: &'static str, label: &'static str, counts: &BTreeMap<&'static str, u64>) {
    for (value, count) in counts {
        counter!(name, label => *value).increment(*count);
    }
}

fn move_gauge(name: &'static str, before: usize, now: usize) {
    gauge!(name).increment(now as f64 - before as f64);
}

const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
