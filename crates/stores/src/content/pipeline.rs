//! Steps of reading, a step ahead of whoever reads.
//!
//! Each step runs on a blocking thread and ends: nothing waits there for a slow reader. While a step's content is being
//! taken, the next one is read and decompressed, and another thread hashes what was read before. A stream so holds at
//! most [`STEPS_HELD`] steps: what is being taken, and what comes next. A step is [`STEP_BYTES`] of content or a block,
//! which is as long unless others wrote the object ([`fragment::compress::BLOCK_CONTENT_BYTES_MAX`]).

use bytes::{Buf, Bytes};
use fragment::Sum;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use runtime::TaskGroup;
use sha1::{Digest, Sha1};

use super::ContentStream;
use super::blocks::BlockReader;
use super::stream::StreamReader;
use crate::StoreError;

/// Bytes of content per chunk.
pub const CONTENT_CHUNK_BYTES: usize = 256 << 10;
/// Bytes of content which are read and decompressed at a time.
pub const STEP_BYTES: usize = 1 << 20;
/// Bytes of the first step: many readers want no more.
const FIRST_STEP_BYTES: usize = CONTENT_CHUNK_BYTES;
/// Steps after which the next one is read ahead: by then the reader is not one that wants little.
const STEPS_BEFORE_AHEAD: usize = 2;

/// How content is made of what is stored.
pub(super) enum Reader {
    Stream(StreamReader),
    Blocks(BlockReader),
}

impl Reader {
    /// Content that is still to come, bytes.
    pub(super) fn remaining(&self) -> u64 {
        match self {
            Reader::Stream(reader) => reader.remaining(),
            Reader::Blocks(reader) => reader.remaining(),
        }
    }

    /// The next content: up to `bytes`, or the next block. None of it if content was passed over instead. With the last of it,
    /// it has been seen that nothing follows.
    fn step(&mut self, bytes: usize) -> Result<Bytes, StoreError> {
        match self {
            Reader::Stream(reader) => reader.step(bytes),
            Reader::Blocks(reader) => reader.step(),
        }
    }

    fn corrupt(&self, problem: String) -> StoreError {
        match self {
            Reader::Stream(reader) => reader.named().corrupt(problem),
            Reader::Blocks(reader) => reader.named().corrupt(problem),
        }
    }
}

type Step = (Result<Bytes, StoreError>, Reader);

/// The content of one fragment on its way to its reader.
pub(super) struct Pipeline {
    next: Next,
    steps: usize,
    /// Content to be dropped, bytes.
    skip: u64,
    /// Content of the last step that was not taken yet.
    ready: Bytes,
    check: Option<Check>,
}

enum Next {
    /// Nobody reads.
    Idle(Reader),
    /// A thread does, or has.
    Ahead(BoxFuture<'static, Step>),
    End,
}

/// The hash of all content so far, and what it is to be.
struct Check {
    hasher: BoxFuture<'static, Sha1>,
    expected: Sum,
}

impl Pipeline {
    /// The content of `reader` without its first `skip` bytes.
    pub(super) fn new(reader: Reader, skip: u64) -> Pipeline {
        Pipeline { next: Next::Idle(reader), steps: 0, skip, ready: Bytes::new(), check: None }
    }

    /// The same, whose last step is held back until all content was found to have the sum `expected`.
    pub(super) fn checked(reader: Reader, skip: u64, expected: Sum) -> Pipeline {
        let hasher = futures::future::ready(Sha1::new()).boxed();
        Pipeline { check: Some(Check { hasher, expected }), ..Pipeline::new(reader, skip) }
    }

    pub(super) fn into_stream(self, tasks: TaskGroup) -> ContentStream {
        let chunks = stream::try_unfold((self, tasks), |(mut pipeline, tasks)| async move {
            pipeline.fill(&tasks).await?;
            let bytes = pipeline.ready.len().min(CONTENT_CHUNK_BYTES);
            let chunk = pipeline.ready.split_to(bytes);
            Ok((!chunk.is_empty()).then_some((chunk, (pipeline, tasks))))
        });
        chunks.boxed()
    }

    /// Awaits content, unless some is ready or none is to come.
    pub(super) async fn fill(&mut self, tasks: &TaskGroup) -> Result<(), StoreError> {
        while self.ready.is_empty() && !matches!(self.next, Next::End) {
            self.step(tasks).await?;
        }
        Ok(())
    }

    /// Awaits a step, and begins the next one.
    async fn step(&mut self, tasks: &TaskGroup) -> Result<(), StoreError> {
        let step = match std::mem::replace(&mut self.next, Next::End) {
            Next::Idle(reader) if self.steps == 0 => start(tasks, reader, FIRST_STEP_BYTES),
            Next::Idle(reader) => start(tasks, reader, STEP_BYTES),
            Next::Ahead(step) => step,
            Next::End => return Ok(()),
        };
        let (content, reader) = step.await;
        let mut content = content?;
        if content.is_empty() && reader.remaining() > 0 {
            self.next = Next::Idle(reader);
            return Ok(());
        }
        self.steps += 1;
        self.hash(tasks, &content).await;
        if reader.remaining() == 0 {
            self.check().await.map_err(|problem| reader.corrupt(problem))?;
        } else if self.steps < STEPS_BEFORE_AHEAD {
            self.next = Next::Idle(reader);
        } else {
            self.next = Next::Ahead(start(tasks, reader, STEP_BYTES));
        }
        let dropped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(content.len());
        content.advance(dropped);
        self.skip -= dropped as u64;
        self.ready = content;
        Ok(())
    }

    /// Begins to hash `content`, once what was before it has been.
    async fn hash(&mut self, tasks: &TaskGroup, content: &Bytes) {
        let Some(check) = &mut self.check else { return };
        let mut hasher = (&mut check.hasher).await;
        let content = content.clone();
        let hash = move || {
            hasher.update(&content);
            hasher
        };
        check.hasher = tasks.spawn_blocking("hash fragment", hash).boxed();
    }

    /// Requires that all content has the sum that it should; the error says what was found.
    async fn check(&mut self) -> Result<(), String> {
        let Some(Check { hasher, expected }) = self.check.take() else { return Ok(()) };
        let found = Sum::finish(hasher.await);
        if found == expected {
            return Ok(());
        }
        Err(format!("its content has SHA-1 {found} (expected {expected})"))
    }
}

fn start(tasks: &TaskGroup, mut reader: Reader, bytes: usize) -> BoxFuture<'static, Step> {
    tasks.spawn_blocking("read fragment", move || (reader.step(bytes), reader)).boxed()
}
