//! Where the connection of a store is: here, or on a thread which works with it.
//!
//! A connection is used by one thread at a time. Work which may block takes it along, and sends it back when it is done;
//! whoever wants it next waits for that. So works follow each other in the order in which they were started.

use tokio::sync::oneshot;

/// See the module.
pub(crate) struct Slot<T>(Place<T>);

enum Place<T> {
    Here(T),
    Away(oneshot::Receiver<T>),
    /// Whoever had it did not return it.
    Lost,
}

/// By which what was taken comes back.
#[must_use]
pub(crate) struct Return<T>(oneshot::Sender<T>);

impl<T> Slot<T> {
    pub(crate) fn new(value: T) -> Slot<T> {
        Slot(Place::Here(value))
    }

    /// Waits until the value is here. None if it is lost. Nothing is lost if the future is dropped.
    pub(crate) async fn here(&mut self) -> Option<&mut T> {
        if let Place::Away(receiver) = &mut self.0 {
            self.0 = receiver.await.map_or(Place::Lost, Place::Here);
        }
        match &mut self.0 {
            Place::Here(value) => Some(value),
            Place::Away(_) | Place::Lost => None,
        }
    }

    /// Takes what is in the slot now, or will be, and leaves one which waits for its return.
    pub(crate) fn take(&mut self) -> (Slot<T>, Return<T>) {
        let (sender, receiver) = oneshot::channel();
        (Slot(std::mem::replace(&mut self.0, Place::Away(receiver))), Return(sender))
    }

    /// Waits for the value.
    pub(crate) async fn into_value(self) -> Option<T> {
        match self.0 {
            Place::Here(value) => Some(value),
            Place::Away(receiver) => receiver.await.ok(),
            Place::Lost => None,
        }
    }

    /// Waits for the value. Never called from async code.
    pub(crate) fn into_value_blocking(self) -> Option<T> {
        match self.0 {
            Place::Here(value) => Some(value),
            Place::Away(receiver) => receiver.blocking_recv().ok(),
            Place::Lost => None,
        }
    }
}

impl<T> Return<T> {
    /// Gives the value back. Without anyone who waits for it, it is dropped.
    pub(crate) fn give(self, value: T) {
        drop(self.0.send(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn works_follow_each_other_in_order() {
        let mut slot = Slot::new(vec![0]);
        let (first, first_back) = slot.take();
        let (second, second_back) = slot.take();
        let later = tokio::task::spawn_blocking(move || {
            let mut value = second.into_value_blocking().unwrap();
            value.push(2);
            second_back.give(value);
        });
        let mut value = first.into_value().await.unwrap();
        value.push(1);
        first_back.give(value);
        assert_eq!(slot.here().await, Some(&mut vec![0, 1, 2]));
        later.await.unwrap();
    }

    #[tokio::test]
    async fn what_does_not_come_back_is_lost() {
        let mut slot = Slot::new(1);
        let (taken, back) = slot.take();
        {
            let mut waiting = Box::pin(slot.here());
            assert!(futures_poll(&mut waiting).await.is_none());
        }
        drop((taken, back));
        assert_eq!(slot.here().await, None);
        assert_eq!(slot.take().0.into_value().await, None);
    }

    /// Polls once.
    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
