//! `brucke check-config` and `brucke config-template`.

use std::io;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;

use crate::app::cli::ConfigArgs;
use crate::config;
use crate::config::Config;
use crate::config::template;
use crate::server::token::AuthConfig;

/// Print a configuration with every key: meaning, unit, default.
#[derive(Debug, clap::Args)]
pub struct TemplateArgs {
    /// A file to begin with, or the reference that stands in the documentation.
    #[arg(long, value_enum, default_value_t = Format::Toml)]
    format: Format,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    Toml,
    Markdown,
}

/// Says whether the configuration is valid, and everything that is wrong with it.
///
/// # Errors
///
/// When it is not valid.
pub fn check(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let config = load(args.config.as_deref())?;
    println!("{}", summary(&config));
    Ok(ExitCode::SUCCESS)
}

/// Loads the configuration for a command.
///
/// # Errors
///
/// Everything that is wrong, and, where no file was named, how to name one.
pub(in crate::app) fn load(path: Option<&Path>) -> anyhow::Result<Config> {
    let loaded = config::load(path, environment());
    loaded.map_err(|errors| match path {
        Some(_) => errors.into(),
        None => anyhow!("{errors}\nno file was named: use --config or BRUCKE_CONFIG"),
    })
}

/// Prints every key that there is.
///
/// # Errors
///
/// When nobody reads.
pub fn template(args: &TemplateArgs) -> anyhow::Result<ExitCode> {
    let text = match args.format {
        Format::Toml => template::as_toml(),
        Format::Markdown => template::as_markdown(),
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the variables that are text; no key takes anything else.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn summary(config: &Config) -> String {
    let channels = config.channels.iter().map(|channel| channel.name.as_str());
    let clients = match &config.auth {
        AuthConfig::Tokens(keys) => {
            let mut issuers: Vec<&str> = keys.iter().map(|key| key.issuer.as_str()).collect();
            issuers.dedup();
            format!("with a token of {}", issuers.join(", "))
        }
        AuthConfig::Nobody { tenant } => format!("without a token, as tenant {tenant}"),
    };
    format!(
        "valid: channels {} from Kafka at {}, for clients {clients}, at {}",
        channels.collect::<Vec<_>>().join(", "),
        config.kafka.bootstrap_servers.join(", "),
        config.server.listen,
    )
}
