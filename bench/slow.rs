//! What clients that read slowly cost the others: the same load with and without
//! them, in turns.

use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use anyhow::ensure;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::fleet::Fleet;
use crate::fleet::HANDSHAKE;
use crate::fleet::client_frame;
use crate::fleet::subscribe_request;
use crate::kafka::Cluster;
use crate::latency;
use crate::plan::Plan;
use crate::report::Series;
use crate::report::figure;
use crate::report::quantile;
use crate::report::row;
use crate::report::say;
use crate::report::table;
use crate::server::Server;

/// Measures, and prints the table.
///
/// # Errors
///
/// When a record does not come, or a slow client is dropped.
pub fn measure(plan: &Plan, cluster: &Cluster) -> Result<()> {
    let (slow, fast) = (plan.slow_clients, plan.slow_beside);
    let mut p50 = [Series::default(), Series::default()];
    let mut p99 = [Series::default(), Series::default()];
    for run in 0..plan.runs {
        for (side, slow) in [0, slow].into_iter().enumerate() {
            say(&format!("slow readers, run {run}: {slow} beside {fast}"));
            let mut ages = measure_once(plan, cluster, slow)?;
            ages.sort_unstable();
            p50[side].push(quantile(&ages, 0.5).as_secs_f64() * 1e3);
            p99[side].push(quantile(&ages, 0.99).as_secs_f64() * 1e3);
        }
    }
    let title = format!(
        "Age of a record at {fast} clients, alone and beside {slow} that read 1 KB/s, {} records/s, ms",
        plan.rate
    );
    table(&title, &["", "alone", "beside slow ones", "ratio"]);
    for (name, series) in [("p50", &p50), ("p99", &p99)] {
        let ratio = figure(series[1].median() / series[0].median());
        row(&[name.to_owned(), series[0].to_string(), series[1].to_string(), ratio]);
    }
    println!("\nNo slow client was dropped.\n");
    Ok(())
}

fn measure_once(plan: &Plan, cluster: &Cluster, slow: usize) -> Result<Vec<Duration>> {
    let server = Server::start(plan, cluster, "")?;
    let mut fleet = Fleet::new()?;
    let request = || vec![subscribe_request(1, "latency", None)];
    let stop = AtomicBool::new(false);
    let ages = thread::scope(|scope| {
        let readers: Vec<_> =
            (0..slow).map(|_| scope.spawn(|| read_slowly(server.address, &stop))).collect();
        fleet.subscribe(server.address, (0..plan.slow_beside).map(|_| request()).collect())?;
        fleet.note_stamps();
        let due = (latency::records(plan) * plan.slow_beside) as u64;
        let producing = scope.spawn(|| latency::produce(plan, cluster));
        let read = fleet.run_until("records", |counts| counts.records >= due);
        stop.store(true, Relaxed);
        producing.join().expect("the producer does not panic")?;
        for reader in readers {
            reader.join().expect("a reader does not panic")?;
        }
        read?;
        Ok::<_, anyhow::Error>(fleet.take_stamps())
    })?;
    // The first second warms up.
    let warm_up = ages.len() / (plan.latency.as_secs().max(1) as usize + 1);
    Ok(ages[warm_up..].to_vec())
}

/// Follows the topic and reads 1 KB a second until told to stop.
fn read_slowly(address: SocketAddr, stop: &AtomicBool) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // As little as the system allows, so that the server feels it.
    socket.set_recv_buffer_size(4_096)?;
    socket.connect(&address.into())?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(HANDSHAKE.as_bytes())?;
    stream.write_all(&client_frame(0x81, subscribe_request(1, "latency", None).as_bytes()))?;
    let mut bytes = [0; STEP_BYTES];
    while !stop.load(Relaxed) {
        ensure!(stream.read(&mut bytes)? > 0, "the server has dropped a slow client");
        thread::sleep(STEP);
    }
    Ok(())
}

/// 1 KB a second.
const STEP_BYTES: usize = 256;
const STEP: Duration = Duration::from_millis(250);
