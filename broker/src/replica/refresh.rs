//! The listing of a journal's stores: at the start, then at each refresh interval, when the stores change, and soon when a
//! reader waits for content which may have been stored by another replica.
//!
//! Each store is listed on its own: one that fails, or takes its time, holds up neither the others nor what is known of it. How
//! much is listed is told by the [`rule`]; where journals share a directory, [`crate::listings`] may list it for all of
//! them. What was found is merged here, and taken over by the owner in one step.

pub(super) mod rule;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fragment::Fragment;
use fragment::index::{RemoteSet, RemoteSetBuilder};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, stream};
use proto::JournalName;
use proto::protocol::JournalSpec;
use runtime::backoff::Backoff;
use runtime::{BoxError, CancellationToken, Clock, Instant};
use stores::{StoreError, Stores};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use self::rule::{Ask, History, Plan};
use super::fragments::{Epoch, Found, Listing, StoreListed};
use super::view::IndexView;
use super::{Message, ReplicaDeps};
use crate::listings::{Answer, Collected, Membership, NamesBelow, Offer};

/// Part of a refresh interval by which it varies, so that the journals of a broker do not list together.
const INTERVAL_JITTER: f64 = 0.1;
/// Time for finding out whether uploads are there which a listing did not show.
const MISSED_LIMIT: Duration = Duration::from_secs(5);
/// Uploads that are looked for at a time.
const MISSED_AT_ONCE_MAX: usize = 8;
/// Fragments beyond which a listing is sorted on a blocking thread.
const SORT_INLINE_MAX: usize = 4096;
/// Offers that may wait.
const OFFERS_MAX: usize = 8;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Times after a listing at which readers may have another one: content which is not found is soon asked for less often.
const WANTED_AFTER: &[Duration] = &[s(1), s(1), s(2), s(4), s(8), s(15), s(30), s(60)];

/// Why the stores of a journal cannot be listed, for those who wait for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problem(Arc<Mutex<Option<String>>>);

impl Problem {
    /// The last failure since a listing succeeded.
    pub(crate) fn current(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, problem: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// What the task which lists the stores of one journal is given.
pub(super) struct Refresh {
    pub(super) journal: JournalName,
    pub(super) spec: watch::Receiver<Arc<JournalSpec>>,
    pub(super) view: watch::Receiver<IndexView>,
    pub(super) owner: mpsc::WeakSender<Message>,
    pub(super) epoch: Epoch,
    pub(super) stop: CancellationToken,
    pub(super) wanted: Arc<Wanted>,
    pub(super) problem: Problem,
}

/// A listing that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    notify: Notify,
    /// What is known to be stored may not be.
    from_beginning: AtomicBool,
}

impl Wanted {
    pub(super) fn ask(&self, from_beginning: bool) {
        self.from_beginning.fetch_or(from_beginning, Ordering::Relaxed);
        self.notify.notify_one();
    }

    /// Waits until somebody asks. Whether for a listing from the beginning.
    async fn asked(&self) -> bool {
        self.notify.notified().await;
        self.from_beginning.swap(false, Ordering::Relaxed)
    }
}

/// One store of the journal.
struct StoreListing {
    url: Arc<str>,
    history: Option<History>,
    /// When the last listing of it that has ended began.
    began: Instant,
    /// When it is to be listed.
    due: Instant,
    state: State,
    backoff: Backoff,
    membership: Option<Membership>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It waits until it is due.
    Idle,
    /// Its group was asked.
    Asked,
    /// It is being listed.
    Listing,
}

/// The outcome of a listing.
struct Listed {
    store: Arc<str>,
    is_full: bool,
    began: Instant,
    epoch: u64,
    template: String,
    found: Result<(Collected, BTreeSet<String>), StoreError>,
}

enum Event {
    Stopped,
    SpecChanged,
    Listed(Box<Listed>),
    Offered(Offer),
    /// A listing is wanted: whether from the beginning.
    Wanted(bool),
    Due,
}

/// The task.
struct Lister {
    parts: Refresh,
    deps: ReplicaDeps,
    spec: Arc<JournalSpec>,
    stores: Vec<StoreListing>,
    listings: FuturesUnordered<BoxFuture<'static, Listed>>,
    offers: (mpsc::Sender<Offer>, mpsc::Receiver<Offer>),
    started: Instant,
    wants: Wants,
    /// Journals below this one's directory that a log line told of.
    warned: BTreeSet<String>,
}

/// What readers want.
struct Wants {
    /// When they are to have a listing, if they wait for one.
    at: Option<Instant>,
    /// Listings in a row which they wanted.
    in_a_row: u32,
    backoff: Backoff,
    /// When the last listing ended.
    listed: Instant,
}

impl Refresh {
    /// Runs until the replica ends.
    pub(super) async fn run(self, deps: ReplicaDeps) -> Result<(), BoxError> {
        // Boxed, since an idle journal is to be small.
        Box::new(Lister::new(self, deps)).run().await;
        Ok(())
    }
}

impl Lister {
    fn new(mut parts: Refresh, deps: ReplicaDeps) -> Lister {
        let now = deps.clock.now();
        let spec = Arc::clone(&parts.spec.borrow_and_update());
        let wants = Wants { at: None, in_a_row: 0, backoff: Backoff::new(WANTED_AFTER), listed: now };
        Lister {
            parts,
            deps,
            spec,
            stores: Vec::new(),
            listings: FuturesUnordered::new(),
            offers: mpsc::channel(OFFERS_MAX),
            started: now,
            wants,
            warned: BTreeSet::new(),
        }
    }

    async fn run(mut self: Box<Self>) {
        self.take_stores();
        if self.stores.is_empty() && !self.send(Found::More(RemoteSet::default())).await {
            return;
        }
        loop {
            self.begin_due();
            let goes_on = match self.next_event().await {
                Event::Stopped => false,
                Event::SpecChanged => self.on_spec().await,
                Event::Listed(listed) => Box::pin(self.on_listed(*listed)).await,
                Event::Offered(offer) => Box::pin(self.on_offer(offer)).await,
                Event::Wanted(from_beginning) => {
                    // The second one in a row is from the beginning.
                    self.wants.in_a_row = self.wants.in_a_row.max(u32::from(from_beginning));
                    self.wants.at = Some(self.wants.listed + self.wants.backoff.next());
                    true
                }
                Event::Due => true,
            };
            if !goes_on {
                return;
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let idle_due = |store: &StoreListing| (store.state != State::Listing).then_some(store.due);
        let wanted_at =
            self.wants.at.filter(|_| self.stores.iter().any(|store| store.state != State::Listing));
        let next = self.stores.iter().filter_map(idle_due).chain(wanted_at).min();
        let clock = &self.deps.clock;
        tokio::select! {
            biased;
            () = self.parts.stop.cancelled() => Event::Stopped,
            () = self.deps.tasks.token().cancelled() => Event::Stopped,
            changed = self.parts.spec.changed() => changed.map_or(Event::Stopped, |()| Event::SpecChanged),
            Some(listed) = self.listings.next(), if !self.listings.is_empty() => Event::Listed(Box::new(listed)),
            Some(offer) = self.offers.1.recv() => Event::Offered(offer),
            full = self.parts.wanted.asked(), if self.wants.at.is_none() => Event::Wanted(full),
            () = at(clock, next) => Event::Due,
        }
    }

    /// Begins, or asks for, the listings which are due.
    fn begin_due(&mut self) {
        let now = self.deps.clock.now();
        let is_wanted = self.wants.at.is_some_and(|at| at <= now);
        if is_wanted {
            self.wants.at = None;
            self.wants.in_a_row += 1;
        }
        for at in 0..self.stores.len() {
            let store = &mut self.stores[at];
            let is_due = store.due <= now;
            if store.state == State::Listing || !(is_due || is_wanted) {
                continue;
            }
            if !is_wanted && self.wants.at.is_none() {
                self.wants.in_a_row = 0;
                self.wants.backoff.reset();
            }
            let interval = self.spec.refresh_interval();
            match &store.membership {
                Some(membership) if !is_wanted && store.state == State::Idle && membership.ask(interval) => {
                    store.state = State::Asked;
                    // Without an answer for so long it is listed alone.
                    store.due = now + interval;
                }
                _ => self.begin(at),
            }
        }
    }

    /// Begins a listing of the journal alone.
    fn begin(&mut self, at: usize) {
        let store = &mut self.stores[at];
        store.state = State::Listing;
        let began = self.deps.clock.now();
        let template = self.spec.fragment().path_postfix_template.clone();
        let ask = Ask {
            now: began.duration_since(self.started),
            interval: self.spec.refresh_interval(),
            template: &template,
            wants: self.wants.in_a_row,
        };
        let plan = rule::plan(store.history.as_ref(), &ask);
        tracing::trace!(journal = %self.parts.journal, store = %store.url, ?plan, "listing fragments");
        let (journal, url, stores) =
            (self.parts.journal.clone(), store.url.clone(), self.deps.stores.clone());
        let names = self.deps.listings.names_below(&journal);
        let epoch = self.parts.epoch.current();
        let listing = async move {
            let is_full = matches!(plan, Plan::Full(_));
            let found = list(&stores, &url, &journal, plan, names).await;
            Listed { store: url, is_full, began, epoch, template, found }
        };
        self.listings.push(listing.boxed());
    }

    async fn on_offer(&mut self, Offer { store, answer }: Offer) -> bool {
        let Some(at) = self.stores.iter().position(|other| other.url == store) else { return true };
        let template = self.spec.fragment().path_postfix_template.clone();
        let (found, began, epoch) = match answer {
            // One that is under way, or that has ended, may be newer than what is offered.
            _ if self.stores[at].state == State::Listing => return true,
            Answer::Listed { began, .. } if began < self.stores[at].began => return true,
            Answer::Apart => {
                if self.stores[at].state == State::Asked {
                    self.begin(at);
                }
                return true;
            }
            Answer::Listed { found, began, epoch } => (Ok((*found, BTreeSet::new())), began, epoch),
            Answer::Failed(error) => (Err(*error), self.deps.clock.now(), 0),
        };
        self.on_listed(Listed { store, is_full: true, began, epoch, template, found }).await
    }

    /// Takes the outcome of a listing; whether the replica goes on.
    async fn on_listed(&mut self, listed: Listed) -> bool {
        let Listed { store: url, is_full, began, epoch, template, found } = listed;
        let now = self.deps.clock.now();
        self.wants.listed = now;
        let interval = self.deps.entropy.jitter(self.spec.refresh_interval(), INTERVAL_JITTER);
        let full_at = began.duration_since(self.started);
        let Some(store) = self.stores.iter_mut().find(|store| store.url == url) else { return true };
        store.state = State::Idle;
        let (Collected { fragments, keys }, nested) = match found {
            Ok(found) => found,
            Err(error) => {
                store.due = now + store.backoff.next();
                let journal = &self.parts.journal;
                tracing::warn!(%journal, %error, "failed to refresh remote fragments (will retry)");
                self.parts.problem.set(Some(error.to_string()));
                return true;
            }
        };
        (store.began, store.due) = (began, now + interval);
        store.backoff.reset();
        match &mut store.history {
            Some(history) if !is_full => history.frontier.advance(keys, &template),
            history => *history = Some(History { full_at, frontier: keys.frontier(&template), template }),
        }
        self.parts.problem.set(None);
        self.warn_of(nested);
        if !is_full {
            return fragments.is_empty() || self.send(Found::More(fragments.build())).await;
        }
        let remote = self.merge(fragments, &url).await;
        let unseen = self.unseen(&remote, &url, epoch);
        let missed = those_there(&self.deps.stores, &self.deps.clock, &url, unseen).await;
        self.send(Found::All { remote, listed: Some(StoreListed { store: url, epoch, missed }) }).await
    }

    /// The uploads to the store at `url` which a listing of it should have shown, and did not.
    fn unseen(&self, remote: &RemoteSet, url: &str, epoch: u64) -> Vec<Fragment> {
        let uploads = self.parts.view.borrow().uploads.clone();
        let is_unseen = |upload: &&Fragment| !remote.covers(upload.begin, upload.end);
        uploads.due(url, epoch).filter(is_unseen).cloned().collect()
    }

    /// What was found in the store at `url`, and what is known of the others. Of equal ranges that which was just found is
    /// kept.
    async fn merge(&mut self, found: RemoteSetBuilder, url: &str) -> RemoteSet {
        let mut all = RemoteSetBuilder::default();
        if self.stores.len() > 1 {
            all.keep(self.parts.view.borrow().index.remote(), |other| other != url && self.has(other));
        }
        all.append(found);
        match all.len() {
            ..=SORT_INLINE_MAX => all.build(),
            _ => self.deps.tasks.spawn_blocking("sort listing", move || all.build()).await,
        }
    }

    fn has(&self, url: &str) -> bool {
        self.stores.iter().any(|store| &*store.url == url)
    }

    /// Has the owner take what was found, and waits until it is published, since the next listing builds upon it. Whether the
    /// replica goes on.
    async fn send(&mut self, found: Found) -> bool {
        let Some(owner) = self.parts.owner.upgrade() else { return false };
        let is_complete = self.stores.iter().all(|store| store.history.is_some());
        let (applied, published) = oneshot::channel();
        let listing = Listing { found, is_complete, applied };
        if owner.send(Message::Listed(Box::new(listing))).await.is_err() {
            return false;
        }
        drop(owner);
        tokio::select! {
            biased;
            () = self.parts.stop.cancelled() => false,
            published = published => published.is_ok(),
        }
    }

    /// Takes a changed specification.
    async fn on_spec(&mut self) -> bool {
        self.spec = Arc::clone(&self.parts.spec.borrow_and_update());
        let latest = self.deps.clock.now() + self.spec.refresh_interval();
        self.stores.iter_mut().for_each(|store| store.due = store.due.min(latest));
        if !self.take_stores() {
            return true;
        }
        let mut left = RemoteSetBuilder::default();
        left.keep(self.parts.view.borrow().index.remote(), |url| self.has(url));
        self.send(Found::All { remote: left.build(), listed: None }).await
    }

    /// Follows the specification's list of stores. New ones are due at once. Whether others have gone.
    fn take_stores(&mut self) -> bool {
        let wanted = &self.spec.fragment().stores;
        let before = self.stores.len();
        self.stores.retain(|store| wanted.iter().any(|url| **url == *store.url));
        let has_gone = self.stores.len() < before;
        for url in wanted {
            if self.stores.iter().any(|store| *store.url == **url) {
                continue;
            }
            let url: Arc<str> = url.as_str().into();
            let Refresh { journal, epoch, .. } = &self.parts;
            let membership = self.deps.listings.join(journal, &url, epoch, &self.offers.0);
            self.stores.push(StoreListing {
                url,
                history: None,
                began: self.started,
                due: self.deps.clock.now(),
                state: State::Idle,
                backoff: Backoff::journal(),
                membership,
            });
        }
        has_gone
    }

    /// Tells once of each journal whose files are in this one's directory.
    fn warn_of(&mut self, nested: BTreeSet<String>) {
        let journal = &self.parts.journal;
        for name in nested {
            if !self.warned.contains(&name) {
                tracing::warn!(
                    %journal,
                    "the directory of journal {journal}/{name} is within this journal's: its files are passed over"
                );
                self.warned.insert(name);
            }
        }
    }
}

/// Lists the journal alone: what was found, and the journals within its directory that have files there.
async fn list(
    stores: &Stores,
    url: &Arc<str>,
    journal: &JournalName,
    plan: Plan,
    names: NamesBelow,
) -> Result<(Collected, BTreeSet<String>), StoreError> {
    let (mut found, mut nested) = (Collected::default(), BTreeSet::new());
    let after = match &plan {
        Plan::Full(_) => None,
        Plan::After(key) => Some(key.as_str()),
    };
    let each = |fragment: Fragment| match names.owner_of(fragment.path_postfix.as_str()) {
        None => found.push(fragment),
        Some(name) if nested.contains(name) => {}
        Some(name) => drop(nested.insert(name.to_owned())),
    };
    stores.get(url)?.list_each_after(journal, after, each).await?;
    Ok((found, nested))
}

/// Those of `fragments` that are in the store at `url`, though a listing did not show them: listings of some stores lag. What
/// cannot be found out soon is taken to be there.
async fn those_there(stores: &Stores, clock: &Clock, url: &str, fragments: Vec<Fragment>) -> Vec<Fragment> {
    let store = match stores.get(url) {
        Ok(store) if !fragments.is_empty() => store,
        _ => return fragments,
    };
    let deadline = clock.now() + MISSED_LIMIT;
    let is_there = |fragment: Fragment| {
        let store = &store;
        async move {
            let exists = clock.timeout_at(deadline, store.exists(&fragment)).await;
            (!matches!(exists, Ok(Ok(false)))).then_some(fragment)
        }
    };
    let checked = stream::iter(fragments).map(is_there).buffer_unordered(MISSED_AT_ONCE_MAX);
    checked.filter_map(std::future::ready).collect().await
}

/// Waits for `time`; for ever if there is none.
async fn at(clock: &Clock, time: Option<Instant>) {
    match time {
        Some(time) => clock.sleep_until(time).await,
        None => std::future::pending().await,
    }
}
