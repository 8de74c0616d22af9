//! Shards which this process runs.

mod budget;
mod local_set;
mod status;
