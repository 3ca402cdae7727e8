//! A whole server within the process, on a mock cluster or a real one.

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use brucke::app::serve;
use brucke::app::serve::Addresses;
use brucke::app::serve::EndSignal;
use brucke::config;
use brucke::kafka::config::KafkaConfig;
use brucke::kafka::embedded::EmbeddedKafka;
use brucke::kafka::embedded::NewTopic;
use brucke::kafka::producer::NewRecord;
use brucke::kafka::producer::RecordProducer;
use brucke::server::signing_key::SigningKey;
use brucke::telemetry::traces::pipeline::Tracing;
use brucke::types::ids::PartitionId;
use brucke::types::ids::TopicName;
use serde_json::Value;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::support::raw_client::RawClient;
use crate::support::raw_client::Refused;

/// A running server; dropping it ends it.
pub struct ServerRig {
    pub addresses: Addresses,
    end: mpsc::Sender<EndSignal>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl ServerRig {
    /// Starts a server for `kafka` with some keys set otherwise, as environment
    /// variables without the prefix.
    pub fn start(kafka: &KafkaConfig, changes: &[(&str, &str)]) -> Self {
        let mut variables: Vec<(String, String)> = DEFAULTS.map(own).to_vec();
        let issuers = format!(
            "[{{ issuer = \"test\", audience = [\"brucke\"], algorithm = \"HS256\", secret = \"{SECRET}\" }}]"
        );
        variables.push(("BRUCKE_AUTH_ISSUERS".to_owned(), issuers));
        variables.push(("BRUCKE_KAFKA_BOOTSTRAP_SERVERS".to_owned(), "127.0.0.1:1".to_owned()));
        for (name, value) in changes {
            let name = format!("BRUCKE_{name}");
            variables.retain(|(known, _)| *known != name);
            variables.push((name, (*value).to_owned()));
        }
        let loaded = config::load(None, variables.into_iter());
        let mut config = loaded.unwrap_or_else(|errors| panic!("{errors}"));
        config.kafka = kafka.clone();
        let (end, ended) = mpsc::channel(2);
        let (ready, addresses) = oneshot::channel();
        let thread = thread::spawn(move || {
            let tracing = Tracing::off();
            actix_web::rt::System::new().block_on(serve::serve(config, tracing, None, ended, ready))
        });
        let addresses = addresses.blocking_recv().expect("the server starts");
        Self { addresses, end, thread: Some(thread) }
    }

    /// Connects with these lines in the head.
    pub fn try_connect(&self, lines: &[&str]) -> Result<RawClient, Refused> {
        RawClient::connect(self.addresses.clients, lines)
    }

    /// Connects and authenticates with the first frame.
    pub fn client(&self, tenant: &str) -> RawClient {
        let mut client = self.try_connect(&[]).expect("a WebSocket");
        client.send(&json!({ "type": "authenticate", "token": token(tenant) }));
        client.expect("welcome");
        client
    }

    /// Connects and subscribes; returns also the `subscribed` frame.
    pub fn subscriber(&self, tenant: &str, mut request: Value) -> (RawClient, Value) {
        let mut client = self.client(tenant);
        request["type"] = json!("subscribe");
        request["id"] = json!(1);
        client.send(&request);
        let subscribed = client.expect("subscribed");
        (client, subscribed)
    }

    /// Returns status and body of a page of the admin listener.
    pub fn admin(&self, path: &str) -> (u16, String) {
        admin_page(self.addresses.admin, path)
    }

    /// Asks a page of the admin listener until its answer satisfies.
    pub fn admin_until(&self, path: &str, enough: impl Fn(u16, &str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (status, body) = self.admin(path);
            if enough(status, &body) {
                return body;
            }
            assert!(Instant::now() < deadline, "{path} says {status} {body}");
            thread::yield_now();
        }
    }

    /// Asks the server to end, as a signal does.
    pub fn signal(&self) {
        self.end.blocking_send(EndSignal).expect("the server runs");
    }

    /// Waits until the server has ended.
    pub fn join(&mut self) -> anyhow::Result<()> {
        let thread = self.thread.take().expect("joined once");
        thread.join().expect("the server does not panic")
    }
}

impl Drop for ServerRig {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Drain, and hurry.
            for _ in 0..2 {
                let _ = self.end.blocking_send(EndSignal);
            }
            let ended = thread.join();
            if !thread::panicking() {
                ended.expect("the server does not panic").expect("the server ends well");
            }
        }
    }
}

/// Returns status and body of a page of an admin listener.
pub fn admin_page(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = admin_answer(address, path, &[]);
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status line"), body.to_owned())
}

/// Returns head and body of a page of an admin listener, asked for with these lines
/// in the head.
pub fn admin_answer(address: SocketAddr, path: &str, lines: &[&str]) -> String {
    let mut stream = TcpStream::connect(address).expect("the admin listener");
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// Sends a request with a JSON body to an admin listener; returns status and body.
pub fn admin_order(
    address: SocketAddr,
    line: &str,
    headers: &[&str],
    body: &Value,
) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).expect("the admin listener");
    let body = body.to_string();
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request = format!(
        "{line} HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    (status.expect("a status line"), body)
}

/// A mock cluster and what writes to it.
pub struct Cluster {
    pub kafka: EmbeddedKafka,
    producer: RecordProducer,
}

impl Cluster {
    /// Starts a cluster with topics of so many partitions.
    pub fn start(topics: &[(&str, usize)]) -> Self {
        let topics: Vec<NewTopic> = topics
            .iter()
            .map(|(name, partitions)| NewTopic {
                name: TopicName::new(*name),
                partitions: *partitions,
            })
            .collect();
        let kafka = EmbeddedKafka::start(&topics).expect("the mock cluster starts");
        let producer = RecordProducer::new(&kafka.config()).expect("a producer");
        Self { kafka, producer }
    }

    /// Writes a record to partition 0 and waits until it is there.
    pub fn put(&self, topic: &str, key: &str, value: &str) {
        self.send(topic, key, value);
        self.flush();
    }

    /// Writes a record to partition 0.
    pub fn send(&self, topic: &str, key: &str, value: &str) {
        let record = NewRecord {
            partition: Some(PartitionId::from_index(0)),
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[],
        };
        self.producer.send(&TopicName::new(topic), &record).expect("the record is taken");
    }

    /// Waits until all is written.
    pub fn flush(&self) {
        self.producer.flush(Duration::from_secs(20)).expect("the records are in");
    }
}

/// Returns a token of a tenant, good for an hour.
pub fn token(tenant: &str) -> String {
    token_for(tenant, Duration::from_secs(3_600))
}

/// Returns a token of a tenant that is good for so long.
pub fn token_for(tenant: &str, good_for: Duration) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let claims = json!({
        "iss": "test", "aud": "brucke", "sub": "u1", "tenant": tenant,
        "exp": (now + good_for).as_secs(),
    });
    let key = SigningKey::read(SECRET).expect("a secret");
    key.sign(&claims, None).expect("it signs").secret().to_owned()
}

fn own((name, value): (&str, &str)) -> (String, String) {
    (format!("BRUCKE_{name}"), value.to_owned())
}

const SECRET: &str = "a secret that only the tests share, 32 bytes at least";
const DEFAULTS: [(&str, &str); 7] = [
    ("SERVER_LISTEN", "127.0.0.1:0"),
    ("SERVER_WORKERS", "2"),
    ("SERVER_ALLOWED_ORIGINS", "https://app.example"),
    ("SERVER_DRAIN_WINDOW", "500ms"),
    ("ADMIN_LISTEN", "127.0.0.1:0"),
    ("KAFKA_RETRY_INTERVAL", "100ms"),
    (
        "CHANNELS",
        "[{ name = \"orders\", topic = \"{tenant}.orders\" }, \
          { name = \"prices\", topic = \"prices\", tenant = \"shared\" }, \
          { name = \"couriers\", topic = \"couriers\", tenant = { key_prefix = \":\" } }]",
    ),
];
