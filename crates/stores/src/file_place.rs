//! Directories as places of objects.
//!
//! Nothing below the root of a file store may lead out of it. Keys with `..`, empty or over-long elements are refused
//! before any file is touched, and symbolic links below the root are not followed: not by operations, which fail, and
//! not by listings, which pass over them with a log line. (The root itself may be reached through links.)
//!
//! A root that goes away is missing, and not empty: nothing reads it as empty or makes it again.
//!
//! A file is written as `NAME#N`, and renamed once it is complete. An upload whose process was killed leaves it behind: a
//! listing that comes upon one for a fragment, and older than any upload takes, removes it.

mod objects;

use std::fs::{self, ReadDir};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use fragment::Fragment;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::ObjectStore;
use proto::JournalName;
use runtime::{Clock, TaskGroup};

use crate::error::PlaceError;
use crate::place::{Listed, Place};
use objects::FileObjects;

/// Longest element of a path, in bytes: the limit of Linux file systems, less the suffix (`#` and a number) of a file
/// that is being uploaded.
const ELEMENT_BYTES_MAX: usize = 255 - 8;
/// Longest path, in bytes, with the root.
const PATH_BYTES_MAX: usize = 4096 - 16;
/// Directory entries read at a time while listing.
const LIST_BATCH: usize = 1024;
/// Each part of an upload.
const PART_BYTES: usize = 1 << 20;
/// Age at which a file that was staged for a fragment counts as left behind, in seconds: a day, and no upload takes so long.
const STAGED_AGE_MAX_SECONDS: i64 = 24 * 60 * 60;
/// Prefix of the files which other implementations of the protocol write before renaming them.
const PARTIAL_PREFIX: &str = ".partial-";

/// The directory of one file store.
pub(crate) struct FilePlace {
    objects: FileObjects,
    root: PathBuf,
    /// The URL's own path, which is all that signed URLs show of the root: empty or ending in a slash.
    url_path: String,
    clock: Clock,
    tasks: TaskGroup,
}

impl FilePlace {
    /// The directory `url_path` below `file_root`. Both must exist, and the directory must be within the root.
    pub(crate) fn open(
        file_root: &Path,
        url_path: &str,
        (clock, tasks): (Clock, TaskGroup),
    ) -> Result<FilePlace, (PathBuf, String)> {
        let directory = file_root.join(url_path);
        let problem = |error: io::Error| (directory.clone(), error.to_string());
        let outer = fs::canonicalize(file_root).map_err(problem)?;
        let root = fs::canonicalize(&directory).map_err(problem)?;
        if !root.starts_with(&outer) {
            return Err((directory, format!("it is outside of the file root {}", outer.display())));
        }
        if !root.is_dir() {
            return Err((directory, "it is not a directory".to_owned()));
        }
        let objects =
            FileObjects::new(&root, tasks.clone()).map_err(|error| (directory, error.to_string()))?;
        Ok(FilePlace { objects, root, url_path: url_path.to_owned(), clock, tasks })
    }
}

fn require_root(root: &Path) -> io::Result<()> {
    match root.is_dir() {
        true => Ok(()),
        false => Err(io::Error::other(format!("the store's directory {} is missing", root.display()))),
    }
}

impl Place for FilePlace {
    fn objects(&self) -> &dyn ObjectStore {
        &self.objects
    }

    fn locate(&self, key: &str) -> Result<object_store::path::Path, PlaceError> {
        let key = clean(key);
        let path = object_store::path::Path::parse(&key).map_err(|e| PlaceError::Name(e.to_string()))?;
        if path.is_root() {
            return Err(PlaceError::Name("it is empty".to_owned()));
        }
        let length = self.root.as_os_str().len() + 1 + key.len();
        if length > PATH_BYTES_MAX {
            return Err(PlaceError::Name(format!(
                "it is {length} bytes long (expected at most {PATH_BYTES_MAX})"
            )));
        }
        if let Some(long) = key.split('/').find(|element| element.len() > ELEMENT_BYTES_MAX) {
            let length = long.len();
            let problem = format!("an element is {length} bytes long (expected at most {ELEMENT_BYTES_MAX})");
            return Err(PlaceError::Name(problem));
        }
        require_root(&self.root).map_err(PlaceError::Io)?;
        refuse_links(&self.root, &key)?;
        Ok(path)
    }

    fn list_after(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> BoxStream<'static, Result<Listed, PlaceError>> {
        let prefix = clean(prefix);
        let directory = prefix.rfind('/').map_or("", |slash| &prefix[..slash]);
        if prefix.split('/').any(|element| element == "..") {
            let refused = PlaceError::Name("it has a '..' element".to_owned());
            return stream::once(async move { Err(refused) }).boxed();
        }
        if let Err(error) = refuse_links(&self.root, directory) {
            return stream::once(async move { Err(error) }).boxed();
        }
        let walk = Walk {
            root: self.root.clone(),
            prefix: prefix.clone(),
            after: after.map(clean),
            staged_since: self.clock.unix_seconds() - STAGED_AGE_MAX_SECONDS,
            pending: vec![directory.to_owned()],
            open: None,
        };
        let tasks = self.tasks.clone();
        let batches = stream::unfold(Some(walk), move |walk| {
            let tasks = tasks.clone();
            async move {
                let mut walk = walk?;
                let next = tasks.spawn_blocking("list files", move || {
                    // A directory that is missing below the root has no files. A root that is missing is no empty store: nobody
                    // may take what it holds for lost. Before and after, since it may go, or come, in between.
                    let required = |walk: &Walk| require_root(&walk.root).map_err(PlaceError::Io);
                    let listed = required(&walk)
                        .and_then(|()| walk.next_batch())
                        .and_then(|batch| required(&walk).map(|()| batch));
                    (listed, walk)
                });
                let (batch, walk) = next.await;
                let more = batch.as_ref().is_ok_and(|batch| !batch.is_empty());
                Some((batch, more.then_some(walk)))
            }
        });
        batches
            .flat_map(|batch| match batch {
                Ok(batch) => stream::iter(batch.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            })
            .boxed()
    }

    fn sign<'a>(&'a self, key: &'a str, _ttl: Duration) -> BoxFuture<'a, Result<String, PlaceError>> {
        let url = format!("file:///{}", encode(&format!("{}{}", self.url_path, clean(key))));
        async move { Ok(url) }.boxed()
    }

    fn part_bytes(&self) -> usize {
        PART_BYTES
    }
}

/// `key` without the empty elements which rewriting may leave.
fn clean(key: &str) -> String {
    let mut cleaned = String::with_capacity(key.len());
    for c in key.chars() {
        if c != '/' || !(cleaned.is_empty() || cleaned.ends_with('/')) {
            cleaned.push(c);
        }
    }
    cleaned
}

/// Fails if an element of `key` below `root` is a symbolic link.
fn refuse_links(root: &Path, key: &str) -> Result<(), PlaceError> {
    let mut path = root.to_owned();
    for element in key.split('/').filter(|element| !element.is_empty()) {
        path.push(element);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                return Err(PlaceError::Name(format!("{} is a symbolic link", path.display())));
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                break;
            }
            Err(error) => return Err(PlaceError::Io(error)),
        }
    }
    Ok(())
}

/// Percent-encodes what a URL's path may not hold.
fn encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b'=' | b'+' => {
                encoded.push(byte.into());
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// A listing on its way through a directory tree. One directory is open at a time.
struct Walk {
    root: PathBuf,
    prefix: String,
    /// Keys up to this one are passed over.
    after: Option<String>,
    /// What was staged before this Unix time, in seconds, was left behind.
    staged_since: i64,
    /// Directories to read, relative to the root.
    pending: Vec<String>,
    open: Option<(String, ReadDir)>,
}

impl Walk {
    /// The next entries; none at the end.
    fn next_batch(&mut self) -> Result<Vec<Listed>, PlaceError> {
        let mut batch = Vec::new();
        while batch.len() < LIST_BATCH {
            let Some((directory, entries)) = &mut self.open else {
                let Some(directory) = self.pending.pop() else { break };
                match fs::read_dir(self.root.join(&directory)) {
                    Ok(entries) => self.open = Some((directory, entries)),
                    // It was never written to, or has gone while the listing was on its way.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(PlaceError::Io(error)),
                }
                continue;
            };
            let Some(entry) = entries.next() else {
                self.open = None;
                continue;
            };
            let entry = entry.map_err(PlaceError::Io)?;
            let directory = directory.clone();
            if let Some(listed) = self.visit(&directory, &entry).map_err(PlaceError::Io)? {
                batch.push(listed);
            }
        }
        Ok(batch)
    }

    /// Whether every file below `directory` is passed over.
    fn is_wholly_before(&self, directory: &str) -> bool {
        let below = format!("{directory}/");
        self.after.as_ref().is_some_and(|after| *after > below && !after.starts_with(&below))
    }

    /// Takes note of a directory, or returns a file.
    fn visit(&mut self, directory: &str, entry: &fs::DirEntry) -> io::Result<Option<Listed>> {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            tracing::warn!(path = %entry.path().display(), "skipping a file whose name is not UTF-8");
            return Ok(None);
        };
        let key = if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
        let kind = match entry.file_type() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            kind => kind?,
        };
        if kind.is_symlink() {
            tracing::warn!(path = %entry.path().display(), "skipping a symbolic link of a file store");
        } else if kind.is_dir()
            && (key.starts_with(&self.prefix) || self.prefix.starts_with(&format!("{key}/")))
            && !self.is_wholly_before(&key)
        {
            self.pending.push(key);
        } else if kind.is_file() && key.starts_with(&self.prefix) {
            if let Some(target) = staged_for(name) {
                self.remove_if_left_behind(entry, target);
            } else if self.after.as_ref().is_none_or(|after| key > *after)
                && !name.starts_with(PARTIAL_PREFIX)
            {
                return Ok(mod_time(entry)?.map(|mod_time| Listed { key, mod_time }));
            }
        }
        Ok(None)
    }

    /// Removes a file that was staged for `target`, if that is a fragment and the file is old. Where it may not be removed
    /// it stays.
    fn remove_if_left_behind(&self, entry: &fs::DirEntry, target: &str) {
        let journal = JournalName::parse("any/journal").expect("it is a name");
        let is_old = || mod_time(entry).is_ok_and(|time| time.is_some_and(|time| time < self.staged_since));
        if Fragment::parse_content_name(&journal, target).is_ok() && is_old() {
            let path = entry.path();
            match fs::remove_file(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "removed what a killed upload left behind"),
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "cannot remove what a killed upload left behind");
                }
            }
        }
    }
}

/// Unix seconds of a file's last modification; None if it has gone.
fn mod_time(entry: &fs::DirEntry) -> io::Result<Option<i64>> {
    let modified = match entry.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?.modified()?,
    };
    let seconds = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(Some(i64::try_from(seconds).unwrap_or(i64::MAX)))
}

/// The name of the file that one of this name becomes once its upload is complete, if it is such a file.
fn staged_for(name: &str) -> Option<&str> {
    let (target, number) = name.rsplit_once('#')?;
    number.bytes().all(|b| b.is_ascii_digit()).then_some(target)
}

#[cfg(test)]
mod tests;
