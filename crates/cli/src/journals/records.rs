//! Splits input into the records which are appended.

use message::{Decoder, Framing, Split};
use runtime::BoxError;
use std::io::Read;
use std::ops::Range;

/// Largest record.
const RECORD_BYTES_MAX: usize = 64 << 20;
/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// Records of an input, in order.
pub struct Records<R> {
    input: R,
    decoder: Decoder,
    buffer: Vec<u8>,
    /// Bytes of the buffer which were returned.
    taken: usize,
    eof: bool,
    /// Number of the next record, from one.
    number: u64,
}

/// One record, as it is appended.
pub struct Record {
    /// The whole frame.
    pub frame: Vec<u8>,
    payload: Range<usize>,
}

impl Record {
    /// The frame without what frames it: the line without its end, or the content of a fixed frame.
    pub fn payload(&self) -> &[u8] {
        &self.frame[self.payload.clone()]
    }
}

impl<R: Read> Records<R> {
    /// Records of `input`: lines if the framing is that of JSON, otherwise its frames.
    pub fn new(input: R, framing: Framing) -> Records<R> {
        Records { input, decoder: Decoder::new(framing), buffer: Vec::new(), taken: 0, eof: false, number: 1 }
    }

    /// The next record; none at the end. A last line without its end gets one.
    pub fn next(&mut self) -> Result<Option<Record>, BoxError> {
        loop {
            match self.decoder.split(&self.buffer[self.taken..], self.eof) {
                Split::Frame { consumed, payload } => {
                    let frame = self.buffer[self.taken..self.taken + consumed].to_vec();
                    self.taken += consumed;
                    self.number += 1;
                    return Ok(Some(Record { frame, payload }));
                }
                Split::NeedMore => self.fill()?,
                Split::End => return Ok(None),
                Split::Truncated if self.decoder.framing() == Framing::Json => self.buffer.push(b'\n'),
                Split::Truncated => return Err(self.error("ends before its frame does")),
                Split::Desync { .. } => {
                    return Err(self.error("does not begin with the magic word of a fixed frame"));
                }
            }
        }
    }

    fn fill(&mut self) -> Result<(), BoxError> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let held = self.buffer.len();
        if held > RECORD_BYTES_MAX {
            return Err(self.error(&format!("is larger than {RECORD_BYTES_MAX} bytes")));
        }
        self.buffer.resize(held + READ_BYTES, 0);
        let read = loop {
            match self.input.read(&mut self.buffer[held..]) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        self.buffer.truncate(held + *read.as_ref().unwrap_or(&0));
        self.eof = read.map_err(|e| format!("reading record {}: {e}", self.number))? == 0;
        Ok(())
    }

    fn error(&self, problem: &str) -> BoxError {
        format!("record {} of the input {problem}", self.number).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            buffer[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    /// Payloads and frames.
    type Found = Vec<(Vec<u8>, Vec<u8>)>;

    fn records(input: &[u8], framing: Framing) -> Result<Found, String> {
        let collect = |mut records: Records<Box<dyn Read + '_>>| {
            let mut found = Vec::new();
            while let Some(record) = records.next().map_err(|e| e.to_string())? {
                found.push((record.payload().to_vec(), record.frame));
            }
            Ok(found)
        };
        let whole = collect(Records::new(Box::new(input), framing));
        assert_eq!(collect(Records::new(Box::new(Trickle(input)), framing)), whole);
        whole
    }

    #[test]
    fn lines_keep_their_ends_and_the_last_gets_one() {
        let found = records(b"one\n\nthree", Framing::Json).unwrap();
        let frames: Vec<_> = found.iter().map(|(_, frame)| frame.as_slice()).collect();
        assert_eq!(frames, [b"one\n".as_slice(), b"\n", b"three\n"]);
        assert_eq!(found[0].0, b"one");
        assert_eq!(records(b"", Framing::Json).unwrap().len(), 0);
    }

    #[test]
    fn fixed_frames_are_taken_whole() {
        let mut input = Vec::new();
        message::fixed::encode_payload(b"foo", &mut input).unwrap();
        let single = input.clone();
        message::fixed::encode_payload(b"", &mut input).unwrap();
        let found = records(&input, Framing::Fixed).unwrap();
        assert_eq!(found[0], (b"foo".to_vec(), single));
        assert_eq!((found.len(), found[1].0.len()), (2, 0));
        let error = records(&input[..input.len() - 1], Framing::Fixed).unwrap_err();
        assert_eq!(error, "record 2 of the input ends before its frame does");
        let error = records(b"not a fixed frame", Framing::Fixed).unwrap_err();
        assert_eq!(error, "record 1 of the input does not begin with the magic word of a fixed frame");
    }
}
