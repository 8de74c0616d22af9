//! PostgreSQL stores over real servers, which the tests start.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod app;
mod reader;
mod store;
mod tls;
mod world;
