//! Commands which need no server.

use super::{courant, text};
use message::{Flags, Uuid};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Runs a command which must succeed, and gives what it printed.
pub fn run(mut command: Command, input: &[u8]) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn attach(args: &[&str]) -> Command {
    let mut command = courant();
    command.arg("attach-uuids").args(args);
    command
}

#[test]
fn lines_get_uuids_of_one_producer_which_count_up() {
    let output = run(attach(&[]), b"a,1\r\nb,2\n\nlast");
    let rows: Vec<(&str, &str)> = output.lines().map(|line| line.split_once(',').unwrap()).collect();
    assert_eq!(rows.iter().map(|(_, line)| *line).collect::<Vec<_>>(), ["a,1", "b,2", "", "last"]);
    let uuids: Vec<Uuid> = rows.iter().map(|(uuid, _)| uuid.parse().unwrap()).collect();
    for pair in uuids.windows(2) {
        assert_eq!(pair[0].producer(), pair[1].producer());
        assert!(pair[0].clock() < pair[1].clock());
    }
    assert!(uuids.iter().all(|uuid| uuid.flags() == Flags::OUTSIDE_TXN && uuid.producer().0[0] & 1 == 1));
    let other = run(attach(&[]), b"x\n");
    let other: Uuid = other.split_once(',').unwrap().0.parse().unwrap();
    assert_ne!(other.producer(), uuids[0].producer());
}

#[test]
fn files_are_taken_in_order_and_their_headers_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one.csv"), dir.path().join("two.csv"));
    std::fs::write(&one, "name\na\nb\n").unwrap();
    std::fs::write(&two, "name\nc").unwrap();
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
    let output = run(attach(&["--skip-header", "--template", "{{.Line}};", one, two]), b"");
    assert_eq!(output, "a;b;c;");
    let output = run(attach(&["--template", "{{.Line}}{{\"\\n\"}}", two, one]), b"");
    assert_eq!(output, "name\nc\nname\na\nb\n");

    for (args, said) in [
        (&["--template", "{{.Other}}"][..], "error: --template: {{.Other}}: this action is not supported"),
        (&["/not/there"], "error: opening /not/there: No such file"),
        (&["--max-length", "3", one], ": line 1 is longer than 3 bytes"),
    ] {
        let output = attach(args).stdin(Stdio::null()).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{args:?}");
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
    assert_eq!(run(attach(&["--max-length", "4", "--template", "{{.Line}}", one]), b""), "nameab");
}

#[test]
fn lines_of_a_stream_come_out_as_they_come_in() {
    let mut child =
        attach(&["--template", "{{.Line}}\n"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for line in ["one\n", "two\n"] {
        stdin.write_all(line.as_bytes()).unwrap();
        let mut came = String::new();
        stdout.read_line(&mut came).unwrap();
        assert_eq!(came, line);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn shells_can_complete_commands_and_options() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let mut command = courant();
        command.args(["completions", shell]);
        let script = run(command, b"");
        for word in ["reset-head", "store-health", "attach-uuids", "print-config", "broker.address"] {
            assert!(script.contains(word), "{word} is not in what completes for {shell}");
        }
    }
    // What is printed for bash is a script, and completes.
    let mut command = courant();
    command.args(["completions", "bash"]);
    let script = run(command, b"");
    let words = "COMP_WORDS=(courant journals store) COMP_CWORD=2";
    let tried = format!("{script}\n{words} && _courant courant store journals && echo ${{COMPREPLY[@]}}\n");
    assert_eq!(run(Command::new("bash"), tried.as_bytes()), "store-health\n");
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("share/man1");
    let mut command = courant();
    command.arg("man").arg(&pages);
    assert_eq!(run(command, b""), "");
    for (page, part) in [
        ("courant.1", "courant\\-journals"),
        ("courant-serve.1", "broker.data\\-dir"),
        ("courant-journals-append.1", "courant journals append \\-l name=examples/greetings"),
        ("courant-shards-recover.1", "The directory is wiped first"),
        ("courant-print-config.1", "as INI"),
    ] {
        let text = std::fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.contains(part), "{part:?} is not in {page}: {text}");
    }
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = courant().arg("man").arg(&file).output().unwrap();
    assert!(text(&output.stderr).starts_with("error: writing the manual to "), "{output:?}");
}

#[test]
fn nothing_is_pruned_with_a_token_that_hides_what_others_need() {
    let mut token = courant();
    token.args(["token", "--auth-keys", "c2VjcmV0", "--allow", "LIST,READ,APPLY", "-l", "name=a/one"]);
    let token = run(token, b"");
    for (command, option) in [
        ("journals", "--broker.auth-token"),
        ("shards", "--broker.auth-token"),
        ("shards", "--consumer.auth-token"),
    ] {
        let args = [command, "prune", "-l", "name=a/one", "--timeout", "1s", option, token.trim()];
        let output = courant().args(args).output().unwrap();
        let said = format!("error: {option}: the token does not reach everything");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        assert!(text(&output.stderr).starts_with(&said), "{}", text(&output.stderr));
    }
}
