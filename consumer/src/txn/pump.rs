//! Reads the sources of a shard ahead of its loop: one task per source, which reads, decodes, and hands over batches.
//!
//! What is read ahead is bounded by messages (the specification's `read_channel_size`) and by bytes. Order within a
//! source is kept; between sources it is that of arrival. A source which cannot be read ends the loop with its error.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use client::{IterError, JournalClient, NewMessage, UncommittedReader};
use futures::FutureExt;
use message::{Envelope, Message};
use proto::consumer::{Checkpoint, ShardSpec};
use proto::protocol::ReadRequest;
use runtime::{BoxError, OnError, TaskGroup, panic_text};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Journal bytes of messages which a shard reads ahead. A single larger message is read all the same.
const READ_AHEAD_BYTES_MAX: u32 = 16 << 20;
/// Messages which a shard reads ahead, unless its specification says otherwise.
const READ_AHEAD_MESSAGES: u32 = 8192;
/// Messages of one batch at most.
const BATCH_MESSAGES_MAX: usize = 512;
/// Journal bytes of one batch, beyond which it takes no further message.
const BATCH_BYTES: i64 = 256 << 10;
/// Batches which wait at most; what bounds them is their messages.
const BATCHES_MAX: usize = 64;

/// What the sources bring next.
pub enum Incoming<M> {
    /// A message.
    Envelope(Envelope<M>),
    /// A source failed.
    Failed(BoxError),
}

struct Batch<M> {
    envelopes: Vec<Envelope<M>>,
    /// What the batch takes of the bounds.
    permits: Permits,
}

struct Permits {
    _messages: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// The write head of each source, as of the last read. Shared between the pumps and the loop.
#[derive(Clone, Default)]
pub struct WriteHeads(Arc<BTreeMap<String, AtomicI64>>);

impl WriteHeads {
    fn new(spec: &ShardSpec) -> WriteHeads {
        let heads = spec.sources.iter().map(|source| (source.journal.clone(), AtomicI64::new(0)));
        WriteHeads(Arc::new(heads.collect()))
    }

    /// The end of a journal; zero if it is not known.
    pub fn of(&self, journal: &str) -> i64 {
        self.0.get(journal).map_or(0, |head| head.load(Ordering::Relaxed))
    }

    fn set(&self, journal: &str, head: i64) {
        if let Some(known) = self.0.get(journal) {
            known.store(head, Ordering::Relaxed);
        }
    }
}

/// The messages of all sources of a shard.
pub struct Sources<M> {
    batches: mpsc::Receiver<Result<Batch<M>, BoxError>>,
    current: std::vec::IntoIter<Envelope<M>>,
    permits: Option<Permits>,
    /// Keeps a shard without sources waiting.
    _open: mpsc::Sender<Result<Batch<M>, BoxError>>,
    write_heads: WriteHeads,
}

/// One source's task.
struct Pump<M> {
    reader: UncommittedReader<M>,
    batches: mpsc::Sender<Result<Batch<M>, BoxError>>,
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    messages_max: usize,
    write_heads: WriteHeads,
}

impl<M: Message> Sources<M> {
    /// Starts to read the sources of `spec` from where `checkpoint` has read through, in tasks of `tasks`.
    pub fn start(
        client: &JournalClient,
        spec: &ShardSpec,
        checkpoint: &Checkpoint,
        new_message: &NewMessage<M>,
        tasks: &TaskGroup,
    ) -> Sources<M> {
        let ahead = if spec.read_channel_size == 0 { READ_AHEAD_MESSAGES } else { spec.read_channel_size };
        let messages = Arc::new(Semaphore::new(ahead as usize));
        let bytes = Arc::new(Semaphore::new(READ_AHEAD_BYTES_MAX as usize));
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let write_heads = WriteHeads::new(spec);
        for source in &spec.sources {
            let read_through = checkpoint.sources.get(&source.journal).map_or(0, |state| state.read_through);
            let request = ReadRequest {
                journal: source.journal.clone(),
                offset: read_through.max(source.min_offset),
                block: true,
                ..ReadRequest::default()
            };
            let pump = Pump {
                reader: UncommittedReader::new(client.clone(), request, Arc::clone(new_message)),
                batches: sender.clone(),
                messages: Arc::clone(&messages),
                bytes: Arc::clone(&bytes),
                messages_max: BATCH_MESSAGES_MAX.min(ahead as usize),
                write_heads: write_heads.clone(),
            };
            let (token, failed) = (tasks.token().clone(), sender.clone());
            tasks.spawn(&format!("read {}", source.journal), OnError::Log, async move {
                tokio::select! {
                    biased;
                    () = token.cancelled() => {}
                    // A panic while decoding fails the shard, which would otherwise wait for ever.
                    ran = AssertUnwindSafe(pump.run()).catch_unwind() => if let Err(panic) = ran {
                        let text = format!("panicked: {}", panic_text(&*panic));
                        drop(failed.send(Err(text.into())).await);
                    }
                }
                Ok(())
            });
        }
        let current = Vec::new().into_iter();
        Sources { batches, current, permits: None, _open: sender, write_heads }
    }

    /// Where the sources end.
    pub fn write_heads(&self) -> &WriteHeads {
        &self.write_heads
    }

    /// The next message, if one was read.
    pub fn poll(&mut self) -> Option<Incoming<M>> {
        if let Some(envelope) = self.current.next() {
            return Some(Incoming::Envelope(envelope));
        }
        self.permits = None;
        let batch = self.batches.try_recv().ok()?;
        Some(self.take(batch))
    }

    /// Waits for the next message. Cancel safe.
    pub async fn next(&mut self) -> Incoming<M> {
        if let Some(envelope) = self.current.next() {
            return Incoming::Envelope(envelope);
        }
        self.permits = None;
        let batch = self.batches.recv().await.expect("a sender is kept");
        self.take(batch)
    }

    fn take(&mut self, batch: Result<Batch<M>, BoxError>) -> Incoming<M> {
        match batch {
            Ok(Batch { envelopes, permits }) => {
                self.current = envelopes.into_iter();
                self.permits = Some(permits);
                Incoming::Envelope(self.current.next().expect("a batch holds a message"))
            }
            Err(error) => Incoming::Failed(error),
        }
    }
}

impl<M: Message> Pump<M> {
    async fn run(mut self) {
        loop {
            let sent = match self.read_batch().await {
                Ok(batch) => self.batches.send(Ok(batch)).await,
                Err(error) => {
                    drop(self.batches.send(Err(error.into())).await);
                    return;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// The next message, and those after it which are there already.
    async fn read_batch(&mut self) -> Result<Batch<M>, IterError> {
        let first = self.reader.next().await?;
        let begin = first.begin;
        let mut end = first.end;
        let mut envelopes = vec![first];
        while envelopes.len() < self.messages_max && end - begin < BATCH_BYTES {
            match self.reader.next().now_or_never() {
                Some(Ok(envelope)) => {
                    end = envelope.end;
                    envelopes.push(envelope);
                }
                // A source which fails does so again when it is asked for the next batch, or goes on behind the failure:
                // either way the messages before it count.
                Some(Err(error)) => return self.fail_behind(envelopes, error).await,
                None => break,
            }
        }
        Ok(self.batch(envelopes, end - begin).await)
    }

    /// Hands over what was read before a failure, and then fails.
    async fn fail_behind(
        &mut self,
        envelopes: Vec<Envelope<M>>,
        error: IterError,
    ) -> Result<Batch<M>, IterError> {
        let bytes = envelopes.iter().map(|envelope| envelope.end - envelope.begin).sum();
        let batch = self.batch(envelopes, bytes).await;
        drop(self.batches.send(Ok(batch)).await);
        Err(error)
    }

    async fn batch(&self, envelopes: Vec<Envelope<M>>, bytes: i64) -> Batch<M> {
        self.write_heads.set(self.reader.journal(), self.reader.write_head());
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(READ_AHEAD_BYTES_MAX);
        let messages = u32::try_from(envelopes.len()).expect("a batch is small");
        let never_closed = "the semaphores are never closed";
        let messages = Arc::clone(&self.messages).acquire_many_owned(messages).await.expect(never_closed);
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await.expect(never_closed);
        Batch { envelopes, permits: Permits { _messages: messages, _bytes: bytes } }
    }
}
