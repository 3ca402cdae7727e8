//! From librdkafka's message to a record of a batch.

use crate::kafka::native::queue::MessageRef;
use crate::log::batch::BatchBuilder;
use crate::tenancy::rule::TenancyRule;
use crate::types::record::Owner;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka) enum Fate {
    /// It stands in the batch, for its tenant.
    Kept,
    /// Its tenant can't be told: the batch covers its offset, and nobody sees it.
    Unclassified,
}

/// Adds a message to a batch under the tenant that `rule` tells.
pub(in crate::kafka) fn add(
    batch: &mut BatchBuilder,
    message: &MessageRef<'_>,
    rule: &TenancyRule,
) -> Fate {
    message.with_record(|record| match rule.classify(record) {
        Some(classified) => {
            let owner = classified.tenant.as_deref().map_or(Owner::Shared, Owner::Tenant);
            batch.push(record, owner, classified.key);
            Fate::Kept
        }
        None => {
            batch.skip_to(record.offset.next());
            Fate::Unclassified
        }
    })
}
