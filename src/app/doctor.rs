//! `brucke doctor`: holds the configuration against the cluster, in sentences.

use std::collections::BTreeSet;
use std::io;
use std::io::Write as _;
use std::net::TcpStream;
use std::net::ToSocketAddrs as _;
use std::process::ExitCode;
use std::time::Duration;

use crate::app::cli::ConfigArgs;
use crate::app::config_command;
use crate::app::explain::now;
use crate::app::topics;
use crate::config::Config;
use crate::kafka::inspect::Cause;
use crate::kafka::inspect::ClusterView;
use crate::kafka::inspect::Compacted;
use crate::kafka::inspect::Inspector;
use crate::kafka::inspect::Retention;
use crate::kafka::inspect::Silence;
use crate::kafka::inspect::TopicFault;
use crate::kafka::inspect::TopicView;
use crate::protocol::json::time::read_duration;
use crate::telemetry::traces::settings::TracingSettings;
use crate::tenancy::channel::ChannelSource;
use crate::types::ids::TenantId;
use crate::types::ids::TopicName;
use crate::types::limits::PARTITIONS_MAX;

/// Check the configuration against the cluster: brokers, topics, permissions,
/// retention, clocks, collector.
///
/// One line for each check: `ok`, `warn` or `fail`. Exit code 0 when nothing
/// failed, 1 when something did, 2 for wrong arguments.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// How long clients are promised to be able to come back: retention is held
    /// against it.
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    resume_within: Duration,
    /// A tenant whose topics must be there, where each tenant has its own; may be
    /// repeated. Without one, those that exist are looked at.
    #[arg(long)]
    tenant: Vec<String>,
}

/// Runs all checks and prints them.
///
/// # Errors
///
/// When the configuration does not load.
pub fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let config = config_command::load(args.config.config.as_deref())?;
    let mut report = Report::default();
    report.say(Grade::Ok, "the configuration is valid");
    check_cluster(&config, args, &mut report);
    check_collector(&config, &mut report);
    Ok(match report.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// What was found so far.
#[derive(Debug, Default)]
struct Report {
    failed: usize,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    Ok,
    Warn,
    Fail,
}

impl Report {
    fn say(&mut self, grade: Grade, text: impl AsRef<str>) {
        let name = match grade {
            Grade::Ok => "ok  ",
            Grade::Warn => "warn",
            Grade::Fail => "fail",
        };
        self.failed += usize::from(grade == Grade::Fail);
        // Nobody may be reading any more; the exit code still says how it ended.
        let _ = writeln!(io::stdout(), "{name}  {}", text.as_ref());
    }
}

fn check_cluster(config: &Config, args: &DoctorArgs, report: &mut Report) {
    let inspector = match Inspector::new(&config.kafka) {
        Ok(inspector) => inspector,
        Err(error) => return report.say(Grade::Fail, format!("kafka: {error}")),
    };
    let servers = config.kafka.bootstrap_servers.join(", ");
    let cluster = match inspector.cluster() {
        Ok(cluster) => cluster,
        Err(silence) => return report.say(Grade::Fail, silent(&servers, &silence)),
    };
    let (count, brokers) = (cluster.brokers.len(), cluster.brokers.join(", "));
    report.say(
        Grade::Ok,
        format!("kafka: {servers} answers; {}: {brokers}", counted(count, "broker")),
    );
    say_security(config, report);
    for topic in wanted(config, args, &cluster, report) {
        check_topic(&inspector, &topic, args.resume_within, report);
    }
    if let Some(topic) = &config.revocations_topic {
        check_revocations(&inspector, topic, report);
    }
}

/// Looks whether replicas can tell each other what is revoked.
fn check_revocations(inspector: &Inspector, topic: &TopicName, report: &mut Report) {
    let mut say = |grade, text: &str| report.say(grade, format!("revocations {topic}: {text}"));
    let view = match inspector.topic(topic) {
        Ok(view) => view,
        Err(TopicFault::Missing) => {
            return say(Grade::Fail, "does not exist: create it, compacted and of one partition");
        }
        Err(fault) => return say(Grade::Fail, &wrong(&fault)),
    };
    match view.partitions {
        1 => say(Grade::Ok, "one partition, and may be read"),
        count => {
            let text = format!("{count} partitions, and must have one: replicas won't be ready");
            say(Grade::Fail, &text);
        }
    }
    match (view.compacted, view.retention) {
        (_, Retention::Unknown) => say(
            Grade::Warn,
            "its settings may not be seen, so that nobody knows whether it is compacted: give the \
             principal DESCRIBE_CONFIGS",
        ),
        (Compacted::No, _) => say(
            Grade::Fail,
            "is not compacted: replicas that start later would not hear of older revocations; set \
             cleanup.policy=compact",
        ),
        (Compacted::Yes, Retention::For(kept)) => {
            let hours = kept.as_secs_f64() / 3_600.0;
            let text = format!(
                "also loses records by age, after {hours:.1} h: nothing may be revoked for longer"
            );
            say(Grade::Warn, &text);
        }
        (Compacted::Yes, Retention::Forever) => say(Grade::Ok, "compacted, and keeps each key"),
    }
}

fn silent(servers: &str, silence: &Silence) -> String {
    let meaning = match silence.cause {
        Cause::Name => "a broker's name is not known here: check the name and the DNS",
        Cause::Connection => {
            "nobody answers there: check address and port, firewalls, and whether brokers expect \
             TLS where `[kafka]` has none or the other way round"
        }
        Cause::Tls => {
            "TLS failed: check `kafka.ca_file`, that the certificate names the broker as it is \
             called here, and a client certificate where brokers ask for one"
        }
        Cause::Sasl => {
            "the brokers refuse the name and password, or the mechanism: check `username`, the \
             password and `sasl_mechanism` of `[kafka]`"
        }
        Cause::Unknown => "no broker answers",
    };
    format!("kafka: {servers}: {meaning} ({})", silence.complaint)
}

fn say_security(config: &Config, report: &mut Report) {
    let tls = if config.kafka.tls.is_some() { "over TLS" } else { "without TLS" };
    let who = match &config.kafka.sasl {
        Some(sasl) => format!("as {} by {}", sasl.username, sasl.mechanism.as_str()),
        None => "as nobody in particular".to_owned(),
    };
    report.say(Grade::Ok, format!("kafka: connected {tls}, {who}"));
}

/// Returns the topics that channels come to.
fn wanted(
    config: &Config,
    args: &DoctorArgs,
    cluster: &ClusterView,
    report: &mut Report,
) -> BTreeSet<TopicName> {
    let mut topics = BTreeSet::new();
    for channel in config.channels.iter() {
        let template = match &channel.source {
            ChannelSource::Topic(source) => {
                topics.insert(source.topic.clone());
                continue;
            }
            ChannelSource::TopicPerTenant(template) => template,
        };
        for tenant in &args.tenant {
            match template.topic_of(&TenantId::new(tenant.as_str())) {
                Some(topic) => drop(topics.insert(topic)),
                None => {
                    let text = "can't stand in a topic's name; such a tenant is refused";
                    report.say(Grade::Fail, format!("channel {}: {tenant} {text}", channel.name));
                }
            }
        }
        let found: Vec<_> =
            cluster.topics.iter().filter(|topic| template.may_name(topic)).collect();
        let (name, count) = (&channel.name, found.len());
        match count {
            0 => {
                let text = "no topic there is fits its name; no tenant can follow it yet";
                report.say(Grade::Warn, format!("channel {name}: {text}"));
            }
            _ => report.say(Grade::Ok, format!("channel {name}: {} its name", fitting(count))),
        }
        if args.tenant.is_empty() {
            topics.extend(found.into_iter().take(TOPICS_OF_CHANNEL_MAX).cloned());
        }
    }
    topics
}

fn check_topic(
    inspector: &Inspector,
    topic: &TopicName,
    resume_within: Duration,
    report: &mut Report,
) {
    let view = match inspector.topic(topic) {
        Ok(view) => view,
        Err(fault) => return report.say(Grade::Fail, format!("topic {topic}: {}", wrong(&fault))),
    };
    let count = view.partitions;
    report
        .say(Grade::Ok, format!("topic {topic}: {}, and may be read", counted(count, "partition")));
    if count > PARTITIONS_MAX {
        let text =
            format!("topic {topic}: more than {PARTITIONS_MAX} partitions can't be followed");
        report.say(Grade::Fail, text);
    }
    check_retention(topic, &view, resume_within, report);
    check_clock(topic, &view, report);
}

/// Writes how many there are of something.
fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Writes how many topics fit.
fn fitting(count: usize) -> String {
    format!("{} {}", counted(count, "topic"), if count == 1 { "fits" } else { "fit" })
}

fn wrong(fault: &TopicFault) -> String {
    match fault {
        TopicFault::Missing => topics::MISSING.to_owned(),
        TopicFault::Hidden => topics::HIDDEN.to_owned(),
        TopicFault::Unreadable(reason) => {
            format!("may be described but not read: give the principal READ ({reason})")
        }
        TopicFault::Unanswered(reason) => format!("Kafka does not say what it is ({reason})"),
    }
}

fn check_retention(topic: &TopicName, view: &TopicView, within: Duration, report: &mut Report) {
    let hours = |span: Duration| format!("{:.1} h", span.as_secs_f64() / 3_600.0);
    match view.retention {
        Retention::For(kept) if kept < within => {
            let text = format!(
                "topic {topic}: keeps records for {}, and clients are promised to come back within {}: \
                 they would be told gaps",
                hours(kept),
                hours(within)
            );
            report.say(Grade::Fail, text);
        }
        Retention::For(kept) => {
            report.say(Grade::Ok, format!("topic {topic}: keeps records for {}", hours(kept)));
        }
        Retention::Forever => {
            report.say(Grade::Ok, format!("topic {topic}: no record goes by its age"));
        }
        Retention::Unknown => {
            let text = format!(
                "topic {topic}: its settings may not be seen, so that nobody knows how long it keeps \
                 records: give the principal DESCRIBE_CONFIGS"
            );
            report.say(Grade::Warn, text);
        }
    }
    if let Some(bytes) = view.retention_bytes {
        let text = format!(
            "topic {topic}: records also go by size, after {bytes} bytes of a partition: under load \
             that may be sooner"
        );
        report.say(Grade::Warn, text);
    }
    if view.compacted == Compacted::Yes {
        let text = format!(
            "topic {topic}: compaction takes older records of a key: who comes back gets what is left"
        );
        report.say(Grade::Warn, text);
    }
}

/// Kafka tells nobody its time, but its records are stamped: one that is stamped
/// later than now shows that clocks differ by at least as much.
fn check_clock(topic: &TopicName, view: &TopicView, report: &mut Report) {
    let Some(newest) = view.newest else { return };
    let ahead = newest.as_millis() - now().as_millis();
    if ahead > CLOCK_MILLIS_MAX {
        let seconds = ahead as f64 / 1_000.0;
        let text = format!(
            "topic {topic}: its newest record is stamped {seconds:.1} s from now: this machine's clock is \
             behind that of whoever stamps it, and latencies and tokens are judged wrongly"
        );
        report.say(Grade::Fail, text);
    } else {
        let text = format!("topic {topic}: no record is stamped later than this machine's time");
        report.say(Grade::Ok, text);
    }
}

/// Looks whether the collector of traces is reached, where traces are sent.
fn check_collector(config: &Config, report: &mut Report) {
    let variable = |name: &str| std::env::var(name).ok();
    let settings = match TracingSettings::resolve(&config.tracing, variable) {
        Ok(Some(settings)) => settings,
        Ok(None) => return report.say(Grade::Ok, "traces: none are sent"),
        Err(error) => return report.say(Grade::Fail, format!("traces: {error}")),
    };
    let Some(place) = place_of(&settings.endpoint) else {
        return report.say(Grade::Fail, "traces: the collector's endpoint is no http URL");
    };
    let reached = place
        .to_socket_addrs()
        .ok()
        .into_iter()
        .flatten()
        .any(|address| TcpStream::connect_timeout(&address, COLLECTOR_TIMEOUT).is_ok());
    match reached {
        true => report.say(Grade::Ok, format!("traces: a collector listens at {place}")),
        false => report.say(Grade::Fail, format!("traces: nobody listens at {place}")),
    }
}

/// Returns host and port of a URL.
fn place_of(url: &str) -> Option<String> {
    let (port, rest) = match url.split_once("://")? {
        ("http", rest) => (80, rest),
        ("https", rest) => (443, rest),
        _ => return None,
    };
    let place = rest.split(['/', '?']).next().filter(|place| !place.is_empty())?;
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    let has_port = place.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Some(if has_port { place.to_owned() } else { format!("{place}:{port}") })
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    read_duration(text).ok_or_else(|| "a duration is a number and s, m, h or d".to_owned())
}

/// Topics of one channel that are looked at, where no tenant is named.
const TOPICS_OF_CHANNEL_MAX: usize = 10;
/// By how much a stamp may be later than now before a clock is wrong.
const CLOCK_MILLIS_MAX: i64 = 2_000;
const COLLECTOR_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collectors_place_is_found_in_its_url() {
        let check = |url, place: Option<&str>| assert_eq!(place_of(url).as_deref(), place, "{url}");
        check("http://localhost:4317", Some("localhost:4317"));
        check("https://a.example/v1/traces", Some("a.example:443"));
        check("http://user:secret@[::1]:4318/", Some("[::1]:4318"));
        check("localhost:4317", None);
        check("http://", None);
    }
}
