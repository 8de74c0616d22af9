//! The seed of a random test: taken from `COURANT_SEED`, else new; always printed, so that a failure can be run again.

use rand::SeedableRng;
use rand::rngs::StdRng;
use runtime::Entropy;

/// A generator for the test called `name`, after printing how to repeat it.
pub fn rng(name: &str) -> StdRng {
    #[expect(clippy::disallowed_methods, reason = "the environment is a test's only command line")]
    let seed = match std::env::var("COURANT_SEED") {
        Ok(text) => text.parse().expect("COURANT_SEED is a number"),
        Err(_) => Entropy::system().u64(),
    };
    println!("{name}: COURANT_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// A positive count from the environment variable `name`, else `default`.
pub fn count(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the environment is a test's only command line")]
    let value = std::env::var(name);
    value.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}
