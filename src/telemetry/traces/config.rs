//! What an operator may set about traces.

use std::cmp::Ordering;
use std::time::Duration;

use crate::types::setting::Form;
use crate::types::setting::Raw;
use crate::types::setting::Refusal;
use crate::types::setting::Setting;
use crate::types::setting::Written;
use crate::types::setting::default;
use crate::types::setting::settings;
use crate::types::setting::unset;
use crate::types::trace::Share;

settings! {
    /// Traces, sent to a collector by OTLP. The variables of OpenTelemetry
    /// (`OTEL_…`) count more than what stands here; `docs/tracing.md` lists those
    /// that are read.
    pub struct TracingConfig {
        /// `"otlp"` sends traces, `"none"` does not, and then no record is looked at
        /// for them. Absent: they are sent where an endpoint is named, here or by
        /// `OTEL_EXPORTER_OTLP_ENDPOINT`.
        pub exporter: Option<TraceExporter> = unset("otlp"),
        /// URL of the collector. With `"http/protobuf"`, `/v1/traces` is added where
        /// it has no path. Absent: port 4317 or 4318 of this machine, by protocol.
        pub endpoint: Option<CollectorUrl> = unset("http://collector:4317"),
        /// `"grpc"` or `"http/protobuf"`.
        pub protocol: TraceProtocol = default("grpc"),
        /// Name of the service in traces.
        pub service_name: String = default("brucke"),
        /// Share of the records, and of the handshakes, that begin a trace here
        /// because whoever sent them says nothing of one, such as `"1%"`. Where the
        /// sender does say, its word counts. Each costs a span and one for each
        /// channel that it goes to, and those of clients.
        pub sample_roots: Share = default("0%"),
        /// Name of the header that makes a record traced whatever else is said; any
        /// value but `0` does.
        pub force_header: String = default("brucke-trace"),
        /// Clients of one fan-out that get spans of their own, and such spans in all.
        /// The fan-out's own span counts all clients.
        pub clients_per_fanout_max: u32 = default("16").within("0", "10000"),
        /// Whether the keys of traced records stand in their spans.
        pub record_keys: bool = default("false"),
        /// Spans that may wait for the collector; further ones are dropped and
        /// counted. Each takes about 1 KiB.
        pub queue_spans_max: u32 = default("16384").within("1", "1000000"),
        /// How long spans wait for others before they are sent.
        pub export_interval: Duration = default("1s").within("10ms", "1m"),
        /// How long the collector has to take what is sent. Meanwhile it is tried
        /// again; then it is dropped and counted.
        pub export_timeout: Duration = default("10s").within("100ms", "5m"),
    }
}

/// Where a collector is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorUrl(String);

impl CollectorUrl {
    /// Returns the URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for CollectorUrl {
    const FORM: Form =
        Form { text: "a URL, such as `\"http://collector:4317\"`", written: Written::Text };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        let text = String::read(raw)?;
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let is_url = rest.is_some_and(|rest| !rest.starts_with(['/', ':']) && !rest.is_empty());
        // What else may be wrong with it is found when it is used. Such a URL may
        // hold a password, so that it is not repeated.
        let refusal = || Refusal(format!("is no URL of a collector; write {}", Self::FORM.text));
        is_url.then_some(Self(text)).ok_or_else(refusal)
    }
}

/// Where traces go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceExporter {
    None,
    Otlp,
}

/// How they go there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceProtocol {
    Grpc,
    HttpProtobuf,
}

impl Setting for TraceExporter {
    const FORM: Form = Form { text: "`\"otlp\"` or `\"none\"`", written: Written::Text };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        raw.choose(&Self::FORM, &[("otlp", Self::Otlp), ("none", Self::None)])
    }
}

impl Setting for TraceProtocol {
    const FORM: Form = Form { text: "`\"grpc\"` or `\"http/protobuf\"`", written: Written::Text };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        raw.choose(&Self::FORM, &[("grpc", Self::Grpc), ("http/protobuf", Self::HttpProtobuf)])
    }
}

impl Setting for Share {
    const FORM: Form = Form {
        text: "a share from `\"0%\"` to `\"100%\"`, such as `\"0.1%\"`",
        written: Written::Text,
    };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        let Raw::Text(text) = &raw else { return Err(Refusal::of_kind(&raw, &Self::FORM)) };
        let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let share = number.and_then(|number| Self::of_ratio(number / 100.0));
        share.ok_or_else(|| Refusal(format!("is {text:?}; write {}", Self::FORM.text)))
    }

    fn compare(&self, bound: &Self) -> Option<Ordering> {
        self.partial_cmp(bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_has_a_url() {
        let read = |text: &str| CollectorUrl::read(Raw::Text(text.to_owned()));
        for url in ["http://c:4317", "https://c", "http://[::1]:4318/v1/traces"] {
            assert_eq!(read(url).as_ref().map(CollectorUrl::as_str), Ok(url));
        }
        for odd in ["", "c:4317", "grpc://c:4317", "http://", "http://:4317", "http:///v1"] {
            assert!(read(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_share_is_written_in_percent() {
        let read = |text: &str| Share::read(Raw::Text(text.to_owned()));
        assert_eq!(read("0%"), Ok(Share::NONE));
        assert_eq!(read("100%"), Ok(Share::ALL));
        assert_eq!(read("12.5 %").map(Share::as_ratio), Ok(0.125));
        for odd in ["1", "101%", "-1%", "x%", "%", "NaN%"] {
            let Err(Refusal(text)) = read(odd) else { panic!("{odd}") };
            assert!(text.contains("write a share"), "{text}");
        }
    }
}
