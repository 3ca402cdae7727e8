//! What TLS at the process costs, beside the same without it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rustls::client::Resumption;

use crate::fanout::Brucke;
use crate::fleet::subscribe_request;
use crate::kafka::Cluster;
use crate::machine;
use crate::memory::settled;
use crate::plan::Plan;
use crate::report::Series;
use crate::report::figure;
use crate::report::micros;
use crate::report::row;
use crate::report::say;
use crate::report::table;
use crate::socket::Security;
use crate::support::tls::Files;
use crate::support::tls::client_config;
use crate::support::tls::pair;

/// Measures, and prints the tables.
///
/// # Errors
///
/// When a client does not get exactly the records that it is to get.
pub fn measure(plan: &Plan, cluster: &Cluster) -> Result<()> {
    let pair = pair();
    let files = Files::new(&pair);
    let settings = format!(
        "tls_certificate_file = \"{}\"\ntls_key_file = \"{}\"",
        files.certificate().display(),
        files.key().display()
    );
    let mut config = client_config(pair.cert.der(), &[&rustls::version::TLS13]);
    config.resumption = Resumption::disabled();
    let secure = Secured { security: Security::Tls(Arc::new(config)), settings };
    let plain = Secured { security: Security::Plain, settings: String::new() };
    compare_deliveries(plan, cluster, &plain, &secure)?;
    compare_connections(plan, cluster, [("without TLS", &plain), ("TLS 1.3", &secure)])
}

/// A way to speak to a server, and its lines in the server's configuration.
struct Secured {
    security: Security,
    settings: String,
}

fn compare_deliveries(
    plan: &Plan,
    cluster: &Cluster,
    plain: &Secured,
    secure: &Secured,
) -> Result<()> {
    say("tls, deliveries");
    let start = |topic, with: &Secured| {
        Brucke::start(plan, cluster, topic, &with.settings, (plan.clients, &with.security))
    };
    let mut sides = [start("fanout", plain)?, start("intake", secure)?];
    table(
        &format!("CPU per delivery with TLS, {} clients of one channel", plan.clients),
        &["records ready", "without TLS, µs", "TLS 1.3, µs", "ratio"],
    );
    for &ready in &plan.ready {
        let mut costs = [Series::default(), Series::default()];
        for _ in 0..WARM_UP_ROUNDS {
            sides.iter_mut().try_for_each(|side| side.round(ready))?;
        }
        for _ in 0..plan.runs {
            for (side, costs) in sides.iter_mut().zip(&mut costs) {
                let cpu = side.server.process.cpu()?;
                for _ in 0..plan.rounds {
                    side.round(ready)?;
                }
                let deliveries = (plan.rounds * plan.clients * ready) as f64;
                costs.push(micros(side.server.process.cpu()? - cpu) / deliveries);
            }
        }
        let [plain, secure] = costs;
        let ratio = secure.median() / plain.median();
        row(&[ready.to_string(), plain.to_string(), secure.to_string(), figure(ratio)]);
    }
    println!();
    Ok(())
}

fn compare_connections(plan: &Plan, cluster: &Cluster, sides: [(&str, &Secured); 2]) -> Result<()> {
    let connections = plan.connections.min(machine::connections_max());
    table(
        &format!("{connections} connections with TLS"),
        &["", "CPU to let one in, µs", "resident, KB each", "after a burst, KB each"],
    );
    for (name, with) in sides {
        say(&format!("tls, connections, {name}"));
        let (settings, security) = (&with.settings, &with.security);
        let mut side = Brucke::start(plan, cluster, "memory-shared", settings, (1, security))?;
        side.round(plan.burst)?;
        let before = settled(&side.server, &mut side.fleet)?;
        let cpu = side.server.process.cpu()?;
        let requests = vec![vec![subscribe_request(1, "memory-shared", None)]; connections];
        side.fleet.subscribe(side.server.address, requests)?;
        let cpu = micros(side.server.process.cpu()? - cpu) / connections as f64;
        let each =
            |bytes: u64| figure(bytes.saturating_sub(before) as f64 / 1024.0 / connections as f64);
        let idle = settled(&side.server, &mut side.fleet)?;
        side.round(plan.burst)?;
        side.fleet.run_for(AFTER_BURST)?;
        let after = settled(&side.server, &mut side.fleet)?;
        row(&[name.to_owned(), figure(cpu), each(idle), each(after)]);
    }
    println!(
        "\nTo let one in: TCP, TLS, the handshake, one subscription. The certificate has a P-256 key; \
         no session is resumed.\n"
    );
    Ok(())
}

/// Rounds before anything is measured.
const WARM_UP_ROUNDS: usize = 5;
/// How long buffers have to be given back.
const AFTER_BURST: Duration = Duration::from_secs(1);
