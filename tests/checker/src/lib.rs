//! Judges what clients got against what Kafka had.
//!
//! Producers log each record on acknowledgement, whoever runs the stage logs
//! what it did to Kafka and what Kafka's own bounds were, and each client logs
//! every frame that it got and what it handed to its application. From these
//! logs alone, and without a line of the server's code, [`judge`] says in the
//! terms of Jepsen's Kafka workload what went wrong.

pub mod findings;
pub mod follower;
pub mod judge;
pub mod line;
pub mod truth;
pub mod verdict;
