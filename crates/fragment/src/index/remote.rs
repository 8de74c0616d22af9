//! The fragments of one journal which its stores hold, as few bytes.
//!
//! Pure: no I/O, no clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::JournalName;

use crate::{Codec, CoverSet, Fragment, PathPostfix, Span, Sum};

/// Bits of [`Stored::origin_and_codec`] which hold the codec's number.
const CODEC_BITS: u32 = 3;
/// Part of its length by which a vector of a listing grows: doubling it would waste half of the memory.
const GROWTH_PARTS: usize = 8;

/// A stored fragment without what the whole set shares, without padding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    begin: [u32; 2],
    end: [u32; 2],
    /// Until the year 2106.
    mod_time: u32,
    origin_and_codec: u32,
    sum: Sum,
}

const _: () = assert!(size_of::<Stored>() == 44, "a million of them, twice, are to stay below 100 MiB");

impl Stored {
    fn new(fragment: &Fragment, origin: u32) -> Stored {
        let codec = u32::try_from(fragment.codec.number()).expect("codec numbers are small");
        Stored {
            begin: halves(fragment.begin),
            end: halves(fragment.end),
            mod_time: u32::try_from(fragment.mod_time.max(0)).unwrap_or(u32::MAX),
            origin_and_codec: origin << CODEC_BITS | codec,
            sum: fragment.sum,
        }
    }

    /// Unix seconds of the object's last modification.
    pub(super) fn mod_time(&self) -> i64 {
        i64::from(self.mod_time)
    }

    fn origin(&self) -> u32 {
        self.origin_and_codec >> CODEC_BITS
    }

    fn codec(&self) -> Codec {
        let number = self.origin_and_codec & ((1 << CODEC_BITS) - 1);
        Codec::try_from(number as i32).expect("it was made of a codec")
    }
}

fn halves(offset: i64) -> [u32; 2] {
    let offset = offset.cast_unsigned();
    [(offset >> 32) as u32, offset as u32]
}

fn whole([high, low]: [u32; 2]) -> i64 {
    (u64::from(high) << 32 | u64::from(low)).cast_signed()
}

impl Span for Stored {
    fn begin(&self) -> i64 {
        whole(self.begin)
    }

    fn end(&self) -> i64 {
        whole(self.end)
    }

    fn rank(&self) -> u64 {
        u64::from(self.origin()) << 32 | u64::from(self.mod_time)
    }
}

/// Where stored fragments are: store URL and path postfix.
type Origin = (Option<Arc<str>>, PathPostfix);

/// The fragments of one journal which listings of its stores found. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RemoteSet {
    pub(super) spans: CoverSet<Stored>,
    origins: Arc<Vec<Origin>>,
}

/// Gathers a [`RemoteSet`], in the memory that it will have and an eighth more.
#[derive(Clone, Debug, Default)]
pub struct RemoteSetBuilder {
    spans: Vec<Stored>,
    origins: Vec<Origin>,
    known: BTreeMap<Origin, u32>,
}

impl RemoteSetBuilder {
    /// Adds a listed fragment. Of equal ranges one of the store and postfix that came last is kept, and of these the one
    /// modified last. The fragment's journal is not stored: all must be of the journal of the index which takes the set.
    pub fn push(&mut self, fragment: Fragment) {
        let origin = self.intern((fragment.backing_store.clone(), fragment.path_postfix.clone()));
        self.add(Stored::new(&fragment, origin));
    }

    /// Adds what another builder has gathered.
    pub fn append(&mut self, other: RemoteSetBuilder) {
        if self.spans.is_empty() {
            *self = other;
            return;
        }
        let origins: Vec<u32> = other.origins.into_iter().map(|origin| self.intern(origin)).collect();
        for stored in other.spans {
            self.add(stored.moved(&origins));
        }
    }

    /// Adds the fragments of `set` in the stores of which `keep` is true.
    pub fn keep(&mut self, set: &RemoteSet, keep: impl Fn(&str) -> bool) {
        let is_kept = |(store, _): &Origin| store.as_deref().is_some_and(&keep);
        let kept: Vec<bool> = set.origins.iter().map(is_kept).collect();
        if !kept.contains(&true) {
            return;
        }
        let origins: Vec<u32> = set.origins.iter().map(|origin| self.intern(origin.clone())).collect();
        for stored in set.spans.iter().filter(|stored| kept[stored.origin() as usize]) {
            self.add(stored.moved(&origins));
        }
    }

    /// How many fragments were added.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The set.
    pub fn build(self) -> RemoteSet {
        RemoteSet { spans: self.spans.into(), origins: Arc::new(self.origins) }
    }

    fn add(&mut self, stored: Stored) {
        if self.spans.len() == self.spans.capacity() {
            self.spans.reserve_exact(self.spans.len() / GROWTH_PARTS + GROWTH_PARTS);
        }
        self.spans.push(stored);
    }

    fn intern(&mut self, origin: Origin) -> u32 {
        // Listings come directory by directory, so that the last origin is mostly this one too.
        if self.origins.last() == Some(&origin) {
            return origin_number(self.origins.len() - 1);
        }
        let next = origin_number(self.origins.len());
        *self.known.entry(origin).or_insert_with_key(|origin| {
            self.origins.push(origin.clone());
            next
        })
    }
}

impl Stored {
    /// The same, where origins have these numbers.
    fn moved(self, origins: &[u32]) -> Stored {
        let codec = self.origin_and_codec & ((1 << CODEC_BITS) - 1);
        Stored { origin_and_codec: origins[self.origin() as usize] << CODEC_BITS | codec, ..self }
    }
}

fn origin_number(position: usize) -> u32 {
    let number = u32::try_from(position).unwrap_or(u32::MAX);
    assert!(number < u32::MAX >> CODEC_BITS, "memory ends before half a billion directories");
    number
}

impl FromIterator<Fragment> for RemoteSet {
    fn from_iter<I: IntoIterator<Item = Fragment>>(fragments: I) -> RemoteSet {
        let mut builder = RemoteSetBuilder::default();
        fragments.into_iter().for_each(|fragment| builder.push(fragment));
        builder.build()
    }
}

impl RemoteSet {
    /// How many fragments the set holds.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Highest end; zero if empty.
    pub fn end(&self) -> i64 {
        self.spans.end()
    }

    /// Whether every offset of `begin..end` is stored.
    pub fn covers(&self, begin: i64, end: i64) -> bool {
        self.spans.covers(begin, end)
    }

    /// The fragments, which are of `journal`, ascending.
    pub fn fragments(&self, journal: &JournalName) -> impl Iterator<Item = Fragment> {
        self.spans.iter().map(|stored| self.fragment(journal, stored))
    }

    pub(super) fn insert(&mut self, fragment: Fragment) {
        let origin = (fragment.backing_store.clone(), fragment.path_postfix.clone());
        let known = self.origins.iter().rposition(|other| *other == origin).unwrap_or_else(|| {
            Arc::make_mut(&mut self.origins).push(origin);
            self.origins.len() - 1
        });
        // What it displaces lies within it, and what it lies within says as much: either way nothing is lost.
        let _ = self.spans.insert(Stored::new(&fragment, origin_number(known)));
    }

    pub(super) fn fragment(&self, journal: &JournalName, stored: &Stored) -> Fragment {
        let (backing_store, path_postfix) = self.origins[stored.origin() as usize].clone();
        Fragment {
            journal: journal.clone(),
            begin: stored.begin(),
            end: stored.end(),
            sum: stored.sum,
            codec: stored.codec(),
            backing_store,
            mod_time: stored.mod_time(),
            path_postfix,
        }
    }
}
