//! Why a client's frame can't be read.

use thiserror::Error;

use crate::protocol::error_code::ErrorCode;
use crate::types::ids::RequestId;

/// Why a frame can't be read. It never repeats the text of a value, so that no
/// token or key comes back in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct DecodeError {
    /// The request that the frame made, where its number could be read.
    pub id: Option<RequestId>,
    /// [`ErrorCode::BadFrame`] for a frame that the protocol does not have;
    /// [`ErrorCode::InvalidArgument`] or [`ErrorCode::LimitExceeded`] for one
    /// that it has, with a value out of its range.
    pub code: ErrorCode,
    /// One sentence: what is wrong and what to do.
    pub message: String,
}

impl DecodeError {
    /// Returns the error for a frame that the protocol does not have.
    pub fn bad_frame(message: impl Into<String>) -> Self {
        Self { id: None, code: ErrorCode::BadFrame, message: message.into() }
    }

    /// Returns the error for a value out of its range.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { id: None, code: ErrorCode::InvalidArgument, message: message.into() }
    }

    /// Returns the error for more of something than allowed.
    pub fn limit(message: impl Into<String>) -> Self {
        Self { id: None, code: ErrorCode::LimitExceeded, message: message.into() }
    }

    /// Returns the error as the answer to this request.
    pub fn for_request(self, id: Option<RequestId>) -> Self {
        Self { id, ..self }
    }
}
