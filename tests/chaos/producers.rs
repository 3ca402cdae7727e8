//! Who fills the topics, and logs each record once it is acknowledged.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use brucke_checker::line::Maybe;
use brucke_checker::line::Put;
use brucke_checker::line::Tenant;
use brucke_checker::line::TruthLine;
use brucke_checker::line::checksum;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::message::Header;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::DeliveryResult;
use rdkafka::producer::Producer as _;
use rdkafka::producer::ProducerContext;
use rdkafka::producer::ThreadedProducer;

use crate::clock::Clock;
use crate::journal::TruthJournal;
use crate::plan;
use crate::plan::Draft;
use crate::plan::HEADER;
use crate::plan::PLANS;
use crate::tally::Tally;
use crate::topics::Topics;

/// What is logged of a record once its offset is known.
pub struct Note {
    topic_id: String,
    key: Option<String>,
    tenant: Tenant,
    sum: u32,
    tx: Option<u64>,
}

/// Hears of acknowledgements.
#[derive(Clone)]
pub struct Acks {
    clock: Clock,
    truth: TruthJournal,
    tally: Arc<Tally>,
    in_flight: Arc<AtomicU64>,
    watch_from: Arc<AtomicU64>,
    first: Arc<AtomicU64>,
}

impl Acks {
    /// Returns a listener that writes to `truth`.
    pub fn new(clock: Clock, truth: TruthJournal, tally: Arc<Tally>) -> Self {
        let zero = Arc::<AtomicU64>::default;
        let (in_flight, watch_from, first) = (zero(), zero(), zero());
        Self { clock, truth, tally, in_flight, watch_from, first }
    }

    /// Notes the first acknowledgement at or after a moment, and the first delivery
    /// after that.
    pub fn watch(&self, from: u64) {
        self.watch_from.store(0, Ordering::Relaxed);
        self.first.store(0, Ordering::Relaxed);
        self.watch_from.store(from.max(1), Ordering::Relaxed);
    }

    pub fn first(&self) -> Option<u64> {
        Some(self.first.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }
}

impl ClientContext for Acks {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: rdkafka::error::KafkaError, _: &str) {}
}

impl ProducerContext for Acks {
    type DeliveryOpaque = Box<Note>;

    fn delivery(&self, result: &DeliveryResult<'_>, note: Box<Note>) {
        let Note { topic_id: topic, key, tenant, sum, tx } = *note;
        let place = result.as_ref().ok().map(|message| (message.partition(), message.offset()));
        let place = place.and_then(|(p, o)| Some((u32::try_from(p).ok()?, u64::try_from(o).ok()?)));
        match place {
            Some((p, o)) => {
                let at = self.clock.now();
                self.truth.write(&TruthLine::Put(Put { topic, p, o, key, tenant, sum, at, tx }));
                let from = self.watch_from.load(Ordering::Relaxed);
                if from > 0 && at >= from {
                    let (order, first) = (Ordering::Relaxed, &self.first);
                    if first.compare_exchange(0, at, order, order).is_ok() {
                        self.tally.watch(at);
                    }
                }
            }
            // Refused, or written by an attempt whose answer never came: then
            // the next is told that the record stands already, but not where.
            None => {
                let at = self.clock.now();
                self.truth.write(&TruthLine::Maybe(Maybe { topic, key, tenant, sum, at }));
            }
        }
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A producer of one topic.
pub struct Pen {
    producer: ThreadedProducer<Acks>,
    acks: Acks,
}

impl Pen {
    /// Returns a producer that tries for ever and writes nothing twice.
    pub fn new(servers: &str, acks: &Acks) -> Self {
        Self::with(base(servers).set("message.timeout.ms", "0"), acks)
    }

    /// Returns one that produces in transactions.
    pub fn transactional(servers: &str, acks: &Acks, id: &str) -> Self {
        let pen = Self::with(base(servers).set("transactional.id", id), acks);
        pen.producer.init_transactions(TIMEOUT).expect("transactions begin");
        pen
    }

    fn with(config: &ClientConfig, acks: &Acks) -> Self {
        let acks = Acks { in_flight: Arc::default(), ..acks.clone() };
        let producer = ThreadedProducer::from_config_and_context(config, acks.clone());
        Self { producer: producer.expect("a producer"), acks }
    }

    /// Hands a record over; says whether there was room.
    pub fn write(&self, topic: usize, topic_id: &str, draft: &Draft, tx: Option<u64>) -> bool {
        let note = Box::new(Note {
            topic_id: topic_id.to_owned(),
            key: draft.key.clone(),
            tenant: draft.tenant.clone(),
            sum: checksum(draft.value.as_deref()),
            tx,
        });
        let partition = i32::try_from(draft.partition).expect("few");
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(PLANS[topic].name, note);
        record = record.partition(partition);
        record.key = draft.kafka_key.as_deref();
        record.payload = draft.value.as_deref();
        if let Some(tenant) = draft.header {
            let header = Header { key: HEADER, value: Some(tenant) };
            record = record.headers(OwnedHeaders::new().insert(header));
        }
        self.acks.in_flight.fetch_add(1, Ordering::Relaxed);
        let sent = self.producer.send(record).is_ok();
        if !sent {
            self.acks.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        sent
    }

    /// Returns why it will never produce again, if so: a broker that came back did not
    /// know what had been written before.
    fn fatal_error(&self) -> Option<String> {
        self.producer.client().fatal_error().map(|(_, text)| text)
    }

    /// Waits until nothing is on its way.
    pub fn drain(&self) {
        let deadline = Instant::now() + DRAIN_MAX;
        while self.acks.in_flight.load(Ordering::Relaxed) > 0 {
            assert!(Instant::now() < deadline, "records are on their way for {DRAIN_MAX:?}");
            let _ = self.producer.flush(Duration::from_millis(200));
        }
    }

    pub fn begin(&self) {
        self.producer.begin_transaction().expect("a transaction begins");
    }

    pub fn commit(&self) {
        self.producer.commit_transaction(TIMEOUT).expect("the transaction is committed");
    }

    pub fn abort(&self) {
        self.producer.abort_transaction(TIMEOUT).expect("the transaction is aborted");
    }
}

/// Produces to all topics at the planned rates, on a thread of its own.
pub struct Loader {
    servers: String,
    acks: Acks,
    lanes: Arc<Vec<Lane>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Lane {
    pen: Mutex<Option<Pen>>,
    /// Times the planned rate.
    factor: AtomicU64,
    number: AtomicU64,
}

impl Loader {
    /// Begins.
    pub fn start(servers: String, acks: Acks, topics: Arc<Topics>, seed: u64) -> Self {
        let lane = |_| Lane {
            pen: Mutex::new(Some(Pen::new(&servers, &acks))),
            factor: AtomicU64::new(1),
            number: AtomicU64::new(0),
        };
        let lanes: Arc<Vec<Lane>> = Arc::new((0..PLANS.len()).map(lane).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (lanes, stop) = (Arc::clone(&lanes), Arc::clone(&stop));
            let (servers, acks) = (servers.clone(), acks.clone());
            move || load(&lanes, &topics, &stop, seed, || Pen::new(&servers, &acks))
        });
        Self { servers, acks, lanes, stop, thread: Some(thread) }
    }

    /// Produces nothing more to a topic, and waits until all is acknowledged.
    pub fn pause(&self, topic: usize) {
        let pen = self.lanes[topic].pen.lock().expect("no panic").take();
        if let Some(pen) = pen {
            pen.drain();
        }
    }

    /// Produces to a topic that was paused, by a new producer.
    pub fn resume(&self, topic: usize) {
        let pen = Pen::new(&self.servers, &self.acks);
        *self.lanes[topic].pen.lock().expect("no panic") = Some(pen);
    }

    /// Produces at so many times the rate.
    pub fn speed(&self, topic: usize, factor: u64) {
        self.lanes[topic].factor.store(factor, Ordering::Relaxed);
    }

    /// Returns the next number of a topic's records.
    pub fn next_number(&self, topic: usize) -> u64 {
        self.lanes[topic].number.fetch_add(1, Ordering::Relaxed)
    }

    /// Ends, once all is acknowledged.
    pub fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the loader does not panic");
        }
        (0..PLANS.len()).for_each(|topic| self.pause(topic));
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn load(lanes: &[Lane], topics: &Topics, stop: &AtomicBool, seed: u64, fresh: impl Fn() -> Pen) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut owed = vec![0.0; lanes.len()];
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let passed = last.elapsed().as_secs_f64();
        last = Instant::now();
        for (topic, lane) in lanes.iter().enumerate() {
            let factor = lane.factor.load(Ordering::Relaxed) as f64;
            owed[topic] += f64::from(PLANS[topic].rate) * factor * passed;
            let mut pen = lane.pen.lock().expect("no panic");
            if let Some(why) = pen.as_ref().and_then(Pen::fatal_error) {
                println!("another producer of {}: {why}", PLANS[topic].name);
                *pen = Some(fresh());
            }
            let (Some(pen), Some(known)) = (&*pen, topics.known(topic)) else {
                owed[topic] = 0.0;
                continue;
            };
            while owed[topic] >= 1.0 {
                owed[topic] -= 1.0;
                let number = lane.number.fetch_add(1, Ordering::Relaxed);
                let draft = plan::draft(topic, known.partitions, number, 40, &mut random);
                if !pen.write(topic, &known.id, &draft, None) {
                    break;
                }
            }
        }
        thread::sleep(TICK);
    }
}

fn base(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("message.max.bytes", "8000000")
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "250")
        .set("topic.metadata.refresh.interval.ms", "5000")
        .set("socket.connection.setup.timeout.ms", "2000")
        .set("socket.timeout.ms", "5000")
        .set("request.timeout.ms", "4000")
        .set("log_level", "0");
    config
}

const TICK: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_secs(30);
const DRAIN_MAX: Duration = Duration::from_secs(60);
