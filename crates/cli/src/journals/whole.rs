//! Cuts the content of a journal which is followed into whole records.

use message::{Framing, Split};

/// Bytes which are held back at most for their record to become whole.
const HELD_BYTES_MAX: usize = 4 << 20;

/// Holds back the beginning of a record until its end was read. Content whose framing is not known is not held back.
#[derive(Debug)]
pub struct WholeRecords {
    framing: Option<Framing>,
    held: Vec<u8>,
}

impl WholeRecords {
    /// For a journal with this `content-type` label.
    pub fn new(content_type: Option<&str>) -> WholeRecords {
        WholeRecords {
            framing: content_type.and_then(|t| Framing::by_content_type(t).ok()),
            held: Vec::new(),
        }
    }

    /// Takes the next bytes, and gives those which can be written.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let whole = match self.framing {
            Some(_) if self.held.len() > HELD_BYTES_MAX => self.held.len(),
            Some(Framing::Fixed) => whole_fixed(&self.held),
            Some(Framing::Json | Framing::Csv) => {
                self.held.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1)
            }
            None => self.held.len(),
        };
        self.held.drain(..whole).collect()
    }

    /// Bytes which are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Gives what is held back.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// Bytes of the whole frames at the front. What is no frame passes.
fn whole_fixed(buffer: &[u8]) -> usize {
    let mut end = 0;
    loop {
        match Framing::Fixed.split(&buffer[end..], false) {
            Split::Frame { consumed, .. } => end += consumed,
            Split::Desync { skip } if skip > 0 => end += skip,
            _ => return end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_written_whole() {
        let mut lines = WholeRecords::new(Some("application/x-ndjson"));
        assert_eq!(lines.push(b"one\ntw"), b"one\n");
        assert_eq!((lines.held(), lines.push(b"o"), lines.push(b"\n")), (2, vec![], b"two\n".to_vec()));

        let mut frame = Vec::new();
        message::fixed::encode_payload(b"foo", &mut frame).unwrap();
        let mut fixed = WholeRecords::new(Some("application/x-protobuf-fixed"));
        let twice = [frame.clone(), frame.clone()].concat();
        assert_eq!(fixed.push(&twice[..15]), frame);
        assert_eq!(fixed.push(&twice[15..]), frame);

        let mut unknown = WholeRecords::new(None);
        assert_eq!((unknown.push(b"any"), unknown.held()), (b"any".to_vec(), 0));
    }

    #[test]
    fn what_never_becomes_whole_is_not_held_forever() {
        let mut lines = WholeRecords::new(Some("text/csv"));
        assert_eq!(lines.push(&vec![b'x'; HELD_BYTES_MAX]).len(), 0);
        assert_eq!(lines.push(b"x").len(), HELD_BYTES_MAX + 1);
        lines.push(b"rest");
        assert_eq!((lines.take(), lines.held()), (b"rest".to_vec(), 0));
    }
}
