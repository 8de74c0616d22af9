//! The summer: folds chunks into sums, and publishes the sum of each stream that ends.
//!
//! The state of a shard is one row per stream, with its sum so far, in the store of the shard's label. Rows of streams which ended stay, so
//! that a chunk which comes again is noticed. Sums which change are kept in memory until the transaction ends, and some
//! longer, to save the next transaction from reading them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ::message::mapping::Target;
use ::message::{Envelope, Flags, Framing};
use client::{OpFuture, Publisher};
use consumer::{Application, Consumed, Shard, Store};
use proto::JournalName;
use proto::consumer::Checkpoint;
use proto::protocol::JournalSpec;
use recoverylog::Recorder;
use runtime::BoxError;

use crate::rows::{Rows, StoreKind};
use crate::{Chunk, SUMS_JOURNAL, StreamId, Sum, Updated};

/// Sums in memory beyond which they are dropped at the end of a transaction.
const CACHE_MAX: usize = 1 << 16;

/// The application.
pub struct Summer {
    sums: Target,
}

impl Default for Summer {
    fn default() -> Summer {
        let journal = JournalName::parse(SUMS_JOURNAL).expect("the name is valid");
        Summer { sums: Target { journal, framing: Framing::Json } }
    }
}

/// The state of a shard.
pub struct SummerStore {
    rows: Rows,
    cache: HashMap<StreamId, Cached>,
    /// Streams whose sums changed in the running transaction, once each.
    changed: Vec<StreamId>,
}

struct Cached {
    sum: Sum,
    /// In `changed`.
    is_changed: bool,
    /// Its last chunk came.
    has_ended: bool,
}

impl SummerStore {
    /// The sum of a stream, which changes.
    async fn change(&mut self, id: StreamId) -> Result<&mut Cached, BoxError> {
        let cached = match self.cache.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let sum = self.rows.load(id).await?.unwrap_or_else(|| Sum::of_stream(id));
                vacant.insert(Cached { sum, is_changed: false, has_ended: false })
            }
        };
        if !std::mem::replace(&mut cached.is_changed, true) {
            self.changed.push(id);
        }
        Ok(cached)
    }

    /// Writes the sums which changed into the transaction.
    async fn flush(&mut self) -> Result<(), BoxError> {
        let mut sums = Vec::with_capacity(self.changed.len());
        for id in self.changed.drain(..) {
            let cached = self.cache.get_mut(&id).expect("a changed sum is in memory");
            sums.push(cached.sum.clone());
            cached.is_changed = false;
            if cached.has_ended {
                self.cache.remove(&id);
            }
        }
        self.rows.store(sums).await?;
        if self.cache.len() > CACHE_MAX {
            self.cache.clear();
        }
        Ok(())
    }
}

impl Store for SummerStore {
    type Reader = ();

    async fn restore_checkpoint(&mut self) -> Result<Checkpoint, BoxError> {
        self.rows.restore_checkpoint().await
    }

    fn start_commit(&mut self, checkpoint: Checkpoint, wait_for: Vec<OpFuture>) -> OpFuture {
        self.rows.start_commit(checkpoint, wait_for)
    }

    fn reader(&self) {}

    fn destroy(self) {
        self.rows.destroy();
    }
}

impl Application for Summer {
    type Message = Chunk;
    type Store = SummerStore;

    fn name(&self) -> &'static str {
        "summer"
    }

    async fn new_store(&self, shard: &Shard, recorder: Option<Recorder>) -> Result<SummerStore, BoxError> {
        let kind = StoreKind::of_shard(&shard.spec())?;
        let rows = Rows::open(kind, recorder, shard.tasks()).await?;
        Ok(SummerStore { rows, cache: HashMap::new(), changed: Vec::new() })
    }

    fn new_message(&self, _source: &JournalSpec) -> Result<Chunk, BoxError> {
        Ok(Chunk::default())
    }

    async fn consume_message(
        &self,
        _shard: &Shard,
        store: &mut SummerStore,
        envelope: &Envelope<Chunk>,
        publisher: &mut Publisher,
    ) -> Result<Consumed, BoxError> {
        let chunk = &envelope.message;
        if chunk.uuid.flags() == Flags::ACK_TXN {
            return Ok(Consumed::Done);
        }
        let cached = store.change(chunk.id).await?;
        let updated = cached.sum.update(chunk).map_err(|error| {
            format!("{error} (offset {} of journal {})", envelope.begin, envelope.journal)
        })?;
        if updated == Updated::Done {
            cached.has_ended = true;
            publisher.publish_uncommitted(|_| Ok(self.sums.clone()), cached.sum.clone())?;
        }
        Ok(Consumed::Done)
    }

    async fn finalize_txn(
        &self,
        _shard: &Shard,
        store: &mut SummerStore,
        _publisher: &mut Publisher,
    ) -> Result<(), BoxError> {
        store.flush().await
    }
}
