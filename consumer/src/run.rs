//! An application as a program: command line, logging, signals.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use runtime::BoxError;
use runtime::signals::Signals;

use crate::config::{ConsumerOptions, ServeArgs};
use crate::{Application, Consumer};

const SERVE: &str = "serve";
const PRINT_CONFIG: &str = "print-config";

/// Runs an application as the program that it is: `serve` runs a member of its consumer group until a signal asks it to
/// stop, and for as long as it then takes to leave in order; a second signal ends the process at once. `print-config`
/// prints the configuration that `serve` would have.
///
/// What the person who started it must know is printed to standard error, whatever the level of the log.
pub fn run<A: Application>(app: A) -> ExitCode {
    let name = app.name();
    let mut command = command(name);
    let matches = command.clone().get_matches();
    match matches.subcommand() {
        Some((SERVE, matches)) => match ServeArgs::from_arg_matches(matches) {
            Ok(args) => serve(app, name, args),
            Err(error) => error.exit(),
        },
        Some((PRINT_CONFIG, matches)) => {
            let arguments =
                command.find_subcommand(PRINT_CONFIG).into_iter().flat_map(Command::get_arguments);
            print!("{}", config_text(arguments, matches));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{}", command.render_help());
            ExitCode::FAILURE
        }
    }
}

fn command(name: &'static str) -> Command {
    let example = format!(
        "Example, next to a broker which was started with `courant serve`:\n  {name} {SERVE}\n\
         Any number of processes may run at once: they share the shards, and take over from each other."
    );
    let serve = ServeArgs::augment_args(Command::new(SERVE)).about("Runs shards of the application");
    let print = ServeArgs::augment_args(Command::new(PRINT_CONFIG));
    let print = print.about("Prints the configuration that serve would have, as INI");
    Command::new(name)
        .about(format!("{name}: an application over journals"))
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand(serve.after_help(example))
        .subcommand(print)
}

/// The configuration which `matches` gives to the `arguments` of a command, as INI: a section for each group of options, in
/// the order of the command line. Secrets are hidden.
pub fn config_text<'a>(arguments: impl Iterator<Item = &'a Arg>, matches: &ArgMatches) -> String {
    let mut text = String::new();
    let mut section = String::new();
    for argument in arguments {
        let Some((group, option)) = argument.get_id().as_str().split_once('.') else { continue };
        if group != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}[{}]\n", argument.get_help_heading().unwrap_or(group)));
            section = group.to_owned();
        }
        let secret = argument.is_hide_env_values_set();
        for value in matches.get_raw(argument.get_id().as_str()).into_iter().flatten() {
            let value = if secret { "<hidden>".into() } else { value.to_string_lossy() };
            text.push_str(&format!("{option} = {value}\n"));
        }
    }
    text
}

fn serve<A: Application>(app: A, name: &str, args: ServeArgs) -> ExitCode {
    runtime::limits::raise_open_files();
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match threads {
        Ok(threads) => threads.block_on(serve_until_signal(app, name, args)),
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
    let options = ConsumerOptions::from_args(args, name)?;
    tracing::info!(?options, "consumer configuration");
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
        let command = command("app");
        let args =
            ["app", PRINT_CONFIG, "--consumer.limit=7", "--consumer.auth-keys=secret", "--etcd.lease=5s"];
        let matches = command.clone().try_get_matches_from(args).unwrap();
        let arguments = command.find_subcommand(PRINT_CONFIG).unwrap().get_arguments();
        let text = config_text(arguments, matches.subcommand().unwrap().1);
        for line in [
            "[Consumer]\nzone = local\n",
            "\nlimit = 7\n",
            "\n[Etcd]\nlease = 5s\n",
            "\nauth-keys = <hidden>\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn the_command_line_is_sound() {
        command("app").debug_assert();
    }
}
