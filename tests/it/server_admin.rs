//! Health and metrics, as an operator sees them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use brucke::kafka::config::KafkaConfig;
use brucke::telemetry::metric;
use brucke::telemetry::metric::Kind;
use serde_json::Value;
use serde_json::json;

use crate::support::raw_client::RawClient;
use crate::support::server_rig::Cluster;
use crate::support::server_rig::ServerRig;
use crate::support::server_rig::admin_answer;

#[test]
fn a_topic_that_is_missing_is_told_and_takes_no_replica_from_the_others() {
    let cluster = Cluster::start(&[("prices", 1)]);
    let server = ServerRig::start(&cluster.kafka.config(), &[SHARED_CHANNELS]);
    let body = server
        .admin_until("/readyz", |status, body| status == 200 && body.contains("\"topic_missing\""));
    let said: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((&said["ready"], &said["problems"]), (&json!(true), &json!([])), "{body}");
    assert_eq!(said["warnings"][0]["topic"], "couriers", "{body}");
    assert_eq!(said["warnings"].as_array().map(Vec::len), Some(1), "{body}");
    server.admin_until("/metrics", |_, body| {
        body.contains("\nbrucke_topics_failing 1\n")
            && body.contains("\nbrucke_channels_failing 1\n")
            && body.contains("\nbrucke_ready 1\n")
    });
    let (mut client, _) = server.subscriber("acme", json!({ "channel": "prices" }));
    client.expect("live");
}

#[test]
fn a_replica_that_can_serve_no_channel_is_not_ready() {
    let cluster = Cluster::start(&[("unrelated", 1)]);
    let server = ServerRig::start(&cluster.kafka.config(), &[SHARED_CHANNELS]);
    let both = |body: &str| body.contains("\"couriers\"") && body.contains("\"prices\"");
    let body = server.admin_until("/readyz", |status, body| status == 503 && both(body));
    let said: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((&said["ready"], &said["warnings"]), (&json!(false), &json!([])), "{body}");
    let problems = said["problems"].as_array().expect("problems");
    assert!(problems.iter().all(|problem| problem["kind"] == "topic_missing"), "{body}");
    assert_eq!(server.admin("/livez"), (200, "{\"live\":true,\"problems\":[]}".to_owned()));
}

#[test]
fn a_channel_with_a_topic_for_each_tenant_may_always_be_served() {
    let cluster = Cluster::start(&[("unrelated", 1)]);
    let server = ServerRig::start(&cluster.kafka.config(), &[]);
    let both = |body: &str| body.contains("\"couriers\"") && body.contains("\"prices\"");
    server.admin_until("/readyz", |status, body| status == 200 && both(body));
}

#[test]
fn readiness_comes_with_brokers_and_topics() {
    let cluster = Cluster::start(&[("prices", 1), ("couriers", 1)]);
    let server = ServerRig::start(&cluster.kafka.config(), &[]);
    let body = server.admin_until("/readyz", |status, _| status == 200);
    assert_eq!(body, "{\"problems\":[],\"ready\":true,\"warnings\":[]}");
    // A tenant without a topic is no fault of the replica's.
    let mut client = server.client("nobody");
    client.send(&json!({ "type": "subscribe", "id": 1, "channel": "orders" }));
    server.admin_until("/metrics", |_, body| {
        body.contains("\nbrucke_topics_failing 1\n")
            && body.contains("\nbrucke_channels_failing 0\n")
    });
    assert_eq!(server.admin("/readyz").0, 200);
}

#[test]
fn readiness_says_that_no_broker_answers() {
    let nobody = KafkaConfig::new(vec!["127.0.0.1:1".to_owned()]);
    let server = ServerRig::start(&nobody, &[]);
    server.admin_until("/readyz", |status, body| {
        status == 503 && body.contains("\"broker_unreachable\"")
    });
}

#[test]
fn metrics_count_what_happens() {
    let cluster = Cluster::start(&[("prices", 1), ("couriers", 1)]);
    let server = ServerRig::start(&cluster.kafka.config(), &[]);
    let (mut client, _) = server.subscriber("acme", json!({ "channel": "couriers" }));
    client.expect("live");
    cluster.put("couriers", "whose", "1");
    cluster.put("couriers", "acme:c-1", "2");
    client.values(1);
    let _ = server.try_connect(&["Origin: https://evil.example"]);
    for wanted in [
        "brucke_handshake_refusals_total{reason=\"origin_forbidden\"}",
        "brucke_kafka_records_without_tenant_total",
        "brucke_receive_latency_seconds_bucket{le=\"60.0\"}",
        "brucke_dispatch_latency_seconds_bucket{le=\"60.0\"}",
        "brucke_write_latency_seconds_bucket{le=\"60.0\"}",
        "brucke_delivery_latency_seconds_bucket{le=\"+Inf\"}",
        "brucke_kafka_brokers{state=\"up\"}",
        "brucke_reader_partitions",
        "brucke_reader_lag_records{topic=\"couriers\",partition=\"0\"}",
        "brucke_channel_deliveries_total{channel=\"couriers\"}",
        "process_resident_memory_bytes",
    ] {
        let counted = |line: &str| line.starts_with(wanted) && !line.ends_with(" 0");
        let is_lag = wanted.contains("_lag_");
        server.admin_until("/metrics", |_, body| {
            body.lines().any(|line| counted(line) || (is_lag && line.starts_with(wanted)))
        });
    }
}

/// Starts a server, and has a client of it get one record.
fn deliver_a_price() -> (Cluster, ServerRig, RawClient) {
    let cluster = Cluster::start(&[("prices", 1), ("couriers", 1)]);
    let server = ServerRig::start(&cluster.kafka.config(), &[]);
    let (mut client, _) = server.subscriber("acme", json!({ "channel": "prices" }));
    client.expect("live");
    cluster.put("prices", "EURUSD", "1");
    client.values(1);
    (cluster, server, client)
}

/// Returns the lines of a page of metrics that are no comments.
fn samples(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[test]
fn both_formats_have_the_same_series() {
    let (_cluster, server, _client) = deliver_a_price();
    server.admin_until("/metrics", |_, body| body.contains("brucke_channel_deliveries_total"));
    let page = |accept: &str| {
        let lines = [format!("Accept: {accept}")];
        admin_answer(server.addresses.admin, "/metrics", &lines.each_ref().map(String::as_str))
    };
    let series = |answer: &str| -> BTreeSet<String> {
        let (_, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let samples = samples(body);
        // What stands after the value is an exemplar.
        let samples = samples.map(|line| line.split(" # ").next().expect("a sample"));
        samples.map(|line| line.rsplit_once(' ').expect("a value").0.to_owned()).collect()
    };
    let text = page("text/plain");
    assert!(text.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{text}");
    let open = page("application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(open.contains(kind) && open.ends_with("\n# EOF\n"), "{open}");
    assert!(open.contains("\n# TYPE brucke_deliveries counter\n"), "{open}");
    assert_eq!(series(&text), series(&open));
}

#[test]
fn the_page_of_metrics_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = fs::read_to_string(path).expect("the page is there");
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `brucke_") || line.starts_with("| `process_"))
        .collect();
    let wanted: Vec<String> = metric::ALL.iter().map(row).collect();
    assert_eq!(rows, wanted, "paste the rows of the table into docs/metrics.md");
}

#[test]
fn a_scrape_has_no_metric_that_is_not_in_the_table() {
    let (_cluster, server, _client) = deliver_a_price();
    let body = server.admin_until("/metrics", |_, body| body.contains("brucke_deliveries_total"));
    let known: BTreeMap<&str, _> = metric::ALL.iter().map(|m| (m.name, m)).collect();
    for line in samples(&body) {
        let name = line.split(['{', ' ']).next().expect("a name");
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let found = known.get(name).or_else(|| known.get(base.unwrap_or(name)));
        let metric = found.unwrap_or_else(|| panic!("{line} is not in the table"));
        let labels: Vec<&str> = line
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'))
            .map(|(labels, _)| labels.split(',').filter_map(|l| l.split('=').next()).collect())
            .unwrap_or_default();
        let labels: Vec<&str> = labels.into_iter().filter(|label| *label != "le").collect();
        assert_eq!(labels, metric.labels, "{line}");
        match metric.kind {
            Kind::Counter => assert!(name.ends_with("_total"), "{name}"),
            Kind::Gauge => assert!(!name.ends_with("_total"), "{name}"),
            Kind::Histogram => assert!(metric.name.ends_with("_seconds"), "{name}"),
        }
    }
}

fn row(metric: &metric::Metric) -> String {
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    format!("| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help)
}

/// Channels whose topics are known without a tenant.
const SHARED_CHANNELS: (&str, &str) = (
    "CHANNELS",
    "[{ name = \"prices\", topic = \"prices\", tenant = \"shared\" }, \
      { name = \"couriers\", topic = \"couriers\", tenant = { key_prefix = \":\" } }]",
);
