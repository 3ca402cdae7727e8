//! CPU per delivery: everybody follows one channel, and so many records are
//! ready at once. The bare writer takes turns with the server, and writes the
//! very bytes that the server wrote last.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;

use crate::fleet::Fleet;
use crate::fleet::stamped_value;
use crate::fleet::subscribe_request;
use crate::floor::Floor;
use crate::kafka::Cluster;
use crate::kafka::Producer;
use crate::plan::Plan;
use crate::report::Series;
use crate::report::figure;
use crate::report::micros;
use crate::report::row;
use crate::report::say;
use crate::report::table;
use crate::server::Server;
use crate::socket::Security;

/// Measures, and prints the table.
///
/// # Errors
///
/// When a client does not get exactly the records that it is to get.
pub fn measure(plan: &Plan, cluster: &Cluster) -> Result<()> {
    say("fan-out");
    let clients = (plan.clients, &Security::Plain);
    let mut brucke = Brucke::start(plan, cluster, "fanout", "", clients)?;
    let mut bare = Bare::start(plan)?;
    table(
        &format!("CPU per delivery, {} clients of one channel", plan.clients),
        &[
            "records ready",
            "Brücke, µs",
            "bare writer, µs",
            "ratio",
            "deliveries/s a core",
            "frames a client and round",
            "bytes a delivery",
        ],
    );
    for &ready in &plan.ready {
        say(&format!("fan-out, {ready} ready"));
        compare(plan, &mut brucke, &mut bare, ready)?;
    }
    drop((brucke, bare));
    measure_intake(plan, cluster)
}

fn compare(plan: &Plan, brucke: &mut Brucke, bare: &mut Bare, ready: usize) -> Result<()> {
    for _ in 0..WARM_UP_ROUNDS {
        brucke.round(ready)?;
    }
    let mut sample = brucke.fleet.take_sample();
    let (mut brucke_micros, mut bare_micros) = (Series::default(), Series::default());
    let deliveries = (plan.rounds * plan.clients * ready) as f64;
    let before = brucke.fleet.counts();
    for _ in 0..plan.runs {
        let cpu = brucke.server.process.cpu()?;
        for _ in 0..plan.rounds {
            // The last round is what the bare writer repeats.
            brucke.fleet.take_sample();
            brucke.round(ready)?;
        }
        brucke_micros.push(micros(brucke.server.process.cpu()? - cpu) / deliveries);
        let last = brucke.fleet.take_sample();
        sample = if last.is_empty() { sample } else { last };
        let cpu = bare.floor.process.cpu()?;
        for _ in 0..plan.rounds {
            bare.round(ready, &sample)?;
        }
        bare_micros.push(micros(bare.floor.process.cpu()? - cpu) / deliveries);
    }
    let after = brucke.fleet.counts();
    let rounds = (plan.runs * plan.rounds * plan.clients) as f64;
    row(&[
        ready.to_string(),
        brucke_micros.to_string(),
        bare_micros.to_string(),
        figure(brucke_micros.median() / bare_micros.median()),
        figure(1e6 / brucke_micros.median()),
        figure((after.frames - before.frames) as f64 / rounds),
        figure((after.bytes - before.bytes) as f64 / (rounds * ready as f64)),
    ]);
    Ok(())
}

/// Measures what the figures above contain that does not grow with clients.
fn measure_intake(plan: &Plan, cluster: &Cluster) -> Result<()> {
    say("intake");
    let mut brucke = Brucke::start(plan, cluster, "intake", "", (1, &Security::Plain))?;
    let mut costs = Vec::new();
    for &ready in &plan.ready {
        for _ in 0..WARM_UP_ROUNDS {
            brucke.round(ready)?;
        }
        let cpu = brucke.server.process.cpu()?;
        for _ in 0..plan.rounds {
            brucke.round(ready)?;
        }
        let cpu = micros(brucke.server.process.cpu()? - cpu) / plan.rounds as f64;
        costs.push(format!("{} µs with {ready} ready", figure(cpu)));
    }
    let cpu = brucke.server.process.cpu()?;
    brucke.fleet.run_for(QUIET)?;
    let idle = micros(brucke.server.process.cpu()? - cpu) / QUIET.as_secs_f64() / 1e4;
    println!(
        "\nIn Brücke's figures: everything that its process does, that is also reading from Kafka \
         and encoding, once a round for all clients. With a single client a round costs {}; with \
         none ready the process uses {} % of a core. The bare writer is told by one socket \
         what to write to the others.\n",
        costs.join(", "),
        figure(idle),
    );
    Ok(())
}

/// The server, its clients and what feeds it.
pub struct Brucke<'a> {
    plan: &'a Plan,
    pub server: Server,
    pub fleet: Fleet,
    producer: Producer,
    topic: &'static str,
}

impl<'a> Brucke<'a> {
    /// Starts a server with these lines in its `[server]` section, and so many
    /// clients of it that speak so.
    ///
    /// # Errors
    ///
    /// When one is not let in.
    pub fn start(
        plan: &'a Plan,
        cluster: &Cluster,
        topic: &'static str,
        settings: &str,
        (clients, security): (usize, &Security),
    ) -> Result<Self> {
        let server = Server::start(plan, cluster, settings)?;
        let mut fleet = Fleet::with(security.clone())?;
        let requests = vec![vec![subscribe_request(1, topic, None)]; clients];
        fleet.subscribe(server.address, requests)?;
        let producer = cluster.producer(LINGER)?;
        Ok(Self { plan, server, fleet, producer, topic })
    }

    /// Has so many records come to every client.
    ///
    /// # Errors
    ///
    /// When a client does not get them.
    pub fn round(&mut self, ready: usize) -> Result<()> {
        let Self { plan, fleet, producer, topic, .. } = self;
        fleet.expect_each(ready as u64, || {
            for _ in 0..ready {
                producer.send(topic, "key-1", &stamped_value(plan.value_bytes))?;
            }
            Ok(())
        })
    }
}

/// The bare writer and its clients.
struct Bare {
    floor: Floor,
    fleet: Fleet,
}

impl Bare {
    fn start(plan: &Plan) -> Result<Self> {
        let floor = Floor::start(plan.clients)?;
        let mut fleet = Fleet::new()?;
        fleet.connect_bare((Ipv4Addr::LOCALHOST, floor.clients_port).into(), plan.clients)?;
        Ok(Self { floor, fleet })
    }

    /// Has `bytes`, which hold so many records, come to every client.
    fn round(&mut self, ready: usize, bytes: &[u8]) -> Result<()> {
        let Self { floor, fleet } = self;
        fleet.expect_each(ready as u64, || floor.write(bytes))
    }
}

/// Rounds before anything is measured.
const WARM_UP_ROUNDS: usize = 5;
/// How long the producer waits, so that records which are ready at once also
/// come at once.
const LINGER: Duration = Duration::from_millis(1);
/// How long the server without records is watched.
const QUIET: Duration = Duration::from_secs(2);
