//! The consumer framework: applications, shards and exactly-once transactions.
