//! What the first page of a SQLite database says of the whole: the fields that its file system needs.

/// Bytes of the header, at the begin of the first page.
pub(crate) const HEADER_BYTES: usize = 100;

const PAGE_BYTES_MIN: u32 = 512;
const PAGE_BYTES_MAX: u32 = 1 << 16;

/// Fields of a database's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Size of each page, in bytes: a power of two.
    pub(crate) page_bytes: u32,
    /// Pages which the database has.
    pub(crate) page_count: u32,
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("a first page of {0} bytes holds no header of {HEADER_BYTES} bytes")]
    TooShort(usize),
    #[error("a page size of {0}; expected a power of two from {PAGE_BYTES_MIN} to {PAGE_BYTES_MAX}")]
    PageSize(u32),
}

impl Header {
    /// The header at the begin of a first page.
    pub(crate) fn parse(page: &[u8]) -> Result<Header, HeaderError> {
        let header = page.first_chunk::<HEADER_BYTES>().ok_or(HeaderError::TooShort(page.len()))?;
        // The largest size does not fit into two bytes, and is written as one.
        let page_bytes = match u32::from(u16::from_be_bytes([header[16], header[17]])) {
            1 => PAGE_BYTES_MAX,
            bytes => bytes,
        };
        if !is_page_size(page_bytes) {
            return Err(HeaderError::PageSize(page_bytes));
        }
        let page_count = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
        Ok(Header { page_bytes, page_count })
    }

    /// Size of the database, in bytes.
    pub(crate) fn size(&self) -> u64 {
        u64::from(self.page_bytes) * u64::from(self.page_count)
    }
}

/// Whether pages can have this size, in bytes.
pub(crate) fn is_page_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(size: [u8; 2], count: u32) -> Vec<u8> {
        let mut page = vec![0; 512];
        page[16..18].copy_from_slice(&size);
        page[28..32].copy_from_slice(&count.to_be_bytes());
        page
    }

    #[test]
    fn sizes_and_counts_are_big_endian() {
        let table = [
            ([0x10, 0x00], 7, Ok((4096, 7 * 4096))),
            ([0x02, 0x00], 0, Ok((512, 0))),
            ([0x00, 0x01], 0xffff_fffe, Ok((65536, 0xffff_fffe * 65536))),
            ([0x00, 0x00], 1, Err(HeaderError::PageSize(0))),
            ([0x01, 0x00], 1, Err(HeaderError::PageSize(256))),
            ([0x10, 0x01], 1, Err(HeaderError::PageSize(4097))),
        ];
        for (size, count, expected) in table {
            let found = Header::parse(&header(size, count)).map(|found| (found.page_bytes, found.size()));
            assert_eq!(found, expected, "{size:?}");
        }
        assert_eq!(Header::parse(&[0; 99]), Err(HeaderError::TooShort(99)));
    }

    #[test]
    fn the_header_of_a_real_database_is_parsed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("real.db");
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA page_size = 8192; CREATE TABLE t (a); CREATE TABLE u (a)").unwrap();
        drop(db);
        let content = std::fs::read(&path).unwrap();
        let found = Header::parse(&content).unwrap();
        assert_eq!(found, Header { page_bytes: 8192, page_count: 3 });
        assert_eq!(found.size(), content.len() as u64);
    }
}
