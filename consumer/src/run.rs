//! An application as a program: command line, logging, signals.

use std::process::ExitCode;

use clap::{Args, Command, FromArgMatches};
use runtime::BoxError;
use runtime::config::{config_text, given_options, parse_command_line, with_ini};
use runtime::signals::Signals;

use crate::config::{ConsumerOptions, ServeArgs};
use crate::{Application, Consumer};

const SERVE: &str = "serve";
const PRINT_CONFIG: &str = "print-config";
/// Name of the file which configures consumers.
const INI_FILE: &str = "gazette.ini";

/// Runs an application as the program that it is: `serve` runs a member of its consumer group until a signal asks it to
/// stop, and for as long as it then takes to leave in order; a second signal ends the process at once. `print-config`
/// prints the configuration that `serve` would have. Options are flags, keys of `gazette.ini` (see [`runtime::config::Ini`]), or in the
/// environment.
///
/// What the person who started it must know is printed to standard error, whatever the level of the log.
pub fn run<A: Application>(app: A) -> ExitCode {
    run_with(app.name(), |NoArgs {}| Ok(app))
}

/// As [`run`], for an application of this name which has options of its own: `new_app` makes it of them. The id of an option
/// is `{group}.{option}`, as that of the others.
pub fn run_with<C: Args, A: Application>(
    name: &'static str,
    new_app: impl FnOnce(C) -> Result<A, BoxError>,
) -> ExitCode {
    let (ini, configured) = match with_ini(command::<C>(name), INI_FILE, &[SERVE, PRINT_CONFIG]) {
        Ok(configured) => configured,
        Err(status) => return status,
    };
    let matches = match parse_command_line(configured) {
        Ok(matches) => matches,
        Err(status) => return status,
    };
    match matches.subcommand() {
        Some((PRINT_CONFIG, matches)) => {
            print!("{}", config_text(&with_options::<C>(Command::new(PRINT_CONFIG)), matches, ""));
            ExitCode::SUCCESS
        }
        Some((_, matches)) => {
            let own = C::from_arg_matches(matches);
            match ServeArgs::from_arg_matches(matches).and_then(|args| Ok((args, own?))) {
                Ok((mut args, own)) => {
                    args.log.remarks = ini.remarks();
                    args.log.given = given_options(&with_options::<C>(Command::new(SERVE)), matches);
                    serve(new_app, name, args, own)
                }
                Err(error) => error.exit(),
            }
        }
        None => ExitCode::FAILURE,
    }
}

/// A command with the options of every application, and those of this one.
fn with_options<C: Args>(command: Command) -> Command {
    C::augment_args(ServeArgs::augment_args(command))
}

/// Options of an application which has none.
#[derive(Clone, Debug, clap::Args)]
struct NoArgs {}

fn command<C: Args>(name: &'static str) -> Command {
    let example = format!(
        "Example, next to a broker which was started with `courant serve`:\n  {name} {SERVE}\n\
         Any number of processes may run at once: they share the shards, and take over from each other."
    );
    let serve = with_options::<C>(Command::new(SERVE)).about("Runs shards of the application");
    let print = with_options::<C>(Command::new(PRINT_CONFIG))
        .about("Prints the configuration that serve would have, as INI");
    Command::new(name)
        .about(format!("{name}: an application over journals"))
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve.after_help(example))
        .subcommand(print)
}

fn serve<C, A: Application>(
    new_app: impl FnOnce(C) -> Result<A, BoxError>,
    name: &str,
    args: ServeArgs,
    own: C,
) -> ExitCode {
    runtime::limits::raise_open_files();
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match threads {
        Ok(threads) => new_app(own).and_then(|app| threads.block_on(serve_until_signal(app, name, args))),
        Err(error) => Err(format!("cannot start threads: {error}").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {}", runtime::grpc::chain_text(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn serve_until_signal<A: Application>(app: A, name: &str, args: ServeArgs) -> Result<(), BoxError> {
    let _logging = runtime::logging::init(&args.log, name)?;
    tracing::info!(options = args.log.given, "consumer configuration");
    let options = ConsumerOptions::from_args(args, name)?;
    let (etcd, prefix) = (options.etcd.clone(), options.prefix.clone());
    let mut signals = Signals::install()?;
    let consumer = match signals.or_stop(Consumer::start(app, options)).await {
        Ok(consumer) => consumer?,
        Err(signal) => {
            eprintln!("{name}: {signal:?} before the process had started");
            return Ok(());
        }
    };
    let (endpoint, id) = (consumer.endpoint(), consumer.id());
    eprintln!("{name}: serving on {endpoint}, member {id} of {prefix}, etcd at {etcd}");
    tracing::info!(%id, endpoint, "starting consumer");
    match signals.or_stop(consumer.failed()).await {
        Err(signal) => tracing::info!(?signal, "caught signal; one more leaves at once"),
        Ok(()) => tracing::error!("the process cannot go on"),
    }
    signals.or_leave(name, consumer.stop()).await?;
    tracing::info!("goodbye");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_printed_by_group_without_secrets() {
        let command = command::<NoArgs>("app");
        let args =
            ["app", PRINT_CONFIG, "--consumer.limit=7", "--consumer.auth-keys=secret", "--etcd.lease=5s"];
        let matches = command.clone().try_get_matches_from(args).unwrap();
        let text =
            config_text(command.find_subcommand(PRINT_CONFIG).unwrap(), matches.subcommand().unwrap().1, "");
        for line in [
            "[Consumer]\n",
            "\n; Zone = local\n",
            "\nLimit = 7\n",
            "\n[Etcd]\n",
            "\nLeaseTTL = 5s\n",
            "\n; AuthKeys = <hidden>\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains("secret"), "{text}");
        let matches = matches.subcommand().unwrap().1;
        let given = given_options(command.find_subcommand(PRINT_CONFIG).unwrap(), matches);
        assert_eq!(given, "--consumer.limit=7 --consumer.auth-keys=<hidden> --etcd.lease=5s");
    }

    #[test]
    fn the_command_line_is_sound() {
        command::<NoArgs>("app").debug_assert();
    }
}
