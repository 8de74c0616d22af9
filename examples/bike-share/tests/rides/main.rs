//! The application over a broker, etcd and, where a shard has no recovery log, PostgreSQL: several members, in one process.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod bad_input;
mod exactly_once;
mod programs;
mod world;
