//! What can go wrong before the Kafka threads run.

use std::io;

use rdkafka::error::KafkaError as ClientError;
use thiserror::Error;

/// Why the Kafka side could not be started.
#[derive(Debug, Error)]
pub enum KafkaError {
    /// The configuration sets a property on which a promise rests.
    #[error("kafka property {property:?} is set by brucke itself: {reason}")]
    ReservedProperty { property: String, reason: &'static str },
    /// The configuration is not one that librdkafka takes.
    #[error("kafka client can't be made: {0}")]
    Client(#[from] ClientError),
    /// The system gave no thread.
    #[error("kafka thread can't be started: {0}")]
    Thread(#[from] io::Error),
}
