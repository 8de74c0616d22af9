//! The guide, as a reader would follow it: its commands are run in the order of its chapters, in one directory; its listings
//! are files of the examples, which other tests compile and run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use tests::walkthrough::{Block, Terminal, blocks, repository};

/// The blocks of all chapters, in the order of the summary.
fn chapters() -> Vec<Block> {
    let dir = repository().join("docs/guide/src");
    let summary = fs::read_to_string(dir.join("SUMMARY.md")).unwrap();
    let chapters = summary.lines().filter_map(|line| line.split_once("](")?.1.strip_suffix(')'));
    chapters.flat_map(|chapter| blocks(&dir.join(chapter))).collect()
}

#[tokio::test]
async fn the_guide_can_be_followed() {
    let mut terminal = Terminal::open(&["8080", "9000", "9001"]);
    let (mut commands, mut listings) = (0, 0);
    for block in chapters() {
        let Block { place, info, lines } = &block;
        if info == "console" {
            commands += terminal.follow(&block).await;
        } else if let Some((_, file)) = info.split_once(",file=") {
            let text = lines.join("\n") + "\n";
            if file.contains('/') {
                let original = fs::read_to_string(repository().join(file)).unwrap();
                assert_eq!(text, original, "{place} is not {file}");
            }
            fs::write(terminal.dir().join(Path::new(file).file_name().unwrap()), text).unwrap();
            listings += 1;
        } else {
            assert_eq!(info, "text", "{place}: a block is run (console), written (file=) or text");
        }
    }
    assert!(commands >= 25 && listings >= 6, "{commands} commands, {listings} listings");
}
