//! What must never be seen: tokens and keys of records, in whatever way they
//! come, in whatever is written.

use serde_json::Value;
use serde_json::json;

use crate::support::brucke::Brucke;
use crate::support::brucke::mint;
use crate::support::raw_client::Incoming;
use crate::support::raw_client::KEY;
use crate::support::raw_client::RawClient;
use crate::support::raw_client::UPGRADE;
use crate::support::raw_client::VERSION;
use crate::support::server_rig::Cluster;
use crate::support::server_rig::admin_page;

/// Whatever a server said to a client, and the canaries that the client sent.
struct Talk {
    said: Vec<String>,
    canaries: Vec<String>,
}

impl Talk {
    /// Connects with this line and these headers, says these frames, and listens
    /// to the end or to the first answer after the last frame.
    fn hold(&mut self, server: &Brucke, line: &str, lines: &[&str], frames: &[Value]) {
        let mut head = vec!["Host: 127.0.0.1", UPGRADE, "Connection: Upgrade", VERSION, KEY];
        head.extend(lines);
        let (mut client, answer) = match RawClient::request(server.address(), line, &head) {
            Ok(opened) => opened,
            Err(refused) => {
                self.said.extend([refused.head, refused.body]);
                return;
            }
        };
        self.said.push(answer);
        frames.iter().for_each(|frame| client.send(frame));
        client.send(&json!({ "type": "ping" }));
        loop {
            match client.next() {
                Incoming::Json(frame) if frame["type"] == "pong" => return,
                Incoming::Json(frame) => self.said.push(frame.to_string()),
                Incoming::Close(_) | Incoming::End { .. } => return,
                _ => {}
            }
        }
    }

    /// Notes that no part of a token may be seen: not its head, which tokens
    /// share, but its claims and its signature.
    fn canary_token(&mut self, token: &str) {
        self.canaries.extend(token.split('.').skip(1).map(str::to_owned));
    }
}

#[test]
fn no_token_and_no_key_is_ever_written() {
    let cluster = Cluster::start(&[("prices", 1)]);
    let servers = cluster.kafka.config().bootstrap_servers.join(",");
    let channels = "\
[[channels]]
name = \"prices\"
topic = \"prices\"
tenant = \"shared\"
[log]
level = \"trace\"
format = \"json\"
";
    let mut server = Brucke::start(&servers, "allowed_hosts = []", channels);
    let (good, other) = (mint("acme"), mint("blub"));
    let forged =
        format!("{}.Zm9yZ2VkLXNpZ25hdHVyZS1jYW5hcnk", &good[..good.rfind('.').expect("a JWT")]);
    let bad = "eyJhbGciOiJIUzI1NiJ9.bm90LWpzb24tY2FuYXJ5.c2lnbmF0dXJlLWNhbmFyeQ".to_owned();
    let key = "canary-key-of-a-record";
    let mut talk = Talk { said: Vec::new(), canaries: vec![key.to_owned()] };
    [&good, &other, &forged, &bad].into_iter().for_each(|token| talk.canary_token(token));

    let get = "GET /v1/ws HTTP/1.1";
    let subscribe = json!({ "type": "subscribe", "id": 1, "channel": "prices", "keys": [key] });
    let renew = |token: &str| json!({ "type": "authenticate", "token": token });
    for token in [&good, &forged, &bad] {
        let header = format!("Authorization: Bearer {token}");
        let offer = format!("Sec-WebSocket-Protocol: brucke.v1.json, brucke.bearer.{token}");
        let only = format!("Sec-WebSocket-Protocol: brucke.bearer.{token}");
        let query = format!("GET /v1/ws?access_token={token} HTTP/1.1");
        let path = format!("GET /{token} HTTP/1.1");
        talk.hold(&server, get, &[&header], &[subscribe.clone(), renew(&other), renew(&bad)]);
        talk.hold(&server, get, &[&offer], std::slice::from_ref(&subscribe));
        talk.hold(&server, get, &[&header, &offer], &[]);
        talk.hold(&server, get, &[&only], &[]);
        talk.hold(&server, &query, &[], &[]);
        talk.hold(&server, &path, &[&header], &[]);
        talk.hold(&server, get, &[], &[renew(token), subscribe.clone()]);
        // Broken frames with a token in them.
        talk.hold(&server, get, &[], &[json!({ "type": token, "token": token })]);
        talk.hold(&server, get, &[], &[json!({ "type": "authenticate", "tokne": token })]);
        talk.hold(&server, get, &[&header], &[json!({ "type": "ping", key: key })]);
    }
    for page in ["/metrics", "/readyz", "/livez"] {
        talk.said.push(admin_page(server.admin_address(), page).1);
    }
    assert!(server.terminate().success(), "a drained server ends well");
    let log = server.log();
    assert!(log.contains("\"connection opened\""), "the log tells of connections: {log}");
    talk.said.push(log);
    for canary in &talk.canaries {
        let seen = talk.said.iter().find(|text| text.contains(canary.as_str()));
        assert_eq!(seen, None, "{canary} was written");
    }
}
