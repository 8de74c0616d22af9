//! The bytes of an object, to be read on a blocking thread.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use fragment::compress::SkipRead;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::{GetResult, GetResultPayload};
use runtime::{Clock, Elapsed};
use tokio::runtime::Handle;

use crate::StoreError;
use crate::error::PlaceError;
use crate::operation::Operation;
use crate::store::Shared;

/// How long a store may take to give the next bytes of an object.
#[derive(Clone)]
pub(super) struct Patience {
    clock: Clock,
    limit: Duration,
}

impl Patience {
    pub(super) fn of(store: &Shared) -> Patience {
        Patience { clock: store.clock.clone(), limit: store.times.next_bytes }
    }
}

/// What errors name.
#[derive(Clone)]
pub(super) struct Named {
    pub(super) store: Arc<str>,
    pub(super) path: String,
}

impl Named {
    pub(super) fn corrupt(&self, problem: String) -> StoreError {
        StoreError::Corrupt { store: self.store.clone(), path: self.path.clone(), problem }
    }

    /// Tells what the store said from what the decompressor did.
    pub(super) fn failed(&self, error: io::Error) -> StoreError {
        let is_of_store =
            error.get_ref().is_some_and(|inner| inner.is::<SourceError>()) || error.raw_os_error().is_some();
        if is_of_store {
            return PlaceError::Io(error).of(Operation::Get, &self.store, &self.path);
        }
        self.corrupt(match error.kind() {
            io::ErrorKind::UnexpectedEof => "unexpected EOF before the fragment's end".to_owned(),
            _ => error.to_string(),
        })
    }
}

/// The bytes of an object did not come.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error(transparent)]
    Objects(#[from] object_store::Error),
    #[error("no bytes within {0:?}")]
    TimedOut(Duration),
}

/// What was asked for of an object.
pub(super) enum Stored {
    File {
        file: File,
        at: u64,
        end: u64,
    },
    Stream {
        stream: BoxStream<'static, object_store::Result<Bytes>>,
        ready: Bytes,
        patience: Patience,
        handle: Handle,
    },
}

impl Stored {
    /// To be made within the runtime.
    pub(super) fn new(object: GetResult, patience: Patience) -> Stored {
        let GetResult { payload, range, .. } = object;
        match payload {
            GetResultPayload::File(file, _) => Stored::File { file, at: range.start, end: range.end },
            GetResultPayload::Stream(stream) => {
                Stored::Stream { stream, ready: Bytes::new(), patience, handle: Handle::current() }
            }
        }
    }
}

impl Stored {
    /// The next `bytes` bytes, or all there are, which stay to be read.
    pub(super) fn peek(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        match self {
            Stored::File { at, .. } => {
                let (begin, mut head) = (*at, Vec::new());
                let outcome = self.by_ref().take(bytes as u64).read_to_end(&mut head);
                if let Stored::File { at, .. } = self {
                    *at = begin;
                }
                outcome.map(|_| head)
            }
            Stored::Stream { stream, ready, patience, handle } => {
                while ready.len() < bytes {
                    let more = next_bytes(stream, patience, handle)?;
                    if more.is_empty() {
                        break;
                    }
                    *ready = [&ready[..], &more].concat().into();
                }
                Ok(ready[..bytes.min(ready.len())].to_vec())
            }
        }
    }
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stored::File { file, at, end } => {
                let wanted = buffer.len().min(usize::try_from(end.saturating_sub(*at)).unwrap_or(usize::MAX));
                let read = file.read_at(&mut buffer[..wanted], *at)?;
                *at += read as u64;
                Ok(read)
            }
            Stored::Stream { stream, ready, patience, handle } => {
                if ready.is_empty() {
                    *ready = next_bytes(stream, patience, handle)?;
                }
                let read = buffer.len().min(ready.len());
                ready.copy_to_slice(&mut buffer[..read]);
                Ok(read)
            }
        }
    }
}

impl SkipRead for Stored {
    fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        match self {
            Stored::File { at, .. } => *at = at.saturating_add(bytes),
            Stored::Stream { stream, ready, patience, handle } => {
                while bytes > 0 {
                    if ready.is_empty() {
                        *ready = next_bytes(stream, patience, handle)?;
                    }
                    if ready.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    let skipped = usize::try_from(bytes).unwrap_or(usize::MAX).min(ready.len());
                    ready.advance(skipped);
                    bytes -= skipped as u64;
                }
            }
        }
        Ok(())
    }
}

/// Bytes which came; none at the end.
fn next_bytes(
    stream: &mut BoxStream<'static, object_store::Result<Bytes>>,
    Patience { clock, limit }: &Patience,
    handle: &Handle,
) -> io::Result<Bytes> {
    loop {
        match handle.block_on(clock.timeout(*limit, stream.next())) {
            Ok(Some(Ok(bytes))) if bytes.is_empty() => {}
            Ok(Some(Ok(bytes))) => return Ok(bytes),
            Ok(Some(Err(error))) => return Err(io::Error::other(SourceError::Objects(error))),
            Ok(None) => return Ok(Bytes::new()),
            Err(Elapsed) => return Err(io::Error::other(SourceError::TimedOut(*limit))),
        }
    }
}
