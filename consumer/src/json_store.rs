//! A store which keeps a whole state in memory, and in one JSON file. For small states, tests and first steps: each
//! commit writes all of it.
//!
//! The file `state.json` holds three documents, one after the other: offsets of an older format (always `{}` here, and read), the
//! application's state, and the checkpoint. A commit writes `next.json` and renames it. Readers beside the shard share a copy
//! of the state which the last durable commit was of.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client::{AppendFuture, OpError, OpFuture};
use proto::consumer::{Checkpoint, ProducerState, checkpoint};
use recoverylog::{RecordError, Recorder};
use runtime::{BoxError, OnError, TaskGroup};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Store;

const STATE: &str = "state.json";
const NEXT: &str = "next.json";

/// Files by which other kinds of stores are known.
const OTHER_STORES: [&str; 2] = ["CURRENT", "pageDB"];

/// Why a state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JsonStoreError {
    /// The shard has no recovery log.
    #[error("a JSON file store needs a recovery log, and the shard has none")]
    NoRecorder,
    /// The recovery log is that of a store of another kind, whose checkpoint would be lost.
    #[error(
        "{dir:?} holds {found}, which is of another kind of store; a shard which changes its store needs a new log"
    )]
    OtherStore {
        /// Where.
        dir: PathBuf,
        /// A file of the other store.
        found: &'static str,
    },
    /// A file cannot be read or written.
    #[error("{path:?}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A document is missing, or not what it should be.
    #[error("{document} in {path:?}: {source}")]
    Document {
        /// Which of the documents.
        document: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A reader has outlived its store.
    #[error("the store is closed")]
    Closed,
    /// File operations are no longer recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// See the module. The application changes [`JsonFileStore::state`] as it likes.
pub struct JsonFileStore<S> {
    /// The state, with the changes of the running transaction.
    pub state: S,
    committed: Arc<Mutex<Arc<S>>>,
    recorder: Recorder,
    tasks: TaskGroup,
    restored: Option<Checkpoint>,
}

/// Reads the state as of the last durable commit, from any task. Does not hold the store open. Cheap to clone.
pub struct JsonReader<S> {
    committed: Weak<Mutex<Arc<S>>>,
}

impl<S> JsonReader<S> {
    /// The state: with every transaction whose commit is durable, and nothing of others.
    ///
    /// # Errors
    /// If the store is closed.
    pub fn state(&self) -> Result<Arc<S>, JsonStoreError> {
        let committed = self.committed.upgrade().ok_or(JsonStoreError::Closed)?;
        let state = committed.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(&state))
    }
}

impl<S> Clone for JsonReader<S> {
    fn clone(&self) -> JsonReader<S> {
        JsonReader { committed: Weak::clone(&self.committed) }
    }
}

impl<S: Serialize + DeserializeOwned + Default + Clone + Send + Sync + 'static> JsonFileStore<S> {
    /// Reads the state in the directory of `recorder`; without a file, the state and the checkpoint are the default.
    ///
    /// # Errors
    /// Without a recorder, if the recovery log holds another kind of store, or if the file is not what it should be.
    pub async fn open(
        recorder: Option<Recorder>,
        tasks: &TaskGroup,
    ) -> Result<JsonFileStore<S>, JsonStoreError> {
        let recorder = recorder.ok_or(JsonStoreError::NoRecorder)?;
        let dir = recorder.dir().to_owned();
        let (state, checkpoint) = tasks.spawn_blocking("read state", move || read(dir)).await?;
        let committed = Arc::new(Mutex::new(Arc::new(S::clone(&state))));
        Ok(JsonFileStore { state, committed, recorder, tasks: tasks.clone(), restored: Some(checkpoint) })
    }
}

impl<S: Serialize + Clone + Send + Sync + 'static> Store for JsonFileStore<S> {
    type Reader = JsonReader<S>;

    async fn restore_checkpoint(&mut self) -> Result<Checkpoint, BoxError> {
        Ok(self.restored.take().unwrap_or_default())
    }

    fn start_commit(&mut self, checkpoint: Checkpoint, wait_for: Vec<OpFuture>) -> OpFuture {
        let documents = match documents(&self.state, &checkpoint) {
            Ok(documents) => documents,
            Err(error) => return OpFuture::resolved(Err(OpError::failed(error))),
        };
        let barrier = self.recorder.barrier(wait_for);
        if let Some(Err(error)) = barrier.try_result() {
            return OpFuture::resolved(Err(why(&self.recorder, error)));
        }
        let recorder = self.recorder.clone();
        let (committed, state) = (Arc::downgrade(&self.committed), Arc::new(self.state.clone()));
        let write = self.tasks.spawn_blocking("write state", {
            let recorder = recorder.clone();
            move || write_file(&recorder, &documents)
        });
        let (promise, commit) = OpFuture::pair();
        self.tasks.spawn("commit state", OnError::Log, async move {
            let outcome = match write.await {
                Ok(barrier) => barrier.await.map(drop).map_err(|error| why(&recorder, error)),
                Err(error) => Err(OpError::failed(error)),
            };
            // Before anybody learns of the commit, who may then read.
            if outcome.is_ok()
                && let Some(committed) = committed.upgrade()
            {
                *committed.lock().unwrap_or_else(PoisonError::into_inner) = state;
            }
            promise.resolve(outcome);
            Ok(())
        });
        commit
    }

    fn reader(&self) -> JsonReader<S> {
        JsonReader { committed: Arc::downgrade(&self.committed) }
    }

    fn destroy(self) {
        let dir = self.recorder.dir();
        if let Err(error) = std::fs::remove_dir_all(dir) {
            tracing::warn!(?dir, %error, "cannot remove the directory of a JSON file store");
        }
    }
}

/// The recorder's first failure says more than that of an append which came later.
fn why(recorder: &Recorder, error: OpError) -> OpError {
    recorder.failure().map_or(error, OpError::failed)
}

fn read<S: DeserializeOwned + Default>(dir: PathBuf) -> Result<(S, Checkpoint), JsonStoreError> {
    match OTHER_STORES.iter().copied().find(|name| dir.join(name).exists()) {
        Some(found) => Err(JsonStoreError::OtherStore { dir, found }),
        None => read_file(&dir.join(STATE)),
    }
}

fn read_file<S: DeserializeOwned + Default>(path: &Path) -> Result<(S, Checkpoint), JsonStoreError> {
    match std::fs::read(path) {
        Ok(content) => parse(path, &content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Default::default()),
        Err(source) => Err(JsonStoreError::File { path: path.to_owned(), source }),
    }
}

fn parse<S: DeserializeOwned>(path: &Path, content: &[u8]) -> Result<(S, Checkpoint), JsonStoreError> {
    let failed =
        |document| move |source| JsonStoreError::Document { document, path: path.to_owned(), source };
    // One follows the other; that each has a line of its own is a habit of writers.
    let mut documents = serde_json::Deserializer::from_slice(content);
    let offsets = <BTreeMap<String, i64>>::deserialize(&mut documents).map_err(failed("offsets"))?;
    let state = S::deserialize(&mut documents).map_err(failed("state"))?;
    let mut checkpoint = match documents.end() {
        // Written before there were checkpoints.
        Ok(()) => Checkpoint::default(),
        Err(_) => CheckpointJson::deserialize(&mut documents).map_err(failed("checkpoint"))?.into(),
    };
    for (journal, offset) in offsets {
        checkpoint.sources.entry(journal).or_default().read_through = offset;
    }
    Ok((state, checkpoint))
}

/// The three documents, each with its line feed.
fn documents<S: Serialize>(state: &S, checkpoint: &Checkpoint) -> Result<[Vec<u8>; 3], serde_json::Error> {
    let line = |mut document: Vec<u8>| {
        document.push(b'\n');
        document
    };
    let checkpoint = serde_json::to_vec(&CheckpointJson::from(checkpoint))?;
    Ok([b"{}\n".to_vec(), line(serde_json::to_vec(state)?), line(checkpoint)])
}

/// Writes the file, and returns the barrier behind the recorded operations.
fn write_file(recorder: &Recorder, documents: &[Vec<u8>; 3]) -> Result<AppendFuture, JsonStoreError> {
    let (next, state) = (recorder.dir().join(NEXT), recorder.dir().join(STATE));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| JsonStoreError::File { path, source }
    };
    let mut file = std::fs::File::create(&next).map_err(failed(&next))?;
    let fnode = recorder.create(&next)?;
    let mut offset = 0;
    for document in documents {
        file.write_all(document).map_err(failed(&next))?;
        recorder.write_at(fnode, offset, document)?;
        offset += document.len() as u64;
    }
    drop(file);
    std::fs::rename(&next, &state).map_err(failed(&state))?;
    recorder.rename(&next, &state)?;
    Ok(recorder.barrier(Vec::new()))
}

/// A checkpoint as Go's encoder writes it.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct CheckpointJson {
    sources: Option<BTreeMap<String, SourceJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_intents: Option<BTreeMap<String, Base64>>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct SourceJson {
    #[serde(skip_serializing_if = "is_zero")]
    read_through: i64,
    producers: Option<Vec<ProducerJson>>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct ProducerJson {
    id: Base64,
    state: StateJson,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct StateJson {
    #[serde(skip_serializing_if = "is_zero_u64")]
    last_ack: u64,
    #[serde(skip_serializing_if = "is_zero")]
    begin: i64,
}

#[derive(Default)]
struct Base64(Bytes);

fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn is_zero_u64(value: &u64) -> bool {
    *value == 0
}

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Base64, D::Error> {
        let text = <Option<String>>::deserialize(deserializer)?.unwrap_or_default();
        STANDARD.decode(text).map(|bytes| Base64(bytes.into())).map_err(serde::de::Error::custom)
    }
}

impl From<&Checkpoint> for CheckpointJson {
    fn from(checkpoint: &Checkpoint) -> CheckpointJson {
        let producer = |entry: &checkpoint::ProducerEntry| {
            let ProducerState { last_ack, begin } = entry.state.unwrap_or_default();
            ProducerJson { id: Base64(entry.id.clone()), state: StateJson { last_ack, begin } }
        };
        let source = |source: &checkpoint::Source| SourceJson {
            read_through: source.read_through,
            producers: Some(source.producers.iter().map(producer).collect::<Vec<_>>())
                .filter(|producers| !producers.is_empty()),
        };
        let sources = checkpoint.sources.iter().map(|(journal, from)| (journal.clone(), source(from)));
        let intents = checkpoint.ack_intents.iter().map(|(j, frame)| (j.clone(), Base64(frame.clone())));
        let intents: BTreeMap<_, _> = intents.collect();
        CheckpointJson {
            sources: Some(sources.collect()),
            ack_intents: Some(intents).filter(|intents| !intents.is_empty()),
        }
    }
}

impl From<CheckpointJson> for Checkpoint {
    fn from(json: CheckpointJson) -> Checkpoint {
        let producer = |entry: ProducerJson| checkpoint::ProducerEntry {
            id: entry.id.0,
            state: Some(ProducerState { last_ack: entry.state.last_ack, begin: entry.state.begin }),
        };
        let source = |source: SourceJson| checkpoint::Source {
            read_through: source.read_through,
            producers: source.producers.unwrap_or_default().into_iter().map(producer).collect(),
        };
        let sources = json.sources.unwrap_or_default().into_iter();
        let intents = json.ack_intents.unwrap_or_default().into_iter();
        Checkpoint {
            sources: sources.map(|(journal, from)| (journal, source(from))).collect(),
            ack_intents: intents.map(|(journal, frame)| (journal, frame.0)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let state = Some(ProducerState { last_ack: 0x1e9c_c5f8_3fc2_f810, begin: -1 });
        let producers =
            vec![checkpoint::ProducerEntry { id: Bytes::from_static(&[1, 2, 3, 4, 5, 6]), state }];
        let source = checkpoint::Source { read_through: 1234, producers };
        Checkpoint {
            sources: BTreeMap::from([("a/source".to_owned(), source)]),
            ack_intents: BTreeMap::from([("a/target".to_owned(), Bytes::from_static(b"intent\n"))]),
        }
    }

    fn content(documents: [Vec<u8>; 3]) -> String {
        String::from_utf8(documents.concat()).unwrap()
    }

    #[test]
    fn documents_have_their_golden_shape_and_round_trip() {
        let written = content(documents(&vec![1, 2, 3], &checkpoint()).unwrap());
        let golden = "{}\n[1,2,3]\n{\"sources\":{\"a/source\":{\"read_through\":1234,\"producers\":[{\"id\":\"AQIDBAUG\",\
                      \"state\":{\"last_ack\":2205855587517003792,\"begin\":-1}}]}},\
                      \"ack_intents\":{\"a/target\":\"aW50ZW50Cg==\"}}\n";
        assert_eq!(written, golden);
        let read: (Vec<i32>, _) = parse(Path::new("state.json"), written.as_bytes()).unwrap();
        assert_eq!(read, (vec![1, 2, 3], checkpoint()));
    }

    #[test]
    fn what_is_empty_is_written_as_go_writes_it() {
        let sources = BTreeMap::from([("a/source".to_owned(), checkpoint::Source::default())]);
        let checkpoint = Checkpoint { sources, ..Checkpoint::default() };
        let written = content(documents(&0, &checkpoint).unwrap());
        assert_eq!(written, "{}\n0\n{\"sources\":{\"a/source\":{\"producers\":null}}}\n");
        assert_eq!(parse::<u64>(Path::new("state.json"), written.as_bytes()).unwrap().1, checkpoint);
    }

    #[test]
    fn older_forms_are_read() {
        let parse = |text: &str| parse::<u64>(Path::new("state.json"), text.as_bytes()).unwrap();
        let (state, checkpoint) = parse("{\"a/source\":77}\n5\n");
        assert_eq!((state, checkpoint.sources["a/source"].read_through), (5, 77));
        // Not each on its own line.
        let (state, checkpoint) = parse("{ } 6\n{\n\"sources\": {\"a/source\": {\"read_through\": 8}}}");
        assert_eq!((state, checkpoint.sources["a/source"].read_through), (6, 8));
        // Older offsets win, as they do for other readers.
        let both = parse("{\"a/source\":77}\n5\n{\"sources\":{\"a/source\":{\"read_through\":8}}}\n");
        assert_eq!(both.1.sources["a/source"].read_through, 77);
        let nulls = "{}\n5\n{\"sources\":{\"a/source\":{\"producers\":null}},\"ack_intents\":null}\n";
        assert_eq!(parse(nulls).1.sources["a/source"], checkpoint::Source::default());
    }

    proptest::proptest! {
        #[test]
        fn other_bytes_are_an_error_and_no_panic(bytes: Vec<u8>, cut: usize, flip: u8) {
            let path = Path::new("state.json");
            let _ = parse::<u64>(path, &bytes);
            let mut text = content(documents(&7, &checkpoint()).unwrap()).into_bytes();
            let at = cut % text.len();
            text[at] ^= flip;
            let _ = parse::<u64>(path, &text);
            let _ = parse::<u64>(path, &text[..at]);
        }
    }
}
