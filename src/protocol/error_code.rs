//! Why a request is refused: name, and whether to try again. The one table of
//! error codes.

/// Why the server refuses a request or ends a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The frame could not be read.
    BadFrame,
    /// The first frame was not `authenticate`.
    NotAuthenticated,
    /// The token was refused.
    AuthenticationFailed,
    /// The renewed token speaks of another tenant or subject.
    IdentityChanged,
    /// No such channel, or not for this client: both look alike.
    ChannelForbidden,
    /// The client may not read these keys.
    KeyForbidden,
    /// The connection already follows this channel with the same keys.
    AlreadySubscribed,
    /// No such subscription on this connection.
    UnknownSubscription,
    /// More subscriptions, keys or sources than allowed.
    LimitExceeded,
    /// The client's tenant has all the connections that it may at this replica.
    TenantConnectionsFull,
    /// The client's tenant has all the subscriptions that it may at this replica.
    TenantSubscriptionsFull,
    /// A position names a partition that the topic does not have.
    UnknownPartition,
    /// A position, key, window or time is out of its range.
    InvalidArgument,
    /// The topic behind the channel is missing or can't be read.
    SourceUnavailable,
    /// Kafka did not answer in time.
    Unavailable,
    /// Wanted offsets are gone, and the subscription asked to stop.
    Gap,
    /// The channel was taken out of the configuration.
    ChannelRemoved,
    /// The token no longer covers this subscription.
    Revoked,
}

impl ErrorCode {
    /// Every code, in the order of the table in `docs/protocol.md`.
    pub const ALL: [ErrorCode; 18] = [
        Self::BadFrame,
        Self::NotAuthenticated,
        Self::AuthenticationFailed,
        Self::IdentityChanged,
        Self::ChannelForbidden,
        Self::KeyForbidden,
        Self::AlreadySubscribed,
        Self::UnknownSubscription,
        Self::LimitExceeded,
        Self::TenantConnectionsFull,
        Self::TenantSubscriptionsFull,
        Self::UnknownPartition,
        Self::InvalidArgument,
        Self::SourceUnavailable,
        Self::Unavailable,
        Self::Gap,
        Self::ChannelRemoved,
        Self::Revoked,
    ];

    /// Returns the name on the wire and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadFrame => "bad_frame",
            Self::NotAuthenticated => "not_authenticated",
            Self::AuthenticationFailed => "authentication_failed",
            Self::IdentityChanged => "identity_changed",
            Self::ChannelForbidden => "channel_forbidden",
            Self::KeyForbidden => "key_forbidden",
            Self::AlreadySubscribed => "already_subscribed",
            Self::UnknownSubscription => "unknown_subscription",
            Self::LimitExceeded => "limit_exceeded",
            Self::TenantConnectionsFull => "tenant_connections_full",
            Self::TenantSubscriptionsFull => "tenant_subscriptions_full",
            Self::UnknownPartition => "unknown_partition",
            Self::InvalidArgument => "invalid_argument",
            Self::SourceUnavailable => "source_unavailable",
            Self::Unavailable => "unavailable",
            Self::Gap => "gap",
            Self::ChannelRemoved => "channel_removed",
            Self::Revoked => "revoked",
        }
    }

    /// Returns the code of this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// Says whether the same request may succeed later, unchanged.
    pub const fn retry(self) -> bool {
        match self {
            Self::SourceUnavailable
            | Self::Unavailable
            | Self::TenantConnectionsFull
            | Self::TenantSubscriptionsFull => true,
            Self::BadFrame
            | Self::NotAuthenticated
            | Self::AuthenticationFailed
            | Self::IdentityChanged
            | Self::ChannelForbidden
            | Self::KeyForbidden
            | Self::AlreadySubscribed
            | Self::UnknownSubscription
            | Self::LimitExceeded
            | Self::UnknownPartition
            | Self::InvalidArgument
            | Self::Gap
            | Self::ChannelRemoved
            | Self::Revoked => false,
        }
    }
}
