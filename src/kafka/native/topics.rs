//! Describing topics, with their ids.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ptr;
use std::ptr::NonNull;
use std::slice;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as native;

use crate::kafka::client::Client;
use crate::registry::message::TopicDescription;
use crate::types::ids::TopicId;
use crate::types::ids::TopicName;

/// What Kafka said of each topic that was asked about.
pub(in crate::kafka) type Described = BTreeMap<TopicName, Result<TopicDescription, ErrorCode>>;

/// librdkafka's and Kafka's code of an error.
pub(in crate::kafka) type ErrorCode = RDKafkaErrorCode;

/// Asks for the partitions and ids of topics, which need not exist.
///
/// # Errors
///
/// The code of what kept the whole question from being answered.
pub(in crate::kafka) fn describe(
    client: &Client,
    topics: &[TopicName],
    timeout: Duration,
) -> Result<Described, ErrorCode> {
    let names: Vec<CString> = topics
        .iter()
        .map(|topic| CString::new(topic.as_str()).map_err(|_| ErrorCode::InvalidTopic))
        .collect::<Result<_, _>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let client = client.client().native_ptr();
    // SAFETY: the client outlives this call; the names live until the request has
    // been copied by `rd_kafka_DescribeTopics`; everything that is made here is
    // owned by a guard that destroys it.
    unsafe {
        let queue = Owned::new(native::rd_kafka_queue_new(client), native::rd_kafka_queue_destroy)?;
        let collection = Owned::new(
            native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
            native::rd_kafka_TopicCollection_destroy,
        )?;
        let options = Owned::new(
            native::rd_kafka_AdminOptions_new(
                client,
                native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            ),
            native::rd_kafka_AdminOptions_destroy,
        )?;
        native::rd_kafka_AdminOptions_set_request_timeout(
            options.get(),
            timeout,
            ptr::null_mut(),
            0,
        );
        native::rd_kafka_DescribeTopics(client, collection.get(), options.get(), queue.get());
        // The request gives up by itself; the second more is for its answer.
        let event = Owned::new(
            native::rd_kafka_queue_poll(queue.get(), timeout.saturating_add(1_000)),
            native::rd_kafka_event_destroy,
        )?;
        read(event.get())
    }
}

/// Reads the answer.
///
/// # Safety
///
/// `event` is alive.
unsafe fn read(event: *mut native::rd_kafka_event_t) -> Result<Described, ErrorCode> {
    // SAFETY: the event is alive, and all that is read here lives with it.
    unsafe {
        check(rd_kafka_event_error(event))?;
        let result = native::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(ErrorCode::Fail);
        }
        let mut count = 0;
        let topics = native::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if topics.is_null() {
            return Ok(Described::new());
        }
        let topics = slice::from_raw_parts(topics, count);
        Ok(topics.iter().map(|topic| read_topic(*topic)).collect())
    }
}

/// Reads what was said of one topic.
///
/// # Safety
///
/// `topic` is alive.
unsafe fn read_topic(
    topic: *const native::rd_kafka_TopicDescription_t,
) -> (TopicName, Result<TopicDescription, ErrorCode>) {
    // SAFETY: the topic is alive, and all that is read here lives with it.
    unsafe {
        let name = CStr::from_ptr(native::rd_kafka_TopicDescription_name(topic));
        let name = TopicName::new(name.to_string_lossy());
        // Of no error at all it says that there is none.
        if let Err(code) =
            check(rd_kafka_error_code(native::rd_kafka_TopicDescription_error(topic)))
        {
            return (name, Err(code));
        }
        let mut partitions = 0;
        native::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        let id = native::rd_kafka_TopicDescription_topic_id(topic);
        let topic_id = if id.is_null() {
            TopicId::UNKNOWN
        } else {
            TopicId::from_kafka(
                native::rd_kafka_Uuid_most_significant_bits(id),
                native::rd_kafka_Uuid_least_significant_bits(id),
            )
        };
        (name, Ok(TopicDescription { topic_id, partitions }))
    }
}

/// Asks a broker for what this client knows already, only to see whether one
/// answers.
///
/// # Errors
///
/// The code of what kept it from being answered.
pub(in crate::kafka) fn probe(client: &Client, timeout: Duration) -> Result<(), ErrorCode> {
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let mut metadata = ptr::null();
    // SAFETY: the client outlives the call; a null topic asks for those in use.
    // The answer is destroyed at once.
    unsafe {
        let error = rd_kafka_metadata(
            client.client().native_ptr(),
            0,
            ptr::null_mut(),
            &raw mut metadata,
            timeout,
        );
        if !metadata.is_null() {
            native::rd_kafka_metadata_destroy(metadata);
        }
        check(error)
    }
}

/// Says whether a number stands for an error, and for which. Brokers have errors that the
/// bindings have no name for.
fn check(code: i32) -> Result<(), ErrorCode> {
    match native::rd_kafka_resp_err_t::try_from(code).map(ErrorCode::from) {
        Ok(ErrorCode::NoError) => Ok(()),
        Ok(error) => Err(error),
        Err(_) => Err(ErrorCode::Unknown),
    }
}

// The bindings say that these return their enumeration, and what would come of a number
// that it lacks is undefined.
unsafe extern "C" {
    fn rd_kafka_event_error(event: *mut native::rd_kafka_event_t) -> i32;
    fn rd_kafka_error_code(error: *const native::rd_kafka_error_t) -> i32;
    fn rd_kafka_metadata(
        client: *mut native::rd_kafka_t,
        all_topics: c_int,
        only_topic: *mut native::rd_kafka_topic_t,
        metadata: *mut *const native::rd_kafka_metadata,
        timeout_ms: c_int,
    ) -> i32;
}

/// Something of librdkafka's that is destroyed with its owner.
struct Owned<T> {
    it: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// Takes what librdkafka gave; null is an error.
    fn new(it: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Self, ErrorCode> {
        let it = NonNull::new(it).ok_or(ErrorCode::OperationTimedOut)?;
        Ok(Self { it, destroy })
    }

    fn get(&self) -> *mut T {
        self.it.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it came with this way of destroying it, and nobody else has it.
        unsafe { (self.destroy)(self.it.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_a_name_is_an_error() {
        assert_eq!(check(0), Ok(()));
        assert_eq!(check(3), Err(ErrorCode::UnknownTopicOrPartition));
        assert_eq!(check(-185), Err(ErrorCode::OperationTimedOut));
        for unnamed in [109, 131, i32::MIN, i32::MAX] {
            assert_eq!(check(unnamed), Err(ErrorCode::Unknown));
        }
    }
}
