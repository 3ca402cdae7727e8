//! The mind of the Kafka side: what shards want goes in by `handle_*`, what
//! Kafka must be asked comes out by `poll_task`.
//!
//! ```text
//!             follow                described              offsets
//!   (absent) ───────► Describing ──────────────► Locating ─────────► Reading
//!                      ▲   │ failed                  │ failed           │ topic
//!                      │   ▼                         ▼                  │ made
//!                      └─ Failed ◄───────────────────┘     Locating ◄───┘ again
//! ```
//!
//! A source that nobody follows is kept for a while and then forgotten.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::log::budget::Budget;
use crate::registry::directory::Directory;
use crate::registry::history::History;
use crate::registry::history::Sweeps;
use crate::registry::message::Command;
use crate::registry::message::Event;
use crate::registry::message::Located;
use crate::registry::message::Lookup;
use crate::registry::message::ReadError;
use crate::registry::message::SourceFailure;
use crate::registry::message::Task;
use crate::registry::message::TopicDescription;
use crate::registry::source::Asker;
use crate::registry::source::Phase;
use crate::registry::source::Purpose;
use crate::registry::source::Request;
use crate::registry::source::Source;
use crate::registry::source::answer;
use crate::registry::source::is_assignment;
use crate::registry::stalls::Stalls;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SourceId;
use crate::types::ids::TopicName;
use crate::types::limits::PARTITIONS_MAX;

/// How the intake behaves.
#[derive(Debug, Clone)]
pub struct IntakeSettings {
    /// How often topics are described again, to find new partitions and topics
    /// that were made again.
    pub refresh_interval: Duration,
    /// How long a source is read on after its last follower left.
    pub linger: Duration,
    /// How long to wait before something that failed is tried again.
    pub retry_interval: Duration,
    /// How many readings of history may be under way at once.
    pub history_readers: usize,
    /// Topics that are described though nobody follows them, so that readiness
    /// can name one that is missing.
    pub watched: Vec<TopicName>,
}

/// Decides what is read from Kafka and when.
#[derive(Debug)]
pub struct Intake {
    pub(in crate::registry) settings: IntakeSettings,
    pub(in crate::registry) directory: Arc<Directory>,
    pub(in crate::registry) budget: Arc<Budget>,
    pub(in crate::registry) sources: BTreeMap<SourceId, Source>,
    pub(in crate::registry) requests: BTreeMap<u64, Request>,
    pub(in crate::registry) next_request: u64,
    pub(in crate::registry) history: History,
    pub(in crate::registry) tasks: VecDeque<Task>,
    pub(in crate::registry) retries: BTreeSet<(Instant, SourceId, PartitionId)>,
    pub(in crate::registry) refresh_at: Option<Instant>,
    pub(in crate::registry) stalls: Stalls,
    /// Topics whose description has been asked for and not come.
    pub(in crate::registry) describing: BTreeSet<TopicName>,
}

impl Intake {
    /// Returns an intake that reads nothing yet.
    pub fn new(settings: IntakeSettings, directory: Arc<Directory>, budget: Arc<Budget>) -> Self {
        let history = History::new(settings.history_readers);
        Self {
            settings,
            directory,
            budget,
            sources: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            history,
            tasks: VecDeque::new(),
            retries: BTreeSet::new(),
            refresh_at: None,
            stalls: Stalls::default(),
            describing: BTreeSet::new(),
        }
    }

    /// Takes a wish of a shard's.
    pub fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Follow { shard, ticket, source } => self.follow(shard, ticket, source),
            Command::Unfollow { shard, source } => self.unfollow(shard, source, now),
            Command::Demand { source, partition, tenant, offset } => {
                let reading = self.sources.get(&source).is_some_and(|s| s.phase == Phase::Reading);
                if reading {
                    self.history.demand(source, partition, &tenant, offset, now);
                }
            }
            Command::Resolve { shard, ticket, source, lookup, claim, tenant, epochs } => {
                let asker = Asker { shard, ticket, claim, tenant, epochs, asked_at: now };
                self.resolve(source, lookup, asker);
            }
            Command::Watch { topics } => self.watch(topics),
        }
    }

    /// Takes the answer to [`Task::Describe`] for one topic.
    pub fn handle_described(
        &mut self,
        topic: &TopicName,
        result: Result<TopicDescription, SourceFailure>,
        now: Instant,
    ) {
        self.describing.remove(topic);
        let result = result.and_then(|description| match description.partitions {
            0 => Err(SourceFailure::UnknownTopic(topic.clone())),
            count if count > PARTITIONS_MAX => {
                Err(SourceFailure::TooManyPartitions { topic: topic.clone(), count })
            }
            _ => Ok(description),
        });
        let concerned: Vec<SourceId> =
            self.sources.iter().filter(|(_, s)| s.topic == *topic).map(|(id, _)| *id).collect();
        // Of a topic that nobody wants any more nothing is wrong.
        let is_wanted = !concerned.is_empty() || self.settings.watched.contains(topic);
        let failure = result.as_ref().err().filter(|_| is_wanted);
        self.directory.set_failure(topic, failure.cloned());
        for id in &concerned {
            match &result {
                Ok(description) => self.described(*id, description),
                Err(failure) => self.not_described(*id, failure, now),
            }
        }
        for id in concerned {
            match &result {
                Ok(description) => self.believe(id, description),
                Err(failure) => self.refuse_doubted(id, failure),
            }
            let source = self.sources.get_mut(&id).expect("a description forgets no source");
            if !source.doubted_later.is_empty() {
                source.doubted.append(&mut source.doubted_later);
                self.describe([topic.clone()]);
            }
        }
    }

    /// Takes the answer to [`Task::ListOffsets`]: the bounds of each partition.
    pub fn handle_offsets(
        &mut self,
        request: u64,
        result: Result<Located, SourceFailure>,
        now: Instant,
    ) {
        let Some(asked) = self.requests.remove(&request) else { return };
        let Request { source: id, topic_id, generations, purpose } = asked;
        let source = self.sources.get_mut(&id).expect("a source is forgotten with its requests");
        if source.topic_id != topic_id {
            return self.ask_anew(id, purpose);
        }
        let result = result.and_then(|bounds| match bounds.iter().any(Option::is_some) {
            true => Ok(bounds),
            false => {
                let (topic, reason) = (source.topic.clone(), "no partition has a leader");
                Err(SourceFailure::Unreachable { topic, reason: reason.to_owned() })
            }
        });
        if let Ok(bounds) = &result {
            self.note_reached(id, &generations, bounds);
        }
        let source = self.sources.get_mut(&id).expect("it was found above");
        match (purpose, result) {
            (Purpose::Answer { lookup, to }, result) => {
                if source.locating {
                    return source.queued.entry(lookup).or_default().extend(to);
                }
                if let Ok(bounds) = &result {
                    self.apply_bounds(id, bounds);
                }
                self.answer_bounds(id, lookup, to, &result);
                self.ask_queued(id, lookup);
            }
            (Purpose::Begin { partitions }, Ok(bounds)) => self.begin(id, partitions, &bounds, now),
            (Purpose::BeginAnew { partitions }, Ok(bounds)) => {
                self.begin_anew(id, partitions, &bounds);
            }
            (Purpose::Extend { partitions }, Ok(bounds)) => self.extend(id, partitions, &bounds),
            (Purpose::Relocate { partitions }, Ok(bounds)) => {
                self.relocate(id, partitions, bounds, now);
            }
            (Purpose::Begin { .. } | Purpose::BeginAnew { .. }, Err(failure)) => {
                source.phase = Phase::Failed { retry_at: now + self.settings.retry_interval };
                self.fail(id, &failure);
            }
            (Purpose::Look, result) => {
                if let Ok(bounds) = &result {
                    self.looked(id, bounds, now);
                }
                self.look_at_next();
            }
            // The next description finds the new partitions again.
            (Purpose::Extend { .. }, Err(failure)) => self.refuse_doubted(id, &failure),
            (Purpose::Relocate { partitions }, Err(_)) => {
                self.relocate_later(id, partitions, now);
                self.end_locating(id);
                self.relocate_next(id);
            }
        }
    }

    /// Takes the news that the live reader of a partition stopped.
    pub fn handle_read_error(
        &mut self,
        id: SourceId,
        partition: PartitionId,
        error: ReadError,
        now: Instant,
    ) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        if source.phase != Phase::Reading || partition.index() >= source.partitions_live {
            return;
        }
        if let ReadError::Truncated(to) = error {
            source.diverged.insert(partition, to);
        }
        match error {
            ReadError::OutOfRange(_) | ReadError::Truncated(_) => {
                // Another reading may be about to begin: bounds that are looked up
                // beside it could be older than what it then reads, and would be
                // taken for those of a log that became shorter.
                self.tasks.retain(|task| !is_assignment(task, id, partition));
                source.relocating.insert(partition);
                source.relocating_next.insert(partition);
                self.relocate_next(id);
            }
            ReadError::Failed(_) => {
                self.retries.insert((now + self.settings.retry_interval, id, partition));
            }
        }
    }

    /// Takes the answer to [`Task::ReadHistory`]: what was inserted ends at the
    /// offset given.
    pub fn handle_history(
        &mut self,
        id: SourceId,
        partition: PartitionId,
        result: Result<Offset, ReadError>,
        now: Instant,
    ) {
        match result {
            Ok(to) => self.history.handle_read(id, partition, to),
            Err(ReadError::OutOfRange(_)) => {
                self.history.handle_failure(id, partition, None);
                // The answer notes what is gone; whoever waits then sees a gap.
                self.list_offsets(
                    id,
                    Lookup::Bounds,
                    Purpose::Answer { lookup: Lookup::Bounds, to: Vec::new() },
                );
            }
            Err(ReadError::Failed(_) | ReadError::Truncated(_)) => {
                let retry_at = now + self.settings.retry_interval;
                self.history.handle_failure(id, partition, Some(retry_at));
            }
        }
    }

    /// Takes the passing of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.history.handle_timeout(now);
        self.forget_gone_askers(now);
        while let Some(&(at, id, partition)) = self.retries.first() {
            if at > now {
                break;
            }
            self.retries.pop_first();
            self.reassign(id, partition);
        }
        let linger = self.settings.linger;
        let stale = |s: &Source| s.idle_since.is_some_and(|since| now >= since + linger);
        let idle: Vec<SourceId> =
            self.sources.iter().filter(|(_, s)| stale(s)).map(|(id, _)| *id).collect();
        for id in idle {
            self.forget(id);
        }
        let mut topics: BTreeSet<TopicName> = BTreeSet::new();
        for source in self.sources.values_mut() {
            if let Phase::Failed { retry_at } = source.phase
                && retry_at <= now
            {
                source.phase = Phase::Describing;
                topics.insert(source.topic.clone());
            }
        }
        if self.refresh_at.is_none_or(|at| at <= now) {
            self.refresh_at = Some(now + self.settings.refresh_interval);
            topics.extend(self.settings.watched.iter().cloned());
            topics.extend(self.sources.values().map(|source| source.topic.clone()));
        }
        self.describe(topics);
        self.look_at_readers(now);
    }

    /// Returns when `handle_timeout` must be called at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let failed = self.sources.values().filter_map(|source| match source.phase {
            Phase::Failed { retry_at } => Some(retry_at),
            _ => source.idle_since.map(|since| since + self.settings.linger),
        });
        let retries = self.retries.first().map(|(at, ..)| *at);
        let others = [self.refresh_at, self.history.next_deadline(), self.stalls.next_deadline()];
        failed.chain(retries).chain(others.into_iter().flatten()).min()
    }

    /// Returns how far the readings of history are, with what is wanted of at
    /// most `max` partitions.
    pub fn sweeps(&self, max: usize) -> Sweeps {
        self.history.sweeps(max)
    }

    /// Returns the next thing to ask of Kafka; call until `None`.
    pub fn poll_task(&mut self) -> Option<Task> {
        if let Some(task) = self.tasks.pop_front() {
            return Some(task);
        }
        while let Some(next) = self.history.poll() {
            let Some(source) = self.sources.get(&next.source) else {
                self.history.forget(next.source);
                continue;
            };
            let partition = &source.partitions[next.partition.index()];
            let mut from = partition.end();
            from.offset = next.from;
            // Whoever waits for what memory has was woken when it came.
            let Some(until) = partition.history_until(next.from) else {
                self.history.handle_read(next.source, next.partition, next.from.next());
                continue;
            };
            return Some(Task::ReadHistory {
                source: next.source,
                topic: source.topic.clone(),
                partition: Arc::clone(partition),
                from,
                until,
            });
        }
        None
    }

    pub(in crate::registry) fn describe(&mut self, topics: impl IntoIterator<Item = TopicName>) {
        let wanted = topics.into_iter();
        let topics: Vec<TopicName> =
            wanted.filter(|topic| self.describing.insert(topic.clone())).collect();
        if !topics.is_empty() {
            self.tasks.push_back(Task::Describe { topics });
        }
    }

    pub(in crate::registry) fn described(&mut self, id: SourceId, description: &TopicDescription) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        let partitions = description.partitions;
        if source.phase == Phase::Reading && source.topic_id == description.topic_id {
            self.confirm(id);
        }
        let source = self.sources.get_mut(&id).expect("the caller found it");
        match source.phase {
            Phase::Describing => {
                source.phase = Phase::Locating;
                let known = !source.partitions.is_empty();
                if known && source.topic_id == description.topic_id {
                    // A topic made again whose offsets could not be found at once.
                    return self.list_offsets(
                        id,
                        Lookup::Bounds,
                        Purpose::BeginAnew { partitions },
                    );
                }
                if known {
                    return self.recreate(id, description);
                }
                source.topic_id = description.topic_id;
                self.list_offsets(id, Lookup::Bounds, Purpose::Begin { partitions });
            }
            Phase::Reading if source.topic_id != description.topic_id => {
                self.recreate(id, description);
            }
            Phase::Reading if partitions > source.partitions_live => {
                self.list_offsets(id, Lookup::Bounds, Purpose::Extend { partitions });
            }
            Phase::Reading | Phase::Locating | Phase::Failed { .. } => {}
        }
    }

    pub(in crate::registry) fn not_described(
        &mut self,
        id: SourceId,
        failure: &SourceFailure,
        now: Instant,
    ) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        // What is being read goes on being read: a topic that is gone for now
        // is seen by its readers, and by its id when it is back.
        if source.phase == Phase::Describing {
            source.phase = Phase::Failed { retry_at: now + self.settings.retry_interval };
            self.fail(id, failure);
        }
    }

    /// Tells all who wait for a source that it can't be read now.
    pub(in crate::registry) fn fail(&mut self, id: SourceId, failure: &SourceFailure) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        self.directory.set_failure(&source.topic, Some(failure.clone()));
        let queued = std::mem::take(&mut source.queued);
        let doubted = [&mut source.doubted, &mut source.doubted_later].map(std::mem::take);
        for shard in source.followers.keys() {
            let failure = failure.clone();
            self.directory.mailbox(*shard).post(Event::Failed { source: id, failure });
        }
        let askers = queued.into_values().flatten();
        let askers: Vec<Asker> =
            askers.chain(doubted.into_iter().flatten().map(|(_, a)| a)).collect();
        answer(&self.directory, &askers, &Err(failure.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::log::partition::Cursor;
    use crate::log::partition::Generation;
    use crate::log::partition::Read;
    use crate::log::partition::SharedPartition;
    use crate::registry::message::Bounds;
    use crate::registry::message::Claim;
    use crate::registry::message::EpochEnd;
    use crate::registry::message::ListOffsets;
    use crate::registry::message::Through;
    use crate::registry::message::Ticket;
    use crate::registry::questions::ASKED_FOR_MAX;
    use crate::tenancy::channel::SourceKey;
    use crate::tenancy::rule::TenancyRule;
    use crate::types::ids::LeaderEpoch;
    use crate::types::ids::ShardId;
    use crate::types::ids::TenantId;
    use crate::types::ids::TopicId;
    use crate::types::positions::Reached;

    /// An intake that reads a topic of one partition up to offset 10.
    struct Rig {
        intake: Intake,
        source: SourceId,
        partition: Arc<SharedPartition>,
        now: Instant,
    }

    impl Rig {
        fn start() -> Self {
            let directory = Arc::new(Directory::new(2));
            let settings = IntakeSettings {
                refresh_interval: Duration::from_secs(2),
                linger: Duration::from_secs(60),
                retry_interval: Duration::from_secs(1),
                history_readers: 1,
                watched: Vec::new(),
            };
            let budget = Budget::new(1 << 20, 1 << 20);
            let key = SourceKey { topic: TopicName::new("t"), rule: TenancyRule::Shared };
            let source = directory.source(&key).expect("there is room");
            let intake = Intake::new(settings, Arc::clone(&directory), budget);
            let partition = SharedPartition::new(
                PartitionId::from_index(0),
                id(1),
                Offset::ZERO,
                Offset::ZERO,
                &Budget::new(1, 1),
            );
            let mut rig = Self { intake, source, partition, now: Instant::now() };
            let shard = ShardId::new(0);
            rig.intake
                .handle_command(Command::Follow { shard, ticket: Ticket(0), source }, rig.now);
            rig.describe(1);
            rig.offsets(10);
            let Some(Task::Assign { partition, .. }) = rig.intake.poll_task() else {
                panic!("nothing is read");
            };
            rig.partition = partition;
            rig
        }

        fn next(&mut self) -> Option<Task> {
            self.intake.poll_task()
        }

        /// Answers the description that is asked for.
        fn describe(&mut self, topic_id: i64) {
            let task = self.next();
            assert!(matches!(task, Some(Task::Describe { .. })), "{task:?}");
            let description = TopicDescription { topic_id: id(topic_id), partitions: 1 };
            self.intake.handle_described(&TopicName::new("t"), Ok(description), self.now);
        }

        /// Answers the offsets that are asked for.
        fn offsets(&mut self, end: i64) {
            let Some(Task::ListOffsets(ListOffsets { request, .. })) = self.next() else {
                panic!("no offsets are asked for");
            };
            let end = Offset::from_kafka(end).expect("not negative");
            let bounds = vec![Some(Bounds { end, at_timestamp: end, ..Bounds::default() })];
            self.intake.handle_offsets(request, Ok(bounds), self.now);
        }

        /// The reader finds that offset 10 is beyond the end, which is 3.
        fn find_shorter(&mut self) {
            let error = ReadError::OutOfRange(self.partition.end().offset);
            self.intake.handle_read_error(self.source, self.partition.id(), error, self.now);
            self.offsets(3);
        }

        fn read(&self, at: Cursor) -> Read {
            self.partition.read(at, Offset::MAX, 1)
        }
    }

    fn id(raw: i64) -> TopicId {
        TopicId::from_kafka(0, raw)
    }

    #[test]
    fn a_log_that_became_shorter_is_told_once_its_topic_is_known_to_be_the_same() {
        let mut rig = Rig::start();
        let at = rig.partition.end();
        rig.find_shorter();
        assert!(matches!(rig.read(at), Read::AtEnd), "nothing is said yet");
        rig.describe(1);
        let Read::Truncated { to } = rig.read(at) else { panic!("{:?}", rig.read(at)) };
        assert_eq!(to.offset.as_u64(), 3);
        assert_eq!(rig.partition.end(), to);
        assert!(matches!(rig.next(), Some(Task::Assign { .. })), "it is read on from there");
    }

    #[test]
    fn a_topic_that_is_watched_no_longer_is_no_failure() {
        let mut rig = Rig::start();
        let failures = |rig: &Rig| rig.intake.directory.failures().len();
        let missing = TopicName::new("missing");
        let fail = |rig: &mut Rig| {
            let failure = SourceFailure::UnknownTopic(missing.clone());
            rig.intake.handle_described(&missing, Err(failure), rig.now);
        };
        rig.intake.handle_command(Command::Watch { topics: vec![missing.clone()] }, rig.now);
        assert!(
            matches!(rig.next(), Some(Task::Describe { topics }) if topics == [missing.clone()])
        );
        fail(&mut rig);
        assert_eq!(failures(&rig), 1);
        rig.intake.handle_command(Command::Watch { topics: Vec::new() }, rig.now);
        assert_eq!(failures(&rig), 0);
        // An answer that was on its way.
        fail(&mut rig);
        assert_eq!(failures(&rig), 0);
    }

    #[test]
    fn a_topic_that_was_made_again_is_never_taken_for_one_that_became_shorter() {
        let mut rig = Rig::start();
        let at = rig.partition.end();
        rig.find_shorter();
        rig.describe(2);
        assert!(matches!(rig.read(at), Read::Recreated { topic_id, .. } if topic_id == id(2)));
    }

    #[test]
    fn a_log_that_was_cut_off_and_has_grown_since_is_told_as_shorter() {
        let mut rig = Rig::start();
        let at = rig.partition.end();
        let to = Offset::from_kafka(7).expect("not negative");
        let error = ReadError::Truncated(to);
        rig.intake.handle_read_error(rig.source, rig.partition.id(), error, rig.now);
        rig.offsets(25);
        rig.describe(1);
        assert!(matches!(rig.read(at), Read::Truncated { to: end } if end.offset == to));
        assert_eq!(rig.partition.end().offset, to, "what it has now is read from there");
    }

    #[test]
    fn no_reading_begins_beside_bounds_that_are_looked_up_for_it() {
        let mut rig = Rig::start();
        let (source, id, now) = (rig.source, rig.partition.id(), rig.now);
        let expired = ReadError::OutOfRange(Offset::ZERO);
        rig.intake.handle_history(source, id, Err(expired.clone()), now);
        let Some(Task::ListOffsets(ListOffsets { request, .. })) = rig.next() else {
            panic!("no bounds")
        };
        let at = Offset::from_kafka(12).expect("not negative");
        let bounds = Bounds { start: at, end: at, at_timestamp: at, ..Bounds::default() };
        rig.intake.handle_offsets(request, Ok(vec![Some(bounds)]), now);
        // What these bounds want to be read is not begun yet.
        rig.intake.handle_read_error(source, id, expired, now);
        assert!(matches!(rig.next(), Some(Task::ListOffsets(_))));
        let task = rig.next();
        assert!(task.is_none(), "{task:?}");
    }

    #[test]
    fn a_description_older_than_the_bounds_proves_nothing() {
        let mut rig = Rig::start();
        let at = rig.partition.end();
        rig.intake.handle_timeout(rig.now);
        let asked = rig.next();
        assert!(matches!(asked, Some(Task::Describe { .. })), "{asked:?}");
        rig.find_shorter();
        assert!(rig.next().is_none(), "one description is under way");
        let description = TopicDescription { topic_id: id(1), partitions: 1 };
        rig.intake.handle_described(&TopicName::new("t"), Ok(description), rig.now);
        assert!(matches!(rig.read(at), Read::AtEnd), "nothing is said yet");
        rig.describe(2);
        assert!(matches!(rig.read(at), Read::Recreated { .. }));
    }

    #[test]
    fn a_partition_without_a_leader_waits_while_others_are_read() {
        let mut rig = Rig::start();
        rig.intake.refresh_at = Some(rig.now + Duration::from_secs(3_600));
        let key = SourceKey { topic: TopicName::new("u"), rule: TenancyRule::Shared };
        let source = rig.intake.directory.source(&key).expect("there is room");
        let shard = ShardId::new(0);
        rig.intake.handle_command(Command::Follow { shard, ticket: Ticket(0), source }, rig.now);
        let described = |rig: &mut Rig| {
            assert!(matches!(rig.next(), Some(Task::Describe { .. })));
            let description = TopicDescription { topic_id: id(2), partitions: 2 };
            rig.intake.handle_described(&TopicName::new("u"), Ok(description), rig.now);
        };
        let located = |rig: &mut Rig, end: Option<i64>| {
            let Some(Task::ListOffsets(ListOffsets { request, .. })) = rig.next() else {
                panic!("no offsets are asked for");
            };
            let bounds = |end| {
                let end = Offset::from_kafka(end).expect("not negative");
                Bounds { start: Offset::ZERO.next(), end, at_timestamp: end, ..Bounds::default() }
            };
            let found = vec![Some(bounds(10)), end.map(bounds)];
            rig.intake.handle_offsets(request, Ok(found), rig.now);
        };
        let assigned = |rig: &mut Rig| match rig.next() {
            Some(Task::Assign { partition, .. }) => partition,
            task => panic!("{task:?}"),
        };
        described(&mut rig);
        located(&mut rig, None);
        assert_eq!(assigned(&mut rig).id(), PartitionId::from_index(0));
        assert!(rig.next().is_none(), "nobody reads what has no leader");
        let known = rig.intake.directory.partitions()[&source].clone();
        assert!(!known[1].is_located(Generation::default()));
        let at = |offset| Cursor {
            generation: Generation::default(),
            offset: Offset::from_kafka(offset).expect("not negative"),
        };
        assert!(matches!(known[1].read(at(500), Offset::MAX, 1), Read::AtEnd));

        for end in [None, Some(300)] {
            rig.now += rig.intake.settings.retry_interval;
            rig.intake.handle_timeout(rig.now);
            located(&mut rig, end);
        }
        described(&mut rig);
        assert_eq!(assigned(&mut rig).id(), PartitionId::from_index(1));
        assert!(known[1].is_located(known[1].end().generation));
        let goes_on = |from| match known[1].read(at(from), Offset::MAX, 1) {
            Read::Truncated { to } => to.offset,
            read => panic!("{read:?}"),
        };
        assert_eq!(goes_on(500), at(300).offset, "who stood above its end is told");
        assert_eq!(goes_on(200), at(200).offset, "who stood below loses nothing");
        assert_eq!(known[1].start(), Offset::ZERO.next());
    }

    #[test]
    fn who_follows_while_a_topic_made_again_fails_hears_when_it_is_read() {
        let mut rig = Rig::start();
        rig.intake.handle_timeout(rig.now);
        rig.describe(2);
        rig.intake.poll_task();
        let Some(Task::ListOffsets(ListOffsets { request, .. })) = rig.next() else {
            panic!("no offsets")
        };
        let failure = SourceFailure::UnknownTopic(TopicName::new("t"));
        rig.intake.handle_offsets(request, Err(failure), rig.now);
        let (shard, source) = (ShardId::new(1), rig.source);
        rig.intake.handle_command(Command::Follow { shard, ticket: Ticket(0), source }, rig.now);
        rig.describe(2);
        rig.offsets(4);
        let heard = rig.intake.directory.mailbox(shard).take();
        assert!(heard.iter().any(|event| matches!(event, Event::Ready { .. })), "{heard:?}");
    }

    /// Answers the next look at the reader with this end of the log.
    fn look(rig: &mut Rig, end: i64) {
        rig.now += Duration::from_secs(4);
        rig.intake.handle_timeout(rig.now);
        while let Some(task) = rig.next() {
            if let Task::ListOffsets(ListOffsets { request, .. }) = task {
                let end = Offset::from_kafka(end).expect("not negative");
                let bounds = Bounds { end, at_timestamp: end, ..Bounds::default() };
                rig.intake.handle_offsets(request, Ok(vec![Some(bounds)]), rig.now);
                return;
            }
        }
    }

    fn is_read_through_another(rig: &mut Rig) -> bool {
        let through = |task| match task {
            Task::Assign { through, .. } => through == Through::Another,
            _ => false,
        };
        std::iter::from_fn(|| rig.next()).any(through)
    }

    #[test]
    fn a_reader_that_brings_nothing_is_replaced_once_there_surely_is_more() {
        for end in [11, 9] {
            let mut rig = Rig::start();
            for at in [10, 10, 10, end] {
                look(&mut rig, at);
                assert!(!is_read_through_another(&mut rig), "it may have come just now");
            }
            look(&mut rig, end);
            assert!(is_read_through_another(&mut rig), "the log ends at {end}");
            look(&mut rig, end);
            assert!(!is_read_through_another(&mut rig), "the new one has its time");
        }
    }

    #[test]
    fn a_reader_that_brings_something_is_let_alone() {
        let mut rig = Rig::start();
        for _ in 0..6 {
            let end = rig.partition.end();
            let mut batch = crate::log::batch::BatchBuilder::new(end.offset);
            batch.skip_to(end.offset.next());
            rig.partition.append(end.generation, batch.finish());
            look(&mut rig, 1_000);
            assert!(!is_read_through_another(&mut rig));
        }
    }

    /// Asks where a leader's log ends, as a client at this place of it does.
    fn ask_epoch(rig: &mut Rig, tenant: &str, ticket: u64, epoch: i32) {
        let claim = Some(Claim { topic_id: id(1), partitions: 1 });
        let epoch = LeaderEpoch::from_kafka(epoch).expect("not negative");
        let command = Command::Resolve {
            shard: ShardId::new(0),
            ticket: Ticket(ticket),
            source: rig.source,
            lookup: Lookup::Bounds,
            claim,
            tenant: TenantId::new(tenant),
            epochs: vec![(rig.partition.id(), Reached { epoch, to: rig.partition.end().offset })],
        };
        rig.intake.handle_command(command, rig.now);
    }

    /// Answers the question that is asked: each leader's log ends there, but for those
    /// above 100, who never led. Returns for how many it was asked.
    fn answer_epochs(rig: &mut Rig, end: i64) -> usize {
        let Some(Task::ListOffsets(ListOffsets { request, epochs, .. })) = rig.next() else {
            panic!("nothing is asked");
        };
        let end = Offset::from_kafka(end).expect("not negative");
        let ends = epochs.iter().map(|(_, epoch)| match epoch.as_u32() {
            ..=100 => (*epoch, EpochEnd::At(end)),
            _ => (*epoch, EpochEnd::Unknown),
        });
        let bounds =
            Bounds { end, at_timestamp: end, epoch_ends: ends.collect(), ..Bounds::default() };
        rig.intake.handle_offsets(request, Ok(vec![Some(bounds)]), rig.now);
        epochs.len()
    }

    /// Returns which tickets have been answered since.
    fn resolved(rig: &Rig) -> Vec<u64> {
        let heard = rig.intake.directory.mailbox(ShardId::new(0)).take();
        let ticket = |event| match event {
            Event::Resolved { ticket, .. } => Some(ticket.0),
            _ => None,
        };
        heard.into_iter().filter_map(ticket).collect()
    }

    #[test]
    fn many_leaders_are_asked_about_by_and_by() {
        let mut rig = Rig::start();
        // One under way keeps the others together.
        ask_epoch(&mut rig, "many", 0, 0);
        for ticket in 1..=12 {
            let epoch = i32::try_from(ticket / 2).expect("small");
            ask_epoch(&mut rig, "many", ticket, epoch);
        }
        ask_epoch(&mut rig, "one", 13, 50);
        let mut asked = vec![answer_epochs(&mut rig, 10), answer_epochs(&mut rig, 10)];
        let first = resolved(&rig);
        assert!(first.contains(&13), "the other tenant's is among the first: {first:?}");
        while asked.iter().sum::<usize>() < 9 {
            asked.push(answer_epochs(&mut rig, 10));
        }
        assert_eq!(asked, [1, 4, 4], "four at once, each once");
        assert!(rig.next().is_none());
        assert_eq!(first.len() + resolved(&rig).len(), 14, "everybody is answered");
    }

    #[test]
    fn who_has_waited_for_too_long_is_asked_for_no_more() {
        let mut rig = Rig::start();
        for ticket in 0..=8 {
            ask_epoch(&mut rig, "acme", ticket, i32::try_from(ticket).expect("small"));
        }
        rig.now += ASKED_FOR_MAX;
        rig.intake.handle_timeout(rig.now);
        let asked = rig.next();
        assert!(matches!(asked, Some(Task::ListOffsets(_))), "one was under way: {asked:?}");
        let waiting = rig.intake.sources[&rig.source].queued.values().flatten().count();
        assert_eq!(waiting, 0);
    }

    #[test]
    fn a_leader_that_there_never_was_may_be_of_a_topic_that_was_made_again() {
        let mut rig = Rig::start();
        // So may one whose log now ends below what was read of it.
        for (ticket, epoch, end) in [(1, 101, 10), (2, 5, 9)] {
            ask_epoch(&mut rig, "acme", ticket, epoch);
            answer_epochs(&mut rig, end);
            assert!(resolved(&rig).is_empty(), "the topic is looked at first");
            rig.describe(1);
            answer_epochs(&mut rig, end);
            assert_eq!(resolved(&rig), [ticket], "it is the same topic");
        }
        ask_epoch(&mut rig, "acme", 3, 101);
        answer_epochs(&mut rig, 10);
        rig.describe(2);
        let at = rig.partition.end();
        assert_eq!((rig.partition.topic_id(), at.offset), (id(2), Offset::ZERO));
    }
}
