//! `brucke tail`, against a server and Apache Kafka.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::accept_hdr;
use tokio_tungstenite::tungstenite::handshake::server::ErrorResponse;
use tokio_tungstenite::tungstenite::handshake::server::Request;
use tokio_tungstenite::tungstenite::handshake::server::Response;
use tokio_tungstenite::tungstenite::http::header;

use crate::support::brucke::Brucke;
use crate::support::brucke::mint;
use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::kafka_cluster::spawn;

/// A running `brucke tail`, and what it printed.
struct Tail {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl Tail {
    fn start(url: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_brucke"));
        command.args(["tail", "orders", "--url", url]).args(arguments);
        command.env("BRUCKE_TOKEN", mint("acme"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = spawn(command).expect("the binary runs");
        let mut stdout = BufReader::new(process.stdout.take().expect("a pipe"));
        // The bound stops the process in the middle until somebody reads on.
        let (sender, lines) = mpsc::sync_channel(1);
        thread::spawn(move || {
            let mut line = String::new();
            // A line without its end was cut by a kill: nobody has had it.
            while stdout.read_line(&mut line).is_ok_and(|_| line.ends_with('\n')) {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        Self { process, lines }
    }

    /// Returns the next line, as partition and offset.
    fn line(&self) -> (u64, u64) {
        place(&self.lines.recv_timeout(PATIENCE).expect("a line"))
    }

    fn signal(&self, signal: i32) {
        let id = i32::try_from(self.process.id()).expect("process ids are small");
        // SAFETY: the process is our child and has not been waited for, so its
        // id is still its own.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    }

    /// Reads what is left; returns it with the exit code and what was said.
    fn end(mut self) -> (Vec<(u64, u64)>, Option<i32>, String) {
        let rest = self.lines.iter().map(|line| place(&line)).collect();
        let mut said = String::new();
        let mut stderr = self.process.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut said).expect("text");
        (rest, self.process.wait().expect("it ends").code(), said)
    }
}

fn place(line: &str) -> (u64, u64) {
    let record: Value = serde_json::from_str(line).expect("a line is JSON");
    assert_eq!(record["value"]["of"], "acme", "{line}");
    let number = |name: &str| record[name].as_u64().expect("a number");
    (number("partition"), number("offset"))
}

/// Checks that `seen` is, from `start` on, each of Acme's records once and in
/// order. Acme's are the even offsets.
fn check_joined(seen: &[(u64, u64)], start: &BTreeMap<u64, u64>) {
    for partition in 0..PARTITIONS {
        let from = start.get(&partition).copied().unwrap_or_default();
        let expected: Vec<u64> = (from..RECORDS).filter(|offset| offset % 2 == 0).collect();
        let of = seen.iter().filter(|(p, _)| *p == partition).map(|(_, offset)| *offset);
        assert_eq!(of.collect::<Vec<_>>(), expected, "partition {partition} from {from}");
    }
}

fn positions(state: &Path) -> BTreeMap<u64, u64> {
    let state: Value = serde_json::from_slice(&fs::read(state).expect("a state")).expect("JSON");
    let positions = state["positions"].as_object().expect("positions").iter();
    positions.map(|(p, at)| (p.parse().expect("a number"), at.as_u64().expect("one"))).collect()
}

/// Starts a server on a topic in which every other record is Acme's.
fn start_server() -> Brucke {
    let cluster = KafkaCluster::shared();
    let topic = fresh_topic("tail");
    cluster.admin().create_topic(&topic, i32::try_from(PARTITIONS).expect("few"), &[]);
    let padding = "x".repeat(500);
    let tenants = ["acme", "globex"];
    let values = tenants.map(|of| json!({"of": of, "padding": padding}).to_string());
    let headers = tenants.map(|of| [("tenant-id", Some(of.as_bytes()))]);
    let whose = |number: u64| (number / PARTITIONS % 2) as usize;
    let records: Vec<NewRecord<'_>> = (0..RECORDS * PARTITIONS)
        .map(|number| NewRecord {
            partition: i32::try_from(number % PARTITIONS).expect("few"),
            value: Some(values[whose(number)].as_bytes()),
            headers: &headers[whose(number)],
            ..NewRecord::default()
        })
        .collect();
    cluster.producer().send(&topic, &records);
    let channel = format!(
        "[[channels]]\nname = \"orders\"\ntopic = \"{topic}\"\ntenant = {{ header = \"tenant-id\" }}"
    );
    Brucke::start(&cluster.bootstrap_servers(), "", &channel)
}

#[test]
fn what_keeps_it_from_following_is_said() {
    let servers = KafkaCluster::shared().bootstrap_servers();
    let channel =
        "[[channels]]\nname = \"orders\"\ntopic = \"no-such-topic\"\ntenant = \"shared\"\n";
    let server = Brucke::start(&servers, "authentication_timeout = \"1s\"", channel);
    let mut tail = Tail::start(&server.url(), &[]);
    let mut said = BufReader::new(tail.process.stderr.take().expect("a pipe"));
    let mut line = String::new();
    said.read_line(&mut line).expect("text");
    assert!(line.contains("not subscribed: the channel can't be read now"), "{line}");
    assert!(line.contains("by `brucke doctor`; next attempt in "), "{line}");
    tail.process.kill().expect("it runs");
    tail.process.wait().expect("it ends");

    let mut command = Command::new(env!("CARGO_BIN_EXE_brucke"));
    command.args(["tail", "orders", "--url", &server.url()]).env_remove("BRUCKE_TOKEN");
    let output = command.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let wanted = "closed with 4001: authentication_timeout; no token was given: --token-file or \
                  BRUCKE_TOKEN";
    assert!(said.contains(wanted) && output.status.code() == Some(1), "{said}");
}

#[test]
fn a_tail_that_was_interrupted_goes_on_where_it_stopped() {
    let server = start_server();
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state").display().to_string();
    let tail = Tail::start(&server.url(), &["--from", "earliest", "--state", &state]);
    let mut seen: Vec<_> = (0..100).map(|_| tail.line()).collect();
    tail.signal(libc::SIGINT);
    let (rest, code, said) = tail.end();
    assert_eq!(code, Some(0), "{said}");
    seen.extend(rest);
    let left = ACME_RECORDS - seen.len();
    assert!(left > 0, "it was interrupted in the middle");
    let count = left.to_string();
    let tail = Tail::start(&server.url(), &["--state", &state, "--count", &count]);
    seen.extend((0..left).map(|_| tail.line()));
    let (rest, code, said) = tail.end();
    assert_eq!((rest.len(), code), (0, Some(0)), "{said}");
    check_joined(&seen, &BTreeMap::new());
}

#[test]
fn a_tail_that_was_killed_has_printed_all_below_its_state() {
    let server = start_server();
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let path = state.display().to_string();
    let tail = Tail::start(&server.url(), &["--from", "earliest", "--state", &path]);
    let mut seen: Vec<_> = (0..200).map(|_| tail.line()).collect();
    tail.signal(libc::SIGKILL);
    seen.extend(tail.end().0);
    let saved = positions(&state);
    // What was printed and not yet saved comes again; nothing else does.
    seen.retain(|(partition, offset)| *offset < saved[partition]);
    let left = ACME_RECORDS - seen.len();
    assert!(left > 0, "it was killed in the middle");
    let count = left.to_string();
    let tail = Tail::start(&server.url(), &["--state", &path, "--count", &count]);
    let again: Vec<_> = (0..left).map(|_| tail.line()).collect();
    check_joined(&again, &saved);
    seen.extend(again);
    check_joined(&seen, &BTreeMap::new());
    let (rest, code, said) = tail.end();
    assert_eq!((rest.len(), code), (0, Some(0)), "{said}");
    assert!(positions(&state).values().all(|position| *position >= RECORDS - 1), "{said}");
}

#[test]
fn a_tail_that_may_not_read_says_so() {
    let server = start_server();
    let (_, code, said) = Tail::start(&server.url(), &["--token-file", "none"]).end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("can't read the token"), "{said}");
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    fs::write(&token, format!("{}x", mint("acme"))).expect("a file");
    let token = token.display().to_string();
    let (_, code, said) = Tail::start(&server.url(), &["--token-file", &token]).end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("refused the token"), "{said}");
    let (_, code, said) = Tail::start(&server.url(), &["--from", "yesterday"]).end();
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn a_server_that_leaves_offsets_unaccounted_for_is_accused_loudly() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}", listener.local_addr().expect("bound"));
    let tail = Tail::start(&url, &["--from", "earliest"]);
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    fn choose(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        assert_eq!(request.uri().path(), "/v1/ws");
        let offered = request.headers()[header::SEC_WEBSOCKET_PROTOCOL].clone();
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, offered);
        Ok(response)
    }
    let (stream, _) = listener.accept().expect("a client comes");
    let mut socket = accept_hdr(stream, choose).expect("a WebSocket");
    let authenticate = socket.read().expect("a frame");
    assert!(authenticate.to_string().contains("authenticate"), "{authenticate}");
    let records = |from: u64, to: u64| {
        let value = json!({"of": "acme"});
        json!({
            "type": "records", "sub": 7, "partition": 0, "from": from, "to": to,
            "records": [{"offset": from, "value": value}],
        })
    };
    let topic = "0000000000000000000000000000abcd";
    for frame in [
        json!({"type": "welcome", "connection": "1", "tenant": "acme", "heartbeat_ms": 25_000}),
        json!({
            "type": "subscribed", "id": 1, "sub": 7, "channel": "orders", "topic_id": topic,
            "positions": {"0": 3},
        }),
        records(3, 5),
        records(6, 7),
    ] {
        socket.send(Message::text(frame.to_string())).expect("the client listens");
    }
    let (lines, code, said) = tail.end();
    assert_eq!((lines, code), (vec![(0, 3)], Some(3)), "{said}");
    let accusation = "THE SERVER BROKE ITS PROMISE: partition 0: offsets 5 to 6";
    assert!(said.contains(accusation), "{said}");
}

/// Partitions of the topic.
const PARTITIONS: u64 = 3;
/// Records in each partition, of which every other is Acme's.
const RECORDS: u64 = 1_000;
const ACME_RECORDS: usize = (RECORDS * PARTITIONS / 2) as usize;
/// How long a line may take.
const PATIENCE: Duration = Duration::from_secs(30);
