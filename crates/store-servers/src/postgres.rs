//! PostgreSQL, as it is installed.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use runtime::BoxError;
use rustix::fs::{Gid, Uid, chown};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

/// What the server says once it can be used.
const READY: &str = "database system is ready to accept connections";

/// A user and a group.
type Owner = Option<(u32, u32)>;

/// A PostgreSQL in a temporary directory, reached by a socket there. It ends with this value.
pub struct PostgresServer {
    dir: TempDir,
    owner: Owner,
    settings: Vec<String>,
    child: Child,
}

impl PostgresServer {
    /// Starts one, with an empty database `postgres`. Blocks until it can be used.
    ///
    /// # Errors
    /// If it is not installed, or does not start.
    pub fn start() -> Result<PostgresServer, BoxError> {
        PostgresServer::start_with(&[], |_| Ok(()))
    }

    /// As [`PostgresServer::start`], with settings, as `name=value`. `prepare` may put files into its directory.
    ///
    /// # Errors
    /// As there, and of `prepare`.
    pub fn start_with(
        settings: &[&str],
        prepare: impl FnOnce(&Path) -> Result<(), BoxError>,
    ) -> Result<PostgresServer, BoxError> {
        let dir = TempDir::with_prefix("courant-postgres-")?;
        let owner = owner()?;
        give(dir.path(), owner)?;
        let mut initdb = command("initdb", owner)?;
        initdb.args(["-U", "courant", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"]);
        let made = initdb.arg(dir.path().join("data")).output()?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)).into());
        }
        prepare(dir.path())?;
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let child = launch(dir.path(), owner, &settings)?;
        Ok(PostgresServer { dir, owner, settings, child })
    }

    /// The directory of the server.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How the server is reached, as a connection string.
    pub fn connection(&self) -> String {
        format!("host={} user=courant dbname=postgres", self.dir().display())
    }

    /// Ends the server as a crash of its machine's power would not: at once, without a word to its clients' transactions.
    ///
    /// # Errors
    /// If there is no process.
    pub fn crash(&mut self) -> Result<(), BoxError> {
        self.signal(Signal::QUIT)
    }

    /// Ends the server in order: its clients are told.
    ///
    /// # Errors
    /// If there is no process.
    pub fn stop(&mut self) -> Result<(), BoxError> {
        self.signal(Signal::INT)
    }

    /// Starts the server again, with other settings than before.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_again(&mut self, settings: &[&str]) -> Result<(), BoxError> {
        self.settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        self.child = launch(self.dir.path(), self.owner, &self.settings)?;
        Ok(())
    }

    /// Makes a file the server's, and nobody else's to read.
    ///
    /// # Errors
    /// If that is not permitted.
    pub fn give_secret(path: &Path) -> Result<(), BoxError> {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        give(path, owner()?)
    }

    fn signal(&mut self, signal: Signal) -> Result<(), BoxError> {
        kill_process(Pid::from_child(&self.child), signal)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _it_may_be_gone = self.signal(Signal::QUIT);
        }
    }
}

fn launch(dir: &Path, owner: Owner, settings: &[String]) -> Result<Child, BoxError> {
    let mut postgres = command("postgres", owner)?;
    postgres.arg("-D").arg(dir.join("data")).arg("-k").arg(dir);
    for setting in ["listen_addresses=", "fsync=off", "shared_buffers=16MB", "max_connections=20"] {
        postgres.arg("-c").arg(setting);
    }
    for setting in settings {
        postgres.arg("-c").arg(setting);
    }
    let mut child = postgres.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let stderr = BufReader::new(child.stderr.take().ok_or("no output")?);
    let (ready, is_ready) = mpsc::channel();
    // What it says after that is read so that it can go on saying it.
    std::thread::spawn(move || {
        let mut said = String::new();
        for line in stderr.lines().map_while(Result::ok) {
            if line.contains(READY) {
                let _nobody_asks_twice = ready.send(Ok(()));
            }
            said.push_str(&line);
            said.push('\n');
        }
        let _it_was_ready = ready.send(Err(said));
    });
    is_ready.recv()??;
    Ok(child)
}

/// PostgreSQL does not run as root: then it runs as a user who owns nothing.
fn owner() -> Result<Owner, BoxError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let found = ["postgres", "nobody"].iter().find_map(|name| {
        let line = users.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    found
        .map(Some)
        .ok_or_else(|| "PostgreSQL does not run as root: a user postgres or nobody is needed".into())
}

/// Makes a file or directory the server's.
fn give(path: &Path, owner: Owner) -> Result<(), BoxError> {
    if let Some((uid, gid)) = owner {
        chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}

fn command(name: &str, owner: Owner) -> Result<Command, BoxError> {
    let mut command = Command::new(program(name)?);
    command.current_dir("/");
    if let Some((uid, gid)) = owner {
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

/// A program of PostgreSQL: Debian keeps those of the server out of the way.
fn program(name: &str) -> Result<PathBuf, BoxError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    dirs.extend(versions.map(|version| version.path().join("bin")));
    let found = dirs.into_iter().map(|dir| dir.join(name)).find(|path| path.exists());
    found.ok_or_else(|| format!("{name} of PostgreSQL is not installed: run scripts/setup.sh test").into())
}
