//! A producer with a span of its own, and a client that follows.

use serde_json::Value;
use serde_json::json;

use crate::support::kafka_client::KafkaProducer;
use crate::support::kafka_client::NewRecord;
use crate::support::raw_client::RawClient;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::token;

/// A span of somebody who is not Brücke.
pub struct Parent {
    pub trace: String,
    pub span: String,
    /// Whether it wants its trace to be kept.
    pub flags: &'static str,
}

impl Parent {
    /// Returns a span of a trace of its own.
    pub fn new() -> Self {
        let random = uuid::Uuid::new_v4().simple().to_string();
        Self { span: random[..16].to_owned(), trace: random, flags: "01" }
    }

    /// Returns itself as a header tells it.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{}", self.trace, self.span, self.flags)
    }

    /// Produces a record as its own; returns the offset.
    pub fn send(&self, producer: &KafkaProducer, topic: &str) -> i64 {
        let traceparent = self.traceparent();
        let headers = [("traceparent", Some(traceparent.as_bytes()))];
        let value = json!({ "text": VALUE }).to_string();
        let record = NewRecord { headers: &headers, ..NewRecord::new(0, KEY, &value) };
        producer.send(topic, &[record])[0]
    }

    /// Returns itself as a collector is told, in OTLP's JSON.
    pub fn span(&self, began: u64, ended: u64) -> Value {
        let nanos = |micros: u64| (micros * 1_000).to_string();
        json!({ "resourceSpans": [{
            "resource": { "attributes": [
                { "key": "service.name", "value": { "stringValue": "shop" } },
            ] },
            "scopeSpans": [{ "spans": [{
                "traceId": self.trace, "spanId": self.span, "name": "send orders", "kind": 4,
                "startTimeUnixNano": nanos(began), "endTimeUnixNano": nanos(ended),
            }] }],
        }] })
    }
}

/// A client that follows the channel live.
pub struct Client {
    pub client: RawClient,
    pub connection: String,
    pub sub: Value,
    pub topic_id: Value,
}

impl Client {
    /// Says that it has dealt with all below a position.
    pub fn acknowledge(&mut self, position: i64) {
        let positions = json!({ "0": position });
        self.client.send(&json!({ "type": "ack", "sub": self.sub, "positions": positions }));
    }
}

/// Connects and authenticates, with these lines in the head of the request.
pub fn connect(server: &ServerProcess, lines: &[&str]) -> RawClient {
    let mut client = RawClient::connect(server.clients, lines).expect("a WebSocket");
    client.send(&json!({ "type": "authenticate", "token": token("acme") }));
    client
}

/// Follows the channel live, with these lines in the head of the request.
pub fn follow(server: &ServerProcess, lines: &[&str]) -> Client {
    follow_with(server, lines, json!({}))
}

/// Follows it with more in the request.
pub fn follow_with(server: &ServerProcess, lines: &[&str], mut request: Value) -> Client {
    let mut client = connect(server, lines);
    let welcome = client.expect("welcome");
    let connection = welcome["connection"].as_str().expect("a name").to_owned();
    request["type"] = json!("subscribe");
    request["id"] = json!(1);
    request["channel"] = json!("feed");
    client.send(&request);
    let subscribed = client.expect("subscribed");
    client.expect("live");
    let (sub, topic_id) = (subscribed["sub"].clone(), subscribed["topic_id"].clone());
    Client { client, connection, sub, topic_id }
}

pub const KEY: &str = "canary-key-6c2d1f";
pub const VALUE: &str = "canary-value-8b0e7a";
