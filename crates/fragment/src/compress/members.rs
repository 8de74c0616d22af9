//! Where the members of a gzip file begin, found without decompressing it.
//!
//! Some writers begin a member anew for each batch of content, and write no index. Each member then begins with the same
//! header, and ends with the length of its content. So every place where the first bytes of the file occur again is taken for
//! the beginning of a member, and what stands before it for the length of the one that it ends. Compressed content may hold
//! the same bytes: by chance, or because it is gzip itself. Such a place has a length before it, too, and if no length but
//! the last may be zero, all of them together are more than the content. So what is found is true if the lengths add up.

use std::io::{self, Read};

use memchr::memmem::Finder;

use super::entry::{Entry, Notes};
use super::gzip::MAGIC;

/// Stored bytes which are searched at once.
const SEARCH_BYTES: usize = 1 << 20;
/// Of a member, those which say nothing of its content.
const HEAD_BYTES: usize = 10;
/// The length of the content, at the end of a member.
const LENGTH_BYTES: usize = 4;

/// Where the gzip file `stored` of `content_length` bytes of content can be entered, in order. Nothing if it has few members, or
/// if they do not all begin alike. Reads the file to its end in 1 MiB of memory.
///
/// # Errors
/// Those of reading. Whatever is not gzip has no members.
pub fn gzip_members(stored: impl Read, content_length: u64) -> io::Result<Vec<Entry>> {
    let (mut notes, mut content) = (Notes::new(Some(content_length), 0), 0);
    let ended = |length: u32, end| {
        content += u64::from(length);
        notes.made(length.into());
        notes.can_enter(end, || None);
    };
    let is_gzip = each_member(stored, SEARCH_BYTES, ended)?;
    Ok(if is_gzip && content == content_length { notes.take() } else { Vec::new() })
}

/// Calls `ended` with the length of each member's content and with where it ends in the file. Whether there can be members.
fn each_member(
    mut stored: impl Read,
    search_bytes: usize,
    mut ended: impl FnMut(u32, u64),
) -> io::Result<bool> {
    let mut buffer = Vec::with_capacity(search_bytes);
    stored.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut buffer)?;
    if buffer.len() < HEAD_BYTES || !buffer.starts_with(&MAGIC) {
        return Ok(false);
    }
    let head = Finder::new(&buffer).into_owned();
    let mut position = 0;
    loop {
        let wanted = search_bytes - buffer.len();
        let read = stored.by_ref().take(wanted as u64).read_to_end(&mut buffer)?;
        // Closer to the beginning of the buffer is what was found before.
        for at in head.find_iter(&buffer).filter(|at| *at >= LENGTH_BYTES) {
            let length = length_before(&buffer[..at]);
            if length == 0 {
                return Ok(false);
            }
            ended(length, position + at as u64);
        }
        if read < wanted {
            ended(length_before(&buffer), position + buffer.len() as u64);
            return Ok(true);
        }
        // A head may begin here, and be whole with what is read next.
        let searched = buffer.len() - (LENGTH_BYTES + HEAD_BYTES - 1);
        buffer.drain(..searched);
        position += searched as u64;
    }
}

fn length_before(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(*bytes.last_chunk().expect("a head is longer than a length"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::super::entry::ENTRY_SPACING_BYTES;
    use super::super::tests::config;
    use super::*;

    fn member(level: u32, content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// Length and end of each member.
    fn found(stored: &[u8], search_bytes: usize) -> Option<Vec<(usize, u64)>> {
        let mut found = Vec::new();
        let is_gzip = each_member(stored, search_bytes, |length, end| found.push((length as usize, end)));
        is_gzip.unwrap().then_some(found)
    }

    proptest! {
        #![proptest_config(config(256))]

        /// Wherever the members end in what is searched at once.
        #[test]
        fn members_are_found(lengths in prop::collection::vec(1usize..200, 0..40), last in 0usize..100, search_bytes in 28usize..300) {
            let (mut stored, mut expected) = (Vec::new(), Vec::new());
            for length in lengths.into_iter().chain([last]) {
                stored.extend(member(6, &vec![b'x'; length]));
                expected.push((length, stored.len() as u64));
            }
            prop_assert_eq!(found(&stored, search_bytes), Some(expected));
        }

        #[test]
        fn whatever_is_no_gzip_has_no_members(stored: Vec<u8>, content_length: u64) {
            prop_assert!(gzip_members(&stored[..], content_length).unwrap().is_empty());
        }
    }

    #[test]
    fn entries_are_where_members_begin() {
        let batch = vec![b'x'; 3 << 20];
        let stored = member(1, &batch).repeat(10);
        let length = 10 * batch.len() as u64;
        let entries = gzip_members(&stored[..], length).unwrap();
        let places: Vec<_> = entries.iter().map(|entry| (entry.content, entry.stored)).collect();
        let expected = [3, 6, 9].map(|n| (n * batch.len() as u64, n * stored.len() as u64 / 10));
        assert_eq!(places, expected);
        assert!(ENTRY_SPACING_BYTES > 2 * batch.len() as u64, "those between are not far enough apart");
        // It is another file if the content has another length.
        assert!(gzip_members(&stored[..], length + 1).unwrap().is_empty());
        assert!(gzip_members(&stored[..stored.len() - 1], length).unwrap().is_empty());
    }

    #[test]
    fn content_which_is_gzip_itself_is_not_mistaken() {
        let (inner, padding) = (member(1, b"inner"), 9 << 20);
        // Stored without compression, so that the file holds it as it is, after lengths of a kind.
        for before in [&b"\0\0\0\0"[..], b"\x01\0\0\0", b"\xff\xff\xff\xff", b"\x05\0\0\0"] {
            let content = [&vec![b'x'; padding][..], before, &inner, &vec![b'y'; padding]].concat();
            let stored = [member(1, &content), member(0, &content), member(1, &content)].concat();
            let length = 3 * content.len() as u64;
            assert_eq!(Finder::new(&inner).find_iter(&stored).count(), 1);
            assert!(gzip_members(&stored[..], length).unwrap().is_empty(), "after {before:?}");
        }
    }

    #[test]
    fn members_which_do_not_begin_alike_are_not_entered() {
        let batch = vec![b'x'; 9 << 20];
        // One of them has a time.
        let mut other = member(1, &batch);
        other[4] = 1;
        let stored = [member(1, &batch), other, member(1, &batch)].concat();
        assert!(gzip_members(&stored[..], 3 * batch.len() as u64).unwrap().is_empty());
    }
}
