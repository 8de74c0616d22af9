//! Three members over PostgreSQL and SQLite. Members die and leave, and what was published is published again.

use std::collections::{BTreeMap, BTreeSet};

use bike_share::{BikeShare, Cycle};
use message::Uuid;
use runtime::{OnError, TaskGroup};
use store_postgres::{PostgresOptions, tokio_postgres};
use store_servers::PostgresServer;
use testkit::{TestBroker, TestConsumer};

use crate::world::*;

const SHARDS: &str = include_str!("../../shards.yaml");
/// They are spread over all partitions.
const BIKES: std::ops::RangeInclusive<u64> = 1..=8;

fn options(server: &PostgresServer) -> PostgresOptions {
    PostgresOptions::parse(&server.connection()).unwrap()
}

/// Creates the tables, as the README says.
async fn create_tables(server: &PostgresServer) {
    let (sql, session) = options(server).config.connect(tokio_postgres::NoTls).await.unwrap();
    TaskGroup::new("session").spawn("session", OnError::Log, async move { Ok(session.await?) });
    sql.batch_execute(include_str!("../../rides.sql")).await.unwrap();
    sql.batch_execute(include_str!("../../checkpoints.sql")).await.unwrap();
}

/// Publishes rides of all bikes, after the first `before` ones.
async fn publish(rides: &Rides, before: u64, count: u64) {
    for number in before..before + count {
        for bike in BIKES {
            rides.publish(bike, ride(bike, number)).await;
        }
    }
}

/// Every member tells the last of `count` rides of each bike.
async fn verify(members: &[&TestConsumer], count: u64) {
    let mut shards = BTreeSet::new();
    for member in members {
        member.wait_for_shards().await.unwrap();
        for bike in BIKES {
            let answer = answer(member, bike).await;
            assert_eq!(answer.rides(), expected_rides(count), "bike {bike}");
            shards.insert(answer.header("x-shard-id").to_owned());
        }
    }
    let expected = (0..4).map(|part| format!("cycles-part-00{part}"));
    assert_eq!(shards, expected.collect());
}

async fn published_cycles(broker: &TestBroker) -> BTreeMap<u64, Vec<Cycle>> {
    let mut cycles = BTreeMap::<u64, Vec<Cycle>>::new();
    for part in 0..2 {
        let journal = format!("examples/bike-share/cycles/part-00{part}");
        for cycle in broker.committed::<Cycle>(&journal).await.unwrap() {
            assert_ne!(cycle.uuid, Uuid::default());
            cycles.entry(cycle.bike_id).or_default().push(Cycle { uuid: Uuid::default(), ..cycle });
        }
    }
    cycles
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rides_count_once_and_every_member_tells_them() {
    let server = PostgresServer::start().unwrap();
    create_tables(&server).await;
    let broker = TestBroker::start().await.unwrap();
    broker.create_journals(JOURNALS).await.unwrap();
    let start = || TestConsumer::start(&broker, BikeShare::new(options(&server)));
    let (first, second, third) = (start().await.unwrap(), start().await.unwrap(), start().await.unwrap());
    first.create_shards(SHARDS).await.unwrap();

    let rides = Rides::new(&broker).await;
    publish(&rides, 0, 8).await;
    verify(&[&first, &second, &third], 8).await;

    // What is published again, as it was or as another message, is the same ride.
    for part in 0..4 {
        rides.repeat(&broker, &format!("examples/bike-share/rides/part-00{part}")).await;
    }
    publish(&rides, 6, 8).await;
    verify(&[&second, &third], 14).await;

    // One dies amid its transactions, with more to come.
    publish(&rides, 14, 6).await;
    first.crash().await.unwrap();
    publish(&rides, 20, 3).await;
    verify(&[&second, &third], 23).await;

    // One leaves, and another one joins.
    publish(&rides, 23, 2).await;
    second.stop().await.unwrap();
    let fourth = start().await.unwrap();
    publish(&rides, 25, 1).await;
    verify(&[&third, &fourth], 26).await;

    let expected = BIKES.map(|bike| (bike, expected_cycles(bike, 26)));
    assert_eq!(published_cycles(&broker).await, expected.collect());
    third.stop().await.unwrap();
    fourth.stop().await.unwrap();
    broker.stop().await.unwrap();
}
