//! Journals whose fragments are in a store.

use super::{Broker, text};
use std::path::PathBuf;
use std::time::Duration;

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
    broker.wait_for("the first fragment is stored", |broker| {
        broker.ok("journals fragments -l name=a/stored", b"").contains(" ago")
    });
    assert_eq!(broker.ok("journals reset-head -l name=a/stored", b""), "a/stored 12\n");

    let broker = Broker::start_in(broker.kill(), "other-data");
    broker.ok("journals apply", STORED);
    let refused = broker.fails("journals append -l name=a/stored", b"new\n");
    assert!(refused.contains("INDEX_HAS_GREATER_OFFSET"), "{refused}");
    assert_eq!(broker.ok("journals reset-head -l name=a/stored", b""), "a/stored 7\n");
    broker.ok("journals append -l name=a/stored", b"new\n");
    assert_eq!(broker.ok("journals read -l name=a/stored", b""), "stored\nnew\n");
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
            let suspended = broker.ok(&format!("journals suspend --force -l name={name}"), b"");
            assert_eq!(suspended, format!("{name} suspended\n"));
        }
        let files = broker.path("store").join(name);
        // Only those which the broker lists are done with.
        broker.wait_for("the fragments are stored", |broker| {
            let listed = broker.ok(&format!("journals fragments -l name={name}"), b"");
            listed.matches(" ago").count() == 3 && fragment_files(&files).len() == 3
        });
        let time = runtime::Clock::system().unix_now() - Duration::from_secs(2 * 3600);
        for path in fragment_files(&files) {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + time).unwrap();
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
fn a_broker_tells_whether_a_store_works() {
    let broker = Broker::start();
    broker.ok("journals apply", STORED);
    let health = "journals store-health file:///";
    assert_eq!(broker.ok(health, b""), "Fragment store file:/// is healthy\n");
    for prefix in ["a/stored/", ""] {
        let mut command = broker.command(health);
        let output = command.arg(format!("--check-delete-prefix={prefix}")).output().unwrap();
        assert_eq!(text(&output.stdout), "Fragment store file:/// is healthy\n", "{output:?}");
    }
    let refused = broker.fails("journals store-health file:///elsewhere/", b"");
    assert!(refused.starts_with("error: fragment store file:///elsewhere/ is unhealthy: "), "{refused}");
    let malformed = broker.fails("journals store-health ftp://x/", b"");
    assert!(malformed.contains("ftp"), "{malformed}");
}
