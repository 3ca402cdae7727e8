//! A topic of one partition that is read from its beginning and then on, by a thread
//! of its own: what replicas tell each other. What its records mean is not known here.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use tracing::info;
use tracing::warn;

use crate::kafka::client;
use crate::kafka::client::Client;
use crate::kafka::client::RenewedClient;
use crate::kafka::config::KafkaConfig;
use crate::kafka::error::KafkaError;
use crate::kafka::native::queue::Fetched;
use crate::kafka::native::queue::Item;
use crate::kafka::native::queue::PartitionQueue;
use crate::kafka::native::topics;
use crate::kafka::native::topics::ErrorCode;
use crate::kafka::status::KafkaStatus;
use crate::kafka::status::Role;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::TopicId;
use crate::types::ids::TopicName;
use crate::types::record::RawRecord;

/// The thread that reads; dropping it ends it.
#[derive(Debug)]
pub struct Journal {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Whether a journal is read.
#[derive(Debug)]
pub struct JournalStatus {
    topic: TopicName,
    state: Mutex<JournalState>,
}

/// The states of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalState {
    /// Its end was never reached; and why, where something is wrong.
    Unread { reason: Option<String> },
    /// Everything was read, and what comes is.
    Read,
    /// It was read to its end once, and can't be read on.
    Failing { reason: String },
}

impl JournalStatus {
    /// Returns the status of a topic of which nothing was read.
    pub fn new(topic: TopicName) -> Self {
        Self { topic, state: Mutex::new(JournalState::Unread { reason: None }) }
    }

    /// Returns the topic.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// Returns how it is now.
    pub fn state(&self) -> JournalState {
        self.lock().clone()
    }

    fn caught_up(&self) {
        let before = std::mem::replace(&mut *self.lock(), JournalState::Read);
        if before != JournalState::Read {
            info!(topic = %self.topic, "the topic is read to its end");
        }
    }

    fn fail(&self, text: &str) {
        let mut state = self.lock();
        let reason = text.to_owned();
        let failing = match &*state {
            JournalState::Unread { .. } => JournalState::Unread { reason: Some(reason) },
            JournalState::Read | JournalState::Failing { .. } => JournalState::Failing { reason },
        };
        // Once for each reason, and not each time that it is tried again.
        if *state != failing {
            *state = failing;
            drop(state);
            warn!(topic = %self.topic, reason = text, "the topic can't be read");
        }
    }

    fn lock(&self) -> MutexGuard<'_, JournalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal {
    /// Begins to read the topic of `status`; each record goes to `each`, in order,
    /// some of them again after the topic could not be read.
    ///
    /// # Errors
    ///
    /// When the configuration is refused or the system gives no thread. A topic that
    /// can't be read is no error: it is tried again, and the status says so.
    pub fn start(
        config: &KafkaConfig,
        status: Arc<JournalStatus>,
        kafka: &Arc<KafkaStatus>,
        each: impl FnMut(&RawRecord<'_>) + Send + 'static,
    ) -> Result<Self, KafkaError> {
        config.validate()?;
        let client = RenewedClient::connect(config.live(), kafka, Role::Journal)?;
        let stop = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            client,
            status,
            stop: Arc::clone(&stop),
            known: None,
            next: None,
            each: Box::new(each),
        };
        let thread = thread::Builder::new().name("kafka-journal".to_owned());
        let thread = thread.spawn(move || reader.run())?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been told.
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Reader {
    client: RenewedClient,
    status: Arc<JournalStatus>,
    stop: Arc<AtomicBool>,
    known: Option<TopicId>,
    /// The next offset wanted of the topic that is known; `None` for its beginning.
    next: Option<Offset>,
    each: Box<dyn FnMut(&RawRecord<'_>) + Send>,
}

/// Why the topic can't be read on, in words.
type Fault = String;

impl Reader {
    fn run(mut self) {
        while !self.is_stopped() {
            if let Err(fault) = self.follow() {
                self.status.fail(&fault);
                let again_at = Instant::now() + RETRY_INTERVAL;
                while !self.is_stopped() && Instant::now() < again_at {
                    client::serve(self.client.as_is());
                    thread::sleep(WAIT);
                }
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Reads until it is told to stop.
    fn follow(&mut self) -> Result<(), Fault> {
        let topic = self.status.topic.clone();
        let id = describe(self.client.as_is(), &topic)?;
        if self.known != Some(id) {
            (self.known, self.next) = (Some(id), None);
        }
        let client = self.client.of(&topic, id).map_err(|error| error.to_string())?;
        let client = Client::clone(client);
        let bounds = client.fetch_watermarks(topic.as_str(), PARTITION, TIMEOUT);
        let (oldest, end) = bounds.map_err(|error| error.to_string())?;
        let offset = |raw| Offset::from_kafka(raw).unwrap_or(Offset::ZERO);
        let (oldest, end) = (offset(oldest), offset(end));
        let from = self.next.filter(|next| (oldest..=end).contains(next)).unwrap_or(oldest);
        self.next = Some(from);
        let partition = PartitionId::from_index(0);
        let queue = PartitionQueue::split(&client, &topic, partition).ok_or("not a topic")?;
        let mut list = TopicPartitionList::new();
        let start = rdkafka::Offset::Offset(from.as_kafka());
        list.add_partition_offset(topic.as_str(), PARTITION, start)
            .and_then(|()| client.incremental_assign(&list))
            .map_err(|error| error.to_string())?;
        let mut fetched = Fetched::new(&client);
        let read = self.read(id, &client, &queue, &mut fetched);
        let _ = client.incremental_unassign(&list);
        fetched.drain(&queue);
        read
    }

    fn read(
        &mut self,
        id: TopicId,
        client: &Client,
        queue: &PartitionQueue,
        fetched: &mut Fetched,
    ) -> Result<(), Fault> {
        let mut look_at = Instant::now() + LOOK_INTERVAL;
        let mut seen = None;
        while !self.is_stopped() {
            if Instant::now() >= look_at {
                seen = self.look(id, client, seen)?;
                look_at = Instant::now() + LOOK_INTERVAL;
            }
            let Some(item) = fetched.front() else {
                client::serve(client);
                fetched.wait(queue, WAIT);
                continue;
            };
            let step = self.take(&item);
            drop(item);
            fetched.discard_front();
            step?;
        }
        Ok(())
    }

    /// Looks whether the topic is still the same, and whether what it has comes here:
    /// librdkafka is silent about one that is gone or was made again, and may wait at a
    /// broker that leads the partition no more.
    fn look(
        &mut self,
        id: TopicId,
        client: &Client,
        before: Option<Seen>,
    ) -> Result<Option<Seen>, Fault> {
        let topic = self.status.topic();
        if describe(client, topic)? != id {
            return Err("it was made again".to_owned());
        }
        let Ok((_, end)) = client.fetch_watermarks(topic.as_str(), PARTITION, TIMEOUT) else {
            // Its leader may just be another one, which the client finds by itself.
            return Ok(before);
        };
        let seen = Seen { next: self.next, end: Offset::from_kafka(end).unwrap_or(Offset::ZERO) };
        if seen.is_stalled_since(before) {
            self.client.distrust();
            // A new client does not know from which leader it was read so far.
            self.next = None;
            return Err("it has more than comes here: another client is tried".to_owned());
        }
        Ok(Some(seen))
    }

    fn take(&mut self, item: &Item<'_>) -> Result<(), Fault> {
        match item {
            Item::Record(message) => {
                if self.next.is_none_or(|next| message.offset() >= next) {
                    message.with_record(|record| (self.each)(record));
                    self.next = Some(message.offset().next());
                }
                Ok(())
            }
            Item::End(end) => {
                // Marks of transactions are no records.
                self.next = self.next.max(Some(*end));
                self.status.caught_up();
                Ok(())
            }
            Item::OutOfRange | Item::Truncated(_) | Item::UnknownEpoch => {
                self.next = None;
                Err("it no longer has what was to be read next".to_owned())
            }
            Item::Failed(reason) => Err(reason.clone()),
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("status", &self.status).finish_non_exhaustive()
    }
}

/// How far a journal was read, and how far it went, when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    next: Option<Offset>,
    end: Offset,
}

impl Seen {
    /// Says whether nothing came between two looks of what there was at the first.
    fn is_stalled_since(self, before: Option<Self>) -> bool {
        before.is_some_and(|before| self.next == before.next && before.next < Some(before.end))
    }
}

/// Returns the identity of the topic, where it is such as can be read here.
fn describe(client: &Client, topic: &TopicName) -> Result<TopicId, Fault> {
    let mut described =
        topics::describe(client, std::slice::from_ref(topic), TIMEOUT).map_err(words)?;
    let described = described.remove(topic).unwrap_or(Err(ErrorCode::Fail)).map_err(words)?;
    match described.partitions {
        1 => Ok(described.topic_id),
        count => Err(format!("it has {count} partitions, and must have one")),
    }
}

fn words(code: ErrorCode) -> Fault {
    match code {
        ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopic => {
            "it does not exist: create it".to_owned()
        }
        ErrorCode::TopicAuthorizationFailed => {
            "it may not be read: give the principal DESCRIBE and READ".to_owned()
        }
        code => code.to_string(),
    }
}

/// The only partition.
const PARTITION: i32 = 0;
/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(4);
/// How long one look at an empty queue waits, and with it a stop.
const WAIT: Duration = Duration::from_millis(50);
/// Between two times that it is tried.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks whether the topic is still the same.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_was_read_once_is_failing_and_not_unread() {
        let status = JournalStatus::new(TopicName::new("t"));
        assert_eq!(status.state(), JournalState::Unread { reason: None });
        status.fail("a");
        assert_eq!(status.state(), JournalState::Unread { reason: Some("a".to_owned()) });
        status.caught_up();
        assert_eq!(status.state(), JournalState::Read);
        status.fail("b");
        assert_eq!(status.state(), JournalState::Failing { reason: "b".to_owned() });
        status.caught_up();
        assert_eq!(status.state(), JournalState::Read);
    }

    #[test]
    fn a_journal_is_stalled_when_it_brings_nothing_of_what_it_had_before() {
        let at = |raw| Offset::from_kafka(raw).expect("not negative");
        let seen = |next, end| Seen { next: Some(at(next)), end: at(end) };
        let is_stalled = |before, now: Seen| now.is_stalled_since(Some(before));
        assert!(!seen(3, 9).is_stalled_since(None), "it may have come just now");
        assert!(!is_stalled(seen(9, 9), seen(9, 12)), "it may have come just now");
        assert!(!is_stalled(seen(3, 9), seen(4, 9)), "slow is not stalled");
        assert!(is_stalled(seen(9, 12), seen(9, 12)));
        assert!(is_stalled(seen(9, 12), seen(9, 15)));
    }
}
