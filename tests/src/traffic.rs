//! Everything that uses a fleet while it is hurt: chunkers which verify sums, and appenders which remember.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::BoxError;

use crate::appender::{AppenderOptions, Appenders};
use crate::fleet::specs::raw_journals;
use crate::fleet::{Fleet, Quirk};
use crate::history::{Checked, History, longest_stall};
use crate::load::{Load, Totals};

/// Longest wait for the first sums: shards are assigned and recovered.
const FIRST_LIMIT: Duration = Duration::from_secs(120);
/// Longest wait for a chunker to finish its open streams.
const FINISH_LIMIT: Duration = Duration::from_secs(180);
/// Streams that each chunker has verified before anything is hurt.
const FIRST_STREAMS: u64 = 4;
/// Streams that must be verified before sums are said to flow: enough that every shard has most likely had one.
const FLOW_STREAMS: u64 = 32;
/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(200);

/// What uses the fleet.
#[derive(Clone, Debug)]
pub struct TrafficOptions {
    /// Names the journals of appenders, and chunkers in reports.
    pub name: String,
    /// Chunkers, each a process.
    pub chunkers: usize,
    /// Workers of each chunker.
    pub workers: u64,
    /// Chunks of each stream.
    pub chunks: u64,
    /// Longest that a chunker waits for a sum before it fails.
    pub delay: Duration,
    /// Journals which only appenders write.
    pub journals: usize,
    /// Appenders of each.
    pub appenders: usize,
    /// Pause of an appender after each append.
    pub pause: Duration,
    /// Of the appenders.
    pub seed: u64,
}

impl Default for TrafficOptions {
    fn default() -> Self {
        TrafficOptions {
            name: "raw".to_owned(),
            chunkers: 1,
            workers: 4,
            chunks: 8,
            delay: Duration::from_secs(240),
            journals: 3,
            appenders: 2,
            pause: Duration::from_millis(5),
            seed: 0,
        }
    }
}

/// Running chunkers and appenders.
pub struct Traffic {
    options: TrafficOptions,
    loads: Vec<Load>,
    /// What chunkers that have ended have verified.
    finished: Totals,
    appenders: Appenders,
}

/// What the traffic came to, once all of it was verified.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Of all chunkers.
    pub totals: Totals,
    /// Of all journals which only appenders wrote.
    pub checked: Checked,
    /// The longest time without an acknowledgement that any of these journals saw.
    pub longest_stall: Duration,
}

impl Traffic {
    /// Applies the journals, starts everything, and waits until sums are verified and appends acknowledged.
    pub async fn start(fleet: &mut Fleet, options: &TrafficOptions) -> Result<Traffic, BoxError> {
        let directory = format!("raw/{}/", options.name);
        let journals: Vec<String> =
            (0..options.journals).map(|index| format!("{directory}{index}")).collect();
        let yaml = raw_journals(&directory, &journals, fleet.options().copies);
        fleet.apply_journals(&format!("{}.yaml", options.name), &yaml).await?;
        let appenders = Appenders::start(AppenderOptions {
            brokers: fleet.broker_urls(),
            journals,
            per_journal: options.appenders,
            pause: options.pause,
            seed: options.seed,
            caller: fleet.caller(),
        })?;
        let (loads, finished) = (Vec::new(), Totals::default());
        let mut traffic = Traffic { options: options.clone(), loads, finished, appenders };
        for _ in 0..options.chunkers {
            traffic.add_chunker(fleet, &Quirk::default())?;
        }
        traffic.wait_first(fleet).await?;
        Ok(traffic)
    }

    async fn wait_first(&mut self, fleet: &mut Fleet) -> Result<(), BoxError> {
        let deadline = fleet.clock().now() + FIRST_LIMIT;
        while self.loads.iter_mut().any(|load| load.verified() < FIRST_STREAMS) {
            if fleet.clock().now() > deadline {
                return Err(self.stalled(fleet, "no traffic", Duration::ZERO).await);
            }
            self.let_pass(fleet, TICK).await?;
        }
        self.recovered(fleet, FIRST_LIMIT).await.map(drop)
    }

    /// Starts one more chunker.
    pub fn add_chunker(&mut self, fleet: &mut Fleet, quirk: &Quirk) -> Result<(), BoxError> {
        let TrafficOptions { workers, chunks, delay, .. } = self.options;
        self.loads.push(Load::start_on(fleet, workers, chunks, delay, quirk)?);
        Ok(())
    }

    /// Lets time pass while processes are looked after; fails at once if a chunker finds fault.
    pub async fn let_pass(&mut self, fleet: &mut Fleet, time: Duration) -> Result<(), BoxError> {
        let until = fleet.clock().now() + time;
        loop {
            self.loads.iter_mut().try_for_each(Load::check)?;
            let left = until.saturating_duration_since(fleet.clock().now());
            if left.is_zero() {
                return Ok(());
            }
            fleet.let_pass(left.min(TICK)).await?;
        }
    }

    /// Waits until all traffic flows again: every journal has an append which began and was acknowledged since now, some
    /// streams were verified, and no sum is awaited for longer than since now. Gives how long it took; fails if that is
    /// longer than `limit`.
    pub async fn recovered(&mut self, fleet: &mut Fleet, limit: Duration) -> Result<Duration, BoxError> {
        let since = self.appenders.elapsed();
        let began = fleet.clock().now();
        let verified = self.verified();
        loop {
            let took = fleet.clock().now() - began;
            let is_behind = |load: &mut Load| load.last_wait().is_none_or(|wait| wait >= took);
            let sums_flow = self.loads.is_empty()
                || (self.verified() >= verified + FLOW_STREAMS && !self.loads.iter_mut().any(is_behind));
            if sums_flow && self.appenders.all_acknowledged_since(since) {
                return Ok(took);
            }
            if took > limit {
                let what = format!("traffic does not flow again within {limit:?}");
                return Err(self.stalled(fleet, &what, since).await);
            }
            self.let_pass(fleet, TICK).await?;
        }
    }

    /// What stands still.
    async fn stalled(&mut self, fleet: &Fleet, what: &str, since: Duration) -> BoxError {
        let journals = self.appenders.stalled_since(since);
        let waits: Vec<_> = self.loads.iter_mut().map(|load| (load.verified(), load.last_wait())).collect();
        let shards = fleet.describe_shards().await;
        format!(
            "{what}: journals {journals:?} stand still; chunkers have verified and wait {waits:?}; {shards}"
        )
        .into()
    }

    /// Streams that the running chunkers have verified.
    pub fn verified(&mut self) -> u64 {
        self.loads.iter_mut().map(Load::verified).sum()
    }

    /// The longest time that a chunker waited for a sum since this was last asked.
    pub fn take_longest_wait(&mut self) -> Duration {
        self.loads.iter_mut().map(Load::take_longest_wait).max().unwrap_or_default()
    }

    /// Lets the chunkers finish their open streams. Appenders go on.
    async fn finish_chunkers(&mut self, fleet: &mut Fleet) -> Result<(), BoxError> {
        for load in self.loads.drain(..) {
            fleet.tend()?;
            self.finished.add(&load.finish(FINISH_LIMIT).await?);
        }
        Ok(())
    }

    /// Ends the chunkers, and starts as many which have what the fleet gives them now.
    pub async fn replace_chunkers(&mut self, fleet: &mut Fleet) -> Result<(), BoxError> {
        let count = self.loads.len();
        self.finish_chunkers(fleet).await?;
        for _ in 0..count {
            self.add_chunker(fleet, &Quirk::default())?;
        }
        Ok(())
    }

    /// Ends all traffic and verifies all that it was told.
    pub async fn finish(mut self, fleet: &mut Fleet) -> Result<Outcome, BoxError> {
        self.finish_chunkers(fleet).await?;
        let totals = self.finished;
        let histories: BTreeMap<String, History> = self.appenders.stop().await?;
        let longest_stall = histories.values().map(longest_stall).max().unwrap_or_default();
        let checked = fleet.readback().check(&histories).await?;
        Ok(Outcome { totals, checked, longest_stall })
    }
}
