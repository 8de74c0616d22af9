//! The spool files of one journal, and the writing of them.
//!
//! Invariants, which [`SpoolDir::adopt`] relies upon:
//!
//! - A file gets its final name only once its manifest holds a first commit, of an empty fragment.
//! - A commit's record is written after its content, and everything is synced before it is said to be durable.
//! - The spool leaves a file for a new one only, and by creating the new one, so that the newest file always tells the
//!   journal's end and registers. Older files are complete, and synced before the newer one has its name: a loss of power
//!   leaves no gap between them.
//! - A failed call leaves the spool as it was. What it wrote is overwritten later, and no record vouches for it; but a new
//!   file may have its name already. It is empty then, and begins before the end of the file in which the spool has gone on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fragment::Fragment;
use fragment::spool::{CONTENT_AT, Commit, Completed, Head, ManifestError, Outcome, Spool};
use proto::protocol::LabelSet;
use proto::{JournalName, Revision};
use sha1::{Digest, Sha1};

use super::disk::{SpoolDisk, write_all_at};
use super::{Durability, LocalFile};

/// Directory of spools, below the data directory.
pub(super) const SPOOLS_DIR: &str = "spools";
/// Longest name of a journal's directory before it is cut off and told apart by a digest, in bytes.
const DIR_NAME_BYTES_MAX: usize = 180;
/// Suffix of spool files.
pub(super) const SPOOL_SUFFIX: &str = ".spool";
/// Suffix of files that are being created.
pub(super) const NEW_SUFFIX: &str = ".new";

/// With [`Durability::Disk`], blocks ahead of small commits are written in steps that end at multiples of this. A sync that
/// finds its blocks written needs no commit of the file system's own journal, and takes half the time.
const WRITE_AHEAD_BYTES: u64 = 256 << 10;
/// Commits of at least this many bytes allocate their blocks as they go.
const WRITE_AHEAD_COMMIT_MAX: i64 = 64 << 10;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Where the spools of one journal are.
#[derive(Clone)]
pub(crate) struct SpoolPlace {
    /// The file system.
    pub(crate) disk: Arc<dyn SpoolDisk>,
    /// The journal's directory.
    pub(crate) dir: PathBuf,
    /// What a written commit promises once it is synced.
    pub(crate) durability: Durability,
    /// Whose spools they are.
    pub(crate) head: Head,
}

/// A file operation on a spool failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    /// The file system failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// File or directory.
        path: String,
        /// How it failed.
        source: io::Error,
    },
    /// The commit cannot be recorded.
    #[error("recording a commit in {path}: {source}")]
    Record {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// Spilled content could not be read back.
    #[error("reading spilled append content: {0}")]
    Spilled(#[from] io::Error),
}

/// A fragment which is complete, and its file.
#[derive(Clone, Debug)]
pub(crate) struct CompletedSpool {
    /// The fragment, its registers and the time of its first commit.
    pub(crate) completed: Completed,
    /// Its file.
    pub(crate) file: LocalFile,
}

/// The current fragment after a write.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// The fragment. May be empty.
    pub(crate) fragment: Fragment,
    /// Its registers.
    pub(crate) registers: LabelSet,
    /// Its file, once it has one.
    pub(crate) file: Option<LocalFile>,
}

/// The spool of one journal with its files. See the module's documentation.
pub(crate) struct SpoolDir {
    place: SpoolPlace,
    spool: Spool,
    current: Option<CurrentFile>,
    next_file: u64,
    synced_at: Revision,
}

/// The file of the spool's fragment.
pub(super) struct CurrentFile {
    pub(super) file: LocalFile,
    /// Of the next commit.
    pub(super) next_sequence: u64,
    /// Blocks before this position were written before.
    pub(super) written_to: u64,
}

impl SpoolPlace {
    /// The place below `data_dir` of the spools of `head`'s journal.
    pub(crate) fn new(
        disk: Arc<dyn SpoolDisk>,
        data_dir: &Path,
        durability: Durability,
        head: Head,
    ) -> SpoolPlace {
        let dir = data_dir.join(SPOOLS_DIR).join(dir_name(&head.journal));
        SpoolPlace { disk, dir, durability, head }
    }

    pub(super) fn sync_dir(&self, dir: &Path) -> Result<(), SpoolError> {
        match self.durability {
            Durability::Process => Ok(()),
            Durability::Disk => self.disk.sync_dir(dir).map_err(|err| io_error("syncing", dir, err)),
        }
    }

    pub(super) fn file_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}{SPOOL_SUFFIX}"))
    }
}

/// A name for the directory of `journal` that no other journal has, and that is one clean path element.
fn dir_name(journal: &JournalName) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=+".contains(&byte);
    let mut name = String::new();
    for byte in journal.as_str().bytes() {
        match byte {
            b'.' if !name.is_empty() => name.push('.'),
            byte if is_plain(byte) => name.push(byte.into()),
            byte => name.push_str(&format!("%{byte:02X}")),
        }
        if name.len() > DIR_NAME_BYTES_MAX {
            // No escape begins with `%-`, so this is no other journal's name either.
            return format!("{name}%-{}", fragment::Sum::finish(Sha1::new_with_prefix(journal.as_str())));
        }
    }
    name
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> SpoolError {
    SpoolError::Io { action, path: path.display().to_string(), source }
}

impl SpoolDir {
    /// What adoption found: `current` is the file of `spool`'s fragment.
    pub(super) fn new(
        place: SpoolPlace,
        spool: Spool,
        current: Option<CurrentFile>,
        next_file: u64,
        synced_at: Revision,
    ) -> SpoolDir {
        SpoolDir { place, spool, current, next_file, synced_at }
    }

    /// The place, what is written, and the number of the next file.
    pub(super) fn into_parts(self) -> (SpoolPlace, Written, u64) {
        let written = self.written();
        (self.place, written, self.next_file)
    }

    /// The spool.
    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Revision of the route over which the replicas last agreed on the spool, as far as its file knows.
    pub(crate) fn synced_at(&self) -> Revision {
        self.synced_at
    }

    /// Whether the current file is to be left, since a sync of it failed: nothing more is to be committed to it.
    pub(crate) fn is_distrusted(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.file.is_distrusted())
    }

    /// Records that the replicas of the route of `revision` agree on the spool, or are about to. It is on the disk then
    /// whatever [`Durability`] says: etcd keeps the revision, and a spool that has lost it is set aside as a whole. A spool
    /// without a file has nothing that they could go on without; in place of one that is to be left, its successor records it.
    ///
    /// # Errors
    /// If it cannot be recorded.
    pub(crate) fn mark_synced(&mut self, revision: Revision) -> Result<(), SpoolError> {
        let commit = self.state(revision);
        if self.synced_at != revision
            && let Some(current) = &mut self.current
            && !current.file.is_distrusted()
        {
            current.record(commit)?;
            current.file.sync()?;
        }
        self.synced_at = revision;
        Ok(())
    }

    /// The record of the spool as it is.
    fn state(&self, synced_at: Revision) -> Commit {
        Commit {
            sequence: 0,
            fragment: self.spool.fragment().clone(),
            registers: self.spool.registers().clone(),
            first_append: self.spool.first_append(),
            synced_at: synced_at.0,
        }
    }

    /// The current fragment as of the last commit.
    pub(crate) fn written(&self) -> Written {
        Written {
            fragment: self.spool.fragment().clone(),
            registers: self.spool.registers().clone(),
            file: self.current.as_ref().map(|current| current.file.clone()),
        }
    }

    /// Applies the proposal of an empty fragment, which completes the current one unless that is empty too.
    ///
    /// # Errors
    /// If the fragment's new file cannot be made. The spool is as it was.
    pub(crate) fn roll(
        &mut self,
        proposal: &Fragment,
        registers: &LabelSet,
        now: Duration,
    ) -> Result<Option<CompletedSpool>, SpoolError> {
        assert!(proposal.is_empty(), "a roll leads to an empty fragment: {proposal:?}");
        let before = self.spool.clone();
        let applied = self.spool.propose(proposal, registers, now);
        let completed = applied.rolled.and_then(|rolled| rolled.completed);
        let outcome = match (&completed, &self.current) {
            (Some(_), _) => self.sync_former().and_then(|()| self.create_file()),
            (None, Some(_)) if self.is_distrusted() => self.create_file(),
            (None, Some(_)) if same(&before, &self.spool) => return Ok(None),
            (None, Some(_)) => self.rebase(),
            (None, None) if self.spool.fragment().begin == 0 && self.spool.registers().is_empty() => {
                return Ok(None);
            }
            (None, None) => self.create_file(),
        };
        match outcome {
            Ok(current) => {
                let former = self.current.replace(current);
                let with_file = |completed| {
                    let file = former.expect("a fragment with content has a file").file;
                    CompletedSpool { completed, file }
                };
                Ok(completed.map(with_file))
            }
            Err(err) => {
                self.spool = before;
                Err(err)
            }
        }
    }

    /// Applies the proposal of the journal's primary, as another replica does (journal protocol §6.4). An error leaves the
    /// spool as it was, but for a roll that had happened by then.
    ///
    /// # Errors
    /// As the file system fails.
    pub(crate) fn propose(
        &mut self,
        proposal: &Fragment,
        registers: &LabelSet,
        now: Duration,
    ) -> Result<(Option<CompletedSpool>, Outcome), SpoolError> {
        let completed = match self.spool.rolls_to(proposal) {
            Some(empty) => self.roll(&empty, registers, now)?,
            None => None,
        };
        let outcome = self.spool.compare(proposal, registers);
        match outcome {
            Outcome::Unchanged { .. } => self.undo(),
            Outcome::Committed { .. } => self.commit(registers, now)?,
            Outcome::Mismatch => {}
        }
        Ok((completed, outcome))
    }

    /// Writes uncommitted content after what there is.
    ///
    /// # Errors
    /// As the file system fails. [`SpoolDir::undo`] then forgets all uncommitted content.
    pub(crate) fn write(&mut self, blocks: &[Bytes]) -> Result<(), SpoolError> {
        if self.current.is_none() {
            self.current = Some(self.create_file()?);
        }
        let current = self.current.as_mut().expect("was just made");
        let at = CONTENT_AT + u64::try_from(self.spool.position()).expect("a position");
        let slices: Vec<&[u8]> = blocks.iter().map(|block| &block[..]).collect();
        write_all_at(&**current.file.disk_file(), &slices, at)
            .map_err(|err| io_error("writing content to", current.file.path(), err))?;
        for block in blocks {
            self.spool.content(self.spool.uncommitted(), block).expect("continues what there is");
        }
        Ok(())
    }

    /// Forgets uncommitted content.
    pub(crate) fn undo(&mut self) {
        self.spool.undo();
    }

    /// Commits the content written so far, leaving `registers`. On return the commit survives the death of this process;
    /// it survives a loss of power once the file is synced. Without content nothing happens.
    ///
    /// # Errors
    /// If the commit cannot be recorded. The content is uncommitted still.
    pub(crate) fn commit(&mut self, registers: &LabelSet, now: Duration) -> Result<(), SpoolError> {
        let bytes = self.spool.uncommitted();
        if bytes == 0 {
            assert_eq!(self.spool.registers(), registers, "registers change with content only");
            return Ok(());
        }
        let proposal = self.spool.extended();
        let commit = Commit {
            sequence: 0,
            fragment: proposal.clone(),
            registers: registers.clone(),
            first_append: Some(self.spool.first_append().unwrap_or(now)),
            synced_at: self.synced_at.0,
        };
        let current = self.current.as_mut().expect("content was written to it");
        current.record(commit)?;
        if self.place.durability == Durability::Disk && bytes < WRITE_AHEAD_COMMIT_MAX {
            current.write_ahead(CONTENT_AT + u64::try_from(proposal.len()).expect("a length"));
        }
        let applied = self.spool.propose(&proposal, registers, now);
        assert_eq!(applied.outcome, Outcome::Committed { bytes }, "a spool accepts its own extension");
        Ok(())
    }

    /// Syncs the file that is about to be left, unless that has failed before.
    fn sync_former(&self) -> Result<(), SpoolError> {
        match &self.current {
            Some(current) if self.place.durability == Durability::Disk && !current.file.is_distrusted() => {
                current.file.sync()
            }
            _ => Ok(()),
        }
    }

    /// Makes the file of the spool's fragment, which is empty, and records that.
    fn create_file(&mut self) -> Result<CurrentFile, SpoolError> {
        assert!(self.spool.fragment().is_empty() && self.spool.uncommitted() == 0, "a file begins empty");
        let SpoolPlace { disk, dir, head, durability } = &self.place;
        let path = self.place.file_path(self.next_file);
        let new_path = path.with_extension(format!("{}{NEW_SUFFIX}", &SPOOL_SUFFIX[1..]));
        self.next_file += 1;
        disk.create_dir_all(dir).map_err(|err| io_error("creating", dir, err))?;
        let file = disk.create(&new_path).map_err(|err| io_error("creating", &new_path, err))?;
        let mut current = CurrentFile {
            file: LocalFile::new(Arc::clone(&file), new_path.clone(), self.spool.fragment().begin),
            next_sequence: 0,
            written_to: CONTENT_AT,
        };
        let named = (|| {
            write_all_at(&*file, &[&head.encode()], 0).map_err(|err| io_error("writing", &new_path, err))?;
            current.record(self.state(self.synced_at))?;
            if *durability == Durability::Disk {
                file.sync_data().map_err(|err| io_error("syncing", &new_path, err))?;
            }
            disk.rename(&new_path, &path).map_err(|err| io_error("naming", &path, err))
        })();
        if let Err(err) = named {
            // Adoption removes it otherwise.
            drop(disk.remove(&new_path));
            return Err(err);
        }
        // The directory may be new too, and the one above it.
        for dir in dir.ancestors().take(3) {
            self.place.sync_dir(dir)?;
        }
        current.file = LocalFile::new(file, path, self.spool.fragment().begin);
        Ok(current)
    }

    /// Records the empty fragment in the file of the empty one before it.
    fn rebase(&mut self) -> Result<CurrentFile, SpoolError> {
        let current = self.current.as_ref().expect("the caller has looked");
        let mut rebased = CurrentFile {
            file: current.file.based_at(self.spool.fragment().begin),
            next_sequence: current.next_sequence,
            written_to: current.written_to,
        };
        rebased.record(self.state(self.synced_at))?;
        if self.place.durability == Durability::Disk {
            rebased.file.sync()?;
        }
        Ok(rebased)
    }
}

/// Whether two empty spools need the same record.
fn same(a: &Spool, b: &Spool) -> bool {
    a.fragment() == b.fragment() && a.registers() == b.registers()
}

impl CurrentFile {
    /// Writes `commit` into the next slot, under the next sequence number.
    fn record(&mut self, commit: Commit) -> Result<(), SpoolError> {
        let path = self.file.path();
        let commit = Commit { sequence: self.next_sequence, ..commit };
        let record = commit
            .encode()
            .map_err(|source| SpoolError::Record { path: path.display().to_string(), source })?;
        // Even if it fails: a record that did reach the file must not be younger than the one after it.
        self.next_sequence += 1;
        write_all_at(&**self.file.disk_file(), &[&record], commit.slot_at())
            .map_err(|err| io_error("recording a commit in", path, err))
    }

    /// Allocates blocks for the commits after the one that ends at `end`. They do without if that fails.
    fn write_ahead(&mut self, end: u64) {
        if end <= self.written_to {
            return;
        }
        let until = end.next_multiple_of(WRITE_AHEAD_BYTES);
        let mut at = end;
        while at < until {
            let step = (until - at).min(ZEROS.len() as u64);
            let zeros = &ZEROS[..usize::try_from(step).expect("at most ZEROS")];
            if write_all_at(&**self.file.disk_file(), &[zeros], at).is_err() {
                break;
            }
            at += step;
        }
        self.written_to = at;
    }
}
