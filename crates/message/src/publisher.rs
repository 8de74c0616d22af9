//! The pure part of a publisher: stamps messages, and remembers which journals await an acknowledgement.
//!
//! A transaction publishes messages which readers hold back until its acknowledgement. The acknowledgements are built as
//! *intents* at the end of the transaction. The caller must make all of them durable before it appends any, and must
//! append all of them again after a fault: that is harmless, as readers ignore an acknowledgement which they have seen.

use crate::{ClockSource, Flags, Framing, Message, MessageError, ProducerId, Uuid};
use bytes::Bytes;
use proto::JournalName;
use std::collections::HashSet;
use std::sync::Arc;

/// An acknowledgement which the end of the transaction will stamp and frame.
struct Pending {
    journal: JournalName,
    framing: Framing,
    acknowledgement: Box<dyn Message>,
}

/// Stamps the messages of one producer, with clocks which increase.
pub struct PublisherCore {
    producer: ProducerId,
    clock: Arc<ClockSource>,
    /// In the order of first publish.
    pending: Vec<Pending>,
    /// Journals of `pending`.
    journals: HashSet<JournalName>,
}

impl PublisherCore {
    /// A publisher of a fresh producer. The caller updates the clock to wall time as it sees fit.
    pub fn new(producer: ProducerId, clock: Arc<ClockSource>) -> PublisherCore {
        PublisherCore { producer, clock, pending: Vec::new(), journals: HashSet::new() }
    }

    /// Who publishes.
    pub fn producer(&self) -> ProducerId {
        self.producer
    }

    /// The clock which stamps messages.
    pub fn clock(&self) -> &Arc<ClockSource> {
        &self.clock
    }

    /// Stamps a message with the next clock and appends its frame to `out`. Called within the journal's append slot:
    /// only there is the order of clocks the order of bytes.
    pub fn stamp<M: Message>(
        &self,
        message: &mut M,
        flags: Flags,
        framing: Framing,
        out: &mut Vec<u8>,
    ) -> Result<(), MessageError> {
        message.set_uuid(Uuid::build(self.producer, self.clock.tick(), flags));
        message.encode(framing, out)
    }

    /// Remembers that `message` was published to `journal` as part of the running transaction.
    pub fn expect_acknowledgement<M: Message>(
        &mut self,
        journal: &JournalName,
        framing: Framing,
        message: &M,
    ) {
        if !self.journals.contains(journal) {
            self.journals.insert(journal.clone());
            let acknowledgement = Box::new(message.new_acknowledgement(journal));
            self.pending.push(Pending { journal: journal.clone(), framing, acknowledgement });
        }
    }

    /// Frames an acknowledgement for each journal of the transaction, in the order of first publish, and begins the next
    /// transaction. After an error the transaction cannot be committed.
    pub fn build_ack_intents(&mut self) -> Result<Vec<(JournalName, Bytes)>, MessageError> {
        let mut intents = Vec::with_capacity(self.pending.len());
        self.journals.clear();
        for Pending { journal, framing, mut acknowledgement } in self.pending.drain(..) {
            let mut frame = Vec::new();
            acknowledgement.set_uuid(Uuid::build(self.producer, self.clock.tick(), Flags::ACK_TXN));
            acknowledgement.encode(framing, &mut frame)?;
            intents.push((journal, Bytes::from(frame)));
        }
        Ok(intents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csv::CsvRecord;

    fn publisher() -> PublisherCore {
        PublisherCore::new(ProducerId([1, 2, 3, 4, 5, 6]), Arc::new(ClockSource::new()))
    }

    fn record() -> CsvRecord {
        CsvRecord::new(vec![Uuid::default().to_string(), "value".to_owned()]).unwrap()
    }

    fn clocks_of(intents: &[(JournalName, Bytes)]) -> Vec<(String, u64, u16)> {
        let parse = |frame: &Bytes| {
            let mut ack = CsvRecord::default();
            ack.decode(Framing::Csv, frame.strip_suffix(b"\n").unwrap()).unwrap();
            assert_eq!(ack.fields()[1], "", "acknowledgements are empty");
            ack.uuid()
        };
        intents
            .iter()
            .map(|(j, frame)| (j.to_string(), parse(frame).clock().0, parse(frame).flags().0))
            .collect()
    }

    #[test]
    fn each_stamp_takes_the_next_clock() {
        let (publisher, mut out) = (publisher(), Vec::new());
        for clock in [160, 320, 480] {
            let mut message = record();
            publisher.stamp(&mut message, Flags::OUTSIDE_TXN, Framing::Csv, &mut out).unwrap();
            assert_eq!((message.uuid().clock().0, message.uuid().flags()), (clock, Flags::OUTSIDE_TXN));
            assert_eq!(message.uuid().producer(), publisher.producer());
        }
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 3);
    }

    #[test]
    fn intents_are_built_per_journal_in_order_of_first_publish() {
        let (mut publisher, mut out) = (publisher(), Vec::new());
        let (one, two) =
            (JournalName::parse("journal/one").unwrap(), JournalName::parse("journal/two").unwrap());
        let mut transaction = |order: &[&JournalName]| {
            for journal in order {
                let mut message = record();
                publisher.stamp(&mut message, Flags::CONTINUE_TXN, Framing::Csv, &mut out).unwrap();
                publisher.expect_acknowledgement(journal, Framing::Csv, &message);
            }
            clocks_of(&publisher.build_ack_intents().unwrap())
        };
        assert_eq!(
            transaction(&[&one, &two]),
            [("journal/one".to_owned(), 480, 2), ("journal/two".to_owned(), 640, 2)]
        );
        assert_eq!(
            transaction(&[&two, &one, &two]),
            [("journal/two".to_owned(), 1280, 2), ("journal/one".to_owned(), 1440, 2)]
        );
        assert_eq!(transaction(&[]), []);
    }
}
