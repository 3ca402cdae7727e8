//! A token, a key and a value are in no log line, metric, error or admin page,
//! however they came and whatever was wrong with them.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::HandshakeError;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::WebSocket;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::client::client;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header;

use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::feed;
use crate::support::server_process::token;
use crate::support::server_rig::admin_order;

#[test]
fn tokens_keys_and_values_are_told_to_nobody_else() {
    let topic = fresh_topic("secrets");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 1, &[]);
    let channel = feed(&topic, "{ header = \"tenant-id\" }");
    let settings = [("LOG_LEVEL", "trace"), ("METRICS_TENANTS_MAX", "10")];
    let server = ServerProcess::start_with(&channel, &settings);
    let value = json!({ "text": CANARY_VALUE }).to_string();
    let tenant = [("tenant-id", Some(&b"acme"[..]))];
    let own = NewRecord { headers: &tenant, ..NewRecord::new(0, CANARY_KEY, &value) };
    // The second is nobody's, which is counted.
    cluster.producer().send(&topic, &[own, NewRecord::new(0, CANARY_KEY, &value)]);

    let good = token("acme");
    let (signed, signature) = good.rsplit_once('.').expect("a JWT has three parts");
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    let cut = good[..good.len() - 9].to_owned();
    let mut said = String::new();
    for token in [&good, &forged, &cut] {
        for way in
            [Way::Header, Way::Subprotocol, Way::Query, Way::HeaderAndSubprotocol, Way::Frame]
        {
            said += &converse(&server, token, way);
        }
        said += &ask_without_upgrade(&server, token);
    }
    assert_eq!(said.matches(CANARY_VALUE).count(), 3, "it was read in each of the three ways");
    // Workers publish once a second.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !server
        .admin_page("/metrics")
        .contains("brucke_tenant_deliveries_total{tenant=\"acme\"} 3")
    {
        assert!(Instant::now() < deadline, "{}", server.admin_page("/metrics"));
    }
    let pages = ["/metrics", "/livez", "/readyz", &format!("/{good}"), &format!("/?token={good}")];
    let mut pages = pages.map(|path| server.admin_page(path)).to_vec();
    let counted = |name: &str| {
        let mut lines = pages[0].lines().filter(|line| line.starts_with(name));
        assert!(lines.any(|line| !line.ends_with(" 0")), "{name} in {}", pages[0]);
    };
    counted("brucke_token_refusals_total");
    counted("brucke_kafka_records_without_tenant_total");
    pages.extend(operator_pages(&server, &good));
    let log = server.log();
    assert!(log.contains("handshake refused"), "{log}");

    let errors = said.lines().filter(|line| !line.contains("\"type\":\"records\""));
    let errors = errors.collect::<Vec<_>>().join("\n");
    assert!(errors.contains("authentication_failed"), "{errors}");
    let mut places = vec![("the log", log.as_str()), ("what clients were told", errors.as_str())];
    places.extend(pages.iter().map(|page| ("an admin page", page.as_str())));
    let mut canaries: Vec<&str> = vec![CANARY_KEY, CANARY_VALUE];
    let parts = [&good, &forged, &cut].into_iter().flat_map(|token| token.split('.').skip(1));
    // The head of a token is the same for all and tells nothing.
    canaries.extend(parts);
    for (place, text) in places {
        for canary in &canaries {
            assert!(!text.contains(canary), "{canary} is in {place}:\n{text}");
        }
    }
}

/// Returns what the admin interface says, also of the record and the token.
fn operator_pages(server: &ServerProcess, token: &str) -> Vec<String> {
    let lists = ["connections", "channels", "partitions", "sweeps", "tenants"];
    let mut pages: Vec<String> =
        lists.iter().map(|list| server.admin_page(&format!("/v1/{list}"))).collect();
    for (token, status) in [(token.to_owned(), "matches"), (format!("{token}x"), "denied")] {
        let asked = json!({ "token": token, "channel": "feed", "partition": 0, "offset": 0 });
        let host = ["Host: localhost"];
        let (code, answer) = admin_order(server.admin, "POST /v1/explain", &host, &asked);
        assert_eq!((code, &answer["verdict"]), (200, &json!(status)), "{answer}");
        pages.push(answer.to_string());
    }
    pages
}

/// By which way a token is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Header,
    Subprotocol,
    /// Not allowed by this configuration.
    Query,
    /// Two tokens are one too many.
    HeaderAndSubprotocol,
    Frame,
}

/// Shows a token, asks for things good and bad, and returns all that was said.
fn converse(server: &ServerProcess, token: &str, way: Way) -> String {
    let query = if way == Way::Query { format!("?token={token}") } else { String::new() };
    let url = format!("ws://{}/v1/ws{query}", server.clients);
    let mut request = url.into_client_request().expect("a request");
    let headers = request.headers_mut();
    let bearer = |text: String| HeaderValue::from_str(&text).expect("plain text");
    let mut subprotocols = "brucke.v1.json".to_owned();
    if matches!(way, Way::Subprotocol | Way::HeaderAndSubprotocol) {
        subprotocols += &format!(", brucke.bearer.{token}");
    }
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, bearer(subprotocols));
    if matches!(way, Way::Header | Way::HeaderAndSubprotocol) {
        headers.insert(header::AUTHORIZATION, bearer(format!("Bearer {token}")));
    }
    let stream = TcpStream::connect(server.clients).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let mut socket = match client(request, stream) {
        Ok((socket, response)) => {
            assert!(!format!("{response:?}").contains(token), "{response:?}");
            socket
        }
        Err(HandshakeError::Failure(Error::Http(response))) => {
            let body = response.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(body);
            return format!("{:?} {body}\n", response.headers());
        }
        Err(error) => panic!("{error}"),
    };
    if way == Way::Frame {
        say(&mut socket, &json!({ "type": "authenticate", "token": token }));
    }
    for (id, channel) in [(1, "feed"), (2, "another")] {
        let keys = [CANARY_KEY];
        let subscribe = json!({
            "type": "subscribe", "id": id, "channel": channel, "keys": keys, "from": "earliest",
        });
        say(&mut socket, &subscribe);
    }
    say(
        &mut socket,
        &json!({ "type": "subscribe", "id": 3, "channel": "feed", "keys": CANARY_KEY }),
    );
    say(&mut socket, &json!({ "type": "authenticate", "token": format!("{token}x") }));
    say(&mut socket, &json!({ "type": "authenticate", "token": token, "more": token }));
    let mut said = String::new();
    let (mut live, mut refusals) = (false, 0);
    while !live || refusals < 4 {
        match socket.read() {
            Ok(Message::Text(text)) => {
                live |= text.contains("\"type\":\"live\"");
                refusals += i32::from(text.contains("\"type\":\"error\""));
                said += &text;
                said += "\n";
            }
            Ok(Message::Close(frame)) => {
                said += &format!("{frame:?}\n");
                break;
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    said
}

fn say(socket: &mut WebSocket<TcpStream>, frame: &Value) {
    // A server that refused the token may be gone already.
    let _ = socket.send(Message::text(frame.to_string()));
}

/// Asks as no WebSocket does and returns the answer.
fn ask_without_upgrade(server: &ServerProcess, token: &str) -> String {
    let mut stream = TcpStream::connect(server.clients).expect("the server listens");
    let request = format!(
        "GET /v1/{token} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

const CANARY_KEY: &str = "canary-key-5d41402a";
const CANARY_VALUE: &str = "canary-value-7d793037";
