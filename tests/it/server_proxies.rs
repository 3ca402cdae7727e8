//! Where clients are, by the word of proxies: who is believed, and who is not.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::support::kafka_cluster::free_ports;
use crate::support::kafka_cluster::spawn;
use crate::support::raw_client::RawClient;
use crate::support::raw_client::Refused;
use crate::support::raw_client::dial;
use crate::support::server_rig::Cluster;
use crate::support::server_rig::ServerRig;
use crate::support::server_rig::admin_order;
use crate::support::server_rig::token;
use crate::support::tls;
use crate::support::tls::Files;

const LOOPBACK: (&str, &str) = ("SERVER_TRUSTED_PROXIES", "127.0.0.0/8");
const ELSEWHERE: (&str, &str) = ("SERVER_TRUSTED_PROXIES", "10.0.0.0/8");
const V2: (&str, &str) = ("SERVER_PROXY_PROTOCOL", "v2");
const X_FORWARDED_FOR: (&str, &str) = ("SERVER_FORWARDED_HEADER", "x-forwarded-for");
const FORWARDED: (&str, &str) = ("SERVER_FORWARDED_HEADER", "forwarded");

fn start(changes: &[(&str, &str)]) -> (Cluster, ServerRig) {
    let cluster = Cluster::start(&[("prices", 1)]);
    // One worker, so that a page of the admin interface has all connections.
    let settings = [&[("SERVER_WORKERS", "1")], changes].concat();
    let server = ServerRig::start(&cluster.kafka.config(), &settings);
    (cluster, server)
}

/// Returns the address by which an operator sees the only connection.
fn seen(server: &ServerRig) -> Value {
    let host = ["Host: 127.0.0.1"];
    let (status, page) =
        admin_order(server.addresses.admin, "GET /v1/connections", &host, &Value::Null);
    assert_eq!(status, 200, "{page}");
    let rows = page["connections"].as_array().expect("a list");
    assert_eq!(rows.len(), 1, "{page}");
    rows[0]["address"].clone()
}

/// A header of version 2 for this client, which proxies send first.
fn proxied(client: [u8; 4]) -> Vec<u8> {
    let [a, b, c, d] = client;
    let addresses = [a, b, c, d, 10, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb];
    // And something of the proxy's own, which is passed over.
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13"[..], &addresses, &[0xea, 0, 4, 1, 2, 3, 4]].concat()
}

/// Connects, sends this before anything else, and does the handshake.
fn connect_after(server: &ServerRig, first: &[u8], lines: &[&str]) -> Result<RawClient, Refused> {
    RawClient::connect_on(dial_after(server, first), lines)
}

fn dial_after(server: &ServerRig, first: &[u8]) -> TcpStream {
    let mut socket = dial(server.addresses.clients);
    socket.write_all(first).expect("it is taken");
    socket
}

/// Expects the connection to be ended without a word, and for this reason.
fn check_ended(server: &ServerRig, first: &[u8], reason: &str) {
    let mut answer = Vec::new();
    // A reset is an end as well: what was sent was not read to its end.
    let _ = dial_after(server, first).read_to_end(&mut answer);
    assert!(answer.is_empty(), "{answer:?}");
    let metric = format!("brucke_handshake_refusals_total{{reason=\"{reason}\"}} ");
    server.admin_until("/metrics", |_, body| {
        let count = body.lines().find_map(|line| line.strip_prefix(&metric)?.parse::<u64>().ok());
        count.is_some_and(|count| count > 0)
    });
}

#[test]
fn a_trusted_proxy_is_believed_by_either_header() {
    let check = |header, lines: &[&str], expected: &str| {
        let (_cluster, server) = start(&[LOOPBACK, header]);
        let _client = server.try_connect(lines).expect("a WebSocket");
        assert_eq!(seen(&server), expected, "{lines:?}");
    };
    check(X_FORWARDED_FOR, &["X-Forwarded-For: 6.6.6.6, 192.0.2.7, 127.0.0.2"], "192.0.2.7");
    check(X_FORWARDED_FOR, &["Forwarded: for=6.6.6.6"], "127.0.0.1");
    check(FORWARDED, &["Forwarded: for=6.6.6.6, for=\"[2001:db8::7]:99\""], "2001:db8::7");
    check(FORWARDED, &["X-Forwarded-For: 6.6.6.6"], "127.0.0.1");
}

#[test]
fn a_stranger_is_believed_in_nothing() {
    for settings in [vec![ELSEWHERE, X_FORWARDED_FOR], vec![]] {
        let (_cluster, server) = start(&settings);
        let lines = ["X-Forwarded-For: 192.0.2.7", "Forwarded: for=192.0.2.7"];
        let _client = server.try_connect(&lines).expect("a WebSocket");
        assert_eq!(seen(&server), "127.0.0.1");
    }
}

#[test]
fn a_trusted_proxy_must_say_for_whom_it_speaks() {
    let short = ("SERVER_HANDSHAKE_TIMEOUT", "500ms");
    let (_cluster, server) = start(&[LOOPBACK, V2, short]);
    let client = connect_after(&server, &proxied([192, 0, 2, 7]), &[]).expect("a WebSocket");
    assert_eq!(seen(&server), "192.0.2.7");
    drop(client);
    check_ended(&server, b"GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "proxy_header_missing");
    // Half a header, and nothing more.
    check_ended(&server, &proxied([192, 0, 2, 7])[..20], "handshake_timeout");
}

#[test]
fn who_only_looks_whether_it_can_connect_is_let_go_in_order() {
    let (_cluster, server) = start(&[LOOPBACK, V2]);
    let mut answer = Vec::new();
    let mut socket = dial(server.addresses.clients);
    socket.shutdown(Shutdown::Write).expect("a socket");
    socket.read_to_end(&mut answer).expect("it is ended in order");
    assert!(answer.is_empty(), "{answer:?}");
}

#[test]
fn a_proxy_that_asks_for_itself_is_let_in_by_its_own_address() {
    let (_cluster, server) = start(&[LOOPBACK, V2]);
    let health_check = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let _client = connect_after(&server, health_check, &[]).expect("a WebSocket");
    assert_eq!(seen(&server), "127.0.0.1");
}

#[test]
fn the_header_of_a_stranger_is_refused() {
    let (_cluster, server) = start(&[ELSEWHERE, V2]);
    check_ended(&server, &proxied([192, 0, 2, 7]), "proxy_header_untrusted");
    let _client = server.try_connect(&[]).expect("without one it is a client like any other");
    assert_eq!(seen(&server), "127.0.0.1");
}

#[test]
fn both_kinds_of_proxies_are_followed_one_behind_the_other() {
    let check = |first: [u8; 4], expected: &str| {
        let (_cluster, server) = start(&[LOOPBACK, V2, X_FORWARDED_FOR]);
        let lines = ["X-Forwarded-For: 192.0.2.7"];
        let _client = connect_after(&server, &proxied(first), &lines).expect("a WebSocket");
        assert_eq!(seen(&server), expected);
    };
    // The first proxy heard the second, which is trusted as well.
    check([127, 0, 0, 9], "192.0.2.7");
    // It heard a stranger, who may write what he wants.
    check([203, 0, 113, 9], "203.0.113.9");
}

#[test]
fn the_header_of_a_proxy_stands_before_tls() {
    let pair = tls::pair();
    let files = Files::new(&pair);
    let (certificate, key) = (files.certificate(), files.key());
    let (_cluster, server) = start(&[
        LOOPBACK,
        V2,
        ("SERVER_TLS_CERTIFICATE_FILE", certificate.to_str().expect("text")),
        ("SERVER_TLS_KEY_FILE", key.to_str().expect("text")),
    ]);
    let socket = dial_after(&server, &proxied([192, 0, 2, 7]));
    let stream = tls::secure_on(socket, pair.cert.der(), rustls::ALL_VERSIONS);
    let mut client = RawClient::connect_on(stream.expect("a handshake"), &[]).expect("it opens");
    client.send(&json!({ "type": "authenticate", "token": token("acme") }));
    client.expect("welcome");
    assert_eq!(seen(&server), "192.0.2.7");
    check_ended(&server, b"\x16\x03\x01\x02\0", "proxy_header_missing");
}

#[test]
fn haproxy_is_understood_in_both_modes() {
    check_haproxy("mode tcp", "send-proxy-v2", V2);
    check_haproxy("mode http\noption forwardfor", "", X_FORWARDED_FOR);
}

/// Connects by way of HAProxy, from an address that is not its own.
fn check_haproxy(mode: &str, option: &str, setting: (&str, &str)) {
    let (_cluster, server) = start(&[("SERVER_TRUSTED_PROXIES", "127.0.0.1"), setting]);
    let port = free_ports(1)[0];
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("haproxy.cfg");
    let text = format!(
        "defaults\ntimeout connect 5s\ntimeout client 30s\ntimeout server 30s\n{mode}\n\
         listen clients\nbind 127.0.0.1:{port}\nserver one {} {option}\n",
        server.addresses.clients
    );
    fs::write(&config, text).expect("written");
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&config).stdout(Stdio::null());
    let mut haproxy = spawn(command).expect("haproxy is installed, see .ci/prerequisites");
    let deadline = Instant::now() + Duration::from_secs(20);
    let stream = loop {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let from: SocketAddr = "127.0.0.77:0".parse().expect("an address");
        socket.bind(&from.into()).expect("all of 127 is ours");
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match socket.connect(&to.into()) {
            Ok(()) => break TcpStream::from(socket),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    let client = RawClient::connect_on(stream, &[]);
    let address = client.map(|_client| seen(&server));
    haproxy.kill().expect("it runs");
    haproxy.wait().expect("it ends");
    assert_eq!(address.expect("a WebSocket"), "127.0.0.77", "{mode}");
}

#[test]
fn an_address_has_so_many_connections_and_others_have_theirs() {
    let max = ("SERVER_CONNECTIONS_PER_ADDRESS_MAX", "2");
    let (_cluster, server) = start(&[LOOPBACK, X_FORWARDED_FOR, max]);
    let of = |address: &str| server.try_connect(&[&format!("X-Forwarded-For: {address}")]);
    let first = of("192.0.2.7").expect("a WebSocket");
    let _second = of("192.0.2.7").expect("a WebSocket");
    let refused = of("192.0.2.7").map(drop).expect_err("one too many");
    assert_eq!((refused.status, &*refused.code), (429, "address_full"));
    assert!(refused.has_header("retry-after: "), "{}", refused.head);
    let _other = of("192.0.2.8").expect("another address has its own");
    drop(first);
    let deadline = Instant::now() + Duration::from_secs(20);
    while of("192.0.2.7").is_err() {
        assert!(Instant::now() < deadline, "who left has left its place");
    }
}
