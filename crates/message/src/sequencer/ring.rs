//! The ring: recently read messages, bounded by number and by bytes, oldest evicted first.
//!
//! Messages of one open sequence are linked, so that a commit finds them without a search.

use crate::{Clock, Envelope};
use std::collections::VecDeque;

/// Names a message which was added to the ring. Never used twice.
pub(super) type SlotId = u64;

/// A message of the ring. Its envelope is gone once it was delivered or its sequence was rolled back.
pub(super) struct Slot<M> {
    pub envelope: Option<Envelope<M>>,
    pub clock: Clock,
    /// Where the journal held the message.
    pub begin: i64,
    /// Index of the sequence it belongs to, as of when it was added.
    pub producer: usize,
    /// The sequence's following message in the ring.
    pub next: Option<SlotId>,
}

pub(super) struct Ring<M> {
    slots: VecDeque<Slot<M>>,
    /// The id of the front slot.
    front: SlotId,
    slots_max: usize,
    bytes_max: usize,
    /// Journal bytes of the envelopes which are present.
    bytes: usize,
}

impl<M> Ring<M> {
    /// Holds at least one message, whatever the bounds.
    pub fn new(slots_max: usize, bytes_max: usize) -> Ring<M> {
        Ring { slots: VecDeque::new(), front: 0, slots_max: slots_max.max(1), bytes_max, bytes: 0 }
    }

    /// Whether the oldest message must go before one of `incoming` bytes can be added.
    pub fn is_full_for(&self, incoming: usize) -> bool {
        !self.slots.is_empty()
            && (self.slots.len() >= self.slots_max || self.bytes.saturating_add(incoming) > self.bytes_max)
    }

    /// Removes the oldest message.
    pub fn evict(&mut self) -> Option<(SlotId, Slot<M>)> {
        let slot = self.slots.pop_front()?;
        self.front += 1;
        self.bytes -= slot.envelope.as_ref().map_or(0, bytes_of);
        Some((self.front - 1, slot))
    }

    /// Adds a message as the newest.
    pub fn push(&mut self, producer: usize, clock: Clock, envelope: Envelope<M>) -> SlotId {
        self.bytes += bytes_of(&envelope);
        let begin = envelope.begin;
        self.slots.push_back(Slot { envelope: Some(envelope), clock, begin, producer, next: None });
        self.front + (self.slots.len() as u64 - 1)
    }

    /// Links `id`, which is in the ring, to its sequence's following message.
    pub fn link(&mut self, id: SlotId, next: SlotId) {
        self.slot_mut(id).next = Some(next);
    }

    /// A slot which is in the ring.
    pub fn slot(&self, id: SlotId) -> &Slot<M> {
        &self.slots[(id - self.front) as usize]
    }

    /// Takes the envelope of a slot which is in the ring.
    pub fn take(&mut self, id: SlotId) -> Option<Envelope<M>> {
        let envelope = self.slot_mut(id).envelope.take();
        self.bytes -= envelope.as_ref().map_or(0, bytes_of);
        envelope
    }

    /// Frees the messages from `first` along their links. Their slots stay until they are evicted.
    pub fn discard_from(&mut self, first: Option<SlotId>) {
        let mut at = first;
        while let Some(id) = at {
            self.take(id);
            at = self.slot(id).next;
        }
    }

    fn slot_mut(&mut self, id: SlotId) -> &mut Slot<M> {
        &mut self.slots[(id - self.front) as usize]
    }
}

/// Journal bytes of a frame, which stand for the memory of its message.
pub(super) fn bytes_of<M>(envelope: &Envelope<M>) -> usize {
    usize::try_from(envelope.end.saturating_sub(envelope.begin)).unwrap_or(0)
}
