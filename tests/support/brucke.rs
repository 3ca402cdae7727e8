//! The server as a process of its own, for tests that kill it.

use std::fs;
use std::fs::File;
use std::io::BufRead as _;
use std::io::BufReader;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;
use std::time::SystemTime;

use jsonwebtoken::Algorithm;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::Header;
use jsonwebtoken::encode;
use serde_json::json;
use tempfile::TempDir;

use crate::support::kafka_cluster::free_ports;
use crate::support::kafka_cluster::spawn;

/// A replica: a configuration, two ports that stay, and mostly a process.
pub struct Brucke {
    folder: TempDir,
    port: u16,
    admin_port: u16,
    environment: Vec<(String, String)>,
    process: Option<Child>,
}

impl Brucke {
    /// Starts a replica that reads from `kafka_servers`, believes the tokens of
    /// [`mint`], and has these `[[channels]]`. `server` holds more keys of that
    /// section.
    pub fn start(kafka_servers: &str, server: &str, channels: &str) -> Self {
        Self::start_with(kafka_servers, server, "", channels)
    }

    /// Does the same with more keys of `[kafka]`.
    pub fn start_with(kafka_servers: &str, server: &str, kafka: &str, channels: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("brucke-").tempdir().expect("a folder");
        let ports = free_ports(2);
        let (port, admin_port) = (ports[0], ports[1]);
        let config = format!(
            r#"
[server]
listen = "127.0.0.1:{port}"
{server}
[admin]
listen = "127.0.0.1:{admin_port}"
[kafka]
bootstrap_servers = ["{kafka_servers}"]
{kafka}
[[auth.issuers]]
issuer = "{ISSUER}"
audience = ["{AUDIENCE}"]
algorithm = "HS256"
secret = "{SECRET}"
{channels}"#
        );
        fs::write(folder.path().join(CONFIG_FILE), config).expect("a file");
        let mut replica = Self { folder, port, admin_port, environment: Vec::new(), process: None };
        replica.restart();
        replica
    }

    /// Returns the address of the clients' WebSocket.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/v1/ws", self.port)
    }

    /// Returns the address of the operators' listener.
    pub fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin_port)
    }

    /// Kills the process as a power cut does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            process.wait().expect("a killed process ends");
        }
    }

    /// Sets variables for the next starts, instead of those set before.
    pub fn set_environment(&mut self, variables: Vec<(String, String)>) {
        self.environment = variables;
    }

    /// Says whether the process runs.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Sends the process a signal such as `SIGSTOP`.
    pub fn signal(&self, signal: libc::c_int) {
        let process = self.process.as_ref().expect("the replica runs");
        let id = i32::try_from(process.id()).expect("process ids are small");
        // SAFETY: the process is our child and has not been waited for, so its
        // id is still its own.
        unsafe { libc::kill(id, signal) };
    }

    /// Asks the process to end, as a supervisor does, and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the replica runs");
        let pid = process.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status().expect("kill is there");
        assert!(asked.success(), "the process is there");
        process.wait().expect("it ends")
    }

    /// Returns the address of the clients' listener.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Returns the address of the operators' listener.
    pub fn admin_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.admin_port))
    }

    /// Starts the process again, on the same ports, and waits until it serves.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "the replica runs");
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_brucke"));
        command.arg("serve").arg("--config").arg(self.folder.path().join(CONFIG_FILE));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut process = spawn(command).expect("the binary runs");
        let stdout = process.stdout.take().expect("a pipe");
        let mut line = String::new();
        // The only line says where it serves; without one it ended.
        BufReader::new(stdout).read_line(&mut line).expect("a pipe can be read");
        self.process = Some(process);
        assert!(line.starts_with("brucke serves"), "it did not start: {}", self.log());
    }

    /// Returns what the processes have logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Brucke {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns a token of `tenant` that is good for an hour.
pub fn mint(tenant: &str) -> String {
    mint_for(tenant, Duration::from_secs(3_600))
}

/// Returns a token of `tenant` that is good for so long.
pub fn mint_for(tenant: &str, validity: Duration) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let end = now + validity;
    let claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "exp": end.as_secs(), "sub": "test", "tenant": tenant,
    });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key).expect("a token")
}

const CONFIG_FILE: &str = "brucke.toml";
const ISSUER: &str = "tests";
const AUDIENCE: &str = "brucke";
const SECRET: &str = "only-for-tests-and-32-bytes-long";
