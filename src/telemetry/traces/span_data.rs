//! From notes of shards to OpenTelemetry's spans. `docs/tracing.md` lists the
//! attributes and is held to these by a test.

use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use opentelemetry::InstrumentationScope;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanContext;
use opentelemetry::trace::SpanId;
use opentelemetry::trace::SpanKind;
use opentelemetry::trace::Status;
use opentelemetry::trace::TraceFlags;
use opentelemetry::trace::TraceId;
use opentelemetry::trace::TraceState;
use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::trace::SpanEvents;
use opentelemetry_sdk::trace::SpanLinks;

use crate::delivery::span::Client;
use crate::delivery::span::Command;
use crate::delivery::span::CommandKind;
use crate::delivery::span::Deliver;
use crate::delivery::span::Fate;
use crate::delivery::span::Outcome;
use crate::delivery::span::Parent;
use crate::delivery::span::Path;
use crate::delivery::span::Process;
use crate::delivery::span::RecordRef;
use crate::delivery::span::SpanNote;
use crate::delivery::span::Work;
use crate::telemetry::events::Delivered;
use crate::types::ids::ConnectionId;

/// Tells times of the clock that never jumps as times of day.
#[derive(Debug, Clone, Copy)]
pub(in crate::telemetry::traces) struct TimeOfDay {
    instant: Instant,
    system: SystemTime,
}

impl TimeOfDay {
    /// Compares both clocks now.
    pub(in crate::telemetry::traces) fn now() -> Self {
        Self { instant: Instant::now(), system: SystemTime::now() }
    }

    fn of(self, at: Instant) -> SystemTime {
        match at.checked_duration_since(self.instant) {
            Some(later) => self.system + later,
            None => self.system - self.instant.saturating_duration_since(at),
        }
    }
}

/// Returns the span of a note; `cluster` is what Kafka calls the cluster, once it is
/// known.
pub(in crate::telemetry::traces) fn span_data(
    note: SpanNote,
    clock: TimeOfDay,
    cluster: Option<&str>,
) -> SpanData {
    let trace_id = TraceId::from(note.trace.as_u128());
    let (parent, parent_span_is_remote) = match note.parent {
        Parent::None => (SpanId::INVALID, false),
        Parent::Here(span) => (SpanId::from(span.as_u64()), false),
        Parent::Elsewhere(span) => (SpanId::from(span.as_u64()), true),
    };
    let told = match note.work {
        Work::Process(process) => process_of(process, cluster),
        Work::Deliver(deliver) => {
            Delivered { trace: note.trace, deliver: &deliver }.emit();
            deliver_of(&deliver)
        }
        Work::Client(client) => client_of(&client),
        Work::Ack(ack) => {
            let mut attributes = vec![channel(ack.channel.as_str())];
            attributes.extend(record(ack.record));
            attributes.push(connection(ack.connection));
            Told::new(format!("ack {}", ack.channel), attributes)
        }
        Work::Command(command) => command_of(command),
    };
    SpanData {
        span_context: SpanContext::new(
            trace_id,
            SpanId::from(note.span.as_u64()),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: parent,
        parent_span_is_remote,
        span_kind: told.kind,
        name: told.name.into(),
        start_time: clock.of(note.started),
        end_time: clock.of(note.ended),
        attributes: told.attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: told.status,
        instrumentation_scope: scope(),
    }
}

/// Returns the name of what makes spans here.
pub(in crate::telemetry::traces) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("brucke").with_version(env!("CARGO_PKG_VERSION")).build()
}

/// What is told of a piece of work.
struct Told {
    name: String,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
    status: Status,
}

impl Told {
    fn new(name: String, attributes: Vec<KeyValue>) -> Self {
        Self { name, kind: SpanKind::Internal, attributes, status: Status::Unset }
    }
}

fn process_of(process: Process, cluster: Option<&str>) -> Told {
    let Process { topic, record: place, timestamp, key, feeds, path } = process;
    let name = format!("process {topic}");
    let mut attributes = vec![
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("messaging.destination.name", topic.to_string()),
    ];
    attributes.extend(record(place));
    if let Some(cluster) = cluster {
        attributes.push(KeyValue::new("messaging.kafka.cluster.id", cluster.to_owned()));
    }
    if let Some(key) = key {
        let key = String::from_utf8_lossy(&key).into_owned();
        attributes.push(KeyValue::new("messaging.kafka.message.key", key));
    }
    attributes.push(KeyValue::new("brucke.record.timestamp_ms", timestamp.as_millis()));
    attributes.push(KeyValue::new("brucke.feeds", i64::from(feeds)));
    attributes.push(path_of(path));
    Told { kind: SpanKind::Consumer, ..Told::new(name, attributes) }
}

fn deliver_of(deliver: &Deliver) -> Told {
    let mut attributes = vec![channel(deliver.channel.as_str())];
    attributes.extend(record(deliver.record));
    attributes.extend([
        KeyValue::new("brucke.frame.records", i64::from(deliver.records)),
        KeyValue::new("brucke.matched", i64::from(deliver.matched)),
        KeyValue::new("brucke.sent", i64::from(deliver.sent)),
        KeyValue::new("brucke.behind", i64::from(deliver.behind)),
        path_of(deliver.path),
    ]);
    Told::new(format!("deliver {}", deliver.channel), attributes)
}

fn client_of(client: &Client) -> Told {
    let mut attributes = vec![channel(client.channel.as_str())];
    attributes.extend(record(client.record));
    let (fate, status) = match client.fate {
        Fate::Written => ("written", Status::Unset),
        Fate::Lost => ("lost", Status::error("the connection ended before it was written")),
    };
    attributes.extend([
        connection(client.connection),
        KeyValue::new("brucke.encode_us", micros(client.encode)),
        KeyValue::new("brucke.queue_wait_us", micros(client.queue_wait)),
        KeyValue::new("brucke.write_us", micros(client.write)),
        KeyValue::new("brucke.fate", fate),
    ]);
    Told { status, ..Told::new(format!("client {}", client.channel), attributes) }
}

fn command_of(command: Command) -> Told {
    let kind = match command.kind {
        CommandKind::Authenticate => "authenticate",
        CommandKind::Subscribe => "subscribe",
        CommandKind::Resume => "resume",
    };
    let mut attributes = vec![connection(command.connection)];
    let (outcome, status) = match command.outcome {
        Outcome::Done => ("done", Status::Unset),
        Outcome::GivenUp => ("given_up", Status::Unset),
        Outcome::Refused(code) => {
            attributes.push(KeyValue::new("error.type", code.name()));
            ("refused", Status::error(code.name()))
        }
    };
    attributes.push(KeyValue::new("brucke.outcome", outcome));
    // The channel of a request that was refused may be any text of a client's.
    let known = command.channel.filter(|_| !matches!(command.outcome, Outcome::Refused(_)));
    let name = match &known {
        Some(name) => {
            attributes.push(channel(name.as_str()));
            format!("{kind} {name}")
        }
        None => kind.to_owned(),
    };
    Told { status, ..Told::new(name, attributes) }
}

fn channel(name: &str) -> KeyValue {
    KeyValue::new("brucke.channel", name.to_owned())
}

fn connection(id: ConnectionId) -> KeyValue {
    KeyValue::new("brucke.connection", id.to_string())
}

fn record(record: RecordRef) -> [KeyValue; 2] {
    [
        KeyValue::new("messaging.destination.partition.id", record.partition.to_string()),
        KeyValue::new("messaging.kafka.offset", record.offset.as_kafka()),
    ]
}

fn path_of(path: Path) -> KeyValue {
    let path = match path {
        Path::Live => "live",
        Path::CatchUp => "catch_up",
    };
    KeyValue::new("brucke.path", path)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::delivery::span::Ack;
    use crate::protocol::error_code::ErrorCode;
    use crate::types::ids::ChannelName;
    use crate::types::ids::Offset;
    use crate::types::ids::PartitionId;
    use crate::types::ids::Timestamp;
    use crate::types::ids::TopicName;
    use crate::types::trace;

    const PAGE: &str = include_str!("../../../docs/tracing.md");

    fn note(work: Work) -> SpanNote {
        let started = Instant::now();
        SpanNote {
            trace: trace::TraceId::from_number(0xabc).expect("not zero"),
            span: trace::SpanId::from_number(0x1).expect("not zero"),
            parent: Parent::Elsewhere(trace::SpanId::from_number(0x2).expect("not zero")),
            started,
            ended: started + Duration::from_millis(3),
            work,
        }
    }

    fn place() -> RecordRef {
        RecordRef { partition: PartitionId::from_index(3), offset: Offset::ZERO }
    }

    fn subscribe(outcome: Outcome) -> Work {
        let channel = Some(ChannelName::new("feed"));
        let connection = ConnectionId::new(7);
        Work::Command(Command { kind: CommandKind::Subscribe, connection, channel, outcome })
    }

    /// Returns one work of each kind.
    fn all() -> Vec<Work> {
        let (channel, connection) = (ChannelName::new("feed"), ConnectionId::new(7));
        vec![
            Work::Process(Process {
                topic: TopicName::new("orders"),
                record: place(),
                timestamp: Timestamp::from_millis(5),
                key: Some(Box::from(&b"key"[..])),
                feeds: 2,
                path: Path::Live,
            }),
            Work::Deliver(Deliver {
                channel: channel.clone(),
                record: place(),
                path: Path::CatchUp,
                records: 1,
                matched: 3,
                sent: 2,
                behind: 1,
            }),
            Work::Client(Client {
                channel: channel.clone(),
                record: place(),
                connection,
                queue_wait: Duration::from_micros(4),
                encode: Duration::from_micros(5),
                write: Duration::from_micros(6),
                fate: Fate::Lost,
            }),
            Work::Ack(Ack { channel, record: place(), connection }),
            subscribe(Outcome::Done),
            subscribe(Outcome::Refused(ErrorCode::ChannelForbidden)),
        ]
    }

    #[test]
    fn every_attribute_is_documented_and_none_else() {
        let clock = TimeOfDay::now();
        let spans = all().into_iter().map(|work| span_data(note(work), clock, Some("c")));
        let mut made: BTreeSet<String> =
            spans.flat_map(|span| span.attributes).map(|told| told.key.to_string()).collect();
        // The handshake's are not made of notes.
        made.extend(["http.request.method", "http.response.status_code"].map(str::to_owned));
        let (_, table) = PAGE.split_once("| attribute |").expect("a table of attributes");
        let (table, _) = table.split_once("\n\n").expect("the table ends");
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
        let told = rows.filter_map(|row| row.split_once('`')).map(|(name, _)| name.to_owned());
        assert_eq!(told.collect::<BTreeSet<_>>(), made);
    }

    #[test]
    fn every_variable_that_is_read_is_documented() {
        let code = include_str!("settings.rs");
        let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
        let names = code.match_indices("\"OTEL_").map(|(at, _)| {
            let name = &code[at + 1..];
            &name[..name.find(|c| !is_name(c)).unwrap_or(name.len())]
        });
        for name in names {
            assert!(PAGE.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn a_note_becomes_a_span_with_its_ids_and_times() {
        let clock = TimeOfDay::now();
        let span = span_data(note(all().remove(0)), clock, None);
        assert_eq!(span.name, "process orders");
        assert_eq!(span.span_kind, SpanKind::Consumer);
        assert_eq!(span.span_context.trace_id().to_string(), format!("{:032x}", 0xabc));
        assert_eq!(span.parent_span_id.to_string(), format!("{:016x}", 2));
        assert!(span.parent_span_is_remote && span.span_context.is_sampled());
        let took = span.end_time.duration_since(span.start_time).expect("in order");
        assert_eq!(took, Duration::from_millis(3));
    }

    #[test]
    fn the_channel_of_a_refused_request_is_not_told() {
        let refused = subscribe(Outcome::Refused(ErrorCode::ChannelForbidden));
        let span = span_data(note(refused), TimeOfDay::now(), None);
        assert_eq!(span.name, "subscribe");
        assert!(!format!("{span:?}").contains("feed"), "{span:?}");
        let done = span_data(note(subscribe(Outcome::Done)), TimeOfDay::now(), None);
        assert_eq!(done.name, "subscribe feed");
    }
}
