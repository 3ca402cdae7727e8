//! Why a client's bytes end the connection.

use thiserror::Error;

use crate::protocol::close_code::CloseCode;

/// Why a client's bytes end the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReadError {
    /// RFC 6455 was broken.
    #[error("{0}")]
    Protocol(&'static str),
    /// A text message or the reason of a Close frame is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// More than the limit was declared, in one frame or in the frames of one
    /// message together.
    #[error("a message of {bytes} bytes or more, where {limit} are allowed")]
    TooLarge { bytes: u64, limit: usize },
    /// A message came in more pieces than its size excuses.
    #[error("a message in more than {limit} frames")]
    TooManyFragments { limit: usize },
}

impl ReadError {
    /// Returns the code to close with.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::Protocol(_) => CloseCode::ProtocolError,
            Self::NotUtf8 => CloseCode::InvalidPayload,
            Self::TooLarge { .. } => CloseCode::TooLarge,
            Self::TooManyFragments { .. } => CloseCode::RateLimited,
        }
    }
}
