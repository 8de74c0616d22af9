//! The client against a broker in memory, which does what each test tells it.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod append_service;
mod common;
mod messages;
mod metrics;
mod reading;
mod watched_list;
