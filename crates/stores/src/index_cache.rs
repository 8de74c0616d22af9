//! What the ends of a store's objects said about their blocks, of the objects which were entered last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fragment::compress::SeekIndex;
use object_store::ObjectMeta;

/// Memory of a cache, bytes: that of the indexes of 2,000 fragments of 256 MiB.
pub(crate) const INDEX_CACHE_BYTES_MAX: usize = 8 << 20;
/// Memory of an entry beside its path and its index, roughly.
const ENTRY_BYTES: usize = 256;

/// What the end of an object said.
#[derive(Debug)]
pub(crate) struct KnownIndex {
    /// Size of the object.
    pub(crate) size: u64,
    /// Its version, if the store has such.
    pub(crate) e_tag: Option<String>,
    /// None if it has no index that can be used.
    pub(crate) index: Option<Arc<SeekIndex>>,
}

impl KnownIndex {
    /// Whether the object is still the one of which this is known.
    pub(crate) fn is_of(&self, meta: &ObjectMeta) -> bool {
        self.size == meta.size && self.e_tag == meta.e_tag
    }
}

/// Indexes by path, of which the least recently used one makes way.
#[derive(Debug, Default)]
pub(crate) struct IndexCache {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_path: BTreeMap<Arc<str>, (u64, Arc<KnownIndex>)>,
    /// Paths by when they were used last.
    by_use: BTreeMap<u64, Arc<str>>,
    uses: u64,
    bytes: usize,
}

impl IndexCache {
    pub(crate) fn get(&self, path: &str) -> Option<Arc<KnownIndex>> {
        let entries = &mut *self.lock();
        let (used, known) = entries.by_path.get_mut(path)?;
        let path = entries.by_use.remove(used).expect("every entry has a use");
        entries.uses += 1;
        *used = entries.uses;
        entries.by_use.insert(entries.uses, path);
        Some(known.clone())
    }

    pub(crate) fn insert(&self, path: String, known: Arc<KnownIndex>) {
        let entries = &mut *self.lock();
        entries.remove(&path);
        let path: Arc<str> = path.into();
        entries.uses += 1;
        entries.bytes += bytes_of(&path, &known);
        entries.by_use.insert(entries.uses, path.clone());
        entries.by_path.insert(path, (entries.uses, known));
        while entries.bytes > INDEX_CACHE_BYTES_MAX {
            let Some((_, oldest)) = entries.by_use.first_key_value() else { return };
            let oldest = oldest.clone();
            entries.remove(&oldest);
        }
    }

    pub(crate) fn forget(&self, path: &str) {
        self.lock().remove(path);
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn remove(&mut self, path: &str) {
        if let Some((used, known)) = self.by_path.remove(path) {
            self.by_use.remove(&used);
            self.bytes -= bytes_of(path, &known);
        }
    }
}

fn bytes_of(path: &str, known: &KnownIndex) -> usize {
    ENTRY_BYTES + path.len() + known.index.as_ref().map_or(0, |index| index.memory_bytes())
}

#[cfg(test)]
mod tests {
    use fragment::Codec;
    use fragment::compress::{BLOCK_BYTES, Compressor, Tail};

    use super::*;

    fn known(blocks: usize) -> Arc<KnownIndex> {
        let mut compressor = Compressor::new(Codec::Snappy, None, Vec::new()).unwrap();
        let content = vec![0; blocks * BLOCK_BYTES];
        std::io::Write::write_all(&mut compressor, &content).unwrap();
        let stored = compressor.finish().unwrap();
        let size = stored.len() as u64;
        let index = match SeekIndex::read(Codec::Snappy, &stored, size, content.len() as u64) {
            Tail::Index(index) => Some(Arc::new(index)),
            _ => None,
        };
        Arc::new(KnownIndex { size, e_tag: None, index })
    }

    #[test]
    fn the_least_recently_used_makes_way() {
        let (cache, large, none) = (IndexCache::default(), known(64), known(0));
        assert!(large.index.is_some() && none.index.is_none());
        let fitting = INDEX_CACHE_BYTES_MAX / bytes_of("path-0000", &large);
        for n in 0..fitting {
            cache.insert(format!("path-{n:04}"), large.clone());
        }
        assert!(cache.get("path-0000").is_some());
        cache.insert("one more".to_owned(), large.clone());
        assert!(cache.get("path-0000").is_some() && cache.get("path-0001").is_none());
        assert!(cache.get("one more").is_some());
        assert!(cache.lock().bytes <= INDEX_CACHE_BYTES_MAX);
    }

    #[test]
    fn bytes_are_counted_both_ways() {
        let (cache, none) = (IndexCache::default(), known(0));
        for n in 0..100 {
            cache.insert((n % 7).to_string(), if n % 2 == 0 { known(3) } else { none.clone() });
        }
        for n in 0..7 {
            cache.forget(&n.to_string());
            cache.forget(&n.to_string());
        }
        let entries = cache.lock();
        assert_eq!((entries.bytes, entries.by_path.len(), entries.by_use.len()), (0, 0, 0));
    }
}
