//! Publishers and readers of messages, over a broker in memory.

use crate::common::{Fixture, append_to, json_labels, read_from, soon};
use client::testing::Fault;
use client::{CommittedReader, Gap, IterError, NewMessage, Publisher, UncommittedReader};
use message::mapping::{MappingError, Target};
use message::sequencer::from_sources;
use message::{Clock, ClockSource, Flags, Framing, Message, MessageError, Sequencer, Uuid, json};
use proto::JournalName;
use proto::protocol::{LabelSet, ReadRequest};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

const A: &str = "test/journal-a";
const B: &str = "test/journal-b";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Note {
    #[serde(rename = "UUID")]
    uuid: Uuid,
    text: String,
}

impl Message for Note {
    fn uuid(&self) -> Uuid {
        self.uuid
    }
    fn set_uuid(&mut self, uuid: Uuid) {
        self.uuid = uuid;
    }
    fn new_acknowledgement(&self, _: &JournalName) -> Note {
        Note::default()
    }
    fn validate(&self) -> Result<(), MessageError> {
        if self.text == "invalid" { Err(MessageError::invalid("no such text")) } else { Ok(()) }
    }
    fn encode(&self, _: Framing, out: &mut Vec<u8>) -> Result<(), MessageError> {
        json::encode(self, out)
    }
    fn decode(&mut self, _: Framing, payload: &[u8]) -> Result<(), MessageError> {
        *self = json::decode(payload)?;
        Ok(())
    }
}

fn note(text: &str) -> Note {
    Note { uuid: Uuid::default(), text: text.to_owned() }
}

fn to(journal: &str) -> impl FnOnce(&Note) -> Result<Target, MappingError> {
    let target = Target { journal: JournalName::parse(journal).unwrap(), framing: Framing::Json };
    move |_| Ok(target)
}

fn new_note() -> NewMessage<Note> {
    Arc::new(|_| Ok(Note::default()))
}

fn uncommitted(it: &Fixture, request: ReadRequest) -> UncommittedReader<Note> {
    UncommittedReader::new(it.client.clone(), request, new_note())
}

fn committed(it: &Fixture, ring: usize) -> CommittedReader<Note> {
    let sequencer = Sequencer::new(Vec::new(), ring, usize::MAX);
    CommittedReader::new(it.client.clone(), read_from(A, 0, false), new_note(), sequencer)
}

/// Texts of the committed messages up to the journal's end.
async fn texts(reader: &mut CommittedReader<Note>) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        match soon(reader.next()).await {
            Ok(envelope) if envelope.message.uuid.flags() == Flags::ACK_TXN => texts.push("ACK".to_owned()),
            Ok(envelope) => texts.push(envelope.message.text),
            Err(client::CommittedError::End(_)) => return texts,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn commit(publisher: &mut Publisher) {
    for (journal, intent) in publisher.build_ack_intents().unwrap() {
        soon(publisher.append_ack_intent(&journal, &intent, vec![])).await.unwrap();
    }
}

#[tokio::test]
async fn committed_messages_carry_clocks_in_order_and_are_read_back() {
    let it = Fixture::start(&[A]).await;
    let publisher = Publisher::new(it.appends.clone(), Some(Arc::new(ClockSource::new())));
    for text in ["one", "two"] {
        soon(publisher.publish_committed(to(A), note(text)).unwrap()).await.unwrap();
    }
    let mut reader = uncommitted(&it, read_from(A, 0, false));
    for (text, clock) in [("one", 160), ("two", 320)] {
        let envelope = soon(reader.next()).await.unwrap();
        assert_eq!(envelope.message.text, text);
        assert_eq!(
            envelope.message.uuid,
            Uuid::build(publisher.producer(), Clock(clock), Flags::OUTSIDE_TXN)
        );
        assert_eq!((&*envelope.journal, envelope.end), (A, reader.offset()));
    }
    assert!(matches!(soon(reader.next()).await, Err(IterError::End(_))));
}

#[tokio::test]
async fn what_cannot_be_published_leaves_nothing_behind() {
    let it = Fixture::start(&[A]).await;
    let publisher = Publisher::new(it.appends.clone(), None);
    let unmapped = |_: &Note| Err(MappingError::Empty);
    let error = publisher.publish_committed(unmapped, note("invalid")).unwrap_err();
    assert_eq!(error.to_string(), "validating message: no such text", "validation comes first");
    let error = publisher.publish_committed(unmapped, note("text")).unwrap_err();
    assert_eq!(error.to_string(), "mapping message: empty ListResponse");
    assert!(it.appends.pending_except("").is_empty());
    assert!(
        publisher.clock().peek() > Clock::from_unix(Duration::from_secs(1_600_000_000)),
        "it follows wall time"
    );
}

#[tokio::test]
async fn transactions_are_read_when_they_are_acknowledged_whatever_the_ring_holds() {
    for ring in [1, 3, 100] {
        let it = Fixture::start(&[A, B]).await;
        let (mut one, mut two) =
            (Publisher::new(it.appends.clone(), None), Publisher::new(it.appends.clone(), None));
        let mut reader = committed(&it, ring);
        for round in 0..3 {
            one.publish_uncommitted(to(A), note(&format!("one {round}"))).unwrap();
            two.publish_uncommitted(to(A), note(&format!("two {round}"))).unwrap();
            one.publish_uncommitted(to(B), note("elsewhere")).unwrap();
        }
        two.publish_committed(to(B), note("elsewhere")).unwrap();
        assert!(texts(&mut reader).await.is_empty());
        commit(&mut one).await;
        assert_eq!(texts(&mut reader).await, ["one 0", "one 1", "one 2", "ACK"], "ring {ring}");
        commit(&mut two).await;
        assert_eq!(texts(&mut reader).await, ["two 0", "two 1", "two 2", "ACK"], "ring {ring}");
    }
}

#[tokio::test]
async fn an_append_which_was_repeated_is_read_once() {
    let it = Fixture::start(&[A]).await;
    let mut publisher = Publisher::new(it.appends.clone(), None);
    it.broker.fault_append(Fault::GrpcAfterEffect(Code::Unavailable));
    soon(publisher.publish_uncommitted(to(A), note("text")).unwrap()).await.unwrap();
    it.broker.fault_append(Fault::GrpcAfterEffect(Code::Unavailable));
    commit(&mut publisher).await;
    assert_eq!(it.broker.appended().len(), 4);
    assert_eq!(texts(&mut committed(&it, 8)).await, ["text", "ACK"]);
}

#[tokio::test]
async fn a_reader_continues_from_a_checkpoint_within_a_transaction() {
    let it = Fixture::start(&[A]).await;
    let mut publisher = Publisher::new(it.appends.clone(), None);
    for text in ["one", "two", "three"] {
        publisher.publish_uncommitted(to(A), note(text)).unwrap();
    }
    commit(&mut publisher).await;
    let mut reader = committed(&it, 8);
    assert_eq!(soon(reader.next()).await.unwrap().message.text, "one");
    assert_eq!(soon(reader.next()).await.unwrap().message.text, "two");

    let states = reader.sequencer().checkpoint(message::sequencer::Pruning::NONE);
    let states = from_sources(&message::sequencer::to_sources(states)).unwrap();
    let request = read_from(A, states[0].read_through.unwrap(), false);
    let sequencer = Sequencer::new(states, 8, usize::MAX);
    let mut resumed = CommittedReader::new(it.client.clone(), request, new_note(), sequencer);
    assert_eq!(texts(&mut resumed).await, ["two", "three", "ACK"], "the second was not processed");
}

#[tokio::test]
async fn gaps_are_passed_over_in_reads_and_fail_replays() {
    let it = Fixture::start(&[A]).await;
    let mut publisher = Publisher::new(it.appends.clone(), None);
    for text in ["one", "two", "three"] {
        soon(publisher.publish_uncommitted(to(A), note(text)).unwrap()).await.unwrap();
    }
    let content = it.broker.content(A);
    let mut reader = committed(&it, 1);
    assert!(texts(&mut reader).await.is_empty());
    // Everything before the last message is gone.
    let third = content[..content.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    it.broker.set_content(A, third as i64, &content[third..]);
    commit(&mut publisher).await;
    let error = soon(reader.next()).await.unwrap_err().to_string();
    assert_eq!(error, format!("reading committed message: replay reader: content from 0 to {third} is gone"));

    let mut warned = uncommitted(&it, read_from(A, 0, false));
    let envelope = soon(warned.next()).await.unwrap();
    assert_eq!((envelope.begin, envelope.message.text.as_str()), (third as i64, "three"));
    let mut failed = uncommitted(&it, read_from(A, 0, false)).with_gap(Gap::Fail);
    assert!(matches!(soon(failed.next()).await, Err(IterError::Gap { from: 0, .. })));
}

#[tokio::test]
async fn problems_of_the_journal_are_told_before_it_is_read() {
    let it = Fixture::start(&[]).await;
    let error = soon(uncommitted(&it, read_from(&format!("{A};meta"), 0, true)).next()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("fetching journal spec: named journal does not exist ({A})"));
    it.broker.add_journal(A, LabelSet::from_pairs([("content-type", "a/b")]));
    let error = soon(uncommitted(&it, read_from(A, 0, true)).next()).await.unwrap_err();
    assert_eq!(error.to_string(), "determining framing: unrecognized content-type (a/b)");
    it.broker.add_journal(A, json_labels());
    it.client.append(append_to(A), "{}\n".into()).await.unwrap();
    let refuse: NewMessage<Note> = Arc::new(|_| Err("not mine".into()));
    let mut reader = UncommittedReader::new(it.client.clone(), read_from(A, 0, true), refuse);
    assert_eq!(soon(reader.next()).await.unwrap_err().to_string(), "newMessage: not mine");
}

#[tokio::test]
async fn a_bad_frame_is_told_with_its_offset_and_passed() {
    let it = Fixture::start(&[A]).await;
    let good = format!("{{\"UUID\":\"{}\",\"text\":\"good\"}}\n", Uuid::default());
    it.client.append(append_to(A), format!("{good}{{bad}}\n{good}").into()).await.unwrap();
    let request = ReadRequest { end_offset: (2 * good.len() + 6) as i64, ..read_from(A, 0, true) };
    let mut reader = uncommitted(&it, request);
    assert_eq!(soon(reader.next()).await.unwrap().message.text, "good");
    let error = soon(reader.next()).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("framing.Unmarshal(offset {}): JSON: ", good.len())), "{error}");
    assert_eq!(soon(reader.next()).await.unwrap().begin, good.len() as i64 + 6);
    assert!(soon(reader.next()).await.unwrap_err().is_eof());

    let cut = ReadRequest { end_offset: good.len() as i64 + 3, ..read_from(A, 0, true) };
    let mut reader = uncommitted(&it, cut);
    soon(reader.next()).await.unwrap();
    assert_eq!(soon(reader.next()).await.unwrap_err().to_string(), "unexpected EOF");
}

#[tokio::test]
async fn messages_may_span_any_number_of_frames_of_a_read() {
    let it = Fixture::start(&[A]).await;
    let publisher = Publisher::new(it.appends.clone(), None);
    let long = "x".repeat(300_000);
    for text in ["short", &long, "short"] {
        soon(publisher.publish_committed(to(A), note(text)).unwrap()).await.unwrap();
        it.broker.break_streams();
    }
    let mut reader = committed(&it, 8);
    assert_eq!(texts(&mut reader).await, ["short", &long, "short"]);
}
