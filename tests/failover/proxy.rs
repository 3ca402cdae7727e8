//! HAProxy and nginx before replicas, with the files that users get as examples:
//! only addresses and limits are other ones.

use std::fs;
use std::fs::File;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;

use crate::support::brucke::Brucke;
use crate::support::kafka_cluster::free_ports;
use crate::support::kafka_cluster::spawn;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    HaProxy,
    Nginx,
}

/// A running proxy; dropping it ends it.
pub struct Proxy {
    kind: Kind,
    port: u16,
    connections: usize,
    /// Where HAProxy tells of its servers.
    stats_port: u16,
    process: Child,
    folder: TempDir,
}

impl Proxy {
    /// Starts one before `replicas`, for so many connections.
    ///
    /// # Panics
    ///
    /// When it is not installed; `.ci/prerequisites` does.
    pub fn start(kind: Kind, replicas: &[Brucke], connections: usize) -> Self {
        Self::start_as(kind, replicas, connections, |text| text)
    }

    /// Starts one that cuts connections on which nothing moves for so long.
    ///
    /// # Panics
    ///
    /// As [`Proxy::start`] does.
    pub fn start_impatient(kind: Kind, replicas: &[Brucke], idle_limit: Duration) -> Self {
        let limits: &[&str] = match kind {
            Kind::HaProxy => &["timeout tunnel  "],
            Kind::Nginx => &["proxy_read_timeout ", "proxy_send_timeout "],
        };
        Self::start_as(kind, replicas, FEW_CONNECTIONS, |mut text| {
            for limit in limits {
                let (usual, wanted) =
                    (format!("{limit}5m"), format!("{limit}{}s", idle_limit.as_secs()));
                assert!(text.contains(&usual), "the example has no {usual}");
                text = text.replace(&usual, &wanted);
            }
            text
        })
    }

    /// Starts one whose file is first adapted.
    fn start_as(
        kind: Kind,
        replicas: &[Brucke],
        connections: usize,
        adapt: impl Fn(String) -> String,
    ) -> Self {
        let folder = tempfile::Builder::new().prefix("proxy-").tempdir().expect("a folder");
        let ports = free_ports(2);
        let (port, stats_port) = (ports[0], ports[1]);
        let file = folder.path().join("proxy.conf");
        let log = File::create(folder.path().join("log")).expect("a log");
        let mut command = match kind {
            Kind::HaProxy => {
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(&file);
                command
            }
            Kind::Nginx => {
                let mut command = Command::new("nginx");
                command.arg("-c").arg(&file).arg("-p").arg(folder.path());
                command.arg("-e").arg(folder.path().join("log"));
                command
            }
        };
        let text = match kind {
            Kind::HaProxy => haproxy(port, stats_port, replicas, connections),
            Kind::Nginx => nginx(folder.path(), port, replicas, connections),
        };
        fs::write(&file, adapt(text)).expect("a file");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let process = spawn(command).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        let proxy = Self { kind, port, connections, stats_port, process, folder };
        proxy.wait_until("it listens", || TcpStream::connect(proxy.address()).is_ok());
        proxy
    }

    /// Returns the address of the clients' WebSocket.
    pub fn url(&self) -> String {
        format!("ws://{}/v1/ws", self.address())
    }

    /// Waits until it sends new clients to `new` and to no more than so many.
    /// HAProxy asks its replicas; nginx is told of others by its file, as an
    /// operator does, and its old worker keeps the clients that it has.
    pub fn turn_to(&self, new: &[Brucke], count: usize) {
        match self.kind {
            Kind::HaProxy => self.wait_until("replicas are up", || {
                // One that failed its last check, or will be up after the next, is `UP 1/2`.
                let up = |line: &&str| line.starts_with("brucke,replica") && line.contains(",UP");
                self.stats().lines().filter(up).count() == count
            }),
            Kind::Nginx => {
                let text = nginx(self.folder.path(), self.port, new, self.connections);
                fs::write(self.folder.path().join("proxy.conf"), text).expect("a file");
                let pid = self.process.id().to_string();
                let told = Command::new("kill").args(["-HUP", &pid]).status();
                assert!(told.expect("kill is there").success(), "nginx is there");
                let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                self.wait_until("its old worker takes no more", || {
                    log().contains("gracefully shutting down")
                });
            }
        }
    }

    /// Returns the first that it said of what did not go well.
    pub fn complaints(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let complaints = log.lines().filter(|line| !line.contains("[notice]"));
        complaints.take(COMPLAINTS_MAX).collect::<Vec<_>>().join("\n")
    }

    /// Returns where clients connect.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn stats(&self) -> String {
        let mut stats = TcpStream::connect(("127.0.0.1", self.stats_port)).expect("it listens");
        stats.write_all(b"GET /;csv HTTP/1.0\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stats.read_to_string(&mut answer).expect("it answers");
        answer
    }

    fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "{:?}: {what}: {}", self.kind, log());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // nginx's worker ends with its master only when that is asked to.
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.process.wait();
    }
}

fn example(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/deploy");
    fs::read_to_string(folder.join(name)).expect("the example is there")
}

/// Returns the example without its own servers, with another address to listen at.
fn without_servers(name: &str, port: u16) -> String {
    let text = example(name).replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"));
    // Four blanks before it tell a server from nginx's block of that name.
    let kept = text.lines().filter(|line| !line.starts_with("    server "));
    kept.map(|line| format!("{line}\n")).collect()
}

fn haproxy(port: u16, stats_port: u16, replicas: &[Brucke], connections: usize) -> String {
    // What goes well is not logged.
    let mut text = without_servers("haproxy.cfg", port)
        .replace(
            "maxconn 100000",
            &format!("maxconn {}\n    log stdout format raw local0", connections + 100),
        )
        .replace(
            "mode http\n",
            "mode http\n    log global\n    option httplog\n    option dontlog-normal\n",
        );
    for (number, replica) in replicas.iter().enumerate() {
        let (clients, admin) = (replica.address(), replica.admin_address().port());
        text += &format!("    server replica{number} {clients} port {admin}\n");
    }
    text + &format!(
        "\nfrontend stats\n    bind 127.0.0.1:{stats_port}\n    stats enable\n    stats uri /\n"
    )
}

fn nginx(folder: &Path, port: u16, replicas: &[Brucke], connections: usize) -> String {
    let servers =
        replicas.iter().map(|replica| format!("    server {} max_fails=0;\n", replica.address()));
    let least_connections = "    least_conn;\n";
    let text = without_servers("nginx.conf", port)
        .replace(least_connections, &(least_connections.to_owned() + &servers.collect::<String>()));
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {}/{name};\n", folder.display()))
        .concat();
    format!(
        "daemon off;\nerror_log {folder}/log notice;\nworker_processes 1;\nworker_rlimit_nofile {files};\npid {folder}/pid;\n\
         events {{ worker_connections {places}; }}\n\
         http {{\n    access_log off;\n{temporary}{text}}}\n",
        files = 2 * connections + 200,
        // Two for each client, and a sixteenth that it keeps free.
        places = 2 * connections * 16 / 15 + 200,
        folder = folder.display(),
    )
}

/// Connections where a test counts none.
const FEW_CONNECTIONS: usize = 10;
/// Lines of a proxy's log that are shown.
const COMPLAINTS_MAX: usize = 20;
/// How long a proxy may take to see what there is.
const PATIENCE: Duration = Duration::from_secs(30);
