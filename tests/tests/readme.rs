//! The first steps in the READMEs of Courant and its examples, as a reader would follow them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;
use std::process::Command;

use store_servers::PostgresServer;
use tests::walkthrough::{Terminal, blocks, repository};

/// Runs the commands of the README in `dir`.
async fn follow(terminal: &mut Terminal, dir: &str) {
    symlink(repository().join("examples"), terminal.dir().join("examples")).unwrap();
    let mut commands = 0;
    for block in blocks(&repository().join(dir).join("README.md")) {
        match &*block.info {
            "console" => commands += terminal.follow(&block).await,
            "sh" | "text" => {}
            info => panic!("{}: a block is run, a hint or text, and not {info}", block.place),
        }
    }
    assert!(commands >= 7, "{commands} commands");
}

#[tokio::test]
async fn the_tour_takes_its_reader_through() {
    let mut terminal = Terminal::open(&["8080", "9000"]);
    // It warns of sums that a slow machine is late with.
    terminal.stand_in("chunker run", "LOG_LEVEL=error chunker run".to_owned());
    follow(&mut terminal, "").await;
}

#[tokio::test]
async fn words_are_counted() {
    follow(&mut Terminal::open(&["8080", "9000"]), "examples/word-count").await;
}

#[tokio::test]
async fn rides_are_kept_in_postgresql() {
    let server = PostgresServer::start().unwrap();
    // As the README asks of its reader.
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let create = format!("CREATE ROLE \"{}\" LOGIN CREATEDB", user.trim());
    let created = Command::new("psql").arg(server.connection()).args(["-qc", &create]).status().unwrap();
    assert!(created.success());

    let mut terminal = Terminal::open(&["8080", "9000"]);
    terminal.stand_in("/var/run/postgresql", server.dir().display().to_string());
    follow(&mut terminal, "examples/bike-share").await;
}
