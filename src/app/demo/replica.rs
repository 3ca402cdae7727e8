//! A replica of the demo, which can be restarted as a deployment would.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::select;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::app::serve;
use crate::app::serve::EndSignal;
use crate::config::Config;
use crate::telemetry::traces::pipeline::Tracing;

/// A running replica.
#[derive(Debug)]
pub struct Replica {
    address: SocketAddr,
    restarts: mpsc::Sender<()>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Replica {
    /// Starts a replica. To be called within [`crate::server::system::block_on`].
    ///
    /// # Errors
    ///
    /// What keeps it from starting.
    pub async fn start(mut config: Config) -> anyhow::Result<Self> {
        let mut run = Run::start(&config);
        let address = match run.ready().await {
            Some(address) => address,
            None => {
                run.task.await.context("the replica panicked")??;
                anyhow::bail!("the replica ended as it started");
            }
        };
        // It comes back where it was.
        config.server.listen = address;
        let (restarts, asked) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel();
        let task = spawn_local(keep(config, run, asked, stopped));
        Ok(Self { address, restarts, stop, task })
    }

    /// Returns where its clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what restarts it; while it restarts, a wish is already granted.
    pub fn restarts(&self) -> mpsc::Sender<()> {
        self.restarts.clone()
    }

    /// Ends it in a hurry.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        // Whatever still hangs then ends with the process.
        let _ = timeout(STOP_MAX, self.task).await;
    }
}

/// Serves again and again, until told to stop.
async fn keep(
    config: Config,
    mut run: Run,
    mut asked: mpsc::Receiver<()>,
    mut stopped: oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    loop {
        select! {
            _ = &mut stopped => {
                for _ in 0..2 {
                    // It has ended already, or is told a second time.
                    let _ = run.end.try_send(EndSignal);
                }
                return run.task.await?;
            }
            Some(()) = asked.recv() => {
                let _ = run.end.try_send(EndSignal);
                run.task.await??;
                run = Run::start(&config);
            }
        }
    }
}

/// One life of a replica.
struct Run {
    end: mpsc::Sender<EndSignal>,
    ready: oneshot::Receiver<serve::Addresses>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Run {
    fn start(config: &Config) -> Self {
        let (end, ended) = mpsc::channel(2);
        let (say, ready) = oneshot::channel();
        let task = spawn_local(serve::serve(config.clone(), Tracing::off(), None, ended, say));
        Self { end, ready, task }
    }

    /// Returns where clients connect; `None` when it did not get so far.
    async fn ready(&mut self) -> Option<SocketAddr> {
        (&mut self.ready).await.ok().map(|addresses| addresses.clients)
    }
}

const STOP_MAX: Duration = Duration::from_secs(5);
