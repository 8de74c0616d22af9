//! A cluster of real processes (etcd, four brokers in three zones, three summers) through the faults that matter most:
//! nothing that was acknowledged is lost, and no sum is wrong.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use tests::appender::{AppenderOptions, Appenders};
use tests::fleet::specs::{Copies, raw_journals};
use tests::fleet::{Fleet, FleetOptions};
use tests::history::{History, longest_stall};
use tests::load::Load;
use tests::readback::Readback;
use tests::seed;

/// Longest wait for verified streams to go on after a fault: the lease, the recovery and a slow machine.
const LIMIT: Duration = Duration::from_secs(120);
/// Longest that a chunker waits for a sum.
const DELAY: Duration = Duration::from_secs(180);
/// How long the load runs before a fault, and how long a fault lasts.
const WHILE: Duration = Duration::from_secs(3);

/// A fleet under load.
struct Scene {
    fleet: Fleet,
    load: Load,
    appenders: Appenders,
}

impl Scene {
    async fn start(name: &str) -> Scene {
        let mut rng = seed::rng(name);
        let copies = Copies { replication: 1, hot_standbys: 1 };
        let options = FleetOptions { copies, ..FleetOptions::default() };
        let mut fleet = Fleet::start(options).await.unwrap();
        fleet.apply_stream_sum().await.unwrap();
        let journals: Vec<String> = (0..3).map(|index| format!("tests/raw/{index}")).collect();
        fleet.apply_journals("raw.yaml", &raw_journals("tests/raw/", &journals, copies)).await.unwrap();
        let mut load = Load::start_on(&mut fleet, 2, 8, DELAY).unwrap();
        load.wait_verified(4, LIMIT).await.unwrap();
        let options = AppenderOptions {
            brokers: fleet.broker_urls(),
            journals,
            per_journal: 2,
            pause: Duration::from_millis(5),
            seed: rng.random(),
        };
        let appenders = Appenders::start(options).unwrap();
        fleet.let_pass(WHILE).await.unwrap();
        Scene { fleet, load, appenders }
    }

    /// Waits until appends of every journal and sums go on.
    async fn recover(&mut self) {
        let since = self.appenders.elapsed();
        let verified = self.load.verified();
        let clock = self.fleet.clock().clone();
        let deadline = clock.now() + LIMIT;
        while !self.appenders.all_acknowledged_since(since) || self.load.verified() < verified + 8 {
            let stalled = self.appenders.stalled_since(since);
            assert!(clock.now() < deadline, "stalled: {stalled:?}, {} verified", self.load.verified());
            self.load.check().unwrap();
            self.fleet.let_pass(Duration::from_millis(100)).await.unwrap();
        }
        println!("recovered after {:?}", self.appenders.elapsed() - since);
    }

    /// Ends the load, and checks all that it was told.
    async fn verify(mut self) {
        self.recover().await;
        println!("longest wait for a sum: {:?}", self.load.take_longest_wait());
        let totals = self.load.finish(DELAY).await.unwrap();
        assert_eq!((totals.mismatches, totals.duplicates), (0, 0));
        let histories: BTreeMap<String, History> = self.appenders.stop().await.unwrap();
        for (journal, history) in &histories {
            println!("{journal}: longest stall {:?}", longest_stall(history));
        }
        let readback = Readback::new(self.fleet.broker_urls(), self.fleet.store());
        let checked = readback.check(&histories).await.unwrap();
        println!("{totals:?} {checked:?}");
        assert!(checked.acknowledged > 100, "the appenders must have got somewhere");
        let journals = readback.compare_all().await.unwrap();
        println!("{journals} journals compared, {} restarts", self.fleet.restarts());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_summer_killed_and_etcd_restarted() {
    let mut scene = Scene::start("a_summer_killed_and_etcd_restarted").await;
    let summer = ["summer-1".to_owned()];
    scene.fleet.kill(&summer).await.unwrap();
    scene.recover().await;
    scene.fleet.start_members(&summer).await.unwrap();
    let etcd = ["etcd".to_owned()];
    scene.fleet.kill(&etcd).await.unwrap();
    scene.fleet.let_pass(WHILE).await.unwrap();
    scene.fleet.start_members(&etcd).await.unwrap();
    scene.verify().await;
}
