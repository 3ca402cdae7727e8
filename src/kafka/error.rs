//! Why the Kafka side can't do what it was told.

use std::io;

use rdkafka::error::KafkaError as ClientError;
use thiserror::Error;

use crate::types::ids::TopicName;

/// Why the Kafka side can't be started, or can't do what it was told.
#[derive(Debug, Error)]
pub enum KafkaError {
    /// The configuration sets a property on which a promise rests.
    #[error("kafka property {property:?} is set by brucke itself: {reason}")]
    ReservedProperty { property: String, reason: &'static str },
    /// The configuration is not one that librdkafka takes.
    #[error("kafka client can't be made: {0}")]
    Client(#[from] ClientError),
    /// More sources read one topic, each under its own rule, than clients can be
    /// had for.
    #[error("topic {topic} is read under more than {max} tenancy rules")]
    TooManyRules { topic: TopicName, max: usize },
    /// The system gave no thread.
    #[error("kafka thread can't be started: {0}")]
    Thread(#[from] io::Error),
}
