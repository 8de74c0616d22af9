//! The directory of a playback: files are staged under their numbers, and linked to their paths at completion.
//!
//! Blocking file system calls, for a thread which may block. The directory is the player's own: it is wiped at the start
//! and removed on failure. Names in it come from sequence numbers, or from paths which were checked.

use crate::Fsm;
use crate::op::Fnode;
use crate::path::{self, STAGING_DIR};
use crate::play_error::PlayError;
use crate::step::FileOp;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most staged files which are open at once. Stores may have thousands, and write to few.
const OPEN_FILES_MAX: usize = 64;

/// A directory which is being rebuilt.
pub(crate) struct Staging {
    dir: PathBuf,
    open: BTreeMap<Fnode, File>,
}

impl Staging {
    /// Wipes `dir` and prepares to stage files in it.
    pub(crate) fn prepare(dir: &Path) -> Result<Staging, PlayError> {
        path::check_dir(dir)?;
        remove_all(dir)?;
        let staging = dir.join(STAGING_DIR);
        fs::create_dir_all(&staging).map_err(|e| failed("creating", &staging, e))?;
        Ok(Staging { dir: dir.to_owned(), open: BTreeMap::new() })
    }

    /// Re-enacts operations in order.
    pub(crate) fn apply(&mut self, file_ops: Vec<FileOp>) -> Result<(), PlayError> {
        for file_op in file_ops {
            match file_op {
                FileOp::Create(fnode) => {
                    self.open(fnode, OpenOptions::new().write(true).create_new(true))?;
                }
                FileOp::Write { fnode, offset, data } => {
                    let path = self.staged(fnode);
                    let file = match self.open.get(&fnode) {
                        Some(file) => file,
                        None => self.open(fnode, OpenOptions::new().write(true))?,
                    };
                    file.write_all_at(&data, offset).map_err(|e| failed("writing", &path, e))?;
                }
                FileOp::Remove(fnode) => self.remove(fnode)?,
            }
        }
        Ok(())
    }

    /// Gives the staged files their paths, and writes the properties.
    pub(crate) fn make_live(mut self, fsm: &Fsm) -> Result<(), PlayError> {
        for (path, fnode) in fsm.links() {
            let (staged, path) = (self.staged(*fnode), path::local(&self.dir, path)?);
            create_parent(&path)?;
            fs::hard_link(&staged, &path).map_err(|e| failed("linking", &path, e))?;
        }
        for fnode in fsm.live_nodes() {
            self.remove(fnode)?;
        }
        let staging = self.dir.join(STAGING_DIR);
        fs::remove_dir(&staging).map_err(|e| failed("removing", &staging, e))?;

        for (path, content) in fsm.properties() {
            let path = path::local(&self.dir, path)?;
            create_parent(&path)?;
            let mut file = File::create_new(&path).map_err(|e| failed("creating", &path, e))?;
            file.write_all(content.as_bytes()).map_err(|e| failed("writing", &path, e))?;
        }
        Ok(())
    }

    fn staged(&self, fnode: Fnode) -> PathBuf {
        self.dir.join(STAGING_DIR).join(fnode.0.to_string())
    }

    fn open(&mut self, fnode: Fnode, options: &OpenOptions) -> Result<&File, PlayError> {
        let path = self.staged(fnode);
        if self.open.len() >= OPEN_FILES_MAX {
            self.open.pop_first(); // The oldest file is the least likely to be written to.
        }
        let file = options.open(&path).map_err(|e| failed("opening", &path, e))?;
        Ok(self.open.entry(fnode).or_insert(file))
    }

    fn remove(&mut self, fnode: Fnode) -> Result<(), PlayError> {
        self.open.remove(&fnode);
        let path = self.staged(fnode);
        fs::remove_file(&path).map_err(|e| failed("removing", &path, e))
    }
}

/// Removes a directory and what is in it, if it exists.
pub(crate) fn remove_all(dir: &Path) -> Result<(), PlayError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removing", dir, error)),
        _ => Ok(()),
    }
}

fn create_parent(path: &Path) -> Result<(), PlayError> {
    let parent = path.parent().expect("a path below the directory has a parent");
    fs::create_dir_all(parent).map_err(|e| failed("creating", parent, e))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> PlayError {
    PlayError::Io { action, path: path.to_owned(), source: Arc::new(source) }
}

#[cfg(test)]
mod tests;
