//! `brucke demo`: everything on one machine, to be looked at in a browser.
//!
//! ```text
//!  world ──► generator ──► embedded Kafka ──► two replicas ──► wire ──► page
//!  (made up)             (librdkafka's mock)  (brucke serve)
//! ```
//!
//! Only the Kafka, its records and the tokens are stand-ins. The replicas are
//! what `brucke serve` runs, and the page is a client like any other, through
//! `clients/browser/brucke.js`. `front` serves the page and carries its
//! connections over a `wire` that can be cut.

pub mod front;
pub mod generator;
pub mod http;
pub mod page;
pub mod replica;
pub mod settings;
pub mod wire;
pub mod world;

use std::io;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tokio::select;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::app::demo::front::Front;
use crate::app::demo::generator::Generator;
use crate::app::demo::replica::Replica;
use crate::app::demo::wire::Wires;
use crate::app::demo::world::World;
use crate::config::Config;
use crate::kafka::embedded::EmbeddedKafka;
use crate::server::key::Algorithm;
use crate::server::signing_key::SigningKey;
use crate::server::system;
use crate::telemetry::log;
use crate::telemetry::traces::pipeline::Tracing;

/// Show it on this machine: a Kafka within the process, made-up records, two
/// replicas, and a page to look at.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Port of the page, on 127.0.0.1; 0 takes any that is free.
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

/// Runs the demo until a signal ends it.
///
/// # Errors
///
/// What keeps it from starting, in one sentence.
pub fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let place = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let listener = TcpListener::bind(place).with_context(|| {
        format!("can't listen at {place}; choose another with --port, or `make demo PORT=…`")
    })?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let kafka = EmbeddedKafka::start(&world::topics()).context("no embedded Kafka")?;
    let generator = Generator::start(&kafka.config(), World::new(fastrand::u64(..)))
        .context("the embedded Kafka takes no records")?;
    let signing_key = SigningKey::generate(Algorithm::Hs256)?;
    let config = settings::replica(kafka.config(), &signing_key, port)?;
    log::install(&config.log, &Tracing::off())?;
    system::block_on(demonstrate(config, signing_key, listener))?;
    drop(generator);
    Ok(ExitCode::SUCCESS)
}

async fn demonstrate(
    config: Config,
    signing_key: SigningKey,
    listener: TcpListener,
) -> anyhow::Result<()> {
    let port = listener.local_addr()?.port();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        replicas.push(Replica::start(config.clone()).await?);
    }
    let front = Arc::new(Front {
        replicas: replicas.iter().map(Replica::address).collect(),
        restarts: replicas.iter().map(Replica::restarts).collect(),
        signing_key,
        wires: Wires::default(),
    });
    greet(port, &front.replicas, &config.kafka.bootstrap_servers.join(","));
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    select! {
        () = front::serve(front, listener) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    for replica in replicas {
        replica.stop().await;
    }
    Ok(())
}

/// Says where everything is.
fn greet(port: u16, replicas: &[SocketAddr], kafka: &str) {
    let page = format!("http://localhost:{port}");
    let urls: Vec<_> = replicas.iter().map(|replica| format!("ws://{replica}/v1/ws")).collect();
    // Nobody may read it.
    let _ = writeln!(
        io::stdout(),
        "Brücke demo: {page}\n\n\
         embedded  Kafka is librdkafka's mock, in this process, at {kafka}; its records are made up\n\
         real      two replicas of `brucke serve`: {}\n\
         on yours  brucke serve --config brucke.toml   (this file: {page}/brucke.toml)\n\
         terminal  BRUCKE_TOKEN=$(curl -s '{page}/token?tenant=acme') \\\n          \
         brucke tail orders --from earliest --url {}\n\n\
         Ctrl-C ends it.",
        urls.join(" "),
        urls[0],
    );
}

/// Replicas, which share nothing but Kafka.
const REPLICAS: usize = 2;
