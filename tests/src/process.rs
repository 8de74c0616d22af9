//! One program under test: started with captured output, watched for lines, signalled by its own process id.
//!
//! Standard error goes line by line into a log file and into memory, so that a test can wait for a line and a failure can
//! show the end of what the program said. A process that is dropped is killed: no test leaves one behind.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::{Clock, OnError, TaskGroup};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// Lines of output that are kept in memory for failures to show.
const LINES_KEPT: usize = 400;

/// Why a program under test did not do what was expected of it.
#[derive(Debug)]
pub struct ProcessError {
    program: String,
    what: String,
    tail: String,
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.program, self.what)?;
        if !self.tail.is_empty() {
            write!(f, "\n--- the last it said ---\n{}", self.tail)?;
        }
        Ok(())
    }
}

impl std::error::Error for ProcessError {}

/// A running (or ended) program.
pub struct Process {
    name: String,
    child: Child,
    pid: u32,
    output: Arc<Mutex<Output>>,
    lines_seen: watch::Receiver<u64>,
    clock: Clock,
}

#[derive(Default)]
struct Output {
    stderr: VecDeque<(u64, String)>,
    stdout: Vec<String>,
    count: u64,
}

impl Process {
    /// Starts `binary` with `args`; `name` is what errors call it. Output readers run in `tasks`.
    pub fn start<I, S>(
        name: &str,
        binary: &Path,
        args: I,
        envs: &[(&str, &str)],
        dir: &Path,
        tasks: &TaskGroup,
    ) -> Result<Process, ProcessError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let fail = |what: String| ProcessError { program: name.to_owned(), what, tail: String::new() };
        let mut child = Command::new(binary)
            .args(args)
            .envs(envs.iter().copied())
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|err| fail(format!("starting {}: {err}", binary.display())))?;
        let pid = child.id().ok_or_else(|| fail("ended before it could be watched".to_owned()))?;
        let output = Arc::new(Mutex::new(Output::default()));
        let (seen, lines_seen) = watch::channel(0);
        let seen = Arc::new(seen);
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        spawn_reader(tasks, stdout, output.clone(), seen.clone(), true);
        spawn_reader(tasks, stderr, output.clone(), seen, false);
        Ok(Process { name: name.to_owned(), child, pid, output, lines_seen, clock: Clock::system() })
    }

    /// Process id, for signals.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What errors call this program.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until a line of standard error makes `pick` answer, and returns that answer. Lines already seen count.
    /// Fails when the program ends first or `limit` passes.
    pub async fn wait_line<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, ProcessError> {
        let deadline = self.clock.now() + limit;
        let mut next = 0;
        loop {
            {
                let output = self.output.lock().expect("no reader panics");
                let first = next;
                for (at, line) in output.stderr.iter().filter(|(at, _)| *at >= first) {
                    if let Some(found) = pick(line) {
                        return Ok(found);
                    }
                    next = at + 1;
                }
            }
            let clock = self.clock.clone();
            tokio::select! {
                biased;
                changed = self.lines_seen.changed() => if changed.is_err() {
                    let status = self.child.wait().await;
                    return Err(self.error(format!("ended with {status:?} before it said: {what}")));
                },
                () = clock.sleep_until(deadline) => {
                    return Err(self.error(format!("did not say within {limit:?}: {what}")));
                }
            }
        }
    }

    /// Waits for the end of the program, at most `limit`.
    pub async fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus, ProcessError> {
        let clock = self.clock.clone();
        match clock.timeout(limit, self.child.wait()).await {
            Ok(Ok(status)) => {
                self.drain_output().await;
                Ok(status)
            }
            Ok(Err(err)) => Err(self.error(format!("waiting for its end: {err}"))),
            Err(_) => Err(self.error(format!("did not end within {limit:?}"))),
        }
    }

    /// The status of a program that has ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends `signal` (a `libc` number).
    pub fn signal(&self, signal: i32) -> Result<(), ProcessError> {
        let pid = rustix::process::Pid::from_raw(self.pid as i32).expect("a child's id is positive");
        let signal = rustix::process::Signal::from_named_raw(signal).expect("a known signal");
        rustix::process::kill_process(pid, signal).map_err(|err| self.error(format!("signalling it: {err}")))
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        self.signal(libc::SIGKILL)?;
        self.wait_exit(Duration::from_secs(10)).await.map(drop)
    }

    /// SIGTERM, and waits at most `limit` for the end.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus, ProcessError> {
        self.signal(libc::SIGTERM)?;
        self.wait_exit(limit).await
    }

    /// Whole standard output so far.
    pub fn stdout(&self) -> String {
        self.output.lock().expect("no reader panics").stdout.join("\n")
    }

    /// The kept end of standard error.
    pub fn stderr_tail(&self) -> String {
        let output = self.output.lock().expect("no reader panics");
        output.stderr.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// An error which carries the end of what the program said.
    pub fn error(&self, what: String) -> ProcessError {
        ProcessError { program: self.name.clone(), what, tail: self.stderr_tail() }
    }

    /// Waits until both readers have reached the end of their pipes.
    async fn drain_output(&mut self) {
        while self.lines_seen.changed().await.is_ok() {}
    }
}

fn spawn_reader(
    tasks: &TaskGroup,
    pipe: impl AsyncRead + Unpin + Send + 'static,
    output: Arc<Mutex<Output>>,
    seen: Arc<watch::Sender<u64>>,
    is_stdout: bool,
) {
    tasks.spawn("process output", OnError::Log, async move {
        let mut lines = BufReader::new(pipe).split(b'\n');
        while let Some(line) = lines.next_segment().await? {
            let line = String::from_utf8_lossy(&line).into_owned();
            {
                let mut output = output.lock().expect("no reader panics");
                if is_stdout {
                    output.stdout.push(line);
                } else {
                    let at = output.count;
                    output.count += 1;
                    output.stderr.push_back((at, line));
                    if output.stderr.len() > LINES_KEPT {
                        output.stderr.pop_front();
                    }
                }
            }
            seen.send_modify(|count| *count += 1);
        }
        Ok(())
    });
}

/// The directory of the programs under test: beside the running test or demo program.
pub fn binary(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().expect("the running program has a path");
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is missing: build it first with `cargo build --workspace --bins`",
        path.display()
    );
    path
}
