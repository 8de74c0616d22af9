//! The data directory of a broker: one process at a time, with an identity that outlives the process.
//!
//! A lock proves that no other process serves the directory, so that its spools and its embedded etcd have one writer.
//! The broker's id is kept beside it: a broker which restarts is the same member again. So is the lease that it last held, with
//! the proof that goes with it: whoever has the lock of the same file, in the same run of the same machine's kernel, knows
//! that the process which held the lease before is dead.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use proto::MemberId;
use runtime::Entropy;
use runtime::config::pet_name;
use rustix::fs::{FlockOperation, flock};

const LOCK_FILE: &str = "LOCK";
const ID_FILE: &str = "broker-id";
const LEASE_FILE: &str = "broker-lease";
/// Names this run of the kernel.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
/// More than the longest id, so that a foreign file is recognised as such.
const ID_FILE_BYTES_MAX: u64 = 256;

/// The data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process serves it.
    #[error(
        "data directory {} is in use by {holder}: stop it, or choose another directory with --broker.data-dir",
        .path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who holds the lock, as far as the lock file says.
        holder: String,
    },
    /// The file system refused.
    #[error("data directory: {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Upon what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file of the broker's id holds something else.
    #[error("{}: expected a broker id of 4 to 128 letters, digits or -_+/. but {problem}", .path.display())]
    Id {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// A locked data directory. Dropping it releases the lock.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: File,
}

impl DataDir {
    /// Creates the directory if it is missing, and locks it.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] if another process has it.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { action, path, source }
        };
        fs::create_dir_all(path).map_err(failed("create", path))?;
        let path = path.canonicalize().map_err(failed("resolve", path))?;
        let lock_path = path.join(LOCK_FILE);
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(DataDirError::InUse { holder: holder(&mut lock), path });
            }
            Err(error) => return Err(failed("lock", &lock_path)(error.into())),
        }
        write_holder(&mut lock).map_err(failed("write", &lock_path))?;
        Ok(DataDir { path, lock })
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The broker's id: `configured`, or the one of the last process here, or a new one, which is then remembered.
    ///
    /// # Errors
    /// If the id is malformed or cannot be kept.
    pub fn member_id(
        &self,
        zone: &str,
        configured: Option<&str>,
        entropy: &Entropy,
    ) -> Result<MemberId, DataDirError> {
        let path = self.path.join(ID_FILE);
        let failed = |action| {
            let path = path.clone();
            move |source| DataDirError::Io { action, path, source }
        };
        let known = read_id(&path).map_err(failed("read"))?;
        let suffix = match (configured, &known) {
            (Some(configured), _) => configured.to_owned(),
            (None, Some(known)) => known.clone(),
            (None, None) => pet_name(entropy),
        };
        let id = MemberId::new(zone, &suffix)
            .map_err(|e| DataDirError::Id { path: path.clone(), problem: e.to_string() })?;
        if known.as_ref() != Some(&suffix) {
            self.replace(ID_FILE, &format!("{suffix}\n"))?;
        }
        Ok(id)
    }

    /// The lease of the last process here, if that process is certainly dead. It is not if the directory was copied, or moved
    /// to another machine.
    pub fn last_lease(&self) -> Option<i64> {
        let text = fs::read_to_string(self.path.join(LEASE_FILE)).ok()?;
        let (proof, lease) = text.trim().rsplit_once(' ')?;
        (proof == self.proof()?).then(|| lease.parse().ok())?
    }

    /// Keeps the lease that this process holds.
    ///
    /// # Errors
    /// As the file system fails.
    pub fn remember_lease(&self, lease: i64) -> Result<(), DataDirError> {
        match self.proof() {
            Some(proof) => self.replace(LEASE_FILE, &format!("{proof} {lease}\n")),
            None => Ok(()),
        }
    }

    /// What tells the lock file, and the kernel which knows who has locked it, from all others.
    fn proof(&self) -> Option<String> {
        let boot = fs::read_to_string(BOOT_ID_FILE).ok()?;
        let lock = self.lock.metadata().ok()?;
        Some(format!("{} {} {}", boot.trim(), lock.dev(), lock.ino()))
    }

    /// Writes a small file, whole or not at all.
    fn replace(&self, name: &str, text: &str) -> Result<(), DataDirError> {
        let path = self.path.join(name);
        let failed = |action| {
            let path = path.clone();
            move |source| DataDirError::Io { action, path, source }
        };
        let partial = path.with_extension("partial");
        fs::write(&partial, text).map_err(failed("write"))?;
        fs::rename(&partial, &path).map_err(failed("rename"))
    }
}

fn read_id(path: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(ID_FILE_BYTES_MAX).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(text.trim().to_owned()))
}

/// What the lock file says about the process that holds it. It may not have written its number yet.
fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.take(ID_FILE_BYTES_MAX).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!("process {}", text.trim()),
        _ => "another process".to_owned(),
    }
}

fn write_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_with_the_first_ones_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/data");
        let first = DataDir::open(&path).unwrap();
        let refused = DataDir::open(&path).unwrap_err();
        assert!(matches!(refused, DataDirError::InUse { .. }), "{refused}");
        let expected = format!("is in use by process {}: stop it, or choose", std::process::id());
        assert!(refused.to_string().contains(&expected), "{refused}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn the_id_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let id = |configured| {
            DataDir::open(dir.path())
                .unwrap()
                .member_id("zone", configured, &Entropy::system())
                .unwrap()
                .to_string()
        };
        let first = id(None);
        assert_eq!(id(None), first);
        assert_eq!(id(Some("given-id")), "zone#given-id");
        assert_eq!(id(None), "zone#given-id");
    }

    #[test]
    fn a_lease_is_known_again_in_the_same_directory_only() {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = DataDir::open(dir.path()).unwrap();
        assert_eq!(first.last_lease(), None);
        first.remember_lease(7).unwrap();
        drop(first);
        assert_eq!(DataDir::open(dir.path()).unwrap().last_lease(), Some(7));
        fs::copy(dir.path().join(LEASE_FILE), copy.path().join(LEASE_FILE)).unwrap();
        assert_eq!(DataDir::open(copy.path()).unwrap().last_lease(), None);
    }

    #[test]
    fn malformed_ids_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        assert!(data.member_id("zone", Some("abc"), &Entropy::system()).is_err());
        fs::write(dir.path().join(ID_FILE), b"a b c d").unwrap();
        let error = data.member_id("zone", None, &Entropy::system()).unwrap_err().to_string();
        assert!(error.contains("broker-id: expected a broker id"), "{error}");
        fs::write(dir.path().join(ID_FILE), b"\xff\xfe").unwrap();
        assert!(data.member_id("zone", None, &Entropy::system()).is_err());
    }
}
