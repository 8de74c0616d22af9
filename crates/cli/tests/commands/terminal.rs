//! What is printed on a terminal, and not to a pipe.

use super::{Broker, courant};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Stdio;
use std::sync::mpsc;

const COLUMNS: u16 = 50;

/// A terminal of [`COLUMNS`] columns: what programs hold, and what they print on it.
fn terminal() -> (OwnedFd, mpsc::Receiver<String>) {
    let size = libc::winsize { ws_row: 24, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut ours, mut theirs) = (-1, -1);
    // SAFETY: both numbers are written to, and what is not asked for is null.
    let opened =
        unsafe { libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size) };
    assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the call has opened them, and nobody else knows them.
    let (mut ours, theirs) = unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
    let (sender, shown) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        // Once all programs are gone, reading fails.
        while let Ok(count @ 1..) = ours.read(&mut bytes) {
            let _nobody_listens = sender.send(String::from_utf8_lossy(&bytes[..count]).into_owned());
        }
    });
    (theirs, shown)
}

#[test]
fn tables_fit_the_terminal_and_are_whole_in_a_pipe() {
    let broker = Broker::start();
    let name = "examples/with/a/very/long/name/of/many/parts/journal-";
    let tree = format!(
        "{{name: '', replication: 1, fragment: {{length: 1024, compression_codec: NONE, refresh_interval: 1m,
           stores: ['file:///a/store/']}}, children: [{{name: {name}000}}, {{name: {name}001}}]}}"
    );
    broker.ok("journals apply", tree.as_bytes());
    let line = "journals list --stores --rf";
    let whole = broker.ok(line, b"");
    assert!(whole.contains(&format!("\n{name}001  1   file:///a/store/\n")), "{whole}");

    let (theirs, shown) = terminal();
    let status = broker.command(line).stdout(theirs).status().unwrap();
    assert!(status.success());
    let text: String = shown.iter().collect();
    let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines.iter().all(|line| line.chars().count() <= usize::from(COLUMNS)), "{text}");
    assert!(
        lines[2].starts_with("examples/") && lines[2].contains("…") && lines[2].contains("journal-001"),
        "{text}"
    );
}

#[test]
fn work_that_lasts_shows_its_progress_on_a_terminal() {
    let broker = Broker::start();
    broker.ok("journals apply", super::TREE);
    let (theirs, shown) = terminal();
    let mut append = broker.command("journals append -l name=a/one --framing lines");
    let mut child = append.stdin(Stdio::piped()).stderr(theirs).spawn().unwrap();
    drop(append);
    let mut stdin = child.stdin.take().unwrap();
    let (mut text, mut sent) = (String::new(), 0);
    // It goes on until something is shown, as work does which lasts.
    while !text.contains("appending") {
        stdin.write_all(b"a line\n").unwrap();
        sent += 1;
        text.extend(shown.recv_timeout(std::time::Duration::from_millis(1)));
        assert!(sent < 600_000, "nothing was shown: {text}");
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
    text.extend(shown.iter());
    assert!(text.contains("B/s"), "{text}");
    assert!(text.trim_end().ends_with("to a/one"), "at the end, it is cleared: {text}");
    assert_eq!(broker.ok("journals read -l name=a/one", b"").lines().count(), sent);
}

#[test]
fn the_terminal_is_not_needed() {
    let output = courant().args(["journals", "list", "--help"]).output().unwrap();
    assert!(output.status.success() && !output.stdout.contains(&b'\x1b'));
}
