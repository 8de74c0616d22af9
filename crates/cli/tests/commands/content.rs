//! Content which is appended and read.

use super::{Broker, TREE, text};
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

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
    let spec = &first["spec"];
    assert_eq!(
        (&spec["journal"], &spec["begin"], &spec["compression_codec"]),
        (&"a/one".into(), &0.into(), &1.into())
    );
    assert!(spec["end"].is_u64() && spec["sum"]["part1"].is_u64() && first["signed_url"] == "", "{first}");
    let table = broker.ok("journals fragments -o json -o table", b"");
    assert!(
        table.starts_with("JOURNAL  OFFSET  LENGTH"),
        "all journals, and the last of the formats: {table}"
    );
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
fn offsets_are_written_only_once_the_output_is_on_its_disk() {
    let broker = Broker::start();
    broker.ok("journals apply", TREE);
    broker.ok("journals append -l name=a/one", b"first\n");
    let (state, content) = (broker.path("state.json"), broker.path("content"));
    // A file, which takes content and cannot be synced.
    let read = format!("journals read -l app=test --offsets-out {} -o", state.display());
    let said = broker.fails(&format!("{read} /proc/self/comm"), b"");
    assert!(said.contains("error: syncing \"/proc/self/comm\": "), "{said}");
    assert!(!state.exists());
    broker.ok(&format!("{read} {}", content.display()), b"");
    assert_eq!(std::fs::read_to_string(content).unwrap(), "first\n");
    assert!(std::fs::read_to_string(&state).unwrap().contains("\"a/one\": 6"));
    // What is not a file needs no disk.
    broker.ok(&format!("{read} /dev/null"), b"");
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
