//! The Kafka side under a stand-in for a shard: follows sources and reads their
//! partitions as subscriptions do.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use brucke::kafka::config::KafkaConfig;
use brucke::kafka::control;
use brucke::kafka::control::KafkaHandle;
use brucke::log::budget::Budget;
use brucke::log::partition::Cursor;
use brucke::log::partition::Read;
use brucke::log::partition::SharedPartition;
use brucke::registry::directory::Directory;
use brucke::registry::intake::Intake;
use brucke::registry::intake::IntakeSettings;
use brucke::registry::message::Bounds;
use brucke::registry::message::Command;
use brucke::registry::message::Event;
use brucke::registry::message::Lookup;
use brucke::registry::message::SourceFailure;
use brucke::registry::message::Ticket;
use brucke::tenancy::channel::SourceKey;
use brucke::tenancy::rule::TenancyRule;
use brucke::types::ids::LeaderEpoch;
use brucke::types::ids::Offset;
use brucke::types::ids::PartitionId;
use brucke::types::ids::ShardId;
use brucke::types::ids::SourceId;
use brucke::types::ids::TenantId;
use brucke::types::ids::TopicName;
use brucke::types::positions::Reached;
use brucke::types::record::Owner;
use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;

/// A running Kafka side with one shard: the test.
pub struct KafkaRig {
    pub directory: Arc<Directory>,
    pub handle: KafkaHandle,
    commands: Sender<Command>,
    woken: Receiver<()>,
    pending: Vec<Event>,
}

/// What a reader of a partition saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Record { offset: u64, tenant: Option<String>, key: Option<String>, value: Option<String> },
    Gap { from: u64, to: u64, reason: &'static str },
}

impl Seen {
    /// Returns a record that every tenant may see.
    pub fn shared(offset: u64, key: &str, value: &str) -> Self {
        let (key, value) = (Some(key.to_owned()), Some(value.to_owned()));
        Self::Record { offset, tenant: None, key, value }
    }
}

impl KafkaRig {
    /// Starts the Kafka side on a cluster.
    pub fn start(config: &KafkaConfig) -> Self {
        let settings = IntakeSettings {
            refresh_interval: Duration::from_millis(300),
            linger: Duration::from_secs(60),
            retry_interval: Duration::from_millis(200),
            history_readers: config.history_readers,
            watched: Vec::new(),
        };
        Self::start_with(config, settings, Budget::new(64 << 20, 16 << 20))
    }

    /// Starts the Kafka side with these settings.
    pub fn start_with(config: &KafkaConfig, settings: IntakeSettings, budget: Arc<Budget>) -> Self {
        let directory = Arc::new(Directory::new(1));
        let (wake, woken) = crossbeam_channel::bounded(1);
        directory.mailbox(SHARD).set_waker(move || {
            let _ = wake.try_send(());
        });
        let intake = Intake::new(settings, Arc::clone(&directory), budget);
        let (commands, inbox) = crossbeam_channel::unbounded();
        let handle = control::start(config, intake, Arc::clone(&directory), inbox);
        let handle = handle.expect("the Kafka side starts");
        Self { directory, handle, commands, woken, pending: Vec::new() }
    }

    /// Returns the number of a source.
    pub fn source(&self, topic: &str, rule: TenancyRule) -> SourceId {
        let key = SourceKey { topic: TopicName::new(topic), rule };
        self.directory.source(&key).expect("there is room")
    }

    /// Follows a source until it is read, and returns its partitions.
    pub fn follow(&mut self, source: SourceId) -> Vec<Arc<SharedPartition>> {
        self.command(Command::Follow { shard: SHARD, ticket: Ticket(7), source });
        self.wait_for("partitions", |event| match event {
            Event::Ready { source: ready, partitions, .. } if *ready == source => {
                Some(partitions.clone())
            }
            _ => None,
        })
    }

    /// Follows a source until that has failed, and returns why.
    pub fn fail_to_follow(&mut self, source: SourceId) -> SourceFailure {
        self.command(Command::Follow { shard: SHARD, ticket: Ticket(7), source });
        self.wait_for("failure", |event| match event {
            Event::Failed { source: failed, failure } if *failed == source => Some(failure.clone()),
            _ => None,
        })
    }

    /// Looks up offsets of a source that is followed.
    pub fn resolve(&mut self, source: SourceId, lookup: Lookup) -> Vec<Bounds> {
        self.resolve_with(source, lookup, Vec::new())
    }

    /// The same, and where the logs of these leaders end.
    pub fn resolve_with(
        &mut self,
        source: SourceId,
        lookup: Lookup,
        epochs: Vec<(PartitionId, LeaderEpoch)>,
    ) -> Vec<Bounds> {
        let (shard, ticket, claim) = (SHARD, Ticket(7), None);
        let tenant = TenantId::new("acme");
        let at = |epoch| Reached { epoch, to: Offset::ZERO };
        let epochs = epochs.into_iter().map(|(partition, epoch)| (partition, at(epoch))).collect();
        self.command(Command::Resolve { shard, ticket, source, lookup, claim, tenant, epochs });
        self.wait_for("offsets", |event| match event {
            Event::Resolved { result, .. } => Some(result.clone()),
            _ => None,
        })
        .expect("offsets are found")
        .into_iter()
        .map(|bounds| bounds.expect("its leader answers"))
        .collect()
    }

    pub fn command(&self, command: Command) {
        self.commands.send(command).expect("the Kafka side runs");
    }

    /// Waits for an event that `choose` wants; others that it does not want are
    /// kept for later, but for news of partitions.
    pub fn wait_for<T>(&mut self, what: &str, mut choose: impl FnMut(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.pending.extend(self.directory.mailbox(SHARD).take());
            for index in 0..self.pending.len() {
                if let Some(found) = choose(&self.pending[index]) {
                    self.pending.remove(index);
                    return found;
                }
            }
            self.pending.retain(|event| !matches!(event, Event::Advanced { .. }));
            self.sleep_until(deadline, what);
        }
    }

    /// Waits until something holds that no event tells of.
    pub fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} until {what}");
            let soon = Instant::now() + Duration::from_millis(20);
            let _ = self.woken.recv_deadline(soon);
        }
    }

    /// Reads a partition from `from` up to the offset `until`, live or back from
    /// history, and checks that all ranges join.
    pub fn read(
        &mut self,
        source: SourceId,
        partition: &Arc<SharedPartition>,
        from: u64,
        until: u64,
    ) -> Vec<Seen> {
        let mut at = Cursor { offset: offset(from), ..partition.end() };
        self.read_from(source, partition, &mut at, until)
    }

    /// Reads a partition from a cursor on, and moves it.
    pub fn read_from(
        &mut self,
        source: SourceId,
        partition: &Arc<SharedPartition>,
        at: &mut Cursor,
        until: u64,
    ) -> Vec<Seen> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while at.offset < offset(until) {
            let gap = |to: Offset, reason| Seen::Gap {
                from: at.offset.as_u64(),
                to: to.as_u64(),
                reason,
            };
            match partition.read(*at, offset(until), u64::MAX) {
                Read::Batches(batches) => {
                    for batch in batches {
                        assert!(batch.from() <= at.offset, "{:?} is a hole", batch.from());
                        assert!(batch.to() > at.offset, "{:?} is no progress", batch.to());
                        for index in batch.index_at(at.offset)..batch.len() {
                            let record = batch.record(index);
                            if record.offset < offset(until) {
                                seen.push(see(&record));
                            }
                        }
                        at.offset = batch.to().min(offset(until));
                    }
                }
                Read::AtEnd => self.sleep_until(deadline, "records"),
                Read::Missing => {
                    let (partition, offset) = (partition.id(), at.offset);
                    let tenant = TenantId::new("acme");
                    self.command(Command::Demand { source, partition, tenant, offset });
                    self.sleep_until(deadline, "history");
                }
                Read::Expired { to } => {
                    seen.push(gap(to, "retention"));
                    at.offset = to;
                }
                Read::Truncated { to } => {
                    seen.push(gap(to.offset, "truncated"));
                    *at = to;
                }
                Read::Recreated { to, .. } => {
                    seen.push(gap(to.offset, "recreated"));
                    *at = to;
                }
            }
            self.pending.extend(
                self.directory
                    .mailbox(SHARD)
                    .take()
                    .into_iter()
                    .filter(|event| !matches!(event, Event::Advanced { .. })),
            );
        }
        seen
    }

    fn sleep_until(&self, deadline: Instant, what: &str) {
        if self.woken.recv_deadline(deadline).is_err() {
            let failures = self.directory.failures();
            panic!("no {what} after {PATIENCE:?}; {failures:?}; {:?}", self.handle.status());
        }
    }
}

/// Wraps a raw offset.
pub fn offset(raw: u64) -> Offset {
    Offset::from_client(raw).expect("tests use small offsets")
}

fn see(record: &brucke::types::record::Record<'_>) -> Seen {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Seen::Record {
        offset: record.offset.as_u64(),
        tenant: match record.owner {
            Owner::Shared => None,
            Owner::Tenant(tenant) => Some(tenant.to_owned()),
        },
        key: record.key.map(text),
        value: record.value.as_bytes().map(text),
    }
}

const SHARD: ShardId = ShardId::new(0);
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);
