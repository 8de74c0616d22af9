//! Walks through documentation as a reader would: runs its commands in order, in one directory, and compares what it shows of
//! their output.
//!
//! A command whose output is shown is repeated until it prints that, as a reader would who is a moment too early; of another one
//! it matters that it succeeds. `…` stands for any text. Ports are replaced by free ones.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use runtime::Clock;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::process::binary;

/// Longest wait for a command to end, or to print what is shown. A killed application's lease takes 20 seconds to run out.
const LIMIT: Duration = Duration::from_secs(120);

/// The directory which holds the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Tens of ports: those above the privileged ones, and below those which are given to whoever asks for any port.
const TENS: Range<u32> = 1024..3072;

/// What ten ports begin with which are free: `1234` for 12340 to 12349. Nobody else in this process is given them.
fn ten_ports() -> String {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    // Processes which run at once begin apart.
    let first = std::process::id().wrapping_mul(41);
    let is_free = |tens: &u32| {
        let mut ports = (0..10).map(|digit| u16::try_from(tens * 10 + digit).unwrap());
        ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
    };
    let mut candidates = TENS.map(|_| {
        let asked = ASKED.fetch_add(1, Ordering::Relaxed);
        TENS.start + first.wrapping_add(asked) % (TENS.end - TENS.start)
    });
    candidates.find(is_free).expect("some of two thousand are free").to_string()
}

/// A fenced block of a page.
pub struct Block {
    /// The page and the line at which the block begins.
    pub place: String,
    /// What stands behind the fence.
    pub info: String,
    /// What it holds.
    pub lines: Vec<String>,
}

/// The blocks of the page at `path`.
pub fn blocks(path: &Path) -> Vec<Block> {
    let page = path.file_name().unwrap().display();
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (mut blocks, mut open): (Vec<_>, Option<Block>) = (Vec::new(), None);
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(info), None) => {
                let place = format!("{page}:{}", number + 1);
                open = Some(Block { place, info: info.to_owned(), lines: Vec::new() });
            }
            (None, Some(block)) => block.lines.push(line.to_owned()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a block does not end");
    blocks
}

/// Runs commands in one directory, and ends at its end what they left running.
pub struct Terminal {
    dir: tempfile::TempDir,
    tens: String,
    ports: Vec<(&'static str, String)>,
    /// What stands in pages for something else in tests.
    stand_ins: Vec<(&'static str, String)>,
    groups: Vec<Child>,
    /// What a shell would remember of the commands before: variables, and the directory that it is in.
    remembered: String,
    clock: Clock,
}

impl Terminal {
    /// Opens one in an empty directory, in which each of the `ports` that a page shows, of which there are ten at most, stands for
    /// a free one. The first is the port of the broker which commands use that name none.
    pub fn open(ports: &[&'static str]) -> Terminal {
        let tens = ten_ports();
        assert!(ports.len() <= 10, "{ports:?}");
        let ports = ports.iter().copied().zip((0..).map(|digit| format!("{tens}{digit}"))).collect();
        Terminal {
            dir: tempfile::tempdir().unwrap(),
            tens,
            ports,
            stand_ins: Vec::new(),
            groups: Vec::new(),
            remembered: String::new(),
            clock: Clock::system(),
        }
    }

    /// Has `used` take the place of every `shown`.
    pub fn stand_in(&mut self, shown: &'static str, used: String) {
        self.stand_ins.push((shown, used));
    }

    /// What the ports that it uses begin with: their last digits are those of their places in the list of ports.
    pub fn tens(&self) -> &str {
        &self.tens
    }

    /// The directory in which commands run.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the commands of a block and returns how many there were.
    ///
    /// # Panics
    /// If one fails, does not end, or does not come to print what the block shows.
    pub async fn follow(&mut self, Block { place, lines, .. }: &Block) -> usize {
        let mut lines = lines.iter().peekable();
        let mut commands = 0;
        while let Some(line) = lines.next() {
            let command =
                line.strip_prefix("$ ").unwrap_or_else(|| panic!("{place}: {line} is not a command"));
            let mut command = command.to_owned();
            while command.ends_with('\\') {
                command = command
                    + "\n"
                    + lines.next().unwrap_or_else(|| panic!("{place}: {line} goes on nowhere"));
            }
            if let Some(word) = here_document(&command) {
                for line in lines.by_ref() {
                    command = command + "\n" + line;
                    if *line == word {
                        break;
                    }
                }
            }
            let mut shown = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
                shown.push(line.clone());
            }
            self.run(place, &command, &shown).await;
            commands += 1;
        }
        commands
    }

    /// Replaces what stands for something else here.
    fn replaced(&self, text: &str) -> String {
        let replace = |text: String, (shown, used): &(&str, String)| text.replace(shown, used);
        self.stand_ins.iter().fold(self.with_ports(text), replace)
    }

    /// Replaces numbers which are ports.
    fn with_ports(&self, text: &str) -> String {
        let (mut replaced, mut rest) = (String::new(), text);
        while let Some(begin) = rest.find(|c: char| c.is_ascii_digit()) {
            let length = rest[begin..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - begin);
            let (before, number, after) =
                (&rest[..begin], &rest[begin..begin + length], &rest[begin + length..]);
            let port = self.ports.iter().find(|(shown, _)| *shown == number);
            replaced += before;
            replaced += port.map_or(number, |(_, used)| used);
            rest = after;
        }
        replaced + rest
    }

    /// Starts a command whose output goes to a file.
    fn start(&mut self, command: &str) -> PathBuf {
        let output = self.dir.path().join(format!(".output-{}", self.groups.len()));
        let file = File::create(&output).unwrap();
        let programs = binary("courant").parent().unwrap().to_owned();
        let command = format!("{}PATH=.:{}:$PATH\n{command}", self.remembered, programs.display());
        let broker = &self.ports[0].1;
        let mut bash = Command::new("bash");
        bash.args(["-c", &command]).current_dir(self.dir.path());
        bash.env("BROKER_PORT", broker).env("BROKER_ADDRESS", format!("http://localhost:{broker}"));
        // What a process leaves when it is killed goes with the directory.
        bash.env("TMPDIR", self.dir.path());
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

    /// Runs a command which changes what a shell remembers. A value is computed once.
    async fn remember(&mut self, place: &str, command: &str) {
        let file = self.dir.path().join(".remembered");
        let output =
            self.start(&format!("{command} && (export -p; echo \"cd '$PWD'\") > '{}'", file.display()));
        let has_succeeded = self.ended(command).await;
        assert!(has_succeeded, "{place}: {command}\nprinted\n{}", fs::read_to_string(output).unwrap());
        self.remembered = fs::read_to_string(file).unwrap();
    }

    /// Runs a command, again until its output is as `shown` if the guide shows some.
    async fn run(&mut self, place: &str, command: &str, shown: &[String]) {
        let command = self.replaced(command);
        if ["export ", "unset ", "cd "].iter().any(|word| command.starts_with(word)) {
            return self.remember(place, &command).await;
        }
        let shown: Vec<_> = shown.iter().map(|line| self.replaced(line)).collect();
        let is_background = command.contains(" & ") || command.ends_with(" &");
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

/// The line up to which the shell reads what `command` is to read, if it does.
fn here_document(command: &str) -> Option<String> {
    let (_, word) = command.split_once("<<'")?;
    Some(word.strip_suffix('\'')?.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
