//! Reading a file block by block, as its index says.

use std::io::{self, Cursor, Read};
use std::sync::Arc;

use super::blocks::decode_block;
use super::seek_index::SeekIndex;
use super::wrong;
use crate::Codec;

/// Reads blocks, each of which must be exactly what the index says. Memory: a block, as it is stored and its content.
pub struct BlockReader<R> {
    codec: Codec,
    inner: R,
    index: Arc<SeekIndex>,
    /// Number of the next block.
    next: usize,
    /// Content of the last one.
    block: Cursor<Vec<u8>>,
}

impl<R: Read> BlockReader<R> {
    /// A reader of the blocks from number `next` on, with which `inner` begins.
    pub fn new(codec: Codec, inner: R, index: Arc<SeekIndex>, next: usize) -> BlockReader<R> {
        BlockReader { codec, inner, index, next, block: Cursor::default() }
    }

    /// The content of the next block which has any, empty after the last one. Not to be mixed with reads.
    pub fn next_block(&mut self) -> io::Result<Vec<u8>> {
        while let Some(block) = self.index.block(self.next) {
            let bytes = |range: &std::ops::Range<u64>| {
                usize::try_from(range.end - range.start).expect("an index of longer blocks is not used")
            };
            let mut stored = vec![0; bytes(&block.stored)];
            self.inner.read_exact(&mut stored)?;
            let content = decode_block(self.codec, &stored, bytes(&block.content))
                .map_err(|error| wrong(format!("block {}: {error}", block.number)))?;
            self.next += 1;
            if !content.is_empty() {
                return Ok(content);
            }
        }
        Ok(Vec::new())
    }
}

impl<R: Read> Read for BlockReader<R> {
    fn read(&mut self, content: &mut [u8]) -> io::Result<usize> {
        if self.block.position() == self.block.get_ref().len() as u64 {
            self.block = Cursor::new(self.next_block()?);
        }
        self.block.read(content)
    }
}
