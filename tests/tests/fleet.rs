//! A cluster of real processes (etcd, four brokers in three zones, three summers) through the faults that matter most:
//! nothing that was acknowledged is lost, and no sum is wrong. `make chaos` runs all faults.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::time::Duration;

use rand::RngExt;
use tests::fault::Fault;
use tests::fleet::{Fleet, FleetOptions};
use tests::seed;
use tests::traffic::{Traffic, TrafficOptions};

/// Longest wait for traffic to flow again: the lease, the recovery and a slow machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Strikes a fleet with one fault after the other, and checks all that the traffic was told.
async fn survives(test: &str, faults: &[Fault]) {
    let mut rng = seed::rng(test);
    let mut fleet = Fleet::start(FleetOptions::default()).await.unwrap();
    let lease = fleet.options().lease;
    fleet.apply_stream_sum().await.unwrap();
    let options = TrafficOptions { seed: rng.random(), ..TrafficOptions::default() };
    let mut traffic = Traffic::start(&mut fleet, &options).await.unwrap();
    for fault in faults {
        let lasts = fault.lasts(lease, Duration::ZERO, &mut rng);
        let struck = fault.strike(&mut fleet, &mut traffic, LIMIT, &mut rng).await.unwrap();
        println!("{fault} strikes {:?} for {lasts:?}", struck.targets());
        traffic.let_pass(&mut fleet, lasts).await.unwrap();
        struck.heal(&mut fleet).await.unwrap();
        let took = traffic.recovered(&mut fleet, LIMIT).await.unwrap();
        println!("{fault}: traffic flowed again after {took:?}");
    }
    let outcome = traffic.finish(&mut fleet).await.unwrap();
    println!("{outcome:?}");
    assert_eq!((outcome.totals.mismatches, outcome.totals.duplicates), (0, 0));
    assert!(outcome.checked.acknowledged > 100, "the appenders must have got somewhere");
    fleet.readback().compare_all().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_four_brokers_killed_lose_nothing() {
    survives("two_of_four_brokers_killed_lose_nothing", &[Fault::KillTwoBrokers]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_brokers_killed_come_back_on_their_data() {
    survives("all_brokers_killed_come_back_on_their_data", &[Fault::KillAllBrokers]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_broker_is_fenced() {
    survives("a_stopped_broker_is_fenced", &[Fault::StopBroker]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_summers_and_etcd_lose_nothing() {
    survives("killed_summers_and_etcd_lose_nothing", &[Fault::KillSummer, Fault::RestartEtcd]).await;
}
