//! `brucke doctor` against Apache Kafka, as it is and where something is wrong.

use std::fs;
use std::process::Command;

use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::KafkaOptions;
use crate::support::kafka_cluster::SecureListener;
use crate::support::kafka_cluster::fresh_topic;

/// Runs it for these `[kafka]` keys and channels; returns its exit code and lines.
fn doctor(kafka: &str, channels: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("brucke.toml");
    let config =
        format!("[auth]\nmode = \"none\"\ntenant = \"acme\"\n[kafka]\n{kafka}\n{channels}");
    fs::write(&file, config).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_brucke"));
    command.args(["doctor", "--config"]).arg(file).args(arguments);
    command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    command.env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1");
    let output = command.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), said + &String::from_utf8_lossy(&output.stderr))
}

fn channel(name: &str, topic: &str) -> String {
    format!("[[channels]]\nname = \"{name}\"\ntopic = \"{topic}\"\ntenant = \"shared\"\n")
}

fn expect(said: &str, lines: &[&str]) {
    for line in lines {
        assert!(said.contains(line), "{line:?} is missing in:\n{said}");
    }
}

#[test]
fn topics_retention_and_clocks_are_held_against_the_configuration() {
    let cluster = KafkaCluster::shared();
    let (good, short, ahead) = (fresh_topic("good"), fresh_topic("short"), fresh_topic("ahead"));
    cluster.admin().create_topic(&good, 3, &[("retention.ms", "86400000")]);
    cluster.admin().create_topic(&short, 1, &[("retention.ms", "60000")]);
    let compact = [("cleanup.policy", "compact"), ("message.timestamp.after.max.ms", "99999999")];
    cluster.admin().create_topic(&ahead, 1, &compact);
    let hour = std::time::SystemTime::now() + std::time::Duration::from_secs(3_600);
    let hour = hour.duration_since(std::time::SystemTime::UNIX_EPOCH).expect("after 1970");
    let timestamp = i64::try_from(hour.as_millis()).ok();
    let record = NewRecord { timestamp, ..NewRecord::new(0, "k", "v") };
    cluster.producer().send(&ahead, &[record]);
    let servers = format!("bootstrap_servers = [\"{}\"]", cluster.bootstrap_servers());

    let (code, said) = doctor(&servers, &channel("good", &good), &[]);
    expect(&said, &["ok    the configuration is valid", "answers; 1 broker: "]);
    expect(&said, &[&format!("ok    topic {good}: 3 partitions, and may be read")]);
    expect(&said, &[&format!("ok    topic {good}: keeps records for 24.0 h")]);
    expect(&said, &["fail  traces: nobody listens at 127.0.0.1:1"]);
    assert_eq!(code, Some(1), "the collector: {said}");

    let channels = [("missing", "no-such-topic"), ("short", &short), ("ahead", &ahead)];
    let channels: String = channels.iter().map(|(name, topic)| channel(name, topic)).collect();
    let (code, said) = doctor(&servers, &channels, &["--resume-within", "1h"]);
    assert_eq!(code, Some(1), "{said}");
    expect(&said, &["fail  topic no-such-topic: does not exist"]);
    expect(&said, &[&format!("fail  topic {short}: keeps records for 0.0 h, and clients")]);
    expect(&said, &[&format!("warn  topic {ahead}: compaction takes")]);
    expect(&said, &[&format!("fail  topic {ahead}: its newest record is stamped 3")]);
}

#[test]
fn the_topic_of_revocations_must_be_compacted_and_of_one_partition() {
    let cluster = KafkaCluster::shared();
    let [shown, good, wide, aged] =
        ["shown", "good", "wide", "aged"].map(|name| fresh_topic(&format!("revoked-{name}")));
    cluster.admin().create_topic(&shown, 1, &[]);
    cluster.admin().create_topic(&good, 1, &[("cleanup.policy", "compact")]);
    cluster.admin().create_topic(&wide, 2, &[]);
    let both = [("cleanup.policy", "compact,delete"), ("retention.ms", "86400000")];
    cluster.admin().create_topic(&aged, 1, &both);
    let servers = format!("bootstrap_servers = [\"{}\"]", cluster.bootstrap_servers());
    let check = |topic: &str, lines: &[&str]| {
        let admin = format!("[admin]\nrevocations_topic = \"{topic}\"\n");
        let (_, said) = doctor(&servers, &(admin + &channel("feed", &shown)), &[]);
        for line in lines {
            let (grade, text) = line.split_once(' ').expect("a grade");
            expect(&said, &[&format!("{grade:4}  revocations {topic}: {text}")]);
        }
    };
    check(&good, &["ok one partition, and may be read", "ok compacted, and keeps each key"]);
    check(&wide, &["fail 2 partitions, and must have one", "fail is not compacted"]);
    check(&aged, &["ok one partition", "warn also loses records by age, after 24.0 h"]);
    check("no-such-topic", &["fail does not exist"]);
}

#[test]
fn what_keeps_brokers_from_answering_is_said_in_sentences() {
    let users = vec![("reader".to_owned(), "right-password".to_owned())];
    let options =
        KafkaOptions { secure: Some(SecureListener { users }), ..KafkaOptions::default() };
    let cluster = KafkaCluster::start_with(1, &options);
    let topic = fresh_topic("secure");
    cluster.admin().create_topic(&topic, 1, &[]);
    let channels = channel("feed", &topic);
    let ca_file = cluster.ca_file();
    let kafka = |security: &str, password: &str| {
        let sasl = match security {
            "sasl_tls" => format!(
                "sasl_mechanism = \"SCRAM-SHA-512\"\nusername = \"reader\"\n\
                 password = \"{password}\"\n"
            ),
            _ => String::new(),
        };
        format!(
            "bootstrap_servers = [\"{}\"]\nsecurity = \"{security}\"\nca_file = \"{}\"\n{sasl}",
            cluster.secure_servers(),
            ca_file.display()
        )
    };
    let (_, said) = doctor(&kafka("sasl_tls", "right-password"), &channels, &[]);
    expect(&said, &["ok    kafka: connected over TLS, as reader by SCRAM-SHA-512"]);
    expect(&said, &[&format!("ok    topic {topic}: 1 partition, and may be read")]);
    assert!(!said.contains("right-password"), "{said}");

    let (code, said) = doctor(&kafka("sasl_tls", "wrong-password"), &channels, &[]);
    assert_eq!(code, Some(1), "{said}");
    expect(&said, &["the brokers refuse the name and password"]);
    assert!(!said.contains("wrong-password"), "{said}");

    let system = kafka("sasl_tls", "right-password").replace("ca_file", "#ca_file");
    let (code, said) = doctor(&system, &channels, &[]);
    assert_eq!(code, Some(1), "{said}");
    expect(&said, &["TLS failed"]);

    let (code, said) = doctor("bootstrap_servers = [\"127.0.0.1:1\"]", &channels, &[]);
    assert_eq!(code, Some(1), "{said}");
    expect(&said, &["nobody answers there"]);
    let (code, said) =
        doctor("bootstrap_servers = [\"no-such-host.invalid:9092\"]", &channels, &[]);
    assert_eq!(code, Some(1), "{said}");
    expect(&said, &["a broker's name is not known here"]);
}
