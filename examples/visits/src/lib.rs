//! Counts the visits of pages, and publishes each new count.

use client::Publisher;
use consumer::{Application, Consumed, Shard};
use message::mapping::Target;
use message::{Envelope, Flags, Framing, Uuid};
use proto::JournalName;
use proto::protocol::JournalSpec;
use recoverylog::Recorder;
use runtime::BoxError;
use serde::{Deserialize, Serialize};
use store_rocksdb::RocksStore;

/// Where counts are published.
pub const COUNTS: &str = "guide/counts";

/// A visit of a page or, as it is published, how many there were.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Visit {
    /// Stamped by whoever publishes it.
    #[serde(rename = "UUID")]
    pub uuid: Uuid,
    /// The page.
    pub page: String,
    /// Visits so far.
    pub count: u64,
}

message::json_message!(Visit);

/// The application.
pub struct Visits;

impl Application for Visits {
    type Message = Visit;
    type Store = RocksStore;

    fn name(&self) -> &'static str {
        "visits"
    }

    async fn new_store(&self, shard: &Shard, recorder: Option<Recorder>) -> Result<RocksStore, BoxError> {
        Ok(RocksStore::open(recorder, shard.tasks(), |_| {}).await?)
    }

    fn new_message(&self, _: &JournalSpec) -> Result<Visit, BoxError> {
        Ok(Visit::default())
    }

    async fn consume_message(
        &self,
        _: &Shard,
        store: &mut RocksStore,
        envelope: &Envelope<Visit>,
        publisher: &mut Publisher,
    ) -> Result<Consumed, BoxError> {
        let visit = &envelope.message;
        if visit.uuid.flags() == Flags::ACK_TXN {
            return Ok(Consumed::Done);
        }
        let before = match store.get(&visit.page)? {
            Some(row) => u64::from_be_bytes(row.as_slice().try_into()?),
            None => 0,
        };
        let count = before + 1;
        store.put(visit.page.as_bytes(), count.to_be_bytes());

        let target = Target { journal: JournalName::parse(COUNTS)?, framing: Framing::Json };
        publisher.publish_uncommitted(|_| Ok(target), Visit { count, ..visit.clone() })?;
        Ok(Consumed::Done)
    }

    async fn finalize_txn(&self, _: &Shard, _: &mut RocksStore, _: &mut Publisher) -> Result<(), BoxError> {
        Ok(())
    }
}
