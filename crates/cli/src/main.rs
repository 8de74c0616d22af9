//! `courant`: serves journals, and works with journals and shards from the command line.
//!
//! This crate is wiring and words only: it parses options, calls the crates that do the work, and prints. Standard output
//! carries results and nothing else, so that it can be piped; everything said besides goes to standard error. A command
//! which fails says what failed and exits with status 1. A reader which goes away ends the command quietly.

mod attach_uuids;
mod bench;
mod editor;
mod journals;
mod output;
mod program;
mod render;
mod session;
mod shards;
mod table;
mod terminal;
mod token;

use clap::{FromArgMatches, Parser, Subcommand};
use program::{CompletionsArgs, ManArgs};
use runtime::BoxError;
use runtime::config::{LogArgs, parse_command_line};
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
    /// Give each line of text files a UUID, so that it can be appended as a message.
    ///
    /// Messages which carry a UUID are taken exactly once. Attach UUIDs to a new file first, and then append that: when
    /// the append has to be repeated, readers pass over what they have seen. Each run is a producer of its own, of which
    /// consumers keep a little state: prefer a few large files.
    #[command(after_help = "Examples:\n  \
        courant attach-uuids --skip-header one.csv two.csv > with-uuids.csv\n  \
        courant attach-uuids --template $'{\"uuid\":\"{{.UUID}}\",\"record\":{{.Line}}}\\n' records.json > messages.json\n  \
        tail -f log.csv | courant attach-uuids | courant journals append -l name=examples/log --framing lines")]
    AttachUuids(attach_uuids::AttachUuidsArgs),
    /// Print what a shell has to know in order to complete commands and options.
    #[command(after_help = "Examples:\n  \
        courant completions bash > ~/.local/share/bash-completion/completions/courant\n  \
        courant completions zsh > ~/.zfunc/_courant\n  \
        courant completions fish > ~/.config/fish/completions/courant.fish")]
    Completions(CompletionsArgs),
    /// Write manual pages, one for each command, into a directory.
    #[command(after_help = "Example:\n  \
        courant man ~/.local/share/man/man1")]
    Man(ManArgs),
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
    /// Make an access token, for programs which are not to have the keys.
    #[command(after_help = "Example, with the keys in BROKER_AUTH_KEYS:\n  \
        courant token --allow LIST,READ -l name:prefix=examples/ --lifetime 24h")]
    Token(Box<token::TokenArgs>),
}

fn main() -> ExitCode {
    let first = std::env::args_os().nth(1);
    let (ini, command) = match program::configured(first.as_deref().and_then(|name| name.to_str())) {
        Ok(configured) => configured,
        Err(error) => return fail(&error.to_string()),
    };
    let matches = match parse_command_line(command) {
        Ok(matches) => matches,
        Err(status) => return status,
    };
    if let Some(text) = program::printed_config(&matches) {
        return status_of(output::print(&text).map_err(Into::into));
    }
    let mut command = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli.command,
        Err(error) => return fail(&error.to_string()),
    };
    if let Some(log) = command.log() {
        log.remarks = ini.remarks();
        log.given = program::given(&matches);
    }
    match command {
        // A broker makes its own runtime, and says itself what went wrong.
        Command::Serve(args) => broker::serve(*args),
        Command::Client(command) => run_client(command),
        Command::AttachUuids(args) => status_of(attach_uuids::run(&args)),
        Command::Completions(args) => status_of(program::print_completions(&args)),
        Command::Man(args) => status_of(program::write_manual(&args)),
    }
}

fn run_client(command: ClientCommand) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("starting the runtime: {error}")),
    };
    let outcome = runtime.block_on(run(command));
    // A blocked read of standard input must not keep the process alive.
    runtime.shutdown_background();
    status_of(outcome)
}

fn status_of(outcome: Result<(), BoxError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => fail(&runtime::grpc::chain_text(error.as_ref())),
    }
}

impl Command {
    /// How the command logs, if it does.
    fn log(&mut self) -> Option<&mut LogArgs> {
        match self {
            Command::Serve(args) => Some(&mut args.log),
            Command::Client(ClientCommand::Journals(args)) => Some(&mut args.session.log),
            Command::Client(ClientCommand::Shards(args)) => Some(&mut args.session.log),
            _ => None,
        }
    }
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
        ClientCommand::Token(args) => token::run(&args),
    }
}
