//! INI files: values of options which flags override, and which override the environment (journal protocol §15.1).
//!
//! ```text
//! [Broker]
//! Address = http://broker:8080
//! ; auth-keys is the same
//! AuthKeys = "c2VjcmV0"
//! ```
//!
//! A section is named after a group of options as `--help` shows it (`[Broker]`, `[Logging]`) or as flags begin with it
//! (`[broker]`, `[log]`). In a file which several commands share, the command comes first: `[journals.Broker]`. Options of
//! no group are in the section of their command, `[journals]`. Case does not matter in names, nor dashes and underscores
//! in keys, so that `MaxAppendRate` and `max-append-rate` are one key. A flag's whole name, `broker.max-append-rate`, is a key
//! too, also ahead of all sections. A key which no option has is ignored, so that one file can serve several versions of
//! several programs.
//!
//! A value takes the place of the option's default and environment variable before the command line is parsed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::{Arg, ArgAction, Command};

use super::quote::unquote;

/// Section of options without a group, in files of programs whose options belong to no command.
const UNGROUPED: &str = "Application Options";

/// A file which cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IniError {
    /// It is there, but cannot be read.
    #[error("reading {path:?}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line of it is malformed, or has a value which its option does not take.
    #[error("{path}:{line}: {problem}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from one.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// What a file says. Without a file it says nothing.
#[derive(Debug, Default)]
pub struct Ini {
    path: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    line: usize,
    section: String,
    key: String,
    value: String,
    /// Whether some option has this key.
    used: bool,
}

impl Ini {
    /// Reads the first file of this name in the working directory, `$HOME/.config/gazette` and
    /// `$UserProfile/.config/gazette`. Without one, nothing is configured.
    ///
    /// # Errors
    /// If that file cannot be read, or is malformed.
    pub fn load(name: &str) -> Result<Ini, IniError> {
        let homes = ["HOME", "UserProfile"].into_iter().filter_map(std::env::var_os);
        let homes =
            homes.filter(|home| !home.is_empty()).map(|home| Path::new(&home).join(".config/gazette"));
        Ini::load_first(std::iter::once(PathBuf::new()).chain(homes).map(|dir| dir.join(name)))
    }

    fn load_first(paths: impl Iterator<Item = PathBuf>) -> Result<Ini, IniError> {
        for path in paths {
            match std::fs::read_to_string(&path) {
                Ok(text) => return Ini::parse(path, &text),
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(source) => return Err(IniError::Read { path, source }),
            }
        }
        Ok(Ini::default())
    }

    /// Parses the `text` of the file at `path`.
    ///
    /// # Errors
    /// The first malformed line.
    pub fn parse(path: PathBuf, text: &str) -> Result<Ini, IniError> {
        let mut ini = Ini { path, entries: Vec::new() };
        let mut section = String::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            match parse_line(line).map_err(|problem| ini.error(index + 1, problem))? {
                Line::Section(name) => section = name,
                Line::Value(key, value) => {
                    let section = section.clone();
                    ini.entries.push(Entry { line: index + 1, section, key, value, used: false });
                }
            }
        }
        Ok(ini)
    }

    /// Makes the values of this file the defaults of `command`, and of the commands below it, ahead of the environment.
    /// `section` is what names of sections begin with: nothing for a program, or the path of a command.
    ///
    /// # Errors
    /// The first value which its option does not take.
    pub fn preset(&mut self, command: &mut Command, section: &str) -> Result<(), IniError> {
        let mut values = BTreeMap::new();
        for option in command.get_arguments() {
            values.insert(option.get_id().clone(), self.values_of(option, section)?);
        }
        *command = std::mem::take(command).mut_args(|option| match values.remove(option.get_id()) {
            Some(values) if !values.is_empty() => {
                option.default_values(values.into_iter().map(kept)).env(Resettable::Reset).required(false)
            }
            _ => option,
        });
        for command in command.get_subcommands_mut() {
            let section = join(section, command.get_name());
            self.preset(command, &section)?;
        }
        Ok(())
    }

    /// Which file was read, and which of its keys no option has: for [`super::LogArgs::remarks`].
    pub fn remarks(&self) -> Vec<String> {
        let path = self.path.display();
        if self.path.as_os_str().is_empty() {
            return Vec::new();
        }
        let unused =
            self.entries.iter().filter(|entry| !entry.used).map(|Entry { line, section, key, .. }| {
                format!("{path}:{line}: no option has the key {key:?} of section {section:?}: it is ignored")
            });
        std::iter::once(format!("configured by {path}")).chain(unused).collect()
    }

    /// Values of an option. An empty one is none, except of a flag, which is set by it.
    fn values_of(&mut self, option: &Arg, section: &str) -> Result<Vec<String>, IniError> {
        let Some(name) = OptionName::of(option) else { return Ok(Vec::new()) };
        let (sections, keys) = (name.sections(option, section), name.keys(option));
        let mut found = Vec::new();
        for entry in &mut self.entries {
            let is_in_section = sections.contains(&entry.section.to_lowercase());
            let is_of_all = entry.section.is_empty() && normal(&entry.key) == normal(name.long);
            if is_of_all || is_in_section && keys.contains(&normal(&entry.key)) {
                entry.used = true;
                found.push((entry.line, entry.value.clone()));
            }
        }
        let mut values = Vec::new();
        for (line, value) in found {
            let value = match (option.get_action(), value.as_str()) {
                (ArgAction::SetTrue, value) => flag_value(value).map(str::to_owned),
                (_, "") => continue,
                (_, _) => check(option, &name, &value).map(|()| value),
            };
            values.push(value.map_err(|problem| self.error(line, problem))?);
        }
        // Only options which may be repeated have several values; of others the last one counts.
        if !matches!(option.get_action(), ArgAction::Append) {
            values.drain(..values.len().saturating_sub(1));
        }
        Ok(values)
    }

    fn error(&self, line: usize, problem: String) -> IniError {
        IniError::Line { path: self.path.clone(), line, problem }
    }
}

/// A default for clap, which keeps them for as long as the process lives.
fn kept(value: String) -> &'static str {
    value.leak()
}

enum Line {
    Section(String),
    Value(String, String),
}

fn parse_line(line: &str) -> Result<Line, String> {
    if let Some(header) = line.strip_prefix('[') {
        let name = header.strip_suffix(']').map(str::trim).filter(|name| !name.is_empty());
        return name.map(|name| Line::Section(name.to_owned())).ok_or("expected [section]".to_owned());
    }
    // What stands there may be a secret: it is not shown.
    let (key, value) = line.split_once('=').ok_or("expected key = value, found no equals sign")?;
    let (key, value) = (key.trim(), value.trim());
    let value = match value.starts_with('"') {
        true => unquote(value).ok_or_else(|| format!("the value of {key} is malformed quoted text"))?,
        false => value.to_owned(),
    };
    Ok(Line::Value(key.to_owned(), value))
}

/// The text of a flag's value, as clap takes it.
fn flag_value(value: &str) -> Result<&'static str, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok("true"),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok("false"),
        other => Err(format!("invalid value {other:?} (expected true or false)")),
    }
}

/// Whether an option takes a value. A default which it does not take would be a mistake of the program's.
fn check(option: &Arg, name: &OptionName, value: &str) -> Result<(), String> {
    let none = std::iter::empty::<&str>();
    let option = option.clone().required(false).default_values(none).env(Resettable::Reset);
    let command = Command::new("ini").no_binary_name(true).disable_help_flag(true).arg(option);
    let outcome = command.try_get_matches_from([format!("--{}={value}", name.long)]);
    outcome.map(drop).map_err(|error| {
        let text = error.to_string();
        let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>();
        lines.join(" ").trim_start_matches("error: ").to_owned()
    })
}

/// The long name of an option: `broker.auth-keys`, or `zone`.
pub(super) struct OptionName<'a> {
    long: &'a str,
    /// `broker`, or nothing.
    pub group: Option<&'a str>,
    /// `auth-keys`.
    pub option: &'a str,
}

impl<'a> OptionName<'a> {
    /// `None` of arguments which have no long name, and of `--help` and `--version`.
    pub fn of(option: &'a Arg) -> Option<OptionName<'a>> {
        let long = option.get_long()?;
        if matches!(
            option.get_action(),
            ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
        ) {
            return None;
        }
        let (group, name) = match long.split_once('.') {
            Some((group, name)) => (Some(group), name),
            None => (None, long),
        };
        Some(OptionName { long, group, option: name })
    }

    /// The section in which the option is written: after its group as it is shown, if it has one.
    pub fn section(&self, option: &Arg, command: &str) -> String {
        match self.group {
            Some(group) => join(command, option.get_help_heading().unwrap_or(group)),
            None if command.is_empty() => UNGROUPED.to_owned(),
            None => command.to_owned(),
        }
    }

    /// The option's name in its environment variable: `LEASE_TTL` of `etcd.lease`, which is `ETCD_LEASE_TTL`.
    pub fn in_environment(&self, option: &'a Arg) -> Option<&'a str> {
        let variable = option.get_env()?.to_str()?;
        let Some(group) = self.group else { return Some(variable) };
        let (start, rest) = variable.split_once('_')?;
        start.eq_ignore_ascii_case(group).then_some(rest)
    }

    fn sections(&self, option: &Arg, command: &str) -> BTreeSet<String> {
        let by_flag = self.group.map(|group| join(command, group));
        by_flag.into_iter().chain([self.section(option, command)]).map(|name| name.to_lowercase()).collect()
    }

    fn keys(&self, option: &Arg) -> BTreeSet<String> {
        let last = self.option.rsplit('.').next();
        let names = [Some(self.long), Some(self.option), last, self.in_environment(option)];
        names.into_iter().flatten().map(normal).collect()
    }
}

/// A key without what does not matter in it.
fn normal(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '-' | '_' | '.')).flat_map(char::to_lowercase).collect()
}

fn join(command: &str, name: &str) -> String {
    if command.is_empty() { name.to_owned() } else { format!("{command}.{name}") }
}

#[cfg(test)]
mod tests;
