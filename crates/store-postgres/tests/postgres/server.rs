//! A PostgreSQL server of a test, in a temporary directory.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use rustix::fs::{Gid, Uid, chown};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use store_postgres::{PostgresOptions, tokio_postgres};
use tempfile::TempDir;

/// What the server says once it can be used.
const READY: &str = "database system is ready to accept connections";

/// A running server, which ends with this value.
pub struct Server {
    dir: TempDir,
    user: Option<(u32, u32)>,
    settings: Vec<String>,
    child: Child,
}

impl Server {
    pub fn start() -> Server {
        Server::start_with(&[], |_| {})
    }

    /// A server with settings, as `name=value`. `prepare` may put files into its directory.
    pub fn start_with(settings: &[&str], prepare: impl FnOnce(&Path)) -> Server {
        let dir = TempDir::with_prefix("courant-postgres-").unwrap();
        let user = user();
        let mut initdb = command("initdb", user);
        initdb.args(["-U", "courant", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"]);
        give(dir.path(), user);
        let made = initdb.arg(dir.path().join("data")).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        prepare(dir.path());
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let child = launch(dir.path(), user, &settings);
        Server { dir, user, settings, child }
    }

    /// The directory of the server.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends the server as a crash of its machine's power would not: at once, without a word to its clients' transactions.
    pub fn crash(&mut self) {
        self.signal(Signal::QUIT);
    }

    /// Ends the server in order: its clients are told.
    pub fn stop(&mut self) {
        self.signal(Signal::INT);
    }

    /// Starts the server again, with other settings than before.
    pub fn start_again(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        self.child = launch(self.dir.path(), self.user, &self.settings);
    }

    fn signal(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap();
    }

    /// How the server is reached.
    pub fn options(&self) -> PostgresOptions {
        PostgresOptions::parse(&format!("host={} user=courant dbname=postgres", self.dir().display()))
            .unwrap()
    }

    /// A session besides those of stores.
    pub async fn session(&self) -> tokio_postgres::Client {
        let (client, session) = self.options().config.connect(tokio_postgres::NoTls).await.unwrap();
        runtime::TaskGroup::new("session").spawn("session", runtime::OnError::Log, async move {
            drop(session.await); // The server may end before it.
            Ok(())
        });
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::QUIT);
        }
    }
}

fn launch(dir: &Path, user: Option<(u32, u32)>, settings: &Vec<String>) -> Child {
    let mut postgres = command("postgres", user);
    postgres.arg("-D").arg(dir.join("data")).arg("-k").arg(dir);
    for setting in ["listen_addresses=", "fsync=off", "shared_buffers=16MB", "max_connections=20"] {
        postgres.arg("-c").arg(setting);
    }
    for setting in settings {
        postgres.arg("-c").arg(setting);
    }
    let mut child = postgres.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (ready, is_ready) = mpsc::channel();
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
    is_ready.recv().unwrap().unwrap();
    child
}

/// PostgreSQL does not run as root: then it runs as a user who owns nothing.
fn user() -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let found = ["postgres", "nobody"].iter().find_map(|name| {
        let line = users.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    Some(found.expect("a user postgres or nobody, as PostgreSQL does not run as root"))
}

/// Makes a file or directory the server's.
pub fn give(path: &Path, user: Option<(u32, u32)>) {
    if let Some((uid, gid)) = user {
        chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).unwrap();
    }
}

/// Makes a file the server's, and nobody else's to read.
pub fn give_secret(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    give(path, user());
}

fn command(name: &str, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program(name));
    command.current_dir("/");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// A program of PostgreSQL: Debian keeps those of the server out of the way.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    dirs.extend(versions.map(|version| version.unwrap().path().join("bin")));
    let found = dirs.into_iter().map(|dir| dir.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} of PostgreSQL is not installed: run scripts/setup.sh test"))
}
