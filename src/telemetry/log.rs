//! How log lines are written.

use std::io;

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::telemetry::config::LogConfig;
use crate::telemetry::config::LogFormat;
use crate::telemetry::config::LogLevel;

/// Somebody has set up logging before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("logging is set up already")]
pub struct AlreadyLogging;

/// Writes log lines to stderr from now on.
///
/// # Errors
///
/// [`AlreadyLogging`] from the second call on.
pub fn install(config: &LogConfig) -> Result<(), AlreadyLogging> {
    install_to(config, io::stderr)
}

/// Writes log lines to `writer` from now on.
///
/// # Errors
///
/// [`AlreadyLogging`] from the second call on.
pub fn install_to<W>(config: &LogConfig, writer: W) -> Result<(), AlreadyLogging>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(directives(config.level)))
        .with_writer(writer);
    let installed = match config.format {
        LogFormat::Text => lines.with_ansi(false).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    };
    installed.map_err(|_| AlreadyLogging)
}

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
