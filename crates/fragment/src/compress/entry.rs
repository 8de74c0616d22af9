//! Where a compressed stream can be entered, as a decompressor finds out on its way.
//!
//! A stream can be entered where a part of it begins that needs nothing of what is before: a gzip member, a Zstandard
//! frame, a snappy chunk. In a gzip member it can besides be entered anywhere with a copy of the decompressor, which is
//! 43 KiB. There is no such copy of a Zstandard decompressor.

use std::fmt;
use std::sync::Arc;

use super::gzip::Inside;

/// Least content between two entries that are noted, bytes. What is before the content that a reader wants, from the entry
/// on, takes a fiftieth of a second at the speed of the slowest decompressor, which is that of gzip.
pub const ENTRY_SPACING_BYTES: u64 = 8 << 20;
/// Most entries that are noted of a stream: those of longer content are further apart.
pub const ENTRIES_MAX: u64 = 64;

/// A place where a stream can be entered.
#[derive(Clone)]
pub struct Entry {
    /// Content before it, bytes.
    pub content: u64,
    /// Where to go on reading what is stored.
    pub stored: u64,
    /// The state of the decompressor, within a gzip member.
    pub(super) inside: Option<Arc<Inside>>,
}

impl Entry {
    /// Memory that this takes, bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Entry>() + self.inside.as_ref().map_or(0, |inside| inside.memory_bytes())
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("content", &self.content)
            .field("stored", &self.stored)
            .field("is_inside", &self.inside.is_some())
            .finish()
    }
}

/// Which entries a decompressor notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noting {
    /// The beginnings of members, frames and chunks. This costs nothing.
    Beginnings,
    /// Those within gzip members, too. Decompressing gzip takes half as long again.
    Everywhere,
}

/// What a decompressor has noted.
pub(super) struct Notes {
    /// Content of the whole stream; none if nothing is to be noted.
    length: Option<u64>,
    /// Content that was made, bytes.
    content: u64,
    /// Where the last entry was, or where the stream was entered.
    last: u64,
    found: Vec<Entry>,
}

impl Notes {
    /// Of a stream of `length` bytes of content, which is entered at content byte `content`. Without a length nothing is
    /// noted.
    pub(super) fn new(length: Option<u64>, content: u64) -> Notes {
        Notes { length, content, last: content, found: Vec::new() }
    }

    pub(super) fn made(&mut self, bytes: u64) {
        self.content = self.content.saturating_add(bytes);
    }

    /// Notes that the stream can be entered here, if it is far enough from the last entry.
    pub(super) fn can_enter(&mut self, stored: u64, inside: impl FnOnce() -> Option<Arc<Inside>>) {
        let Some(length) = self.length else { return };
        let spacing = ENTRY_SPACING_BYTES.max(length.div_ceil(ENTRIES_MAX));
        if self.content - self.last >= spacing && self.content < length {
            self.last = self.content;
            self.found.push(Entry { content: self.content, stored, inside: inside() });
        }
    }

    pub(super) fn take(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.found)
    }
}
