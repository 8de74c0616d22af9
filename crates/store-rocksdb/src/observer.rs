//! Records what RocksDB does to its files.
//!
//! Recorded are the files which make a database: the write-ahead logs, tables, manifests, options, `CURRENT` and
//! `IDENTITY`. The information log and the lock are of this process alone, and never recorded. Nothing else may be
//! written: a file outside of the directory would be missing after a recovery, so its creation is refused.

use crate::env::{ObservedFile, Observer, Refused};
use recoverylog::{Fnode, RecordError, Recorder};
use std::path::Path;

/// An observer which records.
pub(crate) struct RecordingObserver {
    recorder: Recorder,
}

/// A file, and what it is to the recorder: nothing, if it is not recorded.
pub(crate) struct RecordedFile {
    recorder: Recorder,
    fnode: Option<Fnode>,
}

/// What a path is to the recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Part of the database.
    Recorded,
    /// Of this process alone.
    Local,
    /// Outside of the directory.
    Foreign,
}

impl RecordingObserver {
    pub(crate) fn new(recorder: Recorder) -> RecordingObserver {
        RecordingObserver { recorder }
    }

    fn kind(&self, path: &Path) -> Kind {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name == "LOG" || name.starts_with("LOG.old.") || name == "LOCK" {
            Kind::Local
        } else if path.starts_with(self.recorder.dir()) {
            Kind::Recorded
        } else {
            Kind::Foreign
        }
    }

    /// Records an operation on two paths, if both are of the database.
    fn record_pair(
        &self,
        from: &Path,
        to: &Path,
        record: impl FnOnce(&Recorder) -> Result<(), RecordError>,
    ) -> Result<(), Refused> {
        match (self.kind(from), self.kind(to)) {
            (Kind::Recorded, Kind::Recorded) => recorded(record(&self.recorder)),
            (Kind::Local, Kind::Local) => Ok(()),
            _ => Err(refused(&format!("{from:?} to {to:?} crosses the border of what is recorded"))),
        }
    }
}

impl Observer for RecordingObserver {
    type File = RecordedFile;

    fn create(&self, path: &Path) -> Result<RecordedFile, Refused> {
        let fnode = match self.kind(path) {
            Kind::Recorded => Some(recorded(self.recorder.create(path))?),
            Kind::Local => None,
            Kind::Foreign => {
                return Err(refused(&format!("{path:?} is outside of {:?}", self.recorder.dir())));
            }
        };
        Ok(RecordedFile { recorder: self.recorder.clone(), fnode })
    }

    fn remove(&self, path: &Path) -> Result<(), Refused> {
        match self.kind(path) {
            Kind::Recorded => recorded(self.recorder.remove(path)),
            Kind::Local | Kind::Foreign => Ok(()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Refused> {
        self.record_pair(from, to, |recorder| recorder.rename(from, to))
    }

    fn link(&self, from: &Path, to: &Path) -> Result<(), Refused> {
        self.record_pair(from, to, |recorder| recorder.link(from, to))
    }

    fn sync(&self) -> Result<(), Refused> {
        recorded(self.recorder.sync_blocking())
    }
}

impl ObservedFile for RecordedFile {
    fn append(&self, offset: u64, data: &[u8]) -> Result<(), Refused> {
        match self.fnode {
            Some(fnode) => recorded(self.recorder.write_at(fnode, offset, data)),
            None => Ok(()),
        }
    }

    fn sync(&self) -> Result<(), Refused> {
        match self.fnode {
            Some(_) => recorded(self.recorder.sync_blocking()),
            None => Ok(()),
        }
    }
}

/// The recorder remembers its first error, and says it to whoever asks; RocksDB learns only that there is one.
fn recorded<T>(outcome: Result<T, RecordError>) -> Result<T, Refused> {
    outcome.map_err(|_| Refused)
}

fn refused(what: &str) -> Refused {
    tracing::error!("RocksDB operation refused: {what}");
    Refused
}
