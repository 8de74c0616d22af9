//! Read over a real connection (journal protocol §8).

mod support;

use proto::protocol::{CompressionCodec, FragmentsRequest, ReadRequest, ReadResponse, Status, journal_spec};
use support::{Fixture, content, delete, eventually, journal, upsert, within};
use tonic::Code;

const NAME: &str = "a/journal";

fn at(offset: i64) -> ReadRequest {
    ReadRequest { journal: NAME.to_owned(), offset, ..Default::default() }
}

fn last(responses: &[ReadResponse]) -> (Status, i64, i64) {
    let last = responses.last().expect("a read has a response");
    (last.status(), last.offset, last.write_head)
}

#[tokio::test]
async fn a_read_returns_what_was_appended_and_then_says_not_yet() {
    let mut fixture = Fixture::start().await;
    fixture.create(journal(NAME)).await;
    let committed = fixture.append(NAME, b"hello, ").await.commit.unwrap();
    assert_eq!((committed.begin, committed.end), (0, 7));
    fixture.append(NAME, b"world").await;

    let responses = fixture.read_all(ReadRequest { journal: format!("{NAME};meta/data"), ..at(0) }).await;
    assert_eq!(content(&responses), b"hello, world");
    assert_eq!(last(&responses), (Status::OffsetNotYetAvailable, 12, 12));
    let header = responses[0].header.as_ref().unwrap();
    assert_eq!(header.process_id, Some(fixture.broker.id().to_proto()));
    assert_eq!(header.route.as_ref().unwrap().primary, 0);
    assert!(responses[1..].iter().all(|r| r.header.is_none()));
    assert_eq!(responses[0].fragment.as_ref().unwrap().journal, NAME);

    assert_eq!(last(&fixture.read_all(at(-1)).await), (Status::OffsetNotYetAvailable, 12, 12));
    assert_eq!(content(&fixture.read_all(at(7)).await), b"world");
    let bounded = fixture.read_all(ReadRequest { end_offset: 9, ..at(5) }).await;
    assert_eq!(content(&bounded), b", wo");
    assert_eq!(last(&bounded).0, Status::Ok);
    let metadata = fixture.read_all(ReadRequest { metadata_only: true, ..at(3) }).await;
    assert_eq!((metadata.len(), metadata[0].offset, metadata[0].write_head), (1, 3, 12));
    fixture.stop().await;
}

#[tokio::test]
async fn a_blocked_read_wakes_with_each_append_and_ends_cleanly_with_its_journal() {
    let mut fixture = Fixture::start().await;
    fixture.create(journal(NAME)).await;
    let mut tail = fixture.read(ReadRequest { block: true, ..at(-1) }).await.unwrap();
    let mut expected = 0;
    for word in ["one", "three", "five5"] {
        fixture.append(NAME, word.as_bytes()).await;
        let metadata = within(tail.message()).await.unwrap().unwrap();
        assert_eq!((metadata.status(), metadata.offset), (Status::Ok, expected));
        let chunk = within(tail.message()).await.unwrap().unwrap();
        assert_eq!((chunk.offset, &chunk.content[..]), (expected, word.as_bytes()));
        expected += word.len() as i64;
    }
    fixture.apply(vec![delete(NAME, -1)]).await;
    assert!(within(tail.message()).await.unwrap().is_none());
    fixture.stop().await;
}

#[tokio::test]
async fn a_stopping_broker_ends_blocked_reads_cleanly_and_at_once() {
    let mut fixture = Fixture::start().await;
    fixture.create(journal(NAME)).await;
    let mut tail = fixture.read(ReadRequest { block: true, ..at(-1) }).await.unwrap();
    fixture.stop().await;
    assert!(within(tail.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_read_goes_on_from_stored_fragments_into_the_spool() {
    let mut fixture = Fixture::start().await;
    let mut expected = Vec::new();
    for codec in [
        CompressionCodec::None,
        CompressionCodec::Gzip,
        CompressionCodec::Zstandard,
        CompressionCodec::Snappy,
    ] {
        let name = format!("codec/{}", codec.as_str_name().to_lowercase());
        let mut spec = journal(&name);
        let fragment = spec.fragment.as_mut().unwrap();
        *fragment =
            journal_spec::Fragment { length: 1 << 16, compression_codec: codec as i32, ..fragment.clone() };
        fixture.create(spec).await;
        expected.clear();
        for round in 0..20u32 {
            let block: Vec<u8> = (0..20_000u32).map(|i| ((i * 7 + round * 13) % 251) as u8).collect();
            fixture.append(&name, &block).await;
            expected.extend_from_slice(&block);
        }
        // The first fragment is stored, and the last one is not complete.
        let request = FragmentsRequest { journal: name.clone(), ..Default::default() };
        eventually("the first fragment is stored", async || {
            let listed = fixture.fragments(request.clone()).await.fragments;
            let first = listed[0].spec.as_ref().unwrap();
            (first.mod_time != 0 && !first.backing_store.is_empty()).then_some(())
        })
        .await;
        let responses = fixture.read_all(ReadRequest { journal: name.clone(), ..Default::default() }).await;
        assert!(content(&responses) == expected, "{name}");
        let stored = responses.iter().find(|r| !r.fragment_url.is_empty()).unwrap();
        assert!(stored.fragment_url.starts_with("file:///codec/"), "{}", stored.fragment_url);

        // From the middle of a stored fragment; and as metadata for a client which fetches it itself.
        let middle = fixture
            .read_all(ReadRequest { journal: name.clone(), offset: 30_001, ..Default::default() })
            .await;
        assert!(content(&middle) == expected[30_001..]);
        let request =
            ReadRequest { journal: name.clone(), offset: 1, do_not_proxy: true, ..Default::default() };
        let direct = fixture.read_all(request).await;
        assert_eq!((direct.len(), direct[0].fragment_url.is_empty()), (1, false));
    }
    fixture.stop().await;
}

#[tokio::test]
async fn large_content_comes_in_bounded_chunks() {
    let mut fixture = Fixture::start().await;
    let mut spec = journal(NAME);
    spec.fragment.as_mut().unwrap().length = 1 << 30;
    fixture.create(spec).await;
    let block: Vec<u8> = (0..3_000_000u32).map(|i| (i % 249) as u8).collect();
    fixture.append(NAME, &block).await;
    let responses = fixture.read_all(at(0)).await;
    assert!(content(&responses) == block);
    assert!(responses.iter().all(|r| r.content.len() <= 256 << 10));
    fixture.stop().await;
}

#[tokio::test]
async fn reads_that_cannot_go_on_say_why() {
    let mut fixture = Fixture::start().await;
    let mut write_only = journal("write/only");
    write_only.flags = journal_spec::Flag::OWronly as u32;
    fixture.create(write_only).await;
    let mut suspended = journal("sus/pended");
    suspended.suspend = Some(journal_spec::Suspend { level: 2, offset: 0 });
    let mut replicated = journal("repli/cated");
    replicated.replication = 3;
    fixture.apply(vec![upsert(suspended, 0), upsert(replicated, 0)]).await;
    for (name, expected) in [
        ("not/here", Status::JournalNotFound),
        ("write/only", Status::NotAllowed),
        ("sus/pended", Status::Suspended),
    ] {
        let request = ReadRequest { journal: name.to_owned(), ..Default::default() };
        let responses = fixture.read_all(request).await;
        assert_eq!((responses.len(), last(&responses).0), (1, expected));
        assert_eq!(responses[0].header.as_ref().unwrap().process_id, Some(fixture.broker.id().to_proto()));
        let fragments = FragmentsRequest { journal: name.to_owned(), ..Default::default() };
        assert_eq!(fixture.fragments(fragments).await.status(), expected);
    }
    for (request, expected) in [
        (
            ReadRequest { journal: "/invalid/name".to_owned(), ..at(0) },
            "Journal: cannot begin with '/' (/invalid/name)",
        ),
        (at(-2), "invalid Offset (-2; expected -1 <= Offset <= MaxInt64)"),
    ] {
        let error = fixture.read(request).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Unknown, expected));
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_journal_created_anew_has_nothing_of_the_one_before() {
    let mut fixture = Fixture::start().await;
    let mut spec = journal(NAME);
    spec.fragment.as_mut().unwrap().stores.clear();
    fixture.create(spec.clone()).await;
    fixture.append(NAME, b"of the first").await;
    let mut tail = fixture.read(ReadRequest { block: true, ..at(12) }).await.unwrap();
    fixture.apply(vec![delete(NAME, -1)]).await;
    fixture.apply(vec![upsert(spec, 0)]).await;
    assert!(within(tail.message()).await.unwrap().is_none());
    let committed = fixture.append(NAME, b"second").await.commit.unwrap();
    assert_eq!((committed.begin, committed.end), (0, 6));
    assert_eq!(content(&fixture.read_all(at(0)).await), b"second");
    fixture.stop().await;
}
