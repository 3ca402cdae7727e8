//! What an operator, or what runs the process, asks.

use serde::Serialize;

use crate::telemetry::exposition::Format;

/// Knows how this replica is.
pub trait Health: Send + Sync {
    /// Returns why this process should be started anew; nothing as a rule.
    fn live_problems(&self) -> Vec<Problem>;
    /// Returns why clients should be sent to other replicas.
    fn ready_problems(&self) -> Vec<Problem>;
    /// Returns what is wrong besides, and no reason to send clients elsewhere.
    fn warnings(&self) -> Vec<Problem>;
    /// Returns all metrics.
    fn metrics(&self, format: Format) -> String;
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub kind: ProblemKind,
    /// The topic concerned; absent where it is no single one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// One sentence for people.
    pub message: String,
}

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The topic does not exist.
    TopicMissing,
    /// The topic may not be read by this process.
    PermissionMissing,
    /// No broker answers.
    BrokerUnreachable,
    /// What is revoked at other replicas is not known yet.
    RevocationsUnread,
    /// The topic is such that it can't be followed.
    TopicUnusable,
    /// The process has not begun to serve.
    Starting,
    /// The process is going away.
    Draining,
    /// A thread does not get on, or is no more.
    WorkerStuck,
}
