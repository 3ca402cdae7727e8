//! What an operator asks and orders.

use std::future::Future;
use std::pin::Pin;

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// Knows connections, channels and what else the process holds. The wiring
/// provides it.
pub trait Operator: Send + Sync {
    /// Does what is asked, and answers in JSON.
    fn operate(&self, order: Order) -> Reply;
}

/// An answer that takes a while: threads are asked for it.
pub type Reply = Pin<Box<dyn Future<Output = Result<Value, Refused>>>>;

/// What is asked or ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Connections(ConnectionsQuery),
    Connection { id: u64 },
    Disconnect { id: u64 },
    Trace { id: u64, body: TraceBody },
    Channels,
    Partitions(PartitionsQuery),
    Sweeps,
    Tenants,
    Revoke(RevokeBody),
    LogLevel(LogLevelBody),
    Explain(ExplainBody),
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// What was asked makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Somebody who had to be asked did not answer.
    #[error("{0}")]
    Unavailable(String),
}

/// Which connections, from where on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionsQuery {
    /// The `next` of the answer before.
    pub after: Option<String>,
    /// Default 100, at most 1,000.
    pub max: Option<usize>,
    pub tenant: Option<String>,
    /// `behind`: only those with a subscription that is.
    pub state: Option<String>,
}

/// Which partitions, from where on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionsQuery {
    pub after: Option<usize>,
    pub max: Option<usize>,
    pub topic: Option<String>,
}

/// Whose tokens are no longer believed: `jti`, or `sub`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeBody {
    pub jti: Option<String>,
    pub sub: Option<String>,
    /// With `sub`: of this tenant only.
    pub tenant: Option<String>,
    /// How long it is remembered: as long as such a token may live. Default a day.
    pub seconds: Option<u64>,
}

/// Whether all that goes to a connection is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceBody {
    pub on: bool,
}

/// The least that is logged from now on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLevelBody {
    pub level: String,
}

/// What is to be explained: one `offset`, or what a filter matches in
/// `[from, to)`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainBody {
    pub connection: Option<String>,
    pub token: Option<String>,
    pub channel: String,
    pub keys: Option<Vec<String>>,
    pub prefix: Option<String>,
    pub partition: u32,
    pub offset: Option<u64>,
    pub from: Option<u64>,
    pub to: Option<u64>,
}
