//! Flags, INI files, the environment, and what is printed of them.

use super::{Broker, courant, text};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output};

/// A command in a directory.
fn in_dir(dir: &Path, line: &str) -> Command {
    let mut command = courant();
    command.args(line.split(' ')).current_dir(dir);
    command
}

fn printed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{}", text(&stderr));
    text(&stdout)
}

/// The lines which give a value to an option.
fn values(config: &str) -> Vec<&str> {
    config.lines().filter(|line| !line.starts_with([';', '[']) && !line.is_empty()).collect()
}

#[test]
fn clients_are_configured_by_flags_then_the_file_then_the_environment() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let nowhere = "http://127.0.0.1:1";
    let list = |more: &str, environment: &str| {
        let mut command = in_dir(dir.path(), &format!("journals list --timeout 1s{more}"));
        command.env("BROKER_ADDRESS", environment).output().unwrap().status.success()
    };
    assert!(list("", &broker.address) && !list("", nowhere));
    let file = dir.path().join("gazctl.ini");
    std::fs::write(&file, format!("[journals.Broker]\nAddress = {}\nUnknown = x\n", broker.address)).unwrap();
    assert!(list("", nowhere), "the file wins over the environment");
    assert!(!list(&format!(" --broker.address {nowhere}"), nowhere), "a flag wins over the file");
    std::fs::write(&file, format!("[shards.Broker]\nAddress = {}\n", broker.address)).unwrap();
    assert!(!list("", nowhere), "this is not of these commands");

    // The working directory comes first, then the home.
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join(".config/gazette")).unwrap();
    let of_home = format!("[journals]\nZone = home\n[journals.Broker]\nAddress = {}\n", broker.address);
    std::fs::write(home.path().join(".config/gazette/gazctl.ini"), of_home).unwrap();
    let print = || {
        let mut command = in_dir(dir.path(), "journals print-config");
        printed(command.env("HOME", home.path()))
    };
    assert_eq!(values(&print()), [""; 0], "the file of the home is not read");
    std::fs::remove_file(&file).unwrap();
    assert!(values(&print()).contains(&"Zone = home"));
}

#[test]
fn a_broker_is_configured_by_a_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    let file = "[Broker]\nPort = 0\nDataDir = data\nFileRoot = \"store\"\nZone = z\n[Logging]\nLevel = debug\n[X]\ny = z\n";
    std::fs::write(dir.path().join("gazette.ini"), file).unwrap();
    let mut serve = courant();
    serve.arg("serve").current_dir(dir.path()).env("BROKER_ZONE", "of-environment");
    let broker = Broker::spawn(serve, dir);
    broker.ok("journals apply", super::TREE);
    broker.wait_for("the journals have brokers", |broker| {
        let list = broker.ok("journals list -o json", b"");
        list.lines().count() == 2 && list.lines().all(|line| line.contains("\"zone\":\"z\""))
    });
    assert!(broker.path("data").is_dir());
}

#[test]
fn the_log_of_a_start_says_what_was_given_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("gazette.ini"), "[Broker]\nZone = of a file\n").unwrap();
    let mut serve = courant();
    serve.args(["serve", "--broker.port=0", "--broker.zone=z", "--log.level=info", "--broker.auto-suspend"]);
    serve
        .current_dir(dir.path())
        .env("BROKER_AUTH_KEYS", "c2VjcmV0")
        .env("BROKER_LIMIT", "7")
        .env("OTHER", "x");
    let mut child = serve.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        said.push(line.unwrap());
        if said.last().unwrap().contains("starting broker") {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let options = "--broker.limit=7 --broker.port=0 --broker.zone=z --broker.auto-suspend \
        --broker.auth-keys=<hidden> --log.level=info";
    let configuration = said.iter().find(|line| line.contains("broker configuration")).unwrap();
    let mut found: Vec<_> =
        configuration.split_once("options=").unwrap().1.trim_matches('"').split(' ').collect();
    let mut expected: Vec<_> = options.split_whitespace().collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{configuration}");
    assert!(said.last().unwrap().contains("starting broker"), "{said:?}");
    let said = said.join("\n");
    assert!(said.lines().count() <= 10 && said.lines().all(|line| line.len() < 400), "{said}");
    assert!(!said.contains("OTHER") && !said.contains("c2VjcmV0"), "{said}");
}

#[test]
fn what_is_printed_gives_the_same_configuration() {
    let dir = tempfile::tempdir().unwrap();
    for (file, line, options) in [
        (
            "gazette.ini",
            "print-config",
            "--broker.id my-id --broker.limit 7 --etcd.lease 1m30s --log.level info --broker.auto-suspend",
        ),
        ("gazctl.ini", "journals print-config", "--zone z --broker.cache.size 9 --timeout 5s"),
        ("gazctl.ini", "shards print-config", "--consumer.address http://x:1 --broker.address http://y:2"),
    ] {
        let path = dir.path().join(file);
        let given = printed(&mut in_dir(dir.path(), &format!("{line} {options}")));
        std::fs::write(&path, &given).unwrap();
        assert_eq!(printed(&mut in_dir(dir.path(), line)), given, "{line}");
        assert_eq!(values(&given).len(), options.matches("--").count(), "{given}");
        std::fs::remove_file(&path).unwrap();
    }
    let shards = printed(&mut in_dir(dir.path(), "shards print-config --consumer.address http://x:1"));
    for part in [
        "[shards]\n",
        "[shards.Logging]\n",
        "\n[shards.Consumer]\n; Address of a consumer",
        "\nAddress = http://x:1\n",
    ] {
        assert!(shards.contains(part), "{part:?} is not in\n{shards}");
    }
    let secret = printed(&mut in_dir(dir.path(), "journals print-config --broker.auth-keys c2VjcmV0"));
    assert!(secret.contains("\n; AuthKeys = <hidden>\n") && !secret.contains("c2VjcmV0"), "{secret}");
}

#[test]
fn mistakes_in_a_file_are_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("gazctl.ini"), "[journals.Broker]\nAddress\n").unwrap();
    std::fs::write(dir.path().join("gazette.ini"), "[Broker]\n\nLimit = many\n").unwrap();
    for (line, said) in [
        ("journals list", "error: gazctl.ini:2: expected key = value, found no equals sign\n"),
        ("serve", "error: gazette.ini:3: invalid value 'many' for '--broker.limit <COUNT>': invalid digit"),
    ] {
        let output = in_dir(dir.path(), line).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(text(&output.stderr).starts_with(said), "{}", text(&output.stderr));
    }
    assert!(
        in_dir(dir.path(), "--version").output().unwrap().status.success(),
        "this needs no configuration"
    );
}

#[test]
fn without_a_command_help_and_version_are_printed() {
    let output = courant().output().unwrap();
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(said.contains("Usage: courant <COMMAND>") && said.contains("  journals "), "{said}");
    let version = said.lines().last().unwrap();
    assert!(
        version.starts_with("Version 0.1.0") && version.ends_with('.') && !version.contains("unknown"),
        "{said}"
    );
    for line in ["journals", "journals list --unknown", "journals list -o nothing"] {
        let output = courant().args(line.split(' ')).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{line}");
    }
    assert_eq!(text(&courant().arg("--version").output().unwrap().stdout), "courant 0.1.0\n");
}
