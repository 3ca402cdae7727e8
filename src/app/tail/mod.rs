//! `brucke tail`: follows a channel from a terminal, through the public
//! protocol and nothing else.
//!
//! Records go to stdout, one JSON object a line; all else goes to stderr.

pub mod line;
pub mod state;

use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::io::BufWriter;
use std::io::ErrorKind;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::bail;
use bytes::Bytes;
use clap::builder::NonEmptyStringValueParser;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::app::tail::line::Line;
use crate::app::tail::state::StateFile;
use crate::app::tail::state::Subject;
use crate::client::credentials::Credentials;
use crate::client::follow::Event;
use crate::client::follow::FollowError;
use crate::client::follow::Follower;
use crate::client::follow::Wish;
use crate::client::trust::Trust;
use crate::protocol::frame::Gap;
use crate::protocol::frame::GapReason;
use crate::protocol::frame::OnGap;
use crate::protocol::frame::StartAt;
use crate::protocol::frame::Token;
use crate::protocol::json::time::read_duration;
use crate::protocol::json::time::read_timestamp;
use crate::protocol::message::OwnedRecord;
use crate::types::filter::KeyFilter;
use crate::types::ids::ChannelName;
use crate::types::ids::PartitionId;
use crate::types::positions::Place;
use crate::types::positions::Positions;

/// Follow a channel: records as JSON lines on stdout, all else on stderr.
///
/// Exit code: 0 after Ctrl-C, --count or a closed pipe; 1 when it can't go on;
/// 2 for wrong arguments; 3 when the server left offsets unaccounted for.
#[derive(Debug, clap::Args)]
pub struct TailArgs {
    /// The channel to follow.
    channel: String,
    /// Address of a replica; may be repeated, they are tried in turn.
    #[arg(long, env = "BRUCKE_URL", default_value = DEFAULT_URL, value_parser = parse_url)]
    url: Vec<String>,
    /// Token to show; better named in the environment, where `ps` can't see it.
    #[arg(long, env = "BRUCKE_TOKEN", hide_env_values = true, value_parser = parse_token)]
    token: Option<Token>,
    /// File that holds the token and is read again when it runs out; wins over
    /// --token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates (PEM) that vouch for a server at wss://, instead of the
    /// system's: for one with a certificate of your own.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Only records with this key; may be repeated.
    #[arg(long, conflicts_with = "prefix")]
    key: Vec<String>,
    /// Only records whose key begins so.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    prefix: Option<String>,
    /// Where to start: latest, earliest, so long ago (15m), or a moment
    /// (2026-11-23T08:00:00Z).
    #[arg(long, default_value = "latest", value_parser = parse_start)]
    from: StartAt,
    /// Remember in FILE what was printed, and go on there, whatever --from says.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// End after so many records.
    #[arg(long)]
    count: Option<u64>,
}

/// Follows the channel until something ends it.
///
/// # Errors
///
/// What keeps it from going on, but for a broken promise of the server's, which
/// has an exit code of its own.
pub fn run(args: TailArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(follow(args))
}

async fn follow(args: TailArgs) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let subject = Subject {
        channel: args.channel.clone(),
        keys: args.key.clone(),
        prefix: args.prefix.clone(),
    };
    let state = args.state.as_ref().map(|path| StateFile::open(path, subject)).transpose()?;
    let left = args.count.unwrap_or(u64::MAX);
    let trust = args.ca_file.as_deref().map_or(Ok(Trust::System), Trust::read);
    let trust = trust.context("can't use --ca-file")?;
    let wish = wish(args, state.as_ref());
    let mut follower = Follower::new(wish, fastrand::u64(..)).with_trust(trust);
    let mut output = Output { stdout: BufWriter::new(io::stdout()), state, left };
    while output.left > 0 {
        let event = tokio::select! {
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            event = follower.next() => event,
        };
        let event = match event {
            Ok(event) => event,
            Err(error) => return failed(error, follower.place()),
        };
        match output.take(event, follower.place()) {
            Ok(()) => {}
            Err(error) if is_closed_pipe(&error) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(error),
        }
    }
    follower.close().await;
    Ok(ExitCode::SUCCESS)
}

fn wish(args: TailArgs, state: Option<&StateFile>) -> Wish {
    let credentials = match (args.token_file, args.token) {
        (Some(file), _) => Credentials::File(file),
        (None, Some(token)) => Credentials::Fixed(token),
        (None, None) => Credentials::Anonymous,
    };
    let filter = match args.prefix {
        Some(prefix) => KeyFilter::Prefix(Bytes::from(prefix)),
        None if args.key.is_empty() => KeyFilter::All,
        None => KeyFilter::keys(args.key.into_iter().map(Bytes::from)),
    };
    let place = state.and_then(StateFile::place).cloned();
    Wish {
        urls: args.url,
        credentials,
        channel: ChannelName::new(args.channel),
        filter,
        from: place.map_or(args.from, StartAt::Place),
        on_gap: OnGap::Continue,
    }
}

/// Where events end up.
struct Output {
    stdout: BufWriter<io::Stdout>,
    state: Option<StateFile>,
    /// Records that may still be printed.
    left: u64,
}

impl Output {
    /// Prints an event, then remembers `place`, which is behind it.
    fn take(&mut self, event: Event, place: Option<&Place>) -> anyhow::Result<()> {
        let mut place = place.cloned();
        match event {
            Event::Records { partition, records, .. } => {
                let end = self.print(partition, &records)?;
                if let (Some(place), Some(last)) = (&mut place, end) {
                    place.positions.insert(partition, last.offset.next());
                }
            }
            Event::Progress => {}
            event => report(&event),
        }
        if let (Some(state), Some(place)) = (&mut self.state, place) {
            state.save(&place)?;
        }
        Ok(())
    }

    /// Prints records. Returns the last one printed when more were there.
    fn print<'a>(
        &mut self,
        partition: PartitionId,
        records: &'a [OwnedRecord],
    ) -> anyhow::Result<Option<&'a OwnedRecord>> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX);
        let printed = &records[..records.len().min(room)];
        for record in printed {
            serde_json::to_writer(&mut self.stdout, &Line::new(partition, record))?;
            self.stdout.write_all(b"\n")?;
        }
        self.stdout.flush()?;
        self.left -= printed.len() as u64;
        Ok(printed.last().filter(|_| printed.len() < records.len()))
    }
}

/// Says on stderr what is no record.
fn report(event: &Event) {
    match event {
        Event::Subscribed { url, place } => say(format_args!(
            "subscribed at {} of topic {} on {url}",
            listed(&place.positions),
            place.topic_id
        )),
        Event::Live => say("live: caught up with the newest records"),
        Event::Gap(gap) => say(described(gap)),
        Event::Expiring { .. } => say("the token runs out soon, and there is no other"),
        Event::Complaint(error) => say(format_args!("{}: {}", error.code.name(), error.message)),
        Event::Refused { why, wait } => {
            say(format_args!("not subscribed: {why}; next attempt in {} ms", wait.as_millis()));
        }
        Event::Waiting { why, wait } => {
            say(format_args!("no connection: {why}; next attempt in {} ms", wait.as_millis()));
        }
        Event::Records { .. } | Event::Progress => {}
    }
}

fn described(gap: &Gap) -> String {
    let Gap { partition, from, to, reason, .. } = gap;
    let name = reason.name();
    match reason {
        GapReason::Retention | GapReason::Skipped => {
            format!("gap ({name}): partition {partition}, offsets {from} to {to} are gone")
        }
        GapReason::Truncated | GapReason::TopicRecreated => {
            format!("gap ({name}): partition {partition} ended at {from} and goes on at {to}")
        }
    }
}

/// Says why it can't go on; a broken promise is said loudly.
fn failed(error: FollowError, place: Option<&Place>) -> anyhow::Result<ExitCode> {
    match error {
        FollowError::Violation(_) | FollowError::Stranger(_) => {}
        FollowError::NoToken(_) => bail!("can't go on: {error}: --token-file or BRUCKE_TOKEN"),
        error => return Err(error).context("can't go on"),
    }
    say(format_args!("THE SERVER BROKE ITS PROMISE: {error}"));
    let proven = place.map_or_else(String::new, |place| listed(&place.positions));
    say(format_args!("records may be lost; proven up to {proven}. Please report this"));
    Ok(ExitCode::from(EXIT_VIOLATION))
}

fn say(what: impl Display) {
    eprintln!("brucke tail: {what}");
}

fn listed(positions: &Positions) -> String {
    let pairs: Vec<String> = positions.iter().map(|(p, o)| format!("{p}:{o}")).collect();
    if pairs.is_empty() { "no partition".to_owned() } else { pairs.join(" ") }
}

/// Says whether the reader of stdout went away, such as `head`.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let json =
            cause.downcast_ref::<serde_json::Error>().and_then(|error| error.io_error_kind());
        io.or(json) == Some(ErrorKind::BrokenPipe)
    })
}

/// Reads an address; the path may be left out.
fn parse_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("ws://").or_else(|| text.strip_prefix("wss://"));
    match rest.map(|rest| rest.find('/').map_or("", |at| &rest[at..])) {
        None => Err("an address begins with ws:// or wss://".to_owned()),
        Some("" | "/") => Ok(format!("{}{PATH}", text.trim_end_matches('/'))),
        Some(_) => Ok(text.to_owned()),
    }
}

fn parse_token(text: &str) -> Result<Token, Infallible> {
    Ok(Token::new(text.to_owned()))
}

fn parse_start(text: &str) -> Result<StartAt, String> {
    match text {
        "latest" => Ok(StartAt::Latest),
        "earliest" => Ok(StartAt::Earliest),
        _ => read_duration(text)
            .map(StartAt::Ago)
            .or_else(|| read_timestamp(text).map(StartAt::Timestamp))
            .ok_or_else(|| {
                "latest, earliest, a duration (15m) or a moment (2026-11-23T08:00:00Z)".to_owned()
            }),
    }
}

/// Where a server listens that was not told otherwise.
const DEFAULT_URL: &str = "ws://127.0.0.1:8080";
/// The path of the protocol's WebSocket.
const PATH: &str = "/v1/ws";
/// Exit code for a server that left offsets unaccounted for.
const EXIT_VIOLATION: u8 = 3;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    use crate::types::ids::Timestamp;

    #[test]
    fn a_start_is_a_word_a_duration_or_a_moment() {
        let moment = StartAt::Timestamp(Timestamp::from_millis(1_795_420_800_000));
        for (text, start) in [
            ("latest", StartAt::Latest),
            ("earliest", StartAt::Earliest),
            ("15m", StartAt::Ago(Duration::from_secs(900))),
            ("2026-11-23T08:00:00Z", moment),
        ] {
            assert_eq!(parse_start(text), Ok(start));
        }
        assert!(parse_start("yesterday").is_err());
    }

    #[test]
    fn the_path_of_an_address_may_be_left_out() {
        for (text, url) in [
            ("ws://a:1", "ws://a:1/v1/ws"),
            ("wss://a/", "wss://a/v1/ws"),
            ("ws://a/feeds/v1/ws", "ws://a/feeds/v1/ws"),
        ] {
            assert_eq!(parse_url(text).as_deref(), Ok(url));
        }
        assert!(parse_url("http://a").is_err());
    }
}
