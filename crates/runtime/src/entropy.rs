//! Randomness, as a value that is passed in.
//!
//! [`Entropy::system`] is seeded by the operating system; [`Entropy::seeded`] gives a test or a simulation the same
//! numbers on every run. Clones share one generator. Not for secrets that must resist an attacker who sees outputs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A source of random numbers. Cheap to clone; clones draw from one generator.
#[derive(Clone)]
pub struct Entropy {
    generator: Arc<Mutex<StdRng>>,
}

impl Entropy {
    /// Seeded by the operating system.
    #[expect(clippy::disallowed_methods, reason = "this is the seam that the ban points to")]
    pub fn system() -> Entropy {
        Entropy::of(StdRng::from_rng(&mut rand::rng()))
    }

    /// The same sequence for the same seed.
    pub fn seeded(seed: u64) -> Entropy {
        Entropy::of(StdRng::seed_from_u64(seed))
    }

    fn of(generator: StdRng) -> Entropy {
        Entropy { generator: Arc::new(Mutex::new(generator)) }
    }

    fn draw<T>(&self, f: impl FnOnce(&mut StdRng) -> T) -> T {
        f(&mut self.generator.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A uniform 32-bit number.
    pub fn u32(&self) -> u32 {
        self.draw(|g| g.next_u32())
    }

    /// A uniform 64-bit number.
    pub fn u64(&self) -> u64 {
        self.draw(|g| g.next_u64())
    }

    /// A number of `0..n`, zero if `n` is zero. The bias is below `n / 2^64`.
    pub fn below(&self, n: u64) -> u64 {
        let wide = u128::from(self.u64()) * u128::from(n);
        (wide >> 64) as u64
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.draw(|g| g.fill_bytes(bytes));
    }

    /// A number of `0.0..1.0`.
    pub fn unit(&self) -> f64 {
        (self.u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `duration`, changed by up to `fraction` of itself in either direction. `fraction` is clamped to `0..=1`.
    pub fn jitter(&self, duration: Duration, fraction: f64) -> Duration {
        let fraction = fraction.clamp(0.0, 1.0);
        duration.mul_f64(1.0 + fraction * (2.0 * self.unit() - 1.0))
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entropy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_sequence() {
        let (a, b) = (Entropy::seeded(7), Entropy::seeded(7));
        assert_eq!((a.u64(), a.u32(), a.below(100)), (b.u64(), b.u32(), b.below(100)));
        assert_ne!(Entropy::seeded(8).u64(), Entropy::seeded(7).u64());
        assert_ne!(Entropy::system().u64(), Entropy::system().u64());
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let entropy = Entropy::seeded(1);
        assert_eq!(entropy.below(0), 0);
        for _ in 0..1000 {
            assert!(entropy.below(3) < 3);
            let jittered = entropy.jitter(Duration::from_secs(10), 0.2);
            assert!((8.0..=12.0).contains(&jittered.as_secs_f64()), "{jittered:?}");
        }
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..50).collect();
        Entropy::seeded(3).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
