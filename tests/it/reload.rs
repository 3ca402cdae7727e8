//! The configuration is loaded anew while clients are connected: each of them that
//! is not concerned stays and hears each record once.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use brucke::protocol::frame::StartAt;
use serde_json::Value;
use serde_json::json;

use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::raw_client::Incoming;
use crate::support::raw_client::RawClient;
use crate::support::server_process::AUDIENCE;
use crate::support::server_process::ISSUER;
use crate::support::server_process::SECRET;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::shared_feed;
use crate::support::server_process::token;
use crate::support::server_process::token_of;
use crate::support::server_rig::admin_page;
use crate::support::watcher::Heard;
use crate::support::watcher::Watcher;
use crate::support::watcher::Wish;

#[test]
fn a_channel_that_is_added_is_served_to_who_is_connected() {
    let mut rig = Rig::start("added", BY_SIGNAL);
    let mut client = rig.client(&token("acme"));
    assert_eq!(subscribe(&mut client, 1, "more")["code"], "channel_forbidden");
    let more = rig.topic("more");
    rig.reload("applied", |config| config + &channel("more", &more));
    subscribe(&mut client, 2, "more");
    client.expect("live");
    rig.put(&more, "new");
    assert_eq!(client.values(1), ["new"]);
    let channels = rig.server.admin_page("/v1/channels");
    assert!(channels.contains("\"more\""), "{channels}");
    assert_eq!(admin_page(rig.server.admin, "/readyz").0, 200);
    // A channel whose topic is missing is told of, and takes no replica away from all
    // other channels.
    rig.reload("applied", |config| config + &channel("absent", "no-such-topic-yet"));
    let warned = |body: &str| body.contains("\"warnings\":[{\"kind\":\"topic_missing\"");
    rig.until("/readyz", |status, body| {
        assert_eq!(status, 200, "{body}");
        warned(body) && body.contains("no-such-topic-yet")
    });
    rig.until("/metrics", |_, body| body.contains("\nbrucke_topics_failing 1\n"));
    rig.reload("applied", |config| config.replace(&channel("absent", "no-such-topic-yet"), ""));
    rig.until("/readyz", |_, body| !warned(body));
    rig.put(&more, "newer");
    assert_eq!(client.values(1), ["newer"]);
    rig.check_follower();
}

#[test]
fn who_follows_a_channel_that_is_taken_out_is_told_and_nobody_else() {
    let mut rig = Rig::start("removed", BY_SIGNAL);
    let (more, other) = (rig.topic("more"), rig.topic("other"));
    rig.reload("applied", |config| config + &channel("more", &more));
    let mut client = rig.client(&token("acme"));
    let kept = subscribe(&mut client, 1, "feed")["sub"].clone();
    client.expect("live");
    let lost = subscribe(&mut client, 2, "more")["sub"].clone();
    client.expect("live");

    rig.reload("applied", |config| config.replace(&channel("more", &more), ""));
    let error = client.expect("error");
    assert_eq!(error["code"], "channel_removed", "{error}");
    assert_eq!(error["sub"], lost, "{error}");
    assert!(error.get("retry").is_some_and(|retry| retry == false), "{error}");
    assert_eq!(subscribe(&mut client, 3, "more")["code"], "channel_forbidden");
    rig.put(&rig.feed.clone(), "goes on");
    let records = client.expect("records");
    assert_eq!((&records["sub"], &records["records"][0]["value"]), (&kept, &json!("goes on")));

    // A channel that comes to mean something else ends too, and can be had anew.
    rig.reload("applied", |config| config + &channel("more", &more));
    let lost = subscribe(&mut client, 4, "more")["sub"].clone();
    client.expect("live");
    rig.reload("applied", |config| {
        config.replace(&channel("more", &more), &channel("more", &other))
    });
    let error = client.expect("error");
    assert_eq!((&error["code"], &error["sub"]), (&json!("channel_removed"), &lost));
    subscribe(&mut client, 5, "more");
    client.expect("live");
    rig.put(&other, "of the other");
    assert_eq!(client.values(1), ["of the other"]);
    rig.until_log("subscriptions_ended=1");
    rig.check_follower();
}

#[test]
fn a_key_that_is_rotated_costs_nobody_the_connection() {
    let mut rig = Rig::start("keys", BY_SIGNAL);
    let old = |subject: &str| token_of(SECRET, "acme", json!({ "sub": subject }));
    let new = |subject: &str| token_of(NEW_SECRET, "acme", json!({ "sub": subject }));
    let mut client = rig.client(&old("a"));
    subscribe(&mut client, 1, "feed");
    client.expect("live");
    assert_eq!(rig.refused(&new("b")), "authentication_failed");

    rig.reload("applied", |config| config + &issuer(NEW_SECRET));
    drop((rig.client(&old("b")), rig.client(&new("b"))));
    rig.reload("applied", |config| config.replace(&issuer(SECRET), ""));
    assert_eq!(rig.refused(&old("b")), "authentication_failed");
    drop(rig.client(&new("b")));
    // Who came with the old key stays, but can't renew by it.
    client.send(&json!({ "type": "authenticate", "token": old("a") }));
    assert_eq!(client.expect("error")["code"], "authentication_failed");
    rig.put(&rig.feed.clone(), "still there");
    assert_eq!(client.values(1), ["still there"]);
    client.send(&json!({ "type": "authenticate", "token": new("a") }));
    client.expect("renewed");
    rig.check_follower();
}

#[test]
fn limits_that_change_close_nobody() {
    let mut rig = Rig::start("limits", BY_SIGNAL);
    let mut client = rig.client(&token("acme"));
    for (id, key) in ["a", "b"].iter().enumerate() {
        let asked = json!({ "type": "subscribe", "id": id, "channel": "feed", "keys": [key] });
        client.send(&asked);
        client.expect("live");
    }
    let limits = "[server]\nsubscriptions_per_connection_max = 1\nconnections_max = 1\n\
                  unsent_bytes_max = \"1MiB\"\nallowed_origins = [\"https://new.example\"]\n";
    rig.reload("applied", |config| config.replace("[server]\n", limits));
    let asked = json!({ "type": "subscribe", "id": 7, "channel": "feed", "keys": ["c"] });
    client.send(&asked);
    assert_eq!(client.expect("error")["code"], "limit_exceeded");
    let full = RawClient::connect(rig.server.clients, &[]).err().expect("there is no room");
    assert_eq!(full.status, 503, "{full:?}");
    let values = [("a", "for a"), ("b", "for b")];
    for (key, value) in values {
        rig.put_key(&rig.feed.clone(), key, value);
        assert_eq!(client.values(1), [value]);
    }
    // Back again, but for who may connect.
    rig.reload("applied", |config| config.replace("connections_max = 1\n", ""));
    let origin = |name: &str| RawClient::connect(rig.server.clients, &[&format!("Origin: {name}")]);
    assert!(origin("https://new.example").is_ok());
    assert_eq!(origin("https://old.example").err().expect("refused").status, 403);
    rig.check_follower();
}

#[test]
fn a_pace_that_changes_holds_for_who_comes_next() {
    let mut rig = Rig::start("pace", BY_SIGNAL);
    rig.reload("applied", |config| config.replace("[server]\n", PACE));
    let address = rig.server.clients;
    let come = |count| {
        for _ in 0..count {
            RawClient::connect(address, &[]).expect("each after the one before");
        }
    };
    let began = Instant::now();
    come(3);
    assert!(began.elapsed() >= Duration::from_millis(1_990), "{:?}", began.elapsed());
    rig.reload("applied", |config| config.replace(PACE, "[server]\n"));
    // With the pace of before these would take longer than anybody may wait.
    thread::scope(|scope| (0..20).for_each(|_| drop(scope.spawn(|| come(1)))));
    rig.check_follower();
}

const PACE: &str = "[server]\nconnections_per_second = 1\n";

#[test]
fn quotas_that_change_close_nobody() {
    let mut rig = Rig::start("quotas", BY_SIGNAL);
    // With the follower, which is of the same tenant.
    let held = [(); 2].map(|()| rig.client(&token("acme")));
    let quota = |max: u32| format!("[tenants]\nconnections_max = {max}\n");
    rig.reload("applied", |config| config + &quota(2));
    assert_eq!(rig.refused(&token("acme")), "tenant_connections_full");
    drop(rig.client(&token("blub")));
    // Who is above keeps what it has; when both have left there is one place.
    let mut held = held;
    for client in &mut held {
        client.send(&json!({ "type": "ping" }));
        client.expect("pong");
    }
    drop(held);
    let _third = rig.client_when_there_is_room(&token("acme"));
    assert_eq!(rig.refused(&token("acme")), "tenant_connections_full");
    let more = "[[tenants.exceptions]]\ntenant = \"acme\"\nconnections_max = 3\n";
    rig.reload("applied", |config| config + more);
    let _fourth = rig.client(&token("acme"));
    assert_eq!(rig.refused(&token("acme")), "tenant_connections_full");
    rig.reload("applied", |config| config.replace(more, "").replace(&quota(2), ""));
    drop(rig.client(&token("acme")));
    rig.check_follower();
}

#[test]
fn a_file_that_is_broken_changes_nothing_and_is_told_of() {
    let mut rig = Rig::start("broken", BY_SIGNAL);
    let mut client = rig.client(&token("acme"));
    subscribe(&mut client, 1, "feed");
    client.expect("live");
    let good = rig.config();
    rig.reload("refused", |config| config.replace("[server]\n", "[server]\nworkesr = 3\n"));
    rig.until_log("ERROR");
    let log = rig.server.log();
    let line = log.lines().find(|line| line.contains("ERROR")).expect("it is told");
    for part in
        ["brucke.toml:3: server.workesr is no key; did you mean `workers`?", "stays in force"]
    {
        assert!(line.contains(part), "{line}");
    }
    assert!(rig.server.metric("brucke_config_refused") > 0.5);
    rig.reload("refused", |_| "no TOML at all".to_owned());
    rig.reload("refused", |_| good.replace("secret = ", "secret_file = "));
    rig.put(&rig.feed.clone(), "as before");
    assert_eq!(client.values(7).pop(), Some(json!("as before")), "two records for each reload");
    drop(rig.client(&token("blub")));
    rig.reload("unchanged", |_| good.clone());
    assert!(rig.server.metric("brucke_config_refused") < 0.5);
    rig.check_follower();
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_in_force() {
    let mut rig = Rig::start("restart", BY_SIGNAL);
    rig.reload("applied", |config| {
        let workers = config.replace("[server]\n", "[server]\nworkers = 7\n");
        workers.replace("[kafka]\n", "[log]\nlevel = \"debug\"\n[kafka]\nclient_id = \"x\"\n")
    });
    let told = "need a restart to count keys=\"kafka.client_id, server.workers\"";
    rig.until_log(told);
    assert!(!rig.server.log().contains("connection opened"), "{}", rig.server.log());
    drop(rig.client(&token("acme")));
    rig.until_log("connection opened");
    rig.check_follower();
}

#[test]
fn a_change_of_a_file_is_seen_without_a_signal() {
    let mut rig = Rig::start("watched", &[("RELOAD_WATCH_INTERVAL", "200ms")]);
    // As Kubernetes mounts a ConfigMap: one link is swapped for all files.
    let folder = rig.server.config_file().parent().expect("a folder").to_owned();
    let put = |version: &str, config: &str, secret: &str| {
        let folder = folder.join(version);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("brucke.toml"), config).expect("a file");
        fs::write(folder.join("secret"), secret).expect("a file");
    };
    let swap = |version: &str| {
        symlink(version, folder.join("..next")).expect("a link");
        fs::rename(folder.join("..next"), folder.join("..data")).expect("it is swapped");
    };
    let by_file = "secret_file = \"secret\"\n";
    let config = rig.config().replace(&format!("secret = \"{SECRET}\"\n"), by_file);
    put("..1", &config, SECRET);
    swap("..1");
    symlink("..data/secret", folder.join("secret")).expect("a link");
    replace_by_link(&rig.server.config_file(), "..data/brucke.toml");
    rig.until_reloads("applied", 1.0);

    let more = rig.topic("more");
    let mut client = rig.client(&token("acme"));
    put("..2", &(config.clone() + &channel("more", &more)), SECRET);
    swap("..2");
    rig.until_reloads("applied", 2.0);
    subscribe(&mut client, 1, "more");
    client.expect("live");

    // The configuration stays the same, and the file that it names does not.
    put("..3", &(config.clone() + &channel("more", &more)), NEW_SECRET);
    swap("..3");
    rig.until_reloads("applied", 3.0);
    drop(rig.client(&token_of(NEW_SECRET, "acme", json!({}))));
    assert_eq!(rig.refused(&token("acme")), "authentication_failed");

    put("..4", &config.replace("[admin]", "[admni]"), NEW_SECRET);
    swap("..4");
    rig.until_reloads("refused", 1.0);
    rig.put(&more, "still there");
    assert_eq!(client.values(1), ["still there"]);
    // It is taken back; meanwhile it was told once, however often it was seen.
    swap("..3");
    rig.until_reloads("unchanged", 1.0);
    assert!(rig.server.metric("brucke_config_refused") < 0.5);
    assert!(rig.reloads("refused") < 1.5 && rig.reloads("applied") < 3.5);
    rig.check_follower();
}

/// A replica with one channel, `feed`, and somebody who follows it all the time.
struct Rig {
    server: ServerProcess,
    name: &'static str,
    feed: String,
    follower: Watcher,
    /// Values that the follower is to hear.
    put: Vec<String>,
}

impl Rig {
    fn start(name: &'static str, settings: &[(&str, &str)]) -> Self {
        let feed = fresh_topic(name);
        KafkaCluster::shared().admin().create_topic(&feed, 1, &[]);
        let server = ServerProcess::start_with(&shared_feed(&feed), settings);
        let follower = Watcher::start(server.clients, &Wish::new(StartAt::Latest));
        let mut rig = Self { server, name, feed, follower, put: Vec::new() };
        rig.put(&rig.feed.clone(), "first");
        // Else who begins at the latest would get it, too.
        let is_read =
            |_, page: &str| page.lines().any(|line| line == "brucke_kafka_records_total 1");
        rig.until("/metrics", is_read);
        rig
    }

    /// Makes another topic.
    fn topic(&self, name: &str) -> String {
        let topic = fresh_topic(&format!("{}-{name}", self.name));
        KafkaCluster::shared().admin().create_topic(&topic, 1, &[]);
        topic
    }

    fn put(&mut self, topic: &str, value: &str) {
        self.put_key(topic, "k", value);
    }

    fn put_key(&mut self, topic: &str, key: &str, value: &str) {
        let json = json!(value).to_string();
        KafkaCluster::shared().producer().send(topic, &[NewRecord::new(0, key, &json)]);
        if topic == self.feed {
            self.put.push(json);
        }
    }

    fn config(&self) -> String {
        fs::read_to_string(self.server.config_file()).expect("the file")
    }

    /// Changes the file, asks for a reload and waits for its outcome. Records flow
    /// before and after.
    fn reload(&mut self, outcome: &str, change: impl FnOnce(String) -> String) {
        let before = self.reloads(outcome);
        let changed = change(self.config());
        fs::write(self.server.config_file(), changed).expect("a file");
        let feed = self.feed.clone();
        self.put(&feed, &format!("before {outcome} {before}"));
        self.server.hang_up();
        self.put(&feed, &format!("after {outcome} {before}"));
        self.until_reloads(outcome, before + 1.0);
    }

    fn reloads(&self, outcome: &str) -> f64 {
        self.server.metric(&format!("brucke_config_reloads_total{{outcome=\"{outcome}\"}}"))
    }

    fn until_reloads(&self, outcome: &str, count: f64) {
        let deadline = Instant::now() + PATIENCE;
        while self.reloads(outcome) < count {
            assert!(Instant::now() < deadline, "not {outcome} {count} times");
            std::thread::yield_now();
        }
    }

    fn until_log(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.server.log().contains(text) {
            assert!(Instant::now() < deadline, "the log does not say {text}");
            std::thread::yield_now();
        }
    }

    fn until(&self, path: &str, enough: impl Fn(u16, &str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, body) = admin_page(self.server.admin, path);
            if enough(status, &body) {
                return;
            }
            assert!(Instant::now() < deadline, "{path} says {status} {body}");
            std::thread::yield_now();
        }
    }

    fn client(&self, token: &str) -> RawClient {
        let mut client = RawClient::connect(self.server.clients, &[]).expect("a WebSocket");
        client.send(&json!({ "type": "authenticate", "token": token }));
        client.expect("welcome");
        client
    }

    /// Returns a client as soon as its tenant has a place for it.
    fn client_when_there_is_room(&self, token: &str) -> RawClient {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut client = RawClient::connect(self.server.clients, &[]).expect("a WebSocket");
            client.send(&json!({ "type": "authenticate", "token": token }));
            match client.next() {
                Incoming::Json(frame) if frame["type"] == "welcome" => return client,
                Incoming::Json(frame) => assert_eq!(frame["code"], "tenant_connections_full"),
                other => panic!("{other:?}"),
            }
            assert!(Instant::now() < deadline, "who left has left its place");
        }
    }

    /// Returns the code by which this token is refused.
    fn refused(&self, token: &str) -> Value {
        let mut client = RawClient::connect(self.server.clients, &[]).expect("a WebSocket");
        client.send(&json!({ "type": "authenticate", "token": token }));
        client.expect("error")["code"].clone()
    }

    /// Sees that the follower was there all the time: it has heard each record once,
    /// over one connection, without a hole in its ranges.
    fn check_follower(&mut self) {
        let feed = self.feed.clone();
        self.put(&feed, "last");
        let heard = self.follower.hear_until(|heard| heard.has_value("\"last\""));
        let values = heard.into_iter().filter_map(|heard| match heard {
            Heard::Record { value, .. } => Some(value.expect("no tombstone")),
            Heard::Live => None,
            other => panic!("{other:?}"),
        });
        assert_eq!(values.collect::<Vec<_>>(), self.put);
    }
}

/// Asks for a channel; returns `subscribed`, or the error.
fn subscribe(client: &mut RawClient, id: u64, channel: &str) -> Value {
    client.send(&json!({ "type": "subscribe", "id": id, "channel": channel }));
    loop {
        match client.next() {
            Incoming::Json(frame) if frame["id"] == id => return frame,
            Incoming::Json(frame) if frame["type"] == "error" => panic!("{frame}"),
            Incoming::Json(_) | Incoming::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn channel(name: &str, topic: &str) -> String {
    format!("[[channels]]\nname = \"{name}\"\ntopic = \"{topic}\"\ntenant = \"shared\"\n")
}

fn issuer(secret: &str) -> String {
    format!(
        "[[auth.issuers]]\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\n\
         algorithm = \"HS256\"\nsecret = \"{secret}\"\n"
    )
}

fn replace_by_link(file: &Path, target: &str) {
    let next = file.with_extension("next");
    symlink(target, &next).expect("a link");
    fs::rename(next, file).expect("it is replaced");
}

/// Files are not looked at: a signal alone loads anew.
const BY_SIGNAL: &[(&str, &str)] = &[("RELOAD_WATCH_INTERVAL", "0s")];
const NEW_SECRET: &str = "another-for-tests-of-32-bytes-at-least";
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
