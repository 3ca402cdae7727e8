//! Loads the configuration: a TOML file, and a variable for every key, which
//! counts more than the file.
//!
//! Each part declares its own keys; this room reads them, composes what the parts
//! need, and refuses contradictions between them. `loader` reads and remembers
//! everything that is wrong; `template` writes the same declarations down for
//! people. A configuration that loads is valid.

use std::path::Path;
use std::time::Duration;

use crate::admin::config::AdminConfig;
use crate::config::auth::AuthSection;
use crate::config::kafka::KafkaSection;
use crate::config::loader::Loader;
use crate::config::problem::ConfigErrors;
use crate::kafka::config::KafkaConfig;
use crate::server::config::ServerConfig;
use crate::server::token::AuthConfig;
use crate::telemetry::config::LogConfig;
use crate::tenancy::channel::Channels;

pub mod auth;
mod catalogue;
pub mod channels;
mod document;
mod files;
pub mod kafka;
mod loader;
pub mod problem;
pub mod template;
pub mod values;

/// Everything that an operator has set.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: ServerConfig,
    pub admin: AdminConfig,
    pub kafka: KafkaConfig,
    pub intake: IntakeConfig,
    pub auth: AuthConfig,
    pub channels: Channels,
    pub log: LogConfig,
}

/// How much of Kafka is kept in memory, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntakeConfig {
    /// Bytes of the newest records.
    pub tail_bytes_max: u64,
    /// Bytes of older records, while clients catch up.
    pub history_bytes_max: u64,
    /// How often topics are described again.
    pub refresh_interval: Duration,
    /// How long a topic is read on after its last follower left.
    pub linger: Duration,
    /// How long to wait before something that failed is tried again.
    pub retry_interval: Duration,
}

/// Loads the configuration from the file at `path`, if any, and the environment.
///
/// # Errors
///
/// Every problem that was found.
pub fn load(
    path: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigErrors> {
    let mut loader = Loader::new(path, environment)?;
    let config = compose(&mut loader);
    loader.finish(config)
}

fn compose(loader: &mut Loader) -> Option<Config> {
    let mut section = loader.section("server");
    let server = section.read::<ServerConfig>();
    section.finish();

    let mut section = loader.section("admin");
    let admin = section.read::<AdminConfig>();
    section.finish();

    let mut section = loader.section("kafka");
    let settings = section.read::<KafkaSection>();
    let kafka = settings.as_ref().and_then(|settings| kafka::compose(&mut section, settings));
    let intake = settings.as_ref().map(intake);
    section.finish();

    let mut section = loader.section("auth");
    let settings = section.read::<AuthSection>();
    let auth = auth::compose(&mut section, settings.clone());
    section.finish();

    let channels = channels::read(loader);

    let mut section = loader.section("log");
    let log = section.read::<LogConfig>();
    section.finish();

    let (server, admin) = (server?, admin?);
    if server.listen == admin.listen && server.listen.port() != 0 {
        loader.refuse("admin.listen", "is the same as `server.listen`; choose another port");
    }
    if let (Some(settings), Some(AuthConfig::Nobody { .. })) = (settings, &auth)
        && !server.listen.ip().is_loopback()
        && !settings.none_beyond_loopback
    {
        let text = "is `none`, and `server.listen` is not loopback: everybody there could read. \
                    Use tokens, listen on 127.0.0.1, or write `none_beyond_loopback = true`";
        loader.refuse("auth.mode", text);
    }
    Some(Config {
        server,
        admin,
        kafka: kafka?,
        intake: intake?,
        auth: auth?,
        channels: channels?,
        log: log?,
    })
}

fn intake(settings: &KafkaSection) -> IntakeConfig {
    IntakeConfig {
        tail_bytes_max: settings.tail_bytes_max.0,
        history_bytes_max: settings.history_bytes_max.0,
        refresh_interval: settings.refresh_interval,
        linger: settings.linger,
        retry_interval: settings.retry_interval,
    }
}
