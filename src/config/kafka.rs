//! The `[kafka]` section of a configuration.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::files::read_secret;
use crate::config::loader::SectionReader;
use crate::config::values::Properties;
use crate::config::values::Secret;
use crate::kafka::config::ClientCertificate;
use crate::kafka::config::ClusterKind;
use crate::kafka::config::KafkaConfig;
use crate::kafka::config::Sasl;
use crate::kafka::config::SaslMechanism;
use crate::kafka::config::Tls;
use crate::types::setting::ByteSize;
use crate::types::setting::Form;
use crate::types::setting::Raw;
use crate::types::setting::Refusal;
use crate::types::setting::Setting;
use crate::types::setting::Written;
use crate::types::setting::default;
use crate::types::setting::required;
use crate::types::setting::settings;
use crate::types::setting::unset;
use crate::types::trace::ClusterName;
use crate::types::trace::Sampler;

settings! {
    /// How Kafka is reached, and how much of it is kept in memory.
    pub struct KafkaSection {
        /// Brokers to begin with, as `host:port`; the others are found from them.
        pub bootstrap_servers: Vec<String> = required("[\"localhost:9092\"]"),
        /// Name by which brokers log and meter this client.
        pub client_id: String = default("brucke"),
        /// How brokers and this client prove who they are: `"plaintext"`, `"tls"`,
        /// `"sasl_plaintext"` or `"sasl_tls"`.
        pub security: Security = default("plaintext"),
        /// How the password is proved: `"PLAIN"`, `"SCRAM-SHA-256"` or
        /// `"SCRAM-SHA-512"`. Needed with SASL.
        pub sasl_mechanism: Option<SaslMechanism> = unset("SCRAM-SHA-512"),
        /// User name. Needed with SASL.
        pub username: Option<String> = unset("brucke"),
        /// Password. With SASL either this, best by its variable, or
        /// `password_file` is needed.
        pub password: Option<Secret> = unset("from the environment"),
        /// File that holds the password; a line break at its end is not part of it.
        pub password_file: Option<PathBuf> = unset("/run/secrets/kafka-password"),
        /// CA certificates that vouch for the brokers (PEM). Absent: the system's.
        pub ca_file: Option<PathBuf> = unset("/etc/brucke/ca.pem"),
        /// The client's own chain of certificates (PEM), where brokers ask for one.
        pub certificate_file: Option<PathBuf> = unset("/etc/brucke/client.pem"),
        /// Private key of that certificate (PEM).
        pub key_file: Option<PathBuf> = unset("/etc/brucke/client.key"),
        /// Passphrase of the private key, where it has one.
        pub key_password: Option<Secret> = unset("from the environment"),
        /// Bytes of the newest records that are kept in memory, over all topics.
        /// More: clients that are behind read from memory for longer; what they no
        /// longer find there is read from Kafka again.
        pub tail_bytes_max: ByteSize = default("256MiB").within("1MiB", "1024GiB"),
        /// Bytes of older records that are kept while clients catch up.
        pub history_bytes_max: ByteSize = default("64MiB").within("4MiB", "1024GiB"),
        /// Threads that read history, each with a connection to each broker. More
        /// bring catch-up forward at the cost of the live readers' share of the
        /// machine.
        pub history_readers: u32 = default("2").within("1", "16"),
        /// How often topics are described again, to find new partitions and topics
        /// that were deleted and made again.
        pub refresh_interval: Duration = default("2s").within("100ms", "5m"),
        /// How long a topic is read on after its last follower left. Longer: a
        /// client that comes back finds the records in memory.
        pub linger: Duration = default("60s").within("0s", "1d"),
        /// How long to wait before something that failed is tried again.
        pub retry_interval: Duration = default("1s").within("50ms", "1m"),
        /// Any other property of librdkafka, passed on as it is. Those on which a
        /// promise to clients rests are refused.
        pub properties: Properties = default("{}"),
    }
}

/// How brokers and this client prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    Plaintext,
    Tls,
    SaslPlaintext,
    SaslTls,
}

impl Security {
    fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::SaslTls)
    }

    fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslTls)
    }
}

impl Setting for Security {
    const FORM: Form = Form {
        text: "`\"plaintext\"`, `\"tls\"`, `\"sasl_plaintext\"` or `\"sasl_tls\"`",
        written: Written::Text,
    };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        let choices = [
            ("plaintext", Self::Plaintext),
            ("tls", Self::Tls),
            ("sasl_plaintext", Self::SaslPlaintext),
            ("sasl_tls", Self::SaslTls),
        ];
        raw.choose(&Self::FORM, &choices)
    }
}

impl Setting for SaslMechanism {
    const FORM: Form = Form {
        text: "`\"PLAIN\"`, `\"SCRAM-SHA-256\"` or `\"SCRAM-SHA-512\"`",
        written: Written::Text,
    };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        let choices = [Self::Plain, Self::ScramSha256, Self::ScramSha512];
        raw.choose(&Self::FORM, &choices.map(|choice| (choice.as_str(), choice)))
    }
}

/// What the section says of the client.
pub(crate) fn compose(
    reader: &mut SectionReader<'_>,
    section: &KafkaSection,
) -> Option<KafkaConfig> {
    let servers = bootstrap_servers(reader, section);
    let tls = tls(reader, section);
    let sasl = sasl(reader, section);
    let properties = properties(reader, &section.properties);
    let config = KafkaConfig {
        bootstrap_servers: servers?,
        client_id: section.client_id.clone(),
        tls: tls?,
        sasl: sasl?,
        history_readers: section.history_readers as usize,
        properties: properties?.into_iter().collect(),
        cluster: ClusterKind::Kafka,
        sampler: Sampler::Off,
        cluster_name: ClusterName::default(),
    };
    match config.validate() {
        Ok(()) => Some(config),
        Err(error) => {
            reader.refuse("properties", format!("can't be used: {error}; take it out"));
            None
        }
    }
}

fn bootstrap_servers(
    reader: &mut SectionReader<'_>,
    section: &KafkaSection,
) -> Option<Vec<String>> {
    let servers = &section.bootstrap_servers;
    let is_server = |server: &&String| {
        let port = server.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
        matches!(port, Some((host, Ok(1..))) if !host.is_empty())
    };
    if servers.is_empty() {
        reader.refuse("bootstrap_servers", "is empty; write `[\"host:9092\"]`");
        return None;
    }
    if let Some(odd) = servers.iter().find(|server| !is_server(server)) {
        reader.refuse("bootstrap_servers", format!("has {odd:?}; write `\"host:port\"`"));
        return None;
    }
    Some(servers.clone())
}

fn tls(reader: &mut SectionReader<'_>, section: &KafkaSection) -> Option<Option<Tls>> {
    let mut file = |key: &str, path: &Option<PathBuf>| match path {
        None => Some(None),
        Some(_) if !section.security.has_tls() => {
            let text = "contradicts `security`, which is without TLS; write `security = \"tls\"` or \
                        `\"sasl_tls\"`, or leave this out";
            reader.refuse(key, text);
            None
        }
        Some(path) => readable(reader, key, path).map(Some),
    };
    let ca_file = file("ca_file", &section.ca_file);
    let certificate_file = file("certificate_file", &section.certificate_file);
    let key_file = file("key_file", &section.key_file);
    let (ca_file, certificate_file, key_file) = (ca_file?, certificate_file?, key_file?);
    let key_password = section.key_password.as_ref().map(|secret| secret.expose().to_owned());
    let client = match (certificate_file, key_file) {
        (Some(certificate_file), Some(key_file)) => {
            Some(ClientCertificate { certificate_file, key_file, key_password })
        }
        (None, None) if key_password.is_none() => None,
        (None, None) => {
            reader.refuse("key_password", "is for `key_file`, which is missing");
            return None;
        }
        (Some(_), None) => {
            reader.refuse("certificate_file", "needs its private key: add `key_file`");
            return None;
        }
        (None, Some(_)) => {
            reader.refuse("key_file", "needs its certificate: add `certificate_file`");
            return None;
        }
    };
    Some(section.security.has_tls().then_some(Tls { ca_file, client }))
}

fn readable(reader: &mut SectionReader<'_>, key: &str, path: &Path) -> Option<PathBuf> {
    let path = reader.resolve(key, path);
    match std::fs::read(&path) {
        Ok(content) => {
            reader.note_file(key, &content);
            Some(path)
        }
        Err(error) => {
            reader.refuse(key, format!("names {}, which can't be read: {error}", path.display()));
            None
        }
    }
}

fn sasl(reader: &mut SectionReader<'_>, section: &KafkaSection) -> Option<Option<Sasl>> {
    if !section.security.has_sasl() {
        let keys = [
            ("sasl_mechanism", section.sasl_mechanism.is_some()),
            ("username", section.username.is_some()),
            ("password", section.password.is_some()),
            ("password_file", section.password_file.is_some()),
        ];
        let mut valid = Some(None);
        for (key, _) in keys.iter().filter(|(_, is_set)| *is_set) {
            let text = "contradicts `security`, which is without SASL; write `security = \
                        \"sasl_tls\"`, or leave this out";
            reader.refuse(key, text);
            valid = None;
        }
        return valid;
    }
    let mut needed = |key: &str, is_set: bool| {
        if !is_set {
            reader.refuse(key, "is missing, and `security` says SASL; add it");
        }
    };
    needed("sasl_mechanism", section.sasl_mechanism.is_some());
    needed("username", section.username.is_some());
    let password = match (&section.password, &section.password_file) {
        (Some(password), None) => Some(password.clone()),
        (None, Some(path)) => read_secret(reader, "password_file", path),
        (Some(_), Some(_)) => {
            reader.refuse("password", "contradicts `password_file`; keep one of the two");
            None
        }
        (None, None) => {
            let text = "is missing, and `security` says SASL; set BRUCKE_KAFKA_PASSWORD or \
                        `password_file`";
            reader.refuse("password", text);
            None
        }
    };
    Some(Some(Sasl {
        mechanism: section.sasl_mechanism?,
        username: section.username.clone()?,
        password: password?.expose().to_owned(),
    }))
}

/// Properties that have a key of their own here, or that have no meaning here.
const OWN_KEYS: [(&str, &str); 11] = [
    ("client.id", "`client_id` sets it"),
    ("group.id", "no consumer group is ever joined"),
    ("security.protocol", "`security` sets it"),
    ("sasl.mechanism", "`sasl_mechanism` sets it"),
    ("sasl.mechanisms", "`sasl_mechanism` sets it"),
    ("sasl.username", "`username` sets it"),
    ("sasl.password", "`password` sets it"),
    ("ssl.ca.location", "`ca_file` sets it"),
    ("ssl.certificate.location", "`certificate_file` sets it"),
    ("ssl.key.location", "`key_file` sets it"),
    ("ssl.key.password", "`key_password` sets it"),
];

fn properties(
    reader: &mut SectionReader<'_>,
    properties: &Properties,
) -> Option<Vec<(String, String)>> {
    let mut valid = Some(Vec::new());
    for (name, value) in &properties.0 {
        match OWN_KEYS.iter().find(|(own, _)| own == name) {
            Some((_, reason)) => {
                reader.refuse("properties", format!("has `{name}`: {reason}; take it out"));
                valid = None;
            }
            None => {
                if let Some(valid) = &mut valid {
                    valid.push((name.clone(), value.expose().to_owned()));
                }
            }
        }
    }
    valid
}
