//! The embedded etcd against a real one: the same random operations must give the same answers.
//!
//! `COURANT_SEED` repeats a run, `COURANT_DIFF_OPS` sets its length. Both stores are fresh, so revisions are equal too.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod answers;
mod ops;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use answers::Server;
use etcd_client::proto as pb;
use ops::{Generator, Op};
use runtime::{Clock, Entropy};
use store_servers::EtcdServer;
use support::{Embedded, env_number};

const OPS: u64 = 10_000;

struct Pair {
    embedded: Server,
    real: Server,
    _served: Embedded,
    _process: EtcdServer,
    _dir: tempfile::TempDir,
}

async fn pair() -> Pair {
    let dir = support::fast_dir();
    let process = EtcdServer::start().await.unwrap();
    let served = Embedded::start(dir.path()).await;
    let embedded = Server::new("embedded", &served.endpoint);
    let real = Server::new("real", process.endpoint());
    Pair { embedded, real, _served: served, _process: process, _dir: dir }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_give_the_answers_of_a_real_etcd() {
    let seed = env_number("COURANT_SEED").unwrap_or_else(|| Entropy::system().u64());
    let count = env_number("COURANT_DIFF_OPS").unwrap_or(OPS);
    println!("repeat with COURANT_SEED={seed} COURANT_DIFF_OPS={count}");
    let mut pair = pair().await;
    let (mut all_embedded, mut all_real) = (pair.embedded.watch_all().await, pair.real.watch_all().await);
    let mut generator = Generator::new(Entropy::seeded(seed));
    let mut tally = std::collections::BTreeMap::<String, u64>::new();
    for number in 0..count {
        let op = generator.next();
        let (found, expected) = both(&mut pair, &op).await;
        assert_eq!(found, expected, "operation {number} of seed {seed}: {op:?}");
        generator.learn(&op, found.revision);
        *tally
            .entry(format!("{}{}", op.name(), if found.is_error() { " refused" } else { "" }))
            .or_default() += 1;
    }
    println!("{tally:#?}");
    let last = generator.revision();
    let found = all_embedded.events_through(last).await;
    let expected = all_real.events_through(last).await;
    assert_eq!(found.len(), expected.len(), "seed {seed}");
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "seed {seed}");
    }
}

async fn both(pair: &mut Pair, op: &Op) -> (answers::Answer, answers::Answer) {
    // The embedded one says how much a watch has to wait for.
    let found = pair.embedded.answer(op, None).await;
    let expected = pair.real.answer(op, Some(found.watched())).await;
    (found, expected)
}

#[tokio::test]
async fn leases_expire_as_those_of_a_real_etcd() {
    let mut pair = pair().await;
    let put = |key: &str, lease| pb::PbPutRequest {
        key: key.into(),
        value: b"v".into(),
        lease,
        ..Default::default()
    };
    let ops = [
        Op::Grant(pb::PbLeaseGrantRequest { ttl: 1, id: 7 }),
        Op::Grant(pb::PbLeaseGrantRequest { ttl: 600, id: 8 }),
        Op::Put(put("b", 7)),
        Op::Put(put("a", 7)),
        Op::Put(put("moved", 7)),
        Op::Put(put("moved", 8)),
        Op::Put(put("detached", 7)),
        Op::Put(put("detached", 0)),
    ];
    let mut revision = 0;
    let (mut all_embedded, mut all_real) = (pair.embedded.watch_all().await, pair.real.watch_all().await);
    for op in &ops {
        let (found, expected) = both(&mut pair, op).await;
        assert_eq!(found, expected, "{op:?}");
        revision = found.revision;
    }
    let clock = Clock::system();
    let limit = Duration::from_secs(20);
    let found = clock.timeout(limit, all_embedded.events_through(revision + 1)).await.unwrap();
    let expected = clock.timeout(limit, all_real.events_through(revision + 1)).await.unwrap();
    assert_eq!(found, expected);
    assert_eq!(
        found.iter().filter(|event| event.r#type == 1).count(),
        2,
        "a and b are deleted, in one revision"
    );
}
