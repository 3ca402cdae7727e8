//! A token, a key and a value are in no log line, span, metric, error or admin page,
//! however they came and whatever was wrong with them; and no name that a client
//! chose is in anything that is exported.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
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

use crate::support::jaeger::Jaeger;
use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::raw_client::RawClient;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::feed;
use crate::support::server_process::token_with;
use crate::support::server_rig::admin_answer;
use crate::support::server_rig::admin_order;

#[test]
fn tokens_keys_and_values_are_told_to_nobody_else() {
    let jaeger = Jaeger::start();
    let topic = fresh_topic("secrets");
    let server = start(&jaeger, &topic);
    let good = token_with("acme", json!({ "sub": CANARY_SUBJECT, "jti": CANARY_TOKEN_ID }));
    let (signed, signature) = good.rsplit_once('.').expect("a JWT has three parts");
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    let cut = good[..good.len() - 9].to_owned();
    let mut said = String::new();
    for token in [&good, &forged, &cut] {
        for way in WAYS {
            said += &converse(&server, token, way);
        }
        said += &ask_without_upgrade(&server, token);
    }
    assert_eq!(said.matches(CANARY_VALUE).count(), 4, "it was read in each of the four ways");
    let viewer = Viewer::start(&server, &topic);
    // Workers publish once a second.
    let delivered = "brucke_tenant_deliveries_total{tenant=\"acme\"} 5";
    let deadline = Instant::now() + Duration::from_secs(20);
    while !server.admin_page("/metrics").contains(delivered) {
        assert!(Instant::now() < deadline, "{}", server.admin_page("/metrics"));
    }
    let operator = Operator { server: &server };
    let text = operator.page("/metrics", &[]);
    let open = operator.page("/metrics", &["Accept: application/openmetrics-text"]);
    assert!(open.contains("# EOF") && open.contains("trace_id="), "{open}");
    for name in ["brucke_token_refusals_total", "brucke_kafka_records_without_tenant_total"] {
        let mut lines = text.lines().filter(|line| line.starts_with(name));
        assert!(lines.any(|line| !line.ends_with(" 0")), "{name} in {text}");
    }
    let pages = operator.pages(&good);
    let handshakes = ["handshake", "authenticate", "subscribe feed"];
    let deliveries = ["deliver feed", "client feed", "ack feed"];
    let traces = jaeger.all_of("brucke", &[handshakes, deliveries].concat());
    let log = server.log();
    assert!(log.contains("handshake refused") && log.contains("delivered"), "{log}");
    let errors = said.lines().filter(|line| !line.contains("\"type\":\"records\""));
    let errors = errors.collect::<Vec<_>>().join("\n");
    assert!(errors.contains("authentication_failed"), "{errors}");

    let mut canaries: Vec<&str> = vec![CANARY_KEY, CANARY_VALUE, CANARY_HEADER, ADMIN_TOKEN];
    // The head of a token is the same for all and tells nothing.
    canaries.extend([&good, &forged, &cut].into_iter().flat_map(|t| t.split('.').skip(1)));
    let exported = [
        ("the metrics", &text),
        ("OpenMetrics", &open),
        ("the traces", &traces),
        ("the log", &log),
    ];
    for (place, text) in exported {
        check(place, text, &canaries);
        check(place, text, &[CANARY_CHANNEL, CANARY_AGENT, CANARY_SUBJECT, CANARY_TOKEN_ID]);
    }
    check("what clients were told", &errors, &canaries);
    for page in &pages {
        check("an admin page", page, &canaries);
    }
    // It shows the keys of the one connection that was asked for, and nothing else.
    let one = operator.connection(&viewer);
    assert!(one.contains(CANARY_KEY), "{one}");
    canaries.retain(|canary| *canary != CANARY_KEY);
    check("the page of one connection", &one, &canaries);
    let explained = explain(&server, &good);
    check("what `brucke explain` says", &explained, &canaries);
}

fn check(place: &str, text: &str, canaries: &[&str]) {
    for canary in canaries {
        assert!(!text.contains(canary), "{canary} is in {place}:\n{text}");
    }
}

/// Starts a server that tells all it can to everybody, and writes two records, of
/// which the second is nobody's.
fn start(jaeger: &Jaeger, topic: &str) -> ServerProcess {
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(topic, 1, &[]);
    let endpoint = jaeger.grpc();
    let settings = [
        ("LOG_LEVEL", "trace"),
        ("METRICS_TENANTS_MAX", "10"),
        ("SERVER_TOKEN_IN_QUERY", "true"),
        ("ADMIN_TOKEN_ENV", "CANARY_ADMIN"),
        ("TRACING_ENDPOINT", endpoint.as_str()),
        ("TRACING_SAMPLE_ROOTS", "100%"),
        ("TRACING_EXPORT_INTERVAL", "50ms"),
    ];
    let channel = feed(topic, "{ header = \"tenant-id\" }");
    let server = ServerProcess::start_in(&channel, &settings, &[("CANARY_ADMIN", ADMIN_TOKEN)]);
    send(topic);
    server
}

fn send(topic: &str) {
    let value = json!({ "text": CANARY_VALUE }).to_string();
    let headers = [("tenant-id", Some(&b"acme"[..])), ("note", Some(CANARY_HEADER.as_bytes()))];
    let own = NewRecord { headers: &headers, ..NewRecord::new(0, CANARY_KEY, &value) };
    let nobodys = NewRecord { headers: &headers[1..], ..own };
    KafkaCluster::shared().producer().send(topic, &[own, nobodys]);
}

/// A client that follows the key live, and has acknowledged what came.
struct Viewer {
    /// Keeps the connection open.
    _client: RawClient,
    connection: String,
    token: String,
}

impl Viewer {
    fn start(server: &ServerProcess, topic: &str) -> Self {
        let token = token_with("acme", json!({ "sub": "somebody" }));
        let mut client = RawClient::connect(server.clients, &[]).expect("a WebSocket");
        client.send(&json!({ "type": "authenticate", "token": token }));
        let welcome = client.expect("welcome");
        let connection = welcome["connection"].as_str().expect("a name").to_owned();
        client.send(&json!({
            "type": "subscribe", "id": 1, "channel": "feed", "keys": [CANARY_KEY], "window": 10,
        }));
        client.expect("live");
        send(topic);
        let records = client.expect("records");
        let ack = json!({
            "type": "ack", "sub": records["sub"], "positions": { "0": records["to"] },
        });
        client.send(&ack);
        client.send(&json!({ "type": "ping" }));
        client.expect("pong");
        Self { _client: client, connection, token }
    }
}

/// Whoever has the token of the admin interface.
struct Operator<'s> {
    server: &'s ServerProcess,
}

impl Operator<'_> {
    fn page(&self, path: &str, lines: &[&str]) -> String {
        let bearer = format!("Authorization: Bearer {ADMIN_TOKEN}");
        let lines = [&[bearer.as_str()], lines].concat();
        admin_answer(self.server.admin, path, &lines)
    }

    fn order(&self, line: &str, body: &Value, wanted: u16) -> String {
        let bearer = format!("Authorization: Bearer {ADMIN_TOKEN}");
        let (status, answer) = admin_order(self.server.admin, line, &["Host: a", &bearer], body);
        assert_eq!(status, wanted, "{line}: {answer}");
        answer.to_string()
    }

    /// Returns every page that there is, and the answers to good and bad orders.
    fn pages(&self, token: &str) -> Vec<String> {
        let lists = ["connections", "channels", "partitions", "sweeps", "tenants"];
        let lists = lists.map(|list| format!("/v1/{list}"));
        let others = ["/livez", "/readyz", "/"].map(str::to_owned);
        let wrong = ["/{token}", "/?token={token}", "/v1/connections?after={token}"];
        let wrong = wrong.map(|path| path.replace("{token}", token));
        let paths = lists.iter().chain(&others).chain(&wrong);
        let mut pages: Vec<String> = paths.map(|path| self.page(path, &[])).collect();
        let asked = |token: String| json!({ "token": token, "channel": "feed", "partition": 0, "offset": 0 });
        let explain = "POST /v1/explain";
        let matches = self.order(explain, &asked(token.to_owned()), 200);
        let denied = self.order(explain, &asked(format!("{token}x")), 200);
        assert!(matches.contains("\"matches\"") && denied.contains("\"denied\""), "{denied}");
        let range =
            json!({ "token": token, "channel": "feed", "partition": 0, "from": 0, "to": 2 });
        let counted = self.order(explain, &range, 200);
        let unknown = self.order("PUT /v1/log-level", &json!({ "level": token }), 400);
        let level = self.order("PUT /v1/log-level", &json!({ "level": "trace" }), 200);
        let unread = self.order("POST /v1/revocations", &json!({ "token": token }), 400);
        let another = json!({ "jti": "of-nobody" });
        let revoked = self.order("POST /v1/revocations", &another, 200);
        let wrong = format!("Authorization: Bearer {token}");
        let line = "GET /v1/connections";
        let (_, refused) = admin_order(self.server.admin, line, &["Host: a", &wrong], &Value::Null);
        pages.extend([matches, denied, counted, unknown, level, unread, revoked]);
        pages.push(refused.to_string());
        pages
    }

    /// Returns the page of a connection, and what is said when it is traced and sent
    /// away.
    fn connection(&self, viewer: &Viewer) -> String {
        let path = format!("/v1/connections/{}", viewer.connection);
        let page = self.page(&path, &[]);
        let traced = self.order(&format!("PUT {path}/trace"), &json!({ "on": true }), 200);
        let gone = self.order(&format!("POST {path}/disconnect"), &Value::Null, 200);
        let claims = viewer.token.split('.').nth(1).expect("a JWT has three parts");
        let all = format!("{page}\n{traced}\n{gone}");
        check("the page of one connection", &all, &[claims]);
        all
    }
}

/// Returns what the command says of the record, from the configuration alone.
fn explain(server: &ServerProcess, token: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brucke"));
    command.arg("explain").arg("--config").arg(server.config_file());
    command.args(["--channel", "feed", "--key", CANARY_KEY, "--partition", "0", "--offset", "0"]);
    command.env("BRUCKE_TOKEN", token);
    let output = command.output().expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success() && said.contains("matches"), "{said}");
    said
}

/// By which way a token is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Header,
    Subprotocol,
    /// Only where the configuration allows it.
    Query,
    /// Two tokens are one too many.
    HeaderAndSubprotocol,
    Frame,
}

const WAYS: [Way; 5] =
    [Way::Header, Way::Subprotocol, Way::Query, Way::HeaderAndSubprotocol, Way::Frame];

/// Shows a token, asks for things good and bad, and returns all that was said.
fn converse(server: &ServerProcess, token: &str, way: Way) -> String {
    let query = if way == Way::Query { format!("?access_token={token}") } else { String::new() };
    let url = format!("ws://{}/v1/ws{query}", server.clients);
    let mut request = url.into_client_request().expect("a request");
    let headers = request.headers_mut();
    let bearer = |text: String| HeaderValue::from_str(&text).expect("plain text");
    let mut subprotocols = "brucke.v1.json".to_owned();
    if matches!(way, Way::Subprotocol | Way::HeaderAndSubprotocol) {
        subprotocols += &format!(", brucke.bearer.{token}");
    }
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, bearer(subprotocols));
    headers.insert(header::USER_AGENT, bearer(CANARY_AGENT.to_owned()));
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
    for (id, channel) in [(1, "feed"), (2, CANARY_CHANNEL)] {
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
/// In a header of the records.
const CANARY_HEADER: &str = "canary-header-3c59dc04";
const CANARY_CHANNEL: &str = "canary-channel-8f14e45f";
const CANARY_AGENT: &str = "canary-agent-c9f0f895";
const CANARY_SUBJECT: &str = "canary-subject-45c48cce";
const CANARY_TOKEN_ID: &str = "canary-jti-d3d94468";
const ADMIN_TOKEN: &str = "canary-of-the-admin-interface-6512bd43";
