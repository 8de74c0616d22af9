//! The page about moving from Gazette, as a reader would follow it. Links to `courant` stand for Gazette's programs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;

use tests::process::binary;
use tests::walkthrough::{Terminal, blocks, repository};

#[tokio::test]
async fn a_cluster_moves_there_and_back_under_load() {
    let ports = ["8081", "2379", "2380", "8082", "8083", "8084", "8085", "8086", "8087"];
    let mut terminal = Terminal::open(&ports);
    for program in ["gazette", "gazctl"] {
        symlink(binary("courant"), terminal.dir().join(program)).unwrap();
    }
    let mut commands = 0;
    for block in blocks(&repository().join("docs/migrating-from-gazette.md")) {
        match &*block.info {
            "console" => commands += terminal.follow(&block).await,
            "yaml,file=move.yaml" => {
                std::fs::write(terminal.dir().join("move.yaml"), block.lines.join("\n") + "\n").unwrap();
            }
            info => assert_eq!(info, "text", "{}: a block is run, written or text", block.place),
        }
    }
    assert!(commands >= 20, "{commands} commands");
}
