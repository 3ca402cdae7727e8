//! What the demo's replicas run by: the file `brucke.toml` beside this one, and
//! what only a running demo can know.

use toml::Table;
use toml::Value;

use crate::config;
use crate::config::Config;
use crate::kafka::config::KafkaConfig;
use crate::server::signing_key::SigningKey;

/// The file, as the page shows it and as it runs against any Kafka.
pub const FILE: &str = include_str!("brucke.toml");

/// Returns the configuration of one replica.
///
/// It is read as that of `brucke serve` is, with each key of the file in its
/// variable. `page_port` is where the page that may connect comes from.
///
/// # Errors
///
/// When the file is not valid.
pub fn replica(
    kafka: KafkaConfig,
    signing_key: &SigningKey,
    page_port: u16,
) -> anyhow::Result<Config> {
    let mut variables = variables(FILE)?;
    let origins = ["127.0.0.1", "localhost"].map(|host| format!("http://{host}:{page_port}"));
    variables.extend(
        [
            ("BRUCKE_KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers.join(",")),
            // Any port that is free: the page asks where.
            ("BRUCKE_SERVER_LISTEN", "127.0.0.1:0".to_owned()),
            ("BRUCKE_SERVER_WORKERS", "1".to_owned()),
            // A restart that is watched shall not take long.
            ("BRUCKE_SERVER_DRAIN_DELAY", "0s".to_owned()),
            ("BRUCKE_SERVER_DRAIN_WINDOW", "2s".to_owned()),
            ("BRUCKE_SERVER_ALLOWED_ORIGINS", origins.join(",")),
            ("BRUCKE_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("BRUCKE_DEMO_SECRET", signing_key.private_text().to_owned()),
            ("BRUCKE_LOG_LEVEL", "warn".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let mut config = config::load(None, variables.into_iter())?;
    config.kafka.cluster = kafka.cluster;
    Ok(config)
}

/// Returns the variable of each key of a configuration file.
fn variables(file: &str) -> anyhow::Result<Vec<(String, String)>> {
    let mut variables = Vec::new();
    for (section, value) in file.parse::<Table>()? {
        let mut add = |name: String, value: Value| {
            let text = match value {
                Value::String(text) => text,
                value => value.to_string(),
            };
            variables.push((format!("BRUCKE_{}", name.to_uppercase()), text));
        };
        match value {
            Value::Table(keys) => {
                keys.into_iter().for_each(|(key, value)| add(format!("{section}_{key}"), value));
            }
            value => add(section, value),
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::app::demo::world;
    use crate::server::key::Algorithm;
    use crate::tenancy::channel::ChannelSource;

    #[test]
    fn the_file_is_a_configuration_of_the_worlds_topics() {
        let key = SigningKey::generate(Algorithm::Hs256).expect("random numbers");
        let kafka = KafkaConfig::new(vec!["127.0.0.1:9".to_owned()]);
        let config = replica(kafka, &key, 8080).expect("the file is valid");
        assert!(config.server.allowed_origins[0].is(b"http://127.0.0.1:8080"));
        let topics = world::topics();
        assert_eq!(config.channels.iter().count(), 3);
        for channel in config.channels.iter() {
            let ChannelSource::Topic(source) = &channel.source else { continue };
            assert!(topics.iter().any(|topic| topic.name == source.topic), "{channel:?}");
        }
    }

    #[test]
    fn the_file_is_one_that_serve_takes() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/app/demo/brucke.toml");
        let secret = ("BRUCKE_DEMO_SECRET".to_owned(), "0123456789abcdef".repeat(2));
        config::load(Some(file.as_ref()), [secret].into_iter()).expect("the file is valid");
    }
}
