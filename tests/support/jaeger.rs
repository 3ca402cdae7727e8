//! Jaeger on loopback, with its traces in memory.

use std::fs;
use std::fs::File;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::TcpStream;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::kafka_cluster::free_ports;
use crate::support::kafka_cluster::spawn;

/// A collector that can be asked for its traces; its ports stay when it is
/// stopped and started again, its traces do not.
pub struct Jaeger {
    grpc: u16,
    http: u16,
    query: u16,
    folder: TempDir,
    process: Option<Child>,
}

impl Jaeger {
    /// Starts one and waits until it takes spans.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("brucke-jaeger-").tempdir().expect("a folder");
        let ports = free_ports(4);
        let [grpc, http, query, other] = ports[..] else { panic!("four ports") };
        let config = CONFIG
            .replace("{grpc}", &grpc.to_string())
            .replace("{http}", &http.to_string())
            .replace("{query}", &query.to_string())
            .replace("{other}", &other.to_string());
        fs::write(folder.path().join("jaeger.yaml"), config).expect("a file");
        let mut jaeger = Self { grpc, http, query, folder, process: None };
        jaeger.restart();
        jaeger
    }

    /// Ends it, as a power cut does.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            process.wait().expect("a killed process ends");
        }
    }

    /// Starts it where it was.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let log = File::create(self.folder.path().join("log")).expect("a log");
        let mut command = Command::new(program());
        command.arg("--config").arg(self.folder.path().join("jaeger.yaml"));
        // It would trace itself.
        command.env("OTEL_TRACES_SAMPLER", "always_off");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.process = Some(spawn(command).expect("jaeger runs"));
        let deadline = Instant::now() + PATIENCE;
        for port in [self.grpc, self.http, self.query] {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                let log = || fs::read_to_string(self.folder.path().join("log"));
                assert!(Instant::now() < deadline, "jaeger is not there: {:?}", log());
                thread::sleep(PACE);
            }
        }
    }

    /// Returns where it takes spans by gRPC.
    pub fn grpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// Returns where it takes spans by HTTP, without the path.
    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// Gives it spans, in OTLP's JSON.
    pub fn post(&self, spans: &Value) {
        let body = spans.to_string();
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nHost: jaeger\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = ask(self.http, &(head + &body));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Waits until a trace has spans of all these names; returns it.
    pub fn trace(&self, id: &str, names: &[&str]) -> Trace {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let trace = self.look(id);
            if names.iter().all(|name| trace.find(name).is_some()) {
                return trace;
            }
            assert!(Instant::now() < deadline, "no {names:?} in {}", trace.text);
            thread::sleep(PACE);
        }
    }

    /// Waits until there are spans of all these names; returns all traces that a
    /// service has a part in.
    pub fn all_of(&self, service: &str, names: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let head = "HTTP/1.0\r\nHost: jaeger\r\n\r\n";
            let path = format!("/api/traces?service={service}&limit=10000&lookback=1h");
            let answer = ask(self.query, &format!("GET {path} {head}"));
            let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
            let has = |name: &&str| body.contains(&format!("\"operationName\":\"{name}\""));
            if names.iter().all(has) {
                return body.to_owned();
            }
            assert!(Instant::now() < deadline, "no {names:?} in {body}");
            thread::sleep(PACE);
        }
    }

    /// Says whether there is any span of a trace now.
    pub fn knows(&self, id: &str) -> bool {
        !self.look(id).spans.is_empty()
    }

    fn look(&self, id: &str) -> Trace {
        let head = "HTTP/1.0\r\nHost: jaeger\r\n\r\n";
        let answer = ask(self.query, &format!("GET /api/traces/{id} {head}"));
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let found: Value = serde_json::from_str(body).unwrap_or_default();
        let spans = found["data"][0]["spans"].as_array().cloned().unwrap_or_default();
        Trace { spans, text: body.to_owned() }
    }
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A trace, as Jaeger's query API tells it.
pub struct Trace {
    spans: Vec<Value>,
    /// The whole answer.
    pub text: String,
}

impl Trace {
    /// Returns the only span of this name.
    pub fn span(&self, name: &str) -> Span<'_> {
        let count = self.spans.iter().filter(|span| span["operationName"] == name).count();
        assert_eq!(count, 1, "{name} in {}", self.text);
        self.find(name).expect("counted")
    }

    fn find(&self, name: &str) -> Option<Span<'_>> {
        self.spans.iter().find(|span| span["operationName"] == name).map(Span)
    }
}

/// A span of a trace.
#[derive(Clone, Copy)]
pub struct Span<'a>(&'a Value);

impl<'a> Span<'a> {
    /// Returns its name within the trace.
    pub fn id(&self) -> &'a str {
        self.0["spanID"].as_str().expect("a span has a name")
    }

    /// Returns the span that it is a child of.
    pub fn parent(&self) -> Option<&'a str> {
        let references = self.0["references"].as_array()?;
        let parent = references.iter().find(|reference| reference["refType"] == "CHILD_OF")?;
        parent["spanID"].as_str()
    }

    /// Returns the value of an attribute, or nothing.
    pub fn tag(&self, name: &str) -> Value {
        let tags = self.0["tags"].as_array().expect("a span has tags");
        let tag = tags.iter().find(|tag| tag["key"] == name);
        tag.map(|tag| tag["value"].clone()).unwrap_or_default()
    }

    /// Returns begin and end, in microseconds since the Unix epoch.
    pub fn times(&self) -> (u64, u64) {
        let number = |name: &str| self.0[name].as_u64().expect("a number");
        (number("startTime"), number("startTime") + number("duration"))
    }
}

fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("jaeger is there");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// Returns the program, which is built where there is none.
fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/jaeger");
        let output = Command::new(script).arg("binary").stderr(Stdio::inherit()).output();
        let output = output.expect("scripts/jaeger runs");
        assert!(output.status.success(), "scripts/jaeger binary failed; it says why above");
        String::from_utf8(output.stdout).expect("a path").trim().to_owned()
    })
}

const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at another process.
const PACE: Duration = Duration::from_millis(20);
const CONFIG: &str = r#"
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: { receivers: [otlp], exporters: [jaeger_storage_exporter] }
  telemetry:
    metrics: { level: none }
    logs: { level: error }
extensions:
  jaeger_storage:
    backends:
      memory: { memory: { max_traces: 10000 } }
  jaeger_query:
    storage: { traces: memory }
    http: { endpoint: "127.0.0.1:{query}" }
    grpc: { endpoint: "127.0.0.1:{other}" }
receivers:
  otlp:
    protocols:
      grpc: { endpoint: "127.0.0.1:{grpc}" }
      http: { endpoint: "127.0.0.1:{http}" }
exporters:
  jaeger_storage_exporter: { trace_storage: memory }
"#;
