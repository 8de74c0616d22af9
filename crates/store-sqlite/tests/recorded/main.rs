//! Stores which record to a broker in memory: what shards rely on, and what is left after a crash.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod crash;
mod files;
mod reader;
mod script;
mod store;
mod world;
