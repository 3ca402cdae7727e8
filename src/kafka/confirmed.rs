//! Writes single records and says whether all replicas in sync have them.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use crossbeam_channel::Sender;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::producer::ThreadedProducer;
use rdkafka::types::RDKafkaErrorCode;

use crate::kafka::config::KafkaConfig;
use crate::kafka::error::KafkaError;
use crate::types::ids::TopicName;

/// A producer that connects when it is first used.
pub struct ConfirmedProducer {
    config: KafkaConfig,
    producer: Mutex<Option<Producer>>,
}

type Producer = Arc<ThreadedProducer<Reports>>;

impl ConfirmedProducer {
    /// Returns a producer that has done nothing yet.
    pub fn new(config: &KafkaConfig) -> Self {
        Self { config: config.clone(), producer: Mutex::new(None) }
    }

    /// Writes a record to partition 0 and waits until all replicas in sync have it,
    /// but not longer than [`WRITE_TIMEOUT`]. It blocks.
    ///
    /// # Errors
    ///
    /// [`KafkaError::Client`] when it is not there by then. It may be later.
    pub fn write(&self, topic: &TopicName, key: &[u8], value: &[u8]) -> Result<(), KafkaError> {
        let producer = self.producer()?;
        let (told, report) = crossbeam_channel::bounded(1);
        let record = BaseRecord::<[u8], [u8], Told>::with_opaque_to(topic.as_str(), Box::new(told));
        let record = record.partition(0).key(key).payload(value);
        let late = ClientError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
        let sent = producer.send(record).map_err(|(error, _)| error);
        let written =
            sent.and_then(|()| report.recv_timeout(WRITE_TIMEOUT + GRACE).unwrap_or(Err(late)));
        if written.is_err() {
            // What it knows of the topic may be of one that has been made again since.
            *self.lock() = None;
        }
        Ok(written?)
    }

    fn producer(&self) -> Result<Producer, KafkaError> {
        let mut producer = self.lock();
        if let Some(producer) = &*producer {
            return Ok(Producer::clone(producer));
        }
        let config = self.config.confirmed(WRITE_TIMEOUT);
        let made = Producer::new(ThreadedProducer::from_config_and_context(&config, Reports)?);
        *producer = Some(Producer::clone(&made));
        Ok(made)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Producer>> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ConfirmedProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfirmedProducer").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Passes on what became of each record.
struct Reports;

/// Where whoever wrote a record waits.
type Told = Box<Sender<Result<(), ClientError>>>;

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Told;

    fn delivery(&self, result: &DeliveryResult<'_>, told: Told) {
        let outcome = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.clone()),
        };
        // Whoever wrote it may have given up.
        let _ = told.send(outcome);
    }
}

/// How long a record may take.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// The client keeps the time itself; this catches what it does not.
const GRACE: Duration = Duration::from_secs(2);
