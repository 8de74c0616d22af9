//! A RocksDB store whose file operations are recorded.
