//! Tests against real parts: sockets, librdkafka's mock cluster, Apache Kafka.

#[path = "../support/mod.rs"]
mod support;

mod admin_interface;
mod cli;
mod doctor;
mod drain;
mod explain;
mod kafka_epochs;
mod kafka_faults;
mod kafka_fetch_errors;
mod kafka_harness;
mod kafka_mock;
mod kafka_reads;
mod positions;
mod prometheus;
mod quotas;
mod reload;
mod server_admin;
mod server_delivery;
mod server_handshake;
mod server_proxies;
mod server_secrets;
mod server_tls;
mod storms;
mod tail;
mod traps;
mod truth_deleted;
mod truth_exemplars;
mod truth_gaps;
mod truth_leaderless;
mod truth_pause;
mod truth_positions;
mod truth_quiet;
mod truth_resume;
mod truth_revocations;
mod truth_secrets;
mod truth_slow;
mod truth_starts;
mod truth_tenants;
mod truth_traces;
