//! Putting records into Kafka: for the demo's generator, the load client and
//! tests. The bridge itself only reads, and announces what is revoked.

use std::fmt;
use std::time::Duration;

use rdkafka::config::FromClientConfig as _;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::Header;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::Producer as _;
use rdkafka::producer::ThreadedProducer;
use rdkafka::types::RDKafkaErrorCode;

use crate::kafka::config::KafkaConfig;
use crate::kafka::error::KafkaError;
use crate::types::ids::PartitionId;
use crate::types::ids::TopicName;

/// Sends records and does not wait for them.
pub struct RecordProducer {
    producer: ThreadedProducer<DefaultProducerContext>,
}

/// A record to be sent.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord<'a> {
    /// `None` chooses the partition by the key.
    pub partition: Option<PartitionId>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, &'a [u8])],
}

impl RecordProducer {
    /// Returns a producer for the cluster that `config` names.
    ///
    /// # Errors
    ///
    /// [`KafkaError::Client`] when librdkafka refuses the properties.
    pub fn new(config: &KafkaConfig) -> Result<Self, KafkaError> {
        let producer = ThreadedProducer::from_config(&config.producer())?;
        Ok(Self { producer })
    }

    /// Hands a record over. While the client's queue is full it waits, so that a
    /// generator runs no faster than the brokers take.
    ///
    /// # Errors
    ///
    /// [`KafkaError::Client`] when the record can't be sent at all.
    pub fn send(&self, topic: &TopicName, record: &NewRecord<'_>) -> Result<(), KafkaError> {
        let mut new = BaseRecord::<[u8], [u8]>::to(topic.as_str());
        new.partition = record.partition.map(PartitionId::as_kafka);
        new.key = record.key;
        new.payload = record.value;
        if !record.headers.is_empty() {
            let headers = record.headers.iter();
            new.headers = Some(headers.fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(*value) })
            }));
        }
        loop {
            match self.producer.send(new) {
                Ok(()) => return Ok(()),
                Err((ClientError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    // A flush that runs out of time has still made room.
                    let _ = self.producer.flush(FLUSH_INTERVAL);
                    new = back;
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Waits until all that was handed over is in Kafka.
    ///
    /// # Errors
    ///
    /// [`KafkaError::Client`] when it is not by then.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaError> {
        Ok(self.producer.flush(timeout)?)
    }
}

impl fmt::Debug for RecordProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordProducer").finish_non_exhaustive()
    }
}

/// How long a full queue is flushed before the record is tried again.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
