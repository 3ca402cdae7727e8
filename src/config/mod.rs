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
use crate::config::files::read_secret;
use crate::config::fingerprints::Fingerprints;
use crate::config::kafka::KafkaSection;
use crate::config::loader::Loader;
use crate::config::loader::SectionReader;
use crate::config::problem::ConfigErrors;
use crate::config::reload::ReloadConfig;
use crate::config::values::Secret;
use crate::kafka::config::KafkaConfig;
use crate::server::config::ServerConfig;
use crate::server::tls::pair::PairFiles;
use crate::server::token::AuthConfig;
use crate::telemetry::config::LogConfig;
use crate::telemetry::config::MetricsConfig;
use crate::telemetry::traces::config::TracingConfig;
use crate::tenancy::channel::Channels;
use crate::tenancy::quota::QuotaRules;
use crate::tenancy::topic::parse_topic;
use crate::types::ids::TopicName;

pub mod auth;
mod catalogue;
pub mod channels;
mod document;
mod files;
pub mod fingerprints;
pub mod kafka;
mod loader;
pub mod problem;
pub mod reload;
mod server;
pub mod template;
pub mod tenants;
pub mod values;

/// Everything that an operator has set.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: ServerConfig,
    /// The certificate of the clients' listener; `None` without TLS.
    pub tls: Option<PairFiles>,
    pub admin: AdminConfig,
    /// Shown by whoever uses the admin interface.
    pub admin_token: Option<Secret>,
    /// By which replicas tell each other what is revoked.
    pub revocations_topic: Option<TopicName>,
    pub kafka: KafkaConfig,
    pub intake: IntakeConfig,
    pub auth: AuthConfig,
    pub channels: Channels,
    /// What each tenant may hold of this replica.
    pub quotas: QuotaRules,
    pub log: LogConfig,
    pub metrics: MetricsConfig,
    pub tracing: TracingConfig,
    pub reload: ReloadConfig,
    /// Tells loads apart.
    pub fingerprints: Fingerprints,
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
    let tls = server.as_ref().and_then(|settings| server::tls(&mut section, settings));
    if let Some(settings) = &server {
        server::check_proxies(&mut section, settings);
    }
    section.finish();

    let mut section = loader.section("admin");
    let admin = section.read::<AdminConfig>();
    let admin_token = admin.as_ref().and_then(|admin| admin_token(&mut section, admin));
    let revocations_topic = admin.as_ref().and_then(|admin| {
        let topic = admin.revocations_topic.as_deref()?;
        let parsed = parse_topic(topic);
        parsed.map_err(|error| section.refuse("revocations_topic", error.to_string())).ok()
    });
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

    let mut section = loader.section("tenants");
    let quotas = tenants::compose(&mut section);
    section.finish();

    let mut section = loader.section("log");
    let log = section.read::<LogConfig>();
    section.finish();

    let mut section = loader.section("metrics");
    let metrics = section.read::<MetricsConfig>();
    section.finish();

    let mut section = loader.section("tracing");
    let tracing = section.read::<TracingConfig>();
    section.finish();

    let mut section = loader.section("reload");
    let reload = section.read::<ReloadConfig>();
    section.finish();

    let (server, admin) = (server?, admin?);
    if let (Some(topic), Some(channels)) = (&revocations_topic, &channels)
        && channels.iter().any(|channel| channel.source.may_be(topic))
    {
        let text = "is the topic of a channel, whose clients would read it; choose another";
        loader.refuse("admin.revocations_topic", text);
    }
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
        tls: tls?,
        admin,
        admin_token,
        revocations_topic,
        kafka: kafka?,
        intake: intake?,
        auth: auth?,
        channels: channels?,
        quotas: quotas?,
        log: log?,
        metrics: metrics?,
        tracing: tracing?,
        reload: reload?,
        fingerprints: loader.fingerprints(),
    })
}

/// Reads the token of the admin interface; the reader reports what keeps it from
/// being read.
fn admin_token(reader: &mut SectionReader<'_>, admin: &AdminConfig) -> Option<Secret> {
    let token = match (&admin.token_file, &admin.token_env) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            reader.refuse("token_env", "contradicts `token_file`; keep one of the two");
            return None;
        }
        (Some(file), None) => read_secret(reader, "token_file", file)?,
        (None, Some(variable)) => {
            let token = reader.named_variable(variable).map(Secret::new);
            if token.is_none() {
                let text = format!("names the variable {variable}, which is not set");
                reader.refuse("token_env", text);
            }
            token?
        }
    };
    if token.expose().len() < ADMIN_TOKEN_BYTES_MIN {
        let key = if admin.token_file.is_some() { "token_file" } else { "token_env" };
        let text = format!("leads to a token shorter than {ADMIN_TOKEN_BYTES_MIN} bytes");
        reader.refuse(key, text);
        return None;
    }
    Some(token)
}

/// What is shorter can be guessed.
const ADMIN_TOKEN_BYTES_MIN: usize = 16;

fn intake(settings: &KafkaSection) -> IntakeConfig {
    IntakeConfig {
        tail_bytes_max: settings.tail_bytes_max.0,
        history_bytes_max: settings.history_bytes_max.0,
        refresh_interval: settings.refresh_interval,
        linger: settings.linger,
        retry_interval: settings.retry_interval,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::settings::Settings;
    use crate::server::key::Algorithm;
    use crate::server::signing_key::SigningKey;
    use crate::server::token::Verifier;
    use crate::types::filter::KeyFilter;
    use crate::types::ids::ChannelName;
    use crate::types::ids::TenantId;
    use crate::types::limits;

    /// What every configuration needs, on lines 1 to 3; `{}` goes on at line 4.
    const LEAST: &str = "\
        channels = [{ name = \"orders\", topic = \"{tenant}.orders\" }]\n\
        auth = { mode = \"none\", tenant = \"acme\" }\n\
        kafka.bootstrap_servers = [\"k:9092\"]\n";

    fn load_text(toml: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("brucke.toml");
        std::fs::write(&path, toml).expect("written");
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        load(Some(&path), variables.iter().map(owned))
    }

    /// Loads, and returns every problem as a line, without the folder's name.
    fn problems(toml: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let Err(errors) = load_text(toml, variables) else { return Vec::new() };
        let lines = errors.to_string();
        let lines = lines.lines().map(|line| match line.find("brucke.toml") {
            Some(at) => line[at..].to_owned(),
            None => line.to_owned(),
        });
        lines.collect()
    }

    fn check(toml: &str, expected: &[&str]) {
        check_with(toml, &[], expected);
    }

    fn check_with(toml: &str, variables: &[(&str, &str)], expected: &[&str]) {
        let found = problems(toml, variables);
        let same = found.len() == expected.len()
            && found.iter().zip(expected).all(|(line, start)| line.starts_with(start));
        assert!(same, "expected {expected:#?}, found {found:#?}");
    }

    #[test]
    fn no_client_reads_the_topic_of_revocations() {
        let load = |topic: &str, channel: &str, expected: &[&str]| {
            let channels = format!(
                "channels = [{{ name = \"a\", topic = \"{channel}\", tenant = \"shared\" }}]"
            );
            let channels = match channel.contains('{') {
                true => channels.replace(", tenant = \"shared\"", ""),
                false => channels,
            };
            let rest = LEAST.split_once('\n').expect("a line").1;
            check(&format!("{channels}\n{rest}admin.revocations_topic = \"{topic}\"\n"), expected);
        };
        let refused = ["brucke.toml:4: admin.revocations_topic"];
        load("revoked", "orders", &[]);
        load("revoked", "orders.{tenant}", &[]);
        load("orders", "orders", &refused);
        load("orders.acme", "orders.{tenant}", &refused);
        load("no topic", "orders", &refused);
    }

    #[test]
    fn what_stands_for_no_tenant_in_a_topic_is_named() {
        let load = |topic: &str, expected: &str| {
            let channels = format!("channels = [{{ name = \"a\", topic = \"{topic}\" }}]");
            let rest = LEAST.split_once('\n').expect("a line").1;
            check(&format!("{channels}\n{rest}"), one_or_none(&expected));
        };
        load("{tenant}.orders", "");
        let stranger = "brucke.toml:1: channels[0].topic has `{tenat}`, which stands for nothing; \
                        did you mean `{tenant}`?";
        load("{tenat}.orders", stranger);
        load("{tenant}.{tenat}", stranger);
        load("orders", "brucke.toml:1: channels[0].tenant is missing: whose are the records");
    }

    /// Expects one problem, or none for no text.
    fn one_or_none<'p>(expected: &'p &'p str) -> &'p [&'p str] {
        if expected.is_empty() { &[] } else { std::slice::from_ref(expected) }
    }

    /// Adds lines to what every configuration needs.
    fn also(lines: &str) -> String {
        format!("{LEAST}{lines}")
    }

    #[test]
    fn values_are_refused_with_line_key_and_remedy() {
        check(LEAST, &[]);
        check(
            &also("[server]\nheartbeat_interval = 25"),
            &["brucke.toml:5: server.heartbeat_interval is 25 without a unit; write a duration"],
        );
        check(
            &also("[server]\nheartbeat_interval = \"25x\""),
            &["brucke.toml:5: server.heartbeat_interval has the unknown unit \"x\"; write"],
        );
        check(
            &also("[server]\nheartbeat_interval = \"2d\""),
            &["brucke.toml:5: server.heartbeat_interval is too large; write 1s to 10m"],
        );
        check(
            &also("[server]\nlisten = \"localhost\""),
            &["brucke.toml:5: server.listen is \"localhost\"; write an address and a port"],
        );
        check(
            &also("[server]\nallowed_origins = [\"*\"]"),
            &["brucke.toml:5: server.allowed_origins \"*\" has a wildcard"],
        );
        check(
            &also("[log]\nlevel = \"loud\""),
            &["brucke.toml:5: log.level is \"loud\"; write `\"error\"`"],
        );
        check(
            &also("log = 5"),
            &["brucke.toml:4: log is a bare number; it is a section: write `[log]`"],
        );
    }

    #[test]
    fn unknown_keys_are_refused_with_what_was_meant() {
        check(
            &also("[server]\nlisten = \"127.0.0.1:1\"\nlisen = \"x\""),
            &["brucke.toml:6: server.lisen is no key; did you mean `listen`?"],
        );
        check(
            &also("[admin]\nport = 1"),
            &["brucke.toml:5: admin.port is no key; there are listen"],
        );
        check(&also("[sever]\n"), &["brucke.toml:4: sever is no key; did you mean `server`?"]);
        check(
            "kafka.bootstrap_servers = [\"k:9092\"]\nauth = { mode = \"none\", tenant = \"a\" }\n\
             [[channels]]\nname = \"a\"\ntopic = \"a\"\ntenant = \"shared\"\nkeys = \"x\"",
            &["brucke.toml:7: channels[0].keys is no key; did you mean `key`?"],
        );
    }

    #[test]
    fn every_problem_is_named_at_once() {
        check(
            "[server]\nworkers = 0\nx = 1\n[kafka]\nlinger = \"1y\"\n[auth]\n[[channels]]\nname = \"a\"",
            &[
                "brucke.toml:2: server.workers is too small",
                "brucke.toml:3: server.x is no key",
                "brucke.toml:4: kafka.bootstrap_servers is missing; write a list",
                "brucke.toml:5: kafka.linger has the unknown unit",
                "brucke.toml:6: auth.issuers are missing",
                "brucke.toml:8: channels[0].topic is missing; write text",
            ],
        );
    }

    #[test]
    fn what_is_no_toml_is_named_without_its_text() {
        check("a = 1\npassword = canary\n", &["brucke.toml:2: not TOML"]);
        assert!(!problems("password = canary", &[]).concat().contains("canary"));
    }

    #[test]
    fn a_variable_counts_more_than_the_file() {
        let toml = also("[server]\nlisten = \"127.0.0.1:1\"\nworkers = 2");
        let variables = [
            ("BRUCKE_SERVER_LISTEN", "127.0.0.1:7"),
            ("BRUCKE_SERVER_WORKERS", ""),
            ("BRUCKE_SERVER_ALLOWED_ORIGINS", "https://a.example, https://b.example"),
            ("BRUCKE_KAFKA_PROPERTIES", "{ \"socket.timeout.ms\" = 10000 }"),
            ("BRUCKE_LOG_FORMAT", "json"),
        ];
        let config = load_text(&toml, &variables).expect("valid");
        assert_eq!(config.server.listen.port(), 7);
        assert_eq!(config.server.workers, Some(2), "an empty variable is not set");
        assert_eq!(config.server.allowed_origins.len(), 2);
        assert_eq!(config.kafka.properties["socket.timeout.ms"], "10000");
    }

    #[test]
    fn the_environment_alone_is_enough() {
        let variables = [
            ("BRUCKE_KAFKA_BOOTSTRAP_SERVERS", "a:9092,b:9092"),
            ("BRUCKE_CHANNELS", "[{ name = \"orders\", topic = \"{tenant}.orders\" }]"),
            (
                "BRUCKE_AUTH_ISSUERS",
                "[{ issuer = \"i\", audience = [\"a\"], algorithm = \"HS256\", secret_env = \"S\" }]",
            ),
            ("S", "0123456789abcdef0123456789abcdef"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = load(None, variables.into_iter()).expect("valid");
        assert_eq!(config.kafka.bootstrap_servers, ["a:9092", "b:9092"]);
        assert!(matches!(config.auth, AuthConfig::Tokens(keys) if keys.len() == 1));
    }

    #[test]
    fn variables_are_refused_by_their_names() {
        let check = |name, value, expected: &[&str]| check_with(LEAST, &[(name, value)], expected);
        check(
            "BRUCKE_SERVER_WORKERS",
            "many",
            &["BRUCKE_SERVER_WORKERS: server.workers is text; write a number"],
        );
        check(
            "BRUCKE_SERVER_LISEN",
            "x",
            &["BRUCKE_SERVER_LISEN: is no key of Brücke's; did you mean `BRUCKE_SERVER_LISTEN`?"],
        );
        check("BRUCKE_KAFKA_WHATEVER", "x", &["BRUCKE_KAFKA_WHATEVER: is no key of Brücke's"]);
        check(
            "BRUCKE_CHANNELS",
            "[{ name = \"a\", topic = \"a\" }]",
            &["BRUCKE_CHANNELS: channels[0].tenant is missing"],
        );
        check("BRUCKE_CHANNELS", "a,b", &["BRUCKE_CHANNELS: channels is text; write a list"]);
        check("BRUCKE_CHANNELS", "[1]", &["BRUCKE_CHANNELS: channels[0] is a bare number"]);
        for ours_not in ["BRUCKE_URL", "BRUCKE_ADMIN_PORT", "BRUCKE_ADMIN_SERVICE_HOST"] {
            check(ours_not, "x", &[]);
        }
        check("BRUCKE_ADMIN_PORT_9090_TCP_ADDR", "x", &[]);
    }

    #[test]
    fn contradictions_are_refused_where_they_stand() {
        check(
            &also("[server]\nlisten = \"127.0.0.1:9090\""),
            &["brucke.toml: admin.listen is the same as `server.listen`"],
        );
        check(
            &also("server.listen = \"0.0.0.0:80\""),
            &["brucke.toml:2: auth.mode is `none`, and `server.listen` is not loopback"],
        );
        let open = also("server.listen = \"0.0.0.0:80\"");
        check_with(&open, &[("BRUCKE_AUTH_NONE_BEYOND_LOOPBACK", "true")], &[]);
        check_with(
            LEAST,
            &[("BRUCKE_AUTH_MODE", "tokens")],
            &["brucke.toml:2: auth.tenant is for", "brucke.toml:2: auth.issuers are missing"],
        );
    }

    /// Checks `[kafka]` with these lines, from line 4 on.
    fn check_kafka(lines: &str, expected: &[&str]) {
        let least = LEAST.replace("kafka.bootstrap_servers", "[kafka]\nbootstrap_servers");
        check(&format!("{least}{lines}"), expected);
    }

    #[test]
    fn kafka_is_refused_what_could_not_connect_or_break_a_promise() {
        let security = "brucke.toml:5: kafka";
        check_kafka("username = \"u\"", &[&format!("{security}.username contradicts `security`")]);
        check_kafka("ca_file = \"ca\"", &[&format!("{security}.ca_file contradicts `security`")]);
        check_kafka(
            "security = \"sasl_tls\"",
            &[
                "brucke.toml:3: kafka.sasl_mechanism is missing",
                "brucke.toml:3: kafka.username is missing",
                "brucke.toml:3: kafka.password is missing",
            ],
        );
        check_kafka(
            "security = \"tls\"\nca_file = \"no-such-file\"",
            &["brucke.toml:6: kafka.ca_file names "],
        );
        check_kafka(
            "[kafka.properties]\n\"auto.offset.reset\" = \"latest\"",
            &["brucke.toml:5: kafka.properties can't be used: "],
        );
        check_kafka(
            "properties.isolation.level = \"read_uncommitted\"",
            &["brucke.toml:5: kafka.properties can't be used: "],
        );
        check_kafka(
            "properties = { \"group.id\" = \"x\" }",
            &["brucke.toml:5: kafka.properties has `group.id`: no consumer group"],
        );
        check_kafka(
            "properties = { \"no.such\" = \"x\" }",
            &["brucke.toml:5: kafka.properties can't be used: "],
        );
        let odd = LEAST.replace("k:9092", "k");
        check(&odd, &["brucke.toml:3: kafka.bootstrap_servers has \"k\"; write"]);
    }

    /// Checks `[[channels]]` with these lines, from line 4 on.
    fn check_channel(lines: &str, expected: &[&str]) {
        let rest = "kafka.bootstrap_servers = [\"k:9092\"]\n\
                    auth = { mode = \"none\", tenant = \"acme\" }\n\
                    [[channels]]\n";
        check(&format!("{rest}{lines}"), expected);
    }

    #[test]
    fn channels_are_refused_what_could_mix_tenants_or_clients() {
        let check = |lines: &str, expected: &str| {
            let lines = format!("name = \"a\"\n{lines}");
            check_channel(&lines, one_or_none(&expected));
        };
        check("topic = \"t\"\ntenant = \"shared\"", "");
        check("topic = \"t\"\ntenant = { header = \"h\" }\nkey = \"{sub}\"", "");
        check("topic = \"t\"", "brucke.toml:4: channels[0].tenant is missing: whose");
        check(
            "topic = \"t\"\ntenant = \"acme\"",
            "brucke.toml:6: channels[0].tenant is \"acme\"; write `\"shared\"`",
        );
        check(
            "topic = \"t\"\ntenant = { header = \"h\", value = \"/t\" }",
            "brucke.toml:6: channels[0].tenant must say one thing",
        );
        check(
            "topic = \"t\"\ntenant = { headers = \"h\" }",
            "brucke.toml:6: channels[0].tenant has the unknown `headers`",
        );
        check(
            "topic = \"t\"\ntenant = { value = \"tenant\" }",
            "brucke.toml:6: channels[0].tenant has the value \"tenant\", which is no JSON pointer",
        );
        check(
            "topic = \"{tenant}.t\"\ntenant = \"shared\"",
            "brucke.toml:6: channels[0].tenant contradicts `{tenant}` in the topic",
        );
        check("topic = \"{tenant}\"", "brucke.toml:5: channels[0].topic is \"{tenant}\": ");
        check(
            "topic = \"t\"\ntenant = \"shared\"\nkey_prefix = \"{sub}\"",
            "brucke.toml:7: channels[0].key_prefix is \"{sub}\": a prefix must end in text",
        );
        check(
            "topic = \"t\"\ntenant = \"shared\"\nkey_prefix = \"{sub}:\"\nkey = \"{sub}\"",
            "brucke.toml:8: channels[0].key contradicts `key_prefix`",
        );
        check(
            "topic = \"t\"\ntenant = \"shared\"\ntenants = []",
            "brucke.toml:7: channels[0].tenants is empty",
        );
        check(
            "topic = \"{tenant}.t\"\n[[channels]]\nname = \"b\"\ntopic = \"x-{tenant}.t\"",
            "brucke.toml:3: channels contradict each other: channels `a` and `b`",
        );
    }

    #[test]
    fn quotas_are_of_every_tenant_but_for_exceptions() {
        let lines = "[tenants]\nconnections_max = 10\nsubscriptions_max = 100\n\
                     [[tenants.exceptions]]\ntenant = \"acme\"\nconnections_max = 0\n\
                     [[tenants.exceptions]]\ntenant = \"Acme\"\nsubscriptions_max = 7\n";
        let quotas = load_text(&also(lines), &[]).expect("valid").quotas;
        let of = |tenant: &str| {
            let quota = quotas.of(&TenantId::new(tenant));
            [quota.connections_max, quota.subscriptions_max].map(|max| max.map(|max| max.get()))
        };
        assert_eq!(of("blub"), [Some(10), Some(100)]);
        assert_eq!(of("acme"), [None, Some(100)]);
        assert_eq!(of("Acme"), [Some(10), Some(7)]);
        let none = load_text(LEAST, &[]).expect("valid").quotas;
        assert_eq!(none, QuotaRules::default());
        let twice = format!("{lines}[[tenants.exceptions]]\ntenant = \"acme\"\n");
        check(
            &also(&twice),
            &["brucke.toml:14: tenants.exceptions[2].tenant has an exception already"],
        );
        check(
            &also("[tenants.exceptions.acme]\nconnections_max = 1"),
            &["brucke.toml:4: tenants.exceptions is a table; write a list of tables"],
        );
        check(&also("[tenants]\nmax = 1"), &["brucke.toml:5: tenants.max is no key"]);
    }

    /// Checks `[[auth.issuers]]` with these lines, from line 6 on.
    fn check_issuer(lines: &str, expected: &[&str]) {
        let rest = "kafka.bootstrap_servers = [\"k:9092\"]\n\
                    channels = [{ name = \"a\", topic = \"{tenant}.a\" }]\n\
                    [[auth.issuers]]\n\
                    issuer = \"i\"\n\
                    audience = [\"a\"]\n";
        check_with(&format!("{rest}{lines}"), &[("SECRET", &"s".repeat(32))], expected);
    }

    #[test]
    fn issuers_are_refused_keys_that_do_not_fit() {
        let public = |algorithm| {
            let key = SigningKey::generate(algorithm).expect("a key");
            key.public_text().expect("has one").replace('\n', "\\n")
        };
        let ed = public(Algorithm::EdDsa);
        let ec = public(Algorithm::Es256);
        let check = |algorithm: &str, key: &str, expected: &str| {
            let lines = format!("algorithm = \"{algorithm}\"\n{key}");
            check_issuer(&lines, one_or_none(&expected));
        };
        check("EdDSA", &format!("pem = \"{ed}\""), "");
        check("ES256", &format!("pem = \"{ec}\""), "");
        check("HS256", "secret_env = \"SECRET\"", "");
        let at = "brucke.toml:7: auth.issuers[0]";
        check(
            "ES256",
            &format!("pem = \"{ed}\""),
            &format!("{at}.pem is no public key in PEM for"),
        );
        check(
            "EdDSA",
            &format!("pem = \"{ec}\""),
            &format!("{at}.pem is no public key in PEM for"),
        );
        check(
            "RS256",
            &format!("pem = \"{ed}\""),
            &format!("{at}.pem is no public key in PEM for"),
        );
        check("HS256", &format!("pem = \"{ed}\""), &format!("{at}.pem must be a secret"));
        check(
            "RS256",
            "secret_env = \"SECRET\"",
            &format!("{at}.secret_env is a secret, and RS256"),
        );
        check("HS256", "secret = \"short\"", &format!("{at}.secret has fewer than 32 bytes"));
        check(
            "HS256",
            "secret_env = \"NONE\"",
            &format!("{at}.secret_env names the variable NONE"),
        );
        check("HS256", "secret_file = \"none\"", &format!("{at}.secret_file names "));
        check("HS256", "", "brucke.toml:4: auth.issuers[0].key has no key: add one of");
        check(
            "none",
            "secret = \"x\"",
            "brucke.toml:6: auth.issuers[0].algorithm is \"none\"; write",
        );
        check(
            "HS256",
            &format!("pem = \"{ed}\"\nsecret_env = \"SECRET\""),
            "brucke.toml:8: auth.issuers[0].secret_env contradicts `pem`",
        );
    }

    #[test]
    fn a_private_key_is_refused_and_never_shown() {
        let key = SigningKey::generate(Algorithm::EdDsa).expect("a key");
        let pem = key.private_text().replace('\n', "\\n");
        let lines = format!("algorithm = \"EdDSA\"\npem = \"{pem}\"");
        check_issuer(&lines, &["brucke.toml:7: auth.issuers[0].pem holds a private key"]);
        let jwk = "algorithm = \"EdDSA\"\njwk = '{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"\",\"d\":\"canary\"}'";
        check_issuer(jwk, &["brucke.toml:7: auth.issuers[0].jwk holds a private key; give the"]);
    }

    #[test]
    fn secrets_are_never_shown() {
        let toml = also("")
            .replace("kafka.bootstrap_servers", "[kafka]\nbootstrap_servers")
            .replace("auth = { mode = \"none\", tenant = \"acme\" }", "")
            + "security = \"sasl_plaintext\"\nsasl_mechanism = \"PLAIN\"\nusername = \"u\"\n\
               password = \"canary-1\"\nproperties = { \"ssl.key.pem\" = \"canary-2\" }\n\
               [[auth.issuers]]\nissuer = \"i\"\naudience = [\"a\"]\nalgorithm = \"HS256\"\n\
               secret = \"canary-3-0123456789abcdef0123456789\"\n";
        let config = load_text(&toml, &[]).expect("valid");
        assert!(!format!("{config:?}").contains("canary"));
        let broken = toml.replace("\"canary-1\"", "[\"canary-1\"]") + "pem = \"canary-4\"\n";
        let found = problems(&broken, &[]);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(!found.concat().contains("canary"), "{found:#?}");
    }

    #[test]
    fn files_stand_beside_the_configuration() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = SigningKey::generate(Algorithm::Rs256).expect("a key");
        std::fs::write(folder.path().join("rs.pem"), key.public_text().expect("has one"))
            .expect("ok");
        let path = folder.path().join("brucke.toml");
        let toml = "kafka.bootstrap_servers = [\"k:9092\"]\n\
                    channels = [{ name = \"a\", topic = \"{tenant}.a\" }]\n\
                    [[auth.issuers]]\nissuer = \"i\"\naudience = [\"a\"]\nalgorithm = \"RS256\"\n\
                    pem_file = \"rs.pem\"\n";
        std::fs::write(&path, toml).expect("written");
        load(Some(&path), std::iter::empty()).expect("valid");
        let missing = load(Some(&folder.path().join("none.toml")), std::iter::empty());
        assert!(missing.expect_err("no file").to_string().contains("none.toml: can't be read"));
    }

    #[test]
    fn the_example_is_valid_with_a_key_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/brucke.toml");
        let path = folder.path().join("brucke.toml");
        std::fs::copy(example, &path).expect("the example is there");
        let key = SigningKey::generate(Algorithm::EdDsa).expect("a key");
        let public = key.public_text().expect("has one");
        std::fs::write(folder.path().join("dev.pub.pem"), public).expect("written");
        let config = load(Some(&path), std::iter::empty()).expect("valid");
        assert_eq!(config.channels.iter().count(), 3);
    }

    #[test]
    fn the_configuration_in_the_documentation_is_valid() {
        let folder = tempfile::tempdir().expect("a folder");
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        let page = std::fs::read_to_string(page).expect("the page is there");
        let (_, rest) = page.split_once("```toml\n").expect("the page has an example");
        let (toml, _) = rest.split_once("```").expect("the example ends");
        let path = folder.path().join("brucke.toml");
        std::fs::write(&path, toml).expect("written");
        let key = SigningKey::generate(Algorithm::Es256).expect("a key");
        let public = key.public_text().expect("has one");
        std::fs::write(folder.path().join("login.pem"), public).expect("written");
        load(Some(&path), std::iter::empty()).expect("valid");
    }

    #[test]
    fn defaults_are_those_of_the_parts() {
        let config = load_text(LEAST, &[]).expect("valid");
        let own = config.server.delivery(1);
        let theirs = Settings { connections_max: own.connections_max, ..Default::default() };
        assert_eq!(format!("{own:?}"), format!("{theirs:?}"));
        let kafka = KafkaConfig::new(vec!["k:9092".to_owned()]);
        assert_eq!(config.kafka, kafka);
        assert_eq!(config.intake.tail_bytes_max, limits::TAIL_BYTES_MAX);
        assert_eq!(config.intake.history_bytes_max, limits::HISTORY_BYTES_MAX);
    }

    #[test]
    fn everybody_is_the_one_tenant_where_no_token_is_asked_for() {
        let config = load_text(LEAST, &[]).expect("valid");
        let verifier = Verifier::new(config.auth, config.channels.claims());
        let everybody = verifier.anonymous().expect("nobody needs a token");
        let orders = ChannelName::new("orders");
        let grant = config.channels.grant(&everybody, &orders, &KeyFilter::All).expect("may read");
        assert_eq!(grant.tenant, Some(TenantId::new("acme")));
    }
}
