//! `summer` and `chunker` as programs: what configures them, and how they answer to a command line.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::path::Path;
use std::process::{Command, Output};

const CHUNKER: &str = env!("CARGO_BIN_EXE_chunker");
const SUMMER: &str = env!("CARGO_BIN_EXE_summer");

/// Runs a program in a directory, with this environment alone.
fn run(program: &str, dir: &Path, args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    command.args(args).current_dir(dir).env_clear().envs(environment.iter().copied());
    command.output().unwrap()
}

/// The lines of the configuration which give a value.
fn values(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().filter(|line| line.contains(" = ") && !line.starts_with(';')).map(str::to_owned).collect()
}

#[test]
fn flags_win_over_the_file_and_the_file_over_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    for (program, file, section, option, variable) in [
        (SUMMER, "gazette.ini", "Consumer", "--consumer.zone", "CONSUMER_ZONE"),
        (CHUNKER, "chunker.ini", "Chunker", "--chunker.zone", "CHUNKER_ZONE"),
    ] {
        let environment = [(variable, "environment")];
        let print = |args: &[&str]| {
            values(&run(program, dir.path(), &[&["print-config"], args].concat(), &environment))
        };
        assert_eq!(print(&[]), ["Zone = environment"]);
        std::fs::write(
            dir.path().join(file),
            format!("[{section}]\nzone = file\n[Broker]\nAddress = http://b:1\n"),
        )
        .unwrap();
        assert_eq!(print(&[]), ["Zone = file", "Address = http://b:1"]);
        assert_eq!(print(&[option, "flag"]), ["Zone = flag", "Address = http://b:1"]);
        assert_eq!(print(&[option, "flag", option, "last"])[0], "Zone = last");
    }
    std::fs::write(dir.path().join("gazette.ini"), "[Consumer]\nLimit = many\n").unwrap();
    let output = run(SUMMER, dir.path(), &["serve"], &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with("summer: gazette.ini:2: invalid value 'many' for '--consumer.limit "), "{said}");
}

#[test]
fn without_a_command_help_and_version_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    for program in [SUMMER, CHUNKER] {
        let output = run(program, dir.path(), &[], &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        assert!(said.contains("Usage: ") && said.contains("print-config"), "{said}");
        assert!(said.lines().last().unwrap().starts_with("Version 0.1.0"), "{said}");
        let mistake = run(program, dir.path(), &["print-config", "--unknown"], &[]);
        assert_eq!(mistake.status.code(), Some(1));
        assert!(run(program, dir.path(), &["--help"], &[]).status.success());
    }
}
