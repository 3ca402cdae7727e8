//! All faults. What each must come to was written down before it was run.

pub mod brokers;
pub mod clients;
pub mod corruption;
pub mod memory;
pub mod pairs;
pub mod records;
pub mod replicas;
pub mod topics;
pub mod truncation;
pub mod ways;

use crate::fault::Fault;

/// Returns every fault there is.
pub fn all() -> Vec<&'static Fault> {
    [
        brokers::FAULTS,
        ways::FAULTS,
        topics::FAULTS,
        truncation::FAULTS,
        records::FAULTS,
        corruption::FAULTS,
        replicas::FAULTS,
        memory::FAULTS,
        clients::FAULTS,
        pairs::FAULTS,
    ]
    .concat()
}
