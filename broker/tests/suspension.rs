//! Suspension of journals (journal protocol §5.4): what each mode does to a journal of each level, and auto-suspension.

#![allow(clippy::unwrap_used, reason = "tests show what is missing by failing")]

mod support;

use std::time::Duration;

use broker::Paces;
use proto::protocol::append_request::Suspend;
use proto::protocol::journal_spec::suspend::Level;
use proto::protocol::{AppendRequest, JournalSpec, LabelSelector, ReadRequest, Status, journal_spec};
use support::cluster::{Cluster, NAME};
use support::{Fixture, content, eventually, journal, store_fragment, upsert};
use tempfile::TempDir;

/// A journal before an append comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    /// Not suspended, without content.
    Empty,
    /// Not suspended; its content is not stored.
    Dirty,
    /// Not suspended; its content was stored long ago.
    Clean,
    /// Partially suspended, with content.
    Partial,
    /// Partially suspended, without content.
    PartialEmpty,
    /// Fully suspended.
    Full,
}

const STORED: &[u8] = b"stored";

async fn append(fixture: &mut Fixture, name: &str, suspend: Suspend, offset: i64, content: &[u8]) -> Status {
    let request =
        AppendRequest { journal: name.to_owned(), suspend: suspend.into(), offset, ..Default::default() };
    fixture.try_append(request, content).await.unwrap().status()
}

/// What the journal's specification says of its suspension.
async fn level(fixture: &mut Fixture, name: &str) -> (Level, i64) {
    let listed = fixture.list(LabelSelector::include([("name", name)])).await;
    let suspend = listed[0].journals[0].spec.as_ref().unwrap().suspend;
    suspend.map_or((Level::None, 0), |suspend| (suspend.level(), suspend.offset))
}

/// Sends an append until the journal has a primary to answer it.
async fn settled(fixture: &mut Fixture, name: &str, suspend: Suspend, content: &[u8]) -> Status {
    eventually("the journal answers", async || match append(fixture, name, suspend, 0, content).await {
        Status::NoJournalPrimaryBroker | Status::InsufficientJournalBrokers => None,
        status => Some(status),
    })
    .await
}

async fn prepare(fixture: &mut Fixture, name: &str, before: Before) {
    let suspend = |level: Level, offset| Some(journal_spec::Suspend { level: level.into(), offset });
    if matches!(before, Before::Clean | Before::Partial) {
        let two_days = Duration::from_secs(2 * 24 * 3600);
        store_fragment(&fixture.dir.path().join("data/fragments").join(name), 0, STORED, two_days);
    }
    let spec = match before {
        Before::PartialEmpty => JournalSpec { suspend: suspend(Level::Partial, 0), ..journal(name) },
        Before::Full => JournalSpec { suspend: suspend(Level::Full, 1000), ..journal(name) },
        _ => journal(name),
    };
    fixture.apply(vec![upsert(spec, 0)]).await;
    match before {
        Before::Empty => assert_eq!(settled(fixture, name, Suspend::Resume, b"").await, Status::Ok),
        Before::Dirty => assert_eq!(settled(fixture, name, Suspend::Resume, b"dirty").await, Status::Ok),
        Before::Clean | Before::Partial => {
            eventually("the journal goes on after what is stored", async || {
                let offset = i64::try_from(STORED.len()).unwrap();
                (append(fixture, name, Suspend::Keep, offset, b"").await == Status::Ok).then_some(())
            })
            .await;
        }
        Before::PartialEmpty => assert_eq!(settled(fixture, name, Suspend::Keep, b"").await, Status::Ok),
        Before::Full => {}
    }
    if before == Before::Partial {
        assert_eq!(append(fixture, name, Suspend::IfFlushed, 0, b"").await, Status::Suspended);
    }
}

#[tokio::test]
async fn every_mode_does_to_every_level_what_the_protocol_says() {
    use Before::{Clean, Dirty, Empty, Full, Partial, PartialEmpty};
    use Level as L;
    use Status::{Ok, Suspended};
    use Suspend::{IfFlushed, Keep, NoResume, Now, Resume};
    let mut fixture = Fixture::start().await;
    for (number, (before, mode, status, after)) in [
        (Empty, Resume, Ok, (L::None, 0)),
        (Empty, NoResume, Ok, (L::None, 0)),
        (Empty, IfFlushed, Suspended, (L::Full, 0)),
        (Empty, Now, Suspended, (L::Full, 0)),
        (Empty, Keep, Ok, (L::None, 0)),
        (Dirty, Resume, Ok, (L::None, 0)),
        (Dirty, NoResume, Ok, (L::None, 0)),
        (Dirty, IfFlushed, Ok, (L::None, 0)),
        (Dirty, Now, Suspended, (L::Partial, 5)),
        (Dirty, Keep, Ok, (L::None, 0)),
        (Clean, Resume, Ok, (L::None, 0)),
        (Clean, NoResume, Ok, (L::None, 0)),
        (Clean, IfFlushed, Suspended, (L::Partial, 6)),
        (Clean, Now, Suspended, (L::Partial, 6)),
        (Clean, Keep, Ok, (L::None, 0)),
        (Partial, Resume, Ok, (L::None, 6)),
        (Partial, NoResume, Suspended, (L::Partial, 6)),
        (Partial, IfFlushed, Suspended, (L::Partial, 6)),
        (Partial, Now, Suspended, (L::Partial, 6)),
        (Partial, Keep, Ok, (L::Partial, 6)),
        (PartialEmpty, Resume, Ok, (L::None, 0)),
        (PartialEmpty, NoResume, Suspended, (L::Partial, 0)),
        (PartialEmpty, IfFlushed, Suspended, (L::Full, 0)),
        (PartialEmpty, Now, Suspended, (L::Full, 0)),
        (PartialEmpty, Keep, Ok, (L::Partial, 0)),
        (Full, Resume, Ok, (L::None, 1000)),
        (Full, NoResume, Suspended, (L::Full, 1000)),
        (Full, IfFlushed, Suspended, (L::Full, 1000)),
        (Full, Now, Suspended, (L::Full, 1000)),
        (Full, Keep, Suspended, (L::Full, 1000)),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("table/row-{number}");
        prepare(&mut fixture, &name, before).await;
        let is_refused_with_content = match mode {
            Resume | NoResume => None,
            _ if before == Full => Some(Suspended),
            // The suspension comes first, and the content is not read.
            _ if status == Suspended && !matches!(before, Partial) => None,
            _ => Some(Status::NotAllowed),
        };
        if let Some(refused) = is_refused_with_content {
            let got = append(&mut fixture, &name, mode, 0, b"x").await;
            assert_eq!(got, refused, "{before:?} {mode:?} with content");
        }
        assert_eq!(settled(&mut fixture, &name, mode, b"").await, status, "{before:?} {mode:?}");
        assert_eq!(level(&mut fixture, &name).await, after, "{before:?} {mode:?}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_fully_suspended_journal_is_not_read_and_resumes_at_its_offset() {
    let mut fixture = Fixture::start().await;
    prepare(&mut fixture, NAME, Before::Full).await;
    let read = ReadRequest { journal: NAME.to_owned(), ..Default::default() };
    assert_eq!(fixture.read_all(read.clone()).await[0].status(), Status::Suspended);
    assert_eq!(fixture.append(NAME, b"after").await.commit.unwrap().begin, 1000);
    let read = fixture.read_all(ReadRequest { offset: 1000, ..read }).await;
    assert_eq!(content(&read), b"after");
    fixture.stop().await;
}

fn replicated() -> JournalSpec {
    JournalSpec { replication: 3, ..journal(NAME) }
}

#[tokio::test]
async fn a_replicated_journal_sheds_its_replicas_and_gets_them_back() {
    let mut cluster = Cluster::start(3).await;
    cluster.at(0).create(replicated()).await;
    cluster.at(1).append(NAME, b"content").await;
    let status = append(cluster.at(2), NAME, Suspend::Now, 0, b"").await;
    assert_eq!(status, Status::Suspended, "once there is one replica");
    assert_eq!(cluster.route().await.members.len(), 1);
    assert_eq!(level(cluster.at(0), NAME).await, (Level::Partial, 7));
    for index in 0..3 {
        let read = ReadRequest { journal: NAME.to_owned(), ..Default::default() };
        assert_eq!(content(&cluster.at(index).read_all(read).await), b"content", "it is read as before");
        let status = append(cluster.at(index), NAME, Suspend::NoResume, 0, b"more").await;
        assert_eq!(status, Status::Suspended);
        assert_eq!(append(cluster.at(index), NAME, Suspend::Keep, 0, b"").await, Status::Ok);
    }
    assert_eq!(cluster.route().await.members.len(), 1);
    let stored = cluster.store().join(NAME);
    eventually("all of it is stored", async || (std::fs::read_dir(&stored).ok()?.count() > 0).then_some(()))
        .await;

    let commit = cluster.at(0).append(NAME, b" and more").await.commit.unwrap();
    assert_eq!(commit.begin, 7);
    assert_eq!(level(cluster.at(0), NAME).await, (Level::None, 7));
    cluster.until_replicas_have(b"content and more").await;
}

#[tokio::test]
async fn a_replicated_journal_without_content_sheds_all_replicas_and_gets_them_back() {
    let mut cluster = Cluster::start(3).await;
    cluster.at(0).create(replicated()).await;
    assert_eq!(append(cluster.at(1), NAME, Suspend::IfFlushed, 0, b"").await, Status::Suspended);
    assert_eq!(level(cluster.at(0), NAME).await, (Level::Full, 0));
    eventually("nobody has it", async || cluster.route().await.members.is_empty().then_some(())).await;
    assert_eq!(append(cluster.at(2), NAME, Suspend::NoResume, 0, b"x").await, Status::Suspended);
    assert_eq!(cluster.at(2).append(NAME, b"content").await.commit.unwrap().begin, 0);
    cluster.until_replicas_have(b"content").await;
}

#[tokio::test]
async fn idle_journals_are_suspended_if_the_broker_is_told_to() {
    let dir = TempDir::with_prefix("courant-broker-").unwrap();
    let mut fixture = Fixture::start_in(dir, |options| {
        options.auto_suspend = true;
        options.paces = Paces { pulse: Duration::from_millis(20), ..Paces::default() };
    })
    .await;
    prepare(&mut fixture, "idle/dirty", Before::Dirty).await;
    prepare(&mut fixture, "idle/clean", Before::Clean).await;
    prepare(&mut fixture, "idle/empty", Before::Empty).await;
    for (name, expected) in [("idle/clean", (Level::Partial, 6)), ("idle/empty", (Level::Full, 0))] {
        eventually("it is suspended", async || (level(&mut fixture, name).await == expected).then_some(()))
            .await;
    }
    assert_eq!(level(&mut fixture, "idle/dirty").await, (Level::None, 0), "what it holds is not old enough");
    let begin = fixture.append("idle/clean", b"more").await.commit.unwrap().begin;
    assert_eq!(begin, 6, "an append resumes it");
    fixture.stop().await;
}
