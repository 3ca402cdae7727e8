//! `brucke explain`.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use serde_json::Value;
use serde_json::json;

use crate::admin::operator::ExplainBody;
use crate::app::cli::ConfigArgs;
use crate::app::config_command;
use crate::app::explain;
use crate::app::explain::Asked;
use crate::app::explain::Sources;
use crate::app::explain::Whose;
use crate::app::explain::told;
use crate::protocol::frame::Token;
use crate::server::token::Verifier;

/// Say why one client did or did not get one record, or count what a filter
/// matches in a past range.
///
/// With --token it reads the configuration and asks Kafka itself; with
/// --connection it asks the admin interface of the replica that has it. The
/// answer is JSON on stdout, one sentence on stderr. Exit code 0 when there is an
/// answer, whatever it says; 1 when there is none.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The connection, as its `welcome` frame and the log name it.
    #[arg(long, value_name = "ID", conflicts_with_all = ["token", "token_file"])]
    connection: Option<String>,
    /// The replica's admin interface, for --connection.
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: String,
    /// File with the token of the admin interface, where it asks for one.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// The client's token; better named in the environment, where `ps` can't see it.
    #[arg(long, env = "BRUCKE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File with the client's token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[arg(long)]
    channel: String,
    /// A key that the client asked for; may be repeated. Without one and without
    /// --prefix: every key, or those that the connection follows.
    #[arg(long, conflicts_with = "prefix")]
    key: Vec<String>,
    /// The prefix of keys that the client asked for.
    #[arg(long)]
    prefix: Option<String>,
    #[arg(long)]
    partition: u32,
    /// The record.
    #[arg(long, conflicts_with_all = ["from", "to"], required_unless_present = "from")]
    offset: Option<u64>,
    /// Count what matches from this offset on.
    #[arg(long)]
    from: Option<u64>,
    /// Up to this offset, which is not in the range; without it to the end.
    #[arg(long, requires = "from")]
    to: Option<u64>,
}

/// Answers.
///
/// # Errors
///
/// What keeps it from being answered.
pub fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let answer = match &args.connection {
        Some(_) => ask_replica(&args)?,
        None => ask_kafka(&args)?,
    };
    if let Some(sentence) = answer["sentence"].as_str() {
        eprintln!("{sentence}");
    }
    println!("{answer:#}");
    Ok(ExitCode::SUCCESS)
}

fn body(args: &ExplainArgs) -> ExplainBody {
    ExplainBody {
        connection: args.connection.clone(),
        token: None,
        channel: args.channel.clone(),
        keys: (!args.key.is_empty()).then(|| args.key.clone()),
        prefix: args.prefix.clone(),
        partition: args.partition,
        offset: args.offset,
        from: args.from,
        to: args.to,
    }
}

/// Reads the configuration and asks Kafka.
fn ask_kafka(args: &ExplainArgs) -> anyhow::Result<Value> {
    let token = match (&args.token_file, &args.token) {
        (Some(file), _) => read_secret(file)?,
        (None, Some(token)) => token.clone(),
        (None, None) => bail!("name a client: --connection, --token-file or BRUCKE_TOKEN"),
    };
    let asked = Asked::read(&body(args)).map_err(anyhow::Error::msg)?;
    let config = config_command::load(args.config.config.as_deref())?;
    let verifier = Verifier::new(config.auth, config.channels.claims());
    let principal = match verifier.verify(&Token::new(token), explain::now()) {
        Ok(principal) => principal,
        Err(error) => return Ok(told::bad_token(&error)),
    };
    let sources = Sources { channels: Arc::new(config.channels), kafka: config.kafka };
    explain::answer(&sources, &Whose::Bearer(Arc::new(principal)), &asked)
}

/// Asks the admin interface, which alone knows the connection.
fn ask_replica(args: &ExplainArgs) -> anyhow::Result<Value> {
    let place = args.admin.strip_prefix("http://").context("--admin is http://host:port")?;
    let place = place.trim_end_matches('/');
    let authorization = match &args.admin_token_file {
        Some(file) => format!("Authorization: Bearer {}\r\n", read_secret(file)?),
        None => String::new(),
    };
    let asked = body(args);
    let asked = json!({
        "connection": asked.connection,
        "channel": asked.channel,
        "keys": asked.keys,
        "prefix": asked.prefix,
        "partition": asked.partition,
        "offset": asked.offset,
        "from": asked.from,
        "to": asked.to,
    });
    let asked = asked.to_string();
    let unreachable = || format!("{place} can't be reached; name it by --admin");
    let address = place.to_socket_addrs().with_context(unreachable)?.next();
    let address = address.with_context(unreachable)?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).with_context(unreachable)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    write!(
        stream,
        "POST /v1/explain HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n{authorization}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{asked}",
        asked.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("the replica does not answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the replica does not speak HTTP")?;
    let body: Value = serde_json::from_str(body).context("the replica does not answer in JSON")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{}", body["message"].as_str().unwrap_or("the replica refuses to answer"));
    }
    Ok(body)
}

fn read_secret(file: &PathBuf) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("{} can't be read", file.display()))?;
    Ok(text.trim().to_owned())
}

const DEFAULT_ADMIN: &str = "http://127.0.0.1:9090";
const TIMEOUT: Duration = Duration::from_secs(5);
/// Kafka is asked meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
