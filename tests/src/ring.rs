//! What is replaced while it is in use, in three steps: what is new is accepted, then used, and then what was there before is
//! accepted no more. Keys of tokens are replaced so, and authorities of certificates. Pure.

use std::fmt;

/// A step of a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All accept what is new.
    Accept,
    /// All use it.
    Use,
    /// All refuse what was there before.
    Retire,
}

impl Step {
    /// The steps of a replacement, in order.
    pub const ALL: [Step; 3] = [Step::Accept, Step::Use, Step::Retire];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Accept => "accept",
            Step::Use => "use",
            Step::Retire => "retire",
        })
    }
}

/// Everything that is accepted, and which of it is used.
#[derive(Clone, Debug)]
pub struct Ring<T> {
    /// By age, never empty.
    accepted: Vec<T>,
    used: usize,
}

impl<T> Ring<T> {
    /// A ring of one.
    pub fn new(only: T) -> Ring<T> {
        Ring { accepted: vec![only], used: 0 }
    }

    /// Accepts one more, which is not used yet.
    pub fn accept(&mut self, fresh: T) {
        self.accepted.push(fresh);
    }

    /// Uses the newest.
    pub fn use_newest(&mut self) {
        self.used = self.accepted.len() - 1;
    }

    /// Accepts only what is used.
    pub fn retire(&mut self) {
        let used = self.accepted.swap_remove(self.used);
        (self.accepted, self.used) = (vec![used], 0);
    }

    /// What is used.
    pub fn used(&self) -> &T {
        &self.accepted[self.used]
    }

    /// What has been accepted for the longest time.
    pub fn oldest(&self) -> &T {
        &self.accepted[0]
    }

    /// All that is accepted, what is used first.
    pub fn accepted(&self) -> impl Iterator<Item = &T> {
        let others = self.accepted.iter().enumerate().filter(|(index, _)| *index != self.used);
        std::iter::once(self.used()).chain(others.map(|(_, other)| other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_accepted_then_used_and_the_old_one_is_retired() {
        let mut ring = Ring::new("a");
        let mut seen = Vec::new();
        for fresh in ["b", "c"] {
            for step in Step::ALL {
                match step {
                    Step::Accept => ring.accept(fresh),
                    Step::Use => ring.use_newest(),
                    Step::Retire => ring.retire(),
                }
                let accepted: Vec<&str> = ring.accepted().copied().collect();
                assert_eq!(accepted[0], *ring.used());
                seen.push(format!("{step}: {} oldest {}", accepted.join(","), ring.oldest()));
            }
        }
        assert_eq!(
            seen,
            [
                "accept: a,b oldest a",
                "use: b,a oldest a",
                "retire: b oldest b",
                "accept: b,c oldest b",
                "use: c,b oldest b",
                "retire: c oldest c",
            ]
        );
    }
}
