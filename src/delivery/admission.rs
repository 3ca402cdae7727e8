//! Whom a shard lets in: a place for each connection and each subscription, as far
//! as their tenant has any left.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::delivery::shard::Shard;
use crate::protocol::close_code::CloseCode;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::ErrorFrame;
use crate::tenancy::principal::Principal;
use crate::tenancy::quota::Full;
use crate::tenancy::quota::SubscriptionPlace;
use crate::types::limits::CROWDED_MILLIS;
use crate::types::moment::Moment;

/// Why a connection is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unopened {
    /// The shard has all that it may, or is leaving.
    Full,
    /// The client's tenant has all that it may at this replica.
    TenantFull,
}

impl Shard {
    /// Lets a client in whose token came by a frame, or sends it away because its
    /// tenant has no place for it.
    ///
    /// # Errors
    ///
    /// The code with which it was sent away.
    pub(in crate::delivery) fn admit(
        &mut self,
        slot: usize,
        principal: Arc<Principal>,
        now: Moment,
    ) -> Result<(), ErrorCode> {
        match self.directory.quotas().connect(&principal.tenant) {
            Ok(place) => {
                self.connections[slot].place = Some(place);
                self.welcome(slot, principal, now);
                Ok(())
            }
            Err(Full { max }) => {
                let code = ErrorCode::TenantConnectionsFull;
                let message = format!(
                    "this tenant may hold {max} connections at this replica and does: close some, \
                     or connect again later"
                );
                let retry_after = self.retry_after(code);
                self.send_error(
                    slot,
                    ErrorFrame { id: None, sub: None, code, message, retry_after },
                );
                self.close(slot, CloseCode::Overloaded, retry_after, now.instant);
                Err(code)
            }
        }
    }

    /// Takes a place for a subscription of a connection whose client is known.
    ///
    /// # Errors
    ///
    /// Code and sentence, where its tenant has none left.
    pub(in crate::delivery) fn subscription_place(
        &self,
        slot: usize,
    ) -> Result<SubscriptionPlace, (ErrorCode, String)> {
        let place = self.connections[slot].place.as_ref();
        let place = place.expect("a client that is known has a place");
        place.subscribe().map_err(|Full { max }| refusal(max))
    }

    /// Returns when a request that was refused with this code may be repeated;
    /// spread, so that many do not come back at once.
    pub(in crate::delivery) fn retry_after(&mut self, code: ErrorCode) -> Option<Duration> {
        match code {
            _ if !code.retry() => None,
            ErrorCode::TenantConnectionsFull | ErrorCode::TenantSubscriptionsFull => {
                Some(self.crowded_wait())
            }
            _ => Some(Duration::from_millis(self.rng.u64(PASSING_MILLIS))),
        }
    }

    /// Returns when to come again where others must leave or be served first.
    pub(in crate::delivery) fn crowded_wait(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(CROWDED_MILLIS))
    }
}

fn refusal(max: NonZeroU32) -> (ErrorCode, String) {
    let message = format!(
        "this tenant may hold {max} subscriptions at this replica and does: end some, or try again \
         later"
    );
    (ErrorCode::TenantSubscriptionsFull, message)
}

/// Milliseconds until what failed for a moment may be tried again.
const PASSING_MILLIS: Range<u64> = 500..2_500;
