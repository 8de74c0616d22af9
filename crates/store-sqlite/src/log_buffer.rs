//! Writes to journals and write-ahead logs which are not recorded yet.
//!
//! SQLite writes these a few bytes at a time. Writes which follow each other in one file become one operation, of which
//! at most one waits: so operations are recorded in the order in which they happened, whichever files they are of.

use recoverylog::Fnode;

/// Bytes which wait to be recorded, at most.
pub(crate) const BUFFERED_BYTES_MAX: usize = 128 << 10;

/// First bytes, as a big-endian number, of a log which begins anew: a journal's header that says that there is nothing
/// to roll back, and the two of a write-ahead log.
const RESTARTS: [u32; 3] = [0, 0x377f_0682, 0x377f_0683];

/// A write to record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) fnode: Fnode,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LogBuffer {
    pending: Option<Write>,
}

impl LogBuffer {
    /// Adds a write. What is returned must be recorded now.
    #[must_use]
    pub(crate) fn write(&mut self, fnode: Fnode, offset: u64, data: &[u8]) -> Option<Write> {
        if let Some(pending) = &mut self.pending {
            let end = pending.offset + pending.bytes.len() as u64;
            if pending.fnode == fnode
                && end == offset
                && pending.bytes.len() + data.len() <= BUFFERED_BYTES_MAX
            {
                pending.bytes.extend_from_slice(data);
                return None;
            }
        }
        self.pending.replace(Write { fnode, offset, bytes: data.to_vec() })
    }

    /// Forgets what waits to be written to a file: the file is gone.
    pub(crate) fn forget(&mut self, fnode: Fnode) {
        self.pending.take_if(|pending| pending.fnode == fnode);
    }

    /// Forgets what waits to be written to a file beyond `size`.
    pub(crate) fn truncate(&mut self, fnode: Fnode, size: u64) {
        if let Some(pending) = self.pending.as_mut().filter(|pending| pending.fnode == fnode) {
            let kept = usize::try_from(size.saturating_sub(pending.offset)).unwrap_or(usize::MAX);
            pending.bytes.truncate(kept);
        }
    }

    /// What waits, which must be recorded now.
    #[must_use]
    pub(crate) fn take(&mut self) -> Option<Write> {
        self.pending.take()
    }
}

/// Whether a log begins anew with this write: what the file held before counts for nothing. It is recorded as a new file,
/// so that recoveries need not play the old one.
pub(crate) fn restarts(offset: u64, data: &[u8]) -> bool {
    let first = data.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
    offset == 0 && first.is_some_and(|first| RESTARTS.contains(&first))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Fnode = Fnode(1);
    const B: Fnode = Fnode(2);

    fn write(fnode: Fnode, offset: u64, bytes: &[u8]) -> Option<Write> {
        Some(Write { fnode, offset, bytes: bytes.to_vec() })
    }

    #[test]
    fn writes_which_follow_each_other_are_one() {
        let mut buffer = LogBuffer::default();
        assert_eq!(buffer.write(A, 10, b"one"), None);
        assert_eq!(buffer.write(A, 13, b"two"), None);
        assert_eq!(buffer.take(), write(A, 10, b"onetwo"));
        assert_eq!(buffer.take(), None);
    }

    #[test]
    fn other_places_and_other_files_end_a_write() {
        let mut buffer = LogBuffer::default();
        assert_eq!(buffer.write(A, 10, b"one"), None);
        assert_eq!(buffer.write(A, 12, b"two"), write(A, 10, b"one"));
        assert_eq!(buffer.write(B, 15, b"three"), write(A, 12, b"two"));
        assert_eq!(buffer.write(A, 0, b""), write(B, 15, b"three"));
        assert_eq!(buffer.take(), write(A, 0, b""));
    }

    #[test]
    fn a_write_does_not_outgrow_its_bound() {
        let mut buffer = LogBuffer::default();
        let half = vec![7; BUFFERED_BYTES_MAX / 2];
        assert_eq!(buffer.write(A, 0, &half), None);
        assert_eq!(buffer.write(A, half.len() as u64, &half), None);
        let full = buffer.write(A, BUFFERED_BYTES_MAX as u64, b"more").unwrap();
        assert_eq!((full.offset, full.bytes.len()), (0, BUFFERED_BYTES_MAX));
        assert_eq!(buffer.take(), write(A, BUFFERED_BYTES_MAX as u64, b"more"));
    }

    #[test]
    fn files_which_are_gone_or_cut_are_not_written() {
        let mut buffer = LogBuffer::default();
        assert_eq!(buffer.write(A, 10, b"abcdef"), None);
        buffer.forget(B);
        buffer.truncate(B, 0);
        buffer.truncate(A, 20);
        buffer.truncate(A, 13);
        assert_eq!(buffer.write(A, 13, b"x"), None);
        assert_eq!(buffer.take(), write(A, 10, b"abcx"));
        assert_eq!(buffer.write(A, 10, b"abc"), None);
        buffer.truncate(A, 4);
        assert_eq!(buffer.take(), write(A, 10, b""));
        assert_eq!(buffer.write(A, 10, b"abc"), None);
        buffer.forget(A);
        assert_eq!(buffer.take(), None);
    }

    #[test]
    fn headers_which_begin_a_log_anew() {
        let table: [(u64, &[u8], bool); 9] = [
            (0, b"\x00\x00\x00\x00", true),
            (0, b"\x00\x00\x00\x00 and more", true),
            (0, b"\x37\x7f\x06\x82 and more", true),
            (0, b"\x37\x7f\x06\x83 and more", true),
            (0, b"\x37\x7f\x06\x84 and more", false),
            // A journal to roll back.
            (0, b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", false),
            (0, b"primary.db-journal", false),
            (0, b"\x00\x00\x00", false),
            (4, b"\x00\x00\x00\x00", false),
        ];
        for (offset, data, expected) in table {
            assert_eq!(restarts(offset, data), expected, "{offset} {data:?}");
        }
    }
}
