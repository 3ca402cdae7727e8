//! Why a connection ends: number, name, and what the client should do. The one
//! table of close codes.

/// Why the server closes a connection.
///
/// Numbers below 4000 are of RFC 6455 and its registry; those from 4000 on are
/// Brücke's own (private use, RFC 6455, 7.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// The client closed first.
    Normal,
    /// A frame broke RFC 6455.
    ProtocolError,
    /// A message of a kind that the subprotocol does not have.
    UnsupportedData,
    /// A text message that is not UTF-8.
    InvalidPayload,
    /// A frame above the size limit.
    TooLarge,
    /// A fault of the server's.
    InternalError,
    /// This replica is going away; another is there.
    Draining,
    /// The server has no room now, or none for this client's tenant.
    Overloaded,
    /// No token arrived within the deadline.
    AuthenticationTimeout,
    /// The token was refused.
    AuthenticationFailed,
    /// The token ran out and was not renewed.
    TokenExpired,
    /// The client did not answer pings.
    PongTimeout,
    /// The client did not read for too long.
    StuckReader,
    /// A frame that the protocol does not have.
    BadFrame,
    /// More frames than a client may send in a while.
    RateLimited,
}

/// Whether a client should connect again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconnect {
    /// At once, with jitter.
    Soon,
    /// With growing delays.
    Backoff,
    /// With a new token.
    NewToken,
    /// Not before somebody has mended the client.
    Never,
}

impl Reconnect {
    /// Says whether a client may come back at all without being mended first.
    pub const fn comes_back(self) -> bool {
        !matches!(self, Self::Never)
    }
}

impl CloseCode {
    /// Every code, in the order of the table in `docs/protocol.md`.
    pub const ALL: [CloseCode; 15] = [
        Self::Normal,
        Self::ProtocolError,
        Self::UnsupportedData,
        Self::InvalidPayload,
        Self::TooLarge,
        Self::InternalError,
        Self::Draining,
        Self::Overloaded,
        Self::AuthenticationTimeout,
        Self::AuthenticationFailed,
        Self::TokenExpired,
        Self::PongTimeout,
        Self::StuckReader,
        Self::BadFrame,
        Self::RateLimited,
    ];

    /// Returns the number in the Close frame, the name in `closing` frames and
    /// metrics, and what the client should do.
    pub const fn row(self) -> (u16, &'static str, Reconnect) {
        match self {
            Self::Normal => (1000, "normal", Reconnect::Never),
            Self::ProtocolError => (1002, "protocol_error", Reconnect::Never),
            Self::UnsupportedData => (1003, "unsupported_data", Reconnect::Never),
            Self::InvalidPayload => (1007, "invalid_payload", Reconnect::Never),
            Self::TooLarge => (1009, "too_large", Reconnect::Never),
            Self::InternalError => (1011, "internal_error", Reconnect::Backoff),
            Self::Draining => (1012, "draining", Reconnect::Soon),
            Self::Overloaded => (1013, "overloaded", Reconnect::Backoff),
            Self::AuthenticationTimeout => (4001, "authentication_timeout", Reconnect::Backoff),
            Self::AuthenticationFailed => (4002, "authentication_failed", Reconnect::NewToken),
            Self::TokenExpired => (4003, "token_expired", Reconnect::NewToken),
            Self::PongTimeout => (4004, "pong_timeout", Reconnect::Soon),
            Self::StuckReader => (4005, "stuck_reader", Reconnect::Backoff),
            Self::BadFrame => (4006, "bad_frame", Reconnect::Never),
            Self::RateLimited => (4007, "rate_limited", Reconnect::Backoff),
        }
    }

    /// Returns the code of this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// Returns the code of this number, if there is one.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// Returns the number in the Close frame.
    pub const fn number(self) -> u16 {
        self.row().0
    }

    /// Returns the name in `closing` frames and metrics.
    pub const fn name(self) -> &'static str {
        self.row().1
    }

    /// Returns what the client should do.
    pub const fn reconnect(self) -> Reconnect {
        self.row().2
    }
}
