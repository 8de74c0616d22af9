//! The operations guide, as a reader would follow it on one machine: its commands are run in their order, in one shell.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;

use tests::walkthrough::{Terminal, blocks, repository, ten_ports};

#[tokio::test]
async fn a_cluster_is_set_up_changed_hurt_and_backed_up() {
    let mut terminal = Terminal::open(&["8443", "2379", "2380"]);
    let brokers = ten_ports();
    terminal.stand_in("808", brokers.clone());
    // The summers' ports end otherwise than the brokers'.
    terminal.stand_in("--consumer.port 909$n", format!("--consumer.port {brokers}$((n + 5))"));
    terminal.stand_in("9091", format!("{brokers}6"));
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
