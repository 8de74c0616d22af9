//! The state of a sequencer as it is checkpointed, and its wire form.

use crate::{Clock, ProducerId};
use bytes::Bytes;
use proto::consumer::{ProducerState as WireState, checkpoint};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How far a journal was read, and what is known of its producers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceState {
    /// The journal as it is read, `;meta` included.
    pub journal: Arc<str>,
    /// Offset to read next. None while the very first sequence of the journal is being delivered.
    pub read_through: Option<i64>,
    /// In ascending order of producers.
    pub producers: Vec<ProducerState>,
}

/// What is known of a producer in a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// Who.
    pub producer: ProducerId,
    /// Clock of the last message which was acknowledged and processed.
    pub last_ack: Clock,
    /// Offset of the first message of the open sequence, if there is one.
    pub begin: Option<i64>,
}

/// A checkpoint which cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("journal {journal}: producer id has {found} bytes, expected 6")]
pub struct InvalidProducer {
    journal: String,
    found: usize,
}

/// The wire form of a state, by journal.
pub fn to_sources(states: Vec<SourceState>) -> BTreeMap<String, checkpoint::Source> {
    let entry = |state: ProducerState| checkpoint::ProducerEntry {
        id: Bytes::copy_from_slice(&state.producer.0),
        state: Some(WireState { last_ack: state.last_ack.0, begin: state.begin.unwrap_or(-1) }),
    };
    let source = |state: SourceState| checkpoint::Source {
        read_through: state.read_through.unwrap_or(0),
        producers: state.producers.into_iter().map(entry).collect(),
    };
    states.into_iter().map(|state| (state.journal.to_string(), source(state))).collect()
}

/// The state of a wire form. Its producers are ordered; an open sequence of a negative offset is none.
pub fn from_sources(
    sources: &BTreeMap<String, checkpoint::Source>,
) -> Result<Vec<SourceState>, InvalidProducer> {
    sources.iter().map(|(journal, source)| source_state(journal, source)).collect()
}

fn source_state(journal: &str, source: &checkpoint::Source) -> Result<SourceState, InvalidProducer> {
    let mut producers = Vec::with_capacity(source.producers.len());
    for entry in &source.producers {
        let id = <[u8; 6]>::try_from(entry.id.as_ref())
            .map_err(|_| InvalidProducer { journal: journal.to_owned(), found: entry.id.len() })?;
        let state = entry.state.unwrap_or_default();
        producers.push(ProducerState {
            producer: ProducerId(id),
            last_ack: Clock(state.last_ack),
            begin: Some(state.begin).filter(|begin| *begin >= 0),
        });
    }
    producers.sort_by_key(|state| state.producer);
    Ok(SourceState { journal: journal.into(), read_through: Some(source.read_through), producers })
}
