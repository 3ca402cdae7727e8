//! The `[tenants]` section of a configuration.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use crate::config::loader::SectionReader;
use crate::tenancy::quota::Quota;
use crate::tenancy::quota::QuotaRules;
use crate::types::ids::TenantId;
use crate::types::setting::default;
use crate::types::setting::required;
use crate::types::setting::settings;
use crate::types::setting::unset;

settings! {
    /// How much of a replica one tenant may hold, so that none takes the places of
    /// the others.
    pub struct TenantsSection {
        /// Connections that each tenant may hold at this replica; one more is refused
        /// with 429, or by `tenant_connections_full` where the token comes by a frame.
        /// 0: no limit but `server.connections_max`, which one tenant can then use up.
        pub connections_max: u32 = default("0").within("0", "10000000"),
        /// Subscriptions that each tenant may hold at this replica, over all its
        /// connections; one more is refused by `tenant_subscriptions_full`. 0: no limit
        /// but that of each connection.
        pub subscriptions_max: u32 = default("0").within("0", "1000000000"),
    }
}

settings! {
    /// A tenant with a quota of its own. One `[[tenants.exceptions]]` for each.
    pub struct ExceptionSection {
        /// Whose quota it is, as tokens name it.
        pub tenant: TenantId = required("acme"),
        /// Connections that this tenant may hold. Absent: as many as every other. 0: no
        /// limit.
        pub connections_max: Option<u32> = unset("5000").within("0", "10000000"),
        /// Subscriptions that this tenant may hold. Absent: as many as every other. 0:
        /// no limit.
        pub subscriptions_max: Option<u32> = unset("50000").within("0", "1000000000"),
    }
}

/// What the section says of each tenant.
pub(crate) fn compose(reader: &mut SectionReader<'_>) -> Option<QuotaRules> {
    let every = reader.read::<TenantsSection>().map(|section| Quota {
        connections_max: NonZeroU32::new(section.connections_max),
        subscriptions_max: NonZeroU32::new(section.subscriptions_max),
    });
    let of_others = every.unwrap_or_default();
    let mut exceptions = BTreeMap::new();
    let read = reader.sections("exceptions", |reader| {
        let section = reader.read::<ExceptionSection>()?;
        let quota = Quota {
            connections_max: max(section.connections_max, of_others.connections_max),
            subscriptions_max: max(section.subscriptions_max, of_others.subscriptions_max),
        };
        if exceptions.insert(section.tenant, quota).is_some() {
            reader.refuse("tenant", "has an exception already; keep one of the two");
            return None;
        }
        Some(())
    });
    read?;
    Some(QuotaRules { every: every?, exceptions })
}

/// Returns the bound of an exception, where 0 stands for none.
fn max(own: Option<u32>, of_others: Option<NonZeroU32>) -> Option<NonZeroU32> {
    own.map_or(of_others, NonZeroU32::new)
}
