//! A Prometheus of its own, on a free port, and its tool.

use std::fs;
use std::fs::File;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::kafka_cluster::free_ports;
use crate::support::kafka_cluster::spawn;

/// A Prometheus that scrapes and evaluates a few times a second; dropping it ends
/// it.
pub struct Prometheus {
    port: u16,
    process: Child,
    folder: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes `target` and has these rules.
    pub fn start(target: SocketAddr, rules: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("brucke-prom-").tempdir().expect("a folder");
        let port = free_ports(1)[0];
        fs::write(folder.path().join("rules.yaml"), rules).expect("a file");
        let config = format!(
            "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }}\n\
             rule_files: [rules.yaml]\n\
             scrape_configs: [{{ job_name: brucke, static_configs: [{{ targets: [\"{target}\"] }}] }}]\n"
        );
        let config_file = folder.path().join("prometheus.yaml");
        fs::write(&config_file, config).expect("a file");
        let log = File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config_file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.arg("--enable-feature=exemplar-storage");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = spawn(command).expect("prometheus is installed, see .ci/prerequisites");
        let this = Self { port, process, folder };
        this.until("prometheus is ready", |this| this.get("/-/ready").is_some());
        this
    }

    /// Returns the values of an expression now, with the labels of each series.
    ///
    /// # Panics
    ///
    /// When Prometheus does not take the expression.
    pub fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let answer = self.api(&format!("/api/v1/query?query={}", encode(expression)));
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let result = answer["data"]["result"].as_array().expect("a vector").iter();
        let series = result.map(|series| {
            let value = series["value"][1].as_str().expect("a value").parse();
            (series["metric"].clone(), value.expect("a number"))
        });
        series.collect()
    }

    /// Returns the exemplars of all series that an expression names, each with the
    /// labels of its series.
    pub fn exemplars(&self, expression: &str) -> Vec<(Value, Value)> {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = since_epoch.expect("after 1970").as_secs();
        let (from, to) = (now - 3_600, now + 60);
        let query = encode(expression);
        let path = format!("/api/v1/query_exemplars?query={query}&start={from}&end={to}");
        let answer = self.api(&path);
        let found = answer["data"].as_array().unwrap_or_else(|| panic!("{expression}: {answer}"));
        let each = found.iter().flat_map(|series| {
            let exemplars = series["exemplars"].as_array().expect("exemplars").iter();
            exemplars.map(|exemplar| (series["seriesLabels"].clone(), exemplar.clone()))
        });
        each.collect()
    }

    /// Returns all rules as Prometheus has them, with their health.
    pub fn rules(&self) -> Vec<Value> {
        let answer = self.api("/api/v1/rules");
        let groups = answer["data"]["groups"].as_array().expect("groups").iter();
        groups.flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
    }

    /// Returns the names of the alerts that fire.
    pub fn firing(&self) -> Vec<String> {
        let answer = self.api("/api/v1/alerts");
        let alerts = answer["data"]["alerts"].as_array().expect("alerts").iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().expect("text").into()).collect()
    }

    /// Waits until it is so.
    pub fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(40);
        while !so(self) {
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                panic!("{what}: it never came to that; prometheus said:\n{log}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn api(&self, path: &str) -> Value {
        let body = self.get(path).expect("prometheus answers");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// Returns the body of an answer; `None` where there is none or it is no success.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        // HTTP/1.0, so that the body comes in one piece.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let refused = head.contains(" 503 ");
        (!refused).then(|| body.to_owned())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs promtool with a text as its input; returns what it says.
///
/// # Panics
///
/// When it is not content.
pub fn promtool(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tool = command.spawn().expect("promtool is installed, see .ci/prerequisites");
    tool.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = tool.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
