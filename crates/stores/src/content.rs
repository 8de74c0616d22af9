//! Reading the content of a stored fragment from any offset on.
//!
//! What is not compressed is entered by a range request. A compressed object is entered at a block, if its end has an index
//! ([`fragment::compress::SeekIndex`]): one request for the end, of which the store remembers what it said, and one from the
//! block on. A file of gzip without an index is searched for the members that some writers make of batches
//! ([`fragment::compress::gzip_members`]). Other objects are decompressed from the beginning, and what is on the way to the
//! offset is passed over. The store remembers where objects can be entered ([`fragment::compress::Entry`]), so that the next
//! read begins near its offset. What an index turns out to be wrong about is read from the beginning, too.
//!
//! What is read from the fragment's beginning is checked against its length and its SHA-1, and the last step of it is held
//! back until the check has passed, so that a corrupt fragment cannot be mistaken for a complete one. What begins deep in a
//! fragment is checked by the checksums of its format, and for its length.
//!
//! Reading and decompressing happen on blocking threads ([`pipeline`]), in steps which a reader's demand starts: a slow
//! reader holds no thread.

mod blocks;
mod pipeline;
mod source;
mod stream;

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use fragment::compress::{
    BLOCK_BYTES, Block, ENTRY_SPACING_BYTES, Entry, Noting, SeekIndex, TAIL_BYTES, Tail, gzip_members,
};
use fragment::{Codec, Fragment};
use futures::stream::BoxStream;
use futures::{FutureExt, TryFutureExt};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt,
};

use self::blocks::BlockReader;
use self::pipeline::{Pipeline, Reader};
use self::source::{Named, Patience, Stored};
use self::stream::{Start, StreamReader, Wanted};
use crate::StoreError;
use crate::error::PlaceError;
use crate::index_cache::{End, Known, Version};
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

/// Where an object is entered in the middle.
enum Way {
    Block(Arc<SeekIndex>, Block),
    Entry(Entry),
}

impl Way {
    /// What is to be read of the object.
    fn range(&self) -> GetRange {
        match self {
            Way::Block(index, block) => GetRange::Bounded(block.stored.start..index.stored_end()),
            Way::Entry(entry) => GetRange::Offset(entry.stored),
        }
    }
}

impl Opening {
    async fn open(self) -> Result<ContentStream, StoreError> {
        if self.fragment.codec == Codec::None && self.skip > 0 {
            return self.read_plain().await;
        }
        // The first block, and all of a small fragment, is read from the beginning, which checks more.
        if self.skip < BLOCK_BYTES as u64 {
            return self.read_whole().await;
        }
        match self.read_from_middle().await? {
            Some(content) => Ok(content),
            None => self.pass_to_offset().await,
        }
    }

    /// From the beginning, of which what comes before the offset is dropped after it was checked.
    async fn read_whole(&self) -> Result<ContentStream, StoreError> {
        let object = self.get(None).await?;
        let reader = self.stream_reader(object, Start::Beginning(self.noting()), 0).await?;
        self.started(Pipeline::checked(reader, self.skip, self.fragment.sum)).await
    }

    /// From the beginning to the offset without a check, and on from there.
    async fn pass_to_offset(&self) -> Result<ContentStream, StoreError> {
        let object = self.get(None).await?;
        let reader = self.stream_reader(object, Start::Beginning(self.noting()), self.skip).await?;
        self.started(Pipeline::new(reader, 0)).await
    }

    /// From the offset, of content which is not compressed.
    async fn read_plain(&self) -> Result<ContentStream, StoreError> {
        let object = self.get(Some(GetRange::Offset(self.skip))).await?;
        let reader = self.stream_reader(object, Start::Plain(self.skip), self.skip).await?;
        self.started(Pipeline::new(reader, 0)).await
    }

    /// From a place near the offset; none if nothing is known of such a place, or it is wrong.
    async fn read_from_middle(&self) -> Result<Option<ContentStream>, StoreError> {
        let Some((way, object)) = self.enter().await? else { return Ok(None) };
        let pipeline = match way {
            Way::Block(index, block) => {
                let (named, patience) = (self.named.clone(), Patience::of(&self.shared));
                let (codec, blocks) = (self.fragment.codec, (index, &block));
                let reader = BlockReader::new(codec, object, blocks, self.length, named, patience);
                Pipeline::new(Reader::Blocks(reader), self.skip - block.content.start)
            }
            Way::Entry(entry) => {
                let reader = self.stream_reader(object, Start::Entry(entry), self.skip).await?;
                Pipeline::new(reader, 0)
            }
        };
        match self.started(pipeline).await {
            Ok(content) => Ok(Some(content)),
            // Either the object is corrupt or what is known of it: reading from the beginning tells.
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::warn!(%error, "an index is not used, as the object is not what it says");
                self.shared.indexes.forget(&self.named.path);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The object from a place near the offset on. It may have been written anew, with other such places or shorter, since they
    /// became known.
    async fn enter(&self) -> Result<Option<(Way, GetResult)>, StoreError> {
        for _ in 0..2 {
            let is_remembered = self.shared.indexes.get(&self.named.path).is_some();
            let Some(known) = self.known().await? else { return Ok(None) };
            let way = match &known.end {
                End::Index(index) => index.block_at(self.skip).map(|block| Way::Block(index.clone(), block)),
                End::Unread | End::Nothing => known.entry_at(self.skip).cloned().map(Way::Entry),
            };
            let Some(way) = way else { return Ok(None) };
            match self.get(Some(way.range())).await {
                Ok(object) if known.version == Version::of(&object.meta) => return Ok(Some((way, object))),
                Ok(_) => self.shared.indexes.forget(&self.named.path),
                Err(error) => {
                    self.shared.indexes.forget(&self.named.path);
                    if !is_remembered || error.is_not_found() {
                        return Err(error);
                    }
                    tracing::debug!(%error, "an object is not entered where it was before");
                }
            }
        }
        Ok(None)
    }

    /// What is known of where the object can be entered. Its end is read if that was never done, and may tell.
    async fn known(&self) -> Result<Option<Arc<Known>>, StoreError> {
        let path = &self.named.path;
        let known = self.shared.indexes.get(path);
        let may_have_index = self.fragment.codec != Codec::GzipOffload;
        if !may_have_index || known.as_ref().is_some_and(|known| !matches!(known.end, End::Unread)) {
            return Ok(known);
        }
        let mut ending = self.get_end(TAIL_BYTES).await?;
        let read = |ending: &Ending| {
            SeekIndex::read(self.fragment.codec, &ending.bytes, ending.meta.size, self.length)
        };
        let mut tail = read(&ending);
        if let Tail::Longer(bytes) = tail {
            ending = self.get_end(bytes).await?;
            tail = read(&ending);
        }
        let version = Version::of(&ending.meta);
        let end = match tail {
            Tail::Index(index) => End::Index(Arc::new(index)),
            Tail::Longer(_) | Tail::Nothing => {
                let entries = self.search(ending).await?;
                self.shared.indexes.learn_entries(path, &version, entries);
                End::Nothing
            }
        };
        Ok(Some(self.shared.indexes.learn_end(path, &version, end)))
    }

    /// Where an object without an index can be entered, if that can be found out for less than decompressing it.
    async fn search(&self, ending: Ending) -> Result<Vec<Entry>, StoreError> {
        let (Codec::Gzip, Some(file)) = (self.fragment.codec, ending.file) else { return Ok(Vec::new()) };
        let (stored, length) = (Stored::File { file, at: 0, end: ending.meta.size }, self.length);
        let searched =
            self.shared.tasks.spawn_blocking("search fragment", move || gzip_members(stored, length));
        searched.await.map_err(|error| self.named.failed(error))
    }

    /// What is worth noting of an object that is read from its beginning: that costs nothing, or it has no index.
    fn noting(&self) -> Noting {
        let has_no_index = || {
            let known = self.shared.indexes.get(&self.named.path);
            known.is_some_and(|known| matches!(known.end, End::Nothing))
        };
        let is_long = self.length > ENTRY_SPACING_BYTES;
        if is_long && (self.fragment.codec == Codec::GzipOffload || has_no_index()) {
            Noting::Everywhere
        } else {
            Noting::Beginnings
        }
    }

    /// The last `bytes` bytes of the object, or all of it.
    async fn get_end(&self, bytes: u64) -> Result<Ending, StoreError> {
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

    /// A reader of `object` which gives content from `from` on.
    async fn stream_reader(&self, object: GetResult, start: Start, from: u64) -> Result<Reader, StoreError> {
        let (codec, length, named) = (self.fragment.codec, self.length, self.named.clone());
        if codec == Codec::None && object.meta.size != length {
            let problem = format!("the object has {} bytes (expected {length})", object.meta.size);
            return Err(named.corrupt(problem));
        }
        let (patience, indexes) = (Patience::of(&self.shared), self.shared.indexes.clone());
        let wanted = Wanted { from, length };
        // What came is looked at first.
        let opening = move || StreamReader::new(codec, object, (start, wanted), indexes, named, patience);
        Ok(Reader::Stream(self.shared.tasks.spawn_blocking("open fragment", opening).await?))
    }

    async fn started(&self, mut pipeline: Pipeline) -> Result<ContentStream, StoreError> {
        pipeline.fill(&self.shared.tasks).await?;
        Ok(pipeline.into_stream(self.shared.tasks.clone()))
    }
}

/// The end of an object.
struct Ending {
    meta: ObjectMeta,
    bytes: Bytes,
    /// The whole object, where the store has it as a file.
    file: Option<File>,
}

/// The last `bytes` bytes of an object, or all of it, in one request where the store can.
async fn end_of(objects: &dyn ObjectStore, path: &Path, bytes: u64) -> Result<Ending, PlaceError> {
    let options = |range| GetOptions { range: Some(range), ..GetOptions::default() };
    let object = match objects.get_opts(path, options(GetRange::Suffix(bytes))).await {
        Err(Error::NotSupported { .. }) => {
            let size = objects.head(path).await?.size;
            let range: Range<u64> = size.saturating_sub(bytes)..size;
            objects.get_opts(path, options(GetRange::Bounded(range))).await?
        }
        object => object?,
    };
    let file = match &object.payload {
        GetResultPayload::File(file, _) => Some(file.try_clone().map_err(PlaceError::Io)?),
        GetResultPayload::Stream(_) => None,
    };
    let meta = object.meta.clone();
    Ok(Ending { meta, bytes: object.bytes().map_err(PlaceError::from).await?, file })
}

#[cfg(test)]
mod tests;
