//! TLS on the clients' listener: what holds without it holds with it, and the
//! certificate can be exchanged while clients are there.

use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use rcgen::CertifiedKey;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::version::TLS12;
use rustls::version::TLS13;
use serde_json::Value;
use serde_json::json;

use crate::support::raw_client::Incoming;
use crate::support::raw_client::KEY;
use crate::support::raw_client::PING;
use crate::support::raw_client::RawClient;
use crate::support::raw_client::TEXT;
use crate::support::raw_client::UPGRADE;
use crate::support::raw_client::VERSION;
use crate::support::raw_client::dial;
use crate::support::raw_client::dial_narrow;
use crate::support::raw_client::header;
use crate::support::server_rig::Cluster;
use crate::support::server_rig::ServerRig;
use crate::support::server_rig::token;
use crate::support::tls;
use crate::support::tls::Files;
use crate::support::tls::Secure;

/// A server with TLS on a mock cluster.
struct Rig {
    cluster: Cluster,
    server: ServerRig,
    files: Files,
    trusted: CertificateDer<'static>,
}

impl Rig {
    fn start(changes: &[(&str, &str)]) -> Self {
        let pair = tls::pair();
        let files = Files::new(&pair);
        let cluster = Cluster::start(&[("prices", 1)]);
        let server = serve(&cluster, &files, changes);
        Self { cluster, server, files, trusted: pair.cert.der().clone() }
    }

    fn client(&self) -> RawClient<Secure> {
        connect(&self.server, &self.trusted)
    }

    /// Returns the certificate that a client is shown that comes now, if it is one
    /// of these.
    fn shown(&self, known: &[&CertifiedKey<KeyPair>]) -> Option<usize> {
        known.iter().position(|pair| {
            let address = self.server.addresses.clients;
            tls::secure(address, pair.cert.der(), rustls::ALL_VERSIONS).is_ok()
        })
    }
}

fn serve(cluster: &Cluster, files: &Files, changes: &[(&str, &str)]) -> ServerRig {
    let (certificate, key) = (files.certificate(), files.key());
    let path = |path: &Path| path.to_str().expect("text").to_owned();
    let (certificate, key) = (path(&certificate), path(&key));
    let mut settings =
        vec![("SERVER_TLS_CERTIFICATE_FILE", &*certificate), ("SERVER_TLS_KEY_FILE", &*key)];
    settings.extend_from_slice(changes);
    ServerRig::start(&cluster.kafka.config(), &settings)
}

fn connect(server: &ServerRig, trusted: &CertificateDer<'static>) -> RawClient<Secure> {
    let mut client = tls::client(server.addresses.clients, trusted, &[]).expect("a WebSocket");
    client.send(&json!({ "type": "authenticate", "token": token("acme") }));
    client.expect("welcome");
    client
}

fn subscribe(client: &mut RawClient<Secure>, from: &Value) -> Value {
    client.send(&json!({ "type": "subscribe", "id": 1, "channel": "prices", "from": from }));
    client.expect("subscribed")
}

/// Waits until it is so, and fails when it does not become so.
fn until(what: &str, enough: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !enough() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn records_come_by_either_version_of_tls() {
    let rig = Rig::start(&[]);
    rig.cluster.put("prices", "EURUSD", "1");
    for version in [&TLS12, &TLS13] {
        let address = rig.server.addresses.clients;
        let stream = tls::secure(address, &rig.trusted, &[version]).expect("a handshake");
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        let mut client = RawClient::connect_on(stream, &[]).expect("a WebSocket");
        client.send(&json!({ "type": "authenticate", "token": token("acme") }));
        client.expect("welcome");
        subscribe(&mut client, &json!("earliest"));
        assert_eq!(client.values(1), [json!(1)], "{version:?}");
    }
}

#[test]
fn a_client_that_reads_slowly_gets_all_and_what_is_unsent_stays_bounded() {
    let rig = Rig::start(&[
        ("SERVER_UNSENT_BYTES_MAX", "128KiB"),
        ("SERVER_SOCKET_SEND_BUFFER", "16KiB"),
        ("KAFKA_TAIL_BYTES_MAX", "1MiB"),
        ("SERVER_WORKERS", "1"),
    ]);
    let socket = dial_narrow(rig.server.addresses.clients, 64 << 10);
    let stream = tls::secure_on(socket, &rig.trusted, rustls::ALL_VERSIONS).expect("a handshake");
    let mut client = RawClient::connect_on(stream, &[]).expect("a WebSocket");
    client.send(&json!({ "type": "authenticate", "token": token("acme") }));
    client.expect("welcome");
    let subscribed = subscribe(&mut client, &json!("latest"));
    client.expect("live");
    // More than the outbox, the socket and the tail hold together, in frames of
    // many records and in such as need many records of TLS.
    let mut written = 0;
    while written < RECORDS {
        for number in written..(written + 20) {
            let padding = if number % 20 == 0 { 60_000 } else { 5_000 };
            let value = json!({ "number": number, "padding": "x".repeat(padding) });
            rig.cluster.send("prices", "EURUSD", &value.to_string());
        }
        rig.cluster.flush();
        written += 20;
    }
    // The page of this server: metrics are of the process, which has other servers.
    let connection = |body: &str| {
        let page: Value = serde_json::from_str(body).expect("JSON");
        let at = |name| page["connections"][0][name].as_u64();
        at("behind").zip(at("unsent_bytes"))
    };
    let page = rig.server.admin_until("/v1/connections", |_, body| {
        connection(body).is_some_and(|(behind, unsent)| behind >= 1 && unsent >= 1)
    });
    let (_, unsent) = connection(&page).expect("it was just there");
    assert!(unsent <= 2 * 128 * 1_024, "{unsent} bytes unsent");

    let mut next = subscribed["positions"]["0"].as_u64().expect("a position");
    let mut seen = 0;
    while seen < RECORDS {
        let frame = client.next();
        let Incoming::Json(frame) = frame else { panic!("{frame:?}") };
        if !matches!(frame["type"].as_str(), Some("records" | "progress")) {
            continue;
        }
        let (from, to) = (frame["from"].as_u64(), frame["to"].as_u64());
        assert!(from.expect("a range") <= next, "a hole before {frame}");
        for record in frame["records"].as_array().into_iter().flatten() {
            let offset = record["offset"].as_u64().expect("an offset");
            if offset >= next {
                assert_eq!(record["value"]["number"], json!(seen), "at {offset}");
                seen += 1;
            }
        }
        next = next.max(to.expect("a range"));
    }
}

#[test]
fn a_client_goes_on_at_another_replica_with_tls() {
    let rig = Rig::start(&[]);
    for value in ["1", "2", "3"] {
        rig.cluster.send("prices", "EURUSD", value);
    }
    rig.cluster.flush();
    let mut client = rig.client();
    let subscribed = subscribe(&mut client, &json!("earliest"));
    assert_eq!(client.values(3), [1, 2, 3].map(Value::from));
    let Rig { cluster, server, files, trusted } = rig;
    drop(server);
    cluster.put("prices", "EURUSD", "4");
    let second = serve(&cluster, &files, &[]);
    let mut client = connect(&second, &trusted);
    let from = json!({ "positions": { "0": 3 }, "topic_id": subscribed["topic_id"] });
    subscribe(&mut client, &from);
    let frame = client.expect("records");
    assert_eq!((&frame["from"], &frame["to"]), (&json!(3), &json!(4)));
    assert_eq!(frame["records"][0]["value"], 4);
}

#[test]
fn a_new_certificate_serves_new_clients_and_a_broken_one_nobody() {
    let rig = Rig::start(&[]);
    let mut old_client = rig.client();
    subscribe(&mut old_client, &json!("latest"));
    old_client.expect("live");
    let (second, third) = (tls::pair(), tls::pair());
    rig.files.put(&second.cert.pem(), &second.signing_key.serialize_pem());
    until("new clients are shown the new certificate", || rig.shown(&[&second]).is_some());

    // The key of another certificate, and then the right one.
    rig.files.put(&third.cert.pem(), &second.signing_key.serialize_pem());
    rig.server.admin_until("/metrics", |_, body| {
        number(body, "brucke_tls_certificate_loads_total{outcome=\"refused\"} ") >= Some(1.0)
    });
    assert_eq!(rig.shown(&[&third, &second]), Some(1), "the broken pair is not taken");
    rig.files.put(&third.cert.pem(), &third.signing_key.serialize_pem());
    until("the mended pair is taken", || rig.shown(&[&third]).is_some());

    rig.cluster.put("prices", "EURUSD", "1");
    assert_eq!(old_client.values(1), [json!(1)], "who was there has stayed");
    let (_, metrics) = rig.server.admin("/metrics");
    let ends = number(&metrics, "brucke_tls_certificate_not_after_timestamp_seconds ");
    assert!(ends > Some(1.7e9), "{ends:?}");
}

#[test]
fn what_a_client_sends_before_it_is_answered_is_not_lost() {
    let rig = Rig::start(&[]);
    rig.cluster.put("prices", "EURUSD", "1");
    let keys: Vec<String> = (0..900).map(|key| format!("{key:060}")).collect();
    let mut keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    keys.push("EURUSD");
    let subscribe = json!({
        "type": "subscribe", "id": 1, "channel": "prices", "from": "earliest", "keys": keys,
    });
    let subscribe = subscribe.to_string();
    let token = format!("Authorization: Bearer {}", token("acme"));
    let head = ["GET /v1/ws HTTP/1.1", "Host: 127.0.0.1", UPGRADE, "Connection: Upgrade", VERSION];
    // More than HTTP reads at once, and all of it before the answer.
    let mut bytes = format!("{}\r\n{KEY}\r\n{token}\r\n\r\n", head.join("\r\n")).into_bytes();
    for _ in 0..3 {
        bytes.extend(header(PING, 5));
        bytes.extend(b"early");
    }
    bytes.extend(header(TEXT, subscribe.len() as u64));
    bytes.extend(subscribe.as_bytes());
    let address = rig.server.addresses.clients;
    let mut stream = tls::secure(address, &rig.trusted, rustls::ALL_VERSIONS).expect("a handshake");
    stream.write_all(&bytes).expect("it is taken");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{:?}", String::from_utf8_lossy(&answer));
    let mut client = RawClient::opened(stream);
    assert_eq!(client.values(1), [json!(1)]);
}

#[test]
fn a_request_in_the_clear_is_told_to_use_tls() {
    let rig = Rig::start(&[]);
    let refused = rig.server.try_connect(&[]).map(drop).expect_err("TLS is spoken here");
    assert_eq!((refused.status, &*refused.code), (400, "tls_required"));
    rig.server.admin_until("/metrics", |_, body| {
        number(body, "brucke_handshake_refusals_total{reason=\"tls_required\"} ") >= Some(1.0)
    });
}

#[test]
fn what_is_no_tls_ends_and_the_others_get_on() {
    let rig = Rig::start(&[("SERVER_HANDSHAKE_TIMEOUT", "300ms"), ("SERVER_WORKERS", "1")]);
    let mut client = rig.client();
    for noise in [&b"\x16\x03\x01\xff\xff"[..], &[0; 64], b"\x16\x03\x01\x00\x05hello", b""] {
        let mut socket = dial(rig.server.addresses.clients);
        socket.write_all(noise).expect("it is taken");
        let mut told = Vec::new();
        // An alert or nothing, and then the end; a reset is one as well.
        let _ = socket.read_to_end(&mut told);
        assert!(told.is_empty() || told[0] == 0x15, "{noise:?}: {told:?}");
    }
    let metric = "brucke_handshake_refusals_total{reason=\"handshake_timeout\"} ";
    rig.server.admin_until("/metrics", |_, body| number(body, metric) >= Some(1.0));
    client.send(&json!({ "type": "ping" }));
    client.expect("pong");
}

#[test]
fn broken_tls_ends_its_connection_only() {
    let rig = Rig::start(&[("SERVER_WORKERS", "1")]);
    let (mut broken, mut other) = (rig.client(), rig.client());
    let record = b"\x17\x03\x03\x00\x20not what the keys would make of it";
    broken.stream.sock.write_all(record).expect("it is taken");
    let mut told = Vec::new();
    let _ = broken.stream.sock.read_to_end(&mut told);
    assert_eq!(told.first(), Some(&0x17), "an alert, sealed");
    other.send(&json!({ "type": "ping" }));
    other.expect("pong");
}

#[test]
fn ends_are_told_in_the_words_of_tls() {
    let mut rig = Rig::start(&[]);
    // Refusals, by way of the takeover and without it.
    let refused =
        tls::client(rig.server.addresses.clients, &rig.trusted, &["Origin: https://x.example"]);
    assert_eq!(refused.map(drop).expect_err("a foreign page").code, "origin_forbidden");
    let stream = tls::secure(rig.server.addresses.clients, &rig.trusted, rustls::ALL_VERSIONS);
    let refused =
        RawClient::request_on(stream.expect("a handshake"), "GET / HTTP/1.1", &["Host: 127.0.0.1"]);
    assert_eq!(refused.map(drop).expect_err("nothing there").code, "not_found");

    let mut leaving = rig.client();
    leaving.send_message(8, &1_000_u16.to_be_bytes());
    assert_eq!(leaving.expect_close(), 1_000);
    assert_eq!(leaving.next(), Incoming::End { reset: false });

    let mut sent_away = rig.client();
    rig.server.signal();
    assert_eq!(sent_away.expect_close(), 1_012);
    sent_away.send_message(8, &1_012_u16.to_be_bytes());
    assert_eq!(sent_away.next(), Incoming::End { reset: false });
    rig.server.join().expect("it ends well");
}

#[test]
fn the_tail_believes_the_certificate_that_it_is_told_to() {
    let rig = Rig::start(&[]);
    rig.cluster.put("prices", "EURUSD", "1");
    let tail = |trusted: &Path| {
        let url = format!("wss://{}", rig.server.addresses.clients);
        let mut command = Command::new(env!("CARGO_BIN_EXE_brucke"));
        command.args(["tail", "prices", "--from", "earliest", "--count", "1", "--url", &url]);
        command.arg("--ca-file").arg(trusted).env("BRUCKE_TOKEN", token("acme"));
        command.output().expect("it runs")
    };
    let told = tail(&rig.files.certificate());
    let line: Value = serde_json::from_slice(&told.stdout).expect("a record");
    assert_eq!(line["value"], 1, "{told:?}");
    let told = tail(&rig.files.key());
    assert_eq!(told.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&told.stderr).contains("holds no certificate"), "{told:?}");
}

fn number(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

const RECORDS: u64 = 400;
