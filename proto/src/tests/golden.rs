//! Encodings, byte for byte: journal protocol §19.2, consumer protocol appendix A.

use super::*;
use crate::consumer::{Checkpoint, ProducerState, checkpoint};
use crate::protocol::{AppendRequest, AppendResponse, BrokerSpec, LabelSet, ListResponse, ProcessSpec};
use crate::recoverylog::{RecordedOp, recorded_op};
use crate::{Canonical, MemberId, canonical};
use prost::Message;
use std::collections::BTreeMap;
use std::fmt::Write;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        write!(text, "{b:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// Requires this encoding, and that it decodes to the same message.
fn check<M: Message + Canonical + Default + PartialEq + std::fmt::Debug>(message: M, encoding: &str) {
    let message = canonical(message);
    assert_eq!(hex(&message.encode_to_vec()), encoding.replace(' ', ""), "{message:?}");
    assert_eq!(M::decode(message.encode_to_vec().as_slice()).unwrap(), message);
}

#[test]
fn sums() {
    check(foobar_sum(), "09 1d 21 16 24 f9 d7 43 88 11 81 e2 4c ff 63 b9 eb e9 1d 78 28 93 25");
    assert_eq!(foobar_sum().hex(), "8843d7f92416211de9ebb963ff4ce28125932878");
    assert_eq!(Sha1Sum::from_digest(foobar_sum().digest()), foobar_sum());
    assert!(Sha1Sum::from_digest([0; 20]).is_zero() && !foobar_sum().is_zero());
}

#[test]
fn routes() {
    check(Route::unrouted(), "10 ff ff ff ff ff ff ff ff ff 01");
    let members = "0a 12 0a 06 7a 6f 6e 65 2d 61 12 08 62 72 6f 6b 65 72 2d 31 \
                   0a 12 0a 06 7a 6f 6e 65 2d 62 12 08 62 72 6f 6b 65 72 2d 32";
    check(valid_route().without_endpoints(), members);
    check(Route { primary: 1, ..valid_route().without_endpoints() }, &format!("{members} 10 01"));
}

#[test]
fn specifications_and_fragments() {
    check(
        valid_journal_spec(),
        "0a 09 61 2f 6a 6f 75 72 6e 61 6c 10 01 1a 00 22 17 08 80 08 10 04 1a 08 66 69 6c 65 3a 2f 2f 2f \
         22 02 08 3c 2a 00 32 00",
    );
    let process = ProcessSpec::new(&MemberId::new("local", "broker").unwrap(), "http://host:8080");
    let broker = BrokerSpec { process_spec: Some(process), journal_limit: 1024, exiting: false };
    let encoding = "0a 23 0a 0f 0a 05 6c 6f 63 61 6c 12 06 62 72 6f 6b 65 72 12 10 68 74 74 70 3a 2f 2f 68 6f 73 74 3a \
                    38 30 38 30 10 80 08";
    check(broker.clone(), encoding);
    check(BrokerSpec { exiting: true, ..broker }, &format!("{encoding} 18 01"));
    check(
        valid_fragment(),
        "0a 09 61 2f 6a 6f 75 72 6e 61 6c 18 06 22 17 09 1d 21 16 24 f9 d7 43 88 11 81 e2 4c ff 63 b9 eb e9 1d 78 28 93 \
         25 28 04",
    );
}

#[test]
fn presence_of_empty_messages() {
    check(ListResponse::default(), "12 06 0a 00 12 00 1a 00");
    check(AppendRequest::default(), "");
    // The registers of a response are present even if there are none.
    let registers = AppendResponse { registers: Some(LabelSet::default()), ..AppendResponse::default() };
    assert_eq!(hex(&registers.encode_to_vec()), "2200");
    check(registers, "12 06 0a 00 12 00 1a 00 22 00");
}

fn producer(id: [u8; 6], last_ack: u64, begin: i64) -> checkpoint::ProducerEntry {
    let id = bytes::Bytes::copy_from_slice(&id);
    checkpoint::ProducerEntry { id, state: Some(ProducerState { last_ack, begin }) }
}

#[test]
fn checkpoints() {
    let source = |read_through, producer| checkpoint::Source { read_through, producers: vec![producer] };
    let bar = source(222, producer([0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff], 789, 101));
    let foo = source(111, producer([1, 2, 3, 4, 5, 6], 456, 789));
    let intents = [("baz", "intent"), ("bing", "other-intent")];
    check(
        Checkpoint {
            sources: BTreeMap::from([("bar".to_owned(), bar), ("foo".to_owned(), foo)]),
            ack_intents: intents.into_iter().map(|(j, i)| (j.to_owned(), i.into())).collect(),
        },
        "0a210a03626172121a08de0112150a06aabbccddeeff120b09150300000000000010650a210a03666f6f121a086f12160a0601020304\
         0506120c09c801000000000000109506120d0a0362617a1206696e74656e7412140a0462696e67120c6f746865722d696e74656e74",
    );

    let live = source(138_784_836, producer([0x0d, 0x04, 0x97, 0x04, 0x19, 0xde], 0x1e9f_9b70_c495_cfb5, -1));
    check(
        Checkpoint {
            sources: BTreeMap::from([("examples/bike-share/rides/part-001".to_owned(), live)]),
            ack_intents: BTreeMap::new(),
        },
        "0a4b0a226578616d706c65732f62696b652d73686172652f72696465732f706172742d303031122508c4e09642121e0a060d04970419de\
         121409b5cf95c4709b9f1e10ffffffffffffffffff01",
    );
}

#[test]
fn recorded_operations() {
    let create = RecordedOp {
        seq_no: 1,
        author: 1234,
        create: Some(recorded_op::Create { path: "/path/to/file".into() }),
        ..RecordedOp::default()
    };
    // The frames' payloads; framing and checksums are tested with the recovery log.
    assert_eq!(hex(&create.encode_to_vec()), "08011dd2040000220f0a0d2f706174682f746f2f66696c65");
    let noop = unhex("08021557bf191f1d2e160000");
    let decoded = RecordedOp::decode(noop.as_slice()).unwrap();
    assert_eq!((decoded.seq_no, decoded.author, decoded.checksum), (2, 5678, 0x1f19_bf57));
    assert_eq!(decoded.encode_to_vec(), noop);
}
