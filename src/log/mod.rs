//! The newest records of each partition that somebody wants, once, in memory.
//!
//! A `batch` is an immutable run of records; a `partition` holds the `tail` and
//! what was read back of `history`, and says which ranges are gone; the `budget`
//! bounds the bytes of the whole process. This room never knows who reads.

pub mod batch;
pub mod budget;
pub(in crate::log) mod history;
pub mod partition;
pub(in crate::log) mod tail;
