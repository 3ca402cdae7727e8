//! Asks Kafka for the bounds of all partitions, and logs the answers.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use brucke_checker::line::TruthLine;
use brucke_checker::line::checksum;
use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;

use crate::clock::Clock;
use crate::journal::TruthJournal;
use crate::plan::PLANS;
use crate::topics::Known;
use crate::topics::Topics;

/// Start and end of a partition.
pub type Bounds = (u64, u64);

/// One who asks.
pub struct Eye {
    config: ClientConfig,
    consumer: BaseConsumer,
    clock: Clock,
    truth: TruthJournal,
}

impl Eye {
    /// Returns one that asks the brokers themselves, past all proxies.
    pub fn new(servers: &str, clock: Clock, truth: TruthJournal) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("group.id", "eye")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("bootstrap.servers", servers)
            .set("isolation.level", "read_committed")
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "250")
            .set("socket.connection.setup.timeout.ms", "2000")
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("log_level", "0");
        let consumer = config.create().expect("a consumer");
        Self { config, consumer, clock, truth }
    }

    /// Asks for the bounds of all partitions of a topic, and logs them; `None`
    /// where one did not answer.
    pub fn look(&self, topics: &Topics, topic: usize) -> Option<Vec<Bounds>> {
        let Known { id, partitions } = topics.known(topic)?;
        let mut all = Vec::new();
        for p in 0..partitions {
            let asked = self.clock.now();
            let partition = i32::try_from(p).expect("few");
            let bounds = self.consumer.fetch_watermarks(PLANS[topic].name, partition, ASK_MAX);
            let (start, end) = bounds.ok()?;
            let (start, end) = (u64::try_from(start).ok()?, u64::try_from(end).ok()?);
            let at = self.clock.now();
            // The topic may have been deleted meanwhile.
            if topics.id(topic).as_ref() != Some(&id) {
                return None;
            }
            let topic = id.clone();
            self.truth.write(&TruthLine::Bounds { topic, p, start, end, asked, at });
            all.push((start, end));
        }
        Some(all)
    }

    /// Asks until there is an answer.
    pub fn insist(&self, topics: &Topics, topic: usize) -> Vec<Bounds> {
        let deadline = Instant::now() + INSIST_MAX;
        loop {
            if let Some(bounds) = self.look(topics, topic) {
                return bounds;
            }
            let name = PLANS[topic].name;
            assert!(Instant::now() < deadline, "no bounds of {name} after {INSIST_MAX:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Counts the records of a partition that Kafka has below an offset.
    pub fn count(&self, topic: usize, partition: i32, end: u64) -> u64 {
        let mut count = 0;
        self.read(topic, partition, end, |_, _| count += 1);
        count
    }

    /// Looks in the topic for records at places that nobody was told of, and logs
    /// them: of those without an acknowledgement, and of those that were written
    /// again because their first acknowledgement was lost with its broker.
    pub fn search(&self, topics: &Topics, topic: usize) {
        let Some(Known { id, partitions }) = topics.known(topic) else { return };
        let told = self.truth.told(&id);
        for (p, (_, end)) in (0..partitions).zip(self.insist(topics, topic)) {
            self.read(topic, i32::try_from(p).expect("few"), end, |o, value| {
                if !told.contains(&(p, o)) {
                    let (topic, sum) = (id.clone(), checksum(value));
                    self.truth.write(&TruthLine::Found { topic, p, o, sum });
                }
            });
        }
    }

    /// Reads a partition from its beginning to an offset, or to its end: while
    /// records come, the end may never be told.
    fn read(
        &self,
        topic: usize,
        partition: i32,
        end: u64,
        mut take: impl FnMut(u64, Option<&[u8]>),
    ) {
        let reader: BaseConsumer = self.config.create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        let name = PLANS[topic].name;
        let begin = rdkafka::Offset::Beginning;
        list.add_partition_offset(name, partition, begin).expect("a valid offset");
        reader.assign(&list).expect("it is assigned");
        loop {
            match reader.poll(INSIST_MAX) {
                Some(Ok(record)) => {
                    let offset = record.offset().cast_unsigned();
                    if offset < end {
                        take(offset, record.payload());
                    }
                    if offset + 1 >= end {
                        return;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return,
                // It connects again by itself; who never does is told by the silence.
                Some(Err(error)) if is_of_the_way(&error) => {}
                Some(Err(error)) => panic!("{name} can't be read: {error}"),
                None => panic!("{name} can't be read"),
            }
        }
    }

    /// Returns the ids of the brokers that hold a partition, its leader first,
    /// once it has one.
    pub fn insist_replicas(&self, topic: usize, partition: i32) -> Vec<i32> {
        let deadline = Instant::now() + INSIST_MAX;
        loop {
            if let Some(replicas) = self.replicas(topic, partition) {
                return replicas;
            }
            let name = PLANS[topic].name;
            assert!(Instant::now() < deadline, "nobody leads {name} after {INSIST_MAX:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn replicas(&self, topic: usize, partition: i32) -> Option<Vec<i32>> {
        let name = PLANS[topic].name;
        let metadata = self.consumer.fetch_metadata(Some(name), ASK_MAX).ok()?;
        let of_topic = metadata.topics().first()?;
        let found = of_topic.partitions().iter().find(|p| p.id() == partition)?;
        let leader = found.leader();
        let others = found.replicas().iter().copied().filter(|id| *id != leader);
        (leader >= 0).then(|| std::iter::once(leader).chain(others).collect())
    }
}

/// Says whether only the way to a broker is broken.
fn is_of_the_way(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    let passing = [RDKafkaErrorCode::BrokerTransportFailure, RDKafkaErrorCode::AllBrokersDown];
    code.is_some_and(|code| passing.contains(&code))
}

/// Looks at all topics again and again, on a thread of its own.
pub struct Observer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    /// Begins.
    pub fn start(eye: Eye, topics: Arc<Topics>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    for topic in 0..PLANS.len() {
                        eye.look(&topics, topic);
                    }
                    thread::sleep(LOOK_INTERVAL);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }

    pub fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the observer does not panic");
        }
    }
}

const ASK_MAX: Duration = Duration::from_millis(1_000);
const INSIST_MAX: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
