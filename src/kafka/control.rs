//! The thread that runs the intake (being written).

use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::kafka::config::KafkaConfig;
use crate::kafka::error::KafkaError;
use crate::registry::directory::Directory;
use crate::registry::intake::Intake;
use crate::registry::message::Command;

/// The running Kafka side; dropping it stops its threads and waits for them.
#[derive(Debug)]
pub struct KafkaHandle {}

/// Starts the threads of the Kafka side.
///
/// # Errors
///
/// When the configuration is refused or the system gives no thread. Brokers that
/// do not answer are no error: they are asked again, and readiness says so.
pub fn start(
    config: &KafkaConfig,
    intake: Intake,
    directory: Arc<Directory>,
    commands: Receiver<Command>,
) -> Result<KafkaHandle, KafkaError> {
    let _ = (intake, directory, commands);
    config.validate()?;
    unimplemented!()
}
