//! What the values in a client's frame may be, the same in every encoding.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;

use crate::protocol::decode_error::DecodeError;
use crate::types::filter::KeyFilter;
use crate::types::ids::ChannelName;
use crate::types::ids::LeaderEpoch;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::RequestId;
use crate::types::ids::SubId;
use crate::types::ids::Timestamp;
use crate::types::ids::TopicId;
use crate::types::limits::CHANNEL_BYTES_MAX;
use crate::types::limits::KEY_BYTES_MAX;
use crate::types::limits::KEYS_PER_SUBSCRIPTION_MAX;
use crate::types::limits::PARTITIONS_MAX;
use crate::types::limits::WINDOW_RECORDS_MAX;
use crate::types::positions::Epochs;
use crate::types::positions::Positions;
use crate::types::positions::Reached;

/// The largest number that every JSON parser reads exactly.
const EXACT_MAX: u64 = (1 << 53) - 1;
/// The longest time that `ago` may name: a hundred years of 365 days.
const AGO_MAX: Duration = Duration::from_secs(36_500 * 86_400);
/// The last millisecond of the year 9998: a bit below where calendars end.
const TIMESTAMP_MAX: Timestamp = Timestamp::from_millis(253_370_764_799_999);

/// Checks the number of a request.
pub(crate) fn request_id(raw: u64) -> Result<RequestId, DecodeError> {
    exact("id", raw).map(RequestId::new)
}

/// Checks the number of a subscription.
pub(crate) fn sub(raw: u64) -> Result<SubId, DecodeError> {
    exact("sub", raw).map(SubId::new)
}

fn exact(name: &str, raw: u64) -> Result<u64, DecodeError> {
    match raw {
        0..=EXACT_MAX => Ok(raw),
        _ => Err(DecodeError::bad_frame(format!("`{name}` must be below 2^53"))),
    }
}

/// Checks the name of a channel.
pub(crate) fn channel(name: String) -> Result<ChannelName, DecodeError> {
    match name.len() {
        0 => Err(DecodeError::invalid("`channel` is empty: name the channel to follow")),
        1..=CHANNEL_BYTES_MAX => Ok(ChannelName::new(name)),
        len => Err(DecodeError::invalid(format!(
            "`channel` has {len} bytes, more than the {CHANNEL_BYTES_MAX} of the longest name"
        ))),
    }
}

/// Checks a list of keys.
pub(crate) fn keys(keys: Vec<Bytes>) -> Result<KeyFilter, DecodeError> {
    if keys.is_empty() {
        return Err(DecodeError::invalid("`keys` is empty: leave it out to follow every key"));
    }
    if keys.len() > KEYS_PER_SUBSCRIPTION_MAX {
        let count = keys.len();
        return Err(DecodeError::limit(format!(
            "`keys` names {count} keys, more than {KEYS_PER_SUBSCRIPTION_MAX}: \
             split them over several subscriptions"
        )));
    }
    if let Some(key) = keys.iter().find(|key| key.len() > KEY_BYTES_MAX) {
        return Err(key_too_long("a key in `keys`", key));
    }
    Ok(KeyFilter::keys(keys))
}

/// Checks a prefix of keys.
pub(crate) fn prefix(prefix: Bytes) -> Result<KeyFilter, DecodeError> {
    match prefix.len() {
        0 => Err(DecodeError::invalid("the prefix is empty: leave out `keys` for every key")),
        1..=KEY_BYTES_MAX => Ok(KeyFilter::Prefix(prefix)),
        _ => Err(key_too_long("the prefix", &prefix)),
    }
}

fn key_too_long(what: &str, key: &Bytes) -> DecodeError {
    let len = key.len();
    DecodeError::invalid(format!("{what} has {len} bytes, more than {KEY_BYTES_MAX}"))
}

/// Checks a moment to start from.
pub(crate) fn timestamp(millis: i64) -> Result<Timestamp, DecodeError> {
    match millis {
        0.. if millis <= TIMESTAMP_MAX.as_millis() => Ok(Timestamp::from_millis(millis)),
        _ => Err(DecodeError::invalid("`timestamp` must lie between the years 1970 and 9998")),
    }
}

/// Checks how long ago to start from.
pub(crate) fn ago(ago: Duration) -> Result<Duration, DecodeError> {
    if ago > AGO_MAX {
        return Err(DecodeError::invalid("`ago` must be at most 36500d: use \"earliest\""));
    }
    Ok(ago)
}

/// Checks the id of a topic.
pub(crate) fn topic_id(text: &str) -> Result<TopicId, DecodeError> {
    TopicId::from_client(text).ok_or_else(|| {
        DecodeError::invalid(
            "`topic_id` must be the 32 hexadecimal digits that `subscribed` brought",
        )
    })
}

/// Checks how many records may be unacknowledged.
pub(crate) fn window(raw: u64) -> Result<NonZeroU32, DecodeError> {
    u32::try_from(raw)
        .ok()
        .filter(|records| *records <= WINDOW_RECORDS_MAX)
        .and_then(NonZeroU32::new)
        .ok_or_else(|| {
            DecodeError::invalid(format!("`window` must lie between 1 and {WINDOW_RECORDS_MAX}"))
        })
}

/// Adds one position to `positions`, which it checks.
pub(crate) fn add_position(
    positions: &mut Positions,
    partition: Option<u32>,
    offset: u64,
) -> Result<(), DecodeError> {
    add("positions", positions, partition, |partition| {
        Offset::from_client(offset).ok_or_else(|| {
            DecodeError::invalid(format!("the position of partition {partition} is above 2^63 - 1"))
        })
    })
}

/// Checks a leader epoch and the offset up to which its log was read.
pub(crate) fn reached(epoch: u64, to: u64) -> Result<Reached, DecodeError> {
    let epoch = LeaderEpoch::from_client(epoch)
        .ok_or_else(|| DecodeError::invalid("a leader epoch is above 2^31 - 1"))?;
    let to = Offset::from_client(to)
        .ok_or_else(|| DecodeError::invalid("the offset of a leader epoch is above 2^63 - 1"))?;
    Ok(Reached { epoch, to })
}

/// Adds the leader epoch of one position to `epochs`, which it checks.
pub(crate) fn add_epoch(
    epochs: &mut Epochs,
    partition: Option<u32>,
    epoch: u64,
    to: u64,
) -> Result<(), DecodeError> {
    add("epochs", epochs, partition, |_| reached(epoch, to))
}

/// Adds what a field named `name` says of one partition to the rest of it, checked.
fn add<T>(
    name: &str,
    known: &mut BTreeMap<PartitionId, T>,
    partition: Option<u32>,
    value: impl FnOnce(PartitionId) -> Result<T, DecodeError>,
) -> Result<(), DecodeError> {
    if known.len() == PARTITIONS_MAX {
        return Err(DecodeError::limit(format!(
            "`{name}` names more than {PARTITIONS_MAX} partitions"
        )));
    }
    let partition = partition.and_then(PartitionId::from_client).ok_or_else(|| {
        DecodeError::invalid(format!(
            "a name in `{name}` is not the decimal number of a partition, such as \"0\""
        ))
    })?;
    match known.insert(partition, value(partition)?) {
        None => Ok(()),
        Some(_) => Err(DecodeError::bad_frame(format!(
            "`{name}` names partition {partition} more than once"
        ))),
    }
}

/// Checks that each leader epoch belongs to a position.
pub(crate) fn check_epochs(positions: &Positions, epochs: &Epochs) -> Result<(), DecodeError> {
    match epochs.keys().find(|partition| !positions.contains_key(partition)) {
        None => Ok(()),
        Some(partition) => Err(DecodeError::invalid(format!(
            "`epochs` names partition {partition}, of which `positions` says nothing"
        ))),
    }
}
