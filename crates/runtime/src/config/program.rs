//! What the command lines of all programs have in common.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command};

use super::Ini;

/// The version of this program: `Version 0.1.0, built at 2026-11-25.`, where the time is that which the environment
/// variable `COURANT_BUILT_AT` had when it was built. Without it there is none.
pub fn version_line() -> String {
    let built_at =
        option_env!("COURANT_BUILT_AT").map(|time| format!(", built at {time}")).unwrap_or_default();
    format!("Version {}{built_at}.", env!("CARGO_PKG_VERSION"))
}

/// Gives the named `subcommands` of a `program` the values of an INI file of this name, and says what is wrong with the
/// file.
///
/// # Errors
/// The status to exit with.
pub fn with_ini(mut program: Command, file: &str, subcommands: &[&str]) -> Result<(Ini, Command), ExitCode> {
    let preset = Ini::load(file).and_then(|mut ini| {
        let commands = program.get_subcommands_mut();
        for command in commands.filter(|command| subcommands.contains(&command.get_name())) {
            ini.preset(command, "")?;
        }
        Ok(ini)
    });
    match preset {
        Ok(ini) => Ok((ini, program)),
        Err(error) => {
            eprintln!("{}: {error}", program.get_name());
            Err(ExitCode::FAILURE)
        }
    }
}

/// Parses the command line of this process. Of an option which is given more than once, the last one counts. If there is nothing to run, says why, and gives the status to exit with: that
/// of success if help was asked for, and 1 otherwise.
///
/// # Errors
/// The exit status.
pub fn parse_command_line(command: Command) -> Result<ArgMatches, ExitCode> {
    command.args_override_self(true).try_get_matches().map_err(|error| {
        // Nothing can be done if not even this can be printed.
        let _unprintable = error.print();
        if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            eprintln!("\n{}", version_line());
        }
        if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    })
}
