//! The pages of one database, as SQLite wrote them and as they are stored.
//!
//! A database is a sparse file of pages of one size, each stored under its offset. Pages are staged here, so that many
//! become one write; between the begin and the commit of an atomic batch all of them do, however many they are. What is
//! staged is read back at once. The file ends behind its last page, or where the header says, whichever is further: a page
//! leaves only when SQLite truncates, which it does once the transaction that freed the page is committed. Before that, a
//! rollback may need it still.

use crate::header::{Header, is_page_size};
use std::collections::BTreeMap;

/// Bytes which are staged outside of an atomic batch, over which they are stored.
pub(crate) const STAGED_BYTES_MAX: usize = 128 << 10;

/// Pages to store, by their offsets, and those to delete, which have none.
pub(crate) type Staged = BTreeMap<u64, Option<Box<[u8]>>>;

/// Why a page cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PageError {
    #[error(
        "a page of {found} bytes, in a database of pages of {expected} bytes, whose size cannot be changed"
    )]
    Size { found: usize, expected: u32 },
    #[error("{0} bytes, which is no size of a page")]
    NoSize(usize),
    #[error("a first page which says that pages have {said} bytes, and has {found}")]
    Contradiction { said: u32, found: usize },
    #[error("an offset of {offset}, which is no multiple of the page size {page_bytes}")]
    Unaligned { offset: u64, page_bytes: u32 },
    #[error("an atomic batch within another, or the end of one which did not begin")]
    Batch,
}

/// What an atomic batch began with.
#[derive(Debug)]
struct Begun {
    page_bytes: Option<u32>,
    size: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// Not known while there is no page.
    page_bytes: Option<u32>,
    size: u64,
    staged: Staged,
    staged_bytes: usize,
    batch: Option<Begun>,
}

impl Pages {
    /// A database which was stored: its first page, if there is one, and the offset and size of its last page.
    pub(crate) fn stored(first: Option<&[u8]>, last: Option<(u64, usize)>) -> Result<Pages, PageError> {
        let mut pages = Pages::default();
        if let Some((offset, length)) = last {
            pages.observe(offset, length)?;
        }
        if let Some(first) = first {
            pages.observe(0, first.len())?;
            pages.observe_header(first)?;
        }
        Ok(pages)
    }

    /// Size of the file, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Size of each page, in bytes, if there is one.
    pub(crate) fn page_bytes(&self) -> Option<u32> {
        self.page_bytes
    }

    /// What is staged for the page at an offset: its content, that it was deleted, or nothing at all.
    pub(crate) fn staged(&self, offset: u64) -> Option<Option<&[u8]>> {
        self.staged.get(&offset).map(Option::as_deref)
    }

    /// Whether what is staged must be taken before this much more.
    pub(crate) fn is_full(&self, more: usize) -> bool {
        self.batch.is_none() && !self.staged.is_empty() && self.staged_bytes + more > STAGED_BYTES_MAX
    }

    /// Whether an atomic batch is open.
    pub(crate) fn in_batch(&self) -> bool {
        self.batch.is_some()
    }

    /// Stages a page.
    pub(crate) fn write(&mut self, offset: u64, page: &[u8]) -> Result<(), PageError> {
        if offset == 0 {
            // Checked first, so that a page which is refused changes nothing.
            if let Ok(header) = Header::parse(page)
                && header.page_bytes as usize != page.len()
            {
                return Err(PageError::Contradiction { said: header.page_bytes, found: page.len() });
            }
        }
        self.observe(offset, page.len())?;
        if offset == 0 {
            self.observe_header(page)?;
        }
        self.stage(offset, Some(page.into()));
        Ok(())
    }

    /// Ends the file at `size`: deletes the pages beyond, of which `stored` are the offsets of those that are stored.
    pub(crate) fn truncate(&mut self, size: u64, stored: impl IntoIterator<Item = u64>) {
        let staged: Vec<u64> = self.staged.range(size..).map(|(offset, _)| *offset).collect();
        for offset in staged.into_iter().chain(stored).filter(|offset| *offset >= size) {
            self.stage(offset, None);
        }
        self.size = self.size.min(size);
        if self.size == 0 {
            self.page_bytes = None;
        }
    }

    /// Begins an atomic batch. What is staged must have been taken.
    pub(crate) fn begin_batch(&mut self) -> Result<(), PageError> {
        if self.batch.is_some() || !self.staged.is_empty() {
            return Err(PageError::Batch);
        }
        self.batch = Some(Begun { page_bytes: self.page_bytes, size: self.size });
        Ok(())
    }

    /// Ends an atomic batch. What is staged is to be stored, all at once.
    pub(crate) fn commit_batch(&mut self) -> Result<(), PageError> {
        self.batch.take().map(drop).ok_or(PageError::Batch)
    }

    /// Undoes an atomic batch, if one is open.
    pub(crate) fn roll_back_batch(&mut self) {
        if let Some(Begun { page_bytes, size }) = self.batch.take() {
            self.staged.clear();
            self.staged_bytes = 0;
            (self.page_bytes, self.size) = (page_bytes, size);
        }
    }

    /// What is staged, to be stored.
    pub(crate) fn take(&mut self) -> Staged {
        self.staged_bytes = 0;
        std::mem::take(&mut self.staged)
    }

    fn stage(&mut self, offset: u64, page: Option<Box<[u8]>>) {
        let bytes = |page: &Option<Box<[u8]>>| page.as_ref().map_or(0, |page| page.len());
        self.staged_bytes += bytes(&page);
        if let Some(before) = self.staged.insert(offset, page) {
            self.staged_bytes -= bytes(&before);
        }
    }

    /// Notes a page which is there.
    fn observe(&mut self, offset: u64, length: usize) -> Result<(), PageError> {
        let page_bytes = match self.page_bytes {
            Some(expected) if expected as usize != length => {
                return Err(PageError::Size { found: length, expected });
            }
            Some(expected) => expected,
            None => u32::try_from(length)
                .ok()
                .filter(|bytes| is_page_size(*bytes))
                .ok_or(PageError::NoSize(length))?,
        };
        if !offset.is_multiple_of(u64::from(page_bytes)) {
            return Err(PageError::Unaligned { offset, page_bytes });
        }
        self.page_bytes = Some(page_bytes);
        self.size = self.size.max(offset.saturating_add(length as u64));
        Ok(())
    }

    /// Notes what a first page says. One without a header is SQLite's to judge.
    fn observe_header(&mut self, page: &[u8]) -> Result<(), PageError> {
        let Ok(header) = Header::parse(page) else { return Ok(()) };
        if header.page_bytes as usize != page.len() {
            return Err(PageError::Contradiction { said: header.page_bytes, found: page.len() });
        }
        self.size = self.size.max(header.size());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
