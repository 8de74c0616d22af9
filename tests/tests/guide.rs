//! The guide, as a reader would follow it: its commands are run in the order of its chapters, in one directory, and what it
//! shows of their output is compared; its listings are files of the examples, which other tests compile and run.
//!
//! A command whose output is shown is repeated until it prints that, as a reader would who is a moment too early; of another one
//! it matters that it succeeds. `…` stands for any text. Ports are replaced by free ones.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use runtime::Clock;
use rustix::process::{Pid, Signal, kill_process_group};
use tests::process::binary;

/// Longest wait for a command to print what the guide shows. A killed application's lease takes 20 seconds to run out.
const LIMIT: Duration = Duration::from_secs(120);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A fenced block of a chapter.
struct Block {
    place: String,
    info: String,
    lines: Vec<String>,
}

/// The blocks of all chapters, in the order of the summary.
fn blocks() -> Vec<Block> {
    let dir = repository().join("docs/guide/src");
    let summary = fs::read_to_string(dir.join("SUMMARY.md")).unwrap();
    let chapters = summary.lines().filter_map(|line| line.split_once("](")?.1.strip_suffix(')'));
    let mut blocks = Vec::new();
    for chapter in chapters {
        let text = fs::read_to_string(dir.join(chapter)).unwrap_or_else(|e| panic!("{chapter}: {e}"));
        let mut open: Option<Block> = None;
        for (number, line) in text.lines().enumerate() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(info), None) => {
                    let place = format!("{chapter}:{}", number + 1);
                    open = Some(Block { place, info: info.to_owned(), lines: Vec::new() });
                }
                (None, Some(block)) => block.lines.push(line.to_owned()),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{chapter}: a block does not end");
    }
    blocks
}

/// Runs commands in one directory, and ends at its end what they left running.
struct Terminal {
    dir: tempfile::TempDir,
    ports: Vec<(&'static str, String)>,
    groups: Vec<Child>,
    clock: Clock,
}

impl Terminal {
    fn open() -> Terminal {
        // Held until all are known, so that they differ.
        let free: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let port = |index: usize| free[index].local_addr().unwrap().port().to_string();
        let ports = vec![("8080", port(0)), ("9000", port(1)), ("9001", port(2))];
        Terminal { dir: tempfile::tempdir().unwrap(), ports, groups: Vec::new(), clock: Clock::system() }
    }

    fn with_ports(&self, text: &str) -> String {
        self.ports.iter().fold(text.to_owned(), |text, (shown, used)| text.replace(shown, used))
    }

    /// Starts a command whose output goes to a file.
    fn start(&mut self, command: &str) -> PathBuf {
        let output = self.dir.path().join(format!(".output-{}", self.groups.len()));
        let file = File::create(&output).unwrap();
        let programs = binary("courant").parent().unwrap().to_owned();
        let command = format!("PATH={}:$PATH\n{command}", programs.display());
        let broker = &self.ports[0].1;
        let mut bash = Command::new("bash");
        bash.args(["-c", &command]).current_dir(self.dir.path());
        bash.env("BROKER_PORT", broker).env("BROKER_ADDRESS", format!("http://localhost:{broker}"));
        // What it starts is in its group, and ends with this.
        bash.process_group(0).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        self.groups.push(bash.spawn().unwrap());
        output
    }

    async fn ended(&mut self, command: &str) -> bool {
        let begun = self.clock.now();
        loop {
            if let Some(status) = self.groups.last_mut().unwrap().try_wait().unwrap() {
                return status.success();
            }
            assert!(self.clock.now() - begun < LIMIT, "{command} does not end");
            self.clock.sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs a command, again until its output is as `shown` if the guide shows some.
    async fn run(&mut self, place: &str, command: &str, shown: &[String]) {
        let command = self.with_ports(command);
        let shown: Vec<_> = shown.iter().map(|line| self.with_ports(line)).collect();
        let is_background = command.contains(" & ");
        let begun = self.clock.now();
        let mut output = self.start(&command);
        loop {
            let has_succeeded = self.ended(&command).await;
            let printed = fs::read_to_string(&output).unwrap();
            let lines: Vec<_> = printed.lines().collect();
            let is_shown = shown.is_empty()
                || lines.len() == shown.len() && lines.iter().zip(&shown).all(|(l, s)| is_as_shown(l, s));
            if has_succeeded && is_shown {
                return;
            }
            let is_over = shown.is_empty() || self.clock.now() - begun > LIMIT;
            assert!(!is_over, "{place}: {command}\nprinted\n{printed}instead of\n{}", shown.join("\n"));
            self.clock.sleep(Duration::from_millis(100)).await;
            if !is_background {
                output = self.start(&command);
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        for group in &mut self.groups {
            // Most have ended.
            let _gone = kill_process_group(Pid::from_child(group), Signal::KILL);
            let _status = group.wait();
        }
    }
}

/// Whether a line is as shown, where runs of spaces are one and `…` is any text.
fn is_as_shown(line: &str, shown: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (line, shown) = (words(line), words(shown));
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        let found = if parts.peek().is_none() {
            rest.ends_with(part).then(|| rest.len() - part.len())
        } else {
            rest.find(part)
        };
        match found {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

#[test]
fn lines_are_compared_with_gaps() {
    for (line, shown, is_as) in [
        ("a   b", "a b", true),
        ("a b", "a c", false),
        ("serving on x, etcd", "serving on …, etcd", true),
        ("serving on x, etcd!", "serving on …, etcd", false),
        (r#"{"UUID":"1","P":2}"#, r#"{"UUID":"…","P":…}"#, true),
        ("abc", "…", true),
        ("abc", "ab", false),
    ] {
        assert_eq!(is_as_shown(line, shown), is_as, "{line} as {shown}");
    }
}

#[tokio::test]
async fn the_guide_can_be_followed() {
    let mut terminal = Terminal::open();
    let (mut commands, mut listings) = (0, 0);
    for Block { place, info, lines } in blocks() {
        if info == "console" {
            let mut lines = lines.iter().peekable();
            while let Some(line) = lines.next() {
                let command =
                    line.strip_prefix("$ ").unwrap_or_else(|| panic!("{place}: {line} is not a command"));
                let mut shown = Vec::new();
                while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
                    shown.push(line.clone());
                }
                terminal.run(&place, command, &shown).await;
                commands += 1;
            }
        } else if let Some((_, file)) = info.split_once(",file=") {
            let text = lines.join("\n") + "\n";
            if file.contains('/') {
                let original = fs::read_to_string(repository().join(file)).unwrap();
                assert_eq!(text, original, "{place} is not {file}");
            }
            fs::write(terminal.dir.path().join(Path::new(file).file_name().unwrap()), text).unwrap();
            listings += 1;
        } else {
            assert_eq!(info, "text", "{place}: a block is run (console), written (file=) or text");
        }
    }
    assert!(commands >= 25 && listings >= 6, "{commands} commands, {listings} listings");
}
