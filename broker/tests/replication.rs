//! Journals of several replicas, over brokers that share one etcd (journal protocol §6).

#![allow(clippy::unwrap_used, reason = "tests show what is missing by failing")]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::BrokerOptions;
use proto::protocol::{
    AppendRequest, CompressionCodec, JournalSpec, LabelSelector, LabelSet, ReadRequest, Status,
};
use support::cluster::{Cluster, NAME};
use support::{Fixture, content, delete, eventually, journal, upsert, within};
use tempfile::TempDir;

fn replicated() -> JournalSpec {
    JournalSpec { replication: 3, ..journal(NAME) }
}

#[tokio::test]
async fn every_replica_has_what_was_appended_through_any_broker() {
    let mut cluster = Cluster::start(4).await;
    cluster.at(0).create(replicated()).await;
    let mut expected = Vec::new();
    for index in 0..4 {
        let large = vec![b'a' + u8::try_from(index).unwrap(); 300_000];
        let response = cluster.at(index).append(NAME, &large).await;
        assert_eq!(response.commit.unwrap().begin, i64::try_from(expected.len()).unwrap());
        expected.extend(large);
    }
    cluster.until_replicas_have(&expected).await;
    let read = cluster.at(3).read_all(ReadRequest { journal: NAME.to_owned(), ..Default::default() }).await;
    assert_eq!(content(&read), expected, "by proxy too");

    let mut totals = [0.0; 3];
    for index in 0..4 {
        let metrics = cluster.at(index).http("/debug/metrics").await;
        let names = [
            "courant_append_group_bytes_sum",
            "courant_append_seconds_count",
            "courant_replication_seconds_count",
        ];
        for (total, name) in totals.iter_mut().zip(names) {
            *total += value_of(&metrics, name);
        }
        assert_eq!(value_of(&metrics, "courant_replication_lag_bytes"), 0.0, "all of it was acknowledged");
    }
    let [bytes, appends, groups] = totals;
    assert_eq!((bytes, appends), (1_200_000.0, 4.0), "each is counted once, by its primary");
    assert!(groups >= 4.0, "{groups}");
}

/// The value of a metric without labels.
fn value_of(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in\n{metrics}")).parse().unwrap()
}

#[tokio::test]
async fn a_broker_that_leaves_is_replaced_and_the_journal_and_its_registers_go_on() {
    let mut cluster = Cluster::start(4).await;
    cluster.at(0).create(replicated()).await;
    let request = AppendRequest {
        journal: NAME.to_owned(),
        union_registers: Some(LabelSet::from_pairs([("author", "me")])),
        ..Default::default()
    };
    let response = cluster.at(0).try_append(request.clone(), b"one").await.unwrap();
    assert_eq!(response.status(), Status::Ok);
    let mut expected = b"one".to_vec();
    for round in 0..3 {
        let route = cluster.route().await;
        let primary = &route.members[usize::try_from(route.primary).unwrap()].suffix;
        let leaving: usize = primary.trim_start_matches("broker-").parse().unwrap();
        let dir = cluster.stop(leaving).await;
        let other = (leaving + 1) % 4;
        let text = format!("-{round}");
        cluster.at(other).append(NAME, text.as_bytes()).await;
        expected.extend_from_slice(text.as_bytes());
        cluster.restart(leaving, dir).await;
        let read = eventually("all of it is read", async || {
            let request = ReadRequest { journal: NAME.to_owned(), ..Default::default() };
            let read = content(&cluster.at(other).read_all(request).await);
            (read.len() >= expected.len()).then_some(read)
        })
        .await;
        assert_eq!(read, expected);
    }
    let checked = AppendRequest {
        check_registers: Some(LabelSelector::include([("author", "you")])),
        ..AppendRequest { union_registers: None, ..request }
    };
    let refused = cluster.at(0).try_append(checked, b"x").await.unwrap();
    assert_eq!(refused.status(), Status::RegisterMismatch);
}

#[tokio::test]
async fn all_brokers_come_back_with_everything_that_was_acknowledged() {
    let mut cluster = Cluster::start(4).await;
    cluster.at(0).create(replicated()).await;
    let mut expected = Vec::new();
    for round in 0..3 {
        for index in 0..4 {
            let text = format!("{round}/{index};");
            cluster.at(index).append(NAME, text.as_bytes()).await;
            expected.extend_from_slice(text.as_bytes());
        }
        let dirs = stop_all(&mut cluster).await;
        for (index, dir) in dirs.into_iter().enumerate() {
            cluster.restart(index, dir).await;
        }
        cluster.at(round).append(NAME, b"").await;
        let read =
            cluster.at(3).read_all(ReadRequest { journal: NAME.to_owned(), ..Default::default() }).await;
        assert_eq!(content(&read), expected);
    }
}

#[tokio::test]
async fn a_journal_with_too_few_brokers_waits_for_more() {
    let mut cluster = Cluster::start(2).await;
    cluster.at(0).apply(vec![upsert(replicated(), 0)]).await;
    let request = AppendRequest { journal: NAME.to_owned(), ..Default::default() };
    eventually("the journal has two of three brokers", async || {
        let response = cluster.at(0).try_append(request.clone(), b"x").await.unwrap();
        (response.status() == Status::InsufficientJournalBrokers).then_some(())
    })
    .await;
    let dir = TempDir::with_prefix("courant-broker-").unwrap();
    let third = cluster.broker(2, dir).await;
    cluster.brokers.push(Some(third));
    cluster.at(1).append(NAME, b"x").await;
    cluster.until_replicas_have(b"x").await;
}

#[tokio::test]
async fn a_new_replica_relays_what_only_the_others_have() {
    let mut cluster = Cluster::start(3).await;
    // Nothing is stored, so a new replica gets nothing that was appended before.
    let mut spec = JournalSpec { replication: 2, ..journal(NAME) };
    spec.fragment.as_mut().unwrap().stores.clear();
    cluster.at(0).create(spec).await;
    let mut expected = vec![b'x'; 700_000];
    cluster.at(0).append(NAME, &expected).await;
    let before = cluster.route().await;
    let leaving: usize = before.members[1].suffix.trim_start_matches("broker-").parse().unwrap();
    let _dir = cluster.stop(leaving).await;

    let other = (leaving + 1) % 3;
    cluster.at(other).append(NAME, b"after").await;
    expected.extend_from_slice(b"after");
    let after = cluster.route().await;
    let joined = after.members.iter().find(|id| !before.members.contains(id)).expect("one took its place");
    let joined: usize = joined.suffix.trim_start_matches("broker-").parse().unwrap();

    let read = ReadRequest { journal: NAME.to_owned(), ..Default::default() };
    eventually("it has what came since", async || {
        let own = ReadRequest { do_not_proxy: true, offset: 700_000, ..read.clone() };
        (content(&cluster.at(joined).read_all(own).await) == b"after").then_some(())
    })
    .await;
    for block in [false, true] {
        let end_offset = i64::try_from(expected.len()).unwrap();
        let all = ReadRequest { block, end_offset: if block { end_offset } else { 0 }, ..read.clone() };
        let responses = within(cluster.at(joined).read_all(all)).await;
        assert!(content(&responses) == expected, "the rest is relayed");
        let header = responses[0].header.as_ref().expect("the first response has a header");
        assert_eq!(header.process_id.as_ref().unwrap().suffix, format!("broker-{joined}"));
        assert!(responses[1..].iter().all(|response| response.header.is_none()));
    }
    let metadata = ReadRequest { offset: 5, metadata_only: true, ..read };
    let responses = cluster.at(joined).read_all(metadata).await;
    assert_eq!((responses.len(), responses[0].offset), (1, 5));
}

#[tokio::test]
async fn a_journal_made_again_after_it_was_deleted_begins_anew_on_every_replica() {
    let mut cluster = Cluster::start(3).await;
    cluster.at(0).create(replicated()).await;
    cluster.at(0).append(NAME, b"the former journal").await;
    cluster.at(1).apply(vec![delete(NAME, -1)]).await;
    eventually("the stores forget it too", async || {
        let store = cluster.etcd.dir.path().join("store");
        // What was stored belongs to whoever has the name next, unless it is removed.
        drop(std::fs::remove_dir_all(store.join(NAME)));
        let response = cluster.at(2).try_append(appending(), b"").await.unwrap();
        (response.status() == Status::JournalNotFound).then_some(())
    })
    .await;
    cluster.at(2).create(replicated()).await;
    let response = cluster.at(2).append(NAME, b"new").await;
    assert_eq!(response.commit.unwrap().begin, 0);
    cluster.until_replicas_have(b"new").await;
}

#[tokio::test]
async fn when_all_disks_are_lost_an_operator_says_where_to_go_on_and_the_store_serves_the_rest() {
    let mut cluster = Cluster::start(3).await;
    cluster.at(0).create(replicated()).await;
    cluster.at(0).append(NAME, b"stored").await;
    // Leaving in order stores what there is.
    stop_all(&mut cluster).await;
    forget_floor(&mut cluster).await;

    for index in 0..3 {
        cluster.restart(index, new_dir()).await;
    }
    until_refused(&mut cluster).await;
    let reset = AppendRequest { offset: 6, ..appending() };
    let response = cluster.at(1).try_append(reset, b"").await.unwrap();
    assert_eq!(response.status(), Status::Ok);
    let response = cluster.at(2).append(NAME, b", and more").await;
    assert_eq!(response.commit.unwrap().begin, 6);
    let read = cluster.at(0).read_all(ReadRequest { journal: NAME.to_owned(), ..Default::default() }).await;
    assert_eq!(content(&read), b"stored, and more");
}

#[tokio::test]
async fn replicas_which_refuse_appends_leave_those_that_know_more_as_they_are() {
    let mut cluster = Cluster::start(3).await;
    cluster.at(0).create(replicated()).await;
    cluster.at(0).append(NAME, b"known").await;
    cluster.until_replicas_have(b"known").await;
    // What brokers that are killed now leave on their disks; these here store it, so that others learn of it.
    let killed: Vec<TempDir> = (0..3).map(|index| copy_of(cluster.at(index).dir.path())).collect();
    stop_all(&mut cluster).await;
    forget_floor(&mut cluster).await;
    for index in 0..3 {
        cluster.restart(index, new_dir()).await;
    }
    until_refused(&mut cluster).await;
    stop_all(&mut cluster).await;
    forget_floor(&mut cluster).await;

    for (index, dir) in killed.into_iter().enumerate() {
        cluster.restart(index, dir).await;
    }
    let response = cluster.at(1).append(NAME, b", and more").await;
    assert_eq!(response.commit.unwrap().begin, 5);
    cluster.until_replicas_have(b"known, and more").await;
}

/// Their data directories.
async fn stop_all(cluster: &mut Cluster) -> Vec<TempDir> {
    let running: Vec<Fixture> = cluster.brokers.iter_mut().map(|broker| broker.take().unwrap()).collect();
    within(futures::future::join_all(running.into_iter().map(Fixture::stop))).await
}

fn new_dir() -> TempDir {
    TempDir::with_prefix("courant-broker-").unwrap()
}

/// A copy of all files below `dir`.
fn copy_of(dir: &Path) -> TempDir {
    let copy = new_dir();
    for file in files_below(dir) {
        let to = copy.path().join(&file);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(dir.join(&file), to).unwrap();
    }
    copy
}

/// As after a death of all brokers, although they left in order: no floor is left in the specification.
async fn forget_floor(cluster: &mut Cluster) {
    let mut journal = cluster.etcd.list(LabelSelector::default()).await[0].journals[0].clone();
    journal.spec.as_mut().unwrap().suspend = None;
    cluster.etcd.apply(vec![upsert(journal.spec.unwrap(), journal.mod_revision)]).await;
}

async fn until_refused(cluster: &mut Cluster) {
    eventually("the stored end is known", async || {
        let response = cluster.at(1).try_append(appending(), b"x").await.unwrap();
        (response.status() == Status::IndexHasGreaterOffset).then_some(())
    })
    .await;
}

fn appending() -> AppendRequest {
    AppendRequest { journal: NAME.to_owned(), ..Default::default() }
}

/// Files below `dir`, relative to it.
fn files_below(dir: &std::path::Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(files_below(&entry.path()).into_iter().map(|file| format!("{name}/{file}"))),
            false => files.push(name),
        }
    }
    files.sort();
    files
}

#[tokio::test]
async fn replicas_whose_clocks_differ_store_a_fragment_in_one_place() {
    let mut cluster = Cluster::start_with(3, |index, options| {
        let hours = u64::try_from(index).unwrap();
        options.clock = options.clock.with_skew(std::time::Duration::from_secs(hours * 3600));
        options.paces.replica_upload = std::time::Duration::from_millis(20);
    })
    .await;
    let mut spec = replicated();
    let fragment = spec.fragment.as_mut().unwrap();
    fragment.length = 1024;
    fragment.path_postfix_template = r#"hour={{ .Spool.FirstAppendTime.Format "15" }}"#.to_owned();
    // The replicas look into the store for the name that they would give, and not for what the index tells.
    fragment.refresh_interval = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    cluster.at(0).create(spec).await;
    for _ in 0..4 {
        cluster.at(1).append(NAME, &[b'x'; 1500]).await;
    }
    cluster.at(2).append(NAME, b"end").await;
    for index in 0..3 {
        let spools = cluster.at(index).dir.path().join("data/spools/a%2Fjournal");
        eventually("the replica is done with what is complete", async || {
            (files_below(&spools).len() == 1).then_some(())
        })
        .await;
    }
    let stored = files_below(&cluster.store().join(NAME));
    let hours: Vec<_> = stored.iter().map(|file| file.split('/').next().unwrap()).collect();
    assert_eq!((stored.len(), hours[0].starts_with("hour=")), (4, true), "{stored:?}");
    assert!(hours.iter().all(|hour| *hour == hours[0]), "{stored:?}");
}

/// The one file below `dir` whose name is of a fragment.
fn fragment_file(dir: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?.map(Result::unwrap);
    entries.into_iter().find_map(|entry| match entry.file_type().unwrap().is_dir() {
        true => fragment_file(&entry.path()),
        false => Some(entry.path()).filter(|path| path.extension().is_some_and(|suffix| suffix == "raw")),
    })
}

#[tokio::test]
async fn content_whose_object_is_damaged_is_read_from_the_spool_of_another_replica() {
    let keep_spools =
        |_, options: &mut BrokerOptions| options.paces.replica_upload = Duration::from_secs(3600);
    let mut cluster = Cluster::start_with(3, keep_spools).await;
    let mut spec = replicated();
    let fragment = spec.fragment.as_mut().unwrap();
    (fragment.length, fragment.compression_codec) = (1 << 20, CompressionCodec::None as i32);
    fragment.refresh_interval = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    cluster.at(0).create(spec).await;
    let mut expected: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    cluster.at(0).append(NAME, &expected).await;
    cluster.at(0).append(NAME, b"the next fragment").await;
    expected.extend(b"the next fragment");

    // The primary has stored the first fragment, and has it nowhere else; the others keep their spools.
    let route = cluster.route().await;
    let primary = &route.members[usize::try_from(route.primary).unwrap()].suffix;
    let primary: usize = primary.trim_start_matches("broker-").parse().unwrap();
    let first = ReadRequest { journal: NAME.to_owned(), metadata_only: true, ..Default::default() };
    eventually("the first fragment is stored", async || {
        let first = cluster.at(primary).read_all(first.clone()).await.remove(0);
        first.fragment.filter(|fragment| fragment.mod_time != 0)
    })
    .await;
    let file = fragment_file(&cluster.store()).expect("it is stored");
    let intact = std::fs::read(&file).unwrap();
    let all = ReadRequest { journal: NAME.to_owned(), ..Default::default() };

    // All but the end is sent before the damage is found, and the other copy agrees with it.
    let mut damaged = intact.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    assert!(content(&cluster.at(primary).read_all(all.clone()).await) == expected);
    let metrics = cluster.at(primary).http("/debug/metrics").await;
    assert!(metrics.contains("courant_read_copy_failures_total{defect=\"corrupt\"} 1"), "it is told of");

    // What was sent is wrong: the read says so, and does not go on.
    damaged[0] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    let mut stream = cluster.at(primary).read(all.clone()).await.unwrap();
    let error = loop {
        match within(stream.message()).await {
            Ok(response) => assert!(response.is_some(), "the read ends with an error"),
            Err(error) => break error,
        }
    };
    assert!(error.message().contains("what was sent from offset 0 to"), "{error}");

    // Without the object, it is read from the spool from its beginning.
    std::fs::remove_file(&file).unwrap();
    assert!(content(&cluster.at(primary).read_all(all).await) == expected);
}
