//! The first steps in the READMEs of examples, as a reader would follow them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;
use std::process::Command;

use store_servers::PostgresServer;
use tests::walkthrough::{Terminal, blocks, repository};

/// Runs the commands of the README of `example`.
async fn follow(terminal: &mut Terminal, example: &str) {
    symlink(repository().join("examples"), terminal.dir().join("examples")).unwrap();
    let mut commands = 0;
    for block in blocks(&repository().join("examples").join(example).join("README.md")) {
        match &*block.info {
            "console" => commands += terminal.follow(&block).await,
            info => assert_eq!(info, "sh", "{}: a block is run, or a hint", block.place),
        }
    }
    assert!(commands >= 7, "{commands} commands");
}

#[tokio::test]
async fn words_are_counted() {
    follow(&mut Terminal::open(&["8080", "9000"]), "word-count").await;
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
    follow(&mut terminal, "bike-share").await;
}
