//! Checkpoints of consumer transactions, and maps of offsets.

use crate::consumer::{Checkpoint, checkpoint};
use crate::invalid::{Invalid, Validate, ensure};
use crate::names::{Parents, check_journal};
use std::collections::BTreeMap;

/// Bytes of a producer's id.
const PRODUCER_ID_LEN: usize = 6;

impl Validate for Checkpoint {
    fn validate(&self) -> Result<(), Invalid> {
        for (journal, source) in &self.sources {
            check_journal(journal, Parents::Permit)
                .and_then(|()| source.validate())
                .map_err(|e| e.within(format!("Sources[{journal}]")))?;
        }
        for journal in self.ack_intents.keys() {
            check_journal(journal, Parents::Permit)
                .map_err(|e| e.within(format!("AckIntents[{journal}]")))?;
        }
        Ok(())
    }
}

impl Validate for checkpoint::Source {
    fn validate(&self) -> Result<(), Invalid> {
        ensure!(self.read_through >= 0, "invalid ReadThrough ({}; expected >= 0)", self.read_through);
        for (i, producer) in self.producers.iter().enumerate() {
            producer.validate().map_err(|e| e.within(format!("Producers[{i}]")))?;
        }
        Ok(())
    }
}

impl Validate for checkpoint::ProducerEntry {
    fn validate(&self) -> Result<(), Invalid> {
        ensure!(
            self.id.len() == PRODUCER_ID_LEN,
            "invalid Id (length {}; expected {PRODUCER_ID_LEN})",
            self.id.len()
        );
        let begin = self.state.as_ref().map_or(0, |state| state.begin);
        ensure!(begin >= -1, "invalid State.Begin ({begin}; expected >= -1)");
        Ok(())
    }
}

/// Checks a map of journals, which may have metadata segments, to offsets.
pub(crate) fn check_offsets(offsets: &BTreeMap<String, i64>) -> Result<(), Invalid> {
    for (journal, offset) in offsets {
        let outcome = check_journal(journal, Parents::Permit).and_then(|()| {
            ensure!(*offset >= 0, "invalid offset ({offset}; expected >= 0)");
            Ok(())
        });
        outcome.map_err(|e| e.within(format!("Offsets[{journal}]")))?;
    }
    Ok(())
}
