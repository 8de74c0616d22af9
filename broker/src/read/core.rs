//! The decisions of one Read (journal protocol §8): which fragment comes next, what is said about it, how far to stream.
//!
//! The driver asks the index what [`ReadCore::query`] says, hands the answer to [`ReadCore::on_answer`], and does what
//! the [`Step`] asks. After content was sent it calls [`ReadCore::sent`]. Nothing here waits or does I/O.

use std::time::Duration;

use fragment::Fragment;
use fragment::index::{Answer, Found, NotYet, Query};
use proto::protocol::{Header, ReadRequest, ReadResponse, Status};

/// The state of one Read.
#[derive(Debug)]
pub struct ReadCore {
    /// Next offset to read; negative until the write head was looked up.
    offset: i64,
    /// Exclusive; zero is unbounded.
    end_offset: i64,
    begin_mod_time: i64,
    block: bool,
    do_not_proxy: bool,
    metadata_only: bool,
    jump_age_seconds: i64,
    /// Until the first response.
    header: Option<Header>,
}

/// What the driver is to do.
#[derive(Debug, Clone)]
pub enum Step<L> {
    /// Ask again once the index changed, or at this Unix time in seconds.
    Wait {
        /// When time alone changes the answer.
        retry_at_unix: Option<i64>,
    },
    /// Send this response, then end the stream.
    Finish(Box<ReadResponse>),
    /// Send this response, whose fragment URL is the driver's to add, then go on as told.
    Visit(Box<Visit<L>>),
}

/// A fragment that answers the read.
#[derive(Debug, Clone)]
pub struct Visit<L> {
    /// What is said about it.
    pub response: ReadResponse,
    /// Its description.
    pub fragment: Fragment,
    /// Its content, if it is local.
    pub file: Option<L>,
    /// The content to stream, `begin..end` in journal offsets; `None` ends the stream.
    pub content: Option<(i64, i64)>,
}

impl ReadCore {
    /// Begins a validated request which resolved to this process. `header` is that of the answer. Missing content is passed
    /// over once the stored fragment after it is older than `hole_age`.
    pub fn new(request: &ReadRequest, header: Header, hole_age: Duration) -> ReadCore {
        ReadCore {
            offset: request.offset,
            end_offset: request.end_offset,
            begin_mod_time: request.begin_mod_time,
            block: request.block,
            do_not_proxy: request.do_not_proxy,
            metadata_only: request.metadata_only,
            jump_age_seconds: i64::try_from(hole_age.as_secs()).unwrap_or(i64::MAX),
            header: Some(header),
        }
    }

    /// The next question to the index. `end` is that of the journal, which a new replica may know of before it
    /// holds any content.
    pub fn query(&self, now_unix: i64, end: i64) -> Query {
        let offset = if self.offset < 0 { end } else { self.offset };
        let ReadCore { begin_mod_time, jump_age_seconds, .. } = *self;
        Query { offset, begin_mod_time, now_unix, jump_age_seconds }
    }

    /// The content `begin..end` which the answer to a query at `asked` passes over or waits for, although the journal goes
    /// on behind it: other replicas may have it.
    pub fn gap<L>(&self, answer: &Answer<L>, asked: i64, end: i64) -> Option<(i64, i64)> {
        let (from, to) = match answer {
            // Content that is left out for its age is no gap.
            Answer::Found(found) if self.begin_mod_time == 0 => (asked, found.offset),
            Answer::Found(_) => return None,
            Answer::NotYet(not_yet) => (not_yet.offset, end.max(not_yet.write_head)),
        };
        let to = if self.end_offset == 0 { to } else { to.min(self.end_offset) };
        (from < to).then_some((from, to))
    }

    /// Gives a response its header, if it is the first.
    pub fn with_header(&mut self, response: ReadResponse) -> ReadResponse {
        ReadResponse { header: self.header.take(), ..response }
    }

    /// Goes on at `offset`, before which content was skipped.
    pub fn skip_to(&mut self, offset: i64) {
        self.offset = self.offset.max(offset);
    }

    /// Whether no content is to be sent.
    pub fn is_metadata_only(&self) -> bool {
        self.metadata_only
    }

    /// Whether to wait for content.
    pub fn is_blocking(&self) -> bool {
        self.block
    }

    /// Decides upon the index's answer. `end` is that of the query.
    pub fn on_answer<L>(&mut self, answer: Answer<L>, end: i64) -> Step<L> {
        match answer {
            Answer::Found(found) => Step::Visit(Box::new(self.visit(found, end))),
            Answer::NotYet(NotYet { offset, retry_at_unix, .. }) if self.block => {
                // The write head was looked up, or content was skipped, for good.
                self.offset = offset;
                Step::Wait { retry_at_unix }
            }
            Answer::NotYet(NotYet { offset, write_head, .. }) => Step::Finish(Box::new(ReadResponse {
                status: Status::OffsetNotYetAvailable as i32,
                header: self.header.take(),
                offset,
                write_head: write_head.max(end),
                ..ReadResponse::default()
            })),
        }
    }

    fn visit<L>(&mut self, found: Found<L>, journal_end: i64) -> Visit<L> {
        let Found { entry, offset, write_head } = found;
        assert!(
            entry.fragment.begin <= offset && offset < entry.fragment.end,
            "the index answers with a cover"
        );
        self.offset = offset;
        let is_done = self.end_offset != 0 && offset >= self.end_offset;
        let is_elsewhere = entry.file.is_none() && self.do_not_proxy;
        let end =
            if self.end_offset == 0 { entry.fragment.end } else { self.end_offset.min(entry.fragment.end) };
        Visit {
            response: ReadResponse {
                status: Status::Ok as i32,
                header: self.header.take(),
                offset,
                write_head: write_head.max(journal_end),
                fragment: Some(entry.fragment.to_proto()),
                ..ReadResponse::default()
            },
            content: (!(self.metadata_only || is_done || is_elsewhere)).then_some((offset, end)),
            fragment: entry.fragment,
            file: entry.file,
        }
    }

    /// Whether content from `offset` on, after that which is being sent, would be sent too although it is stored only.
    pub fn goes_on_at(&self, offset: i64) -> bool {
        !self.do_not_proxy && (self.end_offset == 0 || offset < self.end_offset)
    }

    /// Content up to `offset` was sent. Returns whether there is more to read.
    pub fn sent(&mut self, offset: i64) -> bool {
        assert!(offset >= self.offset, "content is sent in order: {offset} after {}", self.offset);
        self.offset = offset;
        self.end_offset == 0 || offset < self.end_offset
    }
}

#[cfg(test)]
mod tests;
