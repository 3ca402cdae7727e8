//! Quotas of tenants: a full tenant's next client is told so and when to come back,
//! and nobody else notices.

use std::collections::BTreeSet;
use std::ops::Range;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::raw_client::Incoming;
use crate::support::raw_client::RawClient;
use crate::support::raw_client::Refused;
use crate::support::server_rig::Cluster;
use crate::support::server_rig::ServerRig;
use crate::support::server_rig::admin_order;
use crate::support::server_rig::token;
use crate::support::server_rig::token_for;

#[test]
fn a_full_tenant_is_told_when_to_come_back_and_others_still_enter() {
    let (_cluster, server) = start(&[("TENANTS_CONNECTIONS_MAX", "2")]);
    let first = server.client("acme");
    let _second = by_header(&server, "acme").expect("a place");
    let refused = by_header(&server, "acme").map(drop).expect_err("the tenant is full");
    assert_eq!((refused.status, &*refused.code), (429, FULL));
    assert!(refused.has_header("retry-after: "), "{}", refused.head);
    let body: Value = serde_json::from_str(&refused.body).expect("JSON");
    check_wait(&body);
    let (error, closing) = sent_away(&server, &token("acme"));
    check_wait(&error);
    assert_eq!(error["retry_after_ms"], closing["retry_after_ms"], "it is said once");

    // Tenants whose names are nearly the same are others.
    for tenant in ["blub", "Acme"] {
        let _held = [server.client(tenant), by_header(&server, tenant).expect("a place")];
        sent_away(&server, &token(tenant));
    }
    check_tenant(&server, "acme", &json!({ "connections": 2, "connections_max": 2 }));
    server.admin_until("/metrics", |_, page| {
        let counted = |line: &str| page.lines().any(|found| found == line);
        counted("brucke_handshake_refusals_total{reason=\"tenant_connections_full\"} 1")
            && counted("brucke_refusals_total{code=\"tenant_connections_full\"} 3")
            && counted("brucke_closes_total{code=\"overloaded\"} 3")
    });
    // Cut off, without a word.
    drop(first);
    let _third = until_entered(&server, "acme");
}

#[test]
fn a_place_is_given_back_however_a_connection_ends() {
    let (_cluster, server) = start(&[("TENANTS_CONNECTIONS_MAX", "1")]);
    // The tenant's token runs out.
    let mut client = server.try_connect(&[]).expect("a WebSocket");
    authenticate(&mut client, &token_for("acme", Duration::from_secs(2)));
    client.expect("welcome");
    assert_eq!(client.expect_close(), 4003);
    drop(client);
    let mut client = until_entered(&server, "acme");
    // A token that is renewed takes no second place.
    authenticate(&mut client, &token("acme"));
    client.expect("renewed");
    authenticate(&mut client, &token("blub"));
    assert_eq!(client.expect("error")["code"], "identity_changed");
    let _other = server.client("blub");
    // It breaks a rule.
    client.send_message(9, &[0; 126]);
    assert_eq!(client.expect_close(), 1002);
    drop(client);
    let mut client = until_entered(&server, "acme");
    // An operator sends it away.
    let host = ["Host: 127.0.0.1"];
    let order = json!({ "sub": "u1", "tenant": "acme" });
    let (status, told) = admin_order(server.addresses.admin, "POST /v1/revocations", &host, &order);
    assert_eq!((status, &told["closed"]), (200, &json!(1)), "{told}");
    assert_eq!(client.expect_close(), 4002);
}

#[test]
fn subscriptions_are_counted_over_all_connections_of_a_tenant() {
    let (cluster, server) = start(&[("TENANTS_SUBSCRIPTIONS_MAX", "2")]);
    let (mut first, subscribed) = server.subscriber("acme", json!({ "channel": "prices" }));
    let (mut second, _) = server.subscriber("acme", json!({ "channel": "prices" }));
    for client in [&mut first, &mut second] {
        let error = subscribe(client, 7, "more");
        assert_eq!(
            (&error["id"], &error["code"]),
            (&json!(7), &json!("tenant_subscriptions_full"))
        );
        check_wait(&error);
    }
    let (mut other, _) = server.subscriber("blub", json!({ "channel": "prices" }));
    check_tenant(&server, "acme", &json!({ "subscriptions": 2, "subscriptions_max": 2 }));
    // What is refused for another reason takes no place, nor does what ends.
    assert_eq!(subscribe(&mut other, 2, "")["code"], "already_subscribed");
    assert_eq!(subscribe(&mut other, 3, "more")["type"], "subscribed");
    first.send(&json!({ "type": "unsubscribe", "id": 8, "sub": subscribed["sub"] }));
    first.expect("unsubscribed");
    assert_eq!(subscribe(&mut second, 9, "more")["type"], "subscribed");
    assert_eq!(subscribe(&mut first, 10, "again")["code"], "tenant_subscriptions_full");
    // With a connection all of its subscriptions end.
    drop(second);
    let deadline = Instant::now() + PATIENCE;
    while subscribe(&mut first, 11, "again")["type"] != "subscribed" {
        assert!(Instant::now() < deadline, "the places of who has left are not free");
        thread::sleep(Duration::from_millis(20));
    }
    cluster.put("prices", "again", "1");
    assert_eq!(first.values(1), [1]);
}

#[test]
fn those_who_are_refused_by_frames_do_not_come_back_together() {
    let (_cluster, server) = start(&[("TENANTS_SUBSCRIPTIONS_MAX", "1")]);
    let (mut client, _) = server.subscriber("acme", json!({ "channel": "prices" }));
    let wait = |id| {
        let error = subscribe(&mut client, id, "more");
        check_wait(&error);
        error["retry_after_ms"].as_u64()
    };
    let waits: BTreeSet<_> = (2..42).map(wait).collect();
    assert!(waits.len() > 35, "40 were told only these: {waits:?}");
}

#[test]
fn a_tenant_may_be_an_exception() {
    let exceptions = "[{ tenant = \"acme\", connections_max = 3 }, \
                      { tenant = \"huge\", connections_max = 0 }]";
    let (_cluster, server) =
        start(&[("TENANTS_CONNECTIONS_MAX", "1"), ("TENANTS_EXCEPTIONS", exceptions)]);
    let entered = |tenant: &str| {
        let held: Vec<_> = (0..6).filter_map(|_| by_header(&server, tenant).ok()).collect();
        held.len()
    };
    assert_eq!((entered("blub"), entered("acme"), entered("huge")), (1, 3, 6));
}

fn start(changes: &[(&str, &str)]) -> (Cluster, ServerRig) {
    let cluster = Cluster::start(&[("prices", 1)]);
    let server = ServerRig::start(&cluster.kafka.config(), changes);
    (cluster, server)
}

/// Connects with the token in the head.
fn by_header(server: &ServerRig, tenant: &str) -> Result<RawClient, Refused> {
    server.try_connect(&[&format!("Authorization: Bearer {}", token(tenant))])
}

fn authenticate(client: &mut RawClient, token: &str) {
    client.send(&json!({ "type": "authenticate", "token": token }));
}

/// Connects, shows the token by a frame and is sent away; returns the error and what
/// is said before the Close frame.
fn sent_away(server: &ServerRig, token: &str) -> (Value, Value) {
    let mut client = server.try_connect(&[]).expect("a WebSocket");
    authenticate(&mut client, token);
    let error = client.expect("error");
    assert_eq!((&error["code"], &error["retry"]), (&json!(FULL), &json!(true)), "{error}");
    let closing = client.expect("closing");
    let told = (&closing["code"], &closing["reconnect"]);
    assert_eq!(told, (&json!("overloaded"), &json!(true)), "{closing}");
    assert_eq!(client.expect_close(), 1013);
    (error, closing)
}

/// Returns a client of a tenant, as soon as there is a place for it.
fn until_entered(server: &ServerRig, tenant: &str) -> RawClient {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match by_header(server, tenant) {
            Ok(client) => return client,
            Err(refused) => assert_eq!(refused.code, FULL, "{refused:?}"),
        }
        assert!(Instant::now() < deadline, "who left has left its place");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Subscribes to a key of `prices`, or to all of it; returns the answer.
fn subscribe(client: &mut RawClient, id: u64, key: &str) -> Value {
    let mut asked = json!({ "type": "subscribe", "id": id, "channel": "prices" });
    if !key.is_empty() {
        asked["keys"] = json!([key]);
    }
    client.send(&asked);
    loop {
        match client.next() {
            Incoming::Json(frame) if frame["id"] == id => return frame,
            Incoming::Json(_) | Incoming::Ping(_) => {}
            other => panic!("waited for an answer, got {other:?}"),
        }
    }
}

/// Expects a time to come back that is one of many.
fn check_wait(told: &Value) {
    let wait = told["retry_after_ms"].as_u64();
    assert!(wait.is_some_and(|wait| WAITS.contains(&wait)), "{told}");
}

/// Expects these fields of a tenant in the admin interface.
fn check_tenant(server: &ServerRig, tenant: &str, expected: &Value) {
    let host = ["Host: 127.0.0.1"];
    let (status, page) =
        admin_order(server.addresses.admin, "GET /v1/tenants", &host, &Value::Null);
    assert_eq!(status, 200, "{page}");
    let rows = page["tenants"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["tenant"] == tenant).expect("it is connected");
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(row[name], *value, "{name} of {row}");
    }
}

const FULL: &str = "tenant_connections_full";
const WAITS: Range<u64> = 2_000..10_000;
const PATIENCE: Duration = Duration::from_secs(20);
