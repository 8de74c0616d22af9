//! Stores which record to a broker in memory.

pub use consumer::testing::{LOG, World, checkpoint, commit, no_hints, number_of, restored, seed};
use store_rocksdb::{RocksStore, rocksdb::Options};

pub trait Opens {
    /// Takes the log over, and opens the store.
    async fn store(&self, dir: &str, id: u32) -> RocksStore;
}

impl Opens for World {
    async fn store(&self, dir: &str, id: u32) -> RocksStore {
        let recorder = self.recorder(&no_hints(), dir, id).await;
        RocksStore::open(Some(recorder), &self.tasks, small_buffers).await.unwrap()
    }
}

/// Makes flushes and compactions happen all the time.
pub fn small_buffers(options: &mut Options) {
    options.set_write_buffer_size(64 << 10); // RocksDB has no smaller ones.
    options.set_target_file_size_base(16 << 10);
    options.set_max_bytes_for_level_base(64 << 10);
    options.set_level_zero_file_num_compaction_trigger(2);
}

pub fn text(value: Option<Vec<u8>>) -> Option<String> {
    value.map(|value| String::from_utf8(value).unwrap())
}
