//! Content which is decompressed in one go from where the object was entered.

use std::io::{self, Chain, Cursor, Read};

use bytes::Bytes;
use fragment::Codec;
use fragment::compress::{Decompressor, walk_snappy};
use object_store::{Attribute, GetResult};

use super::source::{Named, Patience, Stored};
use crate::StoreError;

/// What every gzip stream begins with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Where an object was entered, and what is to be done first.
pub(super) enum Entry {
    /// At its beginning.
    Beginning,
    /// Where what is asked for begins; it is not compressed.
    Offset,
    /// At its beginning; chunks of snappy are to be passed over which end at this content byte or before.
    Walk(u64),
}

/// An object as it came: bytes which were looked at, and the rest.
type Came = Chain<Cursor<Vec<u8>>, Stored>;

/// Decompresses an object.
pub(super) struct StreamReader {
    content: Decompressor<Came>,
    /// Content to come, bytes.
    remaining: u64,
    named: Named,
}

impl StreamReader {
    /// A reader of what `remaining` bytes of content come from where `object` was entered. Blocks.
    pub(super) fn new(
        codec: Codec,
        object: GetResult,
        entry: Entry,
        mut remaining: u64,
        named: Named,
        patience: Patience,
    ) -> Result<StreamReader, StoreError> {
        let opened = match entry {
            Entry::Walk(offset) => {
                let mut source = Stored::new(object, patience);
                walk_snappy(&mut source, offset).and_then(|position| {
                    remaining = remaining.saturating_sub(position.skipped);
                    Decompressor::new(codec, Cursor::new(position.prefix).chain(source))
                })
            }
            Entry::Beginning | Entry::Offset => {
                as_it_came(codec, object, patience).and_then(|(codec, came)| Decompressor::new(codec, came))
            }
        };
        let content = opened.map_err(|error| named.failed(error))?;
        Ok(StreamReader { content, remaining, named })
    }

    pub(super) fn remaining(&self) -> u64 {
        self.remaining
    }

    pub(super) fn named(&self) -> &Named {
        &self.named
    }

    /// The next content: `bytes`, or all that remains.
    pub(super) fn step(&mut self, bytes: usize) -> Result<Bytes, StoreError> {
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes);
        let mut buffer = vec![0; wanted];
        self.content.read_exact(&mut buffer).map_err(|error| self.named.failed(error))?;
        self.remaining -= wanted as u64;
        if self.remaining == 0 {
            self.check_end()?;
        }
        Ok(buffer.into())
    }

    /// Requires that nothing follows.
    fn check_end(&mut self) -> Result<(), StoreError> {
        match self.content.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.named.corrupt("did not read EOF at expected Fragment.End".to_owned())),
            Err(error) => Err(self.named.failed(error)),
        }
    }
}

/// How the content of `object` is to be decompressed. Some stores decompress what is theirs to decompress, some do not,
/// and what is between may: what came says which it is (journal protocol §17, R18).
fn as_it_came(codec: Codec, object: GetResult, patience: Patience) -> io::Result<(Codec, Came)> {
    let is_gzip = object.attributes.get(&Attribute::ContentEncoding).is_some_and(|value| &**value == "gzip");
    let mut source = Stored::new(object, patience);
    let mut head = Vec::new();
    let mut came = codec;
    if codec == Codec::GzipOffload && !is_gzip {
        source.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut head)?;
        if head != GZIP_MAGIC {
            came = Codec::None;
        }
    }
    Ok((came, Cursor::new(head).chain(source)))
}
