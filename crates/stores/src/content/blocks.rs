//! Content which is decompressed block by block, as the object's index says.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use fragment::Codec;
use fragment::compress::{SeekIndex, decode_block};
use object_store::GetResult;

use super::source::{Named, Patience, Stored};
use crate::StoreError;

/// Reads blocks, each of which must be exactly what the index says.
pub(super) struct BlockReader {
    codec: Codec,
    source: Stored,
    index: Arc<SeekIndex>,
    /// Number of the next block.
    next: usize,
    /// Content to come, bytes.
    remaining: u64,
    named: Named,
}

impl BlockReader {
    /// A reader of the blocks from number `next` on, with which `object` begins, and which hold `remaining` bytes.
    pub(super) fn new(
        codec: Codec,
        object: GetResult,
        (index, next): (Arc<SeekIndex>, usize),
        remaining: u64,
        named: Named,
        patience: Patience,
    ) -> BlockReader {
        BlockReader { codec, source: Stored::new(object, patience), index, next, remaining, named }
    }

    pub(super) fn remaining(&self) -> u64 {
        self.remaining
    }

    pub(super) fn named(&self) -> &Named {
        &self.named
    }

    /// The content of the next block which has any.
    pub(super) fn step(&mut self) -> Result<Bytes, StoreError> {
        while let Some(block) = self.index.block(self.next) {
            let bytes = |range: &std::ops::Range<u64>| {
                usize::try_from(range.end - range.start).expect("an index of longer blocks is not used")
            };
            let mut stored = vec![0; bytes(&block.stored)];
            self.source.read_exact(&mut stored).map_err(|error| self.named.failed(error))?;
            let content = decode_block(self.codec, &stored, bytes(&block.content))
                .map_err(|error| self.named.corrupt(format!("block {}: {error}", block.number)))?;
            self.next += 1;
            self.remaining -= content.len() as u64;
            if !content.is_empty() {
                return Ok(content.into());
            }
        }
        Ok(Bytes::new())
    }
}
