//! An application for tests: counts messages by key, publishes each new count, and fails when it is told to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use client::{OpFuture, Publisher};
use consumer::{Application, Consumed, JsonFileStore, Shard};
use message::mapping::Target;
use message::{Envelope, Flags, Framing, Uuid};
use proto::JournalName;
use proto::protocol::JournalSpec;
use recoverylog::Recorder;
use runtime::BoxError;
use serde::{Deserialize, Serialize};

/// Where counts are published.
pub const COUNTS: &str = "test/counts";

/// A key to be counted; or, as it is published, its count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Count {
    pub uuid: Uuid,
    pub key: String,
    pub count: u64,
}

impl Count {
    pub fn of(key: &str) -> Count {
        Count { key: key.to_owned(), ..Count::default() }
    }
}

message::json_message!(Count);

/// How often each part of the application is still to fail.
#[derive(Default)]
pub struct Failures {
    pub new_store: AtomicUsize,
    pub consume: AtomicUsize,
    pub panic: AtomicUsize,
}

fn takes_one(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// What the framework has called.
#[derive(Default)]
pub struct Calls {
    pub begun: AtomicUsize,
    pub finished: AtomicUsize,
    pub deferred: AtomicUsize,
    /// Messages of the running transaction.
    pub consumed: AtomicUsize,
    /// Messages which were counted, again included.
    pub total: AtomicUsize,
}

/// A key which opens a transaction.
pub const OPENS: &str = "opens";

/// The application.
#[derive(Clone, Default)]
pub struct Counter {
    pub failures: Arc<Failures>,
    pub calls: Arc<Calls>,
}

impl Application for Counter {
    type Message = Count;
    type Store = JsonFileStore<BTreeMap<String, u64>>;

    async fn new_store(&self, shard: &Shard, recorder: Option<Recorder>) -> Result<Self::Store, BoxError> {
        if takes_one(&self.failures.new_store) {
            return Err("told to fail".into());
        }
        Ok(JsonFileStore::open(recorder, shard.tasks()).await?)
    }

    fn new_message(&self, _: &JournalSpec) -> Result<Count, BoxError> {
        Ok(Count::default())
    }

    async fn consume_message(
        &self,
        _: &Shard,
        store: &mut Self::Store,
        envelope: &Envelope<Count>,
        publisher: &mut Publisher,
    ) -> Result<Consumed, BoxError> {
        if takes_one(&self.failures.consume) {
            return Err("told to fail".into());
        }
        assert!(!takes_one(&self.failures.panic), "told to panic");
        let message = &envelope.message;
        if message.key == OPENS && self.calls.consumed.load(Ordering::Relaxed) > 0 {
            self.calls.deferred.fetch_add(1, Ordering::Relaxed);
            return Ok(Consumed::Defer);
        }
        self.calls.consumed.fetch_add(1, Ordering::Relaxed);
        if message.uuid.flags() != Flags::ACK_TXN {
            self.calls.total.fetch_add(1, Ordering::Relaxed);
            let count = store.state.entry(message.key.clone()).or_default();
            *count += 1;
            let target = Target { journal: JournalName::parse(COUNTS)?, framing: Framing::Json };
            publisher.publish_uncommitted(|_| Ok(target), Count { count: *count, ..message.clone() })?;
        }
        Ok(Consumed::Done)
    }

    async fn begin_txn(&self, _: &Shard, _: &mut Self::Store) -> Result<(), BoxError> {
        self.calls.begun.fetch_add(1, Ordering::Relaxed);
        self.calls.consumed.store(0, Ordering::Relaxed);
        Ok(())
    }

    async fn finished_txn(&self, _: &Shard, _: &mut Self::Store, _: OpFuture) {
        self.calls.finished.fetch_add(1, Ordering::Relaxed);
    }

    async fn finalize_txn(&self, _: &Shard, _: &mut Self::Store, _: &mut Publisher) -> Result<(), BoxError> {
        Ok(())
    }
}
