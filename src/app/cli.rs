//! The arguments of the binary.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

use crate::app::config_command;
use crate::app::config_command::TemplateArgs;
use crate::app::demo;
use crate::app::demo::DemoArgs;
use crate::app::doctor;
use crate::app::doctor::DoctorArgs;
use crate::app::explain::command;
use crate::app::explain::command::ExplainArgs;
use crate::app::serve;
use crate::app::tail;
use crate::app::tail::TailArgs;
use crate::app::token_command;
use crate::app::token_command::TokenArgs;

/// Carries Kafka topics to browsers and services over WebSocket.
#[derive(Debug, Parser)]
#[command(name = "brucke", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients until told to end.
    Serve(ConfigArgs),
    Demo(DemoArgs),
    Tail(TailArgs),
    /// Check the configuration: exit code 0 if it is valid, 1 if not.
    CheckConfig(ConfigArgs),
    ConfigTemplate(TemplateArgs),
    Token(TokenArgs),
    Explain(ExplainArgs),
    Doctor(DoctorArgs),
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file; without one, the environment alone counts.
    #[arg(long, value_name = "FILE", env = "BRUCKE_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Does what the arguments say. Exit code 1 is a command that failed, 2 is wrong
/// arguments.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(refusal) => {
            // Printing fails only when nobody reads.
            let _ = refusal.print();
            return ExitCode::from(u8::try_from(refusal.exit_code()).unwrap_or(2));
        }
    };
    let done = match cli.command {
        Command::Serve(args) => serve::run(args.config.as_deref()),
        Command::Demo(args) => demo::run(&args),
        Command::Tail(args) => tail::run(args),
        Command::CheckConfig(args) => config_command::check(&args),
        Command::ConfigTemplate(args) => config_command::template(&args),
        Command::Token(args) => token_command::run(args),
        Command::Explain(args) => command::run(args),
        Command::Doctor(args) => doctor::run(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
