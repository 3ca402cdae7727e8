//! Revocations that hold at all replicas: written to a topic by the one that is
//! asked, and read from there by each.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Builder;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::app::explain::now;
use crate::app::health::ReplicaHealth;
use crate::delivery::view::Question;
use crate::kafka::config::KafkaConfig;
use crate::kafka::confirmed::ConfirmedProducer;
use crate::kafka::journal::Journal;
use crate::kafka::journal::JournalState;
use crate::kafka::journal::JournalStatus;
use crate::server::inquiry::Workers;
use crate::telemetry::events::Ignored;
use crate::telemetry::events::RevocationIgnored;
use crate::telemetry::events::RevocationUntold;
use crate::tenancy::notice;
use crate::tenancy::notice::Notice;
use crate::tenancy::revocation::Revocation;
use crate::tenancy::revocation::Revocations;
use crate::tenancy::revocation::Revoked;
use crate::tenancy::revocation::TooMany;
use crate::types::record::RawRecord;

/// Tells all replicas what is revoked. Cloning shares it.
#[derive(Debug, Clone)]
pub(in crate::app) struct Announcer {
    status: Arc<JournalStatus>,
    producer: Arc<ConfirmedProducer>,
}

impl Announcer {
    /// Returns what writes to the topic of `status`.
    pub(in crate::app) fn new(config: &KafkaConfig, status: Arc<JournalStatus>) -> Self {
        Self { status, producer: Arc::new(ConfirmedProducer::new(config)) }
    }

    /// Writes a revocation, and waits until all replicas of the topic that are in sync
    /// have it.
    ///
    /// # Errors
    ///
    /// Why it can't be written, in words.
    pub(in crate::app) async fn announce(&self, revocation: &Revocation) -> Result<(), String> {
        let topic = self.status.topic().clone();
        // A topic that is missing must not be made by the way, as brokers may do.
        match self.status.state() {
            JournalState::Read => {}
            JournalState::Unread { reason: None } => {
                return Err(format!("topic {topic} has not been read yet"));
            }
            JournalState::Unread { reason: Some(reason) } | JournalState::Failing { reason } => {
                return Err(format!("topic {topic} can't be read: {reason}"));
            }
        }
        let key = notice::key(&revocation.of).ok_or("no token has so long a `jti` or `sub`")?;
        let value = notice::value(revocation);
        let producer = Arc::clone(&self.producer);
        let written = spawn_blocking(move || producer.write(&topic, &key, &value)).await;
        match written {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Begins to read the topic by which replicas tell each other, where there is one:
/// what it says is revoked, and connections that have such a token are closed.
///
/// # Errors
///
/// What keeps it from being read at all, in one sentence.
pub(in crate::app) fn listen(
    config: &KafkaConfig,
    health: &ReplicaHealth,
    workers: &Workers,
) -> anyhow::Result<Option<Journal>> {
    let Some(status) = &health.journal else { return Ok(None) };
    let revocations = Arc::clone(&health.revocations);
    let listener = Listener { revocations, workers: workers.clone() };
    let each = move |record: &RawRecord<'_>| listener.hear(record);
    let journal = Journal::start(config, Arc::clone(status), &health.kafka, each);
    journal.context("the revocations can't be read").map(Some)
}

/// Hears what any replica has announced; it belongs to the thread that reads.
struct Listener {
    revocations: Arc<Revocations>,
    workers: Workers,
}

impl Listener {
    fn hear(&self, record: &RawRecord<'_>) {
        let now = now();
        match notice::read(record.key, record.value) {
            Ok(Notice::Revoke(revocation)) if revocation.until <= now => {
                self.revocations.forget(&revocation.of);
            }
            Ok(Notice::Revoke(revocation)) => {
                let of = revocation.of.clone();
                match self.revocations.add(revocation, now) {
                    Ok(()) => self.close(&of),
                    Err(TooMany) => {
                        RevocationIgnored { offset: record.offset, why: Ignored::Limit }.emit();
                    }
                }
            }
            Ok(Notice::Forget(of)) => self.revocations.forget(&of),
            Err(strange) => {
                let why = Ignored::Strange(strange);
                RevocationIgnored { offset: record.offset, why }.emit();
            }
        }
    }

    /// Closes the connections that have such a token. A worker that is busy is asked
    /// again for a while: nobody new comes in meanwhile.
    fn close(&self, of: &Revoked) {
        let question = Question::Revoke(of.clone());
        let closed = || -> anyhow::Result<()> {
            let runtime = Builder::new_current_thread().enable_time().build()?;
            runtime.block_on(async {
                let mut unanswered = None;
                for _ in 0..ATTEMPTS {
                    match self.workers.ask_all(&question).await {
                        Ok(_) => return Ok(()),
                        Err(error) => unanswered = Some(error),
                    }
                    sleep(PAUSE).await;
                }
                Err(unanswered.expect("it was tried").into())
            })
        };
        if let Err(error) = closed() {
            RevocationUntold { error: &*error }.emit();
        }
    }
}

/// Times that busy workers are asked.
const ATTEMPTS: usize = 20;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(100);
