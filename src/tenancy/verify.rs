//! The door through which a token becomes a principal.

use std::fmt;

use crate::protocol::frame::Token;
use crate::tenancy::principal::Principal;
use crate::types::ids::Timestamp;

/// Tells who holds a token. The edge that knows keys provides it.
pub trait Verify: fmt::Debug + Send + Sync {
    /// Returns whose token this is at the moment `now`.
    ///
    /// # Errors
    ///
    /// [`Refusal`], whose text never holds a part of the token.
    fn verify(&self, token: &Token, now: Timestamp) -> Result<Principal, Refusal>;

    /// Says whether a token that was good has been revoked since.
    fn is_revoked(&self, principal: &Principal, now: Timestamp) -> bool {
        let _ = (principal, now);
        false
    }
}

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable name, for metrics.
    pub reason: &'static str,
    /// One sentence for the client.
    pub message: String,
}
