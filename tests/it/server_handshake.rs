//! Which requests become a WebSocket.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::raw_client::Incoming;
use crate::support::raw_client::KEY;
use crate::support::raw_client::RawClient;
use crate::support::raw_client::TEXT;
use crate::support::raw_client::UPGRADE;
use crate::support::raw_client::VERSION;
use crate::support::raw_client::dial;
use crate::support::raw_client::header;
use crate::support::server_rig::Cluster;
use crate::support::server_rig::ServerRig;
use crate::support::server_rig::token;
use crate::support::server_rig::token_for;

fn start(changes: &[(&str, &str)]) -> (Cluster, ServerRig) {
    let cluster = Cluster::start(&[("prices", 1), ("couriers", 1), ("acme.orders", 1)]);
    let server = ServerRig::start(&cluster.kafka.config(), changes);
    (cluster, server)
}

#[test]
fn a_token_may_come_in_three_ways_and_each_is_welcomed() {
    let (_cluster, server) = start(&[]);
    let token = token("acme");
    let header = format!("Authorization: Bearer {token}");
    let offer = format!("Sec-WebSocket-Protocol: brucke.v1.json, brucke.bearer.{token}");
    for lines in [vec![header.as_str()], vec![offer.as_str()], vec![]] {
        let mut client = server.try_connect(&lines).expect("a WebSocket");
        if lines.is_empty() {
            client.send(&json!({ "type": "authenticate", "token": token }));
        }
        assert_eq!(client.expect("welcome")["tenant"], "acme");
    }
}

#[test]
fn the_first_subprotocol_that_is_known_is_chosen_and_a_token_is_never_echoed() {
    let (_cluster, server) = start(&[]);
    let token = token("acme");
    let both = "brucke.v1.protobuf, brucke.v1.json";
    let offer = format!("Sec-WebSocket-Protocol: brucke.bearer.{token}, other, {both}");
    let head = ["Host: localhost", UPGRADE, "Connection: Upgrade", VERSION, KEY, offer.as_str()];
    let (mut client, answer) =
        RawClient::request(server.addresses.clients, "GET /v1/ws HTTP/1.1", &head).expect("101");
    let chosen = answer.lines().find(|line| line.starts_with("sec-websocket-protocol"));
    assert_eq!(chosen, Some("sec-websocket-protocol: brucke.v1.protobuf"));
    assert!(!answer.contains(&token));
    assert!(matches!(client.next(), Incoming::Binary(_)), "protobuf speaks in binary messages");
}

#[test]
fn handshakes_that_break_a_rule_are_refused_with_a_code() {
    let (_cluster, server) = start(&[]);
    let address = server.addresses.clients;
    let check = |line: &str, head: &[&str], status: u16, code: &str| {
        let mut all = vec![UPGRADE, "Connection: Upgrade"];
        let has = |name: &str| head.iter().any(|header| header.starts_with(name));
        if !has("Host") {
            all.push("Host: 127.0.0.1:8080");
        }
        if !has("Sec-WebSocket-Version") {
            all.push(VERSION);
        }
        all.push(KEY);
        all.extend(head);
        let refused = RawClient::request(address, line, &all).err();
        let refused = refused.unwrap_or_else(|| panic!("{line} {head:?} was let in"));
        assert_eq!((refused.status, refused.code.as_str()), (status, code), "{head:?}");
        refused
    };
    let get = "GET /v1/ws HTTP/1.1";
    let two = "Authorization: Bearer a\r\nSec-WebSocket-Protocol: brucke.v1.json, brucke.bearer.b";
    check(get, &["Origin: https://evil.example"], 403, "origin_forbidden");
    check(get, &["Origin: https://app.example.evil.example"], 403, "origin_forbidden");
    check(get, &["Origin: null"], 403, "origin_forbidden");
    let twice = ["Origin: https://app.example", "Origin: https://app.example"];
    check(get, &twice, 403, "origin_forbidden");
    check(get, &["Host: evil.example"], 403, "host_forbidden");
    // actix by itself refuses this one.
    check(get, &["Host: localhost", "Host: localhost"], 400, "");
    check("GET /v1/ws HTTP/1.0", &[], 400, "bad_handshake");
    check(get, &[KEY], 400, "bad_handshake");
    check(get, &["Sec-WebSocket-Version: 8"], 426, "version_unsupported");
    check(get, &["Sec-WebSocket-Protocol: graphql-ws"], 400, "subprotocol_unknown");
    check(get, &["Sec-WebSocket-Protocol: brucke.bearer.x"], 400, "subprotocol_unknown");
    check(get, &["Content-Length: 0"], 400, "bad_handshake");
    check(get, &["Authorization: Basic dTpw"], 400, "token_misplaced");
    check(get, &[two], 400, "token_misplaced");
    check("GET /v1/ws?access_token=x HTTP/1.1", &[], 400, "token_misplaced");
    check("POST /v1/ws HTTP/1.1", &[], 405, "method_not_allowed");
    check("GET /v2/ws HTTP/1.1", &[], 404, "not_found");
    let refused = check(get, &["Authorization: Bearer x.y.z"], 401, "authentication_failed");
    assert!(refused.has_header("www-authenticate: bearer"), "{}", refused.head);
}

#[test]
fn requests_without_an_upgrade_are_told_what_this_is() {
    let (_cluster, server) = start(&[]);
    let address = server.addresses.clients;
    let plain = RawClient::request(address, "GET /v1/ws HTTP/1.1", &["Host: localhost"]);
    let refused = plain.err().expect("no WebSocket");
    assert_eq!((refused.status, refused.code.as_str()), (426, "upgrade_required"));
    let chunked = ["Host: localhost", UPGRADE, "Connection: Upgrade, close", VERSION, KEY];
    let chunked = [&chunked[..], &["Transfer-Encoding: chunked"]].concat();
    // And the connection ends, though the body never comes.
    let refused = RawClient::request(address, "GET /v1/ws HTTP/1.1", &chunked).err();
    assert_eq!(refused.expect("no WebSocket").status, 426);
}

#[test]
fn an_allowed_origin_and_a_token_in_the_query_are_let_in_where_configured() {
    let (_cluster, server) = start(&[("SERVER_TOKEN_IN_QUERY", "true")]);
    let line = format!("GET /v1/ws?access_token={} HTTP/1.1", token("acme"));
    let origin = "Origin: https://app.example";
    let head = ["Host: localhost", UPGRADE, "Connection: Upgrade", VERSION, KEY, origin];
    let (mut client, _) =
        RawClient::request(server.addresses.clients, &line, &head).expect("a WebSocket");
    assert_eq!(client.expect("welcome")["tenant"], "acme");
}

#[test]
fn beyond_the_limit_of_connections_a_client_is_told_when_to_come_again() {
    let (_cluster, server) = start(&[("SERVER_CONNECTIONS_MAX", "1"), ("SERVER_WORKERS", "1")]);
    let mut first = server.client("acme");
    // Refused before its token is looked at.
    let refused = server.try_connect(&["Authorization: Bearer x"]).err().expect("no room");
    assert_eq!((refused.status, refused.code.as_str()), (503, "overloaded"));
    assert!(refused.has_header("retry-after: "), "{}", refused.head);
    first.send_message(8, &1000_u16.to_be_bytes());
    assert_eq!(first.expect_close(), 1000);
    assert_eq!(first.next(), Incoming::End { reset: false });
    let mut second = server.client("acme");
    second.send(&json!({ "type": "ping" }));
    second.expect("pong");
}

#[test]
fn who_comes_while_too_many_are_on_their_way_in_is_told_when_to_come_back() {
    let (_cluster, server) = start(&[
        ("SERVER_HANDSHAKES_MAX", "2"),
        ("SERVER_HANDSHAKE_TIMEOUT", "1m"),
        ("SERVER_WORKERS", "1"),
    ]);
    // Two who have not said anything yet; a worker takes connections in order.
    let [first, second] = [(); 2].map(|()| dial(server.addresses.clients));
    for _ in 0..2 {
        // Nothing of it is looked at.
        let refused = server.try_connect(&["Authorization: Bearer x"]).err().expect("no place");
        assert_eq!((refused.status, refused.code.as_str()), (503, "handshakes_full"));
        assert!(refused.has_header("retry-after: "), "{}", refused.head);
        let body: Value = serde_json::from_str(&refused.body).expect("JSON");
        assert!(body["retry_after_ms"].as_u64().is_some_and(|wait| wait >= 2_000), "{body}");
    }
    let mut inside = RawClient::connect_on(first, &[]).expect("a WebSocket");
    let deadline = Instant::now() + Duration::from_secs(20);
    let another = loop {
        match server.try_connect(&[]) {
            Ok(client) => break client,
            Err(refused) => assert_eq!(refused.code, "handshakes_full"),
        }
        assert!(Instant::now() < deadline, "who has a WebSocket is no longer on its way");
    };
    // One who leaves gives its place back as well.
    drop(second);
    inside.send(&json!({ "type": "authenticate", "token": token("acme") }));
    inside.expect("welcome");
    drop(another);
    let metric = "brucke_handshake_refusals_total{reason=\"handshakes_full\"} ";
    server.admin_until("/metrics", |_, page| {
        let count = page.lines().find_map(|line| line.strip_prefix(metric)?.parse::<u64>().ok());
        count.is_some_and(|count| count >= 2)
    });
}

#[test]
fn a_head_that_does_not_come_is_not_waited_for() {
    let (_cluster, server) = start(&[("SERVER_HANDSHAKE_TIMEOUT", "200ms")]);
    let mut stream = TcpStream::connect(server.addresses.clients).expect("the listener");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server ends it");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[test]
fn who_does_not_say_who_it_is_in_time_is_sent_away() {
    let (_cluster, server) = start(&[("SERVER_AUTHENTICATION_TIMEOUT", "200ms")]);
    let mut client = server.try_connect(&[]).expect("a WebSocket");
    assert_eq!(client.expect("closing")["code"], "authentication_timeout");
    assert_eq!(client.expect_close(), 4001);
    let mut client = server.try_connect(&[]).expect("a WebSocket");
    client.send(&json!({ "type": "authenticate", "token": "x.y.z" }));
    assert_eq!(client.expect_close(), 4002);
}

#[test]
fn a_huge_frame_is_refused_by_its_header() {
    let (_cluster, server) = start(&[]);
    let mut client = server.try_connect(&[]).expect("a WebSocket");
    client.send_bytes(&header(TEXT, 1 << 30)).expect("the server reads");
    assert_eq!(client.expect_close(), 1009);
    let mut client = server.client("acme");
    client.send_bytes(&header(TEXT, 1 << 30)).expect("the server reads");
    assert_eq!(client.expect_close(), 1009);
}

#[test]
fn a_token_that_ends_is_announced_and_then_ends_the_connection() {
    let (_cluster, server) = start(&[("SERVER_EXPIRY_WARNING", "1h")]);
    let mut client = server.try_connect(&[]).expect("a WebSocket");
    let short = token_for("acme", Duration::from_secs(2));
    client.send(&json!({ "type": "authenticate", "token": short }));
    client.expect("welcome");
    client.expect("expiring");
    assert_eq!(client.expect("closing")["code"], "token_expired");
    assert_eq!(client.expect_close(), 4003);
}
