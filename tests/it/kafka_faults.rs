//! Brokers that go, come back, and refuse.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use brucke::kafka::config::KafkaConfig;
use brucke::kafka::config::Sasl;
use brucke::kafka::config::SaslMechanism;
use brucke::kafka::config::Tls;
use brucke::kafka::status::Brokers;
use brucke::registry::message::SourceFailure;
use brucke::tenancy::rule::TenancyRule;
use brucke::types::ids::TopicName;

use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::KafkaOptions;
use crate::support::kafka_cluster::SecureListener;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::kafka_rig::KafkaRig;
use crate::support::kafka_rig::Seen;

#[test]
fn a_broker_that_was_down_is_read_on_from_where_it_was() {
    let mut cluster = KafkaCluster::start(1);
    let topic = fresh_topic("down");
    cluster.admin().create_topic(&topic, 1, &[]);
    let mut rig = KafkaRig::start(&KafkaConfig::new(vec![cluster.bootstrap_servers()]));
    let source = rig.source(&topic, TenancyRule::Shared);
    let partitions = rig.follow(source);
    assert_eq!(rig.handle.status().brokers(), Brokers::Reachable);
    cluster.producer().send(&topic, &[NewRecord::new(0, "before", "v")]);
    assert_eq!(rig.read(source, &partitions[0], 0, 1), [Seen::shared(0, "before", "v")]);
    cluster.kill(0);
    rig.wait_until("the broker is missed", |rig| {
        matches!(rig.handle.status().brokers(), Brokers::Unreachable { .. })
    });
    cluster.restart(0);
    cluster.producer().send(&topic, &[NewRecord::new(0, "after", "v")]);
    let began = Instant::now();
    assert_eq!(rig.read(source, &partitions[0], 1, 2), [Seen::shared(1, "after", "v")]);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    rig.wait_until("the broker is found again", |rig| {
        rig.handle.status().brokers() == Brokers::Reachable
    });
}

#[test]
fn a_leader_that_dies_is_followed_to_its_heir() {
    let mut cluster = KafkaCluster::start(3);
    let topic = fresh_topic("heir");
    cluster.admin().create_replicated_topic(&topic, 6, 3, &[("min.insync.replicas", "1")]);
    let mut rig = KafkaRig::start(&KafkaConfig::new(vec![cluster.bootstrap_servers()]));
    let source = rig.source(&topic, TenancyRule::Shared);
    let partitions = rig.follow(source);
    let producer = cluster.producer();
    let one_each: Vec<_> = (0..6).map(|partition| NewRecord::new(partition, "k", "v")).collect();
    for round in 0..3 {
        producer.send(&topic, &one_each);
        for partition in &partitions {
            let seen = rig.read(source, partition, round, round + 1);
            assert_eq!(seen, [Seen::shared(round, "k", "v")], "{:?}", partition.id());
        }
        match round {
            0 => cluster.kill(0),
            1 => {
                cluster.restart(0);
                cluster.stop(1);
            }
            _ => {}
        }
    }
}

#[test]
fn no_broker_at_all_is_said_so() {
    // The port of a listener that is gone: nobody answers there.
    let config = KafkaConfig::new(vec!["127.0.0.1:1".to_owned()]);
    let mut rig = KafkaRig::start(&config);
    let source = rig.source("any", TenancyRule::Shared);
    let failure = rig.fail_to_follow(source);
    let SourceFailure::Unreachable { topic, reason } = failure else { panic!("{failure:?}") };
    assert_eq!(topic, TopicName::new("any"));
    assert!(reason.contains("127.0.0.1:1"), "{reason}");
}

#[test]
fn passwords_over_tls_open_what_the_rules_allow() {
    let users = [("alice", "alice-secret"), ("mallory", "mallory-secret")];
    let cluster = KafkaCluster::start_with(
        1,
        &KafkaOptions {
            properties: BTreeMap::from(
                [
                    (
                        "authorizer.class.name",
                        "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                    ),
                    ("super.users", "User:ANONYMOUS;User:alice"),
                ]
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
            ),
            secure: Some(SecureListener {
                users: users.map(|(n, p)| (n.to_owned(), p.to_owned())).to_vec(),
            }),
        },
    );
    let topic = fresh_topic("secret");
    cluster.admin().create_topic(&topic, 1, &[]);
    cluster.producer().send(&topic, &[NewRecord::new(0, "k", "v")]);
    let config = |mechanism, username: &str, password: &str| {
        let mut config = KafkaConfig::new(vec![cluster.secure_servers()]);
        config.tls = Some(Tls { ca_file: Some(cluster.ca_file()), client: None });
        config.sasl =
            Some(Sasl { mechanism, username: username.to_owned(), password: password.to_owned() });
        config
    };
    for mechanism in [SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512]
    {
        let mut rig = KafkaRig::start(&config(mechanism, "alice", "alice-secret"));
        let source = rig.source(&topic, TenancyRule::Shared);
        let partitions = rig.follow(source);
        let seen = rig.read(source, &partitions[0], 0, 1);
        assert_eq!(seen, [Seen::shared(0, "k", "v")], "{mechanism:?}");
    }
    let mut rig = KafkaRig::start(&config(SaslMechanism::Plain, "mallory", "mallory-secret"));
    let source = rig.source(&topic, TenancyRule::Shared);
    let forbidden = SourceFailure::Forbidden(TopicName::new(topic.as_str()));
    assert_eq!(rig.fail_to_follow(source), forbidden, "a user whom no rule lets in");
    let mut rig = KafkaRig::start(&config(SaslMechanism::ScramSha512, "alice", "wrong-secret"));
    let source = rig.source(&topic, TenancyRule::Shared);
    let failure = rig.fail_to_follow(source);
    let SourceFailure::Unreachable { reason, .. } = &failure else { panic!("{failure:?}") };
    assert!(reason.to_lowercase().contains("authentication"), "{reason}");
    assert!(!reason.contains("wrong-secret"), "{reason}");
    let mut trusting_nobody = config(SaslMechanism::Plain, "alice", "alice-secret");
    trusting_nobody.tls = Some(Tls::default());
    let mut rig = KafkaRig::start(&trusting_nobody);
    let source = rig.source(&topic, TenancyRule::Shared);
    let failure = rig.fail_to_follow(source);
    assert!(matches!(failure, SourceFailure::Unreachable { .. }), "{failure:?}");
}
