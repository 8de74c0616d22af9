//! The command line of `courant`: its commands, what configures them, and what is made of it for shells and readers.

use crate::Cli;
use crate::output::print;
use clap::{ArgMatches, Args, Command, CommandFactory};
use runtime::BoxError;
use runtime::config::{Ini, IniError, config_text, given_options};
use std::path::Path;

const PRINT_CONFIG: &str = "print-config";
/// Groups of commands which share options.
const GROUPS: [&str; 2] = ["journals", "shards"];
/// Commands which are configured as a Gazette broker is.
const BROKER_COMMANDS: [&str; 2] = ["serve", PRINT_CONFIG];
const BROKER_INI: &str = "gazette.ini";
/// Commands which are configured as gazctl is.
const CLIENT_COMMANDS: [&str; 5] = ["journals", "shards", "bench", "attach-uuids", "token"];
const CLIENT_INI: &str = "gazctl.ini";

/// The command line, as it is without configuration.
pub fn command() -> Command {
    let print_config = broker::ServeArgs::augment_args(Command::new(PRINT_CONFIG))
        .about("Print the configuration which serve would have, as INI")
        .after_help("Example:\n  courant print-config --broker.zone us-east-1 > gazette.ini");
    let mut command = Cli::command().subcommand(print_config);
    for group in GROUPS {
        let print_config = Command::new(PRINT_CONFIG)
            .about("Print the configuration which these commands would have, as INI")
            .after_help(format!("Example:\n  courant {group} print-config >> gazctl.ini"));
        command = command.mut_subcommand(group, |group| group.subcommand(print_config));
    }
    command
}

/// The command line, with the values of the file which configures the command whose name is `first`.
///
/// # Errors
/// If the file is malformed.
pub fn configured(first: Option<&str>) -> Result<(Ini, Command), IniError> {
    let mut command = command();
    let mut ini = Ini::default();
    match first {
        Some(name) if BROKER_COMMANDS.contains(&name) => {
            ini = Ini::load(BROKER_INI)?;
            if let Some(command) = command.find_subcommand_mut(name) {
                ini.preset(command, "")?;
            }
        }
        Some(name) if CLIENT_COMMANDS.contains(&name) => {
            ini = Ini::load(CLIENT_INI)?;
            ini.preset(&mut command, "")?;
        }
        _ => {}
    }
    Ok((ini, with_shared_options(command)))
}

/// Options of a group of commands may stand before or after the command itself.
pub fn with_shared_options(mut command: Command) -> Command {
    for group in GROUPS {
        command = command.mut_subcommand(group, |group| group.mut_args(|arg| arg.global(true)));
    }
    command
}

/// What is to be printed, if the command is a `print-config`.
pub fn printed_config(matches: &ArgMatches) -> Option<String> {
    let command = command();
    let (name, matches) = matches.subcommand()?;
    if name == PRINT_CONFIG {
        return Some(config_text(command.find_subcommand(name)?, matches, ""));
    }
    let (inner, inner_matches) = matches.subcommand()?;
    (inner == PRINT_CONFIG)
        .then(|| command.find_subcommand(name).map(|group| config_text(group, inner_matches, name)))?
}

/// The options that the command was given, for a log.
pub fn given(matches: &ArgMatches) -> String {
    let command = command();
    let (name, matches) = matches.subcommand().unwrap_or(("", matches));
    command.find_subcommand(name).map(|command| given_options(command, matches)).unwrap_or_default()
}

/// Options of `courant completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell.
    #[arg(value_name = "SHELL", value_enum)]
    shell: clap_complete::Shell,
}

/// Prints what a shell has to know in order to complete commands and options.
pub fn print_completions(args: &CompletionsArgs) -> Result<(), BoxError> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut with_shared_options(command()), "courant", &mut text);
    Ok(print(&String::from_utf8(text)?)?)
}

/// Options of `courant man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory of the pages; it is made if it does not exist.
    #[arg(value_name = "DIR")]
    dir: std::path::PathBuf,
}

/// Writes a page for each command.
pub fn write_manual(args: &ManArgs) -> Result<(), BoxError> {
    let write = |dir: &Path| {
        std::fs::create_dir_all(dir)?;
        clap_mangen::generate_to(with_shared_options(command()), dir)
    };
    write(&args.dir).map_err(|e| format!("writing the manual to {:?}: {e}", args.dir).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientCommand, Command as Chosen};
    use clap::FromArgMatches;

    #[test]
    fn the_command_line_is_consistent() {
        with_shared_options(command()).debug_assert();
    }

    /// Every command which does something, by its path.
    fn leaves(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
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
        leaves(&command(), "courant", &mut found);
        assert!(found.len() >= 25, "{}", found.len());
        for (path, mut command) in found {
            let help = command.render_long_help().to_string();
            assert!(command.get_about().is_some(), "{path} says nothing about itself");
            assert!(
                help.contains(&format!("  {path}"))
                    || help.contains(&format!("| {path}"))
                    || help.contains(&format!("' {path}")),
                "{path}: {help}"
            );
        }
    }

    #[test]
    fn the_guide_shows_every_command() {
        let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
        let guide = std::fs::read_to_string(guide).unwrap();
        let mut found = Vec::new();
        leaves(&command(), "courant", &mut found);
        let rows: Vec<&str> = guide.lines().filter(|line| line.starts_with("| `courant ")).collect();
        for (path, _) in &found {
            let row = rows.iter().find(|row| row.starts_with(&format!("| `{path}` |")));
            let row = row.unwrap_or_else(|| panic!("docs/cli.md has no row for {path}"));
            assert!(row.matches(path.as_str()).count() >= 2, "docs/cli.md has no example of {path}");
        }
        assert_eq!(rows.len(), found.len(), "docs/cli.md shows commands which do not exist");
    }

    #[test]
    fn options_of_a_group_may_stand_before_and_after_the_command() {
        let command = with_shared_options(command());
        for line in [
            "courant journals --broker.address http://x:1 list",
            "courant journals list --broker.address http://x:1",
        ] {
            let matches = command.clone().try_get_matches_from(line.split(' ')).unwrap();
            let Chosen::Client(ClientCommand::Journals(args)) =
                Cli::from_arg_matches(&matches).unwrap().command
            else {
                panic!("{line}")
            };
            assert_eq!(args.session.broker.address, "http://x:1", "{line}");
        }
    }
}
