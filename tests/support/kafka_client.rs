//! Producing to and changing a Kafka cluster, for tests.

use std::time::Duration;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::admin::AdminClient;
use rdkafka::admin::AdminOptions;
use rdkafka::admin::AlterConfig;
use rdkafka::admin::NewPartitions;
use rdkafka::admin::NewTopic;
use rdkafka::admin::ResourceSpecifier;
use rdkafka::admin::TopicReplication;
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Header;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::DeliveryFuture;
use rdkafka::producer::FutureProducer;
use rdkafka::producer::FutureRecord;
use rdkafka::producer::Producer as _;
use tokio::runtime::Runtime;

/// Makes and changes topics.
pub struct KafkaAdmin {
    servers: String,
    client: AdminClient<DefaultClientContext>,
    runtime: Runtime,
}

impl KafkaAdmin {
    /// Returns one for the cluster behind `servers`.
    pub fn new(servers: &str) -> Self {
        Self { servers: servers.to_owned(), client: admin_client(servers), runtime: runtime() }
    }

    /// Makes a topic, with one replica of each partition on one broker.
    pub fn create_topic(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) {
        self.create_replicated_topic(topic, partitions, 1, config);
    }

    /// Makes a topic whose partitions have `replicas` replicas.
    pub fn create_replicated_topic(
        &self,
        topic: &str,
        partitions: i32,
        replicas: i32,
        config: &[(&str, &str)],
    ) {
        let replication = TopicReplication::Fixed(replicas);
        let mut new = NewTopic::new(topic, partitions, replication);
        for (key, value) in config {
            new = new.set(key, value);
        }
        let was_there = self.has_topic(topic);
        let results = self.runtime.block_on(self.client.create_topics([&new], &options()));
        let result = &results.expect("the broker answers")[0];
        // A request whose answer was lost is sent again, and finds what the first has made.
        let is_there = matches!(result, Err((_, RDKafkaErrorCode::TopicAlreadyExists)));
        assert!(result.is_ok() || (is_there && !was_there), "the topic is not made: {result:?}");
    }

    /// Says whether a broker knows a topic. It asks for all: one that is asked for by name
    /// might be made by that.
    fn has_topic(&self, topic: &str) -> bool {
        let metadata = self.client.inner().fetch_metadata(None, TIMEOUT);
        let metadata = metadata.expect("the broker answers");
        metadata.topics().iter().any(|known| known.name() == topic)
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, topic: &str) {
        let results = self.runtime.block_on(self.client.delete_topics(&[topic], &options()));
        results.expect("the broker answers")[0].as_ref().expect("the topic is deleted");
    }

    /// Brings a topic to `partitions` partitions.
    pub fn create_partitions(&self, topic: &str, partitions: usize) {
        let new = NewPartitions::new(topic, partitions);
        let results = self.runtime.block_on(self.client.create_partitions([&new], &options()));
        results.expect("the broker answers")[0].as_ref().expect("the partitions are made");
    }

    /// Deletes the records of a partition below `before`. Where a broker has
    /// ceased to lead it, the one is asked that a new client finds: librdkafka's
    /// goes on asking the old one.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        let before = rdkafka::Offset::Offset(before);
        list.add_partition_offset(topic, partition, before).expect("a valid offset");
        let deadline = Instant::now() + LEADER_PATIENCE;
        loop {
            let client = admin_client(&self.servers);
            let result = self.runtime.block_on(client.delete_records(&list, &options()));
            let elements = result.expect("the broker answers");
            let failed = elements.elements().into_iter().find_map(|place| place.error().err());
            let Some(failed) = failed else { return };
            let moved =
                failed.rdkafka_error_code() == Some(RDKafkaErrorCode::NotLeaderForPartition);
            assert!(moved && Instant::now() < deadline, "records are not deleted: {failed}");
            std::thread::sleep(LEADER_PACE);
        }
    }

    /// Replaces the configuration of a topic.
    pub fn alter_config(&self, topic: &str, config: &[(&str, &str)]) {
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (key, value) in config {
            alter = alter.set(key, value);
        }
        let results = self.runtime.block_on(self.client.alter_configs([&alter], &options()));
        results.expect("the broker answers")[0].as_ref().expect("the configuration is changed");
    }
}

/// A record to produce.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewRecord<'a> {
    pub partition: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// Milliseconds since the Unix epoch; `None` is now.
    pub timestamp: Option<i64>,
}

impl<'a> NewRecord<'a> {
    /// Returns a record with a key and a value.
    pub fn new(partition: i32, key: &'a str, value: &'a str) -> Self {
        let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
        Self { partition, key, value, ..Self::default() }
    }
}

/// Produces records and waits for their offsets.
pub struct KafkaProducer {
    producer: FutureProducer,
    runtime: Runtime,
}

impl KafkaProducer {
    /// Returns one for the cluster behind `servers`.
    pub fn new(servers: &str) -> Self {
        Self::with(ClientConfig::new().set("bootstrap.servers", servers))
    }

    /// Returns one that produces in transactions under `id`.
    pub fn transactional(servers: &str, id: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers).set("transactional.id", id);
        let this = Self::with(&mut config);
        this.producer.init_transactions(TIMEOUT).expect("transactions begin");
        this
    }

    fn with(config: &mut ClientConfig) -> Self {
        config.set("linger.ms", "1").set("message.max.bytes", "50000000");
        // A retry on a loaded machine must not write anything twice or later.
        config.set("enable.idempotence", "true");
        Self { producer: config.create().expect("a producer"), runtime: runtime() }
    }

    /// Hands one record over; [`KafkaProducer::wait`] gives its offset.
    pub fn enqueue(&self, topic: &str, record: &NewRecord<'_>) -> DeliveryFuture {
        let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: *value })
        });
        let mut new = FutureRecord::<[u8], [u8]>::to(topic).partition(record.partition);
        new.key = record.key;
        new.payload = record.value;
        new.timestamp = record.timestamp;
        if !record.headers.is_empty() {
            new.headers = Some(headers);
        }
        loop {
            match self.producer.send_result(new) {
                Ok(delivery) => return delivery,
                Err((error, back)) => {
                    let full = rdkafka::types::RDKafkaErrorCode::QueueFull;
                    assert_eq!(error.rdkafka_error_code(), Some(full), "{error}");
                    self.producer.flush(TIMEOUT).expect("the broker takes records");
                    new = back;
                }
            }
        }
    }

    /// Waits until a record is in the log and returns its offset.
    pub fn wait(&self, delivery: DeliveryFuture) -> i64 {
        let report = self.runtime.block_on(delivery).expect("the producer lives");
        report.map_err(|(error, _)| error).expect("the record is accepted").offset
    }

    /// Produces records and returns their offsets, in the order given.
    pub fn send(&self, topic: &str, records: &[NewRecord<'_>]) -> Vec<i64> {
        let enqueued: Vec<_> = records.iter().map(|r| self.enqueue(topic, r)).collect();
        enqueued.into_iter().map(|delivery| self.wait(delivery)).collect()
    }

    /// Begins a transaction.
    pub fn begin(&self) {
        self.producer.begin_transaction().expect("a transaction begins");
    }

    /// Commits the transaction.
    pub fn commit(&self) {
        self.producer.commit_transaction(TIMEOUT).expect("the transaction is committed");
    }

    /// Aborts the transaction.
    pub fn abort(&self) {
        self.producer.abort_transaction(TIMEOUT).expect("the transaction is aborted");
    }
}

fn admin_client(servers: &str) -> AdminClient<DefaultClientContext> {
    let client = ClientConfig::new().set("bootstrap.servers", servers).create();
    client.expect("an admin client")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

const TIMEOUT: Duration = Duration::from_secs(20);
/// How long the leader of a partition may not be known, and how often it is asked.
const LEADER_PATIENCE: Duration = Duration::from_secs(15);
const LEADER_PACE: Duration = Duration::from_millis(200);
