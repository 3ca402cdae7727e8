//! Two tenants return at once, one with ten times the clients of the other: how long
//! the small one waits, beside how long it does when it returns alone. Each has a topic
//! of its own, so that nothing which is read for one serves the other.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::ensure;

use crate::fleet::Fleet;
use crate::kafka::Cluster;
use crate::machine;
use crate::plan::Plan;
use crate::report::figure;
use crate::report::millis;
use crate::report::quantile;
use crate::report::row;
use crate::report::say;
use crate::report::table;
use crate::server::Clients;
use crate::server::Server;
use crate::storm::Ends;
use crate::storm::fill;
use crate::support::server_process::token;

/// One of the two.
#[derive(Debug, Clone, Copy)]
struct Rival {
    tenant: &'static str,
    topic: &'static str,
    clients: usize,
}

/// How long the clients of one tenant took from their connection to `live`, sorted.
#[derive(Debug)]
struct Waits {
    title: String,
    waits: Vec<Duration>,
    /// How long until they were subscribed, sorted.
    starts: Vec<Duration>,
    /// From the first connection of the storm to the last `live` of this tenant.
    last: Duration,
}

/// Measures, and prints the table.
///
/// # Errors
///
/// When a client misses a record, or a range does not join.
pub fn measure(plan: &Plan, cluster: &Cluster) -> Result<()> {
    let all = machine::connections(plan.storm_clients)?;
    let small = Rival { tenant: "small", topic: "storm-small", clients: (all / 11).max(1) };
    let big = Rival { tenant: "big", topic: "storm-big", clients: small.clients * 10 };
    for rival in [small, big] {
        fill(plan, cluster, rival.topic)?;
    }
    let alone = storm(plan, cluster, &[small], " alone")?;
    let beside = storm(plan, cluster, &[small, big], " beside the other")?;
    report(&alone[0], &beside);
    Ok(())
}

/// Lets these tenants return to a server that has nothing in memory, each with a
/// thread of its own: what one reads keeps the other from nothing at this end.
fn storm(plan: &Plan, cluster: &Cluster, rivals: &[Rival], how: &str) -> Result<Vec<Waits>> {
    let server = Server::start_for(plan, cluster, Clients::OfTenants, "connections_max = 20000")?;
    let ends = rivals.iter().map(|rival| {
        let token = token(rival.tenant);
        Ok((Ends::ask(server.address, rival.topic, Some(&token))?, token))
    });
    let ends = ends.collect::<Result<Vec<_>>>()?;
    let clients: usize = rivals.iter().map(|rival| rival.clients).sum();
    say(&format!("two tenants: {clients} clients return"));
    let begin = Instant::now();
    thread::scope(|scope| {
        let address = server.address;
        let begun: Vec<_> = rivals
            .iter()
            .zip(&ends)
            .map(|(rival, (ends, token))| {
                scope.spawn(move || rival.come_back(plan, address, ends, token, begin))
            })
            .collect();
        let ended = begun.into_iter().zip(rivals).map(|(returning, rival)| {
            let title = format!("{}, {} clients{how}", rival.tenant, rival.clients);
            let (waits, starts, last) = returning.join().expect("clients do not panic")?;
            Ok(Waits { title, waits, starts, last })
        });
        ended.collect()
    })
}

impl Rival {
    /// Returns how long each client took, sorted, and until it was subscribed, and when
    /// the last was live.
    fn come_back(
        self,
        plan: &Plan,
        address: SocketAddr,
        ends: &Ends,
        token: &str,
        begin: Instant,
    ) -> Result<(Vec<Duration>, Vec<Duration>, Duration)> {
        machine::yield_to_others()?;
        let mut rng = fastrand::Rng::with_seed(11);
        let mut fleet = Fleet::new()?;
        let mut expected = Vec::new();
        for _ in 0..self.clients {
            let place = ends.place(&mut rng, plan.storm_behind);
            let authenticate = format!("{{\"type\":\"authenticate\",\"token\":\"{token}\"}}");
            let subscribe = ends.resume(self.topic, &place)?;
            expected.push(ends.behind(&place));
            fleet.open(address, vec![authenticate, subscribe], place)?;
            fleet.run_for(Duration::ZERO)?;
        }
        let live = self.clients as u64;
        fleet.run_until("all to be live", |counts| counts.live >= live)?;
        ensure!(fleet.has_each(&expected), "a client is live and has not got all");
        let mut waits: Vec<_> = fleet.returns().map(|back| back.live - back.opened).collect();
        let mut starts: Vec<_> =
            fleet.returns().map(|back| back.subscribed - back.opened).collect();
        waits.sort_unstable();
        starts.sort_unstable();
        let last = fleet.returns().map(|back| back.live - begin).max().unwrap_or_default();
        Ok((waits, starts, last))
    }
}

fn report(alone: &Waits, beside: &[Waits]) {
    table(
        "Two tenants return at once: from a client's connection until it is live, ms",
        &["", "subscribed, median", "median", "p99", "last", "the tenant is whole after, ms"],
    );
    let at = |waits: &Waits, share| quantile(&waits.waits, share);
    for waits in std::iter::once(alone).chain(beside) {
        row(&[
            waits.title.clone(),
            millis(quantile(&waits.starts, 0.5)),
            millis(at(waits, 0.5)),
            millis(at(waits, 0.99)),
            millis(at(waits, 1.0)),
            millis(waits.last),
        ]);
    }
    let ratio =
        |share| figure(at(&beside[0], share).as_secs_f64() / at(alone, share).as_secs_f64());
    let name = "small, beside the other ÷ alone".to_owned();
    row(&[name, String::new(), ratio(0.5), ratio(0.99), ratio(1.0), String::new()]);
    println!(
        "\nEach tenant has a topic of its own with as many records; the server has nothing of either in memory. \
         Half of the \
         turns are the small tenant's own, so that about twice what it takes alone is fair; handshakes come in \
         the order of connections, for before its token nobody knows whose a client is. Every range of every client joined.\n"
    );
}
