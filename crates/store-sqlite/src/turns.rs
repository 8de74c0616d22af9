//! Turns at the one connection, which the shard's transactions and readers take.
//!
//! A transaction has its turn from its first statement until its commit is written, so a reader, which waits for a turn of
//! its own, meets whole transactions alone. Turns come in the order in which they were asked for.

use std::sync::{Arc, Weak};
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard};

/// What turns are taken at. Clones share it.
pub(crate) struct Turns<T>(Arc<Mutex<Option<T>>>);

/// [`Turns`] which do not keep it.
pub(crate) struct WeakTurns<T>(Weak<Mutex<Option<T>>>);

/// A turn, which ends when this is dropped.
pub(crate) type Turn<T> = OwnedMappedMutexGuard<Option<T>, T>;

impl<T> Turns<T> {
    pub(crate) fn new(value: T) -> Turns<T> {
        Turns(Arc::new(Mutex::new(Some(value))))
    }

    /// Waits for a turn. None if there are no more.
    pub(crate) async fn next(&self) -> Option<Turn<T>> {
        let turn = Arc::clone(&self.0).lock_owned().await;
        OwnedMutexGuard::try_map(turn, Option::as_mut).ok()
    }

    /// Ends the turns, and waits for the running one: never called from async code, nor by whoever has a turn.
    pub(crate) fn close(&self) -> Option<T> {
        self.0.blocking_lock().take()
    }

    pub(crate) fn downgrade(&self) -> WeakTurns<T> {
        WeakTurns(Arc::downgrade(&self.0))
    }
}

impl<T> Clone for Turns<T> {
    fn clone(&self) -> Turns<T> {
        Turns(Arc::clone(&self.0))
    }
}

impl<T> WeakTurns<T> {
    /// None if there are no more turns.
    pub(crate) fn upgrade(&self) -> Option<Turns<T>> {
        self.0.upgrade().map(Turns)
    }
}

impl<T> Clone for WeakTurns<T> {
    fn clone(&self) -> WeakTurns<T> {
        WeakTurns(Weak::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_come_in_order_and_end() {
        let turns = Turns::new(vec![0]);
        let mut first = turns.next().await.unwrap();
        let mut waiting: Vec<_> = (1..=3).map(|_| Box::pin(turns.next())).collect();
        for next in &mut waiting {
            // Each asks, in this order.
            assert!(futures::poll!(next).is_pending());
        }
        first.push(1);
        drop(first);
        for (next, seen) in waiting.into_iter().zip(1..) {
            let mut turn = next.await.unwrap();
            assert_eq!(turn.len(), seen + 1);
            turn.push(0);
        }

        let weak = turns.downgrade();
        let closed = {
            let turns = turns.clone();
            tokio::task::spawn_blocking(move || turns.close()).await.unwrap()
        };
        assert_eq!(closed.map(|value| value.len()), Some(5));
        assert!(turns.next().await.is_none());
        assert!(weak.upgrade().is_some());
        drop(turns);
        assert!(weak.upgrade().is_none());
    }
}
