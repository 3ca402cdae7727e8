//! `brucke serve` as a process of its own, on free ports.

use std::fs;
use std::fs::File;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
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
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::spawn;

/// A running replica on the shared cluster; dropping it kills it.
pub struct ServerProcess {
    pub clients: SocketAddr,
    pub admin: SocketAddr,
    process: Child,
    folder: TempDir,
}

impl ServerProcess {
    /// Starts a replica with these `[[channels]]`.
    pub fn start(channels: &str) -> Self {
        Self::start_with(channels, &[])
    }

    /// Starts a replica with these `[[channels]]` and some keys set otherwise,
    /// as environment variables without the prefix.
    pub fn start_with(channels: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_in(channels, settings, &[])
    }

    /// Starts a replica as [`ServerProcess::start_with`] does, with these variables
    /// of others in its environment.
    pub fn start_in(channels: &str, settings: &[(&str, &str)], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("brucke-").tempdir().expect("a folder");
        let servers = KafkaCluster::shared().bootstrap_servers();
        let config = format!(
            r#"
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[kafka]
bootstrap_servers = ["{servers}"]
[[auth.issuers]]
issuer = "{ISSUER}"
audience = ["{AUDIENCE}"]
algorithm = "HS256"
secret = "{SECRET}"
{channels}"#
        );
        let config_file = folder.path().join("brucke.toml");
        fs::write(&config_file, config).expect("a file");
        let log = File::create(folder.path().join(LOG_FILE)).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_brucke"));
        command.arg("serve").arg("--config").arg(config_file);
        command.envs(settings.iter().map(|(name, value)| (format!("BRUCKE_{name}"), value)));
        command.envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut process = spawn(command).expect("the binary runs");
        let stdout = process.stdout.take().expect("a pipe");
        let mut line = String::new();
        // The only line says where it serves; without one it ended.
        BufReader::new(stdout).read_line(&mut line).expect("a pipe can be read");
        let mut addresses = line.split("://").skip(1).filter_map(|rest| {
            let end = rest.find(['/', '\n']).unwrap_or(rest.len());
            rest[..end].parse().ok()
        });
        let (Some(clients), Some(admin)) = (addresses.next(), addresses.next()) else {
            let log = fs::read_to_string(folder.path().join(LOG_FILE)).unwrap_or_default();
            panic!("it did not start: {line}{log}");
        };
        Self { clients, admin, process, folder }
    }

    /// Asks the process to load its configuration anew.
    pub fn hang_up(&self) {
        self.signal(libc::SIGHUP);
    }

    /// Asks the process to end, as a supervisor does, and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.process.wait().expect("it ends")
    }

    fn signal(&self, signal: libc::c_int) {
        let id = i32::try_from(self.process.id()).expect("process ids are small");
        // SAFETY: the process is our child and has not been waited for, so its
        // id is still its own.
        unsafe { libc::kill(id, signal) };
    }

    /// Returns what the process has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).expect("a log")
    }

    /// Returns status line, head and body of a page of the admin listener.
    pub fn admin_page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).expect("the admin listener");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    /// Returns the value of a metric that has no label; 0 where nothing was
    /// counted yet.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.admin_page("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.trim().parse().expect("a number"))
    }

    /// Returns the configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("brucke.toml")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join(LOG_FILE)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the server said:\n{}", self.log());
        }
    }
}

/// Returns the `[[channels]]` of one channel, `feed`, that shows a topic to
/// every tenant.
pub fn shared_feed(topic: &str) -> String {
    feed(topic, "\"shared\"")
}

/// Returns the `[[channels]]` of one channel, `feed`, with this rule for tenants.
pub fn feed(topic: &str, tenant: &str) -> String {
    format!("[[channels]]\nname = \"feed\"\ntopic = \"{topic}\"\ntenant = {tenant}\n")
}

/// Returns a token of `tenant` that is good for an hour.
pub fn token(tenant: &str) -> String {
    token_with(tenant, json!({}))
}

/// Returns such a token with more claims, or others.
pub fn token_with(tenant: &str, more: Value) -> String {
    token_of(SECRET, tenant, more)
}

/// Returns such a token that is signed with another secret.
pub fn token_of(secret: &str, tenant: &str, more: Value) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let end = now + Duration::from_secs(3_600);
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "exp": end.as_secs(), "sub": "test", "tenant": tenant,
    });
    let more = more.as_object().cloned().unwrap_or_default();
    claims.as_object_mut().expect("an object").extend(more);
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key).expect("a token")
}

const LOG_FILE: &str = "log";
pub const ISSUER: &str = "tests";
pub const AUDIENCE: &str = "brucke";
pub const SECRET: &str = "only-for-tests-and-32-bytes-long";
