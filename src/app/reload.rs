//! Loads the configuration anew while the process runs, on SIGHUP and when its
//! files change, and puts in force what may change in a running process.
//!
//! The files are looked at by loading them: what the configuration names, and
//! whatever symbolic links lead to it, is then looked at too, and no file can be
//! forgotten. Between two looks nothing is watched.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::pending;
use std::path::Path;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::app::config_command;
use crate::app::health::ReplicaHealth;
use crate::app::serve::ask_for_descriptors;
use crate::config;
use crate::config::Config;
use crate::config::fingerprints::Fingerprints;
use crate::config::problem::ConfigErrors;
use crate::config::problem::Problem;
use crate::registry::message::Command;
use crate::server::config::ServerConfig;
use crate::server::inquiry::Workers;
use crate::server::settings::EdgeTerms;
use crate::server::settings::Terms;
use crate::server::tls::keeper::Keeper;
use crate::server::token::AuthConfig;
use crate::server::token::Verifier;
use crate::telemetry::events::ConfigApplied;
use crate::telemetry::events::ConfigRefused;
use crate::telemetry::events::ConfigUnchanged;
use crate::telemetry::events::RestartNeeded;
use crate::telemetry::events::connections_limited;
use crate::telemetry::log;
use crate::tenancy::channel::Channels;
use crate::types::ids::TopicName;

/// A wish that the configuration is loaded anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReloadSignal;

/// Where the configuration is loaded from, and who asks for it.
#[derive(Debug)]
pub struct Reloads {
    path: Option<PathBuf>,
    asked: mpsc::Receiver<ReloadSignal>,
}

impl Reloads {
    /// Loads from the file at `path`, if any, and the environment.
    pub fn new(path: Option<&Path>, asked: mpsc::Receiver<ReloadSignal>) -> Self {
        Self { path: path.map(Path::to_owned), asked }
    }
}

/// Where what is loaded anew goes.
#[derive(Debug)]
pub(in crate::app) struct Targets {
    pub(in crate::app) verifier: Arc<Verifier>,
    pub(in crate::app) workers: Workers,
    pub(in crate::app) health: Arc<ReplicaHealth>,
    pub(in crate::app) drain: Rc<Cell<DrainTimes>>,
    /// Looks after the certificate by itself, and sooner when asked.
    pub(in crate::app) certificate: Option<Keeper>,
}

/// How the process goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app) struct DrainTimes {
    pub(in crate::app) delay: Duration,
    pub(in crate::app) window: Duration,
}

/// Keeps what is in force at what the configuration says.
#[derive(Debug)]
pub(in crate::app) struct Reloader {
    reloads: Reloads,
    targets: Targets,
    /// What the process was started with: what can't change since stands here.
    started: Config,
    /// What is in force but for that.
    current: Config,
    /// What the last load came to.
    seen: Seen,
}

/// What a load came to, as far as loads differ.
type Seen = Result<Fingerprints, ConfigErrors>;

impl Reloader {
    pub(in crate::app) fn new(reloads: Reloads, targets: Targets, started: Config) -> Self {
        let (current, seen) = (started.clone(), Ok(started.fingerprints.clone()));
        Self { reloads, targets, started, current, seen }
    }

    /// Loads whenever it is asked to or sees a change, for as long as the process
    /// serves.
    pub(in crate::app) async fn run(mut self) {
        loop {
            select! {
                Some(ReloadSignal) = self.reloads.asked.recv() => {
                    if let Some(certificate) = &self.targets.certificate {
                        certificate.reload_now();
                    }
                    let loaded = self.load().await;
                    self.take(loaded).await;
                }
                () = pass(self.current.reload.watch_interval) => self.look().await,
            }
        }
    }

    /// Takes a change that stands, and not one that is being made.
    async fn look(&mut self) {
        let first = seen(&self.load().await);
        if first == self.seen {
            return;
        }
        sleep(SETTLE_TIME).await;
        let second = self.load().await;
        if seen(&second) == first {
            self.take(second).await;
        }
    }

    /// Loads without keeping anybody waiting: a file system may hang.
    async fn load(&self) -> Result<Config, ConfigErrors> {
        let path = self.reloads.path.clone();
        let load = move || config::load(path.as_deref(), config_command::environment());
        spawn_blocking(load).await.expect("a panic ends the process")
    }

    async fn take(&mut self, loaded: Result<Config, ConfigErrors>) {
        self.seen = seen(&loaded);
        match loaded {
            Ok(config) => self.apply(config).await,
            Err(ConfigErrors(problems)) => {
                let problems: Vec<String> = problems.iter().map(Problem::to_string).collect();
                ConfigRefused { problems: &problems }.emit();
            }
        }
    }

    async fn apply(&mut self, config: Config) {
        let keys = self.current.fingerprints.changes(&config.fingerprints).applied;
        if keys.is_empty() {
            ConfigUnchanged.emit();
        } else {
            let subscriptions_ended = self.put_in_force(&config).await;
            ConfigApplied { keys: &keys, subscriptions_ended }.emit();
        }
        let waiting = self.started.fingerprints.changes(&config.fingerprints).restart;
        RestartNeeded { keys: &waiting }.emit();
        self.current = config;
    }

    /// Hands out what may change; returns how many subscriptions that ended.
    async fn put_in_force(&self, config: &Config) -> usize {
        let Targets { verifier, workers, health, drain, certificate: _ } = &self.targets;
        let channels = Arc::new(config.channels.clone());
        // Before the channels: their rules may speak of claims that were not kept.
        if let (AuthConfig::Tokens(_), AuthConfig::Tokens(keys)) =
            (&self.started.auth, &config.auth)
        {
            verifier.renew(keys.clone(), channels.claims());
        }
        health.set_channels(Arc::clone(&channels));
        health.directory.quotas().set_rules(config.quotas.clone());
        let watch = Command::Watch { topics: watched(&channels).into_iter().collect() };
        // No receiver is left only when the process is about to end.
        let _ = health.commands.send(watch);
        let server = ServerConfig {
            listen: self.started.server.listen,
            workers: self.started.server.workers,
            ..config.server.clone()
        };
        if server.connections_max > self.current.server.connections_max {
            ask_for_descriptors(&server);
        }
        connections_limited(server.connections_max);
        drain.set(DrainTimes { delay: server.drain_delay, window: server.drain_window });
        if config.log.level != self.current.log.level {
            log::set_level(config.log.level);
        }
        let delivery = server.delivery(workers.count());
        workers.take_terms(&Terms { channels, delivery, edge: EdgeTerms::new(&server) }).await
    }
}

/// Returns the topics that channels name for all tenants.
pub(in crate::app) fn watched(channels: &Channels) -> BTreeSet<TopicName> {
    channels.topics().cloned().collect()
}

fn seen(loaded: &Result<Config, ConfigErrors>) -> Seen {
    loaded.as_ref().map(|config| config.fingerprints.clone()).map_err(ConfigErrors::clone)
}

/// Waits until the files are to be looked at; for ever, where that is never.
async fn pass(interval: Duration) {
    match interval {
        Duration::ZERO => pending().await,
        interval => sleep(interval).await,
    }
}

/// How long a change must stand before it counts.
const SETTLE_TIME: Duration = Duration::from_secs(1);
