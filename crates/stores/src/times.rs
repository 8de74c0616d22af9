//! The times of stores which no option sets.

use std::time::Duration;

/// How long stores wait, and for what. The defaults are those of every broker; tests shorten them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreTimes {
    /// For a connection: 5 s.
    pub connect: Duration,
    /// For any byte of an answer: 10 s.
    pub answer: Duration,
    /// The same of uploads, which are answered once they are complete: 60 s.
    pub upload_answer: Duration,
    /// For an operation on a single object, other than an upload: 30 s.
    pub request: Duration,
    /// For one page of a listing: 14 s.
    pub page: Duration,
    /// For the next entries of a listing, with every attempt at their page: 60 s.
    pub list_step: Duration,
    /// For an upload, and for reading it back, of a fragment of up to 1 GiB: 5 minutes. Longer ones get as much per GiB.
    pub upload: Duration,
    /// For the next bytes of an object that is being read, with every attempt to go on: 60 s.
    pub next_bytes: Duration,
    /// For the whole of a health check or of a delete probe: 60 s.
    pub check: Duration,
    /// Age at which credentials that came from a file are read again: 15 s.
    pub reread_credentials: Duration,
}

impl Default for StoreTimes {
    fn default() -> StoreTimes {
        let seconds = Duration::from_secs;
        StoreTimes {
            connect: seconds(5),
            answer: seconds(10),
            upload_answer: seconds(60),
            request: seconds(30),
            page: seconds(14),
            list_step: seconds(60),
            upload: seconds(5 * 60),
            next_bytes: seconds(60),
            check: seconds(60),
            reread_credentials: seconds(15),
        }
    }
}
