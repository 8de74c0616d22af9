//! The watched list against a broker which does what the test says.

use crate::common::{Fixture, json_labels, soon};
use client::WatchedList;
use client::testing::Fault;
use proto::protocol::{LabelSelector, ListResponse};
use tonic::Code;

fn names(listing: &ListResponse) -> Vec<&str> {
    listing.journals.iter().map(|journal| journal.spec.as_ref().unwrap().name.as_str()).collect()
}

fn topic() -> LabelSelector {
    LabelSelector::include([("content-type", "application/x-ndjson")])
}

#[tokio::test]
async fn it_follows_changes_over_broken_calls() {
    let it = Fixture::start(&["test/1", "test/2", "test/3"]).await;
    let mut list = WatchedList::start(it.client.clone(), topic(), &it.tasks).unwrap();
    assert_eq!(names(&soon(list.ready()).await.unwrap()), ["test/1", "test/2", "test/3"]);
    assert_eq!(list.partitions().len(), 3);
    soon(list.changed()).await.unwrap();

    it.broker.fault_list(Fault::Grpc(Code::Unavailable));
    it.broker.break_streams();
    soon(it.broker.wait_until(|broker| broker.lists().len() == 3)).await;
    assert!(it.broker.lists().iter().all(|request| request.watch_resume.is_none()));

    it.broker.add_journal("test/4", json_labels());
    it.broker.remove_journal("test/1");
    let expected = ["test/2", "test/3", "test/4"];
    let last = soon(list.wait_until(|listing| names(listing) == expected)).await.unwrap();
    assert_eq!(names(&list.current()), names(&last));
}

#[tokio::test]
async fn an_empty_listing_is_a_listing() {
    let it = Fixture::start(&[]).await;
    let list = WatchedList::start(it.client.clone(), topic(), &it.tasks).unwrap();
    assert!(soon(list.ready()).await.unwrap().journals.is_empty());
    it.broker.add_journal("test/1", json_labels());
    soon(list.wait_until(|listing| listing.journals.len() == 1)).await.unwrap();
}

#[tokio::test]
async fn it_ends_with_its_tasks() {
    let it = Fixture::start(&["test/1"]).await;
    let tasks = it.tasks.child("watch");
    let mut list = WatchedList::start(it.client.clone(), topic(), &tasks).unwrap();
    soon(list.changed()).await.unwrap();
    tasks.cancel();
    assert!(soon(list.changed()).await.is_err());
    assert_eq!(list.current().journals.len(), 1, "the last listing stays");
    soon(tasks.join()).await.unwrap();
}

/// The revision of a listing.
fn revision(listing: &ListResponse) -> i64 {
    listing.header.as_ref().unwrap().etcd.as_ref().unwrap().revision
}

#[tokio::test]
async fn a_broker_which_lags_behind_does_not_take_the_listing_back() {
    let it = Fixture::start(&["test/1", "test/2"]).await;
    let mut list = WatchedList::start(it.client.clone(), topic(), &it.tasks).unwrap();
    let first = soon(list.changed()).await.unwrap();
    it.broker.set_revision(1);
    it.broker.remove_journal("test/2");
    it.broker.break_streams();
    soon(it.broker.wait_until(|broker| broker.lists().len() == 2)).await;
    it.broker.set_revision(revision(&first));
    it.broker.add_journal("test/3", json_labels());
    let next = soon(list.changed()).await.unwrap();
    assert_eq!((names(&next), revision(&next)), (vec!["test/1", "test/3"], revision(&first) + 1));
}

#[tokio::test]
async fn a_cluster_which_lost_its_etcd_is_listed_anew() {
    let it = Fixture::start(&["test/1", "test/2", "test/3"]).await;
    let mut list = WatchedList::start(it.client.clone(), topic(), &it.tasks).unwrap();
    let first = soon(list.changed()).await.unwrap();
    it.broker.set_revision(0);
    it.broker.remove_journal("test/2");
    it.broker.break_streams();
    let next = soon(list.changed()).await.unwrap();
    assert_eq!((names(&next), revision(&next)), (vec!["test/1", "test/3"], 1));
    assert!(revision(&first) > 1);
    it.broker.add_journal("test/4", json_labels());
    let next = soon(list.changed()).await.unwrap();
    assert_eq!((names(&next), revision(&next)), (vec!["test/1", "test/3", "test/4"], 2));
}
