//! Where a subscription starts: from what a client asked and what Kafka has to
//! where each partition is read from, and what is gone.
//!
//! Pure arithmetic over positions; this room never knows who asked.

pub mod start;
