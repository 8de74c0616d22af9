//! What journals there are, and how they are.

use super::{Broker, TREE, text};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

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
    let json = broker.ok("journals list -o json", b"");
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "one journal a line: {json}");
    assert_eq!(
        (&lines[0]["spec"]["name"], &lines[0]["spec"]["fragment"]["compression_codec"]),
        (&"a/one".into(), &"NONE".into())
    );
    assert_eq!(
        (&lines[1]["spec"]["max_append_rate"], &lines[1]["spec"]["flags"]),
        (&"100000000".into(), &0.into())
    );

    let raced = broker.fails("journals apply", TREE);
    assert!(
        raced.contains("applying 2 journals (a/one to a/two)") && raced.contains("ETCD_TRANSACTION_FAILED"),
        "{raced}"
    );
    assert!(raced.contains("without one, or with 0, it is created"), "{raced}");
    // What was listed can be applied again, and its revisions are those expected.
    let listed = broker.ok("journals list -o yaml", b"");
    assert!(listed.contains("revision: "), "{listed}");
    broker.ok("journals apply --max-txn-size 1", listed.as_bytes());
    assert!(broker.fails("journals apply", listed.as_bytes()).contains("a revision is not current"));

    broker.ok("journals apply", b"{name: a/one, delete: true, revision: -1}");
    assert_eq!(broker.ok("journals list", b""), "NAME\na/two\n");
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
    broker.wait_for("a journal without content has no broker", |broker| {
        broker.ok("journals list -l app=test --primary", b"").contains("<none> <S>")
    });
    // Of what has no broker, there is nothing to list.
    let of_two = |line: &str| line.contains("a/two");
    let fragments = broker.ok("journals fragments -l app=test -o json", b"");
    assert!(fragments.lines().count() == 1 && fragments.lines().all(of_two), "{fragments}");
    let fragments = broker.ok("journals fragments -l app=test -o proto", b"");
    assert!(fragments.contains("journal: \"a/two\"") && !fragments.contains("a/one"), "{fragments}");

    for name in ["a/one", "a/two"] {
        broker.ok(&format!("journals append -l name={name}"), b"more\n");
    }
    assert!(!broker.ok("journals list --primary", b"").contains("<S>"));
    assert_eq!(broker.ok("journals read -l name=a/one", b""), "more\n");
    assert_eq!(broker.ok("journals read -l name=a/two", b""), "two\nmore\n");
    broker.fails("journals suspend", b"");
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
        ("journals list --broker.auth-keys x", "", "error: --broker.auth-keys"),
    ] {
        let stderr = broker.fails(line, input.as_bytes());
        assert!(stderr.starts_with(said), "{line}: {stderr}");
    }
    for (line, bounds) in [
        ("bench append --size=64GiB", "64.0 GiB is not between 0 B and 1.0 GiB"),
        ("bench append --size=NaN", "unknown unit"),
        ("bench append --bytes=0", "0 B is not between 1 B and "),
        ("bench append --duration=0s", "0s is not 1ms or more"),
        ("bench append --clients=4294967295", "4294967295 is not in 1..=65536"),
        ("bench read --bytes=0", "0 B is not between 1 B and 1.0 TiB"),
        ("bench read --connections=-1", "-1 is not in 1..=1024"),
        ("journals list --timeout=0s", "0s is not 1ms or more"),
        ("journals fragments --url-ttl=-1s", "invalid duration"),
        ("attach-uuids --max-length=18446744073709551615", "is not in 1..=1073741824"),
    ] {
        let (_, option) = line.split_once(" --").unwrap();
        let (name, value) = option.split_once('=').unwrap();
        let stderr = broker.fails(line, b"");
        assert!(
            stderr.starts_with(&format!("error: invalid value '{value}' for '--{name} <")),
            "{line}: {stderr}"
        );
        assert!(stderr.contains(bounds), "{line}: {stderr}");
    }
    let stderr = broker.fails("bench append --size=1KiB --bytes=1000", b"");
    assert!(
        stderr.starts_with("error: --bytes: 1000 B are less than one append (expected 1024 B or more)"),
        "{stderr}"
    );
    // A port which nobody listens on any more.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = broker.fails(&format!("journals list --timeout 2s --broker.address http://{free}"), b"");
    let said = format!("listing journals at http://{free}: no answer within 2s; is it running?");
    assert!(nobody.contains(&said), "{nobody}");
    assert_eq!(nobody.matches(" waits for a broker").count(), 1, "{nobody}");
    let nobody = broker.fails(&format!("shards list --timeout 2s --consumer.address http://{free}"), b"");
    assert!(nobody.contains(&format!("listing shards at http://{free}: no answer")), "{nobody}");
    assert_eq!(nobody.matches("waiting for the consumer").count(), 1, "{nobody}");
    let odd = broker.fails("journals list --broker.address 127.0.0.1:8080", b"");
    assert!(
        odd.contains("127.0.0.1:8080: ") && odd.contains("(expected http(s)://host:port or unix:"),
        "{odd}"
    );
    let other = broker.fails(&format!("shards list --consumer.address {}", broker.address), b"");
    assert!(other.contains("; check the address (brokers serve journals, the processes"), "{other}");
    for line in ["journals reset-head -l name=not/there", "journals suspend -l name=not/there"] {
        let output = broker.run(line, b"");
        assert!(output.status.success() && output.stdout.is_empty(), "{line}: {output:?}");
        assert_eq!(text(&output.stderr), "no journal matches name=not/there: nothing was done\n", "{line}");
    }
    assert!(text(&broker.run("journals list --help", b"").stdout).contains("Examples:"));
}
