//! The application: adds deltas to counts.

use std::num::NonZeroU8;

use ::message::{Envelope, Flags, Message};
use ::proto::protocol::JournalSpec;
use client::Publisher;
use consumer::{Application, Consumed, InitContext, Shard};
use recoverylog::Recorder;
use runtime::BoxError;
use store_rocksdb::RocksStore;
use tonic::service::Routes;

use crate::NGramApi;
use crate::api::METHODS;
use crate::count::{decode_count, encode_count};
use crate::proto::NGramCount;
use crate::proto::n_gram_server::NGramServer;

/// Options of the application.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "WordCount")]
pub struct WordCountArgs {
    /// Words of an n-gram.
    #[arg(id = "wordcount.N", long = "wordcount.N", value_name = "N")]
    n: NonZeroU8,
}

/// The application. The state of a shard is a RocksDB with a row per n-gram: its bytes, and its count as a varint.
#[derive(Clone, Debug)]
pub struct WordCount {
    n: usize,
}

impl WordCount {
    /// Name of the application, and of its program.
    pub const NAME: &'static str = "word-count";

    /// Counts runs of `n` words.
    pub fn new(n: NonZeroU8) -> WordCount {
        WordCount { n: n.get().into() }
    }

    /// Counts as the options say.
    pub fn of_args(args: WordCountArgs) -> WordCount {
        WordCount::new(args.n)
    }
}

impl Application for WordCount {
    type Message = NGramCount;
    type Store = RocksStore;

    fn name(&self) -> &'static str {
        WordCount::NAME
    }

    fn init_application(&self, context: &InitContext) -> Result<axum::Router, BoxError> {
        let api = NGramApi::start(self.n, context)?;
        let server = NGramServer::new(api).max_decoding_message_size(context.max_message_bytes);
        Ok(context.admission.guard(Routes::new(server), &METHODS).into_axum_router())
    }

    async fn new_store(&self, shard: &Shard, recorder: Option<Recorder>) -> Result<RocksStore, BoxError> {
        Ok(RocksStore::open(recorder, shard.tasks(), |_| {}).await?)
    }

    fn new_message(&self, _source: &JournalSpec) -> Result<NGramCount, BoxError> {
        Ok(NGramCount::default())
    }

    async fn consume_message(
        &self,
        _shard: &Shard,
        store: &mut RocksStore,
        envelope: &Envelope<NGramCount>,
        _publisher: &mut Publisher,
    ) -> Result<Consumed, BoxError> {
        let delta = &envelope.message;
        if delta.uuid().flags() != Flags::ACK_TXN {
            // The store keeps what the transaction changes in memory.
            let before = store.get(&delta.n_gram)?.map_or(Ok(0), |value| decode_count(&value))?;
            store.put(delta.n_gram.as_bytes(), encode_count(before.saturating_add(delta.count)));
        }
        Ok(Consumed::Done)
    }

    async fn finalize_txn(
        &self,
        _shard: &Shard,
        _store: &mut RocksStore,
        _publisher: &mut Publisher,
    ) -> Result<(), BoxError> {
        Ok(())
    }
}
