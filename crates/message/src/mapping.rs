//! Mappings: which journal of a partitioned topic receives a message (journal messages §2.4).
//!
//! All choose among the journals of a List response, sorted by name. Choices by key depend only on the key and the
//! number (modulo) or the names (rendezvous) of journals, so every process makes the same ones.

use crate::Framing;
use crate::framing::UnknownContentType;
use proto::protocol::list_response;
use proto::{JournalName, labels};

/// A journal and how messages are framed in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where the message goes.
    pub journal: JournalName,
    /// How it is framed there, by the journal's `content-type` label.
    pub framing: Framing,
}

/// Why no journal was chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// No journal matches.
    #[error("empty ListResponse")]
    Empty,
    /// The chosen journal holds no messages.
    #[error("journal {journal}: {error}")]
    ContentType {
        /// The chosen journal.
        journal: JournalName,
        /// Its content type.
        error: UnknownContentType,
    },
    /// The chosen journal has no valid name.
    #[error("{0}")]
    Name(proto::Invalid),
    /// The application's own mapping failed.
    #[error("{0}")]
    Other(String),
}

/// The journals which a topic's messages are spread over: prepared once for each List response.
#[derive(Clone, Debug, Default)]
pub struct Partitions {
    targets: Vec<Result<Target, MappingError>>,
    name_hashes: Vec<u32>,
}

impl Partitions {
    /// Prepares the journals of a List response, keeping their order.
    pub fn new(journals: &[list_response::Journal]) -> Partitions {
        let specs = journals.iter().map(|journal| journal.spec.as_ref());
        Partitions {
            name_hashes: specs
                .clone()
                .map(|spec| fnv1a_32(spec.map_or("", |spec| &spec.name).as_bytes()))
                .collect(),
            targets: specs
                .map(|spec| {
                    let name =
                        JournalName::parse(spec.map_or("", |spec| &spec.name)).map_err(MappingError::Name)?;
                    let labels = spec.and_then(|spec| spec.labels.as_ref());
                    let content_type =
                        labels.and_then(|labels| labels.value_of(labels::CONTENT_TYPE)).unwrap_or("");
                    match Framing::by_content_type(content_type) {
                        Ok(framing) => Ok(Target { journal: name, framing }),
                        Err(error) => Err(MappingError::ContentType { journal: name, error }),
                    }
                })
                .collect(),
        }
    }

    /// How many journals there are.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there is no journal to choose.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Chooses uniformly, given a random number.
    pub fn random(&self, random: u64) -> Result<&Target, MappingError> {
        self.target(((u128::from(random) * self.len() as u128) >> 64) as usize)
    }

    /// Chooses by the key's hash, modulo the number of journals.
    pub fn modulo(&self, key: &[u8]) -> Result<&Target, MappingError> {
        self.target((fnv1a_32(key) as usize).checked_rem(self.len()).unwrap_or(0))
    }

    /// Chooses the journal whose name's hash differs most from the key's: most keys stay when journals come and go.
    pub fn rendezvous(&self, key: &[u8]) -> Result<&Target, MappingError> {
        let key_hash = fnv1a_32(key);
        let (mut best, mut best_weight) = (0, 0);
        for (index, name_hash) in self.name_hashes.iter().enumerate() {
            if name_hash ^ key_hash > best_weight {
                (best, best_weight) = (index, name_hash ^ key_hash);
            }
        }
        self.target(best)
    }

    fn target(&self, index: usize) -> Result<&Target, MappingError> {
        self.targets.get(index).ok_or(MappingError::Empty)?.as_ref().map_err(Clone::clone)
    }
}

/// FNV-1a, 32 bits: part of the protocol, since it decides where keys live.
fn fnv1a_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::protocol::{JournalSpec, LabelSet};

    fn partitions(count: usize) -> Partitions {
        let journal = |index| list_response::Journal {
            spec: Some(JournalSpec {
                name: format!("a/topic/part-{index:03}"),
                labels: Some(LabelSet::from_pairs([(labels::CONTENT_TYPE, labels::CONTENT_TYPE_JSON_LINES)])),
                ..Default::default()
            }),
            ..Default::default()
        };
        Partitions::new(&(0..count).map(journal).collect::<Vec<_>>())
    }

    fn part(index: usize) -> String {
        format!("a/topic/part-{index:03}")
    }

    #[test]
    fn modulo_maps_keys_as_every_implementation_does() {
        let partitions = partitions(443);
        for (key, index) in [
            ("It always", 119),
            ("seems", 54),
            ("impossible", 308),
            ("until", 97),
            ("it is done.", 179),
            ("- Nelson Mandela", 437),
        ] {
            assert_eq!(partitions.modulo(key.as_bytes()).unwrap().journal.as_str(), part(index), "{key}");
        }
    }

    #[test]
    fn rendezvous_keeps_keys_when_journals_are_added() {
        for partitions in [partitions(400), partitions(500)] {
            for (key, index) in [
                ("It always", 21),
                ("seems", 179),
                ("impossible", 50),
                ("until", 13),
                ("it is done.", 337),
                ("- Nelson Mandela", 29),
            ] {
                assert_eq!(
                    partitions.rendezvous(key.as_bytes()).unwrap().journal.as_str(),
                    part(index),
                    "{key}"
                );
            }
        }
    }

    #[test]
    fn random_spreads_over_all_journals() {
        let partitions = partitions(4);
        let chosen = |random: u64| partitions.random(random).unwrap().journal.as_str().to_owned();
        assert_eq!([0, 1 << 62, 1 << 63, u64::MAX].map(chosen), [0, 1, 2, 3].map(part));
    }

    #[test]
    fn nothing_to_choose_and_nothing_to_frame_are_errors() {
        let none = Partitions::new(&[]);
        for result in [none.random(7), none.modulo(b"k"), none.rendezvous(b"k")] {
            assert_eq!(result.unwrap_err().to_string(), "empty ListResponse");
        }
        let log = list_response::Journal {
            spec: Some(JournalSpec {
                name: "a/log".to_owned(),
                labels: Some(LabelSet::from_pairs([(
                    labels::CONTENT_TYPE,
                    labels::CONTENT_TYPE_RECOVERY_LOG,
                )])),
                ..Default::default()
            }),
            ..Default::default()
        };
        let error = Partitions::new(&[log]).random(0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "journal a/log: unrecognized content-type (application/x-gazette-recoverylog)"
        );
    }
}
