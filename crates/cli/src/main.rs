//! `courant`: serves journals, and works with journals and shards from the command line.
//!
//! This crate is wiring and words only: it parses options, calls the crates that do the work, and prints. Standard output
//! carries results and nothing else, so that it can be piped; everything said besides goes to standard error. A command
//! which fails says what failed and exits with status 1. A reader which goes away ends the command quietly.

mod bench;
mod journals;
mod output;
mod render;
mod session;
mod shards;
mod table;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use runtime::BoxError;
use std::process::ExitCode;

/// Courant is a transactional journal system which speaks the Gazette protocol.
#[derive(Debug, Parser)]
#[command(
    name = "courant",
    version,
    after_help = "Example:\n  \
    courant serve &\n  \
    courant journals apply --specs journals.yaml\n  \
    echo hello | courant journals append -l name=examples/greetings\n  \
    courant journals read -l name=examples/greetings"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker until it is told to stop (SIGTERM or Ctrl-C).
    #[command(after_help = "Examples:\n  \
        courant serve\n  \
        courant serve --broker.port 8080 --etcd.address http://etcd:2379 --broker.zone us-east-1\n\n\
        Without --etcd.address the broker embeds etcd: a convenience for one machine.")]
    Serve(Box<broker::ServeArgs>),
    #[command(flatten)]
    Client(ClientCommand),
}

/// Commands which talk to servers.
#[derive(Debug, Subcommand)]
enum ClientCommand {
    /// Work with journals.
    Journals(Box<journals::JournalsArgs>),
    /// Work with shards of a consumer.
    Shards(Box<shards::ShardsArgs>),
    /// Measure a broker.
    Bench(Box<bench::BenchArgs>),
}

fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done if not even this can be printed.
            let _unprintable = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    // A broker makes its own runtime, and says itself what went wrong.
    let command = match cli.command {
        Command::Serve(args) => return broker::serve(*args),
        Command::Client(command) => command,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("starting the runtime: {error}")),
    };
    let outcome = runtime.block_on(run(command));
    // A blocked read of standard input must not keep the process alive.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => fail(&runtime::grpc::chain_text(error.as_ref())),
    }
}

/// Options of a group of commands may stand before or after the command itself.
fn parse() -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    for group in ["journals", "shards"] {
        command = command.mut_subcommand(group, |group| group.mut_args(|arg| arg.global(true)));
    }
    Cli::from_arg_matches(&command.try_get_matches()?)
}

fn fail(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn run(command: ClientCommand) -> Result<(), BoxError> {
    match command {
        ClientCommand::Journals(args) => journals::run(*args).await,
        ClientCommand::Shards(args) => shards::run(*args).await,
        ClientCommand::Bench(args) => bench::run(*args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command which does something, by its path.
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name());
            if sub.has_subcommands() {
                leaves(sub, &path, found);
            } else {
                found.push((path, sub.clone()));
            }
        }
    }

    #[test]
    fn every_command_explains_itself_with_an_example() {
        let mut found = Vec::new();
        leaves(&Cli::command(), "courant", &mut found);
        assert!(found.len() >= 10, "{}", found.len());
        for (path, mut command) in found {
            let help = command.render_long_help().to_string();
            assert!(command.get_about().is_some(), "{path} says nothing about itself");
            assert!(
                help.contains(&format!("  {path}")) || help.contains(&format!("| {path}")),
                "{path}: {help}"
            );
        }
    }

    #[test]
    fn options_of_a_group_may_stand_before_and_after_the_command() {
        let mut command = Cli::command();
        command = command.mut_subcommand("journals", |group| group.mut_args(|arg| arg.global(true)));
        for line in [
            "courant journals --broker.address http://x:1 list",
            "courant journals list --broker.address http://x:1",
        ] {
            let matches = command.clone().try_get_matches_from(line.split(' ')).unwrap();
            let Command::Client(ClientCommand::Journals(args)) =
                Cli::from_arg_matches(&matches).unwrap().command
            else {
                panic!("{line}")
            };
            assert_eq!(args.session.broker.address, "http://x:1", "{line}");
        }
    }
}
