//! The librdkafka client that all threads of this room use, and what it says by
//! itself: logs and errors that concern no single partition.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::types::RDKafkaErrorCode;
use tracing::debug;
use tracing::error;
use tracing::info;
use tracing::warn;

use crate::kafka::error::KafkaError;
use crate::kafka::statistics::Statistics;
use crate::kafka::status::ClientId;
use crate::kafka::status::KafkaStatus;
use crate::kafka::status::Role;
use crate::types::ids::TopicId;
use crate::types::ids::TopicName;

/// A client of a cluster. Cloning shares it.
pub(in crate::kafka) type Client = Arc<BaseConsumer<Context>>;

/// Makes a client; it connects by itself, and goes on trying.
///
/// # Errors
///
/// [`KafkaError::Client`] when librdkafka refuses the properties.
pub(in crate::kafka) fn connect(
    config: &ClientConfig,
    status: &Arc<KafkaStatus>,
    role: Role,
) -> Result<Client, KafkaError> {
    let context = Context { status: Arc::clone(status), id: status.client_made(role) };
    Ok(Arc::new(BaseConsumer::from_config_and_context(config, context)?))
}

/// The topics that a client has read, each with its identity.
///
/// librdkafka remembers the leader epochs of a topic by its name. Of one that was
/// made again they begin anew, and it takes what brokers say of its leaders for
/// old news: it would ask the wrong broker for ever. Such a topic is read through
/// another client.
#[derive(Debug, Default)]
pub(in crate::kafka) struct KnownTopics(HashMap<TopicName, TopicId>);

impl KnownTopics {
    /// Says whether the client may read this topic.
    pub(in crate::kafka) fn admit(&self, topic: &TopicName, id: TopicId) -> bool {
        self.0.get(topic).is_none_or(|known| *known == id)
    }

    /// Notes that the client reads this topic.
    pub(in crate::kafka) fn note(&mut self, topic: &TopicName, id: TopicId) {
        self.0.insert(topic.clone(), id);
    }
}

/// A client that is made anew before it would read a topic that was made again, and
/// when it has been silent where it should not.
pub(in crate::kafka) struct RenewedClient {
    config: ClientConfig,
    status: Arc<KafkaStatus>,
    role: Role,
    client: Client,
    known: KnownTopics,
    trust: Trust,
    /// When it was last asked who leads a topic.
    asked: HashMap<TopicName, Instant>,
}

/// Whether a client is thought to hear what brokers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Whole,
    Lost,
}

impl RenewedClient {
    /// Returns a client that has read nothing yet.
    ///
    /// # Errors
    ///
    /// When librdkafka refuses the properties.
    pub(in crate::kafka) fn connect(
        config: ClientConfig,
        status: &Arc<KafkaStatus>,
        role: Role,
    ) -> Result<Self, KafkaError> {
        let client = connect(&config, status, role)?;
        let (status, known) = (Arc::clone(status), KnownTopics::default());
        let (trust, asked) = (Trust::Whole, HashMap::new());
        Ok(Self { config, status, role, client, known, trust, asked })
    }

    /// Returns the client as it is.
    pub(in crate::kafka) fn as_is(&self) -> &Client {
        &self.client
    }

    /// Makes the next reading begin with another client.
    pub(in crate::kafka) fn distrust(&mut self) {
        self.trust = Trust::Lost;
    }

    /// Asks who leads the partitions of a topic, unless that was asked just now; says
    /// whether a broker answered.
    pub(in crate::kafka) fn finds_leaders(&mut self, topic: &TopicName) -> bool {
        let now = Instant::now();
        let asked = self.asked.get(topic);
        if asked.is_some_and(|asked| now.saturating_duration_since(*asked) < LEADERS_FRESH) {
            return true;
        }
        let answered = self.client.fetch_metadata(Some(topic.as_str()), LEADERS_MAX).is_ok();
        if answered {
            self.asked.insert(topic.clone(), now);
        }
        answered
    }

    /// Returns the client with which to read this topic from now on.
    ///
    /// # Errors
    ///
    /// When librdkafka makes no other.
    pub(in crate::kafka) fn of(
        &mut self,
        topic: &TopicName,
        id: TopicId,
    ) -> Result<&Client, KafkaError> {
        if self.trust == Trust::Lost || !self.known.admit(topic, id) {
            self.client = connect(&self.config, &self.status, self.role)?;
            self.known = KnownTopics::default();
            self.trust = Trust::Whole;
            self.asked.clear();
        }
        self.known.note(topic, id);
        Ok(&self.client)
    }
}

/// Serves what the client says by itself. To be called a few times a second.
pub(in crate::kafka) fn serve(client: &Client) {
    for _ in 0..EVENTS_PER_TURN {
        // Records come by the partitions' own queues, and errors have been told
        // to the context: nothing is left to do here. A poll that waits for nothing
        // serves one event and says the same as where there is none, so that only
        // another tells; an empty one costs less than a microsecond.
        let _ = client.poll(Duration::ZERO);
    }
}

/// How long to ask who leads a topic.
const LEADERS_MAX: Duration = Duration::from_secs(2);
/// For how long what was said then is believed.
const LEADERS_FRESH: Duration = Duration::from_secs(1);
/// Events that are served before the caller goes on with its own work.
const EVENTS_PER_TURN: usize = 50;

/// Where a client's logs and errors go.
pub(in crate::kafka) struct Context {
    status: Arc<KafkaStatus>,
    id: ClientId,
}

impl Drop for Context {
    fn drop(&mut self) {
        self.status.client_ended(self.id);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => error!(target: "librdkafka", facility, "{text}"),
            RDKafkaLogLevel::Warning => warn!(target: "librdkafka", facility, "{text}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                info!(target: "librdkafka", facility, "{text}");
            }
            RDKafkaLogLevel::Debug => debug!(target: "librdkafka", facility, "{text}"),
        }
    }

    fn stats_raw(&self, said: &[u8]) {
        match Statistics::parse(said) {
            Some(said) => self.status.note_statistics(self.id, said),
            None => debug!("statistics of a kafka client can't be read"),
        }
    }

    fn error(&self, error: ClientError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.status.brokers_lost(),
            // No group is ever joined, so that leave to join one is not needed.
            Some(
                RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::PartitionEOF,
            ) => return,
            _ => self.status.note_complaint(reason),
        }
        self.status.count_client_error(kind_of(&error));
        debug!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for Context {}

/// Returns the kind of an error, as metrics name it.
fn kind_of(error: &ClientError) -> &'static str {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AllBrokersDown) => "all_brokers_down",
        Some(RDKafkaErrorCode::BrokerTransportFailure) => "transport",
        Some(RDKafkaErrorCode::Resolve) => "resolve",
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
            "authentication"
        }
        Some(RDKafkaErrorCode::SSL) => "tls",
        Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut) => {
            "timed_out"
        }
        _ => "other",
    }
}
