//! The program.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bike-share")).args(arguments).output().unwrap()
}

#[test]
fn the_connection_is_an_option_and_may_be_secret() {
    let help = String::from_utf8(run(&["serve", "--help"]).stdout).unwrap();
    assert!(
        help.contains("--postgres <CONNECTION>") && help.contains("[default: host=/var/run/postgresql]"),
        "{help}"
    );
    let printed = run(&["print-config", "--postgres", "host=db password=hush"]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("; Postgres = <hidden>\n") && !printed.contains("hush"), "{printed}");
    let refused = run(&["serve", "--postgres", "host"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{said}");
    assert!(said.starts_with("bike-share: the connection string of a PostgreSQL store: "), "{said}");
}
