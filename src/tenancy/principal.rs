//! Who a client is.

use std::collections::BTreeMap;

use crate::types::ids::TenantId;
use crate::types::ids::Timestamp;

/// Who a client is and what its token lets it read.
#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    pub tenant: TenantId,
    /// The `sub` claim.
    pub subject: Option<Box<str>>,
    pub channels: ChannelAccess,
    /// Claims that key rules may refer to, as text.
    pub claims: BTreeMap<Box<str>, Box<str>>,
    /// When the token runs out; `None` only where authentication is off.
    pub expires_at: Option<Timestamp>,
    /// The `jti` claim, by which one token can be revoked.
    pub token_id: Option<Box<str>>,
    /// The `iat` claim.
    pub issued_at: Option<Timestamp>,
}

/// Which channels a token names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelAccess {
    /// All that the configuration has for the tenant.
    All,
    /// These, and no others.
    Only(Box<[Box<str>]>),
}
