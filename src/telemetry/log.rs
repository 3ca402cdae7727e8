//! How log lines are written.

use std::io;
use std::sync::OnceLock;

use thiserror::Error;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::telemetry::config::LogConfig;
use crate::telemetry::config::LogFormat;
use crate::telemetry::config::LogLevel;
use crate::telemetry::traces::handshake::HANDSHAKES;
use crate::telemetry::traces::pipeline::Tracing;

/// Somebody has set up logging before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("logging is set up already")]
pub struct AlreadyLogging;

/// Writes log lines to stderr from now on, with the names of the traces that they
/// belong to where there are any.
///
/// # Errors
///
/// [`AlreadyLogging`] from the second call on.
pub fn install(config: &LogConfig, tracing: &Tracing) -> Result<(), AlreadyLogging> {
    install_to(config, tracing, io::stderr)
}

/// Writes log lines to `writer` from now on.
///
/// # Errors
///
/// [`AlreadyLogging`] from the second call on.
pub fn install_to<W>(config: &LogConfig, tracing: &Tracing, writer: W) -> Result<(), AlreadyLogging>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match config.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // Each layer has a filter of its own: a filter of all would keep from traces
    // what is not logged.
    let handshakes = if tracing.queue().is_on() { "info" } else { "off" };
    let filter =
        move |level| EnvFilter::new(format!("{},{HANDSHAKES}={handshakes}", directives(level)));
    let (lines_filter, handle) = reload::Layer::new(filter(config.level));
    let lines = lines.with_filter(lines_filter);
    let spans = Targets::new().with_target(HANDSHAKES, Level::INFO);
    let spans = tracing.layer().map(|layer| layer.with_filter(spans));
    registry().with(lines).with(spans).try_init().map_err(|_| AlreadyLogging)?;
    // Set here and nowhere else, once in a process.
    let _ = LEVEL.set(Box::new(move |level| handle.reload(filter(level)).is_ok()));
    Ok(())
}

/// Logs from this level on until it is set otherwise. Says whether there is a log
/// whose level can be set.
pub fn set_level(level: LogLevel) -> bool {
    LEVEL.get().is_some_and(|set| set(level))
}

type SetLevel = Box<dyn Fn(LogLevel) -> bool + Send + Sync>;

static LEVEL: OnceLock<SetLevel> = OnceLock::new();

/// Returns which lines are written: ours at the level asked for, those of
/// libraries only where they warn. actix tells of every start and stop at
/// `info`, and at `trace` prints the heads of requests, tokens and all.
fn directives(level: LogLevel) -> String {
    let (ours, theirs) = match level {
        LogLevel::Error => ("error", "error"),
        LogLevel::Warn => ("warn", "warn"),
        LogLevel::Info => ("info", "warn"),
        LogLevel::Debug => ("debug", "warn"),
        LogLevel::Trace => ("trace", "warn"),
    };
    format!("{theirs},brucke={ours}")
}
