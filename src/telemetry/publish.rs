//! What a worker counted, published once in a while: on the way of a record
//! only plain numbers are added.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use metrics::counter;
use metrics::gauge;

use crate::delivery::counts::Counts;
use crate::delivery::counts::Standing;
use crate::delivery::tally::Tally;
use crate::telemetry::latency;
use crate::telemetry::latency::Stage;
use crate::telemetry::metric;
use crate::types::ids::ShardId;

/// Publishes the counts of one worker. What the worker has now is taken back
/// when it ends.
#[derive(Debug)]
pub struct Publisher {
    worker: String,
    published_at: Instant,
    standing: Standing,
    tenants: BTreeMap<Label, Tally>,
    channels: BTreeMap<Label, Tally>,
    writes: u64,
    written_bytes: u64,
    read_bytes: u64,
    mail: usize,
    stall: Duration,
    stalls: u64,
}

/// A tenant or a channel; `None` stands for all without a label.
type Label = Option<Arc<str>>;

impl Publisher {
    /// Returns a publisher for the worker of a shard.
    pub fn new(shard: ShardId) -> Self {
        Self {
            worker: shard.to_string(),
            published_at: Instant::now(),
            standing: Standing::default(),
            tenants: BTreeMap::new(),
            channels: BTreeMap::new(),
            writes: 0,
            written_bytes: 0,
            read_bytes: 0,
            mail: 0,
            stall: Duration::ZERO,
            stalls: 0,
        }
    }

    /// Counts a write to a socket.
    pub fn written(&mut self, bytes: usize) {
        self.writes += 1;
        self.written_bytes += bytes as u64;
    }

    /// Counts bytes that a client sent.
    pub fn read(&mut self, bytes: usize) {
        self.read_bytes += bytes as u64;
    }

    /// Notes how many events lay in the mailbox at once.
    pub fn mail(&mut self, events: usize) {
        self.mail = self.mail.max(events);
    }

    /// Notes for how long the loop did not come round when it was due.
    pub fn late(&mut self, late: Duration) {
        self.stall = self.stall.max(late);
        self.stalls += u64::from(late > STALL_MIN);
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
    pub fn publish(&mut self, mut counts: Counts) {
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
        latency::add(Stage::Delivered, &counts.delivered);
        latency::add(Stage::Dispatched, &counts.dispatched);
        latency::add(Stage::Written, &counts.written);
        latency::add(Stage::Acknowledged, &counts.acknowledged);
        for tally in std::mem::take(&mut counts.tenants) {
            tell(&TENANT, &mut self.tenants, tally);
        }
        for tally in std::mem::take(&mut counts.channels) {
            tell(&CHANNEL, &mut self.channels, tally);
        }
        self.tell_worker(&counts.now);
        self.stand(counts.now);
    }

    /// Tells what is each worker's own.
    fn tell_worker(&mut self, now: &Standing) {
        let set = |name: &'static str, value: f64| {
            gauge!(name, "worker" => self.worker.clone()).set(value);
        };
        set(metric::WORKER_CONNECTIONS, now.connections as f64);
        set(metric::WORKER_MAIL, self.mail as f64);
        set(metric::WORKER_RUNNABLE, now.runnable as f64);
        set(metric::WORKER_UNFINISHED, now.unfinished as f64);
        set(metric::WORKER_STALL, self.stall.as_secs_f64());
        set(metric::BEHIND_RECORDS_MAX, now.lag.offsets_max as f64);
        set(metric::BEHIND_LONGEST, now.lag.longest.as_secs_f64());
        counter!(metric::WORKER_STALLS, "worker" => self.worker.clone()).increment(self.stalls);
        (self.mail, self.stall, self.stalls) = (0, Duration::ZERO, 0);
    }

    /// Moves the gauges, which all workers share, by what changed.
    fn stand(&mut self, now: Standing) {
        let before = std::mem::replace(&mut self.standing, now);
        move_gauge(metric::CONNECTIONS, before.connections, now.connections);
        move_gauge(metric::SUBSCRIPTIONS, before.subscriptions, now.subscriptions);
        move_gauge(metric::SUBSCRIPTIONS_BEHIND, before.behind, now.behind);
        move_gauge(metric::CLIENTS_BEHIND, before.lag.clients, now.lag.clients);
        move_gauge(metric::FEEDS, before.feeds, now.feeds);
        move_gauge(metric::CURSORS_WAITING, before.waiting, now.waiting);
        let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let (was, is) = (before.lag.offsets, now.lag.offsets);
        move_gauge(metric::BEHIND_RECORDS, whole(was), whole(is));
        move_gauge(metric::UNSENT_BYTES, whole(before.unsent_bytes), whole(now.unsent_bytes));
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stand(Standing::default());
        for (family, known) in [(&TENANT, &mut self.tenants), (&CHANNEL, &mut self.channels)] {
            for label in known.keys().cloned().collect::<Vec<_>>() {
                tell(family, known, Tally { label, ..Tally::default() });
            }
        }
    }
}

/// The metrics of tenants, or of channels.
struct Family {
    label: &'static str,
    connections: Option<&'static str>,
    subscriptions: &'static str,
    behind: &'static str,
    deliveries: &'static str,
    bytes: &'static str,
}

const TENANT: Family = Family {
    label: "tenant",
    connections: Some(metric::TENANT_CONNECTIONS),
    subscriptions: metric::TENANT_SUBSCRIPTIONS,
    behind: metric::TENANT_SUBSCRIPTIONS_BEHIND,
    deliveries: metric::TENANT_DELIVERIES,
    bytes: metric::TENANT_BYTES,
};

const CHANNEL: Family = Family {
    label: "channel",
    connections: None,
    subscriptions: metric::CHANNEL_SUBSCRIPTIONS,
    behind: metric::CHANNEL_SUBSCRIPTIONS_BEHIND,
    deliveries: metric::CHANNEL_DELIVERIES,
    bytes: metric::CHANNEL_BYTES,
};

/// Tells what a name has and got.
fn tell(family: &Family, known: &mut BTreeMap<Label, Tally>, now: Tally) {
    let text = now.label.as_deref().unwrap_or(OTHER).to_owned();
    let label = family.label;
    let before = known.get(&now.label).cloned().unwrap_or_default();
    let change = |name: &'static str, was: usize, is: usize| {
        gauge!(name, label => text.clone()).increment(is as f64 - was as f64);
    };
    if let Some(name) = family.connections {
        change(name, before.connections, now.connections);
    }
    change(family.subscriptions, before.subscriptions, now.subscriptions);
    change(family.behind, before.behind, now.behind);
    counter!(family.deliveries, label => text.clone()).increment(now.deliveries);
    counter!(family.bytes, label => text.clone()).increment(now.bytes);
    known.insert(now.label.clone(), now);
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
/// Lateness of a loop that counts as a stall.
const STALL_MIN: Duration = Duration::from_millis(100);
/// The label of all that have none of their own.
pub const OTHER: &str = "other";
