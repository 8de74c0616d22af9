//! The chunker as a program.

use std::process::ExitCode;

use clap::{Args, Command, FromArgMatches};
use client::{ClientOptions, JournalClient};
use runtime::config::{config_text, parse_command_line, with_ini};
use runtime::server::{self, Listener};
use runtime::signals::Signals;
use runtime::tls::ClientTls;
use runtime::{BoxError, CancellationToken, Clock, Entropy, Metrics, OnError, TaskGroup};

use super::config::RunArgs;
use super::progress::Progress;
use super::run::run;

const RUN: &str = "run";
const PRINT_CONFIG: &str = "print-config";
const INI_FILE: &str = "chunker.ini";

const EXAMPLE: &str = "\
Example, next to `courant serve` and `summer serve`, with the specifications of stream-sum applied:
  chunker run --chunker.streams=100 --chunker.chunks=50

Ends with one line on standard output, `verified: streams=N chunks=N mismatches=0 duplicates=0`, and status 0. A sum that
is wrong, late or published twice ends it with another status, and says which stream, journal and shard.";

/// The program.
pub fn main() -> ExitCode {
    let (ini, configured) = match with_ini(command(), INI_FILE, &[RUN, PRINT_CONFIG]) {
        Ok(configured) => configured,
        Err(status) => return status,
    };
    let matches = match parse_command_line(configured) {
        Ok(matches) => matches,
        Err(status) => return status,
    };
    match matches.subcommand() {
        Some((PRINT_CONFIG, matches)) => {
            print!("{}", config_text(&RunArgs::augment_args(Command::new(PRINT_CONFIG)), matches, ""));
            ExitCode::SUCCESS
        }
        Some((_, matches)) => match RunArgs::from_arg_matches(matches) {
            Ok(mut args) => {
                args.log.remarks = ini.remarks();
                run_program(args)
            }
            Err(error) => error.exit(),
        },
        None => ExitCode::FAILURE,
    }
}

fn command() -> Command {
    let run = RunArgs::augment_args(Command::new(RUN)).after_help(EXAMPLE);
    let print = RunArgs::augment_args(Command::new(PRINT_CONFIG));
    Command::new("chunker")
        .about("Writes streams of chunks, and verifies the sums which summer publishes")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(run.about("Writes streams of chunks, and verifies the sum of each"))
        .subcommand(print.about("Prints the configuration that run would have, as INI"))
}

fn run_program(args: RunArgs) -> ExitCode {
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match threads {
        Ok(threads) => threads.block_on(run_until_signal(args)),
        Err(error) => Err(format!("cannot start threads: {error}").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chunker: failed: {}", runtime::grpc::chain_text(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run_until_signal(args: RunArgs) -> Result<(), BoxError> {
    let _logging = runtime::logging::init(&args.log, "chunker")?;
    let tasks = TaskGroup::new("chunker");
    let (clock, metrics) = (Clock::system(), Metrics::with_process());
    serve_diagnostics(&args, &clock, &metrics, &tasks).await?;
    let tls = ClientTls::load(args.broker.tls.options().client()?, &clock)?;
    let options = ClientOptions {
        clock,
        entropy: Entropy::system(),
        tasks: tasks.clone(),
        zone: args.chunker.zone.clone(),
        cache_size: args.broker.cache_size,
        cache_ttl: args.broker.cache_ttl,
        file_root: args.broker.file_root(),
        tls,
        metrics: Some(metrics),
        authorizer: client::authorizer_of(&args.broker)?,
    };
    let client = JournalClient::new(&args.broker.address, options)?;
    let stop = CancellationToken::new();
    stop_on_signal(&stop, &tasks)?;

    let expected = args.chunker.streams().map(|streams| streams.saturating_mul(args.chunker.workers));
    let mut progress = Progress::new(args.chunker.progress, expected);
    let totals = run(&client, &args.chunker, &mut progress, &stop, &tasks).await?;
    println!("verified: streams={} chunks={} mismatches=0 duplicates=0", totals.streams, totals.chunks);
    tasks.cancel();
    Ok(())
}

async fn serve_diagnostics(
    args: &RunArgs,
    clock: &Clock,
    metrics: &Metrics,
    tasks: &TaskGroup,
) -> Result<(), BoxError> {
    let Some(port) = args.debug.port.as_deref().filter(|port| !port.is_empty()) else { return Ok(()) };
    let listener = Listener::bind(&format!("127.0.0.1:{port}")).await?;
    let router = server::debug_router(metrics.clone());
    let serve = server::serve(listener, router, tasks.clone(), clock.clone(), std::time::Duration::ZERO);
    tasks.spawn("diagnostics", OnError::Log, serve);
    Ok(())
}

/// The first signal finishes the open streams, the second one leaves at once.
fn stop_on_signal(stop: &CancellationToken, tasks: &TaskGroup) -> Result<(), BoxError> {
    let mut signals = Signals::install()?;
    let stop = stop.clone();
    tasks.spawn("signals", OnError::Log, async move {
        signals.recv().await;
        stop.cancel();
        signals.or_leave("chunker", std::future::pending()).await
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound() {
        super::command().debug_assert();
    }

    #[test]
    fn numbers_out_of_bounds_are_told_of_them() {
        for (arg, bounds) in [
            ("--chunker.workers=0", "0 is not in 1..=4096"),
            ("--chunker.workers=18446744073709551615", "18446744073709551615 is not in 1..=4096"),
            ("--chunker.streams=9223372036854775808", "number too large"),
            ("--chunker.chunks=-1", "invalid digit"),
            ("--chunker.delay=0s", "0s is not 1ms or more"),
            ("--chunker.delay=NaN", "invalid duration"),
        ] {
            let (option, value) = arg.split_once('=').unwrap();
            let parsed = super::command().try_get_matches_from(["chunker", "run", arg]);
            let error = parsed.unwrap_err().to_string();
            assert!(error.contains(&format!("invalid value '{value}' for '{option} <")), "{error}");
            assert!(error.contains(bounds), "{arg}: {error}");
        }
    }
}
