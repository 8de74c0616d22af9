//! Time, as a value that is passed in.
//!
//! A [`Clock`] answers both questions that code asks about time: how much has passed (monotonic, [`Clock::now`]) and
//! what date it is ([`Clock::unix_now`]). Monotonic time and sleeping follow tokio's clock, so a test that pauses
//! tokio's time pauses every holder of a clock. Wall time is the system's, or, for an anchored clock, the anchor plus
//! the monotonic time that passed since.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
pub use tokio::time::Instant;

/// How often a wait for a date looks at the wall clock again, which may have been set.
const WALL_LOOK: Duration = Duration::from_secs(60);

/// The time ran out before the operation completed. Maps to gRPC `DeadlineExceeded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("deadline exceeded")]
pub struct Elapsed;

#[derive(Debug, Clone)]
enum Wall {
    System { skew: Duration },
    Anchored { unix: Duration, at: Instant },
    Steered { skew: Duration, ahead: watch::Receiver<Duration> },
}

/// Moves the wall time of a [`Clock::steered`] and its clones, for tests.
#[derive(Debug)]
pub struct ClockSteering(watch::Sender<Duration>);

impl ClockSteering {
    /// Moves wall time ahead. Whoever waits for a date that is then over goes on.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|ahead| *ahead += by);
    }
}

/// A source of monotonic and wall time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock {
    wall: Wall,
}

impl Clock {
    /// The clock of this machine.
    pub fn system() -> Clock {
        Clock { wall: Wall::System { skew: Duration::ZERO } }
    }

    /// A clock whose wall time is `unix` (since the epoch) now and moves with tokio's monotonic time, paused or not.
    pub fn anchored(unix: Duration) -> Clock {
        Clock { wall: Wall::Anchored { unix, at: monotonic() } }
    }

    /// The clock of this machine, whose wall time a test moves ahead. Monotonic time stays the machine's.
    pub fn steered() -> (Clock, ClockSteering) {
        let (sender, ahead) = watch::channel(Duration::ZERO);
        (Clock { wall: Wall::Steered { skew: Duration::ZERO, ahead } }, ClockSteering(sender))
    }

    /// This clock with its wall time moved ahead by `skew`, for tests of disagreeing machines.
    pub fn with_skew(&self, skew: Duration) -> Clock {
        let wall = match self.wall.clone() {
            Wall::System { skew: was } => Wall::System { skew: was + skew },
            Wall::Anchored { unix, at } => Wall::Anchored { unix: unix + skew, at },
            Wall::Steered { skew: was, ahead } => Wall::Steered { skew: was + skew, ahead },
        };
        Clock { wall }
    }

    /// Monotonic time.
    pub fn now(&self) -> Instant {
        monotonic()
    }

    /// Wall time since the Unix epoch. Not monotonic: the machine's clock may be set back.
    pub fn unix_now(&self) -> Duration {
        match &self.wall {
            Wall::System { skew } => system_unix() + *skew,
            Wall::Anchored { unix, at } => *unix + monotonic().duration_since(*at),
            Wall::Steered { skew, ahead } => system_unix() + *skew + *ahead.borrow(),
        }
    }

    /// Wall time in whole seconds since the Unix epoch.
    pub fn unix_seconds(&self) -> i64 {
        i64::try_from(self.unix_now().as_secs()).unwrap_or(i64::MAX)
    }

    /// Waits for `duration` to pass.
    #[expect(clippy::disallowed_methods, reason = "this is the seam that the ban points to")]
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Waits until `deadline`, at once if it has passed.
    pub async fn sleep_until(&self, deadline: Instant) {
        tokio::time::sleep_until(deadline).await;
    }

    /// Waits until wall time is `unix` (since the epoch), at once if that is over. Notices within a minute if the machine's
    /// clock was set.
    pub async fn sleep_until_unix(&self, unix: Duration) {
        let mut steered = match &self.wall {
            Wall::Steered { ahead, .. } => Some(ahead.clone()),
            Wall::System { .. } | Wall::Anchored { .. } => None,
        };
        loop {
            let wait = unix.saturating_sub(self.unix_now());
            if wait.is_zero() {
                return;
            }
            tokio::select! {
                biased;
                () = moved(&mut steered) => {}
                () = self.sleep(wait.min(WALL_LOOK)) => {}
            }
        }
    }

    /// Runs `future` for at most `limit`.
    ///
    /// # Errors
    /// [`Elapsed`] if the future did not complete in time; it is then dropped.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(limit, future).await.map_err(|_| Elapsed)
    }

    /// Runs `future` until `deadline`.
    ///
    /// # Errors
    /// [`Elapsed`] if the future did not complete in time; it is then dropped.
    pub async fn timeout_at<F: Future>(&self, deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout_at(deadline, future).await.map_err(|_| Elapsed)
    }
}

/// Waits until a test has moved wall time.
async fn moved(steered: &mut Option<watch::Receiver<Duration>>) {
    // An error means that nobody moves it any more.
    if let Some(ahead) = steered
        && ahead.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::system()
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the seam that the ban points to")]
fn monotonic() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this is the seam that the ban points to")]
fn system_unix() -> Duration {
    // A machine whose clock is before 1970 is treated as being at the epoch.
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_anchored_clock_follows_paused_time() {
        let clock = Clock::anchored(Duration::from_secs(1_000));
        clock.sleep(Duration::from_secs(3_600)).await;
        assert_eq!(clock.unix_now(), Duration::from_secs(4_600));
        assert_eq!(clock.with_skew(Duration::from_secs(5)).unix_seconds(), 4_605);
    }

    #[tokio::test(start_paused = true)]
    async fn a_date_is_waited_for_in_wall_time() {
        let clock = Clock::anchored(Duration::from_secs(1_000));
        let begun = clock.now();
        clock.sleep_until_unix(Duration::from_secs(5_000)).await;
        assert_eq!((clock.unix_seconds(), clock.now() - begun), (5_000, Duration::from_secs(4_000)));
        clock.sleep_until_unix(Duration::from_secs(7)).await;
        assert_eq!(clock.unix_seconds(), 5_000);
    }

    #[tokio::test]
    async fn a_test_moves_wall_time_under_those_who_wait() {
        let (clock, steering) = Clock::steered();
        let clone = clock.with_skew(Duration::from_secs(60));
        let (begun, hour) = (clock.now(), Duration::from_secs(3_600));
        let mut wait = Box::pin(clone.sleep_until_unix(clone.unix_now() + hour));
        assert!(futures::poll!(&mut wait).is_pending());
        steering.advance(hour / 2);
        assert!(futures::poll!(&mut wait).is_pending());
        steering.advance(hour / 2);
        wait.await;
        assert!(clock.now() - begun < hour);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_names_itself() {
        let clock = Clock::system();
        let outcome = clock.timeout(Duration::from_millis(5), std::future::pending::<()>()).await;
        assert_eq!(outcome, Err(Elapsed));
        assert_eq!(clock.timeout(Duration::from_millis(5), async { 7 }).await, Ok(7));
    }
}
