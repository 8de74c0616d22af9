//! One program under test: started with captured output, watched for lines, signalled by its own process id.
//!
//! Standard error goes line by line into memory, and into a log file where one is named, so that a test can wait for a
//! line and a failure can show the end of what the program said. A process that is dropped is killed: no test leaves one
//! behind.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::Write;
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

impl Output {
    fn push_stderr(&mut self, line: String) {
        self.stderr.push_back((self.count, line));
        self.count += 1;
        if self.stderr.len() > LINES_KEPT {
            self.stderr.pop_front();
        }
    }
}

/// How a program is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What errors call it.
    pub name: String,
    /// A program and its arguments which run this one in their own process, such as `ip netns exec`. May be empty.
    pub wrapper: Vec<String>,
    /// The program.
    pub binary: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment on top of the caller's.
    pub envs: Vec<(String, String)>,
    /// Where it runs.
    pub dir: PathBuf,
    /// A file that standard error is appended to.
    pub log: Option<PathBuf>,
}

impl Launch {
    /// A program without wrapper, environment or log.
    pub fn new<I, S>(name: &str, binary: PathBuf, args: I, dir: &Path) -> Launch
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Launch {
            name: name.to_owned(),
            wrapper: Vec::new(),
            binary,
            args: args.into_iter().map(Into::into).collect(),
            envs: Vec::new(),
            dir: dir.to_owned(),
            log: None,
        }
    }

    /// With one more variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Launch {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a log file.
    #[must_use]
    pub fn log(mut self, path: PathBuf) -> Launch {
        self.log = Some(path);
        self
    }

    fn command(&self) -> Command {
        let mut words = self.wrapper.iter().map(OsStr::new).chain([self.binary.as_os_str()]);
        let mut command = Command::new(words.next().expect("the binary is a word"));
        command.args(words).args(&self.args);
        command
    }
}

impl Process {
    /// Starts the program. Output readers run in `tasks`.
    pub fn start(launch: &Launch, tasks: &TaskGroup) -> Result<Process, ProcessError> {
        let fail = |what: String| ProcessError { program: launch.name.clone(), what, tail: String::new() };
        let log = launch.log.as_ref().map(|path| File::options().create(true).append(true).open(path));
        let log = log.transpose().map_err(|err| fail(format!("opening its log: {err}")))?;
        let mut child = launch
            .command()
            .envs(launch.envs.iter().map(|(name, value)| (name, value)))
            .current_dir(&launch.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|err| fail(format!("starting {}: {err}", launch.binary.display())))?;
        let pid = child.id().ok_or_else(|| fail("ended before it could be watched".to_owned()))?;
        let output = Arc::new(Mutex::new(Output::default()));
        let (seen, lines_seen) = watch::channel(0);
        let seen = Arc::new(seen);
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        spawn_reader(tasks, stdout, output.clone(), seen.clone(), Pipe::Stdout);
        spawn_reader(tasks, stderr, output.clone(), seen, Pipe::Stderr(log));
        Ok(Process { name: launch.name.clone(), child, pid, output, lines_seen, clock: Clock::system() })
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

    /// SIGTERM until the process ends, for at most `limit`: one that comes soon after the first is taken for its echo.
    pub async fn insist(&mut self, limit: Duration) -> Result<ExitStatus, ProcessError> {
        let begun = self.clock.now();
        loop {
            match self.terminate(Duration::from_millis(100)).await {
                Err(_) if self.clock.now() - begun < limit => {}
                outcome => return outcome,
            }
        }
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

    /// Lines of standard error which are kept and were not given before, as `next` remembers.
    pub fn lines_since(&self, next: &mut u64) -> Vec<String> {
        let output = self.output.lock().expect("no reader panics");
        let lines = output.stderr.iter().filter(|(at, _)| at >= next).map(|(_, line)| line.clone());
        let lines = lines.collect();
        *next = output.count;
        lines
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

/// Which of a program's pipes is read, and the log of the one that is logged.
enum Pipe {
    Stdout,
    Stderr(Option<File>),
}

fn spawn_reader(
    tasks: &TaskGroup,
    pipe: impl AsyncRead + Unpin + Send + 'static,
    output: Arc<Mutex<Output>>,
    seen: Arc<watch::Sender<u64>>,
    mut which: Pipe,
) {
    tasks.spawn("process output", OnError::Log, async move {
        let mut lines = BufReader::new(pipe).split(b'\n');
        while let Some(line) = lines.next_segment().await? {
            let line = String::from_utf8_lossy(&line).into_owned();
            match &mut which {
                Pipe::Stdout => output.lock().expect("no reader panics").stdout.push(line),
                Pipe::Stderr(log) => {
                    if let Some(log) = log {
                        log.write_all(format!("{line}\n").as_bytes())?;
                    }
                    output.lock().expect("no reader panics").push_stderr(line);
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
