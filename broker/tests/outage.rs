//! Fragment stores that fail (journal protocol §5.3.1, §7.2): appends go on for a grace, and nothing is lost.

#![allow(clippy::unwrap_used, reason = "tests show what is missing by failing")]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::BrokerOptions;
use proto::protocol::append_request::Suspend;
use proto::protocol::{
    AppendRequest, AppendResponse, FragmentStoreHealthRequest, JournalSpec, LabelSelector, ReadRequest,
    Status,
};
use support::cluster::Cluster;
use support::{Fixture, content, delete, eventually, journal, upsert};
use tempfile::TempDir;

const NAME: &str = "a/journal";
const STORE: &str = "file:///store/";
/// Fills a fragment of the journals here.
const FULL: usize = 1500;

/// A directory of fragments that can be made useless.
struct Store {
    root: PathBuf,
}

impl Store {
    /// Where the broker of a fixture in `dir` keeps fragments.
    fn below(dir: &TempDir) -> Store {
        let root = dir.path().join("root/store");
        if !root.exists() {
            std::fs::create_dir_all(&root).unwrap();
        }
        Store { root }
    }

    fn aside(&self) -> PathBuf {
        self.root.with_extension("aside")
    }

    /// Fails every operation. Who runs the tests may be root, whom permissions do not bind: a file takes the directory's place.
    fn fail(&self) {
        std::fs::write(self.aside(), b"").unwrap();
        support::exchange(&self.root, &self.aside());
    }

    fn work_again(&self) {
        support::exchange(&self.root, &self.aside());
        std::fs::remove_file(self.aside()).unwrap();
    }

    /// Spans of the fragments that are stored, in order.
    fn spans(&self, journal: &str) -> Vec<(i64, i64)> {
        let mut spans = Vec::new();
        spans_below(&self.root.join(journal), &mut spans);
        spans.sort_unstable();
        spans
    }

    async fn until_stored(&self, journal: &str, expected: &[(i64, i64)]) {
        eventually("everything is stored, once", async || (self.spans(journal) == expected).then_some(()))
            .await;
    }
}

fn spans_below(dir: &Path, spans: &mut Vec<(i64, i64)>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            spans_below(&entry.path(), spans);
            continue;
        }
        let name = entry.file_name().into_string().unwrap();
        // What is being uploaded is not stored: its name ends in a number.
        if name.contains('#') {
            continue;
        }
        let mut fields = name.split('-');
        let mut offset = || i64::from_str_radix(fields.next()?, 16).ok();
        if let (Some(begin), Some(end)) = (offset(), offset()) {
            spans.push((begin, end));
        }
    }
}

fn small() -> JournalSpec {
    let mut spec = journal(NAME);
    let fragment = spec.fragment.as_mut().unwrap();
    (fragment.length, fragment.stores) = (1024, vec![STORE.to_owned()]);
    spec
}

async fn start(dir: TempDir, adjust: impl FnOnce(&mut BrokerOptions)) -> (Fixture, Store) {
    let store = Store::below(&dir);
    let fixture = Fixture::start_in(dir, |options| {
        options.file_root = store.root.parent().map(Path::to_owned);
        options.store_unhealthy_min_free = 0;
        // Nobody waits for a store that does not work.
        options.drain_timeout = Duration::ZERO;
        adjust(options);
    })
    .await;
    (fixture, store)
}

/// The broker again, after it has left in order.
async fn restart(fixture: Fixture) -> (Fixture, Store) {
    start(fixture.stop().await, |_| {}).await
}

fn dir() -> TempDir {
    TempDir::with_prefix("courant-outage-").unwrap()
}

async fn append(fixture: &mut Fixture, content: &[u8]) -> AppendResponse {
    let request = AppendRequest { journal: NAME.to_owned(), ..Default::default() };
    fixture.try_append(request, content).await.unwrap()
}

/// Appends fragments until the broker has noticed that the store fails. Returns what it appended.
async fn append_until_noticed(fixture: &mut Fixture) -> Vec<u8> {
    let mut appended = Vec::new();
    eventually("the broker notices the failure", async || {
        let piece = vec![b'a' + u8::try_from(appended.len() / FULL % 26).unwrap(); FULL];
        assert_eq!(append(fixture, &piece).await.status(), Status::Ok, "appends go on");
        appended.extend(piece);
        is_unhealthy(fixture).await.then_some(())
    })
    .await;
    appended
}

async fn is_unhealthy(fixture: &mut Fixture) -> bool {
    let request = FragmentStoreHealthRequest { fragment_store: STORE.to_owned(), ..Default::default() };
    let response = support::within(fixture.client.fragment_store_health(request)).await.unwrap().into_inner();
    response.status() == Status::FragmentStoreUnhealthy
}

/// The journal's first bytes.
async fn read(fixture: &mut Fixture, bytes: usize) -> Vec<u8> {
    let end_offset = i64::try_from(bytes).unwrap();
    content(
        &fixture.read_all(ReadRequest { journal: NAME.to_owned(), end_offset, ..Default::default() }).await,
    )
}

/// Spans of fragments of [`FULL`] bytes each, of which so many are complete.
fn full_spans(bytes: usize) -> Vec<(i64, i64)> {
    let offset = |number: usize| i64::try_from(number * FULL).unwrap();
    (0..bytes / FULL).map(|number| (offset(number), offset(number + 1))).collect()
}

#[tokio::test]
async fn appends_go_on_through_an_outage_and_a_restart_and_all_is_stored_afterwards() {
    let (mut fixture, store) = start(dir(), |_| {}).await;
    fixture.create(small()).await;
    let mut expected = vec![b'0'; FULL];
    assert_eq!(append(&mut fixture, &expected).await.status(), Status::Ok);
    store.fail();
    expected.extend(append_until_noticed(&mut fixture).await);
    assert_eq!(read(&mut fixture, expected.len()).await, expected);

    let (mut fixture, store) = restart(fixture).await;
    expected.extend(vec![b'1'; FULL]);
    let again = fixture.append(NAME, &[b'1'; FULL]).await;
    assert_eq!(again.commit.unwrap().end, i64::try_from(expected.len()).unwrap());
    assert!(is_unhealthy(&mut fixture).await);
    assert_eq!(read(&mut fixture, expected.len()).await, expected);

    store.work_again();
    // The next append completes the last fragment.
    assert_eq!(append(&mut fixture, b"end").await.status(), Status::Ok);
    store.until_stored(NAME, &full_spans(expected.len())).await;
    expected.extend(b"end");
    assert_eq!(read(&mut fixture, expected.len()).await, expected);
    let spools = fixture.dir.path().join("data/spools/a%2Fjournal");
    eventually("no spool is left of what is stored", async || {
        (std::fs::read_dir(&spools).unwrap().count() == 1).then_some(())
    })
    .await;
    fixture.stop().await;
}

#[tokio::test]
async fn appends_are_refused_once_the_grace_is_over_and_taken_again_when_the_store_works() {
    let grace = Duration::from_secs(2);
    let (mut fixture, store) = start(dir(), |options| options.store_unhealthy_grace = grace).await;
    fixture.create(small()).await;
    store.fail();
    append_until_noticed(&mut fixture).await;
    let refused = eventually("the grace is over", async || {
        let response = append(&mut fixture, b"x").await;
        (response.status() != Status::Ok).then_some(response)
    })
    .await;
    assert_eq!(refused.status(), Status::FragmentStoreUnhealthy);
    let text = &refused.store_health_error;
    assert!(text.starts_with("fragment store URL unhealthy: health check "), "{text}");
    assert!(text.ends_with("appends went on without it for 2s"), "{text}");

    store.work_again();
    eventually("appends are taken again", async || {
        (append(&mut fixture, b"x").await.status() == Status::Ok).then_some(())
    })
    .await;
    fixture.stop().await;
}

#[tokio::test]
async fn appends_without_their_store_need_room_on_the_disk() {
    let (mut fixture, store) = start(dir(), |options| options.store_unhealthy_min_free = u64::MAX).await;
    fixture.create(small()).await;
    assert_eq!(append(&mut fixture, &[b'0'; FULL]).await.status(), Status::Ok, "the store is healthy");
    store.fail();
    let refused = eventually("the broker notices the failure", async || {
        let response = append(&mut fixture, &[b'1'; FULL]).await;
        (response.status() != Status::Ok).then_some(response)
    })
    .await;
    assert_eq!(refused.status(), Status::FragmentStoreUnhealthy);
    let text = &refused.store_health_error;
    assert!(text.contains(" bytes are free") && text.contains("expected at least"), "{text}");
    fixture.stop().await;
}

#[tokio::test]
async fn a_journal_whose_store_never_worked_is_refused() {
    let (mut fixture, store) = start(dir(), |_| {}).await;
    store.fail();
    fixture.apply(vec![upsert(small(), 0)]).await;
    let refused = eventually("the journal is assigned", async || {
        let response = append(&mut fixture, b"x").await;
        (response.status() != Status::NoJournalPrimaryBroker).then_some(response)
    })
    .await;
    assert_eq!(refused.status(), Status::FragmentStoreUnhealthy);
    fixture.stop().await;
}

#[tokio::test]
async fn a_broker_that_lost_its_spools_waits_for_the_store_to_tell_where_its_journals_end() {
    let (mut fixture, store) = start(dir(), |_| {}).await;
    fixture.create(small()).await;
    fixture.append(NAME, &[b'0'; FULL]).await;
    fixture.append(NAME, b"end").await;
    store.until_stored(NAME, &[(0, 1500)]).await;
    store.fail();
    let dir = fixture.stop().await;
    std::fs::remove_dir_all(dir.path().join("data/spools")).unwrap();
    let (mut fixture, store) = start(dir, |_| {}).await;
    let told = eventually("the journal is assigned", async || {
        let status = append(&mut fixture, b"x").await.status();
        (status != Status::NoJournalPrimaryBroker).then_some(status)
    })
    .await;
    assert_eq!(told, Status::FragmentStoreUnhealthy);
    store.work_again();
    let told = eventually("the store was listed", async || {
        let response = append(&mut fixture, b"x").await;
        (response.status() != Status::FragmentStoreUnhealthy).then_some(response)
    })
    .await;
    // No append overwrites anything: the journal goes on after its end, if the broker could record that when it left.
    match told.status() {
        Status::Ok => assert_eq!(told.commit.as_ref().unwrap().begin, FULL as i64 + 3, "{told:?}"),
        status => assert_eq!(status, Status::IndexHasGreaterOffset),
    }
    fixture.stop().await;
}

#[tokio::test]
async fn fragments_go_to_the_stores_that_their_journal_has_now() {
    let (mut fixture, store) = start(dir(), |_| {}).await;
    fixture.create(small()).await;
    store.fail();
    append_until_noticed(&mut fixture).await;
    let other = Store { root: store.root.with_file_name("other") };
    std::fs::create_dir(&other.root).unwrap();
    let listed = fixture.list(LabelSelector::default()).await[0].journals[0].clone();
    let mut spec = listed.spec.unwrap();
    spec.fragment.as_mut().unwrap().stores = vec!["file:///other/".to_owned()];
    fixture.apply(vec![upsert(spec, listed.mod_revision)]).await;
    let end = fixture.append(NAME, b"end").await.commit.unwrap().begin;
    other.until_stored(NAME, &full_spans(usize::try_from(end).unwrap())).await;
    fixture.stop().await;
}

#[tokio::test]
async fn fragments_of_a_deleted_journal_are_not_stored() {
    let (mut fixture, store) = start(dir(), |_| {}).await;
    fixture.create(small()).await;
    store.fail();
    append_until_noticed(&mut fixture).await;
    fixture.apply(vec![delete(NAME, -1)]).await;
    let spools = fixture.dir.path().join("data/spools/a%2Fjournal");
    eventually("its spools are gone", async || {
        (std::fs::read_dir(&spools).unwrap().count() == 0).then_some(())
    })
    .await;
    store.work_again();
    // Another journal's fragments, which are stored at their first attempt, come after what else was tried again.
    let other = JournalSpec { name: "a/later".to_owned(), ..small() };
    fixture.create(other).await;
    fixture.append("a/later", &[b'0'; FULL]).await;
    fixture.append("a/later", b"end").await;
    store.until_stored("a/later", &[(0, 1500)]).await;
    assert_eq!(store.spans(NAME), [], "what is stored is of before the outage");
    fixture.stop().await;
}

#[tokio::test]
async fn what_a_former_replica_holds_goes_when_the_journal_does() {
    let mut cluster = Cluster::start_with(2, |_, options| {
        options.paces.replica_upload = Duration::from_millis(20);
        options.store_unhealthy_min_free = 0;
    })
    .await;
    let root = cluster.store().join("store");
    std::fs::create_dir(&root).unwrap();
    let store = Store { root };
    cluster.at(0).create(JournalSpec { replication: 2, ..small() }).await;
    store.fail();
    cluster.at(0).append(NAME, &[b'0'; FULL]).await;
    cluster.at(1).append(NAME, b"end").await;
    // The replica that the suspension sheds completes its fragment, which nobody takes.
    let now = AppendRequest { journal: NAME.to_owned(), suspend: Suspend::Now.into(), ..Default::default() };
    let response = cluster.at(0).try_append(now, b"").await.unwrap();
    assert_eq!(response.status(), Status::Suspended);
    let member = cluster.route().await.members[0].suffix.clone();
    let former = usize::from(member == "broker-0");
    let spools = cluster.at(former).dir.path().join("data/spools/a%2Fjournal");
    let count = || std::fs::read_dir(&spools).unwrap().count();
    eventually("the former replica holds fragments", async || (count() == 3).then_some(())).await;
    cluster.at(former).apply(vec![delete(NAME, -1)]).await;
    eventually("they are gone", async || (count() == 1).then_some(())).await;
    store.work_again();
    assert_eq!(store.spans(NAME), [], "nothing of it was stored");
}
