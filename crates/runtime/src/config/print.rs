//! Prints a configuration: as the INI file which would give it, or as a line for the log.

use std::borrow::Cow;
use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::ini::OptionName;
use super::quote::quote;

/// Words of names which are written in capitals.
const ACRONYMS: [&str; 6] = ["ca", "grpc", "id", "rf", "ttl", "url"];

/// The configuration which `matches` gives to the options of `command`, as INI, with a comment for each option. What is
/// as it would be without any configuration is commented out, and so are secrets, whose values are not printed. Otherwise
/// the text gives the same configuration when it is read as an INI file.
///
/// `command` is as the program declares it, without values of a file; `section` is as for [`super::Ini::preset`].
pub fn config_text(command: &Command, matches: &ArgMatches, section: &str) -> String {
    let mut order = Vec::new();
    let mut sections = BTreeMap::<String, String>::new();
    for option in command.get_arguments() {
        let Some(name) = OptionName::of(option) else { continue };
        let section = name.section(option, section);
        if !sections.contains_key(&section) {
            order.push(section.clone());
        }
        sections.entry(section).or_default().push_str(&option_text(option, &name, matches));
    }
    let texts = order.iter().map(|name| format!("[{name}]\n{}", sections[name]));
    texts.collect::<Vec<_>>().join("\n")
}

/// The options of `command` which `matches` gives other values than they have without any configuration, as flags in one
/// line. The values of secrets are hidden. `command` is as for [`config_text`].
pub fn given_options(command: &Command, matches: &ArgMatches) -> String {
    let given = command.get_arguments().filter_map(|option| {
        let values = values_of(option, matches);
        let is_given = values.iter().any(|value| !value.is_empty()) && !is_default(option, &values);
        is_given.then(|| flags(option, &values)).flatten()
    });
    given.collect::<Vec<_>>().join(" ")
}

fn flags(option: &Arg, values: &[impl AsRef<str>]) -> Option<String> {
    let name = option.get_long()?;
    if matches!(option.get_action(), ArgAction::SetTrue) {
        return Some(format!("--{name}"));
    }
    let flag = |value: &str| match value {
        _ if option.is_hide_env_values_set() => format!("--{name}=<hidden>"),
        value if value.contains(char::is_whitespace) => format!("--{name}={}", quote(value)),
        value => format!("--{name}={}", value_text(value)),
    };
    Some(values.iter().map(|value| flag(value.as_ref())).collect::<Vec<_>>().join(" "))
}

/// The values of an option, as they were given.
fn values_of<'m>(option: &Arg, matches: &'m ArgMatches) -> Vec<Cow<'m, str>> {
    let raw = matches.try_get_raw(option.get_id().as_str()).ok().flatten();
    raw.into_iter().flatten().map(|value| value.to_string_lossy()).collect()
}

fn option_text(option: &Arg, name: &OptionName<'_>, matches: &ArgMatches) -> String {
    let mut text = String::new();
    if let Some(help) = option.get_help() {
        text.push_str(&format!("; {}\n", help.to_string().split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    let key = field_name(option, name);
    let values = values_of(option, matches);
    if values.is_empty() {
        return format!("{text}; {key} =\n");
    }
    let hidden = option.is_hide_env_values_set();
    let comment = if hidden || is_default(option, &values) { "; " } else { "" };
    for value in values {
        let value = if hidden { "<hidden>".to_owned() } else { value_text(&value) };
        text.push_str(&format!("{comment}{key} = {value}\n"));
    }
    text
}

/// Whether an option would have these values without any configuration.
fn is_default(option: &Arg, values: &[impl AsRef<str>]) -> bool {
    let defaults = option.get_default_values();
    let is_unset_flag = matches!(option.get_action(), ArgAction::SetTrue) && defaults.is_empty();
    match values {
        [value] if is_unset_flag => value.as_ref() == "false",
        values => {
            values.len() == defaults.len()
                && values.iter().zip(defaults).all(|(value, default)| *value.as_ref() == *default.as_os_str())
        }
    }
}

/// The option as a field of a structure: `CertKeyFile` of `cert-key-file`.
fn field_name(option: &Arg, name: &OptionName<'_>) -> String {
    let words = match name.option.rsplit_once('.') {
        Some((_, last)) => last,
        None => name.in_environment(option).unwrap_or(name.option),
    };
    words.split(['-', '_']).map(|word| field_word(&word.to_lowercase())).collect()
}

fn field_word(word: &str) -> String {
    if ACRONYMS.contains(&word) {
        return word.to_uppercase();
    }
    let mut chars = word.chars();
    chars.next().into_iter().flat_map(char::to_uppercase).chain(chars).collect()
}

/// A value, in quotes if it would not be read back without them.
fn value_text(value: &str) -> String {
    let changes = value.trim() != value || value.starts_with('"') || value.chars().any(char::is_control);
    if changes { quote(value) } else { value.to_owned() }
}
