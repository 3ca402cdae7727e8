//! Apache Kafka on loopback, for one test or for all.
//!
//! Brokers are broker and controller in one process (KRaft), on free ports, in
//! temporary folders. They end with the value that owns them, and with the test
//! process whatever ends it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use tempfile::TempDir;

use crate::support::kafka_client::KafkaAdmin;
use crate::support::kafka_client::KafkaProducer;

/// Brokers that form one cluster.
pub struct KafkaCluster {
    nodes: Vec<Node>,
    admin: OnceLock<KafkaAdmin>,
    folder: TempDir,
}

/// How a cluster is made; the default is one open broker.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// Properties beside or instead of the harness's own.
    pub properties: BTreeMap<String, String>,
    /// A second listener, with SASL over TLS.
    pub secure: Option<SecureListener>,
    /// More listeners, which tell clients other ports than their own.
    pub detours: Vec<Detour>,
}

/// A listener with SASL whose clients are told to come by ports of somebody
/// between.
#[derive(Debug, Clone)]
pub struct Detour {
    pub name: String,
    /// Name and password of the one user, for PLAIN.
    pub user: (String, String),
    /// What is told, for each broker.
    pub told: Vec<u16>,
}

/// Who may come in at the listener with SASL over TLS.
#[derive(Debug, Clone, Default)]
pub struct SecureListener {
    /// Name and password of each user, for PLAIN and both SCRAMs.
    pub users: Vec<(String, String)>,
}

struct Node {
    id: usize,
    port: u16,
    secure_port: Option<u16>,
    /// Name, own port and told port of each detour.
    detours: Vec<(String, u16, u16)>,
    folder: PathBuf,
    process: Option<Child>,
}

impl KafkaCluster {
    /// Starts `brokers` brokers and waits until all are in the cluster.
    pub fn start(brokers: usize) -> Self {
        Self::start_with(brokers, &KafkaOptions::default())
    }

    /// Returns a cluster of one broker that all tests of this process share;
    /// each takes topics of its own (see [`fresh_topic`]) and stops nothing.
    pub fn shared() -> &'static Self {
        SHARED.get_or_init(|| {
            // SAFETY: the handler takes and returns nothing, and lives for ever.
            unsafe { libc::atexit(remove_shared) };
            Self::start(1)
        })
    }

    /// Starts brokers as `options` say.
    pub fn start_with(brokers: usize, options: &KafkaOptions) -> Self {
        let folder = tempfile::Builder::new().prefix("brucke-kafka-").tempdir().expect("a folder");
        let nodes = lay_out(brokers, options, folder.path());
        let mut cluster = Self { nodes, admin: OnceLock::new(), folder };
        let formatting: Vec<Child> =
            cluster.nodes.iter().map(|node| node.format(options)).collect();
        for mut child in formatting {
            assert!(child.wait().expect("java runs").success(), "the storage is formatted");
        }
        for node in &mut cluster.nodes {
            node.launch();
        }
        cluster.wait_until_complete();
        cluster
    }

    /// Returns the brokers as clients name them.
    pub fn bootstrap_servers(&self) -> String {
        self.addresses(|node| Some(node.port))
    }

    /// Returns the brokers' listeners with SASL over TLS.
    pub fn secure_servers(&self) -> String {
        self.addresses(|node| node.secure_port)
    }

    /// Returns the file of the CA that vouches for the secure listener.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Returns the one that makes and changes topics.
    pub fn admin(&self) -> &KafkaAdmin {
        self.admin.get_or_init(|| KafkaAdmin::new(&self.bootstrap_servers()))
    }

    /// Returns a new producer.
    pub fn producer(&self) -> KafkaProducer {
        KafkaProducer::new(&self.bootstrap_servers())
    }

    /// Kills a broker, counted from zero, as a power cut does.
    pub fn kill(&mut self, broker: usize) {
        self.nodes[broker].kill();
    }

    /// Asks a broker to end and waits until it has.
    pub fn stop(&mut self, broker: usize) {
        self.nodes[broker].stop();
    }

    /// Starts a broker again that was killed or stopped, with its data.
    pub fn restart(&mut self, broker: usize) {
        assert!(self.nodes[broker].process.is_none(), "broker {broker} runs");
        self.nodes[broker].launch();
        self.wait_until_complete();
    }

    /// Starts several brokers again at once and waits until they are known.
    pub fn restart_all(&mut self, brokers: &[usize]) {
        for &broker in brokers {
            assert!(self.nodes[broker].process.is_none(), "broker {broker} runs");
            self.nodes[broker].launch();
        }
        self.wait_until_complete();
    }

    /// Sends a broker a signal such as `SIGSTOP`.
    pub fn signal(&self, broker: usize, signal: libc::c_int) {
        let process = self.nodes[broker].process.as_ref().expect("the broker runs");
        let id = i32::try_from(process.id()).expect("process ids are small");
        // SAFETY: the process is our child and has not been waited for, so its
        // id is still its own.
        unsafe { libc::kill(id, signal) };
    }

    /// Returns the port on which a broker listens for those who take a detour.
    pub fn detour_port(&self, broker: usize, detour: usize) -> u16 {
        self.nodes[broker].detours[detour].1
    }

    /// Returns a broker's own port.
    pub fn port(&self, broker: usize) -> u16 {
        self.nodes[broker].port
    }

    /// Tells other ports from the broker's next start on, one for each detour.
    pub fn move_detours(&mut self, broker: usize, told: &[u16]) {
        let node = &mut self.nodes[broker];
        for (detour, port) in node.detours.iter_mut().zip(told) {
            detour.2 = *port;
        }
        let advertised = format!("advertised.listeners={}", node.advertised());
        let text = fs::read_to_string(node.properties_file()).expect("a file");
        let changed = text.lines().map(|line| match line.starts_with("advertised.listeners=") {
            true => advertised.as_str(),
            false => line,
        });
        let changed = changed.collect::<Vec<_>>().join("\n");
        fs::write(node.properties_file(), changed + "\n").expect("a file");
    }

    /// Returns the folder of a partition on a broker.
    pub fn partition_folder(&self, broker: usize, topic: &str, partition: u32) -> PathBuf {
        self.nodes[broker].folder.join("data").join(format!("{topic}-{partition}"))
    }

    /// Runs one of Kafka's own tools and returns what it printed.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> String {
        self.try_tool(class, arguments)
            .unwrap_or_else(|complaint| panic!("{class} {arguments:?}: {complaint}"))
    }

    /// Runs one of Kafka's own tools and returns what it printed, or of what it
    /// complained.
    pub fn try_tool(&self, class: &str, arguments: &[&str]) -> Result<String, String> {
        let output = java().arg(class).args(arguments).output().expect("java runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => Ok(text),
            false => Err(format!("{text}{complaint}")),
        }
    }

    fn addresses(&self, port: impl Fn(&Node) -> Option<u16>) -> String {
        let ports = self.nodes.iter().filter_map(port);
        ports.map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }

    /// Waits until every running broker is known to the cluster.
    fn wait_until_complete(&self) {
        let running = self.nodes.iter().filter(|node| node.process.is_some()).count();
        let started = Instant::now();
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap_servers())
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "100")
            .set("log_level", "0")
            .create()
            .expect("a client is made");
        loop {
            let seen = client
                .fetch_metadata(None, Duration::from_secs(2))
                .map_or(0, |metadata| metadata.brokers().len());
            if seen >= running {
                return;
            }
            assert!(
                started.elapsed() < START_TIMEOUT,
                "{seen} of {running} brokers after {START_TIMEOUT:?}: {}",
                self.logs(),
            );
            // A broker that is not up yet refuses at once; the client's own
            // back-off paces the next try.
            client.poll(Duration::from_millis(50));
        }
    }

    fn logs(&self) -> String {
        let logs = self.nodes.iter().map(|node| node.folder.join("broker.log"));
        logs.map(|log| fs::read_to_string(log).unwrap_or_default()).collect()
    }
}

impl Drop for KafkaCluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
    }
}

static SHARED: OnceLock<KafkaCluster> = OnceLock::new();

/// Ends the shared cluster with the process: nothing drops a static.
extern "C" fn remove_shared() {
    let Some(cluster) = SHARED.get() else { return };
    for process in cluster.nodes.iter().filter_map(|node| node.process.as_ref()) {
        let id = i32::try_from(process.id()).expect("process ids are small");
        // SAFETY: the process is our child and nobody waits for it elsewhere, so
        // its id is still its own.
        unsafe {
            libc::kill(id, libc::SIGKILL);
            libc::waitpid(id, std::ptr::null_mut(), 0);
        }
    }
    let _ = fs::remove_dir_all(cluster.folder.path());
}

/// Returns a topic's name that nobody else in this process uses.
pub fn fresh_topic(purpose: &str) -> String {
    format!("{purpose}-{}", uuid::Uuid::new_v4().simple())
}

impl Node {
    fn advertised(&self) -> String {
        let detours =
            self.detours.iter().map(|(name, _, told)| format!(",{name}://127.0.0.1:{told}"));
        format!("PLAINTEXT://127.0.0.1:{}{}", self.port, detours.collect::<String>())
    }

    fn properties_file(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    fn format(&self, options: &KafkaOptions) -> Child {
        let mut command = java();
        command
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
            .arg(self.properties_file());
        for (name, password) in options.secure.iter().flat_map(|secure| &secure.users) {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                let user = format!("{mechanism}=[name={name},password={password}]");
                command.args(["--add-scram", &user]);
            }
        }
        let log = File::create(self.folder.join("format.log")).expect("a log");
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        spawn(command).expect("java runs")
    }

    fn launch(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("broker.log"))
            .expect("a log");
        let mut command = java();
        command.arg("kafka.Kafka").arg(self.properties_file());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.process = Some(spawn(command).expect("java runs"));
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            process.wait().expect("a killed process ends");
        }
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let id = i32::try_from(process.id()).expect("process ids are small");
            // SAFETY: the process is our child and has not been waited for, so
            // its id is still its own.
            unsafe { libc::kill(id, libc::SIGTERM) };
            process.wait().expect("a process ends");
        }
    }
}

/// Writes the files of all nodes: they name each other, so ports come first.
fn lay_out(brokers: usize, options: &KafkaOptions, folder: &Path) -> Vec<Node> {
    let mut ports = free_ports(brokers * (3 + options.detours.len())).into_iter();
    let mut port = || ports.next().expect("enough ports for each broker");
    let mut nodes = Vec::new();
    let mut controllers = Vec::new();
    for id in 1..=brokers {
        let folder = folder.join(format!("broker-{id}"));
        fs::create_dir(&folder).expect("a folder");
        controllers.push(port());
        let (open, secure_port) = (port(), options.secure.is_some().then(&mut port));
        let detours = options.detours.iter();
        let detours = detours.map(|detour| (detour.name.clone(), port(), detour.told[id - 1]));
        let detours = detours.collect();
        nodes.push(Node { id, port: open, secure_port, detours, folder, process: None });
    }
    if options.secure.is_some() {
        make_certificate(folder);
    }
    for (node, controller) in nodes.iter().zip(&controllers) {
        let properties = properties(node, *controller, &controllers, options, folder);
        let text = properties.iter().fold(String::new(), |mut text, (key, value)| {
            writeln!(text, "{key}={value}").expect("a string grows");
            text
        });
        fs::write(node.properties_file(), text).expect("a file");
    }
    nodes
}

fn properties(
    node: &Node,
    controller: u16,
    controllers: &[u16],
    options: &KafkaOptions,
    folder: &Path,
) -> BTreeMap<String, String> {
    let replicas = controllers.len().min(3);
    let voters = controllers.iter().zip(1..).map(|(port, id)| format!("{id}@127.0.0.1:{port}"));
    let open = format!("PLAINTEXT://127.0.0.1:{}", node.port);
    let mut all: BTreeMap<String, String> = SMALL_AND_QUICK
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let mut set = |key: &str, value: String| all.insert(key.to_owned(), value);
    set("node.id", node.id.to_string());
    set("listeners", format!("{open},CONTROLLER://127.0.0.1:{controller}"));
    set("advertised.listeners", open.clone());
    set("controller.quorum.voters", voters.collect::<Vec<_>>().join(","));
    set("log.dirs", node.folder.join("data").display().to_string());
    set("offsets.topic.replication.factor", replicas.to_string());
    set("transaction.state.log.replication.factor", replicas.to_string());
    set("default.replication.factor", replicas.to_string());
    if let (Some(port), Some(secure)) = (node.secure_port, &options.secure) {
        let listener = format!("SECURE://127.0.0.1:{port}");
        set("listeners", format!("{open},{listener},CONTROLLER://127.0.0.1:{controller}"));
        set("advertised.listeners", format!("{open},{listener}"));
        set(
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL".to_owned(),
        );
        set("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned());
        let users =
            secure.users.iter().map(|(name, password)| format!(" user_{name}=\"{password}\""));
        let users = users.collect::<String>();
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule";
        let prefix = "listener.name.secure";
        set(&format!("{prefix}.plain.sasl.jaas.config"), format!("{plain} required{users};"));
        for mechanism in ["scram-sha-256", "scram-sha-512"] {
            set(&format!("{prefix}.{mechanism}.sasl.jaas.config"), format!("{scram} required;"));
        }
        set("ssl.keystore.type", "PKCS12".to_owned());
        set("ssl.keystore.location", folder.join("broker.p12").display().to_string());
        set("ssl.keystore.password", KEYSTORE_PASSWORD.to_owned());
    }
    if !node.detours.is_empty() {
        let own = node.detours.iter().map(|(name, own, _)| format!(",{name}://127.0.0.1:{own}"));
        let own = own.collect::<String>();
        set("listeners", format!("{open}{own},CONTROLLER://127.0.0.1:{controller}"));
        set("advertised.listeners", node.advertised());
        let map = node.detours.iter().map(|(name, ..)| format!(",{name}:SASL_PLAINTEXT"));
        let map = map.collect::<String>();
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule";
        for Detour { name, user: (user, password), .. } in &options.detours {
            let prefix = format!("listener.name.{}", name.to_lowercase());
            let login = format!("{plain} required user_{user}=\"{password}\";");
            set(&format!("{prefix}.plain.sasl.jaas.config"), login);
            set(&format!("{prefix}.sasl.enabled.mechanisms"), "PLAIN".to_owned());
        }
        set(
            "listener.security.protocol.map",
            format!("PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{map}"),
        );
    }
    all.extend(options.properties.clone());
    all
}

/// Makes a certificate for loopback that vouches for itself.
fn make_certificate(folder: &Path) {
    let keystore = folder.join("broker.p12");
    let keytool = |arguments: &[&str]| {
        let mut command = Command::new("keytool");
        command.args(arguments).arg("-keystore").arg(&keystore);
        command.args(["-storetype", "PKCS12", "-storepass", KEYSTORE_PASSWORD, "-alias", "broker"]);
        let output = command.output().expect("keytool is part of the JDK");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    };
    keytool(&[
        "-genkeypair",
        "-keyalg",
        "EC",
        "-dname",
        "CN=localhost",
        "-validity",
        "2",
        "-ext",
        "SAN=ip:127.0.0.1,dns:localhost",
        "-ext",
        "BC=ca:true",
    ]);
    let ca = folder.join("ca.pem").display().to_string();
    keytool(&["-exportcert", "-rfc", "-file", &ca]);
}

/// Returns a JVM that is ready for one of Kafka's main classes.
fn java() -> Command {
    static JARS: OnceLock<String> = OnceLock::new();
    let jars = JARS.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka");
        let output = Command::new(script).arg("jars").stderr(Stdio::inherit()).output();
        let output = output.expect("scripts/kafka runs");
        assert!(output.status.success(), "scripts/kafka jars failed; it says why above");
        String::from_utf8(output.stdout).expect("a path").trim().to_owned()
    });
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
    command.arg(format!("{jars}/*")).stdin(Stdio::null());
    command
}

/// Starts a process that ends when this one does, however it ends.
///
/// Linux ties a child to the thread that made it, so that one thread, which
/// lives as long as the process, makes them all.
pub fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static KEEPER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                // SAFETY: prctl may be called between fork and exec.
                unsafe {
                    command.pre_exec(|| {
                        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                        Ok(())
                    });
                }
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = mpsc::channel();
    keeper.send((command, reply)).expect("the keeper lives as long as the process");
    answer.recv().expect("the keeper answers")
}

/// Returns ports that were free a moment ago, all different.
pub fn free_ports(count: usize) -> Vec<u16> {
    // The system's own choice is one that it gives to connections as well: while
    // whoever listens there is down, it would give it to one.
    let mut listeners = Vec::new();
    while listeners.len() < count {
        listeners.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(PORTS))));
    }
    listeners.iter().map(|l| l.local_addr().expect("bound").port()).collect()
}

/// Below those that systems give to connections.
const PORTS: std::ops::Range<u16> = 10_000..30_000;
const START_TIMEOUT: Duration = Duration::from_secs(60);
pub const CLUSTER_ID: &str = "brucke-tests-cluster-A";
const KEYSTORE_PASSWORD: &str = "only-for-tests";

/// What makes a broker small, quick to start and quick to tidy up.
const SMALL_AND_QUICK: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("controller.listener.names", "CONTROLLER"),
    ("inter.broker.listener.name", "PLAINTEXT"),
    ("auto.create.topics.enable", "false"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("offsets.topic.num.partitions", "1"),
    ("transaction.state.log.num.partitions", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("num.network.threads", "2"),
    ("num.io.threads", "2"),
    ("num.recovery.threads.per.data.dir", "1"),
    ("log.initial.task.delay.ms", "100"),
    ("log.retention.check.interval.ms", "200"),
    ("log.cleaner.backoff.ms", "100"),
    ("log.cleaner.threads", "1"),
    ("log.cleaner.dedupe.buffer.size", "4194304"),
    ("log.segment.delete.delay.ms", "100"),
    ("broker.heartbeat.interval.ms", "200"),
    ("broker.session.timeout.ms", "2000"),
    ("controller.quorum.election.timeout.ms", "500"),
    ("controller.quorum.fetch.timeout.ms", "1000"),
];
