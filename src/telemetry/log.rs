//! How log lines are written.

use std::io;
use std::sync::OnceLock;

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::util::TryInitError;

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
    let filter = EnvFilter::new(directives(config.level));
    let lines = tracing_subscriber::fmt().with_writer(writer).with_env_filter(filter);
    let installed = match config.format {
        LogFormat::Text => {
            let lines = lines.with_ansi(false).with_filter_reloading();
            keep(lines.reload_handle(), lines.finish().try_init())
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            keep(lines.reload_handle(), lines.finish().try_init())
        }
    };
    installed.map_err(|_| AlreadyLogging)
}

/// Logs from this level on until it is set otherwise. Says whether there is a log
/// whose level can be set.
pub fn set_level(level: LogLevel) -> bool {
    LEVEL.get().is_some_and(|set| set(level))
}

/// Keeps the means to set the level, once the log is installed.
fn keep<S: 'static>(
    handle: Handle<EnvFilter, S>,
    installed: Result<(), TryInitError>,
) -> Result<(), TryInitError> {
    if installed.is_ok() {
        let set = move |level| handle.reload(EnvFilter::new(directives(level))).is_ok();
        let _ = LEVEL.set(Box::new(set));
    }
    installed
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
