//! Runs brokers, and commands against them.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const COURANT: &str = env!("CARGO_BIN_EXE_courant");

/// Longest wait for what a broker does next.
const LIMIT: Duration = Duration::from_secs(120);

/// A broker with a data directory of its own, killed at the end.
pub struct Broker {
    child: Child,
    pub address: String,
    dir: tempfile::TempDir,
}

impl Broker {
    pub fn start() -> Broker {
        Broker::start_in(tempfile::tempdir().unwrap(), "data")
    }

    /// With the data directory of this name below `dir`; stores are in `dir`.
    pub fn start_in(dir: tempfile::TempDir, data: &str) -> Broker {
        let store = dir.path().join("store");
        std::fs::create_dir_all(&store).unwrap();
        let mut serve = courant();
        serve.args(["serve", "--broker.port", "0", "--broker.file-root"]).arg(store);
        serve.arg("--broker.data-dir").arg(dir.path().join(data));
        Broker::spawn(serve, dir)
    }

    /// Started by a command, which listens on a free port.
    pub fn spawn(mut serve: Command, dir: tempfile::TempDir) -> Broker {
        let mut child = serve.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "the broker did not start: {said}");
            said.push_str(&line);
            if let Some((_, rest)) = line.split_once("serving on ") {
                break rest.split(',').next().unwrap().to_owned();
            }
        };
        // What it says later is taken from it, so that it never waits for a reader; a failed test shows it.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("broker: {line}");
            }
        });
        Broker { child, address, dir }
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = courant();
        command.args(line.split(' ')).env("BROKER_ADDRESS", &self.address);
        command
    }

    /// Runs a command with this input to its end.
    pub fn run(&self, line: &str, input: &[u8]) -> Output {
        let mut child = self
            .command(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || {
            // A command which fails early does not read all of its input.
            let _refused = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        output
    }

    /// Runs a command which must succeed, and gives what it printed.
    pub fn ok(&self, line: &str, input: &[u8]) -> String {
        let output = self.run(line, input);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs a command which must fail with status 1 and print nothing, and gives what it said.
    pub fn fails(&self, line: &str, input: &[u8]) -> String {
        let output = self.run(line, input);
        assert_eq!(output.status.code(), Some(1), "{line}: {}", text(&output.stdout));
        assert_eq!(text(&output.stdout), "", "{line}");
        text(&output.stderr)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Broker {
    /// Waits until `condition` holds, which runs commands itself.
    pub fn wait_for(&self, what: &str, mut condition: impl FnMut(&Broker) -> bool) {
        let clock = runtime::Clock::system();
        let begun = clock.now();
        while !condition(self) {
            assert!(clock.now() - begun < LIMIT, "{what}: not within {LIMIT:?}");
        }
    }

    /// Kills the broker, and gives its directory.
    pub fn kill(mut self) -> tempfile::TempDir {
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The program, without options from the environment of the test.
pub fn courant() -> Command {
    let mut command = Command::new(COURANT);
    // Nor from files of whoever runs the test.
    command.env("HOME", "/nonexistent").env_remove("UserProfile");
    for (name, _) in std::env::vars() {
        if ["BROKER_", "CONSUMER_", "ETCD_", "LOG_", "DEBUG_", "ZONE", "GAZ_EDITOR", "EDITOR"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
