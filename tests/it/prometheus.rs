//! Metrics, rules and dashboard, as Prometheus itself takes them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use brucke::protocol::frame::StartAt;
use serde_json::Value;
use serde_json::json;
use socket2::SockRef;

use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::prometheus::Prometheus;
use crate::support::prometheus::promtool;
use crate::support::raw_client::RawClient;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::shared_feed;
use crate::support::server_process::token;
use crate::support::watcher::Watcher;
use crate::support::watcher::Wish;

#[test]
fn promtool_takes_the_rules_and_their_tests() {
    promtool(&["check", "rules", RULES], "");
    let said = promtool(&["test", "rules", "tests/prometheus/alerts.yaml"], "");
    assert!(said.contains("SUCCESS"), "{said}");
}

#[test]
fn every_alert_is_tested_and_has_a_section_in_the_runbook() {
    let names = alerts();
    let tests = read("tests/prometheus/alerts.yaml");
    let runbook = read("docs/runbook.md");
    let sections: Vec<&str> =
        runbook.lines().filter_map(|line| line.strip_prefix("## Brucke")).collect();
    let wanted: Vec<&str> =
        names.iter().map(|name| name.strip_prefix("Brucke").expect("a name of ours")).collect();
    assert_eq!(sections, wanted, "a section for each alert, in the order of the rules");
    for name in &names {
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} is not tested");
        let link = format!("runbook: docs/runbook.md#{}", name.to_lowercase());
        assert!(read(RULES).contains(&link), "{name} does not name its section");
    }
    for section in runbook.split("\n## Brucke").skip(1) {
        for part in ["**Means.**", "**Causes.**", "**Look at.**", "**Do.**"] {
            assert!(section.contains(part), "{part} is missing in Brucke{section}");
        }
    }
}

#[test]
fn the_dashboard_and_the_rules_name_series_that_exist() {
    let topic = fresh_topic("dashboard");
    KafkaCluster::shared().admin().create_topic(&topic, 1, &[]);
    let server = ServerProcess::start_with(&shared_feed(&topic), &[("METRICS_TENANTS_MAX", "10")]);
    let mut watcher = Watcher::start(server.clients, &Wish::new(StartAt::Latest));
    KafkaCluster::shared().producer().send(&topic, &[NewRecord::new(0, "k", "first")]);
    watcher.hear_until(|heard| heard.has_value("first"));
    let scrape = body(&server.admin_page("/metrics"));
    promtool(&["check", "metrics"], &scrape);

    let prometheus = Prometheus::start(server.admin, &read(RULES));
    prometheus.until("there are rates", |p| {
        !p.query("rate(brucke_channel_deliveries_total[10s])").is_empty()
    });
    let expressions = expressions();
    let latencies = targets().into_iter().filter(|target| {
        target["expr"].as_str().is_some_and(|text| text.contains("_latency_seconds_bucket"))
    });
    assert!(latencies.filter(|target| target["exemplar"] == true).count() >= 7, "points to traces");
    assert!(expressions.len() > 60, "{} expressions", expressions.len());
    for expression in expressions {
        let asked = expression.replace("$instance", ".*").replace("$__rate_interval", "10s");
        assert!(!asked.contains('$'), "{expression} has a variable that is not known");
        assert!(!prometheus.query(&asked).is_empty(), "{expression} finds nothing");
    }
    for name in metrics_in(&read(RULES)) {
        assert!(!prometheus.query(&name).is_empty(), "the rules name {name}, which is not there");
    }
    let rules = prometheus.rules();
    assert_eq!(rules.len(), alerts().len());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
}

#[test]
fn a_client_that_stays_behind_is_told_of_until_it_has_caught_up() {
    let topic = fresh_topic("alert");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 1, &[]);
    let settings = [("SERVER_UNSENT_BYTES_MAX", "128KiB"), ("SERVER_SOCKET_SEND_BUFFER", "16KiB")];
    let server = ServerProcess::start_with(&shared_feed(&topic), &settings);
    // The rule as it is, but for its times: nobody waits for five minutes here.
    let rule = "max by (instance) (brucke_behind_longest_seconds) > 300\n        for: 1m";
    assert!(read(RULES).contains(rule), "the rule has changed: change this test with it");
    let quick = "max by (instance) (brucke_behind_longest_seconds) > 2\n        for: 1s";
    let prometheus = Prometheus::start(server.admin, &read(RULES).replace(rule, quick));
    let fires = |p: &Prometheus| p.firing().iter().any(|name| name == "BruckeClientsStayBehind");

    let mut client = stalled_client(&server);
    let value = "x".repeat(4_000);
    let records: Vec<_> = (0..500).map(|_| NewRecord::new(0, "k", &value)).collect();
    assert!(!fires(&prometheus), "all is well");
    cluster.producer().send(&topic, &records);
    prometheus.until("the alert fires", fires);
    assert!(server.metric("brucke_clients_behind") >= 1.0);
    assert!(server.metric("brucke_behind_records") >= 1.0);
    read_all(&mut client, records.len());
    prometheus.until("the alert clears", |p| !fires(p));
    assert!(server.metric("brucke_clients_behind") < 1.0);
}

#[test]
fn names_beyond_the_limits_are_counted_together() {
    let topic = fresh_topic("labels");
    KafkaCluster::shared().admin().create_topic(&topic, 3, &[]);
    let settings = [("METRICS_TENANTS_MAX", "1"), ("METRICS_PARTITIONS_MAX", "2")];
    let server = ServerProcess::start_with(&shared_feed(&topic), &settings);
    let wish = |tenant: &str| Wish { tenant: tenant.to_owned(), ..Wish::new(StartAt::Latest) };
    let _first = Watcher::start(server.clients, &wish("t-0"));
    let page = || body(&server.admin_page("/metrics"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !page().contains("brucke_tenant_connections{tenant=\"t-0\"} 1") {
        assert!(Instant::now() < deadline, "{}", page());
    }
    let _others = ["t-1", "t-2", "t-3"].map(|t| Watcher::start(server.clients, &wish(t)));
    while !page().contains("brucke_tenant_connections{tenant=\"other\"} 3") {
        assert!(Instant::now() < deadline, "{}", page());
    }
    let page = page();
    assert!(!page.contains("t-1"), "{page}");
    let lags = page.lines().filter(|line| line.starts_with("brucke_reader_lag_records{"));
    assert_eq!(lags.count(), 3, "two by name, and the other: {page}");
    assert!(page.contains("brucke_reader_lag_records{topic=\"other\",partition=\"other\"}"));
}

/// Returns a client that subscribes and then reads nothing until it is told to.
fn stalled_client(server: &ServerProcess) -> RawClient {
    let mut client = RawClient::connect(server.clients, &[]).expect("a WebSocket");
    // As little as the system allows, so that the server feels it.
    SockRef::from(&client.stream).set_recv_buffer_size(4_096).expect("a small buffer");
    client.send(&json!({ "type": "authenticate", "token": token("acme") }));
    client.expect("welcome");
    client.send(&json!({ "type": "subscribe", "id": 1, "channel": "feed" }));
    client.expect("live");
    client
}

/// Reads as fast as it can until so many records have come.
fn read_all(client: &mut RawClient, records: usize) {
    SockRef::from(&client.stream).set_recv_buffer_size(1 << 20).expect("a large buffer");
    let mut seen = 0;
    while seen < records {
        seen += client.expect("records")["records"].as_array().expect("records").len();
    }
}

fn alerts() -> Vec<String> {
    let rules = read(RULES);
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

/// Returns every query of the dashboard.
fn targets() -> Vec<Value> {
    fn collect(value: &Value, found: &mut Vec<Value>) {
        match value {
            Value::Object(fields) if fields.contains_key("expr") => found.push(value.clone()),
            Value::Object(fields) => fields.values().for_each(|field| collect(field, found)),
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    let mut found = Vec::new();
    collect(&dashboard, &mut found);
    found
}

/// Returns every expression of the dashboard.
fn expressions() -> Vec<String> {
    let expression = |target: Value| target["expr"].as_str().expect("text").to_owned();
    targets().into_iter().map(expression).collect()
}

/// Returns the names of metrics in the expressions of rules.
fn metrics_in(rules: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = rules.split(|c: char| !is_word(c));
    let ours = words.filter(|word| word.starts_with("brucke_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

fn body(answer: &str) -> String {
    answer.split_once("\r\n\r\n").expect("an HTTP answer").1.to_owned()
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const RULES: &str = "helm/brucke/files/alerts.yaml";
const DASHBOARD: &str = "helm/brucke/files/dashboard.json";
