//! The content of a fragment, from whichever of its copies can be read.
//!
//! An object of a store may be missing, cut short or corrupt, and a store may be down. The content often is elsewhere too: in
//! another fragment of the index which covers the offset, under the same name in another store of the journal, in the spool of
//! another replica, or in a fragment which the index does not show since a larger one covers it. When a copy fails, the
//! next one is read from the offset up to which content was sent. Only if none is left does the read fail, with what was
//! wrong with the first; nothing is passed over.
//!
//! A copy mostly proves to be corrupt only at its end, when part of it was sent. Then another copy must agree with what was sent before
//! it is gone on with: it is read from the same offset, and its content compared by CRC-32C. So what a reader has got up to
//! the end of a fragment is right, or the read fails.

use std::collections::BTreeSet;

use bytes::Bytes;
use fragment::Fragment;
use runtime::prometheus::IntCounterVec;
use stores::Health;

use super::Read;
use super::content::{ContentError, ContentReader, Defect};
use crate::error::ServiceError;
use crate::spool::LocalFile;

/// Fragments of a listing that are kept in mind, at most: less than a mebibyte.
const LISTED_MAX: usize = 4096;

/// Where content may be read.
enum Copy {
    Fragment(Box<Fragment>, Option<LocalFile>),
    /// The spool of another replica.
    Replica,
}

impl Copy {
    /// Tells it from others.
    fn name(&self) -> String {
        match self {
            Copy::Fragment(_, Some(file)) => file.path().display().to_string(),
            Copy::Fragment(fragment, None) => {
                format!(
                    "{} {}",
                    fragment.backing_store.as_deref().unwrap_or_default(),
                    fragment.content_path()
                )
            }
            Copy::Replica => "replicas".to_owned(),
        }
    }
}

impl Copy {
    /// Whether the last health check of the copy's store has failed, so that others should be tried before.
    fn is_in_ill_store(&self, read: &Read) -> bool {
        let Copy::Fragment(fragment, None) = self else { return false };
        let store = fragment.backing_store.as_deref().map(|url| read.context.stores.get(url));
        match store {
            Some(Ok(store)) => matches!(*store.health().borrow(), Health::Unhealthy(_)),
            Some(Err(_)) | None => true,
        }
    }
}

/// Content that was sent and may be wrong.
#[derive(Clone, Copy)]
struct Doubt {
    from: i64,
    crc: u32,
}

/// Reads the content of one fragment, in order.
pub(super) struct Copies {
    /// What the index answered.
    own: Fragment,
    own_file: Option<LocalFile>,
    offset: i64,
    end: i64,
    reader: Option<ContentReader>,
    /// Where the present copy's part begins, and the CRC-32C of what was sent of it.
    sent: Doubt,
    doubt: Option<Doubt>,
    tried: BTreeSet<String>,
    /// Fragments that a listing of the stores found.
    listed: Option<Vec<Fragment>>,
    /// What was wrong with the first copy.
    problem: Option<ServiceError>,
    /// Whether that is all that was wrong with any: it is not there.
    are_missing: bool,
}

impl Copies {
    /// Content `begin..end` of `fragment`, whose own copy is tried first. Nothing is opened yet.
    pub(super) fn new(fragment: Fragment, file: Option<LocalFile>, begin: i64, end: i64) -> Copies {
        Copies {
            own: fragment,
            own_file: file,
            offset: begin,
            end,
            reader: None,
            sent: Doubt { from: begin, crc: 0 },
            doubt: None,
            tried: BTreeSet::new(),
            listed: None,
            problem: None,
            are_missing: true,
        }
    }

    /// The next chunk and its offset; None at the end.
    ///
    /// # Errors
    /// If no copy has the content, or none confirms what was sent of a corrupt one.
    pub(super) async fn next(&mut self, read: &mut Read) -> Result<Option<(i64, Bytes)>, ServiceError> {
        while self.offset < self.end {
            let Some(reader) = &mut self.reader else {
                self.turn_to_next(read).await?;
                continue;
            };
            match reader.next().await {
                Ok(Some(chunk)) => {
                    let at = self.offset;
                    self.offset += i64::try_from(chunk.len()).expect("a chunk is smaller than its limit");
                    self.sent.crc = crc32c::crc32c_append(self.sent.crc, &chunk);
                    return Ok(Some((at, chunk)));
                }
                // This copy ends before the fragment does.
                Ok(None) => self.reader = None,
                Err(error) => {
                    if error.defect == Defect::Corrupt && self.sent.from < self.offset {
                        self.doubt = Some(self.sent);
                    }
                    self.reader = None;
                    self.note(error, read);
                }
            }
        }
        Ok(None)
    }

    /// Opens the next copy which can be gone on with.
    async fn turn_to_next(&mut self, read: &mut Read) -> Result<(), ServiceError> {
        loop {
            let Some(copy) = Box::pin(self.next_copy(read)).await else { return Err(self.failure()) };
            self.tried.insert(copy.name());
            match Box::pin(self.open(copy, read)).await {
                Ok(None) => {}
                Ok(Some(reader)) => {
                    self.reader = Some(reader);
                    self.doubt = None;
                    self.sent = Doubt { from: self.offset, crc: 0 };
                    return Ok(());
                }
                Err(error) => self.note(error, read),
            }
        }
    }

    /// The next copy which was not tried, the likeliest first.
    async fn next_copy(&mut self, read: &mut Read) -> Option<Copy> {
        let own = self.own_copy();
        if !self.tried.contains(&own.name()) && !own.is_in_ill_store(read) {
            return Some(own);
        }
        let stores = read.replica.stores();
        if let Some(copy) = self.known_copy(read, &stores) {
            return Some(copy);
        }
        if self.listed.is_none() {
            self.listed = Some(self.list(read, &stores).await);
        }
        let listed = self.listed.iter().flatten().cloned();
        listed.map(|fragment| Copy::Fragment(Box::new(fragment), None)).find(|copy| self.may_try(copy))
    }

    fn own_copy(&self) -> Copy {
        Copy::Fragment(Box::new(self.own.clone()), self.own_file.clone())
    }

    /// The fragment's own copy, one in the index, under the same name in another store, or of another replica: those in stores which
    /// are known to be ill come last.
    fn known_copy(&self, read: &Read, stores: &[String]) -> Option<Copy> {
        let shown = read.index.borrow().index.all_covering(self.first());
        let shown = shown.into_iter().map(|entry| Copy::Fragment(Box::new(entry.fragment), entry.file));
        let in_store =
            |store: &String| Fragment { backing_store: Some(store.as_str().into()), ..self.own.clone() };
        let namesakes = stores.iter().filter(|_| self.own_file.is_none()).map(in_store);
        let namesakes = namesakes.map(|fragment| Copy::Fragment(Box::new(fragment), None));
        let known = [self.own_copy()].into_iter().chain(shown).chain(namesakes).chain([Copy::Replica]);
        let mut untried: Vec<Copy> = known.filter(|copy| self.may_try(copy)).collect();
        untried.sort_by_key(|copy| copy.is_in_ill_store(read));
        untried.into_iter().next()
    }

    /// The first offset that a copy must have: where what is in doubt begins, or what comes next.
    fn first(&self) -> i64 {
        self.doubt.map_or(self.offset, |doubt| doubt.from)
    }

    fn may_try(&self, copy: &Copy) -> bool {
        let is_of_use = match copy {
            Copy::Fragment(fragment, _) => fragment.begin <= self.first() && self.offset < fragment.end,
            Copy::Replica => true,
        };
        is_of_use && !self.tried.contains(&copy.name())
    }

    /// Opens a copy at the present offset, after comparing it with what is in doubt. None if it is no copy after all.
    async fn open(&mut self, copy: Copy, read: &mut Read) -> Result<Option<ContentReader>, ContentError> {
        let first = self.first();
        let name = copy.name();
        let mut reader = match copy {
            Copy::Fragment(fragment, file) => {
                let end = self.end.min(fragment.end);
                let is_guess = file.is_none() && !self.is_known(&fragment);
                let ahead = read.ahead.take(&fragment, first).await;
                match ContentReader::open(&read.context, &fragment, file, ahead, first, end).await {
                    Err(error) if is_guess && error.defect == Defect::Missing => return Ok(None),
                    opened => opened?,
                }
            }
            Copy::Replica => match read.elsewhere.ask_spools(first, self.end).await {
                Some(relay) => ContentReader::relayed(relay, first, self.end, read.stopped.clone()),
                None => return Ok(None),
            },
        };
        let Some(doubt) = self.doubt else { return Ok(Some(reader)) };
        let mut crc = 0;
        while reader.offset() < self.offset {
            match reader.next_before(self.offset).await? {
                Some(chunk) => crc = crc32c::crc32c_append(crc, &chunk),
                None => return Ok(None),
            }
        }
        if crc == doubt.crc {
            return Ok(Some(reader));
        }
        let problem = format!("content from {first} to {} of {name} is not what was sent", self.offset);
        Err(ContentError::new(
            Defect::Corrupt,
            format!("read fragment {}", self.own.content_path()),
            problem.into(),
        ))
    }

    /// Whether the index or a listing showed the fragment, rather than that it would be a namesake.
    fn is_known(&self, fragment: &Fragment) -> bool {
        fragment.backing_store == self.own.backing_store || fragment.content_path() != self.own.content_path()
    }

    /// Every fragment of the stores which has some of what is to be read, those which reach furthest first. What cannot be listed is
    /// left out.
    async fn list(&mut self, read: &mut Read, stores: &[String]) -> Vec<Fragment> {
        let (offset, end) = (self.offset, self.end);
        let mut found: Vec<Fragment> = Vec::new();
        for url in stores {
            let each = |fragment: Fragment| {
                if fragment.begin < end && offset < fragment.end && found.len() < LISTED_MAX {
                    found.push(fragment);
                }
            };
            let listed = match read.context.stores.get(url) {
                Ok(store) => store.list_each(read.replica.journal(), each).await,
                Err(error) => Err(error),
            };
            if let Err(error) = listed {
                tracing::debug!(%error, "cannot look for another copy of a fragment");
            }
        }
        found.sort_by_key(|fragment| std::cmp::Reverse(fragment.end));
        found
    }

    /// Tells of a copy that cannot be read.
    fn note(&mut self, error: ContentError, read: &Read) {
        let (journal, offset) = (read.replica.journal(), self.offset);
        let ContentError { defect, error } = error;
        read.context.failures.with_label_values(&[defect.name()]).inc();
        match defect {
            Defect::Corrupt => tracing::error!(%journal, offset, %error, "a copy of content is corrupt"),
            Defect::Missing | Defect::Unavailable => {
                tracing::warn!(%journal, offset, %error, "a copy of content cannot be read");
            }
        }
        if defect == Defect::Missing {
            // Somebody removed it, which only a listing from the beginning tells.
            read.replica.want_full_listing();
        }
        self.are_missing &= defect == Defect::Missing;
        self.problem.get_or_insert(error);
    }

    /// The offset from which on content is not there, if a read failed for no other reason.
    pub(super) fn missing_from(&self) -> Option<i64> {
        (self.are_missing && self.doubt.is_none()).then_some(self.offset)
    }

    /// The error of a read which no copy can go on with.
    fn failure(&mut self) -> ServiceError {
        let offset = self.offset;
        let rest = match self.doubt {
            Some(doubt) => format!(
                "; what was sent from offset {} to {offset} may be wrong, and there is no other copy to compare it with",
                doubt.from
            ),
            None => format!("; there is no other copy of what follows offset {offset}"),
        };
        match self.problem.take() {
            Some(ServiceError::Content { action, source }) => {
                ServiceError::Content { action, source: format!("{source}{rest}").into() }
            }
            problem => ServiceError::Content {
                action: format!("read fragment {}", self.own.content_path()),
                source: format!("{}{rest}", problem.map(|problem| problem.to_string()).unwrap_or_default())
                    .into(),
            },
        }
    }
}

/// Counts the copies that cannot be read, by what is wrong with them.
pub fn failures(metrics: &runtime::Metrics) -> IntCounterVec {
    metrics.counter_vec(
        "courant_read_copy_failures_total",
        "Copies of fragments which could not be read, by what is wrong with them.",
        &["defect"],
    )
}
