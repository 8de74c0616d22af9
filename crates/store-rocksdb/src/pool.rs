//! What all databases of a process share, so that hundreds of idle ones cost little.
//!
//! One cache holds the blocks of all; one manager bounds their write buffers. The threads are those of RocksDB's default
//! environment, of which each observed environment is a view: there is one set of them, however many databases are open.

use rocksdb::{BlockBasedOptions, Cache, LogLevel, Options, WriteBufferManager};
use std::sync::OnceLock;

/// Blocks of tables which are kept in memory, of all databases.
const CACHE_BYTES: usize = 128 << 20;
/// Bytes of all write buffers, over which a database that is written to flushes its own early. A bound for many busy
/// databases: hundreds of idle ones stay far below, or else each write to a busy one would flush it.
const BUFFERS_BYTES: usize = 512 << 20;
/// Size at which a write buffer is flushed. It bounds what a recovery must read of a write-ahead log, too.
const BUFFER_BYTES: usize = 16 << 20;
/// By how much a write buffer grows: an idle database holds about one of these.
const ARENA_BLOCK_BYTES: usize = 64 << 10;
/// The cache of open tables is split for concurrent readers, of which a shard has one.
const TABLE_CACHE_SHARD_BITS: i32 = 2;

struct Pool {
    cache: Cache,
    buffers: WriteBufferManager,
}

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool {
        cache: Cache::new_lru_cache(CACHE_BYTES),
        // A database never waits for the buffers of another.
        buffers: WriteBufferManager::new_write_buffer_manager(BUFFERS_BYTES, false),
    })
}

/// Options which share the process's memory. An application may change them.
pub(crate) fn shared_options() -> Options {
    let Pool { cache, buffers } = pool();
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(cache);
    let mut options = Options::default();
    options.set_block_based_table_factory(&tables);
    options.set_write_buffer_manager(buffers);
    options.set_write_buffer_size(BUFFER_BYTES);
    options.set_arena_block_size(ARENA_BLOCK_BYTES);
    options.set_table_cache_num_shard_bits(TABLE_CACHE_SHARD_BITS);
    // Nobody reads the statistics, nor the information log while all is well.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options
}
