//! What Brücke costs, beside a bare writer of the same bytes, in one run on one
//! machine. `make bench` runs it; `docs/performance.md` says what it shows.
//!
//! The program starts itself again for the roles that must be processes of their
//! own: the bare writer, and the embedded Kafka cluster.

// Nothing outside can reach a program of its own; `pub` speaks to its other files.
#![allow(unreachable_pub)]

mod fanout;
mod fleet;
mod floor;
mod kafka;
mod keys;
mod latency;
mod machine;
mod memory;
mod partitions;
mod plan;
mod process;
mod report;
mod rivals;
mod server;
mod slow;
mod socket;
mod storm;
#[path = "../tests/support/mod.rs"]
mod support;
mod tls;
mod tracing;

use anyhow::Result;
use clap::Parser as _;

use crate::kafka::Cluster;
use crate::plan::Arguments;
use crate::plan::Part;
use crate::plan::Plan;
use crate::plan::Role;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.role {
        Some(Role::Floor { clients }) => floor::run(*clients),
        Some(Role::Kafka { topics }) => kafka::run_embedded(topics),
        Some(Role::Serve { config }) => server::run_embedded(config),
        None => measure(&arguments.plan()),
    }
}

fn measure(plan: &Plan) -> Result<()> {
    machine::raise_descriptor_limit()?;
    machine::pin_this_thread(machine::Core::Client)?;
    let cluster = Cluster::start(plan.kafka)?;
    println!("{}\n", machine::describe());
    println!("Kafka: {}. Record values of {} bytes.\n", plan.kafka.name(), plan.value_bytes);
    for part in &plan.parts {
        match part {
            Part::Fanout => fanout::measure(plan, &cluster)?,
            Part::Memory => memory::measure(plan, &cluster)?,
            Part::Keys => keys::measure(plan, &cluster)?,
            Part::Latency => latency::measure(plan, &cluster)?,
            Part::Slow => slow::measure(plan, &cluster)?,
            Part::Storm => {
                storm::measure(plan, &cluster)?;
                rivals::measure(plan, &cluster)?;
            }
            Part::Tracing => tracing::measure(plan, &cluster)?,
            Part::Tls => tls::measure(plan, &cluster)?,
            Part::Partitions => partitions::measure(plan)?,
        }
    }
    Ok(())
}
