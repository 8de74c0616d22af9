//! Retention in the broker (journal protocol §10.3): what goes, what stays, and that only a broker which is told to deletes.

#![allow(clippy::unwrap_used, reason = "tests show what is missing by failing")]

mod support;

use std::path::Path;
use std::time::Duration;

use broker::{BrokerOptions, Paces};
use futures::StreamExt;
use proto::protocol::{
    AppendRequest, FragmentsRequest, JournalSpec, LabelSelector, LabelSet, ReadRequest, Status,
};
use support::{Fixture, content, eventually, journal, store_fragment, upsert};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);

/// Offsets at which the fragments begin that are stored at `place`.
fn begins(root: &Path, place: &str) -> Vec<i64> {
    let entries = std::fs::read_dir(root.join(place)).unwrap().map(|entry| entry.unwrap().file_name());
    let begin = |name: std::ffi::OsString| i64::from_str_radix(name.to_str()?.split('-').next()?, 16).ok();
    let mut begins: Vec<i64> = entries.filter_map(begin).collect();
    begins.sort_unstable();
    begins
}

fn kept_for(name: &str, seconds: i64) -> JournalSpec {
    let mut spec = journal(name);
    let fragment = spec.fragment.as_mut().unwrap();
    fragment.retention = Some(prost_types::Duration { seconds, nanos: 0 });
    fragment.stores = vec!["file:///".to_owned(), "file:///copies/".to_owned()];
    // Nothing is to depend upon the next listing.
    fragment.refresh_interval = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    spec
}

async fn start(dir: TempDir, adjust: impl FnOnce(&mut BrokerOptions)) -> Fixture {
    let root = dir.path().join("store");
    std::fs::create_dir_all(root.join("copies")).unwrap();
    Fixture::start_in(dir, |options| {
        options.file_root = Some(root);
        options.paces = Paces { retention: Duration::from_millis(50), ..Paces::default() };
        adjust(options);
    })
    .await
}

/// Creates a journal which goes on where what is stored ends.
async fn create(fixture: &mut Fixture, spec: JournalSpec, offset: i64) {
    let request = AppendRequest { journal: spec.name.clone(), offset, ..Default::default() };
    fixture.apply(vec![upsert(spec, 0)]).await;
    eventually("the journal goes on", async || {
        (fixture.try_append(request.clone(), b"").await.unwrap().status() == Status::Ok).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_older_than_the_retention_goes_from_every_store_but_the_last_fragment() {
    let dir = TempDir::with_prefix("courant-retention-").unwrap();
    let root = dir.path().join("store");
    for name in ["a/kept", "a/log", "a/for-ever", "a/parent", "a/parent/child", "a/journal"] {
        for (begin, age) in [(0, 3 * HOUR), (3, 2 * HOUR), (6, 2 * HOUR)] {
            store_fragment(&root.join(name), begin, b"old", age);
        }
    }
    // A fragment which another one covers, a copy in the second store, and one below a path postfix.
    store_fragment(&root.join("a/journal"), 1, b"ld", 3 * HOUR);
    store_fragment(&root.join("copies/a/journal"), 0, b"old", 3 * HOUR);
    store_fragment(&root.join("a/journal/date=1"), 9, b"older", 2 * HOUR);
    store_fragment(&root.join("a/journal"), 14, b"young", HOUR / 2);
    // Young enough at the beginning: nothing behind it goes.
    store_fragment(&root.join("copies/a/kept"), 0, b"old", HOUR / 2);

    let mut fixture = start(dir, |options| options.enforce_retention = true).await;
    let mut log = kept_for("a/log", 3600);
    log.labels = Some(LabelSet::from_pairs([("content-type", "application/x-gazette-recoverylog")]));
    create(&mut fixture, log, 9).await;
    create(&mut fixture, kept_for("a/for-ever", 0), 9).await;
    create(&mut fixture, kept_for("a/kept", 3600), 9).await;
    create(&mut fixture, kept_for("a/parent/child", 0), 9).await;
    create(&mut fixture, kept_for("a/parent", 3600), 9).await;
    create(&mut fixture, kept_for("a/journal", 3600), 19).await;

    eventually("the beginning is gone", async || (begins(&root, "a/journal") == [14]).then_some(())).await;
    assert_eq!(begins(&root, "copies/a/journal"), [0; 0]);
    assert_eq!(begins(&root, "a/journal/date=1"), [0; 0]);
    eventually("the last one stays", async || (begins(&root, "a/parent") == [6]).then_some(())).await;
    for name in ["a/kept", "a/log", "a/for-ever", "a/parent/child"] {
        assert_eq!(begins(&root, name), [0, 3, 6], "{name}");
    }
    eventually("the broker lists what is left, though nobody has read it", async || {
        let request = FragmentsRequest { journal: "a/journal".to_owned(), ..Default::default() };
        let listed = fixture.fragments(request).await.fragments.into_iter();
        let begins: Vec<i64> = listed.filter_map(|fragment| Some(fragment.spec?.begin)).collect();
        (begins == [14]).then_some(())
    })
    .await;
    // Readers go on with what there is.
    eventually("the broker knows", async || {
        let request = ReadRequest { journal: "a/journal".to_owned(), ..Default::default() };
        // Until then, what it knew is read in vain.
        let read: Vec<_> = support::within(fixture.read(request).await.unwrap().collect()).await;
        let read: Option<Vec<_>> = read.into_iter().map(Result::ok).collect();
        (content(&read?) == b"young").then_some(())
    })
    .await;
    assert_eq!(fixture.append("a/journal", b"more").await.commit.unwrap().begin, 19);
    fixture.stop().await;
}

#[tokio::test]
async fn only_a_broker_that_is_told_to_deletes() {
    let dir = TempDir::with_prefix("courant-retention-").unwrap();
    let root = dir.path().join("store");
    for (begin, age) in [(0, 3 * HOUR), (3, 2 * HOUR)] {
        store_fragment(&root.join("a/journal"), begin, b"old", age);
    }
    let mut fixture = start(dir, |_| {}).await;
    create(&mut fixture, kept_for("a/journal", 3600), 6).await;
    let dir = fixture.stop().await;
    assert_eq!(begins(&root, "a/journal"), [0, 3], "the broker was not told to delete");

    let mut fixture = start(dir, |options| options.enforce_retention = true).await;
    eventually("its beginning is gone", async || (begins(&root, "a/journal") == [3]).then_some(())).await;
    assert_eq!(fixture.append("a/journal", b"more").await.commit.unwrap().begin, 6);
    fixture.stop().await;
}

#[tokio::test]
async fn nothing_goes_while_a_store_cannot_be_listed() {
    let dir = TempDir::with_prefix("courant-retention-").unwrap();
    let root = dir.path().join("store");
    for name in ["a/first", "a/second"] {
        for (begin, age) in [(0, 3 * HOUR), (3, 2 * HOUR)] {
            store_fragment(&root.join(name), begin, b"old", age);
        }
    }
    let mut fixture = start(dir, |options| options.enforce_retention = true).await;
    create(&mut fixture, kept_for("a/first", 0), 6).await;
    let mut one_store = kept_for("a/second", 0);
    one_store.fragment.as_mut().unwrap().stores.truncate(1);
    create(&mut fixture, one_store.clone(), 6).await;
    std::fs::remove_dir_all(root.join("copies")).unwrap();
    std::fs::write(root.join("copies"), b"").unwrap();

    let listed = fixture.list(LabelSelector::default()).await[0].journals.clone();
    one_store.fragment.as_mut().unwrap().retention = kept_for("", 3600).fragment.unwrap().retention;
    let specs = [kept_for("a/first", 3600), one_store];
    let changes = specs.into_iter().zip(&listed).map(|(spec, was)| upsert(spec, was.mod_revision)).collect();
    fixture.apply(changes).await;
    // Journals are looked at in order of their names.
    eventually("the other one's beginning is gone", async || {
        (begins(&root, "a/second") == [3]).then_some(())
    })
    .await;
    assert_eq!(begins(&root, "a/first"), [0, 3]);
    fixture.stop().await;
}
