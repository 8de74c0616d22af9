//! Servers which are programs of their own.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use runtime::BoxError;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

/// Where `scripts/setup.sh test` installs what is not the system's.
pub(crate) fn installed(what: &str) -> Result<PathBuf, BoxError> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = var("COURANT_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|cache| cache.join("courant")))
        .or_else(|| var("HOME").map(|home| home.join(".cache/courant")));
    let path = cache.ok_or("neither COURANT_CACHE nor HOME is set")?.join("store-servers").join(what);
    if !path.exists() {
        return Err(format!("{} is missing: run scripts/setup.sh test", path.display()).into());
    }
    Ok(path)
}

/// A running program, killed when it is dropped.
pub(crate) struct Server {
    pub(crate) endpoint: String,
    _child: Child,
}

impl Server {
    /// Starts `program` in the directory `dir` and waits until a line of its output says where it listens: what follows
    /// `before` is its endpoint.
    pub(crate) async fn start(
        program: &Path,
        arguments: &[&str],
        dir: &Path,
        before: &str,
    ) -> Result<Server, BoxError> {
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("start {}: {error}", program.display()))?;
        let outputs = [
            child.stdout.take().map(|output| Box::new(output) as Box<dyn AsyncRead + Send + Unpin>),
            child.stderr.take().map(|output| Box::new(output) as Box<dyn AsyncRead + Send + Unpin>),
        ];
        let [stdout, stderr] = outputs.map(|output| output.map(|output| BufReader::new(output).lines()));
        let (mut stdout, mut stderr) = (stdout.ok_or("no output")?, stderr.ok_or("no output")?);
        let mut seen = String::new();
        let endpoint = loop {
            let line = tokio::select! {
                biased;
                Ok(Some(line)) = stdout.next_line() => line,
                Ok(Some(line)) = stderr.next_line() => line,
                else => return Err(format!("{} ended: {seen}", program.display()).into()),
            };
            if let Some((_, endpoint)) = line.split_once(before) {
                break endpoint.trim().to_owned();
            }
            seen.push_str(&line);
            seen.push('\n');
        };
        // What it says from now on is read so that it can go on saying it.
        let tasks = runtime::TaskGroup::new("store server output");
        for mut lines in [stdout, stderr] {
            tasks.spawn("drain", runtime::OnError::Log, async move {
                while let Ok(Some(_)) = lines.next_line().await {}
                Ok(())
            });
        }
        Ok(Server { endpoint, _child: child })
    }
}
