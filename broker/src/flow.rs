//! Flow control of append streams (journal protocol §5.7): how fast a journal takes bytes in, and how slowly a client may
//! send them.
//!
//! A journal has one [`Bucket`] of credit, which refills at its maximum rate and which all of its appends draw from. Each
//! append has a [`Flow`]: it charges the bytes of every chunk, and a chunk which the bucket cannot pay for is withheld until
//! later ticks pay. A flow also watches its client: one that sends less than the minimum rate, while nothing of it is
//! withheld, fails the append. Time that a chunk spends withheld is the broker's doing and is not held against the client.
//!
//! Pure: the present comes as a duration since any fixed moment; steps backwards are ignored.

use std::time::Duration;

/// How often a flow is ticked while its client is silent or a chunk is withheld.
pub const TICK: Duration = Duration::from_millis(50);

/// Credit that a bucket starts with, and spending that a client is credited with at first, in seconds of their rates.
const BURST_SECONDS: i64 = 1;
/// Most credit that a bucket holds, in seconds of the maximum rate.
const BANKED_SECONDS_MAX: i64 = 10;

/// Rates in bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Most that the journal takes; zero for no limit.
    pub max: i64,
    /// Least that a client sends; zero to let it take its time.
    pub min: i64,
}

impl Rates {
    /// The rates of a journal whose specification says `spec_max`, on a broker with these limits for every journal. The
    /// smaller of both maxima holds; zero is none.
    pub fn of(spec_max: i64, broker_max: i64, broker_min: i64) -> Rates {
        let limits = [spec_max, broker_max].into_iter().filter(|max| *max > 0);
        Rates { max: limits.min().unwrap_or(0), min: broker_min.max(0) }
    }
}

/// Credit of one journal, in bytes.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    balance: i64,
    filled_at: Option<Duration>,
}

impl Bucket {
    /// Adds the credit of the time since the last refill.
    pub fn refill(&mut self, max_rate: i64, now: Duration) {
        let Some(filled_at) = self.filled_at else {
            self.balance = max_rate.saturating_mul(BURST_SECONDS);
            self.filled_at = Some(now);
            return;
        };
        let (credit, elapsed) = rate_over(max_rate, now.saturating_sub(filled_at));
        self.balance = self.balance.saturating_add(credit).min(max_rate.saturating_mul(BANKED_SECONDS_MAX));
        self.filled_at = Some(filled_at + elapsed);
    }

    fn debit(&mut self, max_rate: i64, charge: i64) -> i64 {
        if max_rate == 0 {
            return charge;
        }
        let paid = self.balance.min(charge).max(0);
        self.balance -= paid;
        paid
    }
}

/// Whole bytes of `rate` over `elapsed`, and the time that they take. The rest of the time counts for the next ones.
fn rate_over(rate: i64, elapsed: Duration) -> (i64, Duration) {
    let rate = u128::try_from(rate).unwrap_or(0);
    if rate == 0 {
        return (0, elapsed);
    }
    let bytes = rate.saturating_mul(elapsed.as_millis()) / 1000;
    let millis = (bytes * 1000).div_ceil(rate);
    (
        i64::try_from(bytes).unwrap_or(i64::MAX),
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)),
    )
}

/// What becomes of the chunk at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// It is paid for, and may be taken.
    Clear,
    /// It is to be withheld until a tick clears it.
    Withheld,
}

/// The client sent less than the minimum rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client stream didn't sustain the minimum append data rate")]
pub struct Underflow;

/// Flow control of one append stream.
#[derive(Clone, Debug)]
pub struct Flow {
    rates: Rates,
    /// Bytes sent lately, which drain at the minimum rate.
    spent: i64,
    ticked_at: Duration,
    /// Bytes of the withheld chunk that are not paid for.
    charge: i64,
    total_chunks: i64,
    delayed_chunks: i64,
}

impl Flow {
    /// The flow of a stream which begins at `now`.
    pub fn new(rates: Rates, bucket: &mut Bucket, now: Duration) -> Flow {
        bucket.refill(rates.max, now);
        let spent = rates.min.saturating_mul(BURST_SECONDS);
        Flow { rates, spent, ticked_at: now, charge: 0, total_chunks: 0, delayed_chunks: 0 }
    }

    /// Counts a chunk of `bytes` (zero for the one that commits), which came at `now`.
    ///
    /// # Errors
    /// If the client had fallen behind the minimum rate by then.
    ///
    /// # Panics
    /// If a chunk is withheld: chunks keep their order.
    pub fn chunk(&mut self, bytes: usize, bucket: &mut Bucket, now: Duration) -> Result<Chunk, Underflow> {
        assert_eq!(self.charge, 0, "the chunk before is withheld");
        self.drain(bucket, now)?;
        self.charge = i64::try_from(bytes).expect("a chunk is shorter than i64::MAX");
        self.total_chunks += 1;
        let chunk = self.debit(bucket);
        self.delayed_chunks += i64::from(chunk == Chunk::Withheld);
        Ok(chunk)
    }

    /// Lets time pass, whether a chunk is withheld or the client is silent.
    ///
    /// # Errors
    /// If the client fell behind the minimum rate.
    pub fn tick(&mut self, bucket: &mut Bucket, now: Duration) -> Result<Chunk, Underflow> {
        if self.charge == 0 {
            self.drain(bucket, now)?;
            return Ok(Chunk::Clear);
        }
        bucket.refill(self.rates.max, now);
        self.excuse(now);
        Ok(self.debit(bucket))
    }

    /// Leaves the time until `now` out of account: it was not the client who took it.
    pub fn excuse(&mut self, now: Duration) {
        self.ticked_at = self.ticked_at.max(now);
    }

    fn drain(&mut self, bucket: &mut Bucket, now: Duration) -> Result<(), Underflow> {
        bucket.refill(self.rates.max, now);
        let (drain, elapsed) = rate_over(self.rates.min, now.saturating_sub(self.ticked_at));
        self.ticked_at += elapsed;
        self.spent = self.spent.saturating_sub(drain).max(0);
        if self.spent == 0 && self.rates.min != 0 { Err(Underflow) } else { Ok(()) }
    }

    /// Lifts the maximum for the rest of the stream, so that a change of the journal's assignments does not wait for it.
    pub fn lift_max(&mut self) {
        self.rates.max = 0;
    }

    /// Chunks so far, with the one that commits.
    pub fn total_chunks(&self) -> i64 {
        self.total_chunks
    }

    /// Chunks so far that were withheld.
    pub fn delayed_chunks(&self) -> i64 {
        self.delayed_chunks
    }

    fn debit(&mut self, bucket: &mut Bucket) -> Chunk {
        let paid = bucket.debit(self.rates.max, self.charge);
        self.charge -= paid;
        self.spent = self.spent.saturating_add(paid).min(self.rates.min.saturating_mul(BURST_SECONDS));
        if self.charge == 0 { Chunk::Clear } else { Chunk::Withheld }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_smaller_maximum_holds_and_zero_is_none() {
        let table = [((0, 0), 0), ((5, 0), 5), ((0, 7), 7), ((5, 7), 5), ((9, 7), 7), ((-1, -1), 0)];
        for ((spec, broker), max) in table {
            assert_eq!(Rates::of(spec, broker, 10), Rates { max, min: 10 }, "{spec} {broker}");
        }
    }

    #[test]
    fn a_bucket_starts_with_one_second_and_banks_ten() {
        let mut bucket = Bucket::default();
        bucket.refill(1000, ms(5_000));
        assert_eq!(bucket.balance, 1000);
        bucket.refill(1000, ms(5_050));
        assert_eq!(bucket.balance, 1050);
        bucket.refill(1000, ms(4_000));
        assert_eq!(bucket.balance, 1050, "time does not run backwards");
        bucket.refill(1000, ms(60_000));
        assert_eq!(bucket.balance, 10_000);
    }

    #[test]
    fn without_a_maximum_every_chunk_is_clear() {
        let mut bucket = Bucket::default();
        let mut flow = Flow::new(Rates { max: 0, min: 100 }, &mut bucket, ms(0));
        assert_eq!(flow.chunk(1 << 30, &mut bucket, ms(0)), Ok(Chunk::Clear));
        assert_eq!(flow.chunk(0, &mut bucket, ms(1)), Ok(Chunk::Clear));
        assert_eq!((flow.total_chunks(), flow.delayed_chunks()), (2, 0));
    }

    #[test]
    fn a_chunk_beyond_the_balance_is_withheld_until_ticks_pay_for_it() {
        let mut bucket = Bucket::default();
        let mut flow = Flow::new(Rates { max: 1000, min: 10 }, &mut bucket, ms(0));
        assert_eq!(flow.chunk(800, &mut bucket, ms(0)), Ok(Chunk::Clear));
        assert_eq!(flow.chunk(300, &mut bucket, ms(0)), Ok(Chunk::Withheld));
        assert_eq!(flow.tick(&mut bucket, ms(50)), Ok(Chunk::Withheld));
        assert_eq!(flow.tick(&mut bucket, ms(99)), Ok(Chunk::Withheld));
        assert_eq!(flow.tick(&mut bucket, ms(100)), Ok(Chunk::Clear));
        assert_eq!(bucket.balance, 0);
        assert_eq!((flow.total_chunks(), flow.delayed_chunks()), (2, 1));
    }

    #[test]
    fn a_silent_client_underflows_after_a_second() {
        let mut bucket = Bucket::default();
        let mut flow = Flow::new(Rates { max: 0, min: 1000 }, &mut bucket, ms(0));
        for tick in 1..20 {
            assert_eq!(flow.tick(&mut bucket, TICK * tick), Ok(Chunk::Clear));
        }
        assert_eq!(flow.tick(&mut bucket, TICK * 20), Err(Underflow));
    }

    #[test]
    fn a_client_which_sends_is_credited_with_at_most_a_second() {
        let mut bucket = Bucket::default();
        let mut flow = Flow::new(Rates { max: 0, min: 1000 }, &mut bucket, ms(0));
        assert_eq!(flow.tick(&mut bucket, ms(900)), Ok(Chunk::Clear));
        assert_eq!(flow.chunk(1 << 20, &mut bucket, ms(900)), Ok(Chunk::Clear));
        assert_eq!(flow.tick(&mut bucket, ms(1800)), Ok(Chunk::Clear));
        assert_eq!(flow.tick(&mut bucket, ms(1900)), Err(Underflow));
    }

    #[test]
    fn a_throttled_client_is_not_at_fault() {
        let mut bucket = Bucket::default();
        let mut flow = Flow::new(Rates { max: 10, min: 1000 }, &mut bucket, ms(0));
        assert_eq!(flow.chunk(50, &mut bucket, ms(0)), Ok(Chunk::Withheld));
        for tick in 1..=80 {
            let expected = if tick == 80 { Chunk::Clear } else { Chunk::Withheld };
            assert_eq!(flow.tick(&mut bucket, TICK * tick), Ok(expected), "tick {tick}");
        }
        assert_eq!(flow.tick(&mut bucket, TICK * 81), Ok(Chunk::Clear), "its own second begins now");
    }

    #[test]
    fn chunks_that_leave_no_time_for_ticks_are_measured_too() {
        let mut bucket = Bucket::default();
        let mut flow = Flow::new(Rates { max: 0, min: 1000 }, &mut bucket, ms(0));
        // Fast enough, for long: a pause after it is measured from the last chunk.
        for at in 1..500 {
            assert_eq!(flow.chunk(100, &mut bucket, ms(at * 40)), Ok(Chunk::Clear));
        }
        assert_eq!(flow.tick(&mut bucket, ms(20_500)), Ok(Chunk::Clear));
        // A byte now and then does not count for a second.
        let slow = (1..500).map(|n| flow.chunk(1, &mut bucket, ms(20_500 + n * 40)));
        let slow: Result<Vec<_>, _> = slow.collect();
        assert_eq!(slow, Err(Underflow));
    }

    #[test]
    fn time_that_the_broker_takes_is_excused() {
        let mut bucket = Bucket::default();
        let mut flow = Flow::new(Rates { max: 0, min: 1000 }, &mut bucket, ms(0));
        flow.excuse(ms(5000));
        assert_eq!(flow.tick(&mut bucket, ms(5900)), Ok(Chunk::Clear));
        assert_eq!(flow.tick(&mut bucket, ms(6000)), Err(Underflow));
    }

    #[test]
    fn a_minimum_of_zero_never_underflows() {
        let mut bucket = Bucket::default();
        let mut flow = Flow::new(Rates { max: 0, min: 0 }, &mut bucket, ms(0));
        assert_eq!(flow.tick(&mut bucket, ms(1 << 40)), Ok(Chunk::Clear));
    }

    #[test]
    fn a_lifted_maximum_clears_what_was_withheld() {
        let mut bucket = Bucket::default();
        let mut flow = Flow::new(Rates { max: 10, min: 1000 }, &mut bucket, ms(0));
        assert_eq!(flow.chunk(1 << 20, &mut bucket, ms(0)), Ok(Chunk::Withheld));
        flow.lift_max();
        assert_eq!(flow.tick(&mut bucket, TICK), Ok(Chunk::Clear));
    }

    proptest! {
        /// However streams interleave, a journal takes at most its burst and its rate.
        #[test]
        fn a_journal_never_takes_more_than_its_rate(
            max in 1..10_000_i64, steps in proptest::collection::vec((0..3_usize, 0..5000_usize, 0..200_u64), 1..100),
        ) {
            let (mut bucket, mut now, mut taken) = (Bucket::default(), ms(0), 0);
            let rates = Rates { max, min: 0 };
            let mut flows = [0; 3].map(|_| (Flow::new(rates, &mut bucket, now), 0));
            for (stream, bytes, wait) in steps {
                now += ms(wait);
                let (flow, withheld) = &mut flows[stream];
                let chunk = if *withheld == 0 {
                    *withheld = bytes;
                    flow.chunk(bytes, &mut bucket, now).unwrap()
                } else {
                    flow.tick(&mut bucket, now).unwrap()
                };
                if chunk == Chunk::Clear {
                    taken += i64::try_from(std::mem::take(withheld)).unwrap();
                }
                let allowed = max + max * i64::try_from(now.as_millis()).unwrap() / 1000;
                prop_assert!(taken <= allowed, "{taken} of {allowed}");
            }
        }
    }
}
