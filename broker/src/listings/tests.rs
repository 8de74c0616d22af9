use std::path::Path;

use fragment::compress::Levels;
use runtime::{Entropy, Metrics};
use stores::{Environment, StoreTimes, StoresConfig};

use super::*;

const STORE: &str = "file:///";
const INTERVAL: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(30);

struct Fixture {
    dir: tempfile::TempDir,
    metrics: Metrics,
    tasks: TaskGroup,
    listings: Listings,
}

/// One journal of a group.
struct Journal {
    membership: Membership,
    offers: mpsc::Receiver<Offer>,
}

impl Fixture {
    fn start(names: &'static [&'static str]) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let (clock, tasks, metrics) = (Clock::system(), TaskGroup::new("test"), Metrics::new());
        let stores = Stores::new(StoresConfig {
            file_root: Some(dir.path().to_owned()),
            default_root: None,
            file_only: false,
            environment: Environment::default(),
            levels: Levels::default(),
            times: StoreTimes::default(),
            clock: clock.clone(),
            entropy: Entropy::seeded(1),
            tasks: tasks.clone(),
            metrics: metrics.clone(),
        });
        let names: NamesSource = Arc::new(|directory: &str| NamesBelow::of(directory, names.iter().copied()));
        let listings = Listings::new(clock, tasks.clone(), stores, names);
        Fixture { dir, metrics, tasks, listings }
    }

    fn join(&self, journal: &str) -> Journal {
        let (sender, offers) = mpsc::channel(8);
        let journal = JournalName::parse(journal).unwrap();
        let membership = self.listings.join(&journal, &STORE.into(), &Epoch::default(), &sender);
        Journal { membership: membership.expect("it is in a directory"), offers }
    }

    fn put(&self, directory: &str, begin: i64) {
        put(&self.dir.path().join(directory), begin);
    }

    /// Listings of the store that did not come of its health checks.
    fn listed_keys(&self) -> String {
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.starts_with("gazette_store_list_items_count_count"));
        line.unwrap_or_default().to_owned()
    }
}

fn put(directory: &Path, begin: i64) {
    std::fs::create_dir_all(directory).unwrap();
    let journal = JournalName::parse("a/journal").unwrap();
    let fragment = Fragment { end: begin + 5, ..Fragment::empty(journal, begin, fragment::Codec::None) };
    std::fs::write(directory.join(fragment.content_name()), b"12345").unwrap();
}

impl Journal {
    fn ask(&self) -> bool {
        self.membership.ask(INTERVAL)
    }

    /// The next offer: begins and postfixes of what was found, or in a word.
    async fn offered(&mut self) -> String {
        let offer = Clock::system().timeout(LIMIT, self.offers.recv()).await.expect("in time").unwrap();
        assert_eq!(&*offer.store, STORE);
        let found = match offer.answer {
            Answer::Apart => return "apart".to_owned(),
            Answer::Failed(error) => return error.to_string(),
            Answer::Listed { found, .. } => found.fragments.build(),
        };
        let journal = JournalName::parse("a/journal").unwrap();
        let found = found.fragments(&journal).map(|fragment| {
            assert_eq!(fragment.backing_store.as_deref(), Some(STORE));
            assert!(fragment.mod_time > 0);
            format!("{}:{}", fragment.path_postfix, fragment.begin)
        });
        found.collect::<Vec<_>>().join(" ")
    }
}

#[tokio::test]
async fn one_listing_serves_all_journals_of_a_directory() {
    let fixture = Fixture::start(&["logs/a", "logs/a/deep", "logs/b", "logs/others"]);
    fixture.put("logs/a", 0);
    fixture.put("logs/a/date=1", 5);
    fixture.put("logs/a/deep", 7);
    fixture.put("logs/a/deep/date=1", 12);
    fixture.put("logs/b", 0);
    fixture.put("logs/others", 0);
    fixture.put("logs/nobodys", 0);
    let [mut a, mut b] = ["logs/a", "logs/b"].map(|journal| fixture.join(journal));
    let before = fixture.listed_keys();
    assert!(a.ask());
    assert_eq!(a.offered().await, ":0 date=1:5");
    assert_eq!(b.offered().await, ":0", "it is offered what it has not asked for");
    assert_ne!(fixture.listed_keys(), before);

    // The directory of the nested journal is another group's; alone in it, it lists on its own.
    let deep = fixture.join("logs/a/deep");
    assert!(!deep.ask());
    drop(b);
    assert!(!a.ask(), "as does the last of a group");
    fixture.tasks.cancel();
}

#[tokio::test]
async fn of_two_replicas_of_a_journal_the_newer_one_is_served() {
    let fixture = Fixture::start(&["logs/a"]);
    fixture.put("logs/a", 0);
    let [mut old, mut new] = ["logs/a", "logs/a"].map(|journal| fixture.join(journal));
    assert!(!old.ask() && !new.ask(), "they are one journal");
    let _other = fixture.join("logs/b");
    assert!(old.ask());
    assert_eq!(old.offered().await, "apart");
    assert_eq!(new.offered().await, ":0");
    fixture.tasks.cancel();
}

#[tokio::test]
async fn a_directory_which_holds_far_more_than_is_wanted_is_not_shared_for_a_while() {
    let fixture = Fixture::start(&["logs/a", "logs/b", "logs/others"]);
    for n in 0..2 * KEYS_PER_MEMBER_MAX as i64 {
        fixture.put("logs/others", n * 5);
    }
    fixture.put("logs/a", 0);
    let [mut a, mut b] = ["logs/a", "logs/b"].map(|journal| fixture.join(journal));
    assert!(a.ask());
    assert_eq!(a.offered().await, "apart");
    let before = fixture.listed_keys();
    assert!(b.ask());
    assert_eq!(b.offered().await, "apart");
    assert_eq!(fixture.listed_keys(), before, "nothing is listed to find that out again");
    fixture.tasks.cancel();
}

#[tokio::test]
async fn a_store_that_fails_is_told_to_those_who_asked() {
    let fixture = Fixture::start(&[]);
    // Where there should be a directory there is a file.
    std::fs::write(fixture.dir.path().join("logs"), b"").unwrap();
    let [mut a, mut b] = ["logs/a", "logs/b"].map(|journal| fixture.join(journal));
    assert!(a.ask());
    let told = a.offered().await;
    assert!(told.contains("list \"logs/\""), "{told}");
    assert!(b.offers.try_recv().is_err());
    fixture.tasks.cancel();
}

#[tokio::test]
async fn some_journals_have_no_group() {
    let fixture = Fixture::start(&[]);
    let (offers, _) = mpsc::channel(8);
    for (journal, url) in [
        ("journal", STORE),
        ("logs/a", "file:///?find=a&replace=b"),
        ("logs/a", "file:///?FIND=a"),
        ("logs/a", "no url"),
    ] {
        let journal = JournalName::parse(journal).unwrap();
        assert!(fixture.listings.join(&journal, &url.into(), &Epoch::default(), &offers).is_none());
    }
    fixture.tasks.cancel();
}
