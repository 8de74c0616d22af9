//! Reading the content of a stored fragment from any offset on.
//!
//! What is not compressed is entered by a range request. A compressed object is entered at a block, if its end has an index
//! ([`fragment::compress::SeekIndex`]): one request for the end, of which the store remembers what it said, and one from the
//! block on. A snappy object without an index is entered by walking over its chunks, and everything else is decompressed
//! from the beginning. So is what an index turns out to be wrong about.
//!
//! What is read from the fragment's beginning is checked against its length and its SHA-1, and the last step of it is held
//! back until the check has passed, so that a corrupt fragment cannot be mistaken for a complete one. What is entered in
//! the middle is checked by the checksums of its format, and for its length.
//!
//! Reading and decompressing happen on blocking threads ([`pipeline`]), in steps which a reader's demand starts: a slow
//! reader holds no thread.

mod blocks;
mod pipeline;
mod source;
mod stream;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use fragment::compress::{BLOCK_BYTES, SeekIndex, TAIL_BYTES, Tail};
use fragment::{Codec, Fragment};
use futures::stream::BoxStream;
use futures::{FutureExt, TryFutureExt};
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt};

use self::blocks::BlockReader;
use self::pipeline::{Pipeline, Reader};
use self::source::{Named, Patience};
use self::stream::{Entry, StreamReader};
use crate::StoreError;
use crate::error::PlaceError;
use crate::index_cache::KnownIndex;
use crate::operation::Operation;
use crate::store::Shared;

pub use self::pipeline::{CONTENT_CHUNK_BYTES, STEP_BYTES};

/// Content of a fragment, in order. Ends after the fragment's last byte, or with an error.
pub type ContentStream = BoxStream<'static, Result<Bytes, StoreError>>;

/// Opens `fragment` at journal offset `offset`, which is within it, and reads the first step.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    fragment: &Fragment,
    offset: i64,
) -> Result<ContentStream, StoreError> {
    let bytes = |count: i64| u64::try_from(count).expect("the offset is within the fragment");
    let (skip, length) = (bytes(offset - fragment.begin), bytes(fragment.len()));
    let named = Named { store: shared.url.clone(), path: fragment.content_path() };
    Opening { shared: shared.clone(), fragment: fragment.clone(), named, skip, length }.open().await
}

/// A fragment being opened at content byte `skip`, of `length`.
struct Opening {
    shared: Arc<Shared>,
    fragment: Fragment,
    named: Named,
    skip: u64,
    length: u64,
}

impl Opening {
    async fn open(self) -> Result<ContentStream, StoreError> {
        let codec = self.fragment.codec;
        if codec == Codec::None {
            return self.read_range().await;
        }
        // The first block, and all of a small fragment, is read from the beginning, which checks more.
        let is_deep = self.skip >= BLOCK_BYTES as u64;
        if is_deep && matches!(codec, Codec::Gzip | Codec::Zstandard | Codec::Snappy) {
            if let Some(content) = self.read_blocks().await? {
                return Ok(content);
            }
            if codec == Codec::Snappy {
                return self.walk().await;
            }
        }
        self.read_whole().await
    }

    /// From the beginning, of which what comes before the offset is dropped.
    async fn read_whole(&self) -> Result<ContentStream, StoreError> {
        let object = self.get(None).await?;
        let reader = self.stream_reader(object, Entry::Beginning, self.length).await?;
        self.started(Pipeline::checked(reader, self.skip, self.fragment.sum)).await
    }

    /// From the offset, of content which is not compressed.
    async fn read_range(&self) -> Result<ContentStream, StoreError> {
        if self.skip == 0 {
            return self.read_whole().await;
        }
        let object = self.get(Some(GetRange::Offset(self.skip))).await?;
        let reader = self.stream_reader(object, Entry::Offset, self.length - self.skip).await?;
        self.started(Pipeline::new(reader, 0)).await
    }

    /// From the chunk of the offset, found by walking over those before.
    async fn walk(&self) -> Result<ContentStream, StoreError> {
        let object = self.get(None).await?;
        let reader = self.stream_reader(object, Entry::Walk(self.skip), self.length).await?;
        let skipped = self.length - reader.remaining();
        self.started(Pipeline::new(reader, self.skip - skipped)).await
    }

    /// From the block of the offset; none if there is no index, or it is wrong.
    async fn read_blocks(&self) -> Result<Option<ContentStream>, StoreError> {
        let Some((index, object)) = self.enter().await? else { return Ok(None) };
        let Some(block) = index.block_at(self.skip) else { return Ok(None) };
        let remaining = self.length - block.content.start;
        let skip = self.skip - block.content.start;
        let reader = BlockReader::new(
            self.fragment.codec,
            object,
            (index, block.number),
            remaining,
            self.named.clone(),
            Patience::of(&self.shared),
        );
        match self.started(Pipeline::new(Reader::Blocks(reader), skip)).await {
            Ok(content) => Ok(Some(content)),
            // Either the block is corrupt or the index is: reading from the beginning tells.
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::warn!(%error, "an index is not used, as a block is not what it says");
                self.shared.indexes.forget(&self.named.path);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The index, and the object from the block of the offset to the end of the blocks. The object may have been written
    /// anew, with other blocks, since its index was read.
    async fn enter(&self) -> Result<Option<(Arc<SeekIndex>, GetResult)>, StoreError> {
        for _ in 0..2 {
            let known = self.index().await?;
            let Some(index) = &known.index else { return Ok(None) };
            let Some(block) = index.block_at(self.skip) else { return Ok(None) };
            let range = block.stored.start..index.stored_end();
            let object = self.get(Some(GetRange::Bounded(range))).await;
            match object {
                Ok(object) if known.is_of(&object.meta) => return Ok(Some((index.clone(), object))),
                Ok(_) => self.shared.indexes.forget(&self.named.path),
                Err(error) => {
                    self.shared.indexes.forget(&self.named.path);
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// What the end of the object says, now or when it was last asked.
    async fn index(&self) -> Result<Arc<KnownIndex>, StoreError> {
        let path = &self.named.path;
        if let Some(known) = self.shared.indexes.get(path) {
            return Ok(known);
        }
        let (mut meta, mut end) = self.get_end(TAIL_BYTES).await?;
        let read =
            |meta: &ObjectMeta, end: &[u8]| SeekIndex::read(self.fragment.codec, end, meta.size, self.length);
        let mut tail = read(&meta, &end);
        if let Tail::Longer(bytes) = tail {
            (meta, end) = self.get_end(bytes).await?;
            tail = read(&meta, &end);
        }
        let index = match tail {
            Tail::Index(index) => Some(Arc::new(index)),
            Tail::Longer(_) | Tail::Nothing => None,
        };
        let known = Arc::new(KnownIndex { size: meta.size, e_tag: meta.e_tag, index });
        self.shared.indexes.insert(path.clone(), known.clone());
        Ok(known)
    }

    /// The last `bytes` bytes of the object, or all of it.
    async fn get_end(&self, bytes: u64) -> Result<(ObjectMeta, Bytes), StoreError> {
        let shared = &*self.shared;
        let end = shared.attempt(Operation::Get, &self.named.path, shared.times.request, |path| {
            async move { end_of(shared.place.objects(), &path, bytes).await }.boxed()
        });
        end.await
    }

    async fn get(&self, range: Option<GetRange>) -> Result<GetResult, StoreError> {
        let shared = &*self.shared;
        let options = GetOptions { range, ..GetOptions::default() };
        let object = shared.attempt(Operation::Get, &self.named.path, shared.times.request, |path| {
            let options = options.clone();
            async move { Ok(shared.place.objects().get_opts(&path, options).await?) }.boxed()
        });
        object.await
    }

    async fn stream_reader(
        &self,
        object: GetResult,
        entry: Entry,
        remaining: u64,
    ) -> Result<Reader, StoreError> {
        let (codec, length, named) = (self.fragment.codec, self.length, self.named.clone());
        if codec == Codec::None && object.meta.size != length {
            let problem = format!("the object has {} bytes (expected {length})", object.meta.size);
            return Err(named.corrupt(problem));
        }
        let patience = Patience::of(&self.shared);
        // Decompressors read already when they are made.
        let opening = move || StreamReader::new(codec, object, entry, remaining, named, patience);
        Ok(Reader::Stream(self.shared.tasks.spawn_blocking("open fragment", opening).await?))
    }

    async fn started(&self, mut pipeline: Pipeline) -> Result<ContentStream, StoreError> {
        pipeline.fill(&self.shared.tasks).await?;
        Ok(pipeline.into_stream(self.shared.tasks.clone()))
    }
}

/// The last `bytes` bytes of an object, or all of it, in one request where the store can.
async fn end_of(
    objects: &dyn ObjectStore,
    path: &Path,
    bytes: u64,
) -> Result<(ObjectMeta, Bytes), PlaceError> {
    let options = |range| GetOptions { range: Some(range), ..GetOptions::default() };
    let object = match objects.get_opts(path, options(GetRange::Suffix(bytes))).await {
        Err(Error::NotSupported { .. }) => {
            let size = objects.head(path).await?.size;
            let range: Range<u64> = size.saturating_sub(bytes)..size;
            objects.get_opts(path, options(GetRange::Bounded(range))).await?
        }
        object => object?,
    };
    let meta = object.meta.clone();
    Ok((meta, object.bytes().map_err(PlaceError::from).await?))
}

#[cfg(test)]
mod tests;
