//! Adoption: what a journal's spool files hold after the broker that wrote them has ended, in whatever way.
//!
//! Of each file the newest commit counts whose content has the recorded SHA-1. A file without any is set aside under
//! another name, with an error that names it, as are files of another journal, or of a journal of the same name that
//! was deleted since. They hold no part of this journal, and nothing else stops over them. Whether the journal's other
//! replicas have gone on without this one is not to be seen in its files; see [`SpoolDir::set_aside`]. A failing disk is another
//! matter: to go on without a file that cannot be read would be to forget acknowledged content, so adoption fails and is
//! tried again.

use std::io;
use std::path::Path;
use std::sync::Arc;

use fragment::spool::{
    CONTENT_AT, Commit, Completed, MANIFEST_SLOTS, Manifest, RECORD_PREFIX_BYTES, Spool, record_length,
    slot_at,
};
use fragment::{Fragment, Sum};
use proto::Revision;
use sha1::{Digest, Sha1};

use super::dir::{
    CompletedSpool, CurrentFile, NEW_SUFFIX, SPOOL_SUFFIX, SpoolDir, SpoolError, SpoolPlace, io_error,
};
use super::disk::{DiskFile, read_full_at};
use super::file::LocalFile;

/// Added to the name of a spool whose journal was deleted, or has gone on without it.
const STALE_SUFFIX: &str = ".stale";
/// Bytes read at a time to verify content.
const VERIFY_READ_BYTES: usize = 1 << 20;

/// A journal's spools as they were found.
pub(crate) struct Adopted {
    /// The current spool: the newest file's, or a new one.
    pub(crate) dir: SpoolDir,
    /// The other files, whose fragments are complete; oldest first.
    pub(crate) completed: Vec<CompletedSpool>,
}

/// A readable file.
struct Found {
    file: Arc<dyn DiskFile>,
    number: u64,
    commit: Commit,
    hash: Sha1,
    next_sequence: u64,
}

impl SpoolDir {
    /// Reads the spools at `place`. Blocks, for as long as hashing them takes.
    ///
    /// # Errors
    /// As the file system fails.
    pub(crate) fn adopt(place: SpoolPlace) -> Result<Adopted, SpoolError> {
        let mut numbers = Vec::new();
        let mut next_file = 0;
        for name in place.disk.list(&place.dir).map_err(|err| io_error("listing", &place.dir, err))? {
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(NEW_SUFFIX) {
                let path = place.dir.join(name);
                place.disk.remove(&path).map_err(|err| io_error("removing", &path, err))?;
            }
            // Files which were set aside keep their number.
            let Some(number) = name.split('.').next().and_then(|stem| u64::from_str_radix(stem, 16).ok())
            else {
                continue;
            };
            next_file = next_file.max(number.saturating_add(1));
            if *name == *place.file_path(number).file_name().expect("a file's path") {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        let mut found = Vec::new();
        for number in numbers {
            match read_file(&place, number)? {
                Ok(file) => found.push(file),
                Err(reason) => reason.set_aside(&place, &place.file_path(number))?,
            }
        }
        while found.last().is_some_and(|newest| newest.is_unused_beside(&found)) {
            found.pop().map(|unused| unused.complete(&place)).transpose()?;
        }
        let newest = found.pop();
        let completed = found.into_iter().filter_map(|found| found.complete(&place).transpose());
        let completed = completed.collect::<Result<Vec<_>, _>>()?;
        let dir = match newest {
            Some(newest) => newest.resume(place, next_file)?,
            None => {
                let spool = Spool::new(place.head.journal.clone());
                SpoolDir::new(place, spool, None, next_file, Revision::NONE)
            }
        };
        Ok(Adopted { dir, completed })
    }

    /// Gives up what was adopted, in favour of a spool without history: the other replicas have agreed on the route of
    /// `revision` since, and gone on without it. All that was acknowledged is theirs; what they do not have may contradict
    /// what they wrote instead. Files with content stay under another name. Blocks.
    ///
    /// # Errors
    /// As the file system fails.
    pub(crate) fn set_aside(
        self,
        completed: &[CompletedSpool],
        revision: Revision,
    ) -> Result<SpoolDir, SpoolError> {
        let synced_at = self.synced_at();
        let (place, written, next_file) = self.into_parts();
        let reason = || format!("replicas agreed on the route of revision {revision}, it is of {synced_at}");
        let current = written.file.filter(|_| !written.fragment.is_empty());
        for file in completed.iter().map(|spool| &spool.file).chain(&current) {
            Unusable { suffix: STALE_SUFFIX, reason: reason() }.set_aside(&place, file.path())?;
        }
        let spool = Spool::new(place.head.journal.clone());
        Ok(SpoolDir::new(place, spool, None, next_file, Revision::NONE))
    }
}

/// Why a file holds no part of the journal.
struct Unusable {
    suffix: &'static str,
    reason: String,
}

impl Unusable {
    fn corrupt(reason: impl ToString) -> Unusable {
        Unusable { suffix: ".corrupt", reason: reason.to_string() }
    }

    /// Gives the file another name.
    fn set_aside(self, place: &SpoolPlace, path: &Path) -> Result<(), SpoolError> {
        let aside = path.with_extension(format!("{}{}", &SPOOL_SUFFIX[1..], self.suffix));
        let (journal, spool, renamed, reason) =
            (&place.head.journal, path.display(), aside.display(), &self.reason);
        match self.suffix {
            STALE_SUFFIX => {
                tracing::info!(%journal, %spool, %renamed, %reason, "spool is out of date and is set aside")
            }
            _ => {
                tracing::error!(%journal, %spool, %renamed, %reason, "spool cannot be adopted and is set aside")
            }
        }
        place.disk.rename(path, &aside).map_err(|err| io_error("setting aside", path, err))
    }
}

/// Reads and verifies one file. The outer error is the disk's, the inner one the file's.
fn read_file(place: &SpoolPlace, number: u64) -> Result<Result<Found, Unusable>, SpoolError> {
    let path = place.file_path(number);
    let reading = |err| io_error("reading", &path, err);
    let file = place.disk.open(&path).map_err(|err| io_error("opening", &path, err))?;
    let head = read_up_to(&*file, 0, RECORD_PREFIX_BYTES).map_err(reading)?;
    let slots = (0..MANIFEST_SLOTS).map(|slot| read_slot(&*file, slot)).collect::<io::Result<Vec<_>>>();
    let manifest = match Manifest::decode(&head, &slots.map_err(reading)?) {
        Ok(manifest) => manifest,
        Err(err) => return Ok(Err(Unusable::corrupt(err))),
    };
    if manifest.head != place.head {
        let reason = format!("it is of {:?} (expected {:?})", manifest.head, place.head);
        return Ok(Err(Unusable { suffix: STALE_SUFFIX, reason }));
    }
    let next_sequence = manifest.commits[0].sequence + 1;
    let newest_end = manifest.commits[0].fragment.end;
    for commit in manifest.commits {
        if let Some(hash) = verify(&*file, &commit.fragment).map_err(reading)? {
            report_lost(&path, next_sequence, &commit, newest_end);
            return Ok(Ok(Found { file, number, commit, hash, next_sequence }));
        }
    }
    Ok(Err(Unusable::corrupt("its content has none of the recorded sums")))
}

/// Reads a slot as far as its record reaches.
fn read_slot(file: &dyn DiskFile, slot: u64) -> io::Result<Vec<u8>> {
    let at = slot_at(slot);
    let prefix = read_up_to(file, at, RECORD_PREFIX_BYTES)?;
    match record_length(&prefix) {
        length if length > RECORD_PREFIX_BYTES => read_up_to(file, at, length),
        _ => Ok(prefix),
    }
}

fn read_up_to(file: &dyn DiskFile, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = read_full_at(file, &mut bytes, at)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// A commit whose content is not there was never acknowledged, if this is what a loss of power left of a synced spool.
/// Otherwise content is lost, and an operator should know.
fn report_lost(path: &Path, next_sequence: u64, commit: &Commit, newest_end: i64) {
    if commit.sequence + 1 != next_sequence {
        tracing::error!(
            spool = %path.display(), end = commit.fragment.end, recorded_end = newest_end,
            "content of the newest commits is not on disk; the spool goes on from an older one"
        );
    }
}

/// Hashes the content of `fragment`; the hash if it is that of the record.
fn verify(file: &dyn DiskFile, fragment: &Fragment) -> io::Result<Option<Sha1>> {
    let (mut hash, mut buffer) = (Sha1::new(), Vec::new());
    let (mut at, end) = (CONTENT_AT, CONTENT_AT + u64::try_from(fragment.len()).expect("a length"));
    while at < end {
        let step = (end - at).min(VERIFY_READ_BYTES as u64);
        buffer.resize(usize::try_from(step).expect("at most VERIFY_READ_BYTES"), 0);
        if read_full_at(file, &mut buffer, at)? < buffer.len() {
            return Ok(None);
        }
        hash.update(&buffer);
        at += step;
    }
    let sum = if fragment.is_empty() { Sum::ZERO } else { Sum::finish(hash.clone()) };
    Ok((sum == fragment.sum).then_some(hash))
}

impl Found {
    /// Whether the spool has gone on in another file of `all`: making this one failed when it had its name already.
    fn is_unused_beside(&self, all: &[Found]) -> bool {
        let Fragment { begin, end, .. } = self.commit.fragment;
        let goes_on = |other: &Fragment| !other.is_empty() && other.end > begin;
        begin == end && all.iter().any(|other| goes_on(&other.commit.fragment))
    }

    /// The file as that of a completed fragment. An empty one held nothing but its place, which a newer file holds now.
    fn complete(self, place: &SpoolPlace) -> Result<Option<CompletedSpool>, SpoolError> {
        let path = place.file_path(self.number);
        let Commit { fragment, registers, first_append, .. } = self.commit;
        let file = LocalFile::new(self.file, path.clone(), fragment.begin);
        match first_append {
            Some(first_append) if !fragment.is_empty() => {
                let completed = Completed { fragment, registers, first_append };
                Ok(Some(CompletedSpool { completed, file }))
            }
            _ => file.remove(&*place.disk).map(|()| None).map_err(|err| io_error("removing", &path, err)),
        }
    }

    /// The file as that of the current spool, without what follows its last commit.
    fn resume(self, place: SpoolPlace, next_file: u64) -> Result<SpoolDir, SpoolError> {
        let path = place.file_path(self.number);
        let Commit { fragment, registers, first_append, synced_at, .. } = self.commit;
        let end = CONTENT_AT + u64::try_from(fragment.len()).expect("a length");
        let length = self.file.length().map_err(|err| io_error("reading", &path, err))?;
        if length > end {
            self.file.truncate(end).map_err(|err| io_error("truncating", &path, err))?;
        }
        let current = CurrentFile {
            file: LocalFile::new(self.file, path, fragment.begin),
            next_sequence: self.next_sequence,
            written_to: end,
        };
        let spool = Spool::restore(fragment, registers, self.hash, first_append);
        Ok(SpoolDir::new(place, spool, Some(current), next_file, Revision(synced_at)))
    }
}
