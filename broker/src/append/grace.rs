//! Whether appends go on while their journal's first store is not healthy (journal protocol §5.3.1, R10). Pure.
//!
//! What is acknowledged is durable on the disks of the journal's replicas, whether a store takes it soon or later. So a
//! failing store does not stop a journal at once: appends go on for a *grace*, as long as the disk has room, and only then are
//! they refused. Two kinds of journals have none. One that was never appended to more likely names a store that never worked,
//! which its user should hear of at the first append. And a replica which cannot tell where its journal ends unless it lists the
//! store has to wait for that.

use std::time::Duration;

/// How long appends go on without their store unless an option says otherwise. Outages of object stores are over in hours.
pub const OUTAGE_GRACE: Duration = Duration::from_secs(6 * 60 * 60);
/// Bytes that must be free on the disk of spools meanwhile, unless an option says otherwise: what else is written there, and
/// the journals of healthy stores, are not to fail for want of space.
pub const OUTAGE_FREE_BYTES_MIN: u64 = 1 << 30;
/// Time for a store's first health check before it counts as failed. It may take a minute until it fails by itself.
const FIRST_CHECK_LIMIT: Duration = Duration::from_secs(2);
/// Time for an unhealthy store to recover while an append that has no grace waits: about seven checks.
const PATIENCE: Duration = Duration::from_secs(20);

/// The terms of the grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraceOptions {
    /// How long appends go on. Zero: not at all.
    pub grace: Duration,
    /// Bytes that must be free on the disk of spools.
    pub free_bytes_min: u64,
}

/// What is known of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreState {
    /// It works.
    Healthy,
    /// Its first check is under way since this long.
    Unchecked(Duration),
    /// Checks have failed for this long.
    Unhealthy(Duration),
}

/// A journal that is to be appended to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Journal {
    /// Its stores were listed since the replica started.
    pub(super) is_listed: bool,
    /// The replica knows where it ends without its stores: it has adopted spools that hold everything acknowledged.
    pub(super) is_end_known: bool,
    /// It has content, now or before.
    pub(super) has_content: bool,
}

impl Journal {
    /// Whether it can be appended to without its store.
    pub(super) fn may_have_grace(&self) -> bool {
        self.has_content && (self.is_listed || self.is_end_known)
    }
}

/// What an append does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Proceed,
    /// It waits for a change, and asks again after this long at the latest.
    Wait(Option<Duration>),
    /// It is refused: the store is unhealthy.
    Refuse(Reason),
}

/// Why an append is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The journal has no grace, and the store had its time to recover.
    Unhealthy,
    /// The grace is over.
    GraceOver(Duration),
    /// The disk has too little room.
    DiskLow {
        /// Free bytes.
        free: u64,
        /// Expected at least.
        min: u64,
    },
}

/// Judges an append by its journal's first store. `free` are the free bytes of the disk of spools.
pub(super) fn judge(options: &GraceOptions, store: StoreState, journal: Journal, free: u64) -> Verdict {
    let has_grace = !options.grace.is_zero() && journal.may_have_grace();
    match store {
        StoreState::Healthy if journal.is_listed => Verdict::Proceed,
        StoreState::Healthy => Verdict::Wait(None),
        StoreState::Unchecked(since) if has_grace && since < FIRST_CHECK_LIMIT => {
            Verdict::Wait(Some(FIRST_CHECK_LIMIT - since))
        }
        StoreState::Unchecked(_) if !has_grace => Verdict::Wait(None),
        StoreState::Unchecked(since) | StoreState::Unhealthy(since) if has_grace => {
            if since >= options.grace {
                Verdict::Refuse(Reason::GraceOver(options.grace))
            } else if free < options.free_bytes_min {
                Verdict::Refuse(Reason::DiskLow { free, min: options.free_bytes_min })
            } else {
                Verdict::Proceed
            }
        }
        StoreState::Unchecked(since) | StoreState::Unhealthy(since) if since < PATIENCE => {
            Verdict::Wait(Some(PATIENCE - since))
        }
        StoreState::Unchecked(_) | StoreState::Unhealthy(_) => Verdict::Refuse(Reason::Unhealthy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Journal = Journal { is_listed: true, is_end_known: false, has_content: false };
    const LISTED: Journal = Journal { has_content: true, ..NEW };
    const ADOPTED: Journal = Journal { is_listed: false, is_end_known: true, has_content: true };
    const UNKNOWN: Journal = Journal { is_end_known: false, ..ADOPTED };

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_table_of_stores_and_journals() {
        use StoreState::{Healthy, Unchecked, Unhealthy};
        use Verdict::{Proceed, Refuse, Wait};
        let hour = GraceOptions { grace: s(3600), free_bytes_min: 100 };
        let none = GraceOptions { grace: s(0), ..hour };
        let over = Refuse(Reason::GraceOver(s(3600)));
        for (options, store, journal, free, expected) in [
            (hour, Healthy, LISTED, 0, Proceed),
            (hour, Healthy, NEW, 0, Proceed),
            (hour, Healthy, ADOPTED, 0, Wait(None)),
            (hour, Healthy, UNKNOWN, 0, Wait(None)),
            // A store which is just being checked is mostly a healthy one.
            (hour, Unchecked(s(1)), ADOPTED, 100, Wait(Some(s(1)))),
            (hour, Unchecked(s(2)), ADOPTED, 100, Proceed),
            (hour, Unchecked(s(2)), ADOPTED, 99, Refuse(Reason::DiskLow { free: 99, min: 100 })),
            (hour, Unchecked(s(3600)), ADOPTED, 100, over),
            (hour, Unchecked(s(30)), NEW, 100, Wait(None)),
            (none, Unchecked(s(30)), LISTED, 100, Wait(None)),
            (hour, Unhealthy(s(0)), LISTED, 100, Proceed),
            (hour, Unhealthy(s(3599)), ADOPTED, 100, Proceed),
            (hour, Unhealthy(s(3600)), ADOPTED, 100, over),
            (hour, Unhealthy(s(5)), LISTED, 99, Refuse(Reason::DiskLow { free: 99, min: 100 })),
            (hour, Unhealthy(s(5)), UNKNOWN, 100, Wait(Some(s(15)))),
            (hour, Unhealthy(s(20)), UNKNOWN, 100, Refuse(Reason::Unhealthy)),
            (hour, Unhealthy(s(5)), NEW, 100, Wait(Some(s(15)))),
            (hour, Unhealthy(s(20)), NEW, 100, Refuse(Reason::Unhealthy)),
            (none, Unhealthy(s(5)), LISTED, 100, Wait(Some(s(15)))),
            (none, Unhealthy(s(20)), LISTED, 100, Refuse(Reason::Unhealthy)),
        ] {
            let got = judge(&options, store, journal, free);
            assert_eq!(got, expected, "{options:?} {store:?} {journal:?} {free}");
        }
    }
}
