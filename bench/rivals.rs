//! Two tenants return at once, one with ten times the clients of the other: how long
//! the small one waits, beside how long it does when it returns alone. Each has a topic
//! of its own, so that nothing which is read for one serves the other.

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
    /// From the first connection of the storm to the last `live` of this tenant.
    last: Duration,
}

/// Measures, and prints the table.
///
/// # Errors
///
/// When a client misses a record, or a range does not join.
pub fn measure(plan: &Plan, cluster: &Cluster) -> Result<()> {
    let all = plan.storm_clients.min(machine::connections_max());
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

/// Lets these tenants return to a server that has nothing in memory.
fn storm(plan: &Plan, cluster: &Cluster, rivals: &[Rival], how: &str) -> Result<Vec<Waits>> {
    let server = Server::start_for(plan, cluster, Clients::OfTenants, "connections_max = 20000")?;
    machine::yield_to_others()?;
    let mut rng = fastrand::Rng::with_seed(11);
    let mut fleet = Fleet::new()?;
    let (mut whose, mut expected) = (Vec::new(), Vec::new());
    let mut clients: Vec<usize> =
        rivals.iter().enumerate().flat_map(|(index, rival)| vec![index; rival.clients]).collect();
    rng.shuffle(&mut clients);
    let tokens: Vec<String> = rivals.iter().map(|rival| token(rival.tenant)).collect();
    let ends = rivals.iter().zip(&tokens);
    let ends = ends.map(|(rival, token)| Ends::ask(server.address, rival.topic, Some(token)));
    let ends = ends.collect::<Result<Vec<_>>>()?;
    say(&format!("two tenants: {} clients return", clients.len()));
    let begin = Instant::now();
    for index in clients {
        let place = ends[index].place(&mut rng, plan.storm_behind);
        let authenticate = format!("{{\"type\":\"authenticate\",\"token\":\"{}\"}}", tokens[index]);
        let subscribe = ends[index].resume(rivals[index].topic, &place)?;
        expected.push(ends[index].behind(&place));
        whose.push(index);
        fleet.open(server.address, vec![authenticate, subscribe], place)?;
        fleet.run_for(Duration::ZERO)?;
    }
    let live = whose.len() as u64;
    fleet.run_until("all to be live", |counts| counts.live >= live)?;
    ensure!(fleet.has_each(&expected), "a client is live and has not got all");
    let of = |(index, rival): (usize, &Rival)| {
        let mine = || fleet.returns().zip(&whose).filter(move |(_, of)| **of == index);
        let mut waits: Vec<_> = mine().map(|(back, _)| back.live - back.opened).collect();
        waits.sort_unstable();
        let last = mine().map(|(back, _)| back.live - begin).max().unwrap_or_default();
        let title = format!("{}, {} clients{how}", rival.tenant, rival.clients);
        Waits { title, waits, last }
    };
    Ok(rivals.iter().enumerate().map(of).collect())
}

fn report(alone: &Waits, beside: &[Waits]) {
    table(
        "Two tenants return at once: from a client's connection until it is live, ms",
        &["", "median", "p99", "last", "the tenant is whole after, ms"],
    );
    let at = |waits: &Waits, share| quantile(&waits.waits, share);
    for waits in std::iter::once(alone).chain(beside) {
        row(&[
            waits.title.clone(),
            millis(at(waits, 0.5)),
            millis(at(waits, 0.99)),
            millis(at(waits, 1.0)),
            millis(waits.last),
        ]);
    }
    let ratio =
        |share| figure(at(&beside[0], share).as_secs_f64() / at(alone, share).as_secs_f64());
    let name = "small, beside the other ÷ alone".to_owned();
    row(&[name, ratio(0.5), ratio(0.99), ratio(1.0), String::new()]);
    println!(
        "\nEach tenant has a topic of its own with as many records; the server has nothing of either in memory. \
         To be fair is that the small tenant's clients take at most twice what they take alone: half of \
         the turns are its own. Every range of every client joined.\n"
    );
}
