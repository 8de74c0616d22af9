//! `make cluster-demo`: a cluster as separate processes (etcd, four brokers in three zones, three summers) under chunkers,
//! two processes killed and all of the others restarted on the way, every sum verified.
//!
//! Each event is printed with the longest time that a chunker waited for a sum meanwhile. The one line on standard output is
//! the outcome. The exit status is 0 only if every stream was summed exactly once and rightly.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use runtime::BoxError;
use runtime::config::duration_within;
use tests::fleet::specs::{BROKERS_MAX, Copies, LEASE_BOUNDS, STANDBYS_MAX};
use tests::fleet::{Fleet, FleetOptions, Kind};
use tests::traffic::{Traffic, TrafficOptions};

/// Runs a cluster on this machine and proves its sums while killing and restarting all parts of it.
#[derive(Parser)]
struct Args {
    /// Chunkers, each a process.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    chunkers: u64,
    /// Workers of each chunker.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1024))]
    workers: u64,
    /// Chunks of each stream, not counting the one that ends it.
    #[arg(long, default_value_t = 40)]
    chunks: u64,
    /// Replicas of each journal.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=BROKERS_MAX))]
    replication: i32,
    /// Hot standbys of each shard.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=STANDBYS_MAX))]
    hot_standbys: u32,
    /// Lease of brokers and summers.
    #[arg(long, default_value = "10s", value_parser = duration_within(LEASE_BOUNDS))]
    lease: Duration,
}

/// Traffic between two events.
const BETWEEN: Duration = Duration::from_secs(3);
/// Longest that traffic may take to flow again.
const RECOVERY_LIMIT: Duration = Duration::from_secs(120);
/// Longest that an orderly exit may take.
const EXIT_LIMIT: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    match runtime.block_on(run(&args)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(err) => {
            eprintln!("cluster-demo failed: {err}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<String, BoxError> {
    let copies = Copies { replication: args.replication, hot_standbys: args.hot_standbys };
    let options = FleetOptions { copies, lease: args.lease, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options).await?;
    let mut demo = Demo::start(args, &mut fleet).await?;
    match demo.play(&mut fleet).await {
        Ok(kills) => demo.finish(&mut fleet, kills).await,
        Err(err) => {
            fleet.keep_dir();
            Err(format!("{err}\ndata and logs are kept in {}", fleet.dir().display()).into())
        }
    }
}

struct Demo {
    traffic: Traffic,
}

impl Demo {
    async fn start(args: &Args, fleet: &mut Fleet) -> Result<Demo, BoxError> {
        let (brokers, summers) = (fleet.names(Kind::Broker).len(), fleet.names(Kind::Summer).len());
        say(fleet, &format!("etcd, {brokers} brokers and {summers} summers run"));
        fleet.apply_stream_sum().await?;
        let options = TrafficOptions {
            name: "demo".to_owned(),
            chunkers: args.chunkers as usize,
            workers: args.workers,
            chunks: args.chunks,
            ..TrafficOptions::default()
        };
        let mut traffic = Traffic::start(fleet, &options).await?;
        traffic.take_longest_wait();
        Ok(Demo { traffic })
    }

    /// All events. Gives the number of SIGKILLs.
    async fn play(&mut self, fleet: &mut Fleet) -> Result<u32, BoxError> {
        self.event(fleet, "nothing happens").await?;
        let (brokers, summers) = (fleet.names(Kind::Broker), fleet.names(Kind::Summer));
        for name in [&brokers[1], &summers[1]] {
            let names = std::slice::from_ref(name);
            fleet.kill(names).await?;
            self.event(fleet, &format!("kill -9 {name}")).await?;
            fleet.start_members(names).await?;
            self.event(fleet, &format!("start {name} again")).await?;
        }
        for name in brokers.iter().chain(&summers) {
            fleet.terminate(name, EXIT_LIMIT).await?;
            fleet.start_members(std::slice::from_ref(name)).await?;
            self.event(fleet, &format!("restart {name}")).await?;
        }
        Ok(2)
    }

    /// Waits until traffic flows after an event, and says what it cost.
    async fn event(&mut self, fleet: &mut Fleet, what: &str) -> Result<(), BoxError> {
        let recovered = self.traffic.recovered(fleet, RECOVERY_LIMIT).await;
        recovered.map_err(|err| format!("{what}: {err}"))?;
        self.traffic.let_pass(fleet, BETWEEN).await?;
        let wait = self.traffic.take_longest_wait().as_secs_f64();
        let verified = self.traffic.verified();
        say(fleet, &format!("{what}: longest stall {wait:.1} s, {verified} streams verified"));
        Ok(())
    }

    async fn finish(self, fleet: &mut Fleet, kills: u32) -> Result<String, BoxError> {
        let outcome = self.traffic.finish(fleet).await?;
        let appends = outcome.checked.acknowledged;
        say(fleet, &format!("{appends} appends are where they were acknowledged, in every replica"));
        let totals = outcome.totals;
        Ok(format!(
            "verified: streams={} chunks={} mismatches={} duplicates={} kills={kills} seconds={:.1}",
            totals.streams,
            totals.chunks,
            totals.mismatches,
            totals.duplicates,
            fleet.elapsed().as_secs_f64()
        ))
    }
}

fn say(fleet: &Fleet, what: &str) {
    eprintln!("cluster-demo: {:5.1} s: {what}", fleet.elapsed().as_secs_f64());
}
