//! Listings of a directory of a store which serve all journals below it.
//!
//! Journals mostly come in directories: `logs/part-000`, `logs/part-001`, … A broker with a thousand of them would ask each
//! store for a thousand listings in every refresh interval. Instead the journals of one directory and store form a *group*
//! with a task of its own. When the first of them is due the task lists the whole directory, and hands every journal of
//! the group what is its own.
//!
//! The directory may hold far more than that: most of its journals may be other brokers', or have many fragments, of
//! which a journal's own listing sees only what is new. A listing comes in pages, so what counts is their number: one that
//! sees more than [`KEYS_PER_MEMBER_MAX`] keys for each journal of the group costs more than a listing for each of them
//! would. It ends there, and for a while each lists on its own.
//!
//! Names of journals may lie within one another: [`NamesBelow`] tells whose a file is.

mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fragment::index::RemoteSetBuilder;
use fragment::{Fragment, PathPostfix};
use proto::{JournalName, StoreUrl};
use runtime::{Clock, Instant, OnError, TaskGroup};
use stores::{StoreError, Stores};
use tokio::sync::{Notify, mpsc};

use crate::replica::{Epoch, Keys};

pub use self::names::NamesBelow;

/// Keys in the directory for each journal that shares its listing, at most: those of one page of a listing.
const KEYS_PER_MEMBER_MAX: usize = 1000;
/// Refresh intervals for which journals list on their own before a shared listing is tried again.
const INTERVALS_APART: u32 = 16;

/// The names of all journals below a directory.
pub type NamesSource = Arc<dyn Fn(&str) -> NamesBelow + Send + Sync>;

/// What a listing found of one journal.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) fragments: RemoteSetBuilder,
    pub(crate) keys: Keys,
}

impl Collected {
    pub(crate) fn push(&mut self, fragment: Fragment) {
        self.keys.note(&fragment);
        self.fragments.push(fragment);
    }
}

/// What a group tells a journal, asked or not.
#[derive(Debug)]
pub(crate) struct Offer {
    /// URL of the store.
    pub(crate) store: Arc<str>,
    pub(crate) answer: Answer,
}

#[derive(Debug)]
pub(crate) enum Answer {
    /// The journal is to list on its own.
    Apart,
    /// All that the store has of the journal.
    Listed {
        found: Box<Collected>,
        began: Instant,
        /// The journal's epoch when the listing began.
        epoch: u64,
    },
    /// The store failed.
    Failed(Box<StoreError>),
}

const _: () = assert!(
    size_of::<Offer>() <= 48,
    "a channel keeps room for 32 offers, of which an idle journal has none"
);

/// The groups of a broker. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Listings {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    tasks: TaskGroup,
    stores: Stores,
    names: NamesSource,
    groups: Mutex<Groups>,
}

/// URL of the store, and directory.
type Key = (Arc<str>, String);

#[derive(Default)]
struct Groups {
    by_key: BTreeMap<Key, Group>,
    /// Members that there ever were.
    members: u64,
}

#[derive(Default)]
struct Group {
    members: BTreeMap<u64, Member>,
    wake: Arc<Notify>,
}

#[derive(Clone)]
struct Member {
    journal: JournalName,
    interval: Duration,
    epoch: Epoch,
    offers: mpsc::Sender<Offer>,
    asks: bool,
}

/// A journal's part in a group, until it is dropped.
pub(crate) struct Membership {
    listings: Listings,
    key: Key,
    number: u64,
}

impl Listings {
    pub(crate) fn new(clock: Clock, tasks: TaskGroup, stores: Stores, names: NamesSource) -> Listings {
        Listings { inner: Arc::new(Inner { clock, tasks, stores, names, groups: Mutex::default() }) }
    }

    /// The names of all journals below `journal`.
    pub(crate) fn names_below(&self, journal: &JournalName) -> NamesBelow {
        (self.inner.names)(journal.as_str())
    }

    /// Joins the group of `journal` and the store at `url`. Nothing is offered until somebody asks. None, if the listing
    /// of a directory of the store does not hold that of a journal in it: the journal is in none, or the store
    /// rewrites paths.
    pub(crate) fn join(
        &self,
        journal: &JournalName,
        url: &Arc<str>,
        epoch: &Epoch,
        offers: &mpsc::Sender<Offer>,
    ) -> Option<Membership> {
        let (directory, _) = journal.as_str().rsplit_once('/')?;
        let rewrites = |url: StoreUrl| url.query_pairs().any(|(name, _)| name.eq_ignore_ascii_case("find"));
        if StoreUrl::parse(url).map_or(true, rewrites) {
            return None;
        }
        let key = (url.clone(), directory.to_owned());
        let (journal, epoch, offers) = (journal.clone(), epoch.clone(), offers.clone());
        let member = Member { journal, interval: Duration::MAX, epoch, offers, asks: false };
        let mut groups = self.inner.lock();
        groups.members += 1;
        let number = groups.members;
        let is_new = !groups.by_key.contains_key(&key);
        groups.by_key.entry(key.clone()).or_default().members.insert(number, member);
        drop(groups);
        if is_new {
            let run = Arc::clone(&self.inner).run(key.clone());
            self.inner.tasks.spawn("shared listing", OnError::Log, async move {
                run.await;
                Ok(())
            });
        }
        Some(Membership { listings: self.clone(), key, number })
    }
}

impl Membership {
    /// Asks for a listing that begins from now on, or for being told to list apart. `interval` is that of the journal. False
    /// if no other journal is in the group, so that there is nobody to share with, and no answer.
    #[must_use]
    pub(crate) fn ask(&self, interval: Duration) -> bool {
        let mut is_shared = false;
        self.change(|group, number| {
            let Some(own) = group.members.get(&number).map(|member| member.journal.clone()) else { return };
            is_shared = group.members.values().any(|member| member.journal != own);
            if let Some(member) = group.members.get_mut(&number).filter(|_| is_shared) {
                (member.interval, member.asks) = (interval, true);
            }
        });
        is_shared
    }

    fn change(&self, change: impl FnOnce(&mut Group, u64)) {
        if let Some(group) = self.listings.inner.lock().by_key.get_mut(&self.key) {
            change(group, self.number);
            group.wake.notify_one();
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.change(|group, number| drop(group.members.remove(&number)));
    }
}

/// What a shared listing came to.
enum Shared {
    /// For each member, unless another replica of the same journal has taken its place.
    Listed(Vec<Option<Collected>>),
    /// The directory holds far more than is wanted of it.
    TooMuch,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the group until it has no members.
    async fn run(self: Arc<Self>, key: Key) {
        let stop = self.tasks.token().clone();
        let mut apart_until = None;
        while let Some((members, wake)) = self.members_of(&key) {
            if members.values().any(|member| member.asks) {
                let round = self.serve(&key, members, &mut apart_until);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = Box::pin(round) => continue,
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = wake.notified() => {}
            }
        }
    }

    /// The members of the group, which is removed if it has none.
    fn members_of(&self, key: &Key) -> Option<(BTreeMap<u64, Member>, Arc<Notify>)> {
        let mut groups = self.lock();
        let group = groups.by_key.get(key)?;
        if group.members.is_empty() {
            groups.by_key.remove(key);
            return None;
        }
        Some((group.members.clone(), Arc::clone(&group.wake)))
    }

    /// Answers those of `members` who ask, and offers what was found to the others.
    async fn serve(&self, key: &Key, members: BTreeMap<u64, Member>, apart_until: &mut Option<Instant>) {
        let began = self.clock.now();
        if members.len() < 2 || apart_until.is_some_and(|until| began < until) {
            return self.answer(key, &members, |_| Answer::Apart);
        }
        let epochs: Vec<u64> = members.values().map(|member| member.epoch.current()).collect();
        let shared = self.list(key, &members).await;
        match shared {
            Ok(Shared::Listed(found)) => {
                self.asked(key, members.keys());
                for ((member, found), epoch) in members.values().zip(found).zip(epochs) {
                    let listed = |found| Answer::Listed { found: Box::new(found), began, epoch };
                    member.offer(&key.0, found.map_or(Answer::Apart, listed));
                }
            }
            Ok(Shared::TooMuch) => {
                let interval = members.values().map(|member| member.interval).min().unwrap_or_default();
                *apart_until = began.checked_add(interval.saturating_mul(INTERVALS_APART));
                self.answer(key, &members, |_| Answer::Apart);
            }
            Err(error) => self.answer(key, &members, |_| Answer::Failed(Box::new(error.clone()))),
        }
    }

    fn answer(&self, key: &Key, members: &BTreeMap<u64, Member>, answer: impl Fn(&Member) -> Answer) {
        let asking: Vec<_> = members.iter().filter(|(_, member)| member.asks).collect();
        self.asked(key, asking.iter().map(|(number, _)| *number));
        asking.into_iter().for_each(|(_, member)| member.offer(&key.0, answer(member)));
    }

    /// These members have their answer.
    fn asked<'a>(&self, key: &Key, numbers: impl Iterator<Item = &'a u64>) {
        if let Some(group) = self.lock().by_key.get_mut(key) {
            for number in numbers {
                group.members.entry(*number).and_modify(|member| member.asks = false);
            }
        }
    }

    /// Lists the directory, for each member what is its own.
    async fn list(&self, key: &Key, members: &BTreeMap<u64, Member>) -> Result<Shared, StoreError> {
        let (url, directory) = key;
        let store = self.stores.get(url)?;
        let mut sorter = Sorter::new(url, directory, (self.names)(directory), members.values());
        let limit = KEYS_PER_MEMBER_MAX.saturating_mul(members.len());
        let mut seen = 0;
        let each = |path: &str, mod_time| {
            seen += 1;
            if seen <= limit {
                sorter.sort(path, mod_time);
            }
            seen <= limit
        };
        store.list_directory(directory, each).await?;
        Ok(if seen > limit { Shared::TooMuch } else { Shared::Listed(sorter.finish()) })
    }
}

impl Member {
    /// A journal that has not taken the last offers asks again when it is due.
    fn offer(&self, store: &Arc<str>, answer: Answer) {
        drop(self.offers.try_send(Offer { store: store.clone(), answer }));
    }
}

/// Gives each member of a group its own files of the directory.
struct Sorter<'a> {
    store: &'a Arc<str>,
    names: NamesBelow,
    members: BTreeMap<&'a str, usize>,
    journals: Vec<&'a JournalName>,
    found: Vec<Collected>,
    /// The directory of the last file: who it is of, and under which postfix.
    last: Option<(String, Option<(usize, PathPostfix)>)>,
}

impl<'a> Sorter<'a> {
    fn new(
        store: &'a Arc<str>,
        directory: &str,
        mut names: NamesBelow,
        members: impl Iterator<Item = &'a Member>,
    ) -> Sorter<'a> {
        let journals: Vec<&JournalName> = members.map(|member| &member.journal).collect();
        let below = |journal: &'a JournalName| &journal.as_str()[directory.len() + 1..];
        let members: BTreeMap<_, _> =
            journals.iter().enumerate().map(|(at, journal)| (below(journal), at)).collect();
        members.keys().for_each(|name| names.insert(name));
        let found = journals.iter().map(|_| Collected::default()).collect();
        Sorter { store, names, members, journals, found, last: None }
    }

    /// Takes the file at `path`, relative to the directory.
    fn sort(&mut self, path: &str, mod_time: i64) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        if self.last.as_ref().is_none_or(|(last, _)| last != directory) {
            self.last = Some((directory.to_owned(), self.place(directory)));
        }
        let Some((_, Some((at, path_postfix)))) = &self.last else { return };
        match Fragment::parse_content_name(self.journals[*at], name) {
            Ok(fragment) => self.found[*at].push(Fragment {
                backing_store: Some(self.store.clone()),
                // Zero would say that the fragment is local.
                mod_time: mod_time.max(1),
                path_postfix: path_postfix.clone(),
                ..fragment
            }),
            Err(error) => tracing::warn!(store = %self.store, path, %error, "failed to parse fragment"),
        }
    }

    fn finish(self) -> Vec<Option<Collected>> {
        let Sorter { members, found, .. } = self;
        let served: BTreeSet<usize> = members.into_values().collect();
        found.into_iter().enumerate().map(|(at, found)| served.contains(&at).then_some(found)).collect()
    }

    /// Who the files of `directory` are of, if it is a member.
    fn place(&self, directory: &str) -> Option<(usize, PathPostfix)> {
        let name = self.names.owner_of(directory)?;
        let at = *self.members.get(name)?;
        let postfix = directory[name.len()..].trim_start_matches('/');
        match PathPostfix::parse(postfix) {
            Ok(postfix) => Some((at, postfix)),
            Err(error) => {
                tracing::warn!(store = %self.store, directory, %error, "failed to parse fragments of a directory");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
