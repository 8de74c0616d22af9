use super::*;
use crate::csv::CsvRecord;
use crate::{Uuid, json};
use proptest::prelude::*;
use proto::JournalName;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Line {
    #[serde(rename = "UUID")]
    uuid: Uuid,
    value: String,
}

impl Message for Line {
    fn uuid(&self) -> Uuid {
        self.uuid
    }
    fn set_uuid(&mut self, uuid: Uuid) {
        self.uuid = uuid;
    }
    fn new_acknowledgement(&self, _: &JournalName) -> Line {
        Line::default()
    }
    fn encode(&self, framing: Framing, out: &mut Vec<u8>) -> Result<(), MessageError> {
        match framing {
            Framing::Json => json::encode(self, out),
            other => Err(MessageError::Framing(other)),
        }
    }
    fn decode(&mut self, framing: Framing, payload: &[u8]) -> Result<(), MessageError> {
        match framing {
            Framing::Json => *self = json::decode(payload)?,
            other => return Err(MessageError::Framing(other)),
        }
        Ok(())
    }
}

/// Splits all of `input`, offered at once, into payloads; ends with the split which was no frame.
fn split_all(framing: Framing, input: &[u8]) -> (Vec<&[u8]>, Split) {
    let (mut at, mut payloads) = (0, Vec::new());
    loop {
        match framing.split(&input[at..], true) {
            Split::Frame { consumed, payload } => {
                assert!(consumed > 0 && payload.end <= consumed);
                payloads.push(&input[at + payload.start..at + payload.end]);
                at += consumed;
            }
            other => return (payloads, other),
        }
    }
}

#[test]
fn framings_are_found_by_content_type_except_that_of_recovery_logs() {
    for framing in [Framing::Json, Framing::Fixed, Framing::Csv] {
        assert_eq!(Framing::by_content_type(framing.content_type()), Ok(framing));
    }
    assert_eq!(
        Framing::by_content_type("application/x-gazette-recoverylog").unwrap_err().to_string(),
        "unrecognized content-type (application/x-gazette-recoverylog)"
    );
}

#[test]
fn lines_are_split_and_a_cut_line_is_truncated() {
    assert_eq!(split_all(Framing::Json, b""), (vec![], Split::End));
    assert_eq!(split_all(Framing::Json, b"{}\n\n[1]\n"), (vec![&b"{}"[..], b"", b"[1]"], Split::End));
    assert_eq!(split_all(Framing::Json, b"{}\n{"), (vec![&b"{}"[..]], Split::Truncated));
    assert_eq!(Framing::Json.split(b"{", false), Split::NeedMore);
}

#[test]
fn json_messages_round_trip_and_a_bad_one_consumes_one_frame() {
    let mut out = Vec::new();
    let good = Line { uuid: Uuid::default(), value: "<b>".to_owned() };
    good.encode(Framing::Json, &mut out).unwrap();
    assert_eq!(out, b"{\"UUID\":\"00000000-0000-0000-0000-000000000000\",\"Value\":\"\\u003cb\\u003e\"}\n");
    let input = [b"{bad\n".as_slice(), &out].concat();

    let mut decoder = Decoder::new(Framing::Json);
    let mut message = Line::default();
    assert_eq!(decoder.split(&input, true), Split::Frame { consumed: 5, payload: 0..4 });
    assert!(decoder.decode(&input, 5, 0..4, &mut message).is_err());
    let rest = &input[5..];
    assert_eq!(decoder.split(rest, true), Split::Frame { consumed: rest.len(), payload: 0..rest.len() - 1 });
    decoder.decode(rest, rest.len(), 0..rest.len() - 1, &mut message).unwrap();
    assert_eq!(message, good);
    assert!(matches!(good.encode(Framing::Fixed, &mut out), Err(MessageError::Framing(Framing::Fixed))));
}

#[test]
fn long_lines_may_arrive_in_pieces() {
    let mut decoder = Decoder::new(Framing::Json);
    let line = [vec![b'x'; 100], b"\nnext".to_vec()].concat();
    for end in 0..=100 {
        assert_eq!(decoder.split(&line[..end], false), Split::NeedMore);
    }
    assert_eq!(decoder.split(&line, false), Split::Frame { consumed: 101, payload: 0..100 });
    assert_eq!(decoder.split(&line[101..], true), Split::Truncated);
}

#[test]
fn fixed_frames_have_golden_bytes() {
    let mut out = Vec::new();
    fixed::encode_payload(b"foo", &mut out).unwrap();
    assert_eq!(out, [0x66, 0x33, 0x93, 0x36, 3, 0, 0, 0, b'f', b'o', b'o']);
    let message = proto::protocol::Label { name: "foo".to_owned(), ..Default::default() };
    fixed::encode(&message, &mut out).unwrap();
    let (payloads, end) = split_all(Framing::Fixed, &out);
    assert_eq!((payloads[0], end), (&b"foo"[..], Split::End));
    assert_eq!(fixed::decode::<proto::protocol::Label>(payloads[1]).unwrap(), message);
}

#[test]
fn fixed_frames_are_truncated_at_every_other_place_than_their_end() {
    let mut frame = Vec::new();
    fixed::encode_payload(b"foo", &mut frame).unwrap();
    for end in 1..frame.len() {
        assert_eq!(Framing::Fixed.split(&frame[..end], true), Split::Truncated, "{end}");
        assert_eq!(Framing::Fixed.split(&frame[..end], false), Split::NeedMore, "{end}");
    }
    assert_eq!(
        Framing::Fixed.split(&[&frame[..], b"\n"].concat(), true),
        Split::Frame { consumed: 11, payload: 8..11 }
    );
    assert_eq!(Framing::Fixed.split(b"\n", true), Split::End, "a line feed at the end is tolerated");
    assert_eq!(Framing::Fixed.split(b"", true), Split::End);
    assert_eq!(Framing::Fixed.split(b"\n\n", true), Split::Truncated);
}

#[test]
fn fixed_frames_are_found_again_after_garbage() {
    let mut frame = Vec::new();
    fixed::encode_payload(b"foo", &mut frame).unwrap();
    let input = [b"garbage ".as_slice(), &frame].concat();
    assert_eq!(Framing::Fixed.split(&input, false), Split::Desync { skip: 8 });
    assert_eq!(Framing::Fixed.split(&input[8..], false), Split::Frame { consumed: 11, payload: 8..11 });
    // Without a magic in sight, three bytes stay: they may be the first of one.
    assert_eq!(Framing::Fixed.split(b"sixteen bytes of", false), Split::Desync { skip: 13 });
}

#[test]
fn csv_records_are_split_as_the_quotes_say() {
    let input = b"a,\"b,\n\"\"c\"\"\r\nd\"\r\n\n\r\n\"\", x,\\.\nlast,one,";
    let (payloads, end) = split_all(Framing::Csv, input);
    assert_eq!(end, Split::End);
    let records: Vec<_> = payloads.into_iter().map(|payload| csv::decode(payload).unwrap()).collect();
    assert_eq!(records, [vec!["a", "b,\n\"c\"\nd"], vec!["", " x", "\\."], vec!["last", "one", ""]]);
    assert_eq!(Framing::Csv.split(b"a,b", false), Split::NeedMore);
    assert_eq!(Framing::Csv.split(b"\n\r\n\r", true), Split::End);
}

#[test]
fn csv_fields_are_quoted_only_where_they_must_be() {
    let mut out = Vec::new();
    csv::encode(&["plain", "", "a,b", "say \"x\"", " lead", "\u{a0}nb", "\\.", "\\.x", "cr\rlf\n"], &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "plain,,\"a,b\",\"say \"\"x\"\"\",\" lead\",\"\u{a0}nb\",\"\\.\",\\.x,\"cr\rlf\n\"\n"
    );
}

#[test]
fn csv_errors_consume_their_line_and_name_the_problem() {
    for (input, consumed, error) in [
        (&b"a\"b,c\nnext\n"[..], 6, csv::CsvError::BareQuote),
        (b"x,\"a\"b\nnext\n", 7, csv::CsvError::Quote),
        (b"\"open,\nnext\n", 12, csv::CsvError::Quote),
        (b"a,\xff\nnext\n", 4, csv::CsvError::NotUtf8 { field: 1 }),
    ] {
        let Split::Frame { consumed: found, payload } = Framing::Csv.split(input, true) else {
            panic!("no frame")
        };
        assert_eq!(found, consumed);
        assert_eq!(csv::decode(&input[payload]), Err(error));
    }
}

#[test]
fn csv_records_have_a_uuid_and_as_many_fields_as_the_first() {
    let uuid = Uuid::build(crate::ProducerId([1; 6]), crate::Clock(160), crate::Flags::OUTSIDE_TXN);
    let input = format!("{uuid},two\n\n{uuid},2,3\nnope,2\n{uuid},two\n").into_bytes();
    let (mut decoder, mut at, mut results) = (Decoder::new(Framing::Csv), 0, Vec::new());
    while let Split::Frame { consumed, payload } = decoder.split(&input[at..], true) {
        let mut record = CsvRecord::default();
        let result = decoder.decode(&input[at..], consumed, payload, &mut record);
        results
            .push(result.map(|()| (record.uuid(), record.fields().len())).map_err(|error| error.to_string()));
        at += consumed;
    }
    assert_eq!(results[0], Ok((uuid, 2)));
    assert_eq!(results[1], Err("record on line 3: wrong number of fields".to_owned()));
    assert!(results[2].as_ref().unwrap_err().contains("invalid UUID \"nope\""), "{results:?}");
    assert_eq!(results[3], Ok((uuid, 2)));

    let record = CsvRecord::new(vec![uuid.to_string(), "two".to_owned()]).unwrap();
    let ack = record.new_acknowledgement(&JournalName::parse("a/journal").unwrap());
    assert_eq!(ack.fields(), ["", ""]);
}

fn any_framing() -> impl Strategy<Value = Framing> {
    prop_oneof![Just(Framing::Json), Just(Framing::Fixed), Just(Framing::Csv)]
}

/// Bytes which are likely to be near a frame.
fn near_frames() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        Just(b"\"".to_vec()),
        Just(b",".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(fixed::MAGIC.to_vec()),
        Just(b"\x66\x33\x93\x36\x03\0\0\0foo".to_vec()),
        Just(b"{\"UUID\":\"0000000a-0000-1000-8000-010203040506\",\"Value\":\"x\"}\n".to_vec()),
        Just(b"0000000a-0000-1000-8000-010203040506,x\n".to_vec()),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_input_panics_and_every_split_makes_progress(framing in any_framing(), input in near_frames()) {
        let (mut at, mut decoder) = (0, Decoder::new(framing));
        loop {
            let rest = &input[at..];
            match decoder.split(rest, true) {
                Split::Frame { consumed, payload } => {
                    prop_assert!(consumed > 0 && consumed <= rest.len() && payload.end <= consumed);
                    let _ = decoder.decode(rest, consumed, payload.clone(), &mut Line::default());
                    let _ = decoder.decode(rest, consumed, payload, &mut CsvRecord::default());
                    at += consumed;
                }
                Split::Desync { skip } => {
                    prop_assert!(skip > 0 && skip <= rest.len());
                    at += skip;
                }
                Split::NeedMore => prop_assert!(false, "more is needed at the end of input"),
                Split::End | Split::Truncated => break,
            }
        }
    }

    /// Offering bytes one by one finds the frames which offering them at once finds.
    #[test]
    fn frames_do_not_depend_on_how_bytes_arrive(framing in any_framing(), input in near_frames()) {
        let (whole, _) = split_all(framing, &input);
        let (mut at, mut decoder, mut pieces) = (0, Decoder::new(framing), Vec::new());
        'frames: while pieces.len() < whole.len() {
            let start = at;
            for end in start..=input.len() {
                match decoder.split(&input[start..end], end == input.len()) {
                    Split::NeedMore => continue,
                    Split::Frame { consumed, payload } => {
                        pieces.push(&input[start + payload.start..start + payload.end]);
                        at = start + consumed;
                        continue 'frames;
                    }
                    _ => break 'frames,
                }
            }
        }
        prop_assert_eq!(pieces, whole);
    }

    #[test]
    fn csv_fields_round_trip(fields in prop::collection::vec("[a\",\n \\\\.]{0,5}", 1..5)) {
        // A record of one empty field is a blank line, which readers skip.
        prop_assume!(fields != [""]);
        let mut out = Vec::new();
        csv::encode(&fields, &mut out);
        let Split::Frame { consumed, payload } = Framing::Csv.split(&out, false) else { panic!("no frame in {out:?}") };
        prop_assert_eq!(consumed, out.len());
        prop_assert_eq!(csv::decode(&out[payload]).unwrap(), fields);
    }

    #[test]
    fn json_strings_round_trip(value in ".*") {
        let (message, mut out) = (Line { uuid: Uuid::default(), value }, Vec::new());
        message.encode(Framing::Json, &mut out).unwrap();
        prop_assert!(!out.contains(&b'<') && !out.contains(&b'&'));
        prop_assert_eq!(json::decode::<Line>(&out).unwrap(), message);
    }
}
