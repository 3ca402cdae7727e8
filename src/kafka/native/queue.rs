//! Reading one assigned partition from a queue of its own.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_void;
use std::ptr;
use std::ptr::NonNull;
use std::slice;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as native;
use smallvec::SmallVec;

use crate::kafka::client::Client;
use crate::types::ids::LeaderEpoch;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::Timestamp;
use crate::types::ids::TopicName;
use crate::types::positions::Reached;
use crate::types::record::RawRecord;

/// The queue of one partition, taken from the client's common one.
///
/// It must be made before the partition is assigned, else what comes first goes
/// to the common queue and is lost.
pub(in crate::kafka) struct PartitionQueue {
    queue: NonNull<native::rd_kafka_queue_t>,
    /// Boxed twice: C holds the address of the inner box.
    on_ready: Option<Box<OnReady>>,
    /// Keeps alive what the queue belongs to.
    _client: Client,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for PartitionQueue {}

type OnReady = Box<dyn Fn() + Send + Sync>;

/// What stands in a partition's queue.
pub(in crate::kafka) enum Item<'a> {
    Record(MessageRef<'a>),
    /// The partition has nothing below this offset that was not told before.
    End(Offset),
    /// The next offset wanted is not in the log.
    OutOfRange,
    /// The log was cut off at this offset and has grown beyond it since: what it
    /// has there now are other records (KIP-320).
    Truncated(Offset),
    /// The log never had the leader epoch that it was to be held against.
    UnknownEpoch,
    /// The client gave up on the partition for now.
    Failed(String),
}

impl PartitionQueue {
    /// Splits off the queue of a partition; `None` when its name or number is
    /// none that Kafka knows.
    pub(in crate::kafka) fn split(
        client: &Client,
        topic: &TopicName,
        partition: PartitionId,
    ) -> Option<Self> {
        let topic = CString::new(topic.as_str()).ok()?;
        // SAFETY: the client lives as long as `client`, the name as long as the
        // call, and a null queue stops forwarding to the common one.
        let queue = unsafe {
            let client = client.client().native_ptr();
            let queue =
                native::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition.as_kafka());
            let queue = NonNull::new(queue)?;
            native::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut());
            queue
        };
        Some(Self { queue, on_ready: None, _client: Client::clone(client) })
    }

    /// Says what to call, from a thread of librdkafka's, when the empty queue
    /// gets something. It must be brief and must not use this client.
    pub(in crate::kafka) fn on_ready(&mut self, call: impl Fn() + Send + Sync + 'static) {
        let call: Box<OnReady> = Box::new(Box::new(call));
        let opaque = ptr::from_ref::<OnReady>(&call).cast_mut().cast::<c_void>();
        // SAFETY: the box that `opaque` points to is kept in `self` until the
        // next registration or until `drop`, which ends this one first;
        // librdkafka changes and calls it under the queue's lock.
        unsafe {
            native::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), Some(ready), opaque);
        }
        self.on_ready = Some(call);
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: the queue is ours, and no call comes once the callback is
        // taken back.
        unsafe {
            native::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            native::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// Calls the closure that [`PartitionQueue::on_ready`] registered.
unsafe extern "C" fn ready(_client: *mut native::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: `opaque` is the address that `on_ready` registered, which is alive
    // while the callback is.
    let call = unsafe { &*opaque.cast::<OnReady>() };
    call();
}

/// What was taken from a queue and not looked at yet, in order.
pub(in crate::kafka) struct Fetched {
    messages: VecDeque<NonNull<native::rd_kafka_message_t>>,
    scratch: Vec<*mut native::rd_kafka_message_t>,
    /// Keeps alive what the messages point into.
    _client: Client,
}

// SAFETY: librdkafka's messages are tied to no thread, and these are ours alone.
unsafe impl Send for Fetched {}

impl Fetched {
    pub(in crate::kafka) fn new(client: &Client) -> Self {
        Self { messages: VecDeque::new(), scratch: Vec::new(), _client: Client::clone(client) }
    }

    /// Says how much there is to look at.
    pub(in crate::kafka) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Takes up to `max` messages that are in the queue now; returns how many. The
    /// queue is empty when there were fewer.
    pub(in crate::kafka) fn take(&mut self, queue: &PartitionQueue, max: usize) -> usize {
        self.scratch.clear();
        self.scratch.resize(max, ptr::null_mut());
        // SAFETY: there is room for `max` messages, and those returned are ours.
        let count = unsafe {
            native::rd_kafka_consume_batch_queue(
                queue.queue.as_ptr(),
                0,
                self.scratch.as_mut_ptr(),
                max,
            )
        };
        let count = usize::try_from(count).unwrap_or(0);
        self.messages.extend(self.scratch[..count].iter().copied().filter_map(NonNull::new));
        count
    }

    /// Waits for one message.
    pub(in crate::kafka) fn wait(&mut self, queue: &PartitionQueue, timeout: Duration) {
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue lives as long as `queue`, and the message is ours.
        let message = unsafe { native::rd_kafka_consume_queue(queue.queue.as_ptr(), timeout) };
        self.messages.extend(NonNull::new(message));
    }

    /// Returns the first, which stays.
    pub(in crate::kafka) fn front(&self) -> Option<Item<'_>> {
        let front = *self.messages.front()?;
        let code = code_of(front);
        // SAFETY: every message in the deque is ours until it is destroyed.
        let message = unsafe { front.as_ref() };
        Some(match code {
            NO_ERROR => Item::Record(MessageRef(message)),
            PARTITION_EOF => Item::End(Offset::from_kafka(message.offset).unwrap_or(Offset::ZERO)),
            AUTO_OFFSET_RESET => {
                let text = error_text(message, code);
                match diverged_at(&text) {
                    Some(end) => Item::Truncated(end),
                    None if text.starts_with(NO_EPOCH) => Item::UnknownEpoch,
                    None => Item::OutOfRange,
                }
            }
            _ => Item::Failed(error_text(message, code)),
        })
    }

    /// Removes the first.
    pub(in crate::kafka) fn discard_front(&mut self) {
        if let Some(message) = self.messages.pop_front() {
            destroy(message);
        }
    }

    /// Removes all.
    pub(in crate::kafka) fn clear(&mut self) {
        self.messages.drain(..).for_each(destroy);
    }

    /// Removes all, and all that the queue of a partition that is no longer
    /// assigned still holds.
    pub(in crate::kafka) fn drain(&mut self, queue: &PartitionQueue) {
        loop {
            self.clear();
            if self.take(queue, DRAINED_AT_ONCE) == 0 {
                return;
            }
        }
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Messages that are taken at once only to be given back.
const DRAINED_AT_ONCE: usize = 100;

/// Returns where a log parts from what was read of it, which librdkafka tells in
/// words only. `None` for another error, and where nothing of the log is known
/// to be the same.
fn diverged_at(text: &str) -> Option<Offset> {
    let (_, found) = text.split_once("log truncation detected")?;
    let (_, end) = found.split_once("broker end offset is ")?;
    let digits = end.split(|c: char| !c.is_ascii_digit()).next()?;
    Offset::from_kafka(digits.parse().ok()?)
}

/// What librdkafka says where a broker knows of no epoch that was asked for.
const NO_EPOCH: &str = "No epoch found less or equal to";

fn destroy(message: NonNull<native::rd_kafka_message_t>) {
    // SAFETY: the caller just removed the message from what it owns.
    unsafe { native::rd_kafka_message_destroy(message.as_ptr()) };
}

/// Returns the number of a message's error. Brokers have errors that the bindings have
/// no name for, and what would come of one that is looked at by name is undefined.
fn code_of(message: NonNull<native::rd_kafka_message_t>) -> i32 {
    // SAFETY: the caller owns the message, and C's enumeration is as large as an `i32`.
    unsafe { (&raw const (*message.as_ptr()).err).cast::<i32>().read() }
}

const NO_ERROR: i32 = RDKafkaErrorCode::NoError as i32;
const PARTITION_EOF: i32 = RDKafkaErrorCode::PartitionEOF as i32;
const AUTO_OFFSET_RESET: i32 = RDKafkaErrorCode::AutoOffsetReset as i32;

/// Returns the text that came with an error.
fn error_text(message: &native::rd_kafka_message_t, code: i32) -> String {
    // SAFETY: librdkafka gives either null or text that lives with the message.
    unsafe {
        let text = native::rd_kafka_message_errstr(message);
        match text.is_null() {
            true => format!("error {code}"),
            false => CStr::from_ptr(text).to_string_lossy().into_owned(),
        }
    }
}

/// A record in librdkafka's memory.
pub(in crate::kafka) struct MessageRef<'a>(&'a native::rd_kafka_message_t);

impl MessageRef<'_> {
    /// Returns the record's offset.
    pub(in crate::kafka) fn offset(&self) -> Offset {
        Offset::from_kafka(self.0.offset).expect("a record has an offset")
    }

    /// Returns in which leader's log the record stands, and all that was read before it.
    pub(in crate::kafka) fn reached(&self) -> Option<Reached> {
        // SAFETY: the message is alive and a consumer's.
        let epoch = unsafe { native::rd_kafka_message_leader_epoch(self.0) };
        let to = self.offset().next();
        LeaderEpoch::from_kafka(epoch).map(|epoch| Reached { epoch, to })
    }

    /// Calls `use_record` with the record, which lives in librdkafka's memory.
    pub(in crate::kafka) fn with_record<T>(
        &self,
        use_record: impl FnOnce(&RawRecord<'_>) -> T,
    ) -> T {
        let headers = self.headers();
        let headers: SmallVec<[_; 8]> =
            headers.iter().map(|(name, value)| (name.as_ref(), *value)).collect();
        use_record(&RawRecord {
            offset: self.offset(),
            timestamp: self.timestamp(),
            // SAFETY: pointer and length belong to the message.
            key: unsafe { bytes(self.0.key, self.0.key_len) },
            // SAFETY: likewise.
            value: unsafe { bytes(self.0.payload, self.0.len) },
            headers: &headers,
        })
    }

    fn timestamp(&self) -> Timestamp {
        let mut kind = native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive; `kind` is written.
        let millis = unsafe { native::rd_kafka_message_timestamp(self.0, &raw mut kind) };
        Timestamp::from_millis(millis)
    }

    /// Returns the headers in order. Kafka says that names are UTF-8; what is not
    /// is shown as Kafka's own clients show it.
    fn headers(&self) -> SmallVec<[OneHeader<'_>; 8]> {
        let mut found = SmallVec::new();
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive; the headers are parsed into it once and
        // live with it. Parsing is not seen from outside.
        unsafe {
            let missing = native::rd_kafka_message_headers(self.0, &raw mut headers);
            if RDKafkaErrorCode::from(missing) != RDKafkaErrorCode::NoError {
                return found;
            }
            for index in 0.. {
                let mut name: *const c_char = ptr::null();
                let mut value: *const c_void = ptr::null();
                let mut len = 0;
                let end = native::rd_kafka_header_get_all(
                    headers,
                    index,
                    &raw mut name,
                    &raw mut value,
                    &raw mut len,
                );
                if RDKafkaErrorCode::from(end) != RDKafkaErrorCode::NoError {
                    break;
                }
                found.push((CStr::from_ptr(name).to_string_lossy(), bytes(value, len)));
            }
        }
        found
    }
}

/// Name and value of a header.
type OneHeader<'a> = (Cow<'a, str>, Option<&'a [u8]>);

/// Returns the bytes at `start`; `None` for null, which is not the same as empty.
///
/// # Safety
///
/// `start` is null or begins `len` bytes that live for `'a`.
unsafe fn bytes<'a>(start: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller vouches for it.
    NonNull::new(start.cast_mut())
        .map(|start| unsafe { slice::from_raw_parts(start.as_ptr().cast::<u8>(), len) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_truncation_is_read_from_words() {
        let text = "Partition log truncation detected at offset 130 (leader epoch 4): broker end \
                    offset is 101 (offset leader epoch 3). Reset to INVALID.: Local: Partition log \
                    truncation detected (broker 2)";
        assert_eq!(diverged_at(text), Offset::from_kafka(101));
        let text = "No epoch found less or equal to offset 130 (leader epoch 9): broker end offset \
                    is -1 (offset leader epoch -1). Reset using configured policy.: Local: \
                    Partition log truncation detected (broker 2)";
        assert_eq!(diverged_at(text), None);
        assert!(text.starts_with(NO_EPOCH));
        let text = "fetch failed due to requested offset not available on the broker: Broker: \
                    Offset out of range (broker 1)";
        assert_eq!(diverged_at(text), None);
    }
}
