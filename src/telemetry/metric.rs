//! The one table of metrics. `docs/metrics.md` is held to it by a test.

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// What is now.
    Gauge,
    /// How often values fell below each bound.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// The name of its label, whose values are few and our own.
    pub label: Option<&'static str>,
    pub help: &'static str,
}

macro_rules! metrics {
    ($($(#[label = $label:literal])? $kind:ident $constant:ident = $name:literal: $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: &str = $name;
        )+

        /// Every metric, in the order of the documentation.
        pub const ALL: &[Metric] = &[
            $(Metric {
                name: $name,
                kind: Kind::$kind,
                label: metrics!(@label $($label)?),
                help: $help,
            },)+
        ];
    };
    (@label) => { None };
    (@label $label:literal) => { Some($label) };
}

metrics! {
    Gauge CONNECTIONS = "brucke_connections": "WebSocket connections now.";
    Counter CONNECTIONS_OPENED = "brucke_connections_opened_total": "Requests that became a WebSocket.";
    Gauge SUBSCRIPTIONS = "brucke_subscriptions": "Subscriptions now.";
    Gauge SUBSCRIPTIONS_BEHIND = "brucke_subscriptions_behind": "Subscriptions that read the log at a cursor of their own, because they catch up or their client reads slowly.";
    Gauge FEEDS = "brucke_feeds": "Feeds now: what equal subscriptions of one worker share.";
    Gauge UNSENT_BYTES = "brucke_unsent_bytes": "Bytes of frames that wait for clients to read.";
    #[label = "reason"]
    Counter HANDSHAKE_REFUSALS = "brucke_handshake_refusals_total": "Requests that did not become a WebSocket, by reason.";
    #[label = "code"]
    Counter REFUSALS = "brucke_refusals_total": "Error frames sent to clients, by code.";
    #[label = "reason"]
    Counter TOKEN_REFUSALS = "brucke_token_refusals_total": "Tokens that were refused, however they came, by reason.";
    #[label = "code"]
    Counter CLOSES = "brucke_closes_total": "Connections that the server closed, by the name of the close code.";
    Counter RECORDS_MATCHED = "brucke_records_matched_total": "Records that were matched against live subscriptions; each worker that follows the topic counts a record once.";
    Counter DELIVERIES = "brucke_deliveries_total": "Records put on their way to a client, once for each client.";
    Counter FRAMES = "brucke_frames_total": "Frames put on their way to a client, once for each client.";
    Counter FRAMES_ENCODED = "brucke_frames_encoded_total": "Frames that were encoded; all others were shared.";
    Counter FRAME_BYTES = "brucke_frame_bytes_total": "Bytes of frames put on their way to clients.";
    Counter SOCKET_WRITES = "brucke_socket_writes_total": "Writes to sockets of clients.";
    Counter SOCKET_WRITTEN_BYTES = "brucke_socket_written_bytes_total": "Bytes that sockets of clients took.";
    Counter SOCKET_READ_BYTES = "brucke_socket_read_bytes_total": "Bytes that clients sent.";
    Counter FELL_BEHIND = "brucke_fell_behind_total": "Live subscriptions that fell behind.";
    Counter BECAME_LIVE = "brucke_became_live_total": "Subscriptions that caught up.";
    #[label = "reason"]
    Counter GAPS = "brucke_gaps_total": "Gaps told to clients, by reason.";
    Histogram DELIVERY_LATENCY = "brucke_delivery_latency_seconds": "From the timestamp of a record to the write to a client's socket, for live subscriptions; under load a sample of them. Topics stamped by producers include what producers wait.";
    Counter KAFKA_RECORDS = "brucke_kafka_records_total": "Records that came from Kafka as they were written.";
    Counter KAFKA_HISTORY_RECORDS = "brucke_kafka_history_records_total": "Records read back from Kafka for clients that catch up.";
    Counter KAFKA_RECORDS_WITHOUT_TENANT = "brucke_kafka_records_without_tenant_total": "Records, of both, that went to nobody because their tenant could not be told.";
    Gauge TAIL_BYTES = "brucke_tail_bytes": "Bytes of the newest records kept in memory.";
    Gauge TAIL_LIMIT_BYTES = "brucke_tail_limit_bytes": "Bytes of the newest records that may be kept.";
    Gauge HISTORY_BYTES = "brucke_history_bytes": "Bytes of records read back from Kafka kept in memory.";
    Gauge HISTORY_LIMIT_BYTES = "brucke_history_limit_bytes": "Bytes of records read back that may be kept.";
    Gauge READY = "brucke_ready": "1 when this replica is ready, as /readyz has it.";
    Gauge TOPICS_FAILING = "brucke_topics_failing": "Topics that can't be read now; /readyz names them.";
    Counter SPANS_EXPORTED = "brucke_spans_exported_total": "Spans of traces that the collector took.";
    #[label = "reason"]
    Counter SPANS_DROPPED = "brucke_spans_dropped_total": "Spans of traces that were lost: `queue_full` and `export_failed` by a collector that is slow or gone, `shard_full` by more traced records than a worker notes. Records are never lost for them.";
    #[label = "version"]
    Gauge BUILD_INFO = "brucke_build_info": "Always 1; says which version runs.";
}

/// Upper bounds of the buckets of latencies, in seconds.
pub const LATENCY_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
