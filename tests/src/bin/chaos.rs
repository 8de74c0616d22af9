//! `make chaos`: hurts a cluster in every way that `fault` knows, at random, and verifies after each round that no promise
//! was broken.
//!
//! Faults are dealt like cards: all that this machine permits, in an order that the seed decides, and then again. Each round
//! starts traffic, strikes, heals, waits until traffic flows again, and checks sums and histories. The first violation ends
//! the run with another status than 0; data and logs are then kept. The summary is a table for docs/reliability.md.

use std::collections::VecDeque;
use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use runtime::config::{duration_within, parse_duration};
use runtime::{BoxError, Clock, Entropy, Instant};
use tests::etcd_loss::lose_etcd;
use tests::fault::{Fault, Flows};
use tests::fleet::specs::{BROKERS_MAX, Copies, LEASE_BOUNDS, STANDBYS_MAX};
use tests::fleet::{Fleet, FleetOptions};
use tests::report::{Report, Times};
use tests::sandbox;
use tests::traffic::{Outcome, Traffic, TrafficOptions};

/// Longest that one round's fault, or the recovery from it, may be asked to take.
const HOUR: Duration = Duration::from_secs(3600);

/// Hurts a cluster at random, and verifies that it keeps its promises.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Rounds, each with one fault.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Decides the order of faults, their targets and their moments. [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// End after the round in which this time has passed, whatever is left of the rounds.
    #[arg(long, value_parser = parse_duration)]
    at_most: Option<Duration>,
    /// Only these faults, in this order in every pass. [default: all, shuffled]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How long processes are cut off from each other.
    #[arg(long, default_value = "40s", value_parser = duration_within(..=HOUR))]
    partition: Duration,
    /// Lease of brokers and summers.
    #[arg(long, default_value = "10s", value_parser = duration_within(LEASE_BOUNDS))]
    lease: Duration,
    /// Longest that traffic may take to flow again, beyond the lease.
    #[arg(long, default_value = "10s", value_parser = duration_within(..=HOUR))]
    recovery: Duration,
    /// Replicas of each journal.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=BROKERS_MAX))]
    replication: i32,
    /// Hot standbys of each shard.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=STANDBYS_MAX))]
    hot_standbys: u32,
    /// Size of each broker's disk, in MiB, where root may mount one, in memory. 0 is the disk that temporary files are on.
    #[arg(long, default_value_t = 192, value_parser = clap::value_parser!(u32).range(..=1 << 20))]
    disk_mib: u32,
    /// What an acknowledgement means.
    #[arg(long, default_value = "process", value_parser = ["process", "disk"])]
    durability: String,
    /// Mutual TLS on all connections, and access tokens for all requests.
    #[arg(long)]
    secure: bool,
}

/// Traffic before a fault is struck, in milliseconds.
const BEFORE_MS: std::ops::Range<u64> = 1_000..4_000;
/// After a strike, until some sum is awaited which only the stricken process could give: before, traffic seems to flow.
const MISSED: Duration = Duration::from_secs(2);
/// Rounds after which all readings of all journals are compared; besides at the end of each fleet.
const COMPARE_EVERY: u32 = 8;
/// What the loss of etcd's data is called.
const LOSE_ETCD: &str = "lose-etcd";

fn main() -> ExitCode {
    sandbox::enter();
    let mut args = Args::parse();
    let seed = *args.seed.get_or_insert_with(|| Entropy::system().u64());
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    match runtime.block_on(run(&args, seed)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("chaos failed, SEED={seed}: {err}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args, seed: u64) -> Result<(), BoxError> {
    let mut chaos = Chaos::new(args, seed)?;
    let mut outcome = Ok(());
    while outcome.is_ok() && !chaos.is_over() {
        outcome = chaos.run_fleet().await;
    }
    let (minutes, restarts, rounds) = (chaos.elapsed().as_secs() / 60, chaos.restarts, chaos.round);
    println!(
        "{}\nSEED={seed}: {rounds} rounds in {minutes} minutes; {restarts} processes lost their \
        lease and were started again.",
        chaos.report.table()
    );
    outcome
}

/// One round's fault.
#[derive(Clone, Copy)]
enum Card {
    Fault(Fault),
    /// After it, the fleet is given up.
    LoseEtcd,
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Card::Fault(fault) => fault.fmt(f),
            Card::LoseEtcd => f.write_str(LOSE_ETCD),
        }
    }
}

impl Card {
    fn all() -> Vec<Card> {
        Fault::ALL.into_iter().map(Card::Fault).chain([Card::LoseEtcd]).collect()
    }

    fn is_possible(&self, fleet: &Fleet) -> bool {
        match self {
            Card::Fault(fault) => fault.is_possible(fleet),
            Card::LoseEtcd => true,
        }
    }
}

struct Chaos<'a> {
    args: &'a Args,
    clock: Clock,
    began: Instant,
    rng: StdRng,
    cards: Vec<Card>,
    deck: VecDeque<Card>,
    /// Rounds that were begun.
    round: u32,
    restarts: u32,
    report: Report,
}

impl Chaos<'_> {
    fn new(args: &Args, seed: u64) -> Result<Chaos<'_>, BoxError> {
        let cards = if args.only.is_empty() { Card::all() } else { parse_cards(&args.only)? };
        let clock = Clock::system();
        let (began, rng) = (clock.now(), StdRng::seed_from_u64(seed));
        let (deck, report) = (VecDeque::new(), Report::default());
        eprintln!("chaos: SEED={seed}");
        Ok(Chaos { args, clock, began, rng, cards, deck, round: 0, restarts: 0, report })
    }

    fn elapsed(&self) -> Duration {
        self.clock.now() - self.began
    }

    fn is_over(&self) -> bool {
        let is_late = self.args.at_most.is_some_and(|limit| self.elapsed() > limit);
        self.round >= self.args.rounds || is_late
    }

    /// Plays rounds on one fleet, until the run is over or the fleet must be given up.
    async fn run_fleet(&mut self) -> Result<(), BoxError> {
        let copies = Copies { replication: self.args.replication, hot_standbys: self.args.hot_standbys };
        let disk_mib = Some(self.args.disk_mib).filter(|mib| *mib > 0 && sandbox::is_inside());
        let options = FleetOptions {
            copies,
            disk_mib,
            lease: self.args.lease,
            durability: self.args.durability.clone(),
            is_secure: self.args.secure,
            ..FleetOptions::default()
        };
        let mut fleet = Fleet::start(options).await?;
        eprintln!("chaos: data and logs in {}", fleet.dir().display());
        self.leave_out_impossible(&fleet)?;
        let outcome = self.play(&mut fleet).await;
        self.restarts += fleet.restarts();
        outcome.map_err(|error| {
            fleet.keep_dir();
            let dir = fleet.dir().display();
            format!("round {}: {error}\ndata and logs are kept in {dir}", self.round).into()
        })
    }

    fn leave_out_impossible(&mut self, fleet: &Fleet) -> Result<(), BoxError> {
        let (possible, left_out): (Vec<Card>, Vec<Card>) =
            self.cards.iter().partition(|card| card.is_possible(fleet));
        if !left_out.is_empty() {
            let names: Vec<String> = left_out.iter().map(Card::to_string).collect();
            eprintln!(
                "chaos: left out, as the machine or the fleet does not permit it: {}",
                names.join(", ")
            );
        }
        self.cards = possible;
        if self.cards.is_empty() { Err("no fault is left".into()) } else { Ok(()) }
    }

    async fn play(&mut self, fleet: &mut Fleet) -> Result<(), BoxError> {
        fleet.apply_stream_sum().await?;
        while !self.is_over() {
            self.round += 1;
            match self.deal() {
                Card::Fault(fault) => {
                    self.play_fault(fault, fleet).await.map_err(|err| format!("{fault}: {err}"))?;
                }
                Card::LoseEtcd => {
                    let played = self.play_etcd_loss(fleet).await;
                    return played.map_err(|err| format!("{LOSE_ETCD}: {err}").into());
                }
            }
            if self.round.is_multiple_of(COMPARE_EVERY) {
                compare(fleet).await?;
            }
        }
        compare(fleet).await
    }

    /// The next card; when all were dealt, they are dealt again.
    fn deal(&mut self) -> Card {
        if self.deck.is_empty() {
            let mut cards = self.cards.clone();
            if self.args.only.is_empty() {
                cards.shuffle(&mut self.rng);
            }
            self.deck.extend(cards);
        }
        self.deck.pop_front().expect("there are cards")
    }

    /// Starts traffic and lets it run for a random moment.
    async fn start_traffic(&mut self, fleet: &mut Fleet) -> Result<Traffic, BoxError> {
        // One that was stopped may have left by itself when the last round was over.
        fleet.wait_all_ready().await?;
        let (name, seed) = (format!("round-{}", self.round), self.rng.random());
        let options = TrafficOptions { name, seed, ..Default::default() };
        let mut traffic = Traffic::start(fleet, &options).await?;
        let before = Duration::from_millis(self.rng.random_range(BEFORE_MS));
        traffic.let_pass(fleet, before).await?;
        traffic.take_longest_wait();
        Ok(traffic)
    }

    /// Strikes, lets the fault last, heals, waits until traffic flows again, and checks everything.
    async fn play_fault(&mut self, fault: Fault, fleet: &mut Fleet) -> Result<(), BoxError> {
        let mut traffic = self.start_traffic(fleet).await?;
        let limit = self.args.lease + self.args.recovery;
        let lasts = fault.lasts(self.args.lease, self.args.partition, &mut self.rng);
        let struck = fault.strike(fleet, &mut traffic, limit, &mut self.rng).await?;
        let targets = struck.targets().join(", ");
        eprintln!("{:7.1} {fault} {targets}", fleet.elapsed().as_secs_f64());
        let until = fleet.clock().now() + lasts;
        let mut taken_over = None;
        if fault.flows() == Flows::WhileStruck {
            traffic.let_pass(fleet, MISSED).await?;
            let took = traffic.recovered(fleet, limit.saturating_sub(MISSED)).await;
            taken_over = Some(MISSED + took.map_err(|err| format!("while {targets} is struck: {err}"))?);
        }
        let left = until.saturating_duration_since(fleet.clock().now());
        traffic.let_pass(fleet, left).await?;
        struck.heal(fleet).await?;
        let flowed = traffic.recovered(fleet, limit).await.map_err(|err| format!("{targets}: {err}"))?;
        let times = Times { taken_over, flowed, wait: traffic.take_longest_wait() };
        let outcome = traffic.finish(fleet).await?;
        self.tell(&fault.to_string(), fleet, &times, &outcome);
        Ok(())
    }

    /// Checks everything, wipes etcd, checks what must be left, and that new journals work.
    async fn play_etcd_loss(&mut self, fleet: &mut Fleet) -> Result<(), BoxError> {
        let mut traffic = self.start_traffic(fleet).await?;
        let times = Times { wait: traffic.take_longest_wait(), ..Times::default() };
        let outcome = traffic.finish(fleet).await?;
        compare(fleet).await?;
        eprintln!("{:7.1} {LOSE_ETCD}", fleet.elapsed().as_secs_f64());
        let served = lose_etcd(fleet).await?;
        eprintln!("{:7.1} served: {served:?}", fleet.elapsed().as_secs_f64());
        self.tell(LOSE_ETCD, fleet, &times, &outcome);
        let name = format!("round-{}-after", self.round);
        let options = TrafficOptions { name, chunkers: 0, seed: self.rng.random(), ..Default::default() };
        let traffic = Traffic::start(fleet, &options).await?;
        traffic.finish(fleet).await.map(drop)
    }

    fn tell(&mut self, fault: &str, fleet: &Fleet, times: &Times, outcome: &Outcome) {
        self.report.add(fault, times, outcome);
        let taken_over = times.taken_over.map(|took| format!("taken over after {took:.1?}, "));
        eprintln!(
            "{:7.1} round {}, {fault}: {}flowed again after {:.1?}, longest wait for a sum {:.1?}, longest without \
             an acknowledgement {:.1?}, {} sums, {} appends",
            fleet.elapsed().as_secs_f64(),
            self.round,
            taken_over.unwrap_or_default(),
            times.flowed,
            times.wait,
            outcome.longest_stall,
            outcome.totals.streams,
            outcome.checked.acknowledged,
        );
    }
}

fn parse_cards(names: &[String]) -> Result<Vec<Card>, BoxError> {
    let parse = |name: &String| {
        let card = Card::all().into_iter().find(|card| card.to_string() == *name);
        let all = || Card::all().iter().map(Card::to_string).collect::<Vec<_>>().join(", ");
        card.ok_or_else(|| format!("{name} is not a fault; there are: {}", all()).into())
    };
    names.iter().map(parse).collect()
}

/// Compares all readings of all journals.
async fn compare(fleet: &Fleet) -> Result<(), BoxError> {
    fleet.readback().compare_all().await.map(drop)
}
