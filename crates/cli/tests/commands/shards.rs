//! Shards of a real consumer, from their specification to the recovery of their files.

use super::counter::Member;
use super::{Broker, text};
use std::process::Output;

const JOURNALS: &[u8] = b"
name: test/
replication: 1
fragment: {length: 1048576, compression_codec: NONE, refresh_interval: 1m, stores: ['file:///']}
children:
- name: test/keys
  labels: [{name: content-type, value: application/x-ndjson}]
- name: test/logs/counter
  labels: [{name: content-type, value: application/x-gazette-recoverylog}]
";

const SHARDS: &[u8] = b"
common: {recovery_log_prefix: test/logs, hint_prefix: /test/hints, hint_backups: 1, max_txn_duration: 1s}
shards:
- id: counter
  sources: [{journal: test/keys}]
  labels: [{name: app, value: counter}]
";

const TEMPLATE: &str = "{\"uuid\":\"{{.UUID}}\",\"key\":\"{{.Line}}\"}\n";

/// A broker, and a consumer whose one shard is the primary.
struct World {
    broker: Broker,
    member: Member,
}

impl World {
    fn start() -> World {
        let broker = Broker::start();
        broker.ok("journals apply", JOURNALS);
        let member = Member::start(&broker.address);
        let world = World { broker, member };
        world.ok("shards apply", SHARDS);
        world.wait_for("shards list", "ID       STATUS\ncounter  PRIMARY\n");
        world
    }

    fn line(&self, line: &str) -> String {
        format!("{line} --consumer.address {}", self.member.address())
    }

    fn run(&self, line: &str) -> Output {
        self.broker.run(&self.line(line), b"")
    }

    fn ok(&self, line: &str, input: &[u8]) -> String {
        self.broker.ok(&self.line(line), input)
    }

    fn wait_for(&self, line: &str, expected: &str) {
        self.broker.wait_for(expected, |_| self.ok(line, b"") == expected);
    }

    fn stop(self) {
        self.member.stop();
    }
}

#[test]
fn shards_are_applied_listed_edited_and_unassigned() {
    let world = World::start();
    let yaml = world.ok("shards list -o yaml", b"");
    assert!(yaml.contains("id: counter") && yaml.contains("revision: "), "{yaml}");
    let json = world.ok("shards list -l app=counter -o json", b"");
    let shard: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&shard["spec"]["id"], &shard["spec"]["disable"]), (&"counter".into(), &false.into()));
    assert_eq!(json.lines().count(), 1, "one shard a line");
    let none = "shards list -l app=other -o json --consumer.cache.size 9 --consumer.cache.ttl 1s";
    assert_eq!(world.ok(none, b""), "");
    let proto = world.ok("shards list -o proto", b"");
    assert!(proto.contains("recovery_log_prefix: \"test/logs\""), "{proto}");

    let mut edit = world.broker.command(&world.line("shards edit -l id=counter"));
    let edited = edit.env("GAZ_EDITOR", "sed -i 's/value: counter/value: changed/'").output().unwrap();
    assert!(edited.status.success(), "{edited:?}");
    assert_eq!(world.ok("shards list -L app -l app=changed", b"").lines().count(), 2);
    let mut edit = world.broker.command(&world.line("shards edit -l id=counter"));
    let refused = edit.env("GAZ_EDITOR", "sed -i 's|test/keys|test/absent|; /^#/d'").output().unwrap();
    let said = text(&refused.stderr);
    assert!(refused.status.success() && said.contains("the last edits are in "), "{said}");
    let kept = said.split("the last edits are in ").nth(1).unwrap().trim();
    let text_of_kept = std::fs::read_to_string(kept).unwrap();
    std::fs::remove_file(kept).unwrap();
    assert!(text_of_kept.contains("test/absent"), "{text_of_kept}");

    let dry = world.run("shards unassign -l id=counter --dry-run");
    assert_eq!(text(&dry.stdout), "counter\n");
    assert!(text(&dry.stderr).starts_with("counter was PRIMARY (dry run: nothing was done)\n"), "{dry:?}");
    assert_eq!(world.ok("shards unassign -l id=counter --failed", b""), "", "it has not failed");
    assert_eq!(world.ok("shards unassign -l id=counter", b""), "counter\n");
    world.wait_for("shards list", "ID       STATUS\ncounter  PRIMARY\n");
    world.stop();
}

#[test]
fn files_of_a_shard_are_recovered_while_it_goes_on() {
    let world = World::start();
    let messages = {
        let mut attach = super::courant();
        attach.args(["attach-uuids", "--template", TEMPLATE]);
        super::local::run(attach, b"one\ntwo\none\n")
    };
    // Whoever has to repeat an append adds nothing by it.
    for _ in 0..2 {
        world.broker.ok("journals append -l name=test/keys --framing lines", messages.as_bytes());
    }
    world.wait_for("shards list --lag", "ID       STATUS   LAG\ncounter  PRIMARY  test/keys:0\n");

    let dir = world.broker.path("recovered");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("stale"), "of before").unwrap();
    let recover = format!("shards recover --id counter -d {}/", dir.display());
    // What was read is not yet committed, perhaps.
    world.broker.wait_for("the recovered state is that of the last message", |_| {
        let output = world.run(&recover);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.starts_with("recovered counter from test/logs/counter: "), "{said}");
        let state = std::fs::read_to_string(dir.join("state.json")).unwrap_or_default();
        let documents = serde_json::Deserializer::from_str(&state).into_iter::<serde_json::Value>();
        documents.map(Result::unwrap).nth(1) == Some(serde_json::json!({"one": 2, "two": 1}))
    });
    let names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["state.json"]);

    let absent = world.run("shards recover --id other --dir /tmp/never");
    assert_eq!(text(&absent.stderr), "error: there is no shard other\n");
    let relative = world.run("shards recover --id counter --dir a/../b");
    assert!(text(&relative.stderr).contains("not an absolute, clean directory"), "{relative:?}");
    world.ok("shards list", b"");
    world.stop();
}
