//! How Kafka is reached, and the properties of each kind of client.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::kafka::error::KafkaError;
use crate::types::limits::HISTORY_CHUNK_BYTES;
use crate::types::trace::ClusterName;
use crate::types::trace::Sampler;

/// How Kafka is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Brokers to begin with, as `host:port`; the others are found from them.
    pub bootstrap_servers: Vec<String>,
    /// Name by which brokers log and meter this client. Default `brucke`.
    pub client_id: String,
    /// TLS to the brokers; `None` is plaintext.
    pub tls: Option<Tls>,
    /// Who we are to the brokers; `None` is nobody.
    pub sasl: Option<Sasl>,
    /// Threads that read history, each with a connection to each broker.
    /// Default 2; more bring catch-up forward at the cost of the live readers'
    /// share of the machine.
    pub history_readers: usize,
    /// Any other property of librdkafka, passed on as it is. Properties on which
    /// a promise rests are refused.
    pub properties: BTreeMap<String, String>,
    /// Whether this is Kafka or librdkafka's mock of it.
    pub cluster: ClusterKind,
    /// Which records are traced. Default: none.
    pub sampler: Sampler,
    /// Where traces find what the brokers call their cluster.
    pub cluster_name: ClusterName,
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("client_id", &self.client_id)
            .field("tls", &self.tls)
            .field("sasl", &self.sasl)
            .field("history_readers", &self.history_readers)
            // Their values may be secrets.
            .field("properties", &self.properties.keys())
            .field("cluster", &self.cluster)
            .field("sampler", &self.sampler)
            .field("cluster_name", &self.cluster_name)
            .finish()
    }
}

/// What answers at the bootstrap servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterKind {
    /// Apache Kafka, or what speaks like it.
    Kafka,
    /// librdkafka's mock cluster: it has no topic ids, and sleeps through an
    /// empty fetch.
    Mock,
}

/// How brokers prove who they are, and this client to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// File of CA certificates (PEM); `None` takes the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate, where brokers ask for one.
    pub client: Option<ClientCertificate>,
}

/// The certificate by which this client proves who it is.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// File of the certificate chain (PEM).
    pub certificate_file: PathBuf,
    /// File of its private key (PEM).
    pub key_file: PathBuf,
    /// Passphrase of the key, where it has one.
    pub key_password: Option<String>,
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate")
            .field("certificate_file", &self.certificate_file)
            .field("key_file", &self.key_file)
            .finish_non_exhaustive()
    }
}

/// Name and password for the brokers.
#[derive(Clone, PartialEq, Eq)]
pub struct Sasl {
    pub mechanism: SaslMechanism,
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sasl")
            .field("mechanism", &self.mechanism)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// How the password is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl SaslMechanism {
    /// Returns Kafka's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl KafkaConfig {
    /// Returns the configuration with every default, for these brokers.
    pub fn new(bootstrap_servers: Vec<String>) -> Self {
        Self {
            bootstrap_servers,
            client_id: "brucke".to_owned(),
            tls: None,
            sasl: None,
            history_readers: HISTORY_READERS,
            properties: BTreeMap::new(),
            cluster: ClusterKind::Kafka,
            sampler: Sampler::Off,
            cluster_name: ClusterName::default(),
        }
    }

    /// Checks what can be checked without a broker.
    ///
    /// # Errors
    ///
    /// [`KafkaError::ReservedProperty`] for a property that is ours to set,
    /// [`KafkaError::Client`] for one that librdkafka does not take.
    pub fn validate(&self) -> Result<(), KafkaError> {
        for (property, reason) in RESERVED {
            if self.properties.contains_key(*property) {
                return Err(KafkaError::ReservedProperty {
                    property: (*property).to_owned(),
                    reason,
                });
            }
        }
        self.live().create_native_config()?;
        self.history().create_native_config()?;
        self.admin().create_native_config()?;
        Ok(())
    }

    /// Returns the properties of the client that follows partitions live.
    pub(crate) fn live(&self) -> ClientConfig {
        let mut config = self.consumer();
        // The wait is also how long a partition just assigned may stand in line
        // behind a fetch that is already waiting at the same broker.
        set(&mut config, "fetch.wait.max.ms", self.fetch_wait("100"));
        set(&mut config, "fetch.message.max.bytes", LIVE_FETCH_BYTES);
        set(&mut config, "queued.max.messages.kbytes", LIVE_QUEUE_KBYTES);
        self.finish(config)
    }

    /// Returns the properties of a client that reads history.
    pub(crate) fn history(&self) -> ClientConfig {
        let mut config = self.consumer();
        // The end of a partition is told by an empty fetch only.
        set(&mut config, "fetch.wait.max.ms", self.fetch_wait("10"));
        set(&mut config, "fetch.message.max.bytes", HISTORY_CHUNK_BYTES);
        set(&mut config, "queued.max.messages.kbytes", HISTORY_QUEUE_KBYTES);
        self.finish(config)
    }

    /// Returns the properties of the client that asks about topics and offsets.
    pub(crate) fn admin(&self) -> ClientConfig {
        let mut config = self.client();
        set(&mut config, "isolation.level", "read_committed");
        set(&mut config, "allow.auto.create.topics", "false");
        self.finish(config)
    }

    /// Returns the properties of a client that puts records in.
    pub(crate) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        set(&mut config, "linger.ms", "1");
        self.finish(config)
    }

    /// Returns the properties of a client whose records must be with all replicas in
    /// sync, and within this time.
    pub(crate) fn confirmed(&self, timeout: Duration) -> ClientConfig {
        let mut config = self.producer();
        set(&mut config, "acks", "all");
        set(&mut config, "message.timeout.ms", timeout.as_millis());
        config
    }

    fn consumer(&self) -> ClientConfig {
        let mut config = self.client();
        // Partitions are assigned by hand, which librdkafka offers only to
        // members of a group; without a subscription it never joins it.
        set(&mut config, "group.id", &self.client_id);
        set(&mut config, "enable.auto.commit", "false");
        set(&mut config, "enable.auto.offset.store", "false");
        set(&mut config, "auto.offset.reset", "error");
        set(&mut config, "isolation.level", "read_committed");
        set(&mut config, "enable.partition.eof", "true");
        set(&mut config, "allow.auto.create.topics", "false");
        set(&mut config, "fetch.queue.backoff.ms", "5");
        set(&mut config, "fetch.error.backoff.ms", "100");
        set(&mut config, "queued.min.messages", "10000");
        // A byte that turned over on a broker's disk is an error, not a record.
        set(&mut config, "check.crcs", "true");
        config
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        set(&mut config, "bootstrap.servers", self.bootstrap_servers.join(","));
        set(&mut config, "client.id", &self.client_id);
        set(&mut config, "security.protocol", self.protocol());
        // A broker that is back is tried within this time, so that what becomes known
        // then, a gap above all, is told to clients within a second.
        set(&mut config, "reconnect.backoff.ms", "50");
        set(&mut config, "reconnect.backoff.max.ms", "500");
        set(&mut config, "socket.connection.setup.timeout.ms", "5000");
        set(&mut config, "socket.keepalive.enable", "true");
        // A broker that died without a word is noticed by this: no request waits
        // longer than a tenth of it.
        set(&mut config, "socket.timeout.ms", "10000");
        // One record may be as large as the brokers let it be.
        set(&mut config, "receive.message.max.bytes", i32::MAX);
        set(&mut config, "statistics.interval.ms", STATISTICS_INTERVAL.as_millis());
        set(&mut config, "enable.metrics.push", "false");
        if let Some(tls) = &self.tls {
            set_tls(&mut config, tls);
        }
        if let Some(sasl) = &self.sasl {
            set(&mut config, "sasl.mechanism", sasl.mechanism.as_str());
            set(&mut config, "sasl.username", &sasl.username);
            set(&mut config, "sasl.password", &sasl.password);
        }
        config
    }

    fn finish(&self, mut config: ClientConfig) -> ClientConfig {
        config.extend(self.properties.clone());
        config
    }

    fn protocol(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        }
    }

    fn fetch_wait(&self, kafka: &'static str) -> &'static str {
        match self.cluster {
            ClusterKind::Kafka => kafka,
            // The mock sleeps through the whole wait, records or not.
            ClusterKind::Mock => "2",
        }
    }
}

/// How often clients say how they are; each time costs about 1 KB of text for each
/// partition.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(5);
/// Default threads that read history.
pub const HISTORY_READERS: usize = 2;
/// Bytes of one partition that one live fetch may bring; a larger batch of
/// records still comes, alone.
const LIVE_FETCH_BYTES: usize = 512 << 10;
/// Kilobytes of one partition that librdkafka may hold for the live reader.
const LIVE_QUEUE_KBYTES: usize = 1 << 10;
/// Kilobytes that librdkafka may hold ahead of one reader of history.
const HISTORY_QUEUE_KBYTES: usize = 4 << 10;

const _: () = assert!(LIVE_FETCH_BYTES <= LIVE_QUEUE_KBYTES << 10);
const _: () = assert!(HISTORY_CHUNK_BYTES <= HISTORY_QUEUE_KBYTES << 10);

/// Properties that the configuration may not set, and why.
const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it has a key of its own"),
    ("metadata.broker.list", "the brokers have a key of their own"),
    ("auto.offset.reset", "a reader that jumps would lose records without a word"),
    ("isolation.level", "records of aborted transactions are never delivered"),
    ("enable.partition.eof", "the ends of partitions prove that nothing was lost"),
    ("enable.auto.commit", "positions are the clients', nothing is committed"),
    ("auto.commit.enable", "positions are the clients', nothing is committed"),
    ("enable.auto.offset.store", "positions are the clients', nothing is committed"),
    ("allow.auto.create.topics", "a client that names a topic must not create it"),
    ("check.crcs", "a record that a disk has changed is not delivered"),
];

fn set_tls(config: &mut ClientConfig, tls: &Tls) {
    // The bundled OpenSSL does not know where this system keeps its CAs.
    let ca = tls.ca_file.as_ref().map_or("probe".into(), |file| file.to_string_lossy());
    set(config, "ssl.ca.location", ca);
    if let Some(client) = &tls.client {
        set(config, "ssl.certificate.location", client.certificate_file.to_string_lossy());
        set(config, "ssl.key.location", client.key_file.to_string_lossy());
        if let Some(password) = &client.key_password {
            set(config, "ssl.key.password", password);
        }
    }
}

fn set(config: &mut ClientConfig, property: &str, value: impl ToString) {
    config.set(property, value.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> KafkaConfig {
        KafkaConfig::new(vec!["a:9092".to_owned(), "b:9092".to_owned()])
    }

    #[test]
    fn librdkafka_takes_what_is_composed() {
        config().validate().expect("defaults are valid");
        let mut secure = config();
        secure.tls = Some(Tls::default());
        secure.sasl = Some(Sasl {
            mechanism: SaslMechanism::ScramSha512,
            username: "u".to_owned(),
            password: "p".to_owned(),
        });
        secure.properties.insert("fetch.wait.max.ms".to_owned(), "7".to_owned());
        secure.validate().expect("SASL over TLS is valid");
        let live = secure.live();
        assert_eq!(live.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(live.get("bootstrap.servers"), Some("a:9092,b:9092"));
        assert_eq!(live.get("fetch.wait.max.ms"), Some("7"), "the operator has the last word");
    }

    #[test]
    fn a_property_on_which_a_promise_rests_is_refused() {
        for (property, _) in RESERVED {
            let mut config = config();
            config.properties.insert((*property).to_owned(), "x".to_owned());
            let refused = config.validate();
            assert!(matches!(refused, Err(KafkaError::ReservedProperty { .. })), "{refused:?}");
        }
    }

    #[test]
    fn no_property_makes_a_confirmed_record_less_than_that() {
        let mut config = config();
        config.properties.insert("acks".to_owned(), "0".to_owned());
        let confirmed = config.confirmed(Duration::from_secs(5));
        assert_eq!(confirmed.get("acks"), Some("all"));
        assert_eq!(confirmed.get("message.timeout.ms"), Some("5000"));
        confirmed.create_native_config().expect("librdkafka takes it");
    }

    #[test]
    fn a_property_that_librdkafka_does_not_know_is_refused() {
        let mut config = config();
        config.properties.insert("no.such.property".to_owned(), "1".to_owned());
        assert!(matches!(config.validate(), Err(KafkaError::Client(_))));
    }

    #[test]
    fn a_password_is_never_shown() {
        let mut config = config();
        config.sasl = Some(Sasl {
            mechanism: SaslMechanism::Plain,
            username: "u".to_owned(),
            password: "canary".to_owned(),
        });
        config.tls = Some(Tls {
            ca_file: None,
            client: Some(ClientCertificate {
                certificate_file: "c".into(),
                key_file: "k".into(),
                key_password: Some("canary".to_owned()),
            }),
        });
        config.properties.insert("ssl.key.pem".to_owned(), "canary".to_owned());
        assert!(!format!("{config:?}").contains("canary"));
    }
}
