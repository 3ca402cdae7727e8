//! What traces are made of, once the file and OpenTelemetry's variables are
//! read together.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use thiserror::Error;

use crate::delivery::traces::Keys;
use crate::delivery::traces::TraceSettings;
use crate::telemetry::traces::config::TraceExporter;
use crate::telemetry::traces::config::TraceProtocol;
use crate::telemetry::traces::config::TracingConfig;
use crate::types::trace::Parents;
use crate::types::trace::Sampler;
use crate::types::trace::SamplingRules;
use crate::types::trace::Share;

/// How traces are made and sent.
#[derive(Debug, Clone, PartialEq)]
pub struct TracingSettings {
    pub protocol: TraceProtocol,
    /// The whole URL.
    pub endpoint: String,
    pub service_name: String,
    pub rules: SamplingRules,
    pub clients_per_fanout_max: u32,
    pub keys: Keys,
    pub queue_spans_max: usize,
    /// Spans of one request to the collector.
    pub batch_spans_max: usize,
    pub export_interval: Duration,
    pub export_timeout: Duration,
}

/// A variable of OpenTelemetry's has a value that it can't have here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the variable {name} is {value:?}; write {remedy}, or unset it")]
pub struct VariableError {
    pub name: &'static str,
    pub value: String,
    pub remedy: &'static str,
}

impl TracingSettings {
    /// Reads the configuration, and variables by their names; `None` when no
    /// traces are to be sent.
    ///
    /// # Errors
    ///
    /// [`VariableError`] for the first that can't be used.
    pub fn resolve(
        config: &TracingConfig,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, VariableError> {
        // One that is empty counts as unset, as OpenTelemetry has it.
        let get = |name: &'static str| variable(name).filter(|value| !value.is_empty());
        if !is_on(config, &get)? {
            return Ok(None);
        }
        let protocol = protocol(config, &get)?;
        let (parents, roots) = sampler(config, &get)?;
        let millis = |name, preset: Duration| {
            number(name, &get).map(|found| found.map_or(preset, Duration::from_millis))
        };
        let timeout = millis("OTEL_EXPORTER_OTLP_TIMEOUT", config.export_timeout)?;
        let size = |name, preset: usize| {
            number(name, &get)
                .map(|found| found.map_or(preset, |n| usize::try_from(n).unwrap_or(1)))
        };
        let queue = size("OTEL_BSP_MAX_QUEUE_SIZE", config.queue_spans_max as usize)?;
        let batch = size("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS)?;
        Ok(Some(Self {
            protocol,
            endpoint: endpoint(config, protocol, &get),
            service_name: get("OTEL_SERVICE_NAME").unwrap_or_else(|| config.service_name.clone()),
            rules: SamplingRules {
                parents,
                roots,
                force_header: Some(config.force_header.clone()),
            },
            clients_per_fanout_max: config.clients_per_fanout_max,
            keys: if config.record_keys { Keys::Told } else { Keys::LeftOut },
            queue_spans_max: queue.clamp(1, QUEUE_SPANS_MAX),
            batch_spans_max: batch.clamp(1, BATCH_SPANS_MAX),
            export_interval: millis("OTEL_BSP_SCHEDULE_DELAY", config.export_interval)?,
            export_timeout: millis("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", timeout)?,
        }))
    }

    /// Returns what decides which records are traced.
    pub fn sampler(&self) -> Sampler {
        Sampler::On(Arc::new(self.rules.clone()))
    }

    /// Returns what each shard needs.
    pub fn shard(&self) -> TraceSettings {
        TraceSettings {
            clock: Instant::now,
            clients_per_fanout_max: self.clients_per_fanout_max,
            keys: self.keys,
        }
    }
}

type Get<'a> = &'a dyn Fn(&'static str) -> Option<String>;

fn is_on(config: &TracingConfig, get: Get<'_>) -> Result<bool, VariableError> {
    if get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(false);
    }
    let name = "OTEL_TRACES_EXPORTER";
    match get(name).as_deref() {
        Some("otlp") => return Ok(true),
        Some("none") => return Ok(false),
        Some(other) => return Err(refuse(name, other, "`otlp` or `none`")),
        None => {}
    }
    let named = || ENDPOINTS.into_iter().any(|name| get(name).is_some());
    Ok(match config.exporter {
        Some(exporter) => exporter == TraceExporter::Otlp,
        None => config.endpoint.is_some() || named(),
    })
}

fn protocol(config: &TracingConfig, get: Get<'_>) -> Result<TraceProtocol, VariableError> {
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        return match get(name).as_deref() {
            None => continue,
            Some("grpc") => Ok(TraceProtocol::Grpc),
            Some("http/protobuf") => Ok(TraceProtocol::HttpProtobuf),
            Some(other) => Err(refuse(name, other, "`grpc` or `http/protobuf`")),
        };
    }
    Ok(config.protocol)
}

fn endpoint(config: &TracingConfig, protocol: TraceProtocol, get: Get<'_>) -> String {
    // What is named for traces alone is taken as it is.
    if let Some(endpoint) = get(ENDPOINTS[0]) {
        return endpoint;
    }
    let base = get(ENDPOINTS[1]).map(|base| (base, Base::Variable));
    let base = base
        .or_else(|| config.endpoint.as_ref().map(|base| (base.as_str().to_owned(), Base::File)));
    match (base, protocol) {
        (None, TraceProtocol::Grpc) => "http://localhost:4317".to_owned(),
        (None, TraceProtocol::HttpProtobuf) => format!("http://localhost:4318{HTTP_PATH}"),
        (Some((base, _)), TraceProtocol::Grpc) => base,
        (Some((base, Base::File)), TraceProtocol::HttpProtobuf) if has_path(&base) => base,
        (Some((base, _)), TraceProtocol::HttpProtobuf) => {
            format!("{}{HTTP_PATH}", base.trim_end_matches('/'))
        }
    }
}

/// Where the URL stands that a path is added to: the variable's always gets one.
#[derive(Debug, Clone, Copy)]
enum Base {
    Variable,
    File,
}

fn has_path(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_once('/').is_some_and(|(_, path)| !path.is_empty())
}

fn sampler(config: &TracingConfig, get: Get<'_>) -> Result<(Parents, Share), VariableError> {
    let name = "OTEL_TRACES_SAMPLER";
    let Some(sampler) = get(name) else { return Ok((Parents::Respected, config.sample_roots)) };
    let (parents, kind) = match sampler.strip_prefix("parentbased_") {
        Some(kind) => (Parents::Respected, kind),
        None => (Parents::Ignored, sampler.as_str()),
    };
    let roots = match kind {
        "always_on" => Share::ALL,
        "always_off" => Share::NONE,
        "traceidratio" => {
            let name = "OTEL_TRACES_SAMPLER_ARG";
            let ratio = get(name).unwrap_or_else(|| "1".to_owned());
            let share = ratio.parse().ok().and_then(Share::of_ratio);
            share.ok_or_else(|| refuse(name, &ratio, "a number from 0 to 1"))?
        }
        _ => {
            let remedy = "`always_on`, `always_off` or `traceidratio`, or one of them after \
                          `parentbased_`";
            return Err(refuse(name, &sampler, remedy));
        }
    };
    Ok((parents, roots))
}

fn number(name: &'static str, get: Get<'_>) -> Result<Option<u64>, VariableError> {
    let Some(value) = get(name) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| refuse(name, &value, "a whole number"))
}

fn refuse(name: &'static str, value: &str, remedy: &'static str) -> VariableError {
    VariableError { name, value: value.to_owned(), remedy }
}

const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const HTTP_PATH: &str = "/v1/traces";
const BATCH_SPANS: usize = 512;
const BATCH_SPANS_MAX: usize = 8_192;
const QUEUE_SPANS_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::traces::config::CollectorUrl;
    use crate::types::setting::Raw;
    use crate::types::setting::Setting as _;

    fn config() -> TracingConfig {
        TracingConfig {
            exporter: None,
            endpoint: None,
            protocol: TraceProtocol::Grpc,
            service_name: "brucke".to_owned(),
            sample_roots: Share::NONE,
            force_header: "brucke-trace".to_owned(),
            clients_per_fanout_max: 16,
            record_keys: false,
            queue_spans_max: 16_384,
            export_interval: Duration::from_secs(1),
            export_timeout: Duration::from_secs(10),
        }
    }

    fn url(text: &str) -> Option<CollectorUrl> {
        CollectorUrl::read(Raw::Text(text.to_owned())).ok()
    }

    fn resolve(
        config: &TracingConfig,
        variables: &[(&str, &str)],
    ) -> Result<Option<TracingSettings>, VariableError> {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name);
        TracingSettings::resolve(config, |name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    fn on(config: &TracingConfig, variables: &[(&str, &str)]) -> TracingSettings {
        resolve(config, variables).expect("valid").expect("on")
    }

    #[test]
    fn nothing_is_traced_until_somebody_asks() {
        assert_eq!(resolve(&config(), &[]), Ok(None));
        assert_eq!(resolve(&config(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
        let named = TracingConfig { endpoint: url("http://c:4317"), ..config() };
        assert_eq!(on(&named, &[]).endpoint, "http://c:4317");
        assert_eq!(resolve(&named, &[("OTEL_SDK_DISABLED", "true")]), Ok(None));
        assert_eq!(resolve(&named, &[("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        let off = TracingConfig { exporter: Some(TraceExporter::None), ..named };
        assert_eq!(resolve(&off, &[]), Ok(None));
        assert_eq!(
            on(&config(), &[("OTEL_TRACES_EXPORTER", "otlp")]).endpoint,
            "http://localhost:4317"
        );
    }

    #[test]
    fn variables_count_more_than_the_file() {
        let file = TracingConfig { endpoint: url("http://file:1"), ..config() };
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:2/");
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://own:3/there");
        let check = |variables: &[(&str, &str)], expected: &str| {
            assert_eq!(on(&file, variables).endpoint, expected, "{variables:?}");
        };
        check(&[], "http://file:1");
        check(&[http], "http://file:1/v1/traces");
        check(&[general], "http://general:2/");
        check(&[general, http], "http://general:2/v1/traces");
        check(&[general, http, own], "http://own:3/there");
        let settings = on(
            &file,
            &[
                ("OTEL_SERVICE_NAME", "other"),
                ("OTEL_BSP_SCHEDULE_DELAY", "250"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "7"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ],
        );
        assert_eq!(settings.service_name, "other");
        assert_eq!(settings.export_interval, Duration::from_millis(250));
        assert_eq!(settings.export_timeout, Duration::from_millis(1_500));
        assert_eq!(settings.queue_spans_max, 7);
    }

    #[test]
    fn samplers_are_those_of_the_specification() {
        let check = |sampler: &str, arg: &str, parents: Parents, ratio: f64| {
            let variables = [
                ("OTEL_TRACES_EXPORTER", "otlp"),
                ("OTEL_TRACES_SAMPLER", sampler),
                ("OTEL_TRACES_SAMPLER_ARG", arg),
            ];
            let rules = on(&config(), &variables).rules;
            assert_eq!((rules.parents, rules.roots.as_ratio()), (parents, ratio), "{sampler}");
        };
        check("always_on", "", Parents::Ignored, 1.0);
        check("always_off", "", Parents::Ignored, 0.0);
        check("traceidratio", "0.25", Parents::Ignored, 0.25);
        check("parentbased_always_on", "", Parents::Respected, 1.0);
        check("parentbased_always_off", "", Parents::Respected, 0.0);
        check("parentbased_traceidratio", "0.25", Parents::Respected, 0.25);
    }

    #[test]
    fn a_value_that_means_nothing_is_named() {
        let check = |name: &str, value: &str| {
            let error = resolve(&config(), &[("OTEL_TRACES_EXPORTER", "otlp"), (name, value)]);
            let error = error.expect_err("refused").to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        };
        check("OTEL_TRACES_SAMPLER", "sometimes");
        check("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json");
        check("OTEL_BSP_MAX_QUEUE_SIZE", "many");
        let jaeger = resolve(&config(), &[("OTEL_TRACES_EXPORTER", "jaeger")]);
        assert!(jaeger.is_err());
    }
}
