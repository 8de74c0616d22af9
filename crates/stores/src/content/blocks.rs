//! Content which is decompressed block by block, as the object's index says.

use std::sync::Arc;

use bytes::Bytes;
use fragment::Codec;
use fragment::compress::{self, Block, SeekIndex};
use object_store::GetResult;

use super::source::{Named, Patience, Stored};
use crate::StoreError;

/// Reads blocks, each of which must be exactly what the index says.
pub(super) struct BlockReader {
    content: compress::BlockReader<Stored>,
    /// Content to come, bytes.
    remaining: u64,
    named: Named,
}

impl BlockReader {
    /// A reader of content of `length` bytes from `block` on, with which `object` begins.
    pub(super) fn new(
        codec: Codec,
        object: GetResult,
        (index, block): (Arc<SeekIndex>, &Block),
        length: u64,
        named: Named,
        patience: Patience,
    ) -> BlockReader {
        let content = compress::BlockReader::new(codec, Stored::new(object, patience), index, block.number);
        BlockReader { content, remaining: length - block.content.start, named }
    }

    pub(super) fn remaining(&self) -> u64 {
        self.remaining
    }

    pub(super) fn named(&self) -> &Named {
        &self.named
    }

    /// The content of the next block which has any.
    pub(super) fn step(&mut self) -> Result<Bytes, StoreError> {
        let content = self.content.next_block().map_err(|error| self.named.failed(error))?;
        self.remaining -= content.len() as u64;
        Ok(content.into())
    }
}
