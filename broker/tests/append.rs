//! Append over a real connection (journal protocol §5).

mod support;

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker::{DiskFile, Durability, OsDisk, SpoolDisk};
use bytes::Bytes;
use futures::future::{join, join_all};
use futures::stream;
use keyspace::{Etcd, EtcdOptions};
use prost::Message;
use proto::protocol::append_request::Suspend;
use proto::protocol::journal_spec::{Flag, suspend::Level};
use proto::protocol::{
    AppendRequest, AppendResponse, CompressionCodec, Fragment, FragmentsRequest, LabelSelector, LabelSet,
    ReadRequest, Route, Sha1Sum, Status,
};
use proto::{Revision, Validate};
use runtime::{Clock, TaskGroup};
use support::{Fixture, content, eventually, journal, upsert, within};
use tokio::sync::mpsc;
use tonic::Code;

const NAME: &str = "a/journal";

fn opening() -> AppendRequest {
    AppendRequest { journal: NAME.to_owned(), ..Default::default() }
}

fn chunk(content: &[u8]) -> AppendRequest {
    AppendRequest { content: Bytes::copy_from_slice(content), ..Default::default() }
}

fn commit() -> AppendRequest {
    AppendRequest::default()
}

fn labels(pairs: &[(&str, &str)]) -> LabelSet {
    LabelSet::from_pairs(pairs.iter().copied())
}

/// Sends exactly these messages.
async fn send(fixture: &Fixture, messages: Vec<AppendRequest>) -> Result<AppendResponse, tonic::Status> {
    let mut client = fixture.client.clone();
    within(client.append(stream::iter(messages))).await.map(tonic::Response::into_inner)
}

async fn error_of(fixture: &Fixture, messages: Vec<AppendRequest>) -> String {
    let error = send(fixture, messages).await.expect_err("the stream breaks a rule");
    assert_eq!(error.code(), Code::Unknown, "{error}");
    error.message().to_owned()
}

async fn with_journal() -> Fixture {
    let mut fixture = Fixture::start().await;
    fixture.create(journal(NAME)).await;
    fixture
}

async fn read(fixture: &mut Fixture) -> Vec<u8> {
    content(&fixture.read_all(ReadRequest { journal: NAME.to_owned(), ..Default::default() }).await)
}

#[tokio::test]
async fn a_commit_is_answered_with_its_span_sum_and_registers() {
    let fixture = with_journal().await;
    let name = AppendRequest { journal: format!("{NAME};meta/data"), ..Default::default() };
    let response = send(&fixture, vec![name, chunk(b"foo"), chunk(b"bar"), commit()]).await.unwrap();
    response.validate().unwrap();
    let foobar = "8843d7f92416211de9ebb963ff4ce28125932878";
    assert_eq!((response.status(), response.total_chunks, response.delayed_chunks), (Status::Ok, 3, 0));
    assert_eq!(response.registers, Some(LabelSet::default()));
    let span = |begin, end, sum: Sha1Sum| Fragment {
        journal: NAME.to_owned(),
        begin,
        end,
        sum: Some(sum),
        compression_codec: CompressionCodec::Snappy.into(),
        ..Default::default()
    };
    let fragment = response.commit.unwrap();
    assert_eq!(fragment.sum.unwrap().hex(), foobar);
    assert_eq!(fragment, span(0, 6, fragment.sum.unwrap()));
    assert_eq!(response.header.unwrap().process_id, Some(fixture.broker.id().to_proto()));

    // The sum is of this append alone, and that of no bytes is not zero.
    let response = send(&fixture, vec![opening(), chunk(b"foobar"), commit()]).await.unwrap();
    assert_eq!(response.commit.unwrap(), span(6, 12, fragment.sum.unwrap()));
    let response = send(&fixture, vec![opening(), commit()]).await.unwrap();
    let empty = response.commit.unwrap();
    assert_eq!(empty.sum.unwrap().hex(), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    assert_eq!(((empty.begin, empty.end), response.total_chunks), ((12, 12), 1));
    fixture.stop().await;
}

#[tokio::test]
async fn streams_that_break_the_rules_fail_with_their_text_and_leave_no_byte() {
    let mut fixture = with_journal().await;
    let table = [
        (vec![], "EOF"),
        (
            vec![AppendRequest { journal: "/invalid/name".to_owned(), ..Default::default() }],
            "Journal: cannot begin with '/' (/invalid/name)",
        ),
        (vec![AppendRequest { content: Bytes::from_static(b"x"), ..opening() }], "unexpected Content"),
        (vec![opening()], "append stream: unexpected EOF"),
        (vec![opening(), chunk(b"aborted")], "append stream: unexpected EOF"),
        (
            vec![opening(), chunk(b"x"), commit(), commit()],
            "append stream: expected EOF after empty Content chunk",
        ),
        (vec![opening(), chunk(b"x"), opening(), commit()], "append stream: expected Content chunk"),
        (
            vec![opening(), AppendRequest { offset: 5, ..chunk(b"x") }, commit()],
            "append stream: unexpected Offset",
        ),
        (
            vec![AppendRequest { union_registers: Some(labels(&[("a-name", "v")])), ..opening() }, commit()],
            "append stream: register modification requires non-empty Append",
        ),
    ];
    for (messages, expected) in table {
        assert_eq!(error_of(&fixture, messages).await, expected);
    }
    assert_eq!(fixture.append(NAME, b"first").await.commit.unwrap().begin, 0);
    assert_eq!(read(&mut fixture).await, b"first");
    fixture.stop().await;
}

#[tokio::test]
async fn a_client_that_vanishes_or_stalls_holds_nobody_and_leaves_no_byte() {
    let mut fixture = with_journal().await;
    let (sender, receiver) = mpsc::channel(8);
    sender.send(opening()).await.unwrap();
    sender.send(chunk(b"vanishing")).await.unwrap();
    let mut client = fixture.client.clone();
    let messages = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut vanishing = Box::pin(client.append(messages));
    let (stalled_sender, receiver) = mpsc::channel(8);
    stalled_sender.send(opening()).await.unwrap();
    stalled_sender.send(chunk(b"stalling")).await.unwrap();
    let mut client = fixture.client.clone();
    let stalled = client.append(tokio_stream::wrappers::ReceiverStream::new(receiver));

    let others = async {
        assert!(futures::poll!(&mut vanishing).is_pending());
        for n in 0..20 {
            assert_eq!(fixture.append(NAME, b"others").await.commit.unwrap().begin, n * 6);
        }
        drop(vanishing);
    };
    let (stalled, ()) = within(join(stalled, others)).await;
    let error = stalled.unwrap_err();
    assert_eq!(error.message(), "append stream: client stream didn't sustain the minimum append data rate");
    assert_eq!(fixture.append(NAME, b"end").await.commit.unwrap().begin, 120);
    assert_eq!(read(&mut fixture).await, [&b"others".repeat(20)[..], b"end"].concat());
    fixture.stop().await;
}

#[tokio::test]
async fn registers_are_checked_and_updated_with_each_append() {
    let fixture = with_journal().await;
    let step = async |check: &[(&str, &str)], union: &[(&str, &str)], subtract: &[(&str, &str)]| {
        let some = |pairs: &[(&str, &str)]| (!pairs.is_empty()).then(|| labels(pairs));
        let request = AppendRequest {
            check_registers: (!check.is_empty()).then(|| LabelSelector::include(check.iter().copied())),
            union_registers: some(union),
            subtract_registers: some(subtract),
            ..opening()
        };
        let response = send(&fixture, vec![request, chunk(b"x"), commit()]).await.unwrap();
        response.validate().unwrap();
        (response.status(), response.registers.unwrap())
    };
    let one = labels(&[("author", "one")]);
    // No registers match anything.
    assert_eq!(step(&[("author", "other")], &[("author", "one")], &[]).await, (Status::Ok, one.clone()));
    assert_eq!(
        step(&[("author", "other")], &[("author", "x")], &[]).await,
        (Status::RegisterMismatch, one.clone())
    );
    assert_eq!(step(&[("author", "one")], &[], &[]).await, (Status::Ok, one.clone()));
    let two = labels(&[("author", "two"), ("fence", "f")]);
    let replaced =
        step(&[("author", "one")], &[("author", "two"), ("fence", "f")], &[("author", "one")]).await;
    assert_eq!(replaced, (Status::Ok, two.clone()));
    assert_eq!(step(&[], &[], &[("fence", "g")]).await, (Status::Ok, two));
    assert_eq!(step(&[], &[], &[("fence", "f"), ("author", "two")]).await, (Status::Ok, LabelSet::default()));

    // And outlive the broker.
    let kept = step(&[], &[("author", "kept")], &[]).await.1;
    let dir = fixture.stop().await;
    let mut fixture = Fixture::start_in(dir, |_| {}).await;
    assert_eq!(fixture.append(NAME, b"x").await.registers, Some(kept));
    fixture.stop().await;
}

#[tokio::test]
async fn offsets_must_be_those_of_the_end() {
    let mut fixture = with_journal().await;
    fixture.append(NAME, b"12345").await;
    let at = |offset| vec![AppendRequest { offset, ..opening() }, chunk(b"67"), commit()];
    for wrong in [1, 4, 6] {
        let response = send(&fixture, at(wrong)).await.unwrap();
        assert_eq!((response.status(), response.commit), (Status::WrongAppendOffset, None));
    }
    assert_eq!(send(&fixture, at(5)).await.unwrap().commit.unwrap().end, 7);
    fixture.stop().await;
}

#[tokio::test]
async fn a_read_only_journal_takes_barriers_and_no_content() {
    let mut fixture = Fixture::start().await;
    let mut spec = journal(NAME);
    spec.flags = Flag::ORdonly as u32;
    fixture.create(spec).await;
    let response = send(&fixture, vec![opening(), chunk(b"x"), commit()]).await.unwrap();
    assert_eq!(response.status(), Status::NotAllowed);
    response.validate().unwrap();
    assert_eq!(send(&fixture, vec![opening(), commit()]).await.unwrap().status(), Status::Ok);
    fixture.stop().await;
}

#[tokio::test]
async fn journals_that_are_not_there_say_so() {
    let fixture = with_journal().await;
    for name in ["no/such/journal", ""] {
        let request = AppendRequest { journal: name.to_owned(), ..Default::default() };
        let response = send(&fixture, vec![request, commit()]).await.unwrap();
        response.validate().unwrap();
        assert_eq!(response.status(), Status::JournalNotFound, "{name:?}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_store_that_is_not_healthy_is_named() {
    let mut fixture = Fixture::start().await;
    let mut spec = journal(NAME);
    spec.fragment.as_mut().unwrap().stores = vec!["s3://no-such-bucket/".to_owned()];
    fixture.apply(vec![upsert(spec, 0)]).await;
    let response = eventually("the journal is assigned", async || {
        let response = send(&fixture, vec![opening(), commit()]).await.unwrap();
        (response.status() == Status::FragmentStoreUnhealthy).then_some(response)
    })
    .await;
    let text = &response.store_health_error;
    assert!(
        text.starts_with("fragment store URL unhealthy: ") && text.contains("s3://no-such-bucket/"),
        "{text}"
    );
    fixture.stop().await;
}

/// What the journal's specification says about its suspension.
async fn suspension(fixture: &mut Fixture) -> (Level, i64) {
    let listed = fixture.list(LabelSelector::default()).await;
    let suspend = listed[0].journals[0].spec.as_ref().expect("a listed journal has one").suspend;
    suspend.map_or((Level::None, 0), |suspend| (suspend.level(), suspend.offset))
}

#[tokio::test]
async fn a_journal_is_suspended_and_resumed() {
    let mut fixture = with_journal().await;
    let mode = |suspend: Suspend| AppendRequest { suspend: suspend.into(), ..opening() };
    let status = async |fixture: &Fixture, suspend, content: &[u8]| {
        let mut messages = vec![mode(suspend)];
        messages.extend((!content.is_empty()).then(|| chunk(content)));
        messages.push(commit());
        let response = send(fixture, messages).await.unwrap();
        response.validate().unwrap();
        response.status()
    };
    fixture.append(NAME, b"content").await;
    // Its last fragment is local.
    assert_eq!(status(&fixture, Suspend::IfFlushed, b"").await, Status::Ok);
    assert_eq!(suspension(&mut fixture).await, (Level::None, 0));
    assert_eq!(status(&fixture, Suspend::IfFlushed, b"x").await, Status::NotAllowed);

    assert_eq!(status(&fixture, Suspend::Now, b"").await, Status::Suspended);
    assert_eq!(suspension(&mut fixture).await, (Level::Partial, 7));
    assert_eq!(status(&fixture, Suspend::Now, b"").await, Status::Suspended);
    assert_eq!(status(&fixture, Suspend::NoResume, b"x").await, Status::Suspended);
    assert_eq!(status(&fixture, Suspend::Keep, b"").await, Status::Ok);
    assert_eq!(status(&fixture, Suspend::Keep, b"x").await, Status::NotAllowed);
    assert_eq!(suspension(&mut fixture).await, (Level::Partial, 7));
    // Its content went to the store.
    let request = FragmentsRequest { journal: NAME.to_owned(), ..Default::default() };
    eventually("the fragment is stored", async || {
        let listed = fixture.fragments(request.clone()).await.fragments;
        listed.iter().all(|f| f.spec.as_ref().unwrap().mod_time != 0).then_some(())
    })
    .await;

    assert_eq!(status(&fixture, Suspend::Resume, b"more").await, Status::Ok);
    assert_eq!(suspension(&mut fixture).await, (Level::None, 7));
    assert_eq!(read(&mut fixture).await, b"contentmore");
    fixture.stop().await;
}

#[tokio::test]
async fn an_empty_journal_is_suspended_fully_and_any_append_resumes_it() {
    let mut fixture = with_journal().await;
    let now = AppendRequest { suspend: Suspend::Now.into(), ..opening() };
    assert_eq!(send(&fixture, vec![now.clone(), commit()]).await.unwrap().status(), Status::Suspended);
    assert_eq!(suspension(&mut fixture).await, (Level::Full, 0));
    assert_eq!(send(&fixture, vec![now, commit()]).await.unwrap().status(), Status::Suspended);
    assert_eq!(fixture.append(NAME, b"content").await.commit.unwrap().begin, 0);
    assert_eq!(suspension(&mut fixture).await, (Level::None, 0));
    fixture.stop().await;
}

#[tokio::test]
async fn large_appends_are_whole_and_do_not_hold_small_ones() {
    let mut fixture = with_journal().await;
    fixture.append(NAME, b"first").await;
    let large: Vec<u8> = (0..11_000_003u32).map(|n| (n % 251) as u8).collect();
    let mut messages = vec![opening()];
    messages.extend(large.chunks(3_000_001).map(chunk));
    messages.push(commit());
    let small = async {
        for _ in 0..10 {
            send(&fixture, vec![opening(), chunk(b"small"), commit()]).await.unwrap();
        }
    };
    let (response, ()) = join(send(&fixture, messages), small).await;
    let commit = response.unwrap().commit.unwrap();
    assert_eq!(commit.end - commit.begin, large.len() as i64);
    let all = read(&mut fixture).await;
    let (begin, end) = (commit.begin as usize, commit.end as usize);
    assert!(all[begin..end] == large);
    assert_eq!([&all[..begin], &all[end..]].concat(), [&b"first"[..], &b"small".repeat(10)].concat());
    fixture.stop().await;
}

#[tokio::test]
async fn a_journals_rate_delays_its_appends() {
    let mut fixture = Fixture::start().await;
    let mut spec = journal(NAME);
    spec.max_append_rate = 100_000;
    fixture.create(spec).await;
    let block = [7; 60_000];
    let response =
        send(&fixture, vec![opening(), chunk(&block), chunk(&block), chunk(b"x"), commit()]).await.unwrap();
    assert_eq!((response.status(), response.total_chunks), (Status::Ok, 4));
    assert!(response.delayed_chunks >= 1, "{}", response.delayed_chunks);
    fixture.stop().await;
}

#[tokio::test]
async fn a_brokers_own_limits_hold_for_every_journal() {
    let dir = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::start_in(dir, |options| {
        options.max_append_rate = 100_000;
        options.min_append_rate = 0;
    })
    .await;
    fixture.create(journal(NAME)).await;
    let block = [7; 60_000];
    let response = send(&fixture, vec![opening(), chunk(&block), chunk(&block), commit()]).await.unwrap();
    assert_eq!((response.status(), response.delayed_chunks), (Status::Ok, 1));
    fixture.stop().await;
}

#[tokio::test]
async fn the_first_append_has_a_fragment_of_its_own_and_others_share_one() {
    let mut fixture = with_journal().await;
    for content in ["first", "second", "third"] {
        fixture.append(NAME, content.as_bytes()).await;
    }
    let request = FragmentsRequest { journal: NAME.to_owned(), ..Default::default() };
    let listed = fixture.fragments(request).await.fragments;
    let spans: Vec<_> = listed.iter().map(|f| f.spec.as_ref().unwrap()).map(|f| (f.begin, f.end)).collect();
    assert_eq!(spans, [(0, 5), (5, 16)]);
    fixture.stop().await;
}

#[tokio::test]
async fn concurrent_appends_are_each_there_once_at_their_own_offset() {
    let mut fixture = with_journal().await;
    let appends = (0..64).map(|client| {
        let fixture = &fixture;
        async move {
            let mut spans = Vec::new();
            for n in 0..8 {
                let text = format!("client {client} append {n};");
                let response =
                    send(fixture, vec![opening(), chunk(text.as_bytes()), commit()]).await.unwrap();
                spans.push((response.commit.unwrap(), text));
            }
            spans
        }
    });
    let spans: Vec<_> = join_all(appends).await.concat();
    let all = read(&mut fixture).await;
    for (commit, text) in &spans {
        assert_eq!(all[commit.begin as usize..commit.end as usize], *text.as_bytes());
    }
    assert_eq!(all.len(), spans.iter().map(|(_, text)| text.len()).sum::<usize>());
    // Whoever appends in turn is served in turn.
    assert!(spans.chunks(8).all(|own| own.windows(2).all(|pair| pair[0].0.end <= pair[1].0.begin)));
    fixture.stop().await;
}

/// The operating system's disk, with as much space as a test leaves it.
#[derive(Debug, Clone, Default)]
struct SmallDisk {
    is_full: Arc<AtomicBool>,
}

struct SmallFile {
    file: Arc<dyn DiskFile>,
    disk: SmallDisk,
}

impl SmallDisk {
    fn file(&self, file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SmallFile { file: file?, disk: self.clone() }))
    }
}

impl SpoolDisk for SmallDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        OsDisk.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        OsDisk.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.file(OsDisk.create(path))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.file(OsDisk.open(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        OsDisk.free_bytes(dir)
    }
}

impl DiskFile for SmallFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buffer, at)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        match self.disk.is_full.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => self.file.write_at(buffers, at),
        }
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[tokio::test]
async fn a_full_disk_fails_appends_with_the_files_name_and_nothing_else() {
    for durability in [Durability::Process, Durability::Disk] {
        let disk = SmallDisk::default();
        let mut fixture = Fixture::start_in(tempfile::tempdir().unwrap(), |options| {
            options.disk = Arc::new(disk.clone());
            options.durability = durability;
        })
        .await;
        fixture.create(journal(NAME)).await;
        fixture.append(NAME, b"before").await;
        fixture.append(NAME, b"and").await;
        disk.is_full.store(true, Ordering::SeqCst);
        let error = error_of(&fixture, vec![opening(), chunk(b"lost"), commit()]).await;
        assert!(
            error.starts_with("writing content to ") && error.ends_with("0001.spool: no storage space"),
            "{error}"
        );
        let large = vec![7; 3 << 20];
        let error = error_of(&fixture, vec![opening(), chunk(&large), chunk(&large), commit()]).await;
        assert!(error.starts_with("append stream: spilling append content into "), "{error}");
        assert_eq!(
            send(&fixture, vec![opening(), commit()]).await.unwrap().status(),
            Status::Ok,
            "a barrier"
        );
        assert_eq!(read(&mut fixture).await, b"beforeand");
        disk.is_full.store(false, Ordering::SeqCst);
        assert_eq!(fixture.append(NAME, b"after").await.commit.unwrap().begin, 9);
        assert_eq!(read(&mut fixture).await, b"beforeandafter");
        fixture.stop().await;
    }
}

#[tokio::test]
async fn a_pulse_publishes_the_route_of_a_journal_that_nobody_appends_to() {
    let mut fixture = Fixture::start().await;
    fixture.apply(vec![upsert(journal(NAME), 0)]).await;
    let options = EtcdOptions {
        lease_ttl: Duration::from_secs(20),
        tls: Default::default(),
        clock: Clock::system(),
        tasks: TaskGroup::new("test"),
    };
    let etcd = within(Etcd::connect(fixture.broker.etcd_address(), options)).await.unwrap();
    let route = eventually("the assignment has a route", async || {
        let (assigned, _) = etcd.range("/gazette/cluster/assign/", Revision(0)).await.unwrap();
        let value = assigned.into_iter().next()?.value;
        (!value.is_empty()).then(|| Route::decode(value).unwrap())
    })
    .await;
    assert_eq!((route.members, route.primary), (vec![fixture.broker.id().to_proto()], 0));
    assert!(route.endpoints.is_empty(), "etcd keeps no endpoints");
    fixture.stop().await;
}
