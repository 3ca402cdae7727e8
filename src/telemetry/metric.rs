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
    /// The names of its labels, whose values are bounded: our own words, or names
    /// of topics, channels and tenants up to a limit that is configured.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

macro_rules! metrics {
    ($($([$($label:ident),+])? $kind:ident $constant:ident = $name:literal: $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: &str = $name;
        )+

        /// Every metric, in the order of the documentation.
        pub const ALL: &[Metric] = &[
            $(Metric {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($(stringify!($label)),+)?],
                help: $help,
            },)+
        ];
    };
}

metrics! {
    Gauge CONNECTIONS = "brucke_connections": "WebSocket connections now.";
    Gauge CONNECTIONS_LIMIT = "brucke_connections_limit": "WebSocket connections that there may be, by `server.connections_max`.";
    Counter CONNECTIONS_OPENED = "brucke_connections_opened_total": "Requests that became a WebSocket.";
    Gauge SUBSCRIPTIONS = "brucke_subscriptions": "Subscriptions now.";
    Gauge FEEDS = "brucke_feeds": "Feeds now: what equal subscriptions of one worker share.";
    Gauge UNSENT_BYTES = "brucke_unsent_bytes": "Bytes of frames that wait for clients to read.";
    Counter HANDSHAKES_DELAYED = "brucke_handshakes_delayed_total": "Requests for a WebSocket that waited for their turn, by `server.connections_per_second`.";
    [reason] Counter HANDSHAKE_REFUSALS = "brucke_handshake_refusals_total": "Requests that did not become a WebSocket, by reason.";
    [outcome] Counter TLS_CERTIFICATE_LOADS = "brucke_tls_certificate_loads_total": "Pairs of certificate and key that were read at the start or after their files changed: `taken` for new handshakes, or `refused`, and then the one before stays in force.";
    Gauge TLS_CERTIFICATE_NOT_AFTER = "brucke_tls_certificate_not_after_timestamp_seconds": "When the certificate of the clients' listener ends, in seconds since 1970; 0 without TLS.";
    [code] Counter REFUSALS = "brucke_refusals_total": "Error frames sent to clients, by code.";
    [reason] Counter TOKEN_REFUSALS = "brucke_token_refusals_total": "Tokens that were refused, however they came, by reason.";
    [code] Counter CLOSES = "brucke_closes_total": "Connections that the server closed, by the name of the close code.";
    Counter RECORDS_MATCHED = "brucke_records_matched_total": "Records that were matched against live subscriptions; each worker that follows the topic counts a record once.";
    Counter DELIVERIES = "brucke_deliveries_total": "Records put on their way to a client, once for each client.";
    Counter FRAMES = "brucke_frames_total": "Frames put on their way to a client, once for each client.";
    Counter FRAMES_ENCODED = "brucke_frames_encoded_total": "Frames that were encoded; all others were shared.";
    Counter FRAME_BYTES = "brucke_frame_bytes_total": "Bytes of frames put on their way to clients.";
    Counter SOCKET_WRITES = "brucke_socket_writes_total": "Writes to sockets of clients.";
    Counter SOCKET_WRITTEN_BYTES = "brucke_socket_written_bytes_total": "Bytes that sockets of clients took.";
    Counter SOCKET_READ_BYTES = "brucke_socket_read_bytes_total": "Bytes that clients sent.";
    Gauge SUBSCRIPTIONS_BEHIND = "brucke_subscriptions_behind": "Subscriptions that read the log at a cursor of their own, because they catch up or their client reads slowly.";
    Gauge CLIENTS_BEHIND = "brucke_clients_behind": "Connections with a subscription that is behind, as last looked at, once a second.";
    Gauge BEHIND_RECORDS = "brucke_behind_records": "Offsets between the cursors of all that are behind and what their worker has served.";
    [worker] Gauge BEHIND_RECORDS_MAX = "brucke_behind_records_max": "The same, of the one subscription of each worker that is furthest behind.";
    [worker] Gauge BEHIND_LONGEST = "brucke_behind_longest_seconds": "How long the subscription of each worker is behind that has been so for longest.";
    Counter FELL_BEHIND = "brucke_fell_behind_total": "Live subscriptions that fell behind.";
    Counter BECAME_LIVE = "brucke_became_live_total": "Subscriptions that caught up.";
    [reason] Counter GAPS = "brucke_gaps_total": "Gaps told to clients, by reason.";
    Histogram RECEIVE_LATENCY = "brucke_receive_latency_seconds": "From the timestamp of the newest record of a batch to its arrival in memory. Topics stamped by producers include what producers wait, and the difference of the clocks.";
    Histogram DISPATCH_LATENCY = "brucke_dispatch_latency_seconds": "From the arrival of a batch in memory to the turn of a worker that matches and encodes it.";
    Histogram WRITE_LATENCY = "brucke_write_latency_seconds": "From the first unsent frame of records of a connection to the write that left nothing unsent.";
    Histogram ACKNOWLEDGE_LATENCY = "brucke_acknowledge_latency_seconds": "From a frame of records on its way to its acknowledgement, for subscriptions with a window.";
    Histogram DELIVERY_LATENCY = "brucke_delivery_latency_seconds": "From the timestamp of a record to its frame on the way to a client, once for each client that is live. Topics stamped by producers include what producers wait.";
    Counter KAFKA_RECORDS = "brucke_kafka_records_total": "Records that came from Kafka as they were written.";
    Counter KAFKA_BYTES = "brucke_kafka_bytes_total": "Bytes of them in memory, before they are encoded.";
    Counter KAFKA_HISTORY_RECORDS = "brucke_kafka_history_records_total": "Records read back from Kafka for clients that catch up.";
    Counter KAFKA_HISTORY_BYTES = "brucke_kafka_history_bytes_total": "Bytes of them in memory, before they are encoded.";
    Counter KAFKA_RECORDS_WITHOUT_TENANT = "brucke_kafka_records_without_tenant_total": "Records, of both, that went to nobody because their tenant could not be told.";
    Gauge READER_PARTITIONS = "brucke_reader_partitions": "Partitions that are read live.";
    Gauge READER_PARTITIONS_UNLOCATED = "brucke_reader_partitions_unlocated": "Of them, those that are not read yet: no broker has led them since this replica wants them.";
    [topic, partition] Gauge READER_LAG_RECORDS = "brucke_reader_lag_records": "Offsets that Kafka has committed and the live reader of the partition has not brought, as of the last statistics. Partitions beyond metrics.partitions_max are other, by their worst.";
    [topic, partition] Gauge READER_LAG_SECONDS = "brucke_reader_lag_seconds": "Age of the newest record that the live reader has brought, where it lags; 0 where it does not.";
    Gauge TAIL_BYTES = "brucke_tail_bytes": "Bytes of the newest records kept in memory.";
    Gauge TAIL_LIMIT_BYTES = "brucke_tail_limit_bytes": "Bytes of the newest records that may be kept.";
    Gauge TAIL_OFFSETS = "brucke_tail_offsets": "Offsets that the tails of all partitions cover.";
    Gauge HISTORY_BYTES = "brucke_history_bytes": "Bytes of records read back from Kafka kept in memory.";
    Gauge HISTORY_LIMIT_BYTES = "brucke_history_limit_bytes": "Bytes of records read back that may be kept.";
    Gauge HISTORY_SWEEPS = "brucke_history_sweeps": "Partitions of which history is wanted.";
    Gauge HISTORY_READINGS = "brucke_history_readings": "Chunks of history that are being read.";
    Gauge HISTORY_OFFSETS_WAITING = "brucke_history_offsets_waiting": "Offsets from which history is wanted; cursors at one offset count once.";
    Gauge CURSORS_WAITING = "brucke_cursors_waiting": "Cursors of subscriptions that wait for history.";
    [state] Gauge KAFKA_BROKERS = "brucke_kafka_brokers": "Brokers by the state of the best connection to them: up, connecting, down, or idle where none is needed.";
    Counter KAFKA_CONNECTS = "brucke_kafka_connects_total": "Connections to brokers that were tried.";
    [client] Counter KAFKA_RECEIVED_BYTES = "brucke_kafka_received_bytes_total": "Bytes that brokers sent, as they came: compressed, with what the protocol adds; a few seconds old. `client` is what they were read for: live, history, admin (questions about topics and offsets) or journal (revocations); what `explain` reads does not count.";
    Counter KAFKA_DISCONNECTS = "brucke_kafka_disconnects_total": "Connections to brokers that ended.";
    Counter KAFKA_REQUEST_ERRORS = "brucke_kafka_request_errors_total": "Requests to brokers that failed or timed out.";
    [error] Counter KAFKA_CLIENT_ERRORS = "brucke_kafka_client_errors_total": "What Kafka clients complained of by themselves, by kind.";
    [reason] Counter KAFKA_READ_STOPS = "brucke_kafka_read_stops_total": "Times that reading a partition, live or back, stopped and had to begin anew, by reason.";
    Gauge KAFKA_ROUND_TRIP = "brucke_kafka_round_trip_seconds": "99th percentile of a broker's answers, of the slowest broker. Fetches that wait for records count.";
    [worker] Gauge WORKER_CONNECTIONS = "brucke_worker_connections": "Connections of each worker.";
    [worker] Gauge WORKER_MAIL = "brucke_worker_mail": "Most events that lay in the mailbox of each worker at once, in the last second.";
    [worker] Gauge WORKER_RUNNABLE = "brucke_worker_runnable": "Subscriptions of each worker that are behind and wait for their turn.";
    [worker] Gauge WORKER_UNFINISHED = "brucke_worker_unfinished": "Partitions in which each worker has more to serve than one turn allowed.";
    [worker] Gauge WORKER_STALL = "brucke_worker_stall_seconds": "Longest time that the loop of each worker did not come round when it was due, in the last second.";
    [worker] Counter WORKER_STALLS = "brucke_worker_stalls_total": "Times that this was more than 100 ms.";
    [worker] Gauge WORKER_PULSE = "brucke_worker_pulse_seconds": "Since when the loop of each worker has not come round; it does so many times a second.";
    Gauge COMMANDS_WAITING = "brucke_commands_waiting": "Wishes of workers that wait for the Kafka side.";
    [tenant] Gauge TENANT_CONNECTIONS = "brucke_tenant_connections": "Connections of each tenant. Tenants beyond metrics.tenants_max are other.";
    [tenant] Gauge TENANT_SUBSCRIPTIONS = "brucke_tenant_subscriptions": "Subscriptions of each tenant.";
    [tenant] Gauge TENANT_SUBSCRIPTIONS_BEHIND = "brucke_tenant_subscriptions_behind": "Subscriptions of each tenant that are behind.";
    [tenant] Counter TENANT_DELIVERIES = "brucke_tenant_deliveries_total": "Records put on their way to clients of each tenant.";
    [tenant] Counter TENANT_BYTES = "brucke_tenant_frame_bytes_total": "Bytes of record frames put on their way to clients of each tenant.";
    [channel] Gauge CHANNEL_SUBSCRIPTIONS = "brucke_channel_subscriptions": "Subscriptions to each channel. Channels beyond metrics.channels_max are other.";
    [channel] Gauge CHANNEL_SUBSCRIPTIONS_BEHIND = "brucke_channel_subscriptions_behind": "Subscriptions to each channel that are behind.";
    [channel] Counter CHANNEL_DELIVERIES = "brucke_channel_deliveries_total": "Records of each channel put on their way to a client.";
    [channel] Counter CHANNEL_BYTES = "brucke_channel_frame_bytes_total": "Bytes of record frames of each channel put on their way to a client.";
    Gauge DRAINING = "brucke_draining": "1 from when this process was asked to end, and sends its clients away.";
    Gauge READY = "brucke_ready": "1 when this replica is ready, as /readyz has it.";
    Gauge TOPICS_FAILING = "brucke_topics_failing": "Topics that can't be read now, also those named after a tenant; /readyz names those that the configuration names.";
    Gauge CHANNELS_FAILING = "brucke_channels_failing": "Channels whose topic the configuration names, and that can't be served now because it is missing, hidden or unusable; /readyz names the topics. Brokers that do not answer count elsewhere.";
    Counter SPANS_EXPORTED = "brucke_spans_exported_total": "Spans of traces that the collector took.";
    [reason] Counter SPANS_DROPPED = "brucke_spans_dropped_total": "Spans of traces that were lost: `queue_full` and `export_failed` by a collector that is slow or gone, `shard_full` by more traced records than a worker notes. Records are never lost for them.";
    Gauge REVOCATIONS = "brucke_revocations": "Tokens and subjects that are revoked at this replica.";
    Gauge REVOCATIONS_UNREAD = "brucke_revocations_unread": "1 while this replica does not hear what is revoked at others: `admin.revocations_topic` was not read to its end, or can't be read any more; 0 without one.";
    [reason] Counter REVOCATIONS_IGNORED = "brucke_revocations_ignored_total": "Records of that topic that were left out: `unreadable`, or `limit` where too many are revoked already.";
    [outcome] Counter CONFIG_RELOADS = "brucke_config_reloads_total": "Times that the configuration was loaded anew, on SIGHUP or for a change, by what came of it: `applied`, `unchanged` or `refused`.";
    Gauge CONFIG_REFUSED = "brucke_config_refused": "1 while the configuration can't be used as it stands, and one from before is in force.";
    Gauge CONFIG_RESTART_NEEDED = "brucke_config_restart_needed": "Keys whose values, or what their files hold, have changed and count only once the process is started anew; its log names them.";
    Gauge CONFIG_LOADED_AT = "brucke_config_loaded_time_seconds": "When the configuration was last loaded and could be used, in seconds since 1970.";
    [version] Gauge BUILD_INFO = "brucke_build_info": "Always 1; says which version runs.";
    Counter PROCESS_CPU = "process_cpu_seconds_total": "Seconds of processor time that the process has used.";
    Gauge PROCESS_RESIDENT = "process_resident_memory_bytes": "Bytes of memory that the process has in use.";
    Gauge PROCESS_VIRTUAL = "process_virtual_memory_bytes": "Bytes of addresses that the process has.";
    Gauge PROCESS_VIRTUAL_MAX = "process_virtual_memory_max_bytes": "Bytes of addresses that the process may have.";
    Gauge PROCESS_FDS = "process_open_fds": "Descriptors that the process has open.";
    Gauge PROCESS_FDS_MAX = "process_max_fds": "Descriptors that the process may have open.";
    Gauge PROCESS_THREADS = "process_threads": "Threads of the process.";
    Gauge PROCESS_START = "process_start_time_seconds": "When the process began, in seconds since 1970.";
}
