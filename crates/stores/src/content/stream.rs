//! Content which is decompressed in one go from where the object was entered.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use fragment::Codec;
use fragment::compress::{Decompressor, Entry, Noting};
use object_store::{Attribute, GetResult};

use super::source::{Named, Patience, Stored};
use crate::StoreError;
use crate::index_cache::{IndexCache, Version};

/// What every gzip stream begins with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Content that is passed over in one step, bytes.
const PASS_BYTES: u64 = 16 << 20;

/// Where an object was entered.
pub(super) enum Start {
    /// At its beginning.
    Beginning(Noting),
    /// Where content begins that is not compressed.
    Plain(u64),
    /// At an entry.
    Entry(Entry),
}

/// Content that is asked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// Where it begins.
    pub(super) from: u64,
    /// The length of all content, up to which it goes.
    pub(super) length: u64,
}

/// Decompresses an object.
pub(super) struct StreamReader {
    content: Decompressor<Stored>,
    /// Content that is to be passed over, bytes.
    pass: u64,
    /// Content to come, bytes.
    remaining: u64,
    lessons: Lessons,
    named: Named,
}

/// What is to be learned of an object.
struct Lessons {
    indexes: Arc<IndexCache>,
    version: Version,
}

impl StreamReader {
    /// A reader of what is wanted of `object`, which was asked for from `start` on. Blocks.
    pub(super) fn new(
        codec: Codec,
        object: GetResult,
        (start, wanted): (Start, Wanted),
        indexes: Arc<IndexCache>,
        named: Named,
        patience: Patience,
    ) -> Result<StreamReader, StoreError> {
        let (length, lessons) = (wanted.length, Lessons { indexes, version: Version::of(&object.meta) });
        let (entered, opened) = match start {
            Start::Beginning(noting) => {
                let came = as_it_came(codec, object, patience);
                (0, came.and_then(|(codec, stored)| Decompressor::noting(codec, stored, noting, length)))
            }
            Start::Plain(at) => (at, Decompressor::new(Codec::None, Stored::new(object, patience))),
            Start::Entry(entry) => {
                let stored = Stored::new(object, patience);
                (entry.content, Decompressor::enter(codec, stored, &entry, length))
            }
        };
        let content = opened.map_err(|error| named.failed(error))?;
        let (pass, remaining) = (wanted.from - entered, length - entered);
        Ok(StreamReader { content, pass, remaining, lessons, named })
    }

    pub(super) fn remaining(&self) -> u64 {
        self.remaining
    }

    pub(super) fn named(&self) -> &Named {
        &self.named
    }

    /// The next content: `bytes`, or all that remains. None if content was passed over instead.
    pub(super) fn step(&mut self, bytes: usize) -> Result<Bytes, StoreError> {
        let outcome = if self.pass > 0 { self.pass_over() } else { self.read(bytes) };
        let entries = self.content.take_entries();
        if !entries.is_empty() {
            self.lessons.indexes.learn_entries(&self.named.path, &self.lessons.version, entries);
        }
        outcome.map_err(|error| self.named.failed(error))
    }

    fn pass_over(&mut self) -> io::Result<Bytes> {
        let passed = self.pass.min(PASS_BYTES);
        self.content.pass_over(passed)?;
        self.pass -= passed;
        self.remaining -= passed;
        Ok(Bytes::new())
    }

    fn read(&mut self, bytes: usize) -> io::Result<Bytes> {
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes);
        let mut content = vec![0; wanted];
        self.content.read_exact(&mut content)?;
        self.remaining -= wanted as u64;
        if self.remaining == 0 && self.content.read(&mut [0])? > 0 {
            return Err(io::Error::other("did not read EOF at expected Fragment.End"));
        }
        Ok(content.into())
    }
}

/// How the content of `object` is to be decompressed. Some stores decompress what is theirs to decompress, some do not,
/// and what is between may: what came says which it is (journal protocol §17, R18).
fn as_it_came(codec: Codec, object: GetResult, patience: Patience) -> io::Result<(Codec, Stored)> {
    let is_gzip = object.attributes.get(&Attribute::ContentEncoding).is_some_and(|value| &**value == "gzip");
    let mut stored = Stored::new(object, patience);
    let came = match codec {
        Codec::GzipOffload if !is_gzip && stored.peek(GZIP_MAGIC.len())? != GZIP_MAGIC => Codec::None,
        codec => codec,
    };
    Ok((came, stored))
}
