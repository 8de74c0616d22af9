//! A consumer in the test's process: it counts messages by key, in a state of JSON with a recovery log.

use client::Publisher;
use consumer::{Application, Consumed, Consumer, ConsumerOptions, JsonFileStore, Shard};
use message::{Envelope, Flags, Uuid};
use proto::protocol::JournalSpec;
use recoverylog::Recorder;
use runtime::BoxError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A key which is counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Key {
    uuid: Uuid,
    key: String,
}

message::json_message!(Key);

struct Counter;

impl Application for Counter {
    type Message = Key;
    type Store = JsonFileStore<BTreeMap<String, u64>>;

    async fn new_store(&self, shard: &Shard, recorder: Option<Recorder>) -> Result<Self::Store, BoxError> {
        Ok(JsonFileStore::open(recorder, shard.tasks()).await?)
    }

    fn new_message(&self, _: &JournalSpec) -> Result<Key, BoxError> {
        Ok(Key::default())
    }

    async fn consume_message(
        &self,
        _: &Shard,
        store: &mut Self::Store,
        envelope: &Envelope<Key>,
        _: &mut Publisher,
    ) -> Result<Consumed, BoxError> {
        if envelope.message.uuid.flags() != Flags::ACK_TXN {
            *store.state.entry(envelope.message.key.clone()).or_default() += 1;
        }
        Ok(Consumed::Done)
    }

    async fn finalize_txn(&self, _: &Shard, _: &mut Self::Store, _: &mut Publisher) -> Result<(), BoxError> {
        Ok(())
    }
}

/// A member of the group of counters, next to the broker at this address.
pub struct Member {
    consumer: Consumer,
    runtime: tokio::runtime::Runtime,
}

impl Member {
    pub fn start(broker: &str) -> Member {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let mut options = ConsumerOptions::local(broker, "/test/counters").unwrap();
        options.lease_ttl = Duration::from_secs(10);
        let consumer = runtime.block_on(Consumer::start(Counter, options)).unwrap();
        Member { consumer, runtime }
    }

    pub fn address(&self) -> &str {
        self.consumer.endpoint()
    }

    pub fn stop(self) {
        self.runtime.block_on(self.consumer.stop()).unwrap();
    }
}
