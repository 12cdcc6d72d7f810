//! Sabot's client, also usable as `kubectl sabot`.

mod args;
mod client;
mod cluster;
mod commands;
mod error;
mod name;
mod output;
mod quick;
mod remote;
mod render;
mod screen;
mod text;
mod view;

use std::process::ExitCode;

use clap::FromArgMatches as _;

use args::Cli;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let command = args::command(std::env::args_os().next().as_deref());
    let matches = match command.clone().try_get_matches() {
        Ok(matches) => matches,
        // Help and version are told this way too; clap knows which stream and code they have.
        Err(error) => error.exit(),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match commands::run(cli, command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            error.report();
            error.exit_code().into()
        }
    }
}
