//! Brokers that go, come back, and refuse.

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

/// Users of the cluster with rules, beside whom only tests may do anything.
const USERS: [(&str, &str); 2] = [("alice", "alice-secret"), ("mallory", "mallory-secret")];

/// Returns a cluster where each user may do only what a rule allows.
fn cluster_with_rules() -> KafkaCluster {
    let authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
    let properties = [("authorizer.class.name", authorizer), ("super.users", "User:ANONYMOUS")];
    let own = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
    let users = USERS.map(own).to_vec();
    let options = KafkaOptions {
        properties: properties.map(own).into(),
        secure: Some(SecureListener { users }),
        detours: Vec::new(),
    };
    KafkaCluster::start_with(1, &options)
}

fn allow(cluster: &KafkaCluster, change: &str, user: &str, topic: &str) {
    let servers = cluster.bootstrap_servers();
    let user = format!("User:{user}");
    let mut arguments = vec!["--bootstrap-server", &servers, change, "--allow-principal", &user];
    arguments.extend(["--operation", "Read", "--topic", topic]);
    if change == "--remove" {
        arguments.push("--force");
    }
    cluster.tool("org.apache.kafka.tools.AclCommand", &arguments);
}

fn sign_in(cluster: &KafkaCluster, mechanism: SaslMechanism, user: (&str, &str)) -> KafkaConfig {
    let mut config = KafkaConfig::new(vec![cluster.secure_servers()]);
    config.tls = Some(Tls { ca_file: Some(cluster.ca_file()), client: None });
    let (username, password) = (user.0.to_owned(), user.1.to_owned());
    config.sasl = Some(Sasl { mechanism, username, password });
    config
}

#[test]
fn passwords_over_tls_open_what_the_rules_allow() {
    let cluster = cluster_with_rules();
    let [alice, mallory] = USERS;
    let topic = fresh_topic("secret");
    cluster.admin().create_topic(&topic, 1, &[]);
    cluster.producer().send(&topic, &[NewRecord::new(0, "k", "v")]);
    // To read the topic is all that is asked for: no group, no cluster.
    allow(&cluster, "--add", alice.0, &topic);
    for mechanism in [SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512]
    {
        let mut rig = KafkaRig::start(&sign_in(&cluster, mechanism, alice));
        let source = rig.source(&topic, TenancyRule::Shared);
        let partitions = rig.follow(source);
        let seen = rig.read(source, &partitions[0], 0, 1);
        assert_eq!(seen, [Seen::shared(0, "k", "v")], "{mechanism:?}");
    }
    let failure = |config: &KafkaConfig| {
        let mut rig = KafkaRig::start(config);
        let source = rig.source(&topic, TenancyRule::Shared);
        rig.fail_to_follow(source)
    };
    let uninvited = failure(&sign_in(&cluster, SaslMechanism::Plain, mallory));
    assert_eq!(uninvited, SourceFailure::Forbidden(TopicName::new(topic.as_str())));
    let wrong = (alice.0, "wrong-secret");
    let unknown = failure(&sign_in(&cluster, SaslMechanism::ScramSha512, wrong));
    let SourceFailure::Unreachable { reason, .. } = &unknown else { panic!("{unknown:?}") };
    assert!(reason.to_lowercase().contains("authentication"), "{reason}");
    assert!(!reason.contains(wrong.1), "{reason}");
    let mut wary = sign_in(&cluster, SaslMechanism::Plain, alice);
    wary.tls = Some(Tls::default());
    let untrusted = failure(&wary);
    let SourceFailure::Unreachable { reason, .. } = &untrusted else { panic!("{untrusted:?}") };
    assert!(reason.contains("certificate"), "{reason}");
}

#[test]
fn leave_to_read_that_was_taken_is_missed_and_used_when_it_is_back() {
    let cluster = cluster_with_rules();
    let alice = USERS[0];
    let topic = fresh_topic("leave");
    let name = TopicName::new(topic.as_str());
    cluster.admin().create_topic(&topic, 1, &[]);
    allow(&cluster, "--add", alice.0, &topic);
    let mut rig = KafkaRig::start(&sign_in(&cluster, SaslMechanism::Plain, alice));
    let source = rig.source(&topic, TenancyRule::Shared);
    let partitions = rig.follow(source);
    let producer = cluster.producer();
    producer.send(&topic, &[NewRecord::new(0, "before", "v")]);
    assert_eq!(rig.read(source, &partitions[0], 0, 1), [Seen::shared(0, "before", "v")]);
    allow(&cluster, "--remove", alice.0, &topic);
    rig.wait_until("the topic is forbidden", |rig| {
        rig.directory.failures().get(&name) == Some(&SourceFailure::Forbidden(name.clone()))
    });
    producer.send(&topic, &[NewRecord::new(0, "meanwhile", "v")]);
    allow(&cluster, "--add", alice.0, &topic);
    assert_eq!(rig.read(source, &partitions[0], 1, 2), [Seen::shared(1, "meanwhile", "v")]);
    rig.wait_until("all is well again", |rig| {
        rig.directory.failures().is_empty() && rig.handle.status().stopped().is_empty()
    });
}
