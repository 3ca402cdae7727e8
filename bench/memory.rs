//! Memory and CPU of connections that are subscribed and get nothing.

use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::bail;

use crate::fleet::Fleet;
use crate::fleet::stamped_value;
use crate::fleet::subscribe_request;
use crate::kafka::Cluster;
use crate::kafka::Producer;
use crate::machine;
use crate::plan::Plan;
use crate::report::figure;
use crate::report::micros;
use crate::report::row;
use crate::report::say;
use crate::report::table;
use crate::server::Server;

/// What each connection follows.
#[derive(Debug, Clone, Copy)]
enum Follows {
    Channel,
    OwnKey,
}

/// Measures, and prints the table.
///
/// # Errors
///
/// When a connection is lost or does not get its records.
pub fn measure(plan: &Plan, cluster: &Cluster) -> Result<()> {
    table(
        "Memory and CPU of an idle connection",
        &[
            "each connection follows",
            "connections",
            "resident, KB each",
            "after a burst, KB each",
            "idle CPU, % of a core, one connection",
            "all connections",
            "µs/s each",
        ],
    );
    for follows in [Follows::Channel, Follows::OwnKey] {
        say(&format!("memory, {}", follows.name()));
        measure_one(plan, cluster, follows)?;
    }
    println!(
        "\nResident memory of the process, less that with one connection, by the number of the \
         others. The kernel's memory of the sockets is not in it. The burst: {} records to every \
         connection at once, or {} one by one to each key.\n",
        plan.burst,
        plan.burst.div_ceil(OWN_KEY_SHARE),
    );
    Ok(())
}

fn measure_one(plan: &Plan, cluster: &Cluster, follows: Follows) -> Result<()> {
    let connections = plan.connections.min(machine::connections_max());
    let server = Server::start(plan, cluster, "")?;
    let producer = cluster.producer(Duration::from_millis(1))?;
    let mut fleet = Fleet::new()?;
    fleet.subscribe(server.address, requests(follows, 0, 1))?;
    burst(plan, follows, &producer, &mut fleet, 1)?;
    let before = settled(&server, &mut fleet)?;
    let cpu_of_one = idle_cpu(&server, &mut fleet, plan.idle.min(ONE_IDLE))?;
    fleet.subscribe(server.address, requests(follows, 1, connections))?;
    let each =
        |bytes: u64| figure(bytes.saturating_sub(before) as f64 / 1024.0 / connections as f64);
    let idle = settled(&server, &mut fleet)?;
    let cpu = idle_cpu(&server, &mut fleet, plan.idle)?;
    burst(plan, follows, &producer, &mut fleet, connections + 1)?;
    let after = settled(&server, &mut fleet)?;
    row(&[
        follows.name().to_owned(),
        connections.to_string(),
        each(idle),
        each(after),
        figure(cpu_of_one / 1e4),
        figure(cpu / 1e4),
        figure((cpu - cpu_of_one) / connections as f64),
    ]);
    Ok(())
}

/// Returns the microseconds of CPU a second while nothing comes.
///
/// # Errors
///
/// When something comes.
pub fn idle_cpu(server: &Server, fleet: &mut Fleet, watched: Duration) -> Result<f64> {
    let (begin, cpu) = (Instant::now(), server.process.cpu()?);
    fleet.run_for(watched)?;
    Ok(micros(server.process.cpu()? - cpu) / begin.elapsed().as_secs_f64())
}

/// Has every connection get its records.
fn burst(
    plan: &Plan,
    follows: Follows,
    producer: &Producer,
    fleet: &mut Fleet,
    connections: usize,
) -> Result<()> {
    let (waves, records) = match follows {
        Follows::Channel => (1, plan.burst),
        Follows::OwnKey => (plan.burst.div_ceil(OWN_KEY_SHARE), 1),
    };
    let keys = match follows {
        Follows::Channel => 1,
        Follows::OwnKey => connections,
    };
    for _ in 0..waves {
        fleet.expect_each(records as u64, || {
            for key in 0..keys {
                for _ in 0..records {
                    let value = stamped_value(plan.value_bytes);
                    producer.send(follows.topic(), &key_name(key), &value)?;
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Returns the resident memory once it no longer moves.
///
/// # Errors
///
/// When it goes on moving, or something comes that must not.
pub fn settled(server: &Server, fleet: &mut Fleet) -> Result<u64> {
    let mut last = 0;
    for _ in 0..SETTLES_MAX {
        fleet.run_for(SETTLE_INTERVAL)?;
        let bytes = server.process.resident_bytes()?;
        if bytes == last {
            return Ok(bytes);
        }
        last = bytes;
    }
    bail!("the resident memory does not settle: {last} bytes")
}

fn requests(follows: Follows, from: usize, connections: usize) -> Vec<Vec<String>> {
    let request = |connection: usize| {
        let key = key_name(connection);
        let key = match follows {
            Follows::Channel => None,
            Follows::OwnKey => Some(key.as_str()),
        };
        vec![subscribe_request(1, follows.topic(), key)]
    };
    (from..from + connections).map(request).collect()
}

fn key_name(key: usize) -> String {
    format!("key-{key:06}")
}

impl Follows {
    fn name(self) -> &'static str {
        match self {
            Self::Channel => "one channel, all keys",
            Self::OwnKey => "a key of its own",
        }
    }

    fn topic(self) -> &'static str {
        match self {
            Self::Channel => "memory-shared",
            Self::OwnKey => "memory-own",
        }
    }
}

/// A burst to every key is so many times smaller than one to all.
const OWN_KEY_SHARE: usize = 10;
/// How long idle CPU with one connection is watched.
const ONE_IDLE: Duration = Duration::from_secs(3);
/// How long memory must not move.
const SETTLE_INTERVAL: Duration = Duration::from_millis(200);
const SETTLES_MAX: usize = 100;
