//! From a latency in Prometheus to the trace in Jaeger that shows why.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::json;

use crate::support::jaeger::Jaeger;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::prometheus::Prometheus;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::shared_feed;
use crate::support::traced::Parent;
use crate::support::traced::follow_with;

#[test]
fn each_latency_leads_to_the_trace_of_a_record_that_took_as_long() {
    let jaeger = Jaeger::start();
    let topic = fresh_topic("exemplars");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 1, &[]);
    let endpoint = jaeger.grpc();
    let settings = [("TRACING_ENDPOINT", endpoint.as_str()), ("TRACING_EXPORT_INTERVAL", "50ms")];
    let server = ServerProcess::start_with(&shared_feed(&topic), &settings);
    let prometheus = Prometheus::start(server.admin, "groups: []");
    let mut client = follow_with(&server, &[], json!({ "window": 100 }));
    let producer = cluster.producer();
    let (untraced, traced) = (Parent { flags: "00", ..Parent::new() }, Parent::new());
    for parent in [&untraced, &traced] {
        let offset = parent.send(&producer, &topic);
        assert_eq!(client.client.expect("records")["records"][0]["offset"], offset);
        client.acknowledge(offset + 1);
    }

    let process = format!("process {topic}");
    let names = [&process, "deliver feed", "client feed", "ack feed"];
    let trace = jaeger.trace(&traced.trace, &names);
    let stages: BTreeMap<&str, Option<&str>> = BTreeMap::from([
        ("receive", None),
        ("dispatch", Some(process.as_str())),
        ("write", Some("client feed")),
        ("acknowledge", Some("ack feed")),
        ("delivery", Some("deliver feed")),
    ]);
    for (stage, span) in stages {
        let name = format!("brucke_{stage}_latency_seconds_bucket");
        prometheus.until(&name, |p| !p.exemplars(&name).is_empty());
        let found = prometheus.exemplars(&name);
        let [(series, exemplar)] = &found[..] else { panic!("{name}: {found:?}") };
        let labels = &exemplar["labels"];
        assert_eq!(labels["trace_id"], json!(traced.trace), "{name}: {found:?}");
        let span = span.map_or(Value::Null, |name| json!(trace.span(name).id()));
        assert_eq!(labels["span_id"], span, "{name}: {found:?}");
        let number = |value: &Value| -> f64 {
            value.as_str().and_then(|text| text.parse().ok()).expect("a number")
        };
        assert!(number(&exemplar["value"]) <= number(&series["le"]), "{name}: {found:?}");
    }
}
