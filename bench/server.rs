//! `brucke serve`, as it is measured.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::ensure;
use brucke::app::serve;
use brucke::config;
use brucke::kafka::config::ClusterKind;
use brucke::telemetry::log;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::kafka::Cluster;
use crate::machine::Core;
use crate::plan::ClusterChoice;
use crate::plan::Plan;
use crate::process::Process;
use crate::support::server_process::AUDIENCE;
use crate::support::server_process::ISSUER;
use crate::support::server_process::SECRET;

/// A server with one worker that takes clients.
#[derive(Debug)]
pub struct Server {
    pub process: Process,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    /// Holds the configuration.
    _folder: TempDir,
}

impl Server {
    /// Starts a server; `settings` are lines of its `[server]` section. It keeps
    /// little of what it has read, so that its memory is its connections'.
    ///
    /// # Errors
    ///
    /// When it does not take clients in time.
    pub fn start(plan: &Plan, cluster: &Cluster, settings: &str) -> Result<Self> {
        Self::start_for(plan, cluster, Clients::Anybody, settings)
    }

    /// Starts a server as [`Server::start`] does, that keeps so much of what it has
    /// read.
    ///
    /// # Errors
    ///
    /// When it does not take clients in time.
    pub fn start_keeping(plan: &Plan, cluster: &Cluster, tail: &str) -> Result<Self> {
        Self::start_as(plan, cluster, Clients::Anybody, tail, "")
    }

    /// Starts a server as [`Server::start`] does, for these clients.
    ///
    /// # Errors
    ///
    /// When it does not take clients in time.
    pub fn start_for(
        plan: &Plan,
        cluster: &Cluster,
        clients: Clients,
        settings: &str,
    ) -> Result<Self> {
        Self::start_as(plan, cluster, clients, LITTLE, settings)
    }

    fn start_as(
        plan: &Plan,
        cluster: &Cluster,
        clients: Clients,
        tail: &str,
        settings: &str,
    ) -> Result<Self> {
        let (listener, admin) = (free_listener()?, free_listener()?);
        let (address, admin_address) = (listener.local_addr()?, admin.local_addr()?);
        drop((listener, admin));
        let folder = tempfile::Builder::new().prefix("brucke-bench-").tempdir()?;
        let file = folder.path().join("brucke.toml");
        fs::write(&file, configuration(address, admin_address, cluster, clients, tail, settings))?;
        let mut command = match cluster.choice {
            ClusterChoice::Apache => {
                let mut command = Command::new(&plan.brucke);
                command.arg("serve").arg("--config").arg(&file);
                command
            }
            ClusterChoice::Embedded => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("serve").arg(&file);
                command
            }
        };
        command.stdout(Stdio::null());
        let mut process = Process::start(command, Core::Server)?;
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            ensure!(process.is_running(), "brucke has ended; it says why above");
            ensure!(Instant::now() < deadline, "brucke takes no clients on {address}");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { process, address, admin: admin_address, _folder: folder })
    }

    /// Returns what `/metrics` says of one metric.
    ///
    /// # Errors
    ///
    /// When it says nothing.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.map_or(0, |value| value.trim().parse::<f64>().unwrap_or(0.0) as u64))
    }
}

/// Who clients are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// All of one tenant, without tokens.
    Anybody,
    /// Whoever their token says; tokens are those of `support::server_process`.
    OfTenants,
}

impl Clients {
    /// Returns what the configuration says of them.
    fn section(self) -> String {
        match self {
            Self::Anybody => "[auth]\nmode = \"none\"\ntenant = \"bench\"\n".to_owned(),
            Self::OfTenants => format!(
                "[[auth.issuers]]\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\n\
                 algorithm = \"HS256\"\nsecret = \"{SECRET}\"\n"
            ),
        }
    }
}

/// Is `brucke serve`, but for the configuration: that can't name a mock cluster,
/// which has no topic ids.
///
/// # Errors
///
/// When it does not start.
pub fn run_embedded(file: &Path) -> Result<()> {
    let mut config = config::load(Some(file), std::env::vars())?;
    config.kafka.cluster = ClusterKind::Mock;
    let tracing = serve::start_tracing(&config)?;
    log::install(&config.log, &tracing)?;
    actix_web::rt::System::new().block_on(async {
        let (_end, ended) = mpsc::channel(1);
        let (ready, _addresses) = oneshot::channel();
        serve::serve(config, tracing, None, ended, ready).await
    })
}

fn configuration(
    address: SocketAddr,
    admin: SocketAddr,
    cluster: &Cluster,
    clients: Clients,
    tail: &str,
    settings: &str,
) -> String {
    let properties = cluster.properties().iter();
    let properties: Vec<_> =
        properties.map(|(name, value)| format!("\"{name}\" = \"{value}\"")).collect();
    let mut text = format!(
        "[server]\nlisten = \"{address}\"\nworkers = 1\n{settings}\n\
         [admin]\nlisten = \"{admin}\"\n\
         [kafka]\nbootstrap_servers = [\"{}\"]\nproperties = {{ {} }}\n\
         tail_bytes_max = \"{tail}\"\n\
         {}[log]\nlevel = \"warn\"\n",
        cluster.servers,
        properties.join(", "),
        clients.section(),
    );
    for topic in &cluster.topics {
        let channel = format!("name = \"{topic}\"\ntopic = \"{topic}\"\ntenant = \"shared\"\n");
        write!(text, "[[channels]]\n{channel}").expect("a string grows");
    }
    text
}

/// Returns a listener on a free port; dropped, it leaves the port free.
fn free_listener() -> Result<TcpListener> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)
}

/// So little is kept of what was read that memory is that of connections.
const LITTLE: &str = "4MiB";
const START_TIMEOUT: Duration = Duration::from_secs(20);
