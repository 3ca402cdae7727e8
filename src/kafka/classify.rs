//! From librdkafka's message to a record of a batch.

use crate::kafka::native::queue::MessageRef;
use crate::log::batch::BatchBuilder;
use crate::tenancy::rule::TenancyRule;
use crate::types::ids::PartitionId;
use crate::types::ids::TopicName;
use crate::types::record::Owner;
use crate::types::record::RawRecord;
use crate::types::trace::Origin;
use crate::types::trace::RecordPlace;
use crate::types::trace::Sampler;

/// By which rules the records of one partition become records of batches.
#[derive(Debug)]
pub(in crate::kafka) struct Rules {
    pub(in crate::kafka) tenancy: TenancyRule,
    pub(in crate::kafka) sampler: Sampler,
    pub(in crate::kafka) topic: TopicName,
    pub(in crate::kafka) partition: PartitionId,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka) enum Fate {
    /// It stands in the batch, for its tenant.
    Kept,
    /// Its tenant can't be told: the batch covers its offset, and nobody sees it.
    Unclassified,
}

/// Adds a message to a batch under the tenant that the rule tells, and notes
/// whether it is traced.
pub(in crate::kafka) fn add(
    batch: &mut BatchBuilder,
    message: &MessageRef<'_>,
    rules: &Rules,
) -> Fate {
    message.with_record(|record| match rules.tenancy.classify(record) {
        Some(classified) => {
            let owner = classified.tenant.as_deref().map_or(Owner::Shared, Owner::Tenant);
            batch.push(record, owner, classified.key);
            if let Some(origin) = rules.sample(record) {
                batch.trace(origin);
            }
            Fate::Kept
        }
        None => {
            batch.skip_to(record.offset.next());
            Fate::Unclassified
        }
    })
}

impl Rules {
    fn sample(&self, record: &RawRecord<'_>) -> Option<Origin> {
        let place = RecordPlace {
            topic: self.topic.as_str(),
            partition: self.partition,
            offset: record.offset,
            timestamp: record.timestamp,
        };
        self.sampler.sample(&place, record.headers.iter().copied())
    }
}
