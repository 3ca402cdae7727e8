//! The threads that read old ranges back.
//!
//! Each has a client of its own and reads one partition at a time. A sweep asks
//! for one chunk after the other: while the next one begins where the last
//! ended, the partition stays assigned, and what was fetched ahead is used.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::Sender;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use tracing::debug;

use crate::kafka::answer::Answer;
use crate::kafka::classify;
use crate::kafka::classify::Fate;
use crate::kafka::classify::Rules;
use crate::kafka::client;
use crate::kafka::client::RenewedClient;
use crate::kafka::native::queue::Fetched;
use crate::kafka::native::queue::Item;
use crate::kafka::native::queue::PartitionQueue;
use crate::kafka::status::KafkaStatus;
use crate::log::batch::Batch;
use crate::log::batch::BatchBuilder;
use crate::log::partition::Added;
use crate::log::partition::Cursor;
use crate::log::partition::SharedPartition;
use crate::registry::directory::Directory;
use crate::registry::message::ReadError;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SourceId;
use crate::types::ids::TopicId;
use crate::types::ids::TopicName;
use crate::types::limits::HISTORY_CHUNK_BYTES;
use crate::types::positions::Reached;
use crate::types::trace::Sampler;

/// A piece of history to be read.
#[derive(Debug)]
pub(in crate::kafka) struct Chunk {
    pub(in crate::kafka) source: SourceId,
    pub(in crate::kafka) topic: TopicName,
    pub(in crate::kafka) partition: Arc<SharedPartition>,
    pub(in crate::kafka) from: Cursor,
    pub(in crate::kafka) until: Offset,
}

/// Where a sweep stands: a chunk that begins there goes on without a new fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kafka) struct Place {
    pub(in crate::kafka) topic: TopicName,
    pub(in crate::kafka) partition: PartitionId,
    pub(in crate::kafka) offset: Offset,
}

/// One reader of history, which belongs to its thread.
pub(in crate::kafka) struct HistoryReader {
    index: usize,
    client: RenewedClient,
    chunks: Receiver<Chunk>,
    answers: Sender<Answer>,
    directory: Arc<Directory>,
    status: Arc<KafkaStatus>,
    sampler: Sampler,
    sweep: Option<Sweep>,
}

/// A partition that is assigned.
struct Sweep {
    place: Place,
    // Dropped before the queue that it was taken from.
    fetched: Fetched,
    queue: PartitionQueue,
}

/// How the reading of a chunk ended.
enum End {
    /// The sweep stands at the chunk's end and can go on from there.
    GoesOn,
    /// The log had no more; what comes next must be asked for anew.
    AtEnd,
}

impl HistoryReader {
    /// Returns a reader that reads nothing yet.
    pub(in crate::kafka) fn new(
        index: usize,
        client: RenewedClient,
        chunks: Receiver<Chunk>,
        answers: Sender<Answer>,
        directory: Arc<Directory>,
        status: Arc<KafkaStatus>,
        sampler: Sampler,
    ) -> Self {
        Self { index, client, chunks, answers, directory, status, sampler, sweep: None }
    }

    /// Reads what it is asked for until nobody can ask any more.
    pub(in crate::kafka) fn run(mut self) {
        loop {
            match self.chunks.recv_timeout(IDLE_INTERVAL) {
                Ok(chunk) => {
                    let result = self.read(&chunk);
                    if let Err(error) = &result {
                        self.status.count_read_stop(error);
                        let (topic, partition) = (&chunk.topic, chunk.partition.id());
                        debug!(%topic, %partition, from = %chunk.from.offset, ?error, "history can't be read");
                    }
                    let answer = Answer::History {
                        reader: self.index,
                        source: chunk.source,
                        partition: chunk.partition.id(),
                        result,
                    };
                    // Without the control thread nobody waits for an answer.
                    let _ = self.answers.send(answer);
                }
                // Nobody wants more for now: stop fetching ahead.
                Err(RecvTimeoutError::Timeout) => self.end_sweep(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            client::serve(self.client.as_is());
        }
    }

    fn read(&mut self, chunk: &Chunk) -> Result<Offset, ReadError> {
        let place = Place {
            topic: chunk.topic.clone(),
            partition: chunk.partition.id(),
            offset: chunk.from.offset,
        };
        let mut sweep = match self.sweep.take() {
            Some(sweep) if sweep.place == place => sweep,
            other => {
                self.sweep = other;
                self.end_sweep();
                self.begin_sweep(place, chunk.partition.topic_id())?
            }
        };
        let collected = self.collect(chunk, &mut sweep);
        let to = collected.as_ref().map_or(sweep.place.offset, |(batch, _)| batch.to());
        let goes_on = matches!(collected, Ok((_, End::GoesOn)));
        sweep.place.offset = to;
        self.sweep = Some(sweep);
        if !goes_on {
            self.end_sweep();
        }
        if collected.is_err() {
            // It may ask a broker that leads the partition no more, for ever.
            self.client.distrust();
        }
        let (batch, _) = collected?;
        if batch.from() == to {
            let text = format!("the log ends at {to}, before offset {}", chunk.until);
            return Err(ReadError::Failed(text));
        }
        match chunk.partition.insert_history(chunk.from.generation, batch) {
            Added::Stored => {
                self.directory.wake(chunk.source, chunk.partition.id());
                Ok(to)
            }
            Added::Stale => Err(ReadError::Failed("the partition began anew".to_owned())),
        }
    }

    /// Collects records from the sweep's place on.
    fn collect(&self, chunk: &Chunk, sweep: &mut Sweep) -> Result<(Batch, End), ReadError> {
        let rules = Rules {
            tenancy: self.directory.key(chunk.source).rule,
            sampler: self.sampler.clone(),
            topic: chunk.topic.clone(),
            partition: chunk.partition.id(),
        };
        let mut batch = BatchBuilder::new(chunk.from.offset);
        let (mut records, mut unclassified) = (0, 0);
        let mut reached = None;
        let mut progress_at = Instant::now();
        let end = loop {
            if batch.to() >= chunk.until || batch.bytes() >= HISTORY_CHUNK_BYTES {
                break End::GoesOn;
            }
            let Some(item) = sweep.fetched.front() else {
                if sweep.refill() > 0 {
                    progress_at = Instant::now();
                } else if progress_at.elapsed() >= SILENCE_MAX {
                    if batch.covers_nothing() {
                        let text = format!("no records came for {SILENCE_MAX:?}");
                        return Err(ReadError::Failed(text));
                    }
                    break End::AtEnd;
                }
                client::serve(self.client.as_is());
                continue;
            };
            match step(&item, &mut batch, chunk.until, &rules) {
                Step::Added(fate, known) => {
                    reached = known;
                    records += 1;
                    unclassified += u64::from(fate == Fate::Unclassified);
                }
                Step::Passed => {}
                // It stays for the next chunk, which begins there or before.
                Step::Beyond => continue,
                Step::AtEnd => break End::AtEnd,
                // What came before the error still counts.
                Step::Failed(_) if !batch.covers_nothing() => break End::AtEnd,
                Step::Failed(error) => return Err(error),
            }
            sweep.fetched.discard_front();
        };
        let batch = batch.finish().received(Instant::now()).under(reached);
        let counts = self.status.counts_of(chunk.source);
        counts.add_history(records, batch.bytes(), unclassified);
        Ok((batch, end))
    }

    fn begin_sweep(&mut self, place: Place, id: TopicId) -> Result<Sweep, ReadError> {
        self.find_leaders(&place.topic, id)?;
        let client = self.client.as_is();
        let queue = PartitionQueue::split(client, &place.topic, place.partition);
        let queue = queue.ok_or_else(|| ReadError::Failed("not a topic's name".to_owned()))?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(
            place.topic.as_str(),
            place.partition.as_kafka(),
            rdkafka::Offset::Offset(place.offset.as_kafka()),
        )
        .expect("an offset is not negative");
        let mut fetched = Fetched::new(client);
        // What an earlier sweep of this partition left goes before the assignment:
        // after it, the queue may hold the first records of this one already.
        fetched.drain(&queue);
        let assigned = client.incremental_assign(&list);
        assigned.map_err(|error| ReadError::Failed(error.to_string()))?;
        Ok(Sweep { place, fetched, queue })
    }

    /// Takes a client that may read the topic and knows who leads its partitions.
    /// librdkafka by itself looks once a second for the leaders of topics that are
    /// new to it, and one that has changed while nothing was read may leave it deaf.
    fn find_leaders(&mut self, topic: &TopicName, id: TopicId) -> Result<(), ReadError> {
        if self.finds_leaders(topic, id)? {
            return Ok(());
        }
        // While it read nothing, all brokers may have gone to other addresses. A new
        // client begins with those of the configuration.
        self.client.distrust();
        match self.finds_leaders(topic, id)? {
            true => Ok(()),
            false => Err(ReadError::Failed("no broker says who leads the partition".to_owned())),
        }
    }

    fn finds_leaders(&mut self, topic: &TopicName, id: TopicId) -> Result<bool, ReadError> {
        let client = self.client.of(topic, id);
        client.map_err(|error| ReadError::Failed(error.to_string()))?;
        Ok(self.client.finds_leaders(topic))
    }

    fn end_sweep(&mut self) {
        let Some(mut sweep) = self.sweep.take() else { return };
        let mut list = TopicPartitionList::new();
        list.add_partition(sweep.place.topic.as_str(), sweep.place.partition.as_kafka());
        if let Err(error) = self.client.as_is().incremental_unassign(&list) {
            tracing::warn!(%error, "kafka partition can't be unassigned");
        }
        sweep.fetched.drain(&sweep.queue);
    }
}

impl Sweep {
    /// Waits a little for more; returns how much came.
    fn refill(&mut self) -> usize {
        self.fetched.wait(&self.queue, WAIT);
        if self.fetched.len() > 0 {
            self.fetched.take(&self.queue, RECORDS_PER_TAKE);
        }
        self.fetched.len()
    }
}

/// What one item of the queue came to.
enum Step {
    /// With in which leader's log it stands.
    Added(Fate, Option<Reached>),
    /// Nothing that matters to the chunk.
    Passed,
    /// The chunk is whole, and the item lies behind it.
    Beyond,
    /// The log has no more.
    AtEnd,
    Failed(ReadError),
}

fn step(item: &Item<'_>, batch: &mut BatchBuilder, until: Offset, rules: &Rules) -> Step {
    match item {
        Item::Record(message) if message.offset() < batch.to() => Step::Passed,
        Item::Record(message) if message.offset() >= until => {
            batch.skip_to(until);
            Step::Beyond
        }
        Item::Record(message) => {
            Step::Added(classify::add(batch, message, rules), message.reached())
        }
        Item::End(offset) if *offset >= until => {
            batch.skip_to(until);
            Step::Beyond
        }
        Item::End(offset) => {
            if *offset > batch.to() {
                batch.skip_to(*offset);
            }
            Step::AtEnd
        }
        Item::OutOfRange | Item::UnknownEpoch => Step::Failed(ReadError::OutOfRange(batch.to())),
        // The live reader meets it too, and clients are told by that.
        Item::Truncated(to) => {
            Step::Failed(ReadError::Failed(format!("the log was cut off at {to}")))
        }
        Item::Failed(text) => Step::Failed(ReadError::Failed(text.clone())),
    }
}

/// A reader that is asked for nothing for so long stops fetching ahead.
const IDLE_INTERVAL: Duration = Duration::from_millis(500);
/// How long one look at an empty queue waits.
const WAIT: Duration = Duration::from_millis(100);
/// Without a record or an end for so long, a chunk has failed.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Records that are taken from the queue at once.
const RECORDS_PER_TAKE: usize = 1_000;
