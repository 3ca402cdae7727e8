//! What the tests against real parts share.
//!
//! Each test binary compiles this anew and uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod brucke;
pub mod jaeger;
pub mod kafka_client;
pub mod kafka_cluster;
pub mod kafka_rig;
pub mod prometheus;
pub mod raw_client;
pub mod server_process;
pub mod server_rig;
pub mod tls;
pub mod traced;
pub mod watcher;
