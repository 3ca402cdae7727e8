//! Things that happen now and then. `emit` writes the log line and the metric
//! together, so that one never says what the other does not.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::SystemTime;

use metrics::counter;
use metrics::gauge;

use crate::delivery::span::Deliver;
use crate::delivery::span::RecordRef;
use crate::telemetry::metric;
use crate::tenancy::notice::Strange;
use crate::types::ids::ConnectionId;
use crate::types::ids::Offset;
use crate::types::ids::TopicName;
use crate::types::trace::TraceId;

/// A client has a WebSocket.
#[derive(Debug)]
pub struct ConnectionOpened {
    pub connection: ConnectionId,
    /// Of the client; `None` when it is gone already.
    pub address: Option<IpAddr>,
}

impl ConnectionOpened {
    /// Counts and logs it.
    pub fn emit(&self) {
        let Self { connection, address } = self;
        counter!(metric::CONNECTIONS_OPENED).increment(1);
        tracing::debug!(%connection, ?address, "connection opened");
    }
}

/// A client's WebSocket has ended.
#[derive(Debug)]
pub struct ConnectionEnded {
    pub connection: ConnectionId,
    pub end: End,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With Close frames.
    Closed,
    /// The socket failed, or the client went without a word.
    Lost,
    /// The client did not read, and was not waited for.
    CutOff,
}

impl ConnectionEnded {
    /// Logs it. The codes of closes are counted by the shards.
    pub fn emit(&self) {
        let Self { connection, end } = self;
        tracing::debug!(%connection, ?end, "connection ended");
    }
}

/// The clients' listener or the admin listener ended by itself.
#[derive(Debug)]
pub struct ListenerFailed {
    pub error: io::Error,
}

impl ListenerFailed {
    /// Logs it.
    pub fn emit(&self) {
        tracing::error!(error = %self.error, "a listener ended");
    }
}

/// The system gives fewer descriptors than the configuration has connections.
#[derive(Debug)]
pub struct FewDescriptors {
    pub limit: u64,
    pub connections_max: u64,
}

impl FewDescriptors {
    /// Logs it.
    pub fn emit(&self) {
        let Self { limit, connections_max } = self;
        tracing::warn!(
            limit,
            connections_max,
            "fewer descriptors (ulimit -n) than server.connections_max"
        );
    }
}

/// Clients can connect.
#[derive(Debug)]
pub struct Serving {
    pub clients: SocketAddr,
    pub admin: SocketAddr,
    pub workers: u16,
}

impl Serving {
    /// Logs it.
    pub fn emit(&self) {
        let Self { clients, admin, workers } = self;
        tracing::info!(%clients, %admin, workers, version = env!("CARGO_PKG_VERSION"), "serving");
    }
}

/// This replica goes away.
#[derive(Debug)]
pub struct DrainStarted {
    /// How long clients are still let in.
    pub delay: Duration,
    /// Over how long they are sent away.
    pub window: Duration,
}

impl DrainStarted {
    /// Logs it.
    pub fn emit(&self) {
        let (delay_ms, window_ms) = (self.delay.as_millis(), self.window.as_millis());
        tracing::info!(delay_ms, window_ms, "draining");
    }
}

/// This replica is about to end.
#[derive(Debug)]
pub struct DrainEnded {
    /// Of the ways in which a drain ends.
    pub outcome: &'static str,
    /// Clients that had not left by then, and are cut off.
    pub cut: usize,
}

impl DrainEnded {
    /// Logs it.
    pub fn emit(&self) {
        tracing::info!(outcome = self.outcome, cut = self.cut, "drained");
    }
}

/// The configuration was loaded anew, and what of it may change while the process
/// runs is in force.
#[derive(Debug)]
pub struct ConfigApplied<'a> {
    /// The keys that differ from what was in force.
    pub keys: &'a BTreeSet<String>,
    /// Subscriptions of channels that are no more.
    pub subscriptions_ended: usize,
}

impl ConfigApplied<'_> {
    /// Counts and logs it.
    pub fn emit(&self) {
        count_reload("applied");
        let Self { keys, subscriptions_ended } = self;
        tracing::info!(
            keys = words(keys),
            subscriptions_ended,
            "the configuration was loaded anew and is in force"
        );
    }
}

/// The configuration was loaded anew, and nothing differs that could be taken up.
#[derive(Debug)]
pub struct ConfigUnchanged;

impl ConfigUnchanged {
    /// Counts and logs it.
    pub fn emit(&self) {
        count_reload("unchanged");
        tracing::info!("the configuration was loaded anew, and what is in force stays");
    }
}

/// The configuration was loaded anew, and can't be used: what was in force stays.
#[derive(Debug)]
pub struct ConfigRefused<'a> {
    /// What is wrong, each with its place, its key and a remedy.
    pub problems: &'a [String],
}

impl ConfigRefused<'_> {
    /// Counts and logs it.
    pub fn emit(&self) {
        count_reload("refused");
        for problem in self.problems.iter().take(PROBLEMS_MAX) {
            tracing::error!(
                problem,
                "the configuration can't be used: the one from before stays in force"
            );
        }
        let left_out = self.problems.len().saturating_sub(PROBLEMS_MAX);
        if left_out > 0 {
            tracing::error!(left_out, "`brucke check-config` names the other problems");
        }
    }
}

/// Keys differ from those that the process was started with, and wait until it is
/// started anew.
#[derive(Debug)]
pub struct RestartNeeded<'a> {
    pub keys: &'a BTreeSet<String>,
}

impl RestartNeeded<'_> {
    /// Counts them, and logs it where there are any.
    pub fn emit(&self) {
        gauge!(metric::CONFIG_RESTART_NEEDED).set(self.keys.len() as f64);
        if !self.keys.is_empty() {
            let keys = words(self.keys);
            tracing::warn!(keys, "these keys have changed and need a restart to count");
        }
    }
}

fn count_reload(outcome: &'static str) {
    counter!(metric::CONFIG_RELOADS, "outcome" => outcome).increment(1);
    let refused = outcome == "refused";
    gauge!(metric::CONFIG_REFUSED).set(if refused { 1.0 } else { 0.0 });
    if !refused {
        config_loaded();
    }
}

/// Notes how many connections there may be from now on.
pub fn connections_limited(most: u32) {
    gauge!(metric::CONNECTIONS_LIMIT).set(f64::from(most));
}

/// Notes that what is in force is what the configuration says now.
pub fn config_loaded() {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    gauge!(metric::CONFIG_LOADED_AT).set(since.as_secs_f64());
}

/// How a reload ends.
pub const RELOAD_OUTCOMES: [&str; 3] = ["applied", "unchanged", "refused"];
/// Problems of one configuration that are logged one by one.
const PROBLEMS_MAX: usize = 20;

fn words(keys: &BTreeSet<String>) -> String {
    keys.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// A traced record was given to the live followers of a feed, or to one client
/// that catches up.
#[derive(Debug)]
pub struct Delivered<'a> {
    pub trace: TraceId,
    pub deliver: &'a Deliver,
}

impl Delivered<'_> {
    /// Logs it, so that a line leads to its trace.
    pub fn emit(&self) {
        let Self { trace, deliver } = self;
        let RecordRef { partition, offset } = deliver.record;
        tracing::debug!(
            trace_id = %trace,
            channel = %deliver.channel,
            %partition,
            %offset,
            matched = deliver.matched,
            sent = deliver.sent,
            behind = deliver.behind,
            "delivered"
        );
    }
}

/// The collector did not take spans; they are dropped and counted until it does.
#[derive(Debug)]
pub struct CollectorFailed<'a> {
    pub endpoint: &'a str,
    pub reason: &'a str,
}

impl CollectorFailed<'_> {
    /// Logs it.
    pub fn emit(&self) {
        let Self { endpoint, reason } = self;
        tracing::warn!(endpoint, reason, "the collector takes no spans: they are dropped");
    }
}

/// The collector takes spans again.
#[derive(Debug)]
pub struct CollectorAnswers<'a> {
    pub endpoint: &'a str,
}

impl CollectorAnswers<'_> {
    /// Logs it.
    pub fn emit(&self) {
        tracing::info!(endpoint = self.endpoint, "the collector takes spans again");
    }
}

/// A topic that is wanted can't be read.
#[derive(Debug)]
pub struct TopicFailed<'a> {
    pub topic: &'a TopicName,
    /// What is wrong, and the remedy.
    pub problem: &'a str,
}

impl TopicFailed<'_> {
    /// Logs it; how many there are, the scrape says.
    pub fn emit(&self) {
        let Self { topic, problem } = self;
        tracing::warn!("topic {topic}: {problem}");
    }
}

/// A record of the topic of revocations was left out. What stands in it is told
/// nowhere.
#[derive(Debug)]
pub struct RevocationIgnored {
    pub offset: Offset,
    pub why: Ignored,
}

/// Why a record is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// No replica has written it.
    Strange(Strange),
    /// As many are remembered as may be.
    Limit,
}

impl RevocationIgnored {
    /// Logs and counts it.
    pub fn emit(&self) {
        let Self { offset, why } = self;
        let (reason, text) = match why {
            Ignored::Strange(strange) => (IGNORED[0], strange.to_string()),
            Ignored::Limit => (IGNORED[1], "too many tokens are revoked already".to_owned()),
        };
        counter!(metric::REVOCATIONS_IGNORED, "reason" => reason).increment(1);
        tracing::warn!(%offset, reason, text, "a record of the topic of revocations is left out");
    }
}

/// A worker could not be told what is revoked. Nobody who has such a token comes in,
/// but connections there may stay until their token runs out.
#[derive(Debug)]
pub struct RevocationUntold<'a> {
    pub error: &'a dyn Error,
}

impl RevocationUntold<'_> {
    /// Logs it.
    pub fn emit(&self) {
        tracing::error!(error = %self.error, "connections with a revoked token may be open still");
    }
}

/// Values of the label of revocations that are left out.
pub const IGNORED: [&str; 2] = ["unreadable", "limit"];

/// An invariant broke; the process ends.
#[derive(Debug)]
pub struct Panicked {
    /// Where in the code.
    pub place: Option<String>,
}

impl Panicked {
    /// Logs it. The text of a panic may hold what a client sent, and stands only
    /// where panics are printed.
    pub fn emit(&self) {
        let place = self.place.as_deref().unwrap_or("unknown");
        tracing::error!(place, "a thread panicked; the process ends, clients resume elsewhere");
    }
}
