//! The Kafka side of one replica: the real intake, and in place of threads and
//! librdkafka an executor of its tasks that asks the fake Kafka, late and in any
//! order, as the real one may.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;
use std::time::Instant;

use brucke::log::batch::Batch;
use brucke::log::batch::BatchBuilder;
use brucke::log::partition::Added;
use brucke::log::partition::Cursor;
use brucke::log::partition::SharedPartition;
use brucke::registry::directory::Directory;
use brucke::registry::intake::Intake;
use brucke::registry::message::Bounds;
use brucke::registry::message::Command;
use brucke::registry::message::EpochEnd;
use brucke::registry::message::ListOffsets;
use brucke::registry::message::Located;
use brucke::registry::message::Lookup;
use brucke::registry::message::ReadError;
use brucke::registry::message::SourceFailure;
use brucke::registry::message::Task;
use brucke::registry::message::Through;
use brucke::registry::message::TopicDescription;
use brucke::types::ids::LeaderEpoch;
use brucke::types::ids::Offset;
use brucke::types::ids::PartitionId;
use brucke::types::ids::SourceId;
use brucke::types::ids::TopicId;
use brucke::types::ids::TopicName;
use brucke::types::positions::Reached;
use brucke::types::record::Owner;
use brucke::types::record::RawRecord;

use crate::kafka::Kafka;
use crate::kafka::Refusal;
use crate::ledger::offset;
use crate::partition::Content;
use crate::partition::Fetched;
use crate::trace::say;

/// One replica's Kafka side.
#[derive(Debug)]
pub(crate) struct Room {
    intake: Intake,
    directory: Arc<Directory>,
    pub(crate) commands: VecDeque<Command>,
    /// Questions to Kafka, and when they reach it.
    jobs: Vec<(Instant, Job)>,
    /// History that Kafka gave, and when it is put into the log.
    brought: Vec<(Instant, Chunk, Result<Batch, ReadError>)>,
    /// Answers, and when they reach the intake.
    answers: Vec<(Instant, Answer)>,
    /// What the live reader is told, in order.
    orders: VecDeque<(Instant, Order)>,
    readers: BTreeMap<Place, Reader>,
    /// Partitions whose reader waits at a broker that leads them no more.
    deaf: BTreeSet<Place>,
    /// The assignments in force: what an earlier one reports is out of date.
    in_force: BTreeMap<Place, u64>,
    assignments: u64,
    partitions: Vec<Weak<SharedPartition>>,
    history_readers: usize,
    batch_records_max: usize,
}

type Place = (SourceId, PartitionId);

#[derive(Debug)]
enum Job {
    Describe(TopicName),
    ListOffsets(ListOffsets),
    ReadHistory(Chunk),
}

#[derive(Debug)]
struct Chunk {
    source: SourceId,
    topic: TopicName,
    partition: Arc<SharedPartition>,
    from: Cursor,
    until: Offset,
}

#[derive(Debug)]
enum Answer {
    Described(TopicName, Result<TopicDescription, SourceFailure>),
    Offsets(u64, Result<Located, SourceFailure>),
    Stopped(Place, u64, ReadError),
    History(Place, Result<Offset, ReadError>),
}

#[derive(Debug)]
enum Order {
    Assign(Place, Reader),
    Unassign(Place),
}

/// A partition that is followed live.
#[derive(Debug)]
struct Reader {
    assignment: u64,
    topic: TopicName,
    partition: Arc<SharedPartition>,
    at: Cursor,
    through: Through,
}

impl Room {
    pub(crate) fn new(
        intake: Intake,
        directory: Arc<Directory>,
        history_readers: usize,
        batch_records_max: usize,
    ) -> Self {
        Self {
            intake,
            directory,
            commands: VecDeque::new(),
            jobs: Vec::new(),
            brought: Vec::new(),
            answers: Vec::new(),
            orders: VecDeque::new(),
            readers: BTreeMap::new(),
            deaf: BTreeSet::new(),
            in_force: BTreeMap::new(),
            assignments: 0,
            partitions: Vec::new(),
            history_readers,
            batch_records_max,
        }
    }

    /// Does what is due, some of it.
    pub(crate) fn step(&mut self, kafka: &Kafka, now: Instant, rng: &mut fastrand::Rng) {
        while let Some(command) = self.commands.pop_front() {
            say(|| format!("  {command:?}"));
            self.intake.handle_command(command, now);
        }
        for (_, answer) in take_due(&mut self.answers, now) {
            self.answer(answer, now);
        }
        if self.intake.next_deadline().is_none_or(|deadline| deadline <= now) {
            self.intake.handle_timeout(now);
        }
        self.take_tasks(now, rng);
        while self.orders.front().is_some_and(|(due, _)| *due <= now) {
            match self.orders.pop_front() {
                Some((_, Order::Assign(place, mut reader))) => {
                    reader.at = reader.partition.end();
                    if reader.through == Through::Another {
                        self.deaf.remove(&place);
                    }
                    drop(self.readers.insert(place, reader));
                }
                Some((_, Order::Unassign(place))) => drop(self.readers.remove(&place)),
                None => {}
            }
        }
        for (_, job) in take_due(&mut self.jobs, now) {
            self.ask(kafka, job, now, rng);
        }
        for (chunk, batch) in take_brought(&mut self.brought, now) {
            let place = (chunk.source, chunk.partition.id());
            let answer = Answer::History(place, self.insert_history(&chunk, batch));
            self.answers.push((now + delay(rng), answer));
        }
        for place in self.readers.keys().copied().collect::<Vec<_>>() {
            if rng.u8(0..4) > 0 {
                self.fetch(kafka, place, now, rng);
            }
        }
    }

    /// Says whether this replica knows that a partition now ends at `end`: no
    /// reader stands beyond, no older answer is on its way, and nobody waits to
    /// hear where it ends at all.
    pub(crate) fn has_noticed(&self, topic_id: TopicId, partition: PartitionId, end: u64) -> bool {
        let mut known = self.partitions.iter().filter_map(Weak::upgrade);
        let directory = self.directory.partitions();
        let mut unlocated =
            directory.values().flatten().filter(|log| !log.is_located(log.end().generation));
        if unlocated.any(|log| (log.topic_id(), log.id()) == (topic_id, partition)) {
            return false;
        }
        let asking = self.answers.iter().any(|(_, answer)| matches!(answer, Answer::Offsets(..)));
        !asking
            && known.all(|log| {
                log.topic_id() != topic_id
                    || log.id() != partition
                    || log.end().offset.as_u64() <= end
            })
    }

    fn take_tasks(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        while let Some(task) = self.intake.poll_task() {
            say(|| format!("  {}", words(&task)));
            match task {
                Task::Describe { topics } => {
                    for topic in topics {
                        self.jobs.push((now + delay(rng), Job::Describe(topic)));
                    }
                }
                Task::ListOffsets(question) => {
                    self.jobs.push((now + delay(rng), Job::ListOffsets(question)));
                }
                Task::ReadHistory { source, topic, partition, from, until } => {
                    let chunk = Chunk { source, topic, partition, from, until };
                    self.jobs.push((now + delay(rng), Job::ReadHistory(chunk)));
                }
                Task::Assign { source, topic, partition, through } => {
                    self.assignments += 1;
                    let place = (source, partition.id());
                    self.in_force.insert(place, self.assignments);
                    self.partitions.retain(|known| known.strong_count() > 0);
                    self.partitions.push(Arc::downgrade(&partition));
                    let at = partition.end();
                    let reader =
                        Reader { assignment: self.assignments, topic, partition, at, through };
                    self.order(Order::Assign(place, reader), now, rng);
                }
                Task::Unassign { source, topic: _, partition } => {
                    self.in_force.remove(&(source, partition));
                    self.order(Order::Unassign((source, partition)), now, rng);
                }
            }
        }
        let reading = |job: &Job| matches!(job, Job::ReadHistory(_));
        let asked = self.jobs.iter().filter(|(_, job)| reading(job)).count();
        let read = self.answers.iter().filter(|(_, a)| matches!(a, Answer::History(..))).count();
        let under_way = asked + self.brought.len() + read;
        assert!(under_way <= self.history_readers, "more chunks than readers");
    }

    /// Leaves an order for the live reader, behind those that it has.
    fn order(&mut self, order: Order, now: Instant, rng: &mut fastrand::Rng) {
        let last = self.orders.back().map_or(now, |(due, _)| *due);
        self.orders.push_back((last.max(now + delay(rng)), order));
    }

    fn answer(&mut self, answer: Answer, now: Instant) {
        match answer {
            Answer::Described(topic, result) => self.intake.handle_described(&topic, result, now),
            Answer::Offsets(request, result) => self.intake.handle_offsets(request, result, now),
            Answer::History((source, partition), result) => {
                self.intake.handle_history(source, partition, result, now);
            }
            Answer::Stopped(place, assignment, error) => {
                if self.in_force.get(&place) == Some(&assignment) {
                    self.in_force.remove(&place);
                    self.intake.handle_read_error(place.0, place.1, error, now);
                }
            }
        }
    }

    fn ask(&mut self, kafka: &Kafka, job: Job, now: Instant, rng: &mut fastrand::Rng) {
        let answer = match job {
            Job::Describe(topic) => {
                let found = kafka.find(&topic, now);
                let described = found.map(|(topic_id, log)| TopicDescription {
                    topic_id,
                    partitions: log.partitions.len(),
                });
                let described = described.map_err(|refusal| failure(&topic, refusal));
                Answer::Described(topic, described)
            }
            Job::ListOffsets(question) => {
                let bounds = list_offsets(kafka, &question, now);
                let bounds = bounds.map_err(|refusal| failure(&question.topic, refusal));
                Answer::Offsets(question.request, bounds)
            }
            Job::ReadHistory(chunk) => {
                // What Kafka gave is old by the time that it is in the log.
                let batch = self.read_history(kafka, &chunk, now, rng);
                let pause = if rng.u8(0..16) == 0 { delay(rng) } else { Duration::ZERO };
                return self.brought.push((now + pause, chunk, batch));
            }
        };
        self.answers.push((now + delay(rng), answer));
    }

    fn read_history(
        &self,
        kafka: &Kafka,
        chunk: &Chunk,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Result<Batch, ReadError> {
        let records_max = rng.usize(1..=self.batch_records_max);
        let from = chunk.from.offset.as_u64();
        let fetched = fetch(kafka, &chunk.topic, &chunk.partition, from, records_max, now);
        let last;
        let (records, to) = match fetched.map_err(failed)? {
            Fetched::OutOfRange => return Err(ReadError::OutOfRange(chunk.from.offset)),
            Fetched::Records { records, to, epoch } => {
                last = records.last().map(|(last, _)| *last).zip(epoch);
                (records, to)
            }
        };
        let until = chunk.until.as_u64();
        // Of which leader one is that was fetched beyond it says nothing of the others.
        let reached = last
            .filter(|(last, _)| *last < until)
            .map(|(last, epoch)| Reached { epoch: leader_epoch(epoch), to: offset(last + 1) });
        let mut batch = BatchBuilder::new(chunk.from.offset);
        for (at, content) in records.iter().filter(|(at, _)| *at < until) {
            self.push(chunk.source, &mut batch, *at, content);
        }
        batch.skip_to(offset(to.min(until)).max(batch.to()));
        if batch.covers_nothing() {
            return Err(ReadError::Failed("the log ends here".to_owned()));
        }
        Ok(batch.finish().under(reached))
    }

    fn insert_history(
        &self,
        chunk: &Chunk,
        batch: Result<Batch, ReadError>,
    ) -> Result<Offset, ReadError> {
        let place = (chunk.source, chunk.partition.id());
        let batch = batch?;
        let to = batch.to();
        say(|| format!("  history {place:?}: {} to {to}", chunk.from.offset));
        match chunk.partition.insert_history(chunk.from.generation, batch) {
            Added::Stored => {
                self.directory.wake(chunk.source, chunk.partition.id());
                Ok(to)
            }
            Added::Stale => Err(ReadError::Failed("the partition began anew".to_owned())),
        }
    }

    /// Lets a reader hear nothing more, not even an error.
    pub(crate) fn deafen_one(&mut self, rng: &mut fastrand::Rng) {
        let places: Vec<Place> = self.readers.keys().copied().collect();
        if let Some(place) = rng.choice(places) {
            say(|| format!("reader {place:?} is deaf"));
            self.deaf.insert(place);
        }
    }

    /// Lets a live reader read on.
    fn fetch(&mut self, kafka: &Kafka, place: Place, now: Instant, rng: &mut fastrand::Rng) {
        if self.deaf.contains(&place) {
            return;
        }
        let reader = &self.readers[&place];
        let from = reader.at.offset.as_u64();
        let records_max = rng.usize(1..=self.batch_records_max);
        let fetched = fetch(kafka, &reader.topic, &reader.partition, from, records_max, now);
        let (records, to, epoch) = match fetched {
            // An outage is mostly silence.
            Err(_) if rng.u8(0..8) > 0 => return,
            Err(refusal) => return self.stop(place, failed(refusal), now, rng),
            Ok(Fetched::OutOfRange) => {
                let error = ReadError::OutOfRange(reader.at.offset);
                return self.stop(place, error, now, rng);
            }
            Ok(Fetched::Records { records, to, epoch }) => (records, to, epoch),
        };
        let mut batch = BatchBuilder::new(reader.at.offset);
        for (at, content) in &records {
            self.push(place.0, &mut batch, *at, content);
        }
        batch.skip_to(offset(to));
        if batch.covers_nothing() {
            return;
        }
        let (generation, end) = (reader.at.generation, batch.to());
        let reached = records
            .last()
            .zip(epoch)
            .map(|((last, _), epoch)| Reached { epoch: leader_epoch(epoch), to: offset(last + 1) });
        match reader.partition.append(generation, batch.finish().under(reached)) {
            Added::Stored => {
                self.directory.wake(place.0, place.1);
                self.readers.get_mut(&place).expect("it is there").at.offset = end;
            }
            Added::Stale => drop(self.readers.remove(&place)),
        }
    }

    fn stop(&mut self, place: Place, error: ReadError, now: Instant, rng: &mut fastrand::Rng) {
        say(|| format!("  reader {place:?} stops: {error}"));
        if let Some(reader) = self.readers.remove(&place) {
            let answer = Answer::Stopped(place, reader.assignment, error);
            self.answers.push((now + delay(rng), answer));
        }
    }

    /// Adds a record under the tenant that the source's rule tells, as the real
    /// room does.
    fn push(&self, source: SourceId, batch: &mut BatchBuilder, at: u64, content: &Content) {
        let headers: Vec<_> =
            content.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let record = RawRecord {
            offset: offset(at),
            timestamp: content.timestamp,
            key: content.key.as_deref(),
            value: content.value.as_deref(),
            headers: &headers,
        };
        let rule = self.directory.key(source).rule;
        match rule.classify(&record) {
            Some(classified) => {
                let owner = classified.tenant.as_deref().map_or(Owner::Shared, Owner::Tenant);
                batch.push(&record, owner, classified.key);
            }
            None => batch.skip_to(record.offset.next()),
        }
    }
}

/// Fetches for a partition of the core's. Another topic that meanwhile goes by
/// its name is not read: Kafka tells them apart by the id in the request.
fn fetch(
    kafka: &Kafka,
    topic: &TopicName,
    partition: &SharedPartition,
    from: u64,
    records_max: usize,
    now: Instant,
) -> Result<Fetched, Refusal> {
    let (id, log) = kafka.find(topic, now)?;
    if id != partition.topic_id() {
        return Err(Refusal::Unknown);
    }
    let found = log.partitions.get(partition.id().index()).ok_or(Refusal::Unknown)?;
    match found.has_leader() {
        true => Ok(found.fetch(from, records_max)),
        false => Err(Refusal::Down),
    }
}

fn list_offsets(kafka: &Kafka, question: &ListOffsets, now: Instant) -> Result<Located, Refusal> {
    let ListOffsets { topic, partitions, lookup, epochs, .. } = question;
    let (_, log) = kafka.find(topic, now)?;
    let bounds = |index: usize| {
        let found = log.partitions.get(index).ok_or(Refusal::Unknown)?;
        if !found.has_leader() {
            return Ok(None);
        }
        let end = found.stable_end();
        let at = match lookup {
            Lookup::Bounds => end,
            Lookup::Timestamp(at) => found.offset_at(*at),
        };
        let (start, end, at_timestamp) = (offset(found.start), offset(end), offset(at));
        let epoch = Some(leader_epoch(found.epoch));
        let asked = epochs.iter().filter(|(partition, _)| partition.index() == index);
        let end_of = |epoch: LeaderEpoch| match found.end_of_epoch(epoch.as_u32()) {
            Some(end) => EpochEnd::At(offset(end)),
            None => EpochEnd::Unknown,
        };
        let epoch_ends = asked.map(|(_, epoch)| (*epoch, end_of(*epoch))).collect();
        Ok(Some(Bounds { start, end, at_timestamp, epoch, epoch_ends }))
    };
    (0..*partitions).map(bounds).collect()
}

fn leader_epoch(raw: u32) -> LeaderEpoch {
    LeaderEpoch::from_client(raw.into()).expect("a simulated epoch is small")
}

/// Says a task in few words.
fn words(task: &Task) -> String {
    match task {
        Task::Assign { source, topic, partition, through } => {
            let (id, end) = (partition.id(), partition.end());
            format!("Assign {source:?} {topic} {id} at {end:?} through {through:?}")
        }
        Task::ReadHistory { source, topic, partition, from, until } => {
            format!("ReadHistory {source:?} {topic} {} {from:?} until {until}", partition.id())
        }
        task => format!("{task:?}"),
    }
}

fn failure(topic: &TopicName, refusal: Refusal) -> SourceFailure {
    match refusal {
        Refusal::Unknown => SourceFailure::UnknownTopic(topic.clone()),
        Refusal::Down => {
            SourceFailure::Unreachable { topic: topic.clone(), reason: "no leader".to_owned() }
        }
    }
}

fn failed(refusal: Refusal) -> ReadError {
    ReadError::Failed(format!("{refusal:?}"))
}

/// Returns how long something takes: mostly little, sometimes long.
fn delay(rng: &mut fastrand::Rng) -> Duration {
    Duration::from_millis(match rng.u8(0..16) {
        0 => rng.u64(0..1_000),
        1..=3 => rng.u64(0..150),
        _ => rng.u64(0..20),
    })
}

fn take_brought(
    waiting: &mut Vec<(Instant, Chunk, Result<Batch, ReadError>)>,
    now: Instant,
) -> Vec<(Chunk, Result<Batch, ReadError>)> {
    let due = waiting.extract_if(.., |(at, ..)| *at <= now);
    due.map(|(_, chunk, batch)| (chunk, batch)).collect()
}

fn take_due<T>(waiting: &mut Vec<(Instant, T)>, now: Instant) -> Vec<(Instant, T)> {
    let (mut due, later): (Vec<_>, Vec<_>) =
        std::mem::take(waiting).into_iter().partition(|(at, _)| *at <= now);
    *waiting = later;
    due.sort_by_key(|(at, _)| *at);
    due
}
