//! Where the log of an earlier leader ends now (KIP-320).
//!
//! librdkafka has no call that asks. But a partition that is assigned with a leader
//! epoch is held against the broker before anything is read of it, by the request that
//! would be asked (OffsetForLeaderEpoch), and where the log of that leader ends below
//! the offset wanted, the error says where. So this assigns offsets that no log
//! reaches. librdkafka checks only when it hears of a partition's leader for the first
//! time: each round takes a client of its own.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use tracing::debug;

use crate::kafka::client;
use crate::kafka::native::offsets;
use crate::kafka::native::queue::Fetched;
use crate::kafka::native::queue::Item;
use crate::kafka::native::queue::PartitionQueue;
use crate::kafka::native::topics::ErrorCode;
use crate::kafka::status::KafkaStatus;
use crate::kafka::status::Role;
use crate::registry::message::EpochEnd;
use crate::types::ids::LeaderEpoch;
use crate::types::ids::PartitionId;
use crate::types::ids::TopicName;

/// Where the log of each leader that was asked for ends now, by partition. A broker that
/// is too old to say leaves it out.
pub(in crate::kafka) type EpochEnds = BTreeMap<PartitionId, Vec<(LeaderEpoch, EpochEnd)>>;

/// Asks for the ends of earlier leaders' logs.
#[derive(Clone)]
pub(in crate::kafka) struct EpochLookup {
    config: ClientConfig,
    status: Arc<KafkaStatus>,
}

impl EpochLookup {
    /// Returns a lookup that connects when it is asked something.
    pub(in crate::kafka) fn new(config: ClientConfig, status: Arc<KafkaStatus>) -> Self {
        Self { config, status }
    }

    /// Asks; each pair may stand in `wanted` once.
    pub(in crate::kafka) fn ask(
        &self,
        topic: &TopicName,
        wanted: &[(PartitionId, LeaderEpoch)],
    ) -> EpochEnds {
        let (began, asked) = (Instant::now(), wanted.len());
        let deadline = began + TIMEOUT;
        let mut wanted: VecDeque<_> = wanted.iter().copied().collect();
        let mut ends = EpochEnds::new();
        while !wanted.is_empty() {
            // A client asks once for each partition.
            let mut round: BTreeMap<PartitionId, LeaderEpoch> = BTreeMap::new();
            for _ in 0..wanted.len() {
                let (partition, epoch) = wanted.pop_front().expect("counted");
                match round.entry(partition) {
                    Entry::Vacant(free) => drop(free.insert(epoch)),
                    Entry::Occupied(_) => wanted.push_back((partition, epoch)),
                }
            }
            let answers = self.ask_round(topic, &round, deadline).unwrap_or_default();
            for (partition, epoch) in round {
                let end = answers.get(&partition).copied().unwrap_or(Some(EpochEnd::Unanswered));
                ends.entry(partition).or_default().extend(end.map(|end| (epoch, end)));
            }
        }
        if asked > 0 {
            debug!(%topic, asked, took = ?began.elapsed(), "asked where earlier leaders' logs end");
        }
        ends
    }

    /// Asks for one leader of each partition. Returns nothing of those for whom nobody
    /// answered, and `None` where the broker is too old to say.
    fn ask_round(
        &self,
        topic: &TopicName,
        round: &BTreeMap<PartitionId, LeaderEpoch>,
        deadline: Instant,
    ) -> Result<BTreeMap<PartitionId, Option<EpochEnd>>, ErrorCode> {
        let client = client::connect(&self.config, &self.status, Role::Admin);
        let client = client.map_err(|_| ErrorCode::Fail)?;
        let mut list = TopicPartitionList::with_capacity(round.len());
        let mut queues = Vec::new();
        for (partition, epoch) in round {
            let queue = PartitionQueue::split(&client, topic, *partition);
            queues.push((*partition, queue.ok_or(ErrorCode::InvalidTopic)?));
            let (topic, partition) = (topic.as_str(), partition.as_kafka());
            list.add_partition_offset(topic, partition, rdkafka::Offset::Offset(NO_LOG_REACHES))
                .expect("an offset is not negative");
            offsets::set_last_epoch(&mut list, *epoch);
        }
        client.incremental_assign(&list).map_err(|_| ErrorCode::Fail)?;
        // By itself it would look for the leaders of a new topic after up to a second.
        let left = deadline.saturating_duration_since(Instant::now());
        let asked = client.fetch_metadata(Some(topic.as_str()), left);
        asked.map_err(|error| error.rdkafka_error_code().unwrap_or(ErrorCode::Fail))?;
        let mut answers = BTreeMap::new();
        for (partition, queue) in queues {
            let mut fetched = Fetched::new(&client);
            answers.insert(partition, wait(&mut fetched, &queue, deadline));
        }
        Ok(answers)
    }
}

/// Waits for what the broker said of one partition; `None` where it is too old to check
/// the offset and was asked for records.
fn wait(fetched: &mut Fetched, queue: &PartitionQueue, deadline: Instant) -> Option<EpochEnd> {
    loop {
        match fetched.front() {
            Some(Item::Truncated(end)) => return Some(EpochEnd::At(end)),
            Some(Item::UnknownEpoch) => return Some(EpochEnd::Unknown),
            Some(Item::OutOfRange) => return None,
            Some(Item::Record(_) | Item::End(_) | Item::Failed(_)) => {
                return Some(EpochEnd::Unanswered);
            }
            None => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Some(EpochEnd::Unanswered);
        }
        fetched.wait(queue, left);
    }
}

/// Above the end of any log.
const NO_LOG_REACHES: i64 = i64::MAX >> 1;
/// How long all rounds of one question may take.
const TIMEOUT: Duration = Duration::from_secs(4);
