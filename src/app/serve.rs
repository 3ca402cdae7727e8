//! `brucke serve`: builds the parts, starts them in order, and ends them in
//! order.
//!
//! Start: log, Kafka threads, workers and clients' listener, admin listener;
//! then the addresses are printed. End, on SIGTERM or SIGINT: say that we are
//! not ready, wait the drain delay, let nobody in any more, send everybody away
//! over the drain window, stop. A second signal ends it at once. Meanwhile, on
//! SIGHUP and when its files change, the configuration is loaded anew.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::RwLock;
use std::time::Duration;

use anyhow::Context;
use tokio::select;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;
use tokio::time::sleep;

use crate::admin::access::Access;
use crate::admin::config::AdminConfig;
use crate::admin::health::Health;
use crate::admin::listener::AdminListener;
use crate::app::config_command;
use crate::app::health::Phase;
use crate::app::health::ReplicaHealth;
use crate::app::operator::Desk;
use crate::app::reload;
use crate::app::reload::DrainTimes;
use crate::app::reload::ReloadSignal;
use crate::app::reload::Reloader;
use crate::app::reload::Reloads;
use crate::app::reload::Targets;
use crate::app::revocations;
use crate::app::topics;
use crate::config::Config;
use crate::config::values::Secret;
use crate::delivery::shard::Shard;
use crate::kafka::control;
use crate::kafka::control::KafkaHandle;
use crate::kafka::journal::Journal;
use crate::kafka::journal::JournalStatus;
use crate::log::budget::Budget;
use crate::registry::directory::Directory;
use crate::registry::intake::Intake;
use crate::registry::intake::IntakeSettings;
use crate::registry::labels::Labels;
use crate::registry::message::Command;
use crate::server::config::ServerConfig;
use crate::server::listener::Drained;
use crate::server::listener::Listener;
use crate::server::listener::WorkerParts;
use crate::server::settings::ServerSettings;
use crate::server::system;
use crate::server::token::Verifier;
use crate::telemetry::events::DrainEnded;
use crate::telemetry::events::DrainStarted;
use crate::telemetry::events::FewDescriptors;
use crate::telemetry::events::Panicked;
use crate::telemetry::events::RestartNeeded;
use crate::telemetry::events::Serving;
use crate::telemetry::events::config_loaded;
use crate::telemetry::events::connections_limited;
use crate::telemetry::log;
use crate::telemetry::recorder::Recorder;
use crate::telemetry::traces::pipeline::Tracing;
use crate::telemetry::traces::settings::TracingSettings;
use crate::tenancy::verify::Verify;
use crate::types::ids::ShardId;

/// Where a running server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub clients: SocketAddr,
    pub admin: SocketAddr,
}

/// A wish that the server ends: the first one drains it, the second hurries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndSignal;

/// Runs the server of the configuration at `path` until a signal ends it.
///
/// # Errors
///
/// What keeps the server from starting, in one sentence.
pub fn run(path: Option<&Path>) -> anyhow::Result<ExitCode> {
    let config = config_command::load(path)?;
    let tracing = start_tracing(&config)?;
    log::install(&config.log, &tracing)?;
    abort_on_panic();
    ask_for_descriptors(&config.server);
    system::block_on(async {
        let (end, ended) = mpsc::channel(END_SIGNALS);
        let (reload, reloads) = mpsc::channel(RELOAD_SIGNALS);
        forward_signals(end, reload).context("signals can't be handled")?;
        let reloads = Reloads::new(path, reloads);
        let (ready, addresses) = oneshot::channel();
        spawn_local(async move {
            if let Ok(Addresses { clients, admin }) = addresses.await {
                // Nobody may read the output; the log has it as well.
                let _ = writeln!(
                    io::stdout(),
                    "brucke serves clients at ws://{clients}/v1/ws, operators at http://{admin}"
                );
            }
        });
        serve(config, tracing, Some(reloads), ended, ready).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Serves until told to end; says through `ready` where. The configuration stays
/// as it is where there are no `reloads`. To be called within
/// [`system::block_on`].
///
/// # Errors
///
/// What keeps the server from starting, in one sentence.
pub async fn serve(
    config: Config,
    tracing: Tracing,
    reloads: Option<Reloads>,
    mut ended: mpsc::Receiver<EndSignal>,
    ready: oneshot::Sender<Addresses>,
) -> anyhow::Result<()> {
    let (delay, window) = (config.server.drain_delay, config.server.drain_window);
    let drain = Rc::new(Cell::new(DrainTimes { delay, window }));
    let parts = Parts::start(config.clone(), &tracing)?;
    let Parts { kafka, journal, health, verifier, mut clients, admin } = parts;
    let addresses = Addresses { clients: clients.address(), admin: admin.address() };
    health.enter(Phase::Serving);
    let workers = clients.workers();
    Serving { clients: addresses.clients, admin: addresses.admin, workers }.emit();
    // Whoever does not want to know has dropped the other end.
    let _ = ready.send(addresses);
    let upkeep = spawn_local(fold_metrics(health.recorder.clone()));
    let watch = spawn_local(topics::watch(Arc::clone(&health.directory)));
    let reloader = reloads.map(|reloads| {
        let (workers, health) = (clients.inquiries().clone(), Arc::clone(&health));
        let (drain, certificate) = (Rc::clone(&drain), clients.tls().cloned());
        let targets = Targets { verifier, workers, health, drain, certificate };
        spawn_local(Reloader::new(reloads, targets, config).run())
    });

    ended.recv().await;
    if let Some(reloader) = reloader {
        reloader.abort();
    }
    health.enter(Phase::Draining);
    let DrainTimes { delay, window } = drain.get();
    DrainStarted { delay, window }.emit();
    let drain = async {
        sleep(delay).await;
        clients.drain(window).await
    };
    let (outcome, cut) = select! {
        drained = drain => match drained {
            Drained::All => ("all left", 0),
            Drained::Some { sockets } => ("time was up", sockets),
        },
        Some(EndSignal) = ended.recv() => ("hurried", clients.pulses().sockets()),
    };
    DrainEnded { outcome, cut }.emit();
    clients.stop().await;
    admin.stop().await;
    upkeep.abort();
    watch.abort();
    tracing.end();
    drop(journal);
    drop(kafka);
    Ok(())
}

/// What runs.
struct Parts {
    kafka: KafkaHandle,
    journal: Option<Journal>,
    health: Arc<ReplicaHealth>,
    verifier: Arc<Verifier>,
    clients: Listener,
    admin: AdminListener,
}

impl Parts {
    fn start(config: Config, tracing: &Tracing) -> anyhow::Result<Self> {
        let Config {
            server,
            tls,
            admin,
            admin_token,
            revocations_topic,
            mut kafka,
            intake,
            auth,
            channels,
            quotas,
            metrics,
            log: _,
            tracing: _,
            reload: _,
            fingerprints: _,
        } = config;
        kafka.sampler = tracing.sampler();
        kafka.cluster_name = tracing.cluster_name();
        let recorder = Recorder::of_process();
        let channels = Arc::new(channels);
        let verifier = Verifier::new(auth, channels.claims());
        let server_settings = ServerSettings::new(&server, verifier.anonymous()).with_tls(tls);
        let workers = server_settings.workers;
        let verifier = Arc::new(verifier);
        let tenants = Labels::new(metrics.tenants_max as usize);
        let directory = Directory::new(workers.get())
            .with_labels(tenants, Labels::new(metrics.channels_max as usize))
            .with_quotas(quotas);
        let directory = Arc::new(directory);
        let budget = Budget::new(intake.tail_bytes_max, intake.history_bytes_max);
        let intake_settings = IntakeSettings {
            refresh_interval: intake.refresh_interval,
            linger: intake.linger,
            retry_interval: intake.retry_interval,
            history_readers: kafka.history_readers,
            watched: reload::watched(&channels).into_iter().collect(),
        };
        let intake = Intake::new(intake_settings, Arc::clone(&directory), Arc::clone(&budget));
        let (command_sender, commands) = crossbeam_channel::bounded::<Command>(COMMANDS_MAX);
        let peeked = kafka.clone();
        let kafka = control::start(&kafka, intake, Arc::clone(&directory), commands)
            .context("the Kafka side can't be started")?;
        let health = Arc::new(ReplicaHealth {
            directory: Arc::clone(&directory),
            kafka: Arc::clone(kafka.status()),
            budget,
            recorder,
            channels: RwLock::new(Arc::clone(&channels)),
            awaited: reload::watched(&channels),
            commands: command_sender.clone(),
            partitions_max: metrics.partitions_max as usize,
            pulses: OnceLock::new(),
            revocations: Arc::clone(verifier.revocations()),
            journal: revocations_topic.map(|topic| Arc::new(JournalStatus::new(topic))),
            phase: Mutex::new(Phase::Starting),
        });
        let shard = {
            let settings = server.delivery(usize::from(workers.get()));
            let (directory, verifier) = (Arc::clone(&directory), Arc::clone(&verifier));
            let (seed, traces) = (fastrand::u64(..), tracing.shard());
            move |id: ShardId| {
                let (directory, channels) = (Arc::clone(&directory), Arc::clone(&channels));
                let seed = seed.wrapping_add(u64::from(id.raw()));
                let settings = settings.clone();
                let shard = Shard::new(id, settings, directory, channels, verifier.clone(), seed);
                match &traces {
                    Some(traces) => shard.with_traces(traces.clone()),
                    None => shard,
                }
            }
        };
        let worker_parts = WorkerParts {
            directory,
            verifier: Arc::clone(&verifier) as Arc<dyn Verify>,
            commands: command_sender,
            spans: tracing.queue(),
            shard: Arc::new(shard),
        };
        let clients = Listener::start(&server_settings, &worker_parts).with_context(|| {
            format!("can't listen for clients at {} (`server.listen`)", server.listen)
        })?;
        // Set here and nowhere else.
        let _ = health.pulses.set(clients.pulses().clone());
        let asked: Arc<dyn Health> = Arc::clone(&health) as Arc<dyn Health>;
        let (workers, health_of) = (clients.inquiries().clone(), Arc::clone(&health));
        let journal = revocations::listen(&peeked, &health, &workers)?;
        let desk = Arc::new(Desk::new(workers, health_of, Arc::clone(&verifier), peeked));
        let access = access(&admin, admin_token);
        let admin = AdminListener::start(admin.listen, asked, desk, access).with_context(|| {
            format!("can't listen for operators at {} (`admin.listen`)", admin.listen)
        })?;
        config_loaded();
        connections_limited(server.connections_max);
        RestartNeeded { keys: &BTreeSet::new() }.emit();
        Ok(Self { kafka, journal, health, verifier, clients, admin })
    }
}

/// Asks the system for a descriptor for each connection that there may be.
pub(in crate::app) fn ask_for_descriptors(config: &ServerConfig) {
    let connections_max = u64::from(config.connections_max);
    if let Some(limit) = system::raise_descriptor_limit()
        && limit < connections_max
    {
        FewDescriptors { limit, connections_max }.emit();
    }
}

/// Says who may use the admin interface.
fn access(admin: &AdminConfig, token: Option<Secret>) -> Access {
    match token {
        Some(token) => Access::Token(token.expose().into()),
        None if admin.listen.ip().is_loopback() => Access::Loopback,
        None => Access::Nobody,
    }
}

/// Starts to send traces, where the configuration or the environment says so.
///
/// # Errors
///
/// What keeps them from being sent, in one sentence.
pub fn start_tracing(config: &Config) -> anyhow::Result<Tracing> {
    let variable = |name: &str| std::env::var(name).ok();
    Ok(match TracingSettings::resolve(&config.tracing, variable)? {
        Some(settings) => Tracing::start(settings)?,
        None => Tracing::off(),
    })
}

/// Folds what was measured, for as long as the server runs.
async fn fold_metrics(recorder: Recorder) {
    let mut ticks = interval(FOLD_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        recorder.fold();
    }
}

fn forward_signals(
    end: mpsc::Sender<EndSignal>,
    reload: mpsc::Sender<ReloadSignal>,
) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    spawn_local(async move {
        while hangup.recv().await.is_some() {
            // One that waits will see all that is there by then.
            let _ = reload.try_send(ReloadSignal);
        }
    });
    spawn_local(async move {
        loop {
            select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // More than two signals say no more than two.
            let _ = end.try_send(EndSignal);
        }
    });
    Ok(())
}

/// Ends the process when any thread panics.
///
/// A panic is an invariant of ours that broke. A shard that was left in the
/// middle of a step holds the cursors of all connections of its thread, and
/// tokio would let their tasks go on: they might skip a record or stand still
/// for ever. Clients resume at any replica without a loss, so ending is safe and
/// going on is not.
fn abort_on_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        Panicked { place: panic.location().map(ToString::to_string) }.emit();
        std::process::abort();
    }));
}

/// Wishes that shards may have waiting at the Kafka side. Where it is full, the
/// worker waits.
const COMMANDS_MAX: usize = 65_536;
/// Signals that wait to be taken.
const END_SIGNALS: usize = 2;
/// Wishes for a reload that wait to be taken.
const RELOAD_SIGNALS: usize = 1;
const FOLD_INTERVAL: Duration = Duration::from_secs(5);
