//! Spools on disk: the files behind the pure [`fragment::spool::Spool`].
//!
//! Each journal has a directory below the data directory, with one *current* spool file and those of completed fragments
//! which are not stored elsewhere yet. Files are numbered in order of creation. [`SpoolDir`] applies groups to the current
//! file: content first, then the commit's record in the file's manifest, and only then does it say that the group is
//! written. [`SpoolDir::adopt`] reads the directory of a broker that died: every commit that was acknowledged is found
//! again with its checksum, and nothing partial is.
//!
//! All of it blocks, and runs where blocking is allowed. Everything goes through the [`SpoolDisk`] seam, so that tests can
//! fill the disk, fail its syncs, and look at its image after each write.

mod adopt;
mod dir;
mod disk;
mod file;
mod heads;

pub use disk::{DiskFile, OsDisk, SpoolDisk};
pub(crate) use disk::{read_full_at, write_all_at};
pub use file::LocalFile;
pub(crate) use heads::heads;

pub(crate) use adopt::Adopted;
pub(crate) use dir::{CompletedSpool, SpoolDir, SpoolError, SpoolPlace, Written};

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Acknowledged content survives the death of every process, as the kernel's page cache does.
    #[default]
    Process,
    /// Acknowledged content survives a loss of power: it is synced to the disk first.
    Disk,
}

#[cfg(test)]
pub(crate) mod image;
#[cfg(test)]
mod tests;
