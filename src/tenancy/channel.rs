//! What a client that names a channel and keys gets to read.

use crate::tenancy::principal::Principal;
use crate::tenancy::rule::TenancyRule;
use crate::types::filter::KeyFilter;
use crate::types::ids::ChannelName;
use crate::types::ids::TenantId;
use crate::types::ids::TopicName;

/// A topic read under one tenancy rule: what a replica reads once, however many
/// channels and clients follow it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceKey {
    pub topic: TopicName,
    pub rule: TenancyRule,
}

/// Leave to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub source: SourceKey,
    /// Whose records; `None` only where the channel is shared by all tenants.
    pub tenant: Option<TenantId>,
}

/// Why leave to read was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// No such channel, or not for this client: told alike.
    Channel,
    /// The channel, but not these keys.
    Key,
}

/// All channels of a configuration.
#[derive(Debug, Default)]
pub struct Channels {}

impl Channels {
    /// Says what `principal` reads when it names `channel` and `filter`.
    ///
    /// # Errors
    ///
    /// [`Denied`], which tells unknown and forbidden channels alike.
    pub fn grant(
        &self,
        principal: &Principal,
        channel: &ChannelName,
        filter: &KeyFilter,
    ) -> Result<Grant, Denied> {
        let _ = (principal, channel, filter);
        Err(Denied::Channel)
    }
}
