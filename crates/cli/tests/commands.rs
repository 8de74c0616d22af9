//! The commands against a broker which is the same program, over loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

const COURANT: &str = env!("CARGO_BIN_EXE_courant");

/// A broker with a data directory of its own, killed at the end.
struct Broker {
    child: Child,
    /// Keeps the pipe open, so that the broker can go on talking.
    _stderr: BufReader<ChildStderr>,
    address: String,
    dir: tempfile::TempDir,
}

impl Broker {
    fn start() -> Broker {
        Broker::start_in(tempfile::tempdir().unwrap(), "data")
    }

    /// With the data directory of this name below `dir`; stores are in `dir`.
    fn start_in(dir: tempfile::TempDir, data: &str) -> Broker {
        let store = dir.path().join("store");
        std::fs::create_dir_all(&store).unwrap();
        let mut child = courant()
            .args(["serve", "--broker.port", "0", "--broker.file-root"])
            .arg(store)
            .arg("--broker.data-dir")
            .arg(dir.path().join(data))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
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
        Broker { child, _stderr: stderr, address, dir }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = courant();
        command.args(line.split(' ')).env("BROKER_ADDRESS", &self.address);
        command
    }

    /// Runs a command with this input to its end.
    fn run(&self, line: &str, input: &[u8]) -> Output {
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
    fn ok(&self, line: &str, input: &[u8]) -> String {
        let output = self.run(line, input);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs a command which must fail with status 1 and print nothing, and gives what it said.
    fn fails(&self, line: &str, input: &[u8]) -> String {
        let output = self.run(line, input);
        assert_eq!(output.status.code(), Some(1), "{line}: {}", text(&output.stdout));
        assert_eq!(text(&output.stdout), "", "{line}");
        text(&output.stderr)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Broker {
    /// Kills the broker, and gives its directory.
    fn kill(mut self) -> tempfile::TempDir {
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
fn courant() -> Command {
    let mut command = Command::new(COURANT);
    for (name, _) in std::env::vars() {
        if ["BROKER_", "CONSUMER_", "ETCD_", "LOG_", "DEBUG_", "ZONE"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const TREE: &[u8] = b"
name: a/
replication: 1
labels: [{name: content-type, value: application/x-ndjson}, {name: app, value: test}]
fragment: {length: 1048576, compression_codec: NONE, refresh_interval: 1m}
children:
- name: a/one
- name: a/two
  max_append_rate: 100000000
";

#[test]
fn journals_are_applied_listed_and_deleted() {
    let broker = Broker::start();
    let dry = broker.ok("journals apply --dry-run", TREE);
    assert!(dry.contains("name: \"a/one\"") && dry.contains("length: 1048576"), "{dry}");
    assert_eq!(broker.ok("journals list", b""), "NAME\n");
    assert_eq!(broker.ok("journals list -o yaml", b""), "");

    assert_eq!(broker.ok("journals apply", TREE), "");
    assert_eq!(
        broker.ok("journals list --rf -L app -L none", b""),
        "NAME   RF  app   none\na/one  1   test  <none>\na/two  1   test  <none>\n"
    );
    assert_eq!(broker.ok("journals list -l name=a/two", b""), "NAME\na/two\n");
    let json: serde_json::Value = serde_json::from_str(&broker.ok("journals list -o json", b"")).unwrap();
    assert_eq!(json["journals"][1]["spec"]["max_append_rate"], "100000000");

    let raced = broker.fails("journals apply", TREE);
    assert!(
        raced.contains("applying 2 journals (a/one to a/two)") && raced.contains("ETCD_TRANSACTION_FAILED"),
        "{raced}"
    );
    // What was listed can be applied again, and its revisions are those expected.
    let listed = broker.ok("journals list -o yaml", b"");
    assert!(listed.contains("revision: "), "{listed}");
    broker.ok("journals apply --max-txn-size 1", listed.as_bytes());
    assert!(broker.fails("journals apply", listed.as_bytes()).contains("a revision is not current"));

    broker.ok("journals apply", b"{name: a/one, delete: true, revision: -1}");
    assert_eq!(broker.ok("journals list", b""), "NAME\na/two\n");
}

#[test]
fn content_is_appended_and_read_back() {
    let broker = Broker::start();
    broker.ok("journals apply", TREE);
    let read = |journal: &str| broker.ok(&format!("journals read -l name={journal}"), b"");

    broker.ok("journals append -l name=a/one", b"whole\ninput\n");
    assert_eq!(read("a/one"), "whole\ninput\n");
    broker.ok("journals append -l name=a/one --framing lines", b"\"x\"\n\"y\"");
    assert_eq!(read("a/one"), "whole\ninput\n\"x\"\n\"y\"\n");

    broker.ok("journals append -l app=test -f lines -m direct", b"a/two\n{}\na/one\n[]\n");
    assert_eq!(read("a/two"), "{}\n");
    assert!(read("a/one").ends_with("[]\n"));
    let unknown = broker.fails("journals append -l app=test -f lines -m direct", b"a/three\n{}\n");
    assert!(unknown.contains("key \"a/three\" is not the name of a selected journal"), "{unknown}");
    let alone = broker.fails("journals append -l app=test -f lines -m modulo", b"key\n");
    assert!(alone.contains("key \"key\": no record follows"), "{alone}");
    let garbage = broker.fails("journals append -l app=test -f fixed", b"no frame");
    assert!(garbage.contains("record 1 of the input"), "{garbage}");

    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let path = broker.path("large");
    std::fs::write(&path, &large).unwrap();
    broker.ok(&format!("journals append -l name=a/two --input {}", path.display()), b"");
    let output = broker.run("journals read -l name=a/two", b"");
    assert!(output.status.success() && output.stdout[3..] == large, "{}", text(&output.stderr));

    let fragments = broker.ok("journals fragments -l app=test -o json", b"");
    let first: serde_json::Value = serde_json::from_str(fragments.lines().next().unwrap()).unwrap();
    assert_eq!((&first["spec"]["journal"], &first["spec"]["begin"]), (&"a/one".into(), &"0".into()));
    assert!(broker.ok("journals fragments -l app=test", b"").starts_with("JOURNAL  OFFSET  LENGTH"));
}

/// A journal with a store.
const STORED: &[u8] = b"
name: a/stored
replication: 1
fragment: {length: 1048576, compression_codec: NONE, refresh_interval: 1m, stores: ['file:///']}
";

#[test]
fn a_journal_which_lost_its_replicas_goes_on_after_a_reset() {
    let broker = Broker::start();
    broker.ok("journals apply", STORED);
    broker.ok("journals append -l name=a/stored", b"stored\n");
    // The first append has a fragment of its own, which is stored when the next one begins another.
    broker.ok("journals append -l name=a/stored", b"lost\n");
    let clock = runtime::Clock::system();
    let begun = clock.now();
    while !broker.ok("journals fragments -l name=a/stored", b"").contains(" ago") {
        assert!((clock.now() - begun).as_secs() < 60, "the first fragment was not stored");
    }
    assert_eq!(broker.ok("journals reset-head -l name=a/stored", b""), "a/stored 12\n");

    let broker = Broker::start_in(broker.kill(), "other-data");
    broker.ok("journals apply", STORED);
    let refused = broker.fails("journals append -l name=a/stored", b"new\n");
    assert!(refused.contains("INDEX_HAS_GREATER_OFFSET"), "{refused}");
    assert_eq!(broker.ok("journals reset-head -l name=a/stored", b""), "a/stored 7\n");
    broker.ok("journals append -l name=a/stored", b"new\n");
    assert_eq!(broker.ok("journals read -l name=a/stored", b""), "stored\nnew\n");
}

#[test]
fn journals_are_suspended_until_something_is_appended() {
    let broker = Broker::start();
    broker.ok("journals apply", TREE);
    broker.ok("journals append -l name=a/two", b"two\n");
    assert_eq!(broker.ok("journals suspend -l name=a/one", b""), "a/one suspended\n");
    assert_eq!(broker.ok("journals suspend -l name=a/two", b""), "a/two in use\n", "it is not stored");
    assert_eq!(broker.ok("journals suspend -l app=test --force", b""), "a/two suspended\n");
    let listed = broker.ok("journals list -l app=test --primary", b"");
    assert_eq!(listed.matches(" <S>").count(), 2, "{listed}");
    assert!(listed.contains("<none> <S>"), "a journal without content has no broker: {listed}");

    for name in ["a/one", "a/two"] {
        broker.ok(&format!("journals append -l name={name}"), b"more\n");
    }
    assert!(!broker.ok("journals list --primary", b"").contains("<S>"));
    assert_eq!(broker.ok("journals read -l name=a/one", b""), "more\n");
    assert_eq!(broker.ok("journals read -l name=a/two", b""), "two\nmore\n");
    broker.fails("journals suspend", b"");
}

/// Files of fragments in `dir`, by name. Not those which are still being written, whose names end in `#` and a number.
fn fragment_files(dir: &std::path::Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.filter(|p| p.is_file() && !p.to_str().unwrap().contains('#')).collect();
    files.sort();
    files
}

#[test]
fn old_fragments_are_pruned_and_those_without_retention_stay() {
    let broker = Broker::start();
    let stored = |name: &str, retention: &str| {
        format!(
            "name: {name}\nreplication: 1\nfragment: {{length: 1048576, compression_codec: NONE, \
             refresh_interval: 1m, stores: ['file:///'], retention: {retention}}}\n"
        )
    };
    for (name, retention) in [("a/kept", "0s"), ("a/pruned", "1h"), ("a/pruned/child", "0s")] {
        broker.ok("journals apply", stored(name, retention).as_bytes());
        for line in ["one\n", "two\n", "three\n"] {
            broker.ok(&format!("journals append -l name={name}"), line.as_bytes());
            broker.ok(&format!("journals suspend --force -l name={name}"), b"");
        }
        let files = broker.path("store").join(name);
        let clock = runtime::Clock::system();
        let begun = clock.now();
        while fragment_files(&files).len() < 3 {
            assert!((clock.now() - begun).as_secs() < 60, "{name}: the fragments were not stored");
            std::thread::yield_now();
        }
        for path in fragment_files(&files) {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(
                std::time::UNIX_EPOCH + clock.unix_now() - std::time::Duration::from_secs(2 * 3600),
            )
            .unwrap();
        }
    }
    let root = broker.path("store");
    let command =
        |more: &str| format!("journals prune -l name:prefix=a/ --broker.file-root {} {more}", root.display());
    let count = |name: &str| fragment_files(&root.join(name)).len();

    let refused = broker.fails("journals prune -l name=a/pruned", b"");
    assert!(refused.contains("--broker.file-root"), "{refused}");
    let planned = broker.run(command("--dry-run").trim(), b"");
    let said = text(&planned.stderr);
    assert!(
        said.contains("would delete 3 of 3 fragments (14 B of 14 B) of 3 journals; 2 kept for ever"),
        "{said}"
    );
    assert_eq!((text(&planned.stdout).lines().count(), count("a/pruned")), (3, 3), "nothing is deleted");

    let pruned = broker.run(command("").trim(), b"");
    assert!(pruned.status.success() && text(&pruned.stderr).contains("deleted 3 of 3"), "{pruned:?}");
    assert_eq!(text(&pruned.stdout), text(&planned.stdout));
    assert_eq!((count("a/pruned"), count("a/kept"), count("a/pruned/child")), (0, 3, 3));
    // Its specification says where it goes on.
    broker.ok("journals append -l name=a/pruned", b"four\n");
    assert!(broker.ok("journals fragments -l name=a/pruned", b"").contains(" 14 "));
}

#[test]
fn reading_goes_on_where_offsets_say() {
    let broker = Broker::start();
    broker.ok("journals apply", TREE);
    broker.ok("journals append -l name=a/one", b"first\n");
    let state = broker.path("state.json");
    let read = format!("journals read -l app=test --offsets-out {}", state.display());
    assert_eq!(broker.ok(&read, b""), "first\n");
    assert_eq!(std::fs::read_to_string(&state).unwrap(), "{\n  \"a/one\": 6,\n  \"a/two\": 0\n}\n");

    broker.ok("journals append -l name=a/one", b"second\n");
    let read = format!("{read} --offsets {}", state.display());
    assert_eq!(broker.ok(&read, b""), "second\n");
    assert!(std::fs::read_to_string(broker.path("state.json.previous")).unwrap().contains("\"a/one\": 6"));
    assert_eq!(broker.ok(&read, b""), "");
}

#[test]
fn following_sees_new_content_and_new_journals() {
    let broker = Broker::start();
    broker.ok("journals apply", TREE);
    broker.ok("journals append -l name=a/one", b"before\n");
    let state = broker.path("state.json");
    let line = format!("journals read --block -l app=test --offsets-out {}", state.display());
    let mut child = broker.command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(next(), "before\n");
    broker.ok("journals append -l name=a/two", b"other\n");
    assert_eq!(next(), "other\n");
    broker.ok(
        "journals apply",
        b"{name: a/three, replication: 1, labels: [{name: app, value: test}],
          fragment: {length: 1048576, compression_codec: NONE, refresh_interval: 1m}}",
    );
    broker.ok("journals append -l name=a/three", b"new\n");
    assert_eq!(next(), "new\n");

    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
    let offsets: serde_json::Value = serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
    assert_eq!(offsets, serde_json::json!({"a/one": 7, "a/two": 6, "a/three": 4}));
}

#[test]
fn watched_listings_are_printed_again() {
    let broker = Broker::start();
    let mut child = broker.command("journals list --watch").stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "NAME\n");
    broker.ok("journals apply", TREE);
    while !line.ends_with("a/one\na/two\n") {
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "{line}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_reader_which_goes_away_ends_the_command_quietly() {
    let broker = Broker::start();
    broker.ok("journals apply", TREE);
    broker.ok("journals append -l name=a/one", &vec![b'x'; 4 << 20]);
    let mut child = broker
        .command("journals read -l name=a/one")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn failures_name_what_failed() {
    let broker = Broker::start();
    for (line, input, said) in [
        ("journals list -l f", "", "error: --selector: could not match \"f\" to a label selector expression"),
        ("journals read -l name=not/there", "", "error: no journal matches name=not/there"),
        ("journals append -l name=not/there", "", "error: no journal matches name=not/there"),
        ("journals apply", "nme: x", "error: -: parsing YAML: unknown field `nme`"),
        ("journals apply --specs /not/there.yaml", "", "error: opening \"/not/there.yaml\": No such file"),
        ("journals apply", "name: a/one", "error: -: \"a/one\": Upsert: invalid Replication (0; expected"),
        ("shards apply", "shards: [{id: x}]", "error: -: \"x\": Upsert.Id: invalid length"),
        (
            "journals read -l name=x --offsets /not/there",
            "",
            "error: reading offsets /not/there: No such file",
        ),
        ("journals read", "", "error: the following required arguments were not provided"),
        ("journals list --broker.address http://", "", "error: "),
        ("frobnicate", "", "error: unrecognized subcommand 'frobnicate'"),
        ("journals list --broker.auth-keys x", "", "error: --broker.auth-keys is not supported yet"),
    ] {
        let stderr = broker.fails(line, input.as_bytes());
        assert!(stderr.starts_with(said), "{line}: {stderr}");
    }
    // A port which nobody listens on any more.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = broker.fails(&format!("journals list --timeout 200ms --broker.address http://{free}"), b"");
    let said = format!("listing journals at http://{free}: no answer within 200ms; is it running?");
    assert!(nobody.contains(&said), "{nobody}");
    let nobody = broker.fails(&format!("shards list --timeout 200ms --consumer.address http://{free}"), b"");
    assert!(nobody.contains(&format!("listing shards at http://{free}: no answer")), "{nobody}");
    assert!(text(&broker.run("journals list --help", b"").stdout).contains("Examples:"));
}
