//! Clients, leases, members and mirrors over an etcd that is served on loopback: the embedded one, and where the
//! behaviour of the server matters, a real one.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod crashes;
mod members;
mod mirrors;
mod outages;
mod requests;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use keyspace::{AssignmentKey, Etcd, KeyPrefix, Op, PutLease, Schema, Txn};
use proto::{Invalid, MemberId, Revision};
use runtime::{Clock, TaskGroup};
use support::Embedded;
use tempfile::TempDir;

/// How long anything awaited may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Values are text; `bad` does not decode.
pub(crate) struct Text;

fn text(value: &[u8]) -> Result<String, Invalid> {
    match std::str::from_utf8(value) {
        Ok(text) if text != "bad" => Ok(text.to_owned()),
        _ => Err(Invalid::new("a bad value")),
    }
}

impl Schema for Text {
    type Item = String;
    type Member = String;
    type Assignment = String;

    fn decode_item(&self, _: &str, value: &[u8]) -> Result<String, Invalid> {
        text(value)
    }

    fn decode_member(&self, _: &MemberId, value: &[u8]) -> Result<String, Invalid> {
        text(value)
    }

    fn decode_assignment(&self, _: &AssignmentKey, value: &[u8]) -> Result<String, Invalid> {
        text(value)
    }

    fn endpoint(member: &String) -> &str {
        member
    }
}

/// A served etcd, a client of it, and the group that the client's tasks run in.
pub(crate) struct Fixture {
    pub(crate) served: Embedded,
    pub(crate) etcd: Etcd,
    pub(crate) tasks: TaskGroup,
    pub(crate) dir: TempDir,
}

pub(crate) async fn fixture() -> Fixture {
    let dir = support::fast_dir();
    let served = Embedded::start(dir.path()).await;
    let tasks = TaskGroup::new("test");
    let etcd = support::connect(&served.endpoint, Duration::from_secs(20), &tasks).await;
    Fixture { served, etcd, tasks, dir }
}

pub(crate) fn prefix() -> KeyPrefix {
    KeyPrefix::parse("/test/cluster").unwrap()
}

pub(crate) async fn put(etcd: &Etcd, key: &str, value: &str) -> Revision {
    let op = Op::Put { key: key.to_owned(), value: value.to_owned().into(), lease: PutLease::None };
    etcd.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap().header.revision
}

pub(crate) async fn delete(etcd: &Etcd, key: &str) -> Revision {
    let op = Op::Delete { key: key.to_owned() };
    etcd.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap().header.revision
}

/// `future`, which must complete soon.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    Clock::system()
        .timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("it took more than {PATIENCE:?}"))
}
