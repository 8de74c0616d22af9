//! What was found out about where a store's objects can be entered, of the objects which were used last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fragment::compress::{ENTRY_SPACING_BYTES, Entry, SeekIndex};
use object_store::ObjectMeta;

/// Memory of a cache, bytes: that of the indexes of 4,000 fragments of 256 MiB, or of the entries of 11 gzip fragments of
/// that size which have no index.
pub(crate) const INDEX_CACHE_BYTES_MAX: usize = 16 << 20;
/// Memory of an object beside its path and what is known of it, roughly.
const OBJECT_BYTES: usize = 256;

/// Tells an object from another one at its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    size: u64,
    /// If the store has such.
    e_tag: Option<String>,
}

impl Version {
    pub(crate) fn of(meta: &ObjectMeta) -> Version {
        Version { size: meta.size, e_tag: meta.e_tag.clone() }
    }
}

/// What the end of an object says.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// It was not read.
    Unread,
    /// There is no index that can be used.
    Nothing,
    /// Where its blocks are.
    Index(Arc<SeekIndex>),
}

/// What is known of an object.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) version: Version,
    pub(crate) end: End,
    /// Where it can be entered, in order: what was noted when it was read.
    pub(crate) entries: Vec<Entry>,
}

impl Known {
    /// The last entry at content byte `offset` or before.
    pub(crate) fn entry_at(&self, offset: u64) -> Option<&Entry> {
        self.entries[..self.entries_through(offset)].last()
    }

    fn entries_through(&self, offset: u64) -> usize {
        self.entries.partition_point(|entry| entry.content <= offset)
    }

    /// Adds an entry, unless there is one close to it.
    fn add(&mut self, entry: Entry) {
        let at = self.entries_through(entry.content);
        let is_near = |other: &Entry| other.content.abs_diff(entry.content) < ENTRY_SPACING_BYTES / 2;
        let neighbours = &self.entries[at.saturating_sub(1)..self.entries.len().min(at + 1)];
        if !neighbours.iter().any(is_near) {
            self.entries.insert(at, entry);
        }
    }

    fn memory_bytes(&self) -> usize {
        let index = match &self.end {
            End::Index(index) => index.memory_bytes(),
            End::Unread | End::Nothing => 0,
        };
        index + self.entries.iter().map(Entry::memory_bytes).sum::<usize>()
    }
}

/// What is known by path, of which the least recently used makes way.
#[derive(Debug, Default)]
pub(crate) struct IndexCache {
    objects: Mutex<Objects>,
}

#[derive(Debug, Default)]
struct Objects {
    by_path: BTreeMap<Arc<str>, (u64, Arc<Known>)>,
    /// Paths by when they were used last.
    by_use: BTreeMap<u64, Arc<str>>,
    uses: u64,
    bytes: usize,
}

impl IndexCache {
    pub(crate) fn get(&self, path: &str) -> Option<Arc<Known>> {
        let objects = &mut *self.lock();
        let (used, known) = objects.by_path.get_mut(path)?;
        let path = objects.by_use.remove(used).expect("every object has a use");
        objects.uses += 1;
        *used = objects.uses;
        objects.by_use.insert(objects.uses, path);
        Some(known.clone())
    }

    /// Notes what the end of an object says.
    pub(crate) fn learn_end(&self, path: &str, version: &Version, end: End) -> Arc<Known> {
        self.lock().change(path, version, |known| known.end = end)
    }

    /// Notes where an object can be entered.
    pub(crate) fn learn_entries(&self, path: &str, version: &Version, entries: Vec<Entry>) {
        self.lock().change(path, version, |known| entries.into_iter().for_each(|entry| known.add(entry)));
    }

    pub(crate) fn forget(&self, path: &str) {
        self.lock().remove(path);
    }

    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects {
    /// Changes what is known of this version of an object, which replaces any other.
    fn change(&mut self, path: &str, version: &Version, change: impl FnOnce(&mut Known)) -> Arc<Known> {
        let before = self.remove(path).filter(|known| known.version == *version);
        let mut known = before.map_or_else(
            || Known { version: version.clone(), end: End::Unread, entries: Vec::new() },
            Arc::unwrap_or_clone,
        );
        change(&mut known);
        let (known, path): (Arc<Known>, Arc<str>) = (known.into(), path.into());
        self.uses += 1;
        self.bytes += bytes_of(&path, &known);
        self.by_use.insert(self.uses, path.clone());
        self.by_path.insert(path, (self.uses, known.clone()));
        while self.bytes > INDEX_CACHE_BYTES_MAX {
            let Some((_, oldest)) = self.by_use.first_key_value() else { break };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
        known
    }

    fn remove(&mut self, path: &str) -> Option<Arc<Known>> {
        let (used, known) = self.by_path.remove(path)?;
        self.by_use.remove(&used);
        self.bytes -= bytes_of(path, &known);
        Some(known)
    }
}

fn bytes_of(path: &str, known: &Known) -> usize {
    OBJECT_BYTES + path.len() + known.memory_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use fragment::Codec;
    use fragment::compress::{BLOCK_BYTES, Compressor, Decompressor, Noting, Tail};

    use super::*;

    fn version(size: u64) -> Version {
        Version { size, e_tag: None }
    }

    fn index(blocks: usize) -> End {
        let mut compressor = Compressor::new(Codec::Snappy, None, Vec::new()).unwrap();
        let content = vec![0; blocks * BLOCK_BYTES];
        compressor.write_all(&content).unwrap();
        let stored = compressor.finish().unwrap();
        match SeekIndex::read(Codec::Snappy, &stored, stored.len() as u64, content.len() as u64) {
            Tail::Index(index) => End::Index(Arc::new(index)),
            _ => End::Nothing,
        }
    }

    /// Entries of a gzip member, which take the most memory.
    fn entries(count: u64) -> Vec<Entry> {
        let length = (count + 1) * ENTRY_SPACING_BYTES;
        let mut compressor = Compressor::new(Codec::GzipOffload, Some(1), Vec::new()).unwrap();
        std::io::copy(&mut std::io::repeat(b'x').take(length), &mut compressor).unwrap();
        let stored = compressor.finish().unwrap();
        let mut content =
            Decompressor::noting(Codec::GzipOffload, &stored[..], Noting::Everywhere, length).unwrap();
        std::io::copy(&mut content, &mut std::io::sink()).unwrap();
        let entries = content.take_entries();
        assert_eq!(entries.len() as u64, count);
        entries
    }

    #[test]
    fn the_least_recently_used_makes_way() {
        let (cache, entries, version) = (IndexCache::default(), entries(3), version(1));
        cache.learn_entries("path-0000", &version, entries.clone());
        let one = cache.lock().bytes;
        assert!(one > 3 * 40_000, "{one} bytes");
        let fitting = INDEX_CACHE_BYTES_MAX / one;
        for n in 1..fitting {
            cache.learn_entries(&format!("path-{n:04}"), &version, entries.clone());
        }
        assert!(cache.get("path-0000").is_some());
        cache.learn_entries("path-more", &version, entries.clone());
        assert!(cache.get("path-0000").is_some() && cache.get("path-0001").is_none());
        assert!(cache.get("path-more").is_some());
        assert!(cache.lock().bytes <= INDEX_CACHE_BYTES_MAX);
    }

    #[test]
    fn bytes_are_counted_both_ways() {
        let (cache, entries, index) = (IndexCache::default(), entries(2), index(3));
        assert!(matches!(index, End::Index(_)));
        for n in 0..100 {
            let (path, version) = ((n % 7).to_string(), version(n % 11 / 10));
            match n % 3 {
                0 => drop(cache.learn_end(&path, &version, index.clone())),
                1 => drop(cache.learn_end(&path, &version, End::Nothing)),
                _ => cache.learn_entries(&path, &version, entries.clone()),
            }
        }
        for n in 0..7 {
            cache.forget(&n.to_string());
            cache.forget(&n.to_string());
        }
        let objects = cache.lock();
        assert_eq!((objects.bytes, objects.by_path.len(), objects.by_use.len()), (0, 0, 0));
    }

    #[test]
    fn what_is_learned_of_an_object_comes_together_unless_it_was_written_anew() {
        let (cache, entries) = (IndexCache::default(), entries(3));
        cache.learn_entries("path", &version(1), vec![entries[2].clone()]);
        cache.learn_end("path", &version(1), End::Nothing);
        cache.learn_entries("path", &version(1), entries.clone());
        let known = cache.get("path").unwrap();
        let found: Vec<u64> = known.entries.iter().map(|entry| entry.content).collect();
        assert_eq!(found, entries.iter().map(|entry| entry.content).collect::<Vec<_>>());
        assert!(matches!(known.end, End::Nothing));
        assert!(known.entry_at(entries[0].content - 1).is_none());
        assert_eq!(known.entry_at(entries[2].content - 1).unwrap().content, entries[1].content);
        assert_eq!(known.entry_at(u64::MAX).unwrap().content, entries[2].content);
        cache.learn_entries("path", &version(2), Vec::new());
        let known = cache.get("path").unwrap();
        assert!(known.entries.is_empty() && matches!(known.end, End::Unread));
    }
}
