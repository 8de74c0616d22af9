//! Journals of which only the stores are left: what their fragments say, what is missing, damaged or out of reach.

#![allow(clippy::unwrap_used, reason = "it is a test")]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use proto::protocol::{FragmentsRequest, JournalSpec, ReadRequest, ReadResponse, Status};
use support::{Fixture, content, eventually, journal, store_fragment, upsert, within};
use tempfile::TempDir;
use tonic::Code;

const NAME: &str = "a/journal";
const HOUR: u64 = 3600;

/// Stores in directories of their own, and a broker that has nothing else.
struct Stored {
    dir: TempDir,
}

impl Stored {
    fn new() -> Stored {
        let dir = TempDir::with_prefix("courant-stored-").unwrap();
        for store in ["one", "two"] {
            std::fs::create_dir(dir.path().join(store)).unwrap();
        }
        Stored { dir }
    }

    /// Writes the file of a fragment which holds `content`, modified `age` seconds ago.
    fn put_of(&self, journal: &str, store: &str, begin: i64, content: &[u8], age: u64) -> PathBuf {
        let dir = self.dir.path().join(store).join(journal);
        store_fragment(&dir, begin, content, Duration::from_secs(age))
    }

    fn put(&self, store: &str, begin: i64, content: &[u8]) -> PathBuf {
        self.put_of(NAME, store, begin, content, 60)
    }

    /// Has the store answer with errors: where its directory was there is a file.
    fn break_store(&self, store: &str) {
        let path = self.dir.path().join(store);
        std::fs::write(path.with_extension("away"), b"").unwrap();
        support::exchange(&path, &path.with_extension("away"));
    }

    fn mend_store(&self, store: &str) {
        let path = self.dir.path().join(store);
        support::exchange(&path, &path.with_extension("away"));
        std::fs::remove_file(path.with_extension("away")).unwrap();
    }

    /// A fresh broker without local content, with the journal over both stores.
    async fn broker(&self, hole_age: Duration) -> Fixture {
        let root = self.dir.path().to_owned();
        let adjust = |options: &mut broker::BrokerOptions| {
            options.file_root = Some(root);
            options.hole_age = hole_age;
        };
        let mut fixture = Fixture::start_in(TempDir::with_prefix("courant-broker-").unwrap(), adjust).await;
        fixture.apply(vec![upsert(spec(NAME), 0)]).await;
        assigned(&mut fixture, NAME).await;
        fixture
    }

    /// [`Stored::broker`], once it has listed its stores.
    async fn listed_broker(&self, hole_age: Duration) -> Fixture {
        let mut fixture = self.broker(hole_age).await;
        fixture.fragments(FragmentsRequest { journal: NAME.to_owned(), ..Default::default() }).await;
        fixture
    }
}

const SIX_HOURS: Duration = Duration::from_secs(6 * HOUR);

fn spec(name: &str) -> JournalSpec {
    let mut spec = journal(name);
    let fragment = spec.fragment.as_mut().unwrap();
    fragment.stores = ["file:///one/", "file:///two/"].map(str::to_owned).to_vec();
    // Nothing is to depend upon the next listing.
    fragment.refresh_interval = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    spec
}

async fn assigned(fixture: &mut Fixture, name: &str) {
    eventually("the journal is assigned", async || {
        let request = ReadRequest {
            journal: name.to_owned(),
            offset: i64::MAX,
            metadata_only: true,
            ..Default::default()
        };
        let first = within(fixture.client.read(request)).await.unwrap().into_inner().message().await;
        let status = first.map(|first| first.map(|first| first.status()));
        (!matches!(status, Ok(Some(Status::InsufficientJournalBrokers)))).then_some(())
    })
    .await;
}

fn now() -> Duration {
    runtime::Clock::system().unix_now()
}

fn at(offset: i64) -> ReadRequest {
    ReadRequest { journal: NAME.to_owned(), offset, ..Default::default() }
}

fn between(offset: i64, end_offset: i64) -> ReadRequest {
    ReadRequest { end_offset, ..at(offset) }
}

/// What a read came to: its responses, and its error.
async fn try_read(fixture: &mut Fixture, request: ReadRequest) -> (Vec<ReadResponse>, Option<tonic::Status>) {
    let mut stream = fixture.read(request).await.unwrap();
    let mut responses = Vec::new();
    loop {
        match within(stream.message()).await {
            Ok(Some(response)) => responses.push(response),
            Ok(None) => return (responses, None),
            Err(status) => return (responses, Some(status)),
        }
    }
}

/// Failed copies by defect, as the broker counts them.
async fn failures(fixture: &Fixture, defect: &str) -> u64 {
    let metrics = fixture.http("/debug/metrics").await;
    let series = format!("courant_read_copy_failures_total{{defect=\"{defect}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

#[tokio::test]
async fn a_wiped_broker_serves_the_union_of_its_stores_and_goes_on_while_one_is_down() {
    let stored = Stored::new();
    stored.put("one", 0, b"only one ");
    stored.put("two", 9, b"only two ");
    stored.put("one", 18, b"both");
    stored.put("two", 18, b"both");
    let mut fixture = stored.listed_broker(SIX_HOURS).await;
    let all = fixture.read_all(at(0)).await;
    assert_eq!(content(&all), b"only one only two both");
    assert_eq!(
        (all.last().unwrap().status(), all.last().unwrap().offset),
        (Status::OffsetNotYetAvailable, 22)
    );

    for store in ["one", "two"] {
        stored.break_store(store);
        // What the other store has as well is read from there.
        assert_eq!(content(&fixture.read_all(between(18, 22)).await), b"both", "{store} is down");
        eventually("a store that is known to be down is not asked first", async || {
            let before = failures(&fixture, "unavailable").await;
            assert_eq!(content(&fixture.read_all(between(18, 22)).await), b"both");
            (failures(&fixture, "unavailable").await == before).then_some(())
        })
        .await;
        let (here, there) = if store == "one" { ((9, 18), 0) } else { ((0, 9), 9) };
        assert_eq!(fixture.read_all(between(here.0, here.1)).await.last().unwrap().status(), Status::Ok);
        let (responses, error) = try_read(&mut fixture, at(there)).await;
        let error = error.unwrap();
        assert_eq!(content(&responses), b"");
        let named = format!("fragment store \"file:///{store}/\"");
        assert!(error.message().contains(&named) && error.message().contains("no other copy"), "{error}");
        stored.mend_store(store);
        assert_eq!(content(&fixture.read_all(at(0)).await), b"only one only two both");
    }
    assert!(failures(&fixture, "unavailable").await >= 2);
    fixture.stop().await;

    // A broker that starts while a store is down serves what is certain, and says what is not.
    stored.break_store("two");
    let mut fixture = stored.broker(SIX_HOURS).await;
    assert_eq!(content(&fixture.read_all(between(0, 9)).await), b"only one ");
    let mut blocked = fixture.read(ReadRequest { block: true, ..at(9) }).await.unwrap();
    let mut other = fixture.client.clone();
    let fragments = other.list_fragments(FragmentsRequest { journal: NAME.to_owned(), ..Default::default() });
    let mut head = fixture.read(at(-1)).await.unwrap();
    let (head, fragments) = futures::join!(within(head.message()), within(fragments));
    for status in [head.unwrap_err(), fragments.unwrap_err()] {
        assert_eq!(status.code(), Code::Unavailable);
        let told = status.message();
        assert!(
            told.contains("what journal a/journal holds is not known yet") && told.contains("file:///two/"),
            "{told}"
        );
    }
    stored.mend_store("two");
    let metadata = within(blocked.message()).await.unwrap().unwrap();
    assert_eq!((metadata.status(), metadata.offset, metadata.write_head), (Status::Ok, 9, 22));
    fixture.stop().await;
}

#[tokio::test]
async fn offsets_between_and_beyond_stored_fragments() {
    let stored = Stored::new();
    stored.put_of(NAME, "one", 100, b"0123456789", 9 * HOUR);
    // 110..120 is missing for long, and 130..140 not for long.
    stored.put_of(NAME, "one", 120, b"0123456789", 7 * HOUR);
    stored.put_of(NAME, "one", 140, b"0123456789", HOUR);
    let mut fixture = stored.listed_broker(SIX_HOURS).await;
    let mod_time_of = |age: u64| i64::try_from(now().as_secs() - age).unwrap();
    let ok = Status::Ok;
    let not_yet = Status::OffsetNotYetAvailable;
    for (what, request, first, bytes, last) in [
        ("the end", at(-1), (not_yet, 150), 0, (not_yet, 150)),
        ("beyond the end", at(999), (not_yet, 999), 0, (not_yet, 999)),
        ("what was pruned", between(0, 110), (ok, 100), 10, (ok, 100)),
        ("within a fragment", between(105, 107), (ok, 105), 2, (ok, 105)),
        ("an old hole", between(110, 130), (ok, 120), 10, (ok, 120)),
        ("an end in an old hole", between(105, 115), (ok, 105), 5, (ok, 120)),
        ("an end within the same hole", between(112, 115), (ok, 120), 0, (ok, 120)),
        ("a young hole", at(130), (not_yet, 130), 0, (not_yet, 130)),
        ("up to a young hole", at(125), (ok, 125), 5, (not_yet, 130)),
        ("only metadata", ReadRequest { metadata_only: true, ..at(0) }, (ok, 100), 0, (ok, 100)),
        (
            "what was modified lately",
            ReadRequest { begin_mod_time: mod_time_of(8 * HOUR), ..between(0, 130) },
            (ok, 120),
            10,
            (ok, 120),
        ),
        (
            "what was modified more lately than anything",
            ReadRequest { begin_mod_time: mod_time_of(0), ..at(140) },
            (not_yet, 150),
            0,
            (not_yet, 150),
        ),
    ] {
        let responses = fixture.read_all(request).await;
        let metadata: Vec<_> = responses.iter().filter(|r| r.content.is_empty()).collect();
        let place = |response: &ReadResponse| (response.status(), response.offset);
        assert_eq!(place(metadata[0]), first, "{what}");
        assert_eq!(place(metadata[metadata.len() - 1]), last, "{what}");
        assert_eq!(responses.iter().map(|r| r.content.len()).sum::<usize>(), bytes, "{what}");
        assert!(metadata.iter().all(|response| response.write_head == 150), "{what}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_get_passes_over_what_is_gone_before_its_beginning_and_ends_at_the_next_hole() {
    let stored = Stored::new();
    stored.put_of(NAME, "one", 100, b"0123456789", 9 * HOUR);
    stored.put_of(NAME, "one", 120, b"0123456789", 7 * HOUR);
    let fixture = stored.listed_broker(SIX_HOURS).await;
    let answer = fixture.http(&format!("/{NAME}?offset=3")).await;
    assert!(answer.starts_with("HTTP/1.1 206"), "{answer}");
    assert!(answer.contains("content-range: bytes 100-9223372036854775807/9223372036854775807"), "{answer}");
    assert!(answer.contains("x-write-head: 130"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n"), "{answer}");
    fixture.stop().await;
}

#[tokio::test]
async fn a_blocked_read_passes_over_a_hole_once_it_is_old_though_nothing_else_happens() {
    let stored = Stored::new();
    stored.put_of(NAME, "one", 0, b"before ", HOUR);
    stored.put_of(NAME, "one", 20, b"after", 1);
    let mut fixture = stored.listed_broker(Duration::from_secs(3)).await;
    let mut read = fixture.read(ReadRequest { block: true, end_offset: 25, ..at(0) }).await.unwrap();
    let mut responses = Vec::new();
    while let Some(response) = within(read.message()).await.unwrap() {
        responses.push(response);
    }
    assert_eq!(content(&responses), b"before after");
    fixture.stop().await;
}

#[tokio::test]
async fn a_damaged_copy_is_told_of_by_name_and_another_is_read_in_its_place() {
    let whole: Vec<u8> = (0..1_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    type Damage = fn(&PathBuf, &[u8]);
    let cut: Damage = |path, whole| std::fs::write(path, &whole[..whole.len() / 2]).unwrap();
    let remove: Damage = |path, _| std::fs::remove_file(path).unwrap();
    let cases: [(&str, &str, usize, Damage); 4] = [
        ("a bit is flipped in a short one", "corrupt", 1000, |p, w| flip_at(p, w, 3)),
        ("a bit is flipped at the end of a long one", "corrupt", whole.len(), |p, w| {
            flip_at(p, w, w.len() - 1)
        }),
        ("it is cut short", "corrupt", whole.len(), cut),
        ("it is removed", "missing", whole.len(), remove),
    ];
    for (what, defect, length, damage) in cases {
        let content_of = &whole[..length];
        let stored = Stored::new();
        let paths = ["one", "two"].map(|store| stored.put(store, 0, content_of));
        let mut fixture = stored.listed_broker(SIX_HOURS).await;
        // The index has one of the two, and it does not matter which: first one is damaged, then the other.
        for (damaged, good) in [(&paths[0], &paths[1]), (&paths[1], &paths[0])] {
            damage(damaged, content_of);
            let (responses, error) = try_read(&mut fixture, between(0, length as i64)).await;
            assert!(error.is_none(), "{what}: {error:?}");
            assert!(content(&responses) == content_of, "{what}");
            std::fs::copy(good, damaged).unwrap();
        }
        assert_eq!(failures(&fixture, defect).await, 1, "{what}");

        // With both of them damaged, the read says so.
        paths.iter().for_each(|path| damage(path, content_of));
        let (_, error) = try_read(&mut fixture, between(0, length as i64)).await;
        let error = error.expect(what);
        let object = paths[0].file_name().unwrap().to_str().unwrap();
        assert!(
            error.message().contains(object) && error.message().contains("no other copy"),
            "{what}: {error}"
        );
        fixture.stop().await;
    }
}

#[tokio::test]
async fn what_others_have_pruned_is_passed_over() {
    let stored = Stored::new();
    let paths: Vec<_> = (0..5).map(|n| stored.put("one", n * 5, b"12345")).collect();
    let mut fixture = stored.listed_broker(SIX_HOURS).await;
    paths[..2].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let responses = fixture.read_all(between(2, 15)).await;
    let offsets: Vec<i64> = responses.iter().map(|response| response.offset).collect();
    // The fragment which was thought to be there, and what there is.
    assert_eq!(offsets, [2, 10, 10], "{responses:?}");
    assert_eq!(content(&responses), b"12345");

    // In the middle of a journal nothing is pruned: what is missing there is lost.
    std::fs::remove_file(&paths[3]).unwrap();
    let (_, error) = try_read(&mut fixture, between(15, 25)).await;
    assert!(error.unwrap().message().contains("no other copy"));
    fixture.stop().await;
}

fn flip_at(path: &PathBuf, whole: &[u8], at: usize) {
    let mut damaged = whole.to_vec();
    damaged[at] ^= 1;
    std::fs::write(path, damaged).unwrap();
}

#[tokio::test]
async fn what_was_sent_of_a_corrupt_copy_is_not_taken_for_right() {
    let whole: Vec<u8> = (0..1_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let stored = Stored::new();
    let path = stored.put("one", 0, &whole);
    let mut fixture = stored.listed_broker(SIX_HOURS).await;
    flip_at(&path, &whole, 10);
    // It appears after the listing, so that the corrupt one is read first.
    stored.put("two", 0, &whole);
    let (responses, error) = try_read(&mut fixture, at(0)).await;
    let error = error.unwrap();
    assert!(error.message().contains("SHA-1") && error.message().contains("may be wrong"), "{error}");
    assert!(content(&responses).len() < whole.len(), "it does not look complete");
    fixture.stop().await;
}

#[tokio::test]
async fn a_damaged_fragment_is_pieced_together_from_the_smaller_ones_that_it_covers() {
    let stored = Stored::new();
    stored.put("one", 0, b"first ");
    stored.put("two", 6, b"second ");
    stored.put("one", 13, b"third");
    let large = stored.put("one", 0, b"first second third");
    let mut fixture = stored.listed_broker(SIX_HOURS).await;
    flip_at(&large, b"first second third", 8);
    let (responses, error) = try_read(&mut fixture, between(0, 18)).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(content(&responses), b"first second third");
    fixture.stop().await;
}

/// The keys that listings of the stores have seen, and the listings.
async fn keys_and_listings(fixture: &Fixture) -> (f64, f64) {
    let metrics = fixture.http("/debug/metrics").await;
    let total = |series: &str| {
        let lines = metrics.lines().filter(|line| line.starts_with(series));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.trim().parse::<f64>().unwrap()).sum()
    };
    (total("gazette_store_list_items_count_sum"), total("gazette_store_list_items_count_count"))
}

#[tokio::test]
async fn a_refresh_sees_what_is_new_and_everything_soon_enough() {
    const FRAGMENTS: i64 = 200;
    let stored = Stored::new();
    let paths: Vec<_> = (0..FRAGMENTS).map(|n| stored.put("one", n * 5, b"12345")).collect();
    let mut fixture = stored.listed_broker(SIX_HOURS).await;
    let span = async |fixture: &mut Fixture| {
        let request = FragmentsRequest { journal: NAME.to_owned(), ..Default::default() };
        let fragments = fixture.fragments(request).await.fragments;
        let spec = |fragment: Option<&proto::protocol::fragments_response::Fragment>| {
            fragment.and_then(|fragment| fragment.spec.clone()).unwrap_or_default()
        };
        (spec(fragments.first()).begin, spec(fragments.last()).end)
    };
    assert_eq!(span(&mut fixture).await, (0, FRAGMENTS * 5));
    let mut spec = spec(NAME);
    spec.fragment.as_mut().unwrap().refresh_interval = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    fixture.apply(vec![upsert(spec, -1)]).await;

    let before = keys_and_listings(&fixture).await;
    for round in 0..3 {
        let end = (FRAGMENTS + round) * 5;
        stored.put("one", end, b"12345");
        eventually("the new fragment is listed", async || {
            (span(&mut fixture).await.1 == end + 5).then_some(())
        })
        .await;
    }
    let after = keys_and_listings(&fixture).await;
    let (keys, listings) = (after.0 - before.0, after.1 - before.1);
    // One of twelve, or two if the machine is slow, is from the beginning.
    assert!(keys < FRAGMENTS as f64 / 2.0 * listings, "{listings} listings saw {keys} keys");

    // What others remove, and what is older than the newest, takes a listing from the beginning.
    std::fs::remove_file(&paths[0]).unwrap();
    eventually("the first fragment has gone", async || (span(&mut fixture).await.0 == 5).then_some(())).await;
    fixture.stop().await;
}

#[tokio::test]
async fn stores_come_and_go_with_the_specification() {
    let stored = Stored::new();
    stored.put("one", 0, b"one ");
    stored.put("two", 4, b"two");
    let mut fixture = stored.listed_broker(SIX_HOURS).await;
    assert_eq!(content(&fixture.read_all(at(0)).await), b"one two");
    for (stores, expected) in [
        (vec!["file:///two/"], &b"two"[..]),
        (vec!["file:///two/", "file:///one/"], b"one two"),
        (vec!["file:///one/"], b"one "),
    ] {
        let mut spec = spec(NAME);
        spec.fragment.as_mut().unwrap().stores = stores.iter().map(|url| (*url).to_owned()).collect();
        fixture.apply(vec![upsert(spec, -1)]).await;
        eventually("the stores of the specification, and no others, are read", async || {
            (content(&fixture.read_all(at(0)).await) == expected).then_some(())
        })
        .await;
    }
    fixture.stop().await;
}

#[tokio::test]
async fn journals_within_the_directory_of_another_keep_their_files() {
    let stored = Stored::new();
    let (outer, inner) = ("logs/all", "logs/all/part-0");
    stored.put_of(outer, "one", 0, b"outer", 60);
    stored.put_of(inner, "one", 0, b"inner, which is longer", 60);
    let root = stored.dir.path().to_owned();
    let adjust = |options: &mut broker::BrokerOptions| options.file_root = Some(root);
    let mut fixture = Fixture::start_in(TempDir::with_prefix("courant-broker-").unwrap(), adjust).await;
    fixture.apply(vec![upsert(spec(outer), 0), upsert(spec(inner), 0)]).await;
    for (name, expected) in [(outer, &b"outer"[..]), (inner, b"inner, which is longer")] {
        assigned(&mut fixture, name).await;
        let request = ReadRequest { journal: name.to_owned(), ..Default::default() };
        let responses = fixture.read_all(request).await;
        assert_eq!(content(&responses), expected, "{name}");
        assert_eq!(responses.last().unwrap().write_head, expected.len() as i64, "{name}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn idle_journals_of_one_directory_share_their_listings() {
    const JOURNALS: usize = 100;
    let stored = Stored::new();
    let root = stored.dir.path().to_owned();
    let adjust = |options: &mut broker::BrokerOptions| options.file_root = Some(root);
    let mut fixture = Fixture::start_in(TempDir::with_prefix("courant-broker-").unwrap(), adjust).await;
    let names: Vec<String> = (0..JOURNALS).map(|n| format!("logs/part-{n:03}")).collect();
    let spec = |name: &String| {
        let mut spec = spec(name);
        let fragment = spec.fragment.as_mut().unwrap();
        fragment.stores.truncate(1);
        fragment.refresh_interval = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        spec
    };
    fixture.apply(names.iter().map(|name| upsert(spec(name), 0)).collect()).await;
    for name in &names {
        assigned(&mut fixture, name).await;
    }
    let listings = async |fixture: &Fixture| {
        let metrics = fixture.http("/debug/metrics").await;
        let is_listing =
            |line: &&str| line.starts_with("gazette_store_operation_total") && line.contains("list");
        let counts = metrics.lines().filter(is_listing).map(|line| line.rsplit_once(' ').unwrap().1);
        counts.map(|count| count.trim().parse::<u64>().unwrap()).sum::<u64>()
    };
    let before = listings(&fixture).await;
    // Four times, each journal learns of what somebody else has stored.
    for round in 0..4 {
        for name in &names {
            stored.put_of(name, "one", round * 5, b"12345", 1);
        }
        for name in &names {
            eventually("the journal's new fragment is listed", async || {
                let request = ReadRequest { journal: name.clone(), offset: -1, ..Default::default() };
                (fixture.read_all(request).await[0].write_head == (round + 1) * 5).then_some(())
            })
            .await;
        }
    }
    let listed = listings(&fixture).await - before;
    assert!((4..40).contains(&listed), "{listed} listings for four refreshes of {JOURNALS} journals");
    fixture.stop().await;
}

/// Objects of the first store that were opened.
async fn opened(fixture: &Fixture) -> u64 {
    let metrics = fixture.http("/debug/metrics").await;
    let series =
        "gazette_store_operation_total{operation=\"get\",status=\"success\",store=\"file:///one/\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(series)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn the_next_fragment_is_opened_before_the_present_one_ends() {
    let stored = Stored::new();
    // More than is in flight between a broker and a reader who has stopped.
    let (first, second) = (vec![b'a'; 7 << 20], vec![b'b'; 3 << 20]);
    stored.put("one", 0, &first);
    let next = stored.put("one", first.len() as i64, &second);
    let mut fixture = stored.listed_broker(SIX_HOURS).await;
    let mut stream = fixture.read(at(0)).await.unwrap();
    within(stream.message()).await.unwrap().unwrap();
    eventually("both are open", async || (opened(&fixture).await == 2).then_some(())).await;
    // It is the opened one which is read.
    std::fs::remove_file(next).unwrap();
    let mut read = Vec::new();
    while read.len() < first.len() + second.len() {
        read.extend(within(stream.message()).await.unwrap().unwrap().content);
    }
    assert!(read == [first, second].concat());
    assert_eq!(opened(&fixture).await, 2);
}

#[tokio::test]
async fn a_read_that_ends_with_a_fragment_opens_no_other() {
    let stored = Stored::new();
    stored.put("one", 0, b"first");
    stored.put("one", 5, b"second");
    let mut fixture = stored.listed_broker(SIX_HOURS).await;
    let (responses, error) = try_read(&mut fixture, between(0, 5)).await;
    assert!(error.is_none() && responses.len() == 2, "{responses:?} {error:?}");
    assert_eq!(opened(&fixture).await, 1);
    let (responses, _) = try_read(&mut fixture, between(2, 8)).await;
    let read: Vec<u8> = responses.into_iter().flat_map(|response| response.content).collect();
    assert_eq!((read.as_slice(), opened(&fixture).await), (&b"rstsec"[..], 3));
}
