//! That the test cluster itself does what tests build on.

use crate::support::kafka_client::KafkaProducer;
use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;

#[test]
fn a_cluster_takes_records_and_transactions() {
    let cluster = KafkaCluster::shared();
    let topic = fresh_topic("harness");
    cluster.admin().create_topic(&topic, 2, &[]);
    let producer = cluster.producer();
    let offsets = producer.send(
        &topic,
        &[NewRecord::new(0, "a", "1"), NewRecord::new(1, "b", "2"), NewRecord::new(0, "c", "3")],
    );
    assert_eq!(offsets, [0, 0, 1]);
    let producer = KafkaProducer::transactional(&cluster.bootstrap_servers(), &topic);
    producer.begin();
    assert_eq!(producer.send(&topic, &[NewRecord::new(0, "d", "4")]), [2]);
    producer.abort();
    producer.begin();
    // The marker of the abort took offset 3.
    assert_eq!(producer.send(&topic, &[NewRecord::new(0, "e", "5")]), [4]);
    producer.commit();
    cluster.admin().delete_records(&topic, 0, 2);
    cluster.admin().create_partitions(&topic, 3);
    cluster.admin().alter_config(&topic, &[("retention.ms", "1000")]);
    cluster.admin().delete_topic(&topic);
}

#[test]
fn a_broker_that_was_killed_comes_back_with_its_records() {
    let mut cluster = KafkaCluster::start(3);
    let topic = fresh_topic("killed");
    cluster.admin().create_replicated_topic(&topic, 1, 3, &[]);
    assert_eq!(cluster.producer().send(&topic, &[NewRecord::new(0, "a", "1")]), [0]);
    cluster.kill(1);
    assert_eq!(cluster.producer().send(&topic, &[NewRecord::new(0, "a", "2")]), [1]);
    cluster.restart(1);
    cluster.stop(2);
    assert_eq!(cluster.producer().send(&topic, &[NewRecord::new(0, "a", "3")]), [2]);
}
