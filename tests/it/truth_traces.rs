//! Traces through real parts: a producer, Apache Kafka, the server, a client and
//! Jaeger, which is asked for what it was told.

use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use serde_json::Value;
use serde_json::json;

use crate::support::jaeger::Jaeger;
use crate::support::jaeger::Span;
use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::CLUSTER_ID;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::shared_feed;
use crate::support::server_process::token;
use crate::support::server_rig::admin_order;
use crate::support::traced::KEY;
use crate::support::traced::Parent;
use crate::support::traced::VALUE;
use crate::support::traced::connect;
use crate::support::traced::follow;

#[test]
fn a_record_is_followed_from_its_producer_to_the_acknowledgement_by_grpc() {
    let jaeger = Jaeger::start();
    let endpoint = jaeger.grpc();
    let settings = [("TRACING_ENDPOINT", endpoint.as_str()), INTERVAL, DEBUG];
    check_journey(&jaeger, &settings, &[]);
}

#[test]
fn a_record_is_followed_from_its_producer_to_the_acknowledgement_by_http() {
    let jaeger = Jaeger::start();
    let endpoint = jaeger.http();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    check_journey(&jaeger, &[DEBUG], &variables);
}

/// Sends a record with its producer's span, has a client acknowledge it, and
/// looks the whole journey up.
fn check_journey(jaeger: &Jaeger, settings: &[(&str, &str)], variables: &[(&str, &str)]) {
    let topic = fresh_topic("journey");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 1, &[]);
    let server = ServerProcess::start_in(&shared_feed(&topic), settings, variables);
    let handshake = Parent::new();
    let mut client = follow(&server, &[&format!("traceparent: {}", handshake.traceparent())]);

    let parent = Parent::new();
    let began = micros_now();
    let offset = parent.send(&cluster.producer(), &topic);
    jaeger.post(&parent.span(began, micros_now()));
    let records = client.client.expect("records");
    let record = &records["records"][0];
    assert_eq!(record["offset"], offset);
    assert_eq!(record["headers"]["traceparent"], parent.traceparent(), "a browser can go on");
    client.acknowledge(offset + 1);

    let process = format!("process {topic}");
    let names = ["send orders", &process, "deliver feed", "client feed", "ack feed"];
    let trace = jaeger.trace(&parent.trace, &names);
    let spans = names.map(|name| trace.span(name));
    let ended = micros_now();
    for pair in spans.windows(2) {
        assert_eq!(pair[1].parent(), Some(pair[0].id()), "{}", trace.text);
        assert!(pair[0].times().0 <= pair[1].times().0, "{}", trace.text);
    }
    for (from, to) in spans.map(|span| span.times()) {
        assert!((began..=ended).contains(&from) && (from..=ended).contains(&to), "{}", trace.text);
    }
    check_attributes(spans, &topic, offset, &client.connection);
    for secret in [KEY, VALUE, token("acme").rsplit('.').next().expect("a signature")] {
        assert!(!trace.text.contains(secret), "{secret} in {}", trace.text);
    }
    let log = server.log();
    assert!(log.contains(&format!("trace_id={}", parent.trace)), "{log}");

    let names = ["handshake", "authenticate", "subscribe feed"];
    let trace = jaeger.trace(&handshake.trace, &names);
    let [opened, authenticated, subscribed] = names.map(|name| trace.span(name));
    assert_eq!(opened.parent(), Some(handshake.span.as_str()));
    assert_eq!(opened.tag("http.response.status_code"), 101);
    assert_eq!(opened.tag("brucke.connection"), client.connection);
    assert_eq!(authenticated.parent(), Some(opened.id()));
    assert_eq!(subscribed.parent(), Some(opened.id()));
    assert_eq!(subscribed.tag("brucke.outcome"), "done");
    let line = log.lines().find(|line| line.contains("connection opened")).expect("it is logged");
    assert!(line.contains(&handshake.trace), "{line}");
}

fn check_attributes(spans: [Span<'_>; 5], topic: &str, offset: i64, connection: &str) {
    let [_, process, deliver, client, ack] = spans;
    let check = |span: Span<'_>, expected: &[(&str, Value)]| {
        for (name, value) in expected {
            assert_eq!(span.tag(name), *value, "{name}");
        }
    };
    check(
        process,
        &[
            ("span.kind", json!("consumer")),
            ("messaging.system", json!("kafka")),
            ("messaging.operation.type", json!("process")),
            ("messaging.destination.name", json!(topic)),
            ("messaging.kafka.cluster.id", json!(CLUSTER_ID)),
            ("messaging.kafka.message.key", Value::Null),
            ("brucke.feeds", json!(1)),
            ("brucke.path", json!("live")),
        ],
    );
    check(
        deliver,
        &[
            ("brucke.channel", json!("feed")),
            ("brucke.matched", json!(1)),
            ("brucke.sent", json!(1)),
            ("brucke.behind", json!(0)),
            ("brucke.frame.records", json!(1)),
        ],
    );
    check(client, &[("brucke.fate", json!("written"))]);
    for step in ["brucke.encode_us", "brucke.queue_wait_us", "brucke.write_us"] {
        assert!(client.tag(step).is_u64(), "{step}");
    }
    for span in [client, ack] {
        check(span, &[("brucke.connection", json!(connection))]);
    }
    for span in [process, deliver, client, ack] {
        check(
            span,
            &[
                ("messaging.destination.partition.id", json!("0")),
                ("messaging.kafka.offset", json!(offset)),
            ],
        );
    }
}

#[test]
fn a_client_that_resumes_says_so() {
    let jaeger = Jaeger::start();
    let topic = fresh_topic("resuming");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 1, &[]);
    let endpoint = jaeger.grpc();
    let settings = [("TRACING_ENDPOINT", endpoint.as_str()), INTERVAL];
    let server = ServerProcess::start_with(&shared_feed(&topic), &settings);
    // What came while nobody followed is caught up with.
    let parent = Parent::new();
    let mut first = follow(&server, &[]);
    let offset = parent.send(&cluster.producer(), &topic);
    first.client.expect("records");
    drop(first.client);
    let handshake = Parent::new();
    let line = format!("traceparent: {}", handshake.traceparent());
    let from = json!({ "positions": { "0": offset }, "topic_id": first.topic_id });
    let mut second = connect(&server, &[&line]);
    second.send(&json!({ "type": "subscribe", "id": 1, "channel": "feed", "from": from }));
    let again = second.expect("records");
    assert_eq!(again["records"][0]["offset"], offset);
    let trace = jaeger.trace(&handshake.trace, &["resume feed"]);
    assert_eq!(trace.span("resume feed").parent(), Some(trace.span("handshake").id()));
    // The second delivery stands beside the first, under the same name.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let trace = jaeger.trace(&parent.trace, &["deliver feed"]);
        if trace.text.contains("\"catch_up\"") && trace.text.contains("\"live\"") {
            break;
        }
        assert!(Instant::now() < deadline, "{}", trace.text);
        thread::sleep(PACE);
    }
}

#[test]
fn a_collector_that_is_away_costs_its_spans_and_they_return_with_it() {
    let mut jaeger = Jaeger::start();
    let topic = fresh_topic("away");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 1, &[]);
    let endpoint = jaeger.grpc();
    let timeout = ("TRACING_EXPORT_TIMEOUT", "300ms");
    let settings = [("TRACING_ENDPOINT", endpoint.as_str()), INTERVAL, timeout];
    let server = ServerProcess::start_with(&shared_feed(&topic), &settings);
    let mut client = follow(&server, &[]);
    let producer = cluster.producer();
    let mut deliver = |parent: &Parent| {
        let offset = parent.send(&producer, &topic);
        assert_eq!(client.client.expect("records")["records"][0]["offset"], offset);
    };

    let before = Parent::new();
    deliver(&before);
    jaeger.trace(&before.trace, &["client feed"]);
    jaeger.stop();
    let failed = "brucke_spans_dropped_total{reason=\"export_failed\"}";
    let deadline = Instant::now() + PATIENCE;
    while server.metric(failed) == 0.0 {
        deliver(&Parent::new());
        assert!(Instant::now() < deadline, "{}", server.log());
    }
    assert!(server.log().contains("the collector takes no spans"), "{}", server.log());
    jaeger.restart();
    let deadline = Instant::now() + PATIENCE;
    while !server.log().contains("the collector takes spans again") {
        deliver(&Parent::new());
        assert!(Instant::now() < deadline, "{}", server.log());
    }
    let after = Parent::new();
    deliver(&after);
    jaeger.trace(&after.trace, &["deliver feed", "client feed"]);
    assert!(server.metric("brucke_spans_exported_total") > 0.0);
}

#[test]
fn a_collector_that_never_answers_holds_nobody_up() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let endpoint = format!("http://{}", silent.local_addr().expect("bound"));
    // It takes all that is sent and says nothing.
    thread::spawn(move || {
        let taken: Vec<_> = silent.incoming().flatten().collect();
        drop(taken);
    });
    let topic = fresh_topic("silent");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 1, &[]);
    let settings = [
        ("TRACING_ENDPOINT", endpoint.as_str()),
        ("TRACING_SAMPLE_ROOTS", "100%"),
        ("TRACING_QUEUE_SPANS_MAX", "100"),
        INTERVAL,
    ];
    let server = ServerProcess::start_with(&shared_feed(&topic), &settings);
    let mut client = follow(&server, &[]);
    let values: Vec<String> = (0..RECORDS).map(|index| index.to_string()).collect();
    let records: Vec<_> = values.iter().map(|value| NewRecord::new(0, KEY, value)).collect();
    let producer = cluster.producer();
    for some in records.chunks(100) {
        producer.send(&topic, some);
    }
    let mut heard = 0;
    while heard < RECORDS {
        let frame = client.client.expect("records");
        heard += frame["records"].as_array().expect("records").len();
    }
    let full = "brucke_spans_dropped_total{reason=\"queue_full\"}";
    let deadline = Instant::now() + PATIENCE;
    while server.metric(full) == 0.0 {
        assert!(Instant::now() < deadline, "{}", server.admin_page("/metrics"));
        thread::sleep(PACE);
    }
}

#[test]
fn an_operator_traces_one_connection() {
    let jaeger = Jaeger::start();
    let topic = fresh_topic("watched");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 1, &[]);
    let endpoint = jaeger.grpc();
    let settings = [("TRACING_ENDPOINT", endpoint.as_str()), INTERVAL];
    let server = ServerProcess::start_with(&shared_feed(&topic), &settings);
    let (mut watched, mut other) = (follow(&server, &[]), follow(&server, &[]));
    let host = format!("Host: {}", server.admin);
    let order = |line: &str, body: &Value| admin_order(server.admin, line, &[&host], body);
    let name = watched.connection.clone();
    let path = format!("/v1/connections/{name}");
    let set = |on: bool| order(&format!("PUT {path}/trace"), &json!({ "on": on }));
    let producer = cluster.producer();
    let mut deliver = |parent: &Parent| {
        let offset = parent.send(&producer, &topic);
        for client in [&mut watched, &mut other] {
            assert_eq!(client.client.expect("records")["records"][0]["offset"], offset);
        }
    };
    let unsampled = || Parent { flags: "00", ..Parent::new() };
    let (before, during, after) = (unsampled(), unsampled(), unsampled());
    deliver(&before);
    assert_eq!(set(true), (200, json!({ "traced": true })));
    assert_eq!(order(&format!("GET {path}"), &Value::Null).1["traced"], true);
    deliver(&during);
    let trace = jaeger.trace(&during.trace, &["deliver feed", "client feed"]);
    assert_eq!(trace.span("client feed").tag("brucke.connection"), json!(name));
    assert_eq!(set(false), (200, json!({ "traced": false })));
    deliver(&after);
    // What Jaeger has by now it would have got in this order.
    let last = Parent::new();
    deliver(&last);
    jaeger.trace(&last.trace, &["deliver feed"]);
    for untold in [&before, &after] {
        assert!(!jaeger.knows(&untold.trace), "nobody asked for this trace");
    }
}

#[test]
fn who_traces_nothing_can_trace_no_connection() {
    let topic = fresh_topic("untraced");
    KafkaCluster::shared().admin().create_topic(&topic, 1, &[]);
    let server = ServerProcess::start_with(&shared_feed(&topic), &[]);
    let client = follow(&server, &[]);
    let host = format!("Host: {}", server.admin);
    let order = |id: &str, body: Value| {
        let line = format!("PUT /v1/connections/{id}/trace");
        let (status, answer) = admin_order(server.admin, &line, &[&host], &body);
        (status, answer["code"].clone())
    };
    let on = json!({ "on": true });
    assert_eq!(order(&client.connection, on.clone()), (400, json!("invalid")));
    assert_eq!(order(&client.connection, json!({ "on": "yes" })), (400, json!("invalid")));
    assert_eq!(order("12", on), (404, json!("not_found")));
}

fn micros_now() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since_epoch.expect("after 1970").as_micros()).expect("before the year 586524")
}

const INTERVAL: (&str, &str) = ("TRACING_EXPORT_INTERVAL", "50ms");
const DEBUG: (&str, &str) = ("LOG_LEVEL", "debug");
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at another process.
const PACE: Duration = Duration::from_millis(20);
const RECORDS: usize = 2_000;
