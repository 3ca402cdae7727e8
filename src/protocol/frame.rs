//! The words of the protocol, the same in every encoding.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::protocol::close_code::CloseCode;
use crate::protocol::error_code::ErrorCode;
use crate::types::filter::KeyFilter;
use crate::types::ids::ChannelName;
use crate::types::ids::ConnectionId;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::RequestId;
use crate::types::ids::SubId;
use crate::types::ids::TenantId;
use crate::types::ids::Timestamp;
use crate::types::ids::TopicId;
use crate::types::positions::Epochs;
use crate::types::positions::Place;
use crate::types::positions::Positions;

/// How frames are written on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Text messages; subprotocol `brucke.v1.json`.
    Json,
    /// Binary messages; subprotocol `brucke.v1.protobuf`.
    Protobuf,
}

impl Encoding {
    /// Returns the WebSocket subprotocol that asks for this encoding.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "brucke.v1.json",
            Self::Protobuf => "brucke.v1.protobuf",
        }
    }
}

/// What a client says.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientFrame {
    /// Says who the client is; later, renews it.
    Authenticate {
        token: Token,
    },
    Subscribe(Subscribe),
    Unsubscribe {
        id: RequestId,
        sub: SubId,
    },
    /// Says which offsets the application has dealt with: the next ones wanted.
    Ack {
        sub: SubId,
        positions: Positions,
    },
    Ping,
}

/// A request for a feed.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    pub id: RequestId,
    pub channel: ChannelName,
    pub filter: KeyFilter,
    pub from: StartAt,
    pub on_gap: OnGap,
    /// Records that may be sent and not yet acknowledged; `None` for no bound.
    pub window: Option<NonZeroU32>,
}

/// Where a subscription starts.
#[derive(Debug, Clone, PartialEq)]
pub enum StartAt {
    /// With what comes from now on.
    Latest,
    /// With the oldest record that Kafka has.
    Earliest,
    /// With the first record stamped at or after this moment.
    Timestamp(Timestamp),
    /// As `Timestamp`, so long before now.
    Ago(Duration),
    /// Where a client stopped.
    Place(Place),
}

/// What to do when wanted offsets are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnGap {
    /// Report them and go on at the oldest record there is.
    #[default]
    Continue,
    /// Report them and end the subscription.
    Stop,
}

/// A bearer token. Its text is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps the text of a token.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the secret text, for verification only.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// What the server says, but for `records`, which [`crate::protocol::encode`]
/// writes record by record.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerFrame {
    /// The client is known; it may subscribe.
    Welcome {
        connection: ConnectionId,
        tenant: TenantId,
        heartbeat: Duration,
        expires_at: Option<Timestamp>,
    },
    /// The token was renewed.
    Renewed {
        expires_at: Option<Timestamp>,
    },
    /// The token runs out soon: authenticate again, or be closed.
    Expiring {
        expires_at: Timestamp,
    },
    Subscribed {
        id: RequestId,
        sub: SubId,
        channel: ChannelName,
        topic_id: TopicId,
        /// Where each partition starts.
        positions: Positions,
        epochs: Epochs,
    },
    /// Nothing that matches lies between the client's positions and these.
    Progress {
        sub: SubId,
        to: Positions,
        epochs: Epochs,
    },
    Gap(Gap),
    /// The subscription has caught up; said once.
    Live {
        sub: SubId,
    },
    Unsubscribed {
        id: RequestId,
        sub: SubId,
    },
    Error(ErrorFrame),
    /// The connection will be closed; `close` says how.
    Closing {
        code: CloseCode,
        retry_after: Option<Duration>,
    },
    Pong,
}

/// Offsets that the client wanted and nobody can give it. Afterwards the
/// position of the partition is `to`, which is below `from` where the log
/// itself became shorter or began anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub sub: SubId,
    pub partition: PartitionId,
    pub from: Offset,
    pub to: Offset,
    pub reason: GapReason,
    /// The topic that `to` speaks of, where it is another than before.
    pub topic_id: Option<TopicId>,
}

/// Why offsets are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// Kafka deleted the records, by age, by size or by request.
    Retention,
    /// The log became shorter than the client's position: `[to, from)` is gone.
    Truncated,
    /// The topic was deleted and made again.
    TopicRecreated,
    /// The subscription asked to skip what it can't keep up with.
    Skipped,
}

impl GapReason {
    /// Every reason, in the order of the table in `docs/protocol.md`.
    pub const ALL: [GapReason; 4] =
        [Self::Retention, Self::Truncated, Self::TopicRecreated, Self::Skipped];

    /// Returns the name on the wire and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Truncated => "truncated",
            Self::TopicRecreated => "topic_recreated",
            Self::Skipped => "skipped",
        }
    }

    /// Returns the reason of this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorFrame {
    /// The request refused; `None` when it concerns the connection.
    pub id: Option<RequestId>,
    /// The subscription ended by this, if one was.
    pub sub: Option<SubId>,
    pub code: ErrorCode,
    /// One sentence: what is wrong and what to do.
    pub message: String,
    /// When to try again; `None` where [`ErrorCode::retry`] says not to.
    pub retry_after: Option<Duration>,
}
