//! Changes which are not in the database yet, and how they look on top of it.
//!
//! A transaction's changes are kept in memory until its commit, which writes them as one batch. While that is under way,
//! the next transaction already reads and writes: it sees its own changes first, then those which are being committed,
//! then the database.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

/// Keys and their values; none for those which are deleted.
pub(crate) type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The changes of the open transaction, and of the one before it.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    open: Changes,
    /// Sealed for the last commit. In the database, too, once that is done.
    sealed: Arc<Changes>,
}

impl Overlay {
    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.open.insert(key, Some(value));
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.open.insert(key, None);
    }

    /// What the changes say of a key: its value, that it has none, or nothing at all.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.open.get(key).or_else(|| self.sealed.get(key)).map(Option::as_deref)
    }

    /// Ends the open transaction, and begins the next. The transaction before must be in the database by now.
    pub(crate) fn seal(&mut self) -> Arc<Changes> {
        self.sealed = Arc::new(std::mem::take(&mut self.open));
        Arc::clone(&self.sealed)
    }

    /// Entries from `from` on, of the changes and of the `database`'s entries from there on, in order of keys.
    pub(crate) fn entries<'a, E>(
        &'a self,
        from: &[u8],
        database: impl Iterator<Item = Result<Entry, E>> + 'a,
    ) -> impl Iterator<Item = Result<Entry, E>> + 'a
    where
        E: 'a,
    {
        let database = database.map(|entry| entry.map(|(key, value)| (key, Some(value))));
        let sealed =
            Layered { upper: changes_from(&self.sealed, from).peekable(), lower: database.peekable() };
        let open = Layered { upper: changes_from(&self.open, from).peekable(), lower: sealed.peekable() };
        open.filter_map(|change| match change {
            Ok((key, value)) => value.map(|value| Ok((key, value))),
            Err(error) => Some(Err(error)),
        })
    }
}

/// A key and its value.
pub type Entry = (Box<[u8]>, Box<[u8]>);

/// A key, and its value unless it is deleted.
type Change = (Box<[u8]>, Option<Box<[u8]>>);

fn changes_from<'a>(changes: &'a Changes, from: &[u8]) -> impl Iterator<Item = Change> + 'a {
    let range = changes.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
    range.map(|(key, value)| (key.as_slice().into(), value.as_deref().map(Into::into)))
}

/// Two ordered runs of changes as one. Of a key in both, `upper` counts.
struct Layered<U: Iterator, L: Iterator> {
    upper: Peekable<U>,
    lower: Peekable<L>,
}

impl<E, U, L> Iterator for Layered<U, L>
where
    U: Iterator<Item = Change>,
    L: Iterator<Item = Result<Change, E>>,
{
    type Item = Result<Change, E>;

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.upper.peek(), self.lower.peek()) {
            (_, Some(Err(_))) | (None, _) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some((upper, _)), Some(Ok((lower, _)))) => upper.cmp(lower),
        };
        match order {
            Ordering::Greater => self.lower.next(),
            Ordering::Less => self.upper.next().map(Ok),
            Ordering::Equal => {
                self.lower.next();
                self.upper.next().map(Ok)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    fn entries(overlay: &Overlay, database: &Model, from: &[u8]) -> Model {
        let below = database.range(from.to_vec()..);
        let below = below.map(|(k, v)| Ok::<_, Infallible>((k.as_slice().into(), v.as_slice().into())));
        let entries: Vec<_> = overlay.entries(from, below).map(|entry| entry.unwrap()).collect();
        assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
        entries.into_iter().map(|(k, v)| (k.into(), v.into())).collect()
    }

    proptest! {
        /// Whatever is put, deleted and sealed, it looks as if all of it were in the database at once.
        #[test]
        fn changes_look_as_if_they_were_written(
            script in prop::collection::vec((0u8..8, prop::option::of(any::<u8>()), prop::bool::weighted(0.2)), 0..60),
            from in 0u8..9
        ) {
            let (mut overlay, mut database, mut expected) = (Overlay::default(), Model::new(), Model::new());
            let mut sealed = Arc::new(Changes::new());
            for (key, value, seal) in script {
                let key = vec![key];
                match value {
                    Some(value) => {
                        overlay.put(key.clone(), vec![value]);
                        expected.insert(key, vec![value]);
                    }
                    None => {
                        overlay.delete(key.clone());
                        expected.remove(&key);
                    }
                }
                if seal {
                    // The commit before is done when the next one begins.
                    for (key, value) in sealed.iter() {
                        match value {
                            Some(value) => drop(database.insert(key.clone(), value.clone())),
                            None => drop(database.remove(key)),
                        }
                    }
                    sealed = overlay.seal();
                }
                let found: Model = expected.range(vec![from]..).map(|(k, v)| (k.clone(), v.clone())).collect();
                prop_assert_eq!(entries(&overlay, &database, &[from]), found);
                for key in 0u8..8 {
                    let found = overlay.get(&[key]).map_or_else(|| database.get(&vec![key]).cloned(), |v| v.map(<[u8]>::to_vec));
                    prop_assert_eq!(found.as_ref(), expected.get(&vec![key]));
                }
            }
        }
    }

    #[test]
    fn an_error_below_is_passed_on_at_once() {
        let mut overlay = Overlay::default();
        overlay.put(b"a".to_vec(), b"1".to_vec());
        let mut entries = overlay.entries(b"", [Err("broken")].into_iter());
        assert_eq!(entries.next(), Some(Err("broken")));
        assert!(entries.next().unwrap().is_ok());
    }
}
