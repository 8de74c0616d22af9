//! The operations guide, as a reader would follow it on one machine: its commands are run in their order, in one shell.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;

use tests::walkthrough::{Terminal, blocks, repository};

#[tokio::test]
async fn a_cluster_is_set_up_changed_hurt_and_backed_up() {
    let ports = ["8443", "8081", "8082", "8083", "8084", "8085", "9091", "9092", "2379", "2380"];
    let mut terminal = Terminal::open(&ports);
    let tens = terminal.tens().to_owned();
    // Those of brokers 1 to 4, and those of summers 1 and 2, are at these places.
    terminal.stand_in("808$n", format!("{tens}$n"));
    terminal.stand_in("909$n", format!("{tens}$((n + 5))"));
    symlink(repository().join("examples"), terminal.dir().join("examples")).unwrap();
    let mut commands = 0;
    for block in blocks(&repository().join("docs/operations.md")) {
        match &*block.info {
            "console" => commands += terminal.follow(&block).await,
            info => assert_eq!(info, "sh", "{}: a block is run, or needs Kubernetes", block.place),
        }
    }
    assert!(commands >= 40, "{commands} commands");
}
