//! The append service against a broker which does what the test says.

use crate::common::{Fixture, append_to, soon};
use client::testing::{Fault, Proxy};
use client::{AppendFuture, AppendService, ClientOptions, JournalClient, OpFuture};
use proto::protocol::{AppendRequest, LabelSelector, LabelSet, Status};
use std::io::Write;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tonic::Code;

const A: &str = "test/journal-a";
const B: &str = "test/journal-b";

fn append_with(
    service: &AppendService,
    request: AppendRequest,
    content: &[u8],
    deps: Vec<OpFuture>,
) -> AppendFuture {
    let mut slot = service.start_append(request, deps);
    slot.write_all(content).unwrap();
    slot.release()
}

fn append(service: &AppendService, journal: &str, content: &[u8]) -> AppendFuture {
    append_with(service, append_to(journal), content, vec![])
}

/// Makes the next append wait; the returned permits let it go on.
fn hold(it: &Fixture) -> Arc<Semaphore> {
    let permits = Arc::new(Semaphore::new(0));
    it.broker.fault_append(Fault::Hold(Arc::clone(&permits)));
    permits
}

#[tokio::test]
async fn appends_to_a_journal_are_in_order_and_share_calls() {
    let it = Fixture::start(&[A]).await;
    let permits = hold(&it);
    let first = append(&it.appends, A, b"one,");
    soon(it.broker.wait_until(|broker| broker.pending_faults() == 0)).await;
    let rest: Vec<_> =
        [b"two,".as_slice(), b"three,", b""].iter().map(|content| append(&it.appends, A, content)).collect();
    permits.add_permits(1);
    soon(first).await.unwrap();
    for future in rest {
        soon(future).await.unwrap();
    }
    assert_eq!(it.broker.content(A), b"one,two,three,");
    let sent: Vec<_> = it.broker.appended().iter().map(|append| append.content.clone()).collect();
    assert_eq!(sent, [&b"one,"[..], b"two,three,"], "the second call carries what came meanwhile");
}

#[tokio::test]
async fn responses_are_shared_by_a_batch_and_barriers_commit_nothing() {
    let it = Fixture::start(&[A]).await;
    let committed = soon(append(&it.appends, A, b"content")).await.unwrap();
    let commit = committed.commit.as_ref().unwrap();
    assert_eq!((commit.begin, commit.end), (0, 7));
    let barrier = soon(append(&it.appends, A, b"")).await.unwrap();
    let commit = barrier.commit.as_ref().unwrap();
    assert_eq!((commit.begin, commit.end), (7, 7));
}

#[tokio::test]
async fn what_is_taken_back_is_not_appended() {
    let it = Fixture::start(&[A]).await;
    append_with(&it.appends, append_to(A), b"kept,", vec![]);
    let mut slot = it.appends.start_append(append_to(A), vec![]);
    slot.write_all(&vec![b'x'; 2 << 20]).unwrap();
    assert_eq!(slot.len(), 2 << 20);
    slot.rollback();
    drop(it.appends.start_append(append_to(A), vec![]));
    let mut slot = it.appends.start_append(append_to(A), vec![]);
    assert!(
        slot.write_with(|out| -> Result<(), ()> {
            out.push(b'y');
            Err(())
        })
        .is_err()
    );
    slot.write_with(|out| -> Result<(), ()> {
        out.push(b'z');
        Ok(())
    })
    .unwrap();
    soon(slot.release()).await.unwrap();
    assert_eq!(it.broker.content(A), b"kept,z");
    assert_eq!(it.appends.buffered_bytes(), 0);
}

#[tokio::test]
async fn unlike_requests_do_not_share_a_call() {
    let it = Fixture::start(&[A]).await;
    let union = Some(LabelSet::from_pairs([("author", "me")]));
    let permits = hold(&it);
    let futures = [
        append(&it.appends, A, b"plain"),
        append_with(&it.appends, AppendRequest { union_registers: union, ..append_to(A) }, b"union", vec![]),
        append_with(&it.appends, append_to(&format!("{A};meta")), b"meta", vec![]),
    ];
    permits.add_permits(1);
    for future in futures {
        soon(future).await.unwrap();
    }
    let sent: Vec<_> = it.broker.appended().iter().map(|append| append.content.clone()).collect();
    assert_eq!(sent, [&b"plain"[..], b"union", b"meta"]);
}

#[tokio::test]
async fn large_content_is_sent_in_small_messages_and_read_back_from_the_spill_file() {
    let it = Fixture::start(&[A]).await;
    let permits = hold(&it);
    let block: Vec<u8> = (0..1u32 << 18).flat_map(|n| n.to_le_bytes()).collect();
    let futures: Vec<_> = (0..40).map(|_| append(&it.appends, A, &block)).collect();
    assert!(it.appends.buffered_bytes() >= 39 << 20);
    permits.add_permits(1);
    for future in futures {
        soon(future).await.unwrap();
    }
    assert!(it.broker.content(A) == block.repeat(40), "content differs");
    for append in it.broker.appended() {
        assert!(append.content.len() <= append.chunks << 20, "a message of more than 1 MiB");
    }
    assert_eq!(it.appends.buffered_bytes(), 0);
}

#[tokio::test]
async fn an_append_waits_for_its_dependencies() {
    let it = Fixture::start(&[A, B]).await;
    let (promise, dep) = OpFuture::pair();
    let waiting = append_with(&it.appends, append_to(A), b"later", vec![dep.clone()]);
    let behind = append_with(&it.appends, append_to(A), b",behind", vec![]);
    soon(append(&it.appends, B, b"now")).await.unwrap();
    assert!(waiting.try_result().is_none());
    assert!(it.broker.content(A).is_empty());

    promise.resolve(Ok(()));
    soon(waiting).await.unwrap();
    soon(behind).await.unwrap();
    assert_eq!(it.broker.content(A), b"later,behind");
    assert_eq!(it.broker.appended().len(), 2, "fewer dependencies join, so one call");
}

#[tokio::test]
async fn a_failed_dependency_fails_the_journal_for_good() {
    let it = Fixture::start(&[A, B]).await;
    let (promise, dep) = OpFuture::pair();
    let waiting = append_with(&it.appends, append_to(A), b"never", vec![dep]);
    let behind = append(&it.appends, A, b"neither");
    drop(promise);
    let error = soon(waiting).await.unwrap_err();
    assert_eq!(error.to_string(), "dependency failed: operation was abandoned");
    assert!(soon(behind).await.is_err());
    assert!(soon(append(&it.appends, A, b"nor this")).await.is_err());
    assert!(it.broker.appended().is_empty());

    let failed: Vec<_> = it.appends.pending_except(B).into_iter().map(|op| op.try_result()).collect();
    assert!(matches!(failed[..], [Some(Err(_))]), "{failed:?}");
    assert!(it.appends.pending_except(A).is_empty());
    soon(append(&it.appends, B, b"other journals go on")).await.unwrap();
}

#[tokio::test]
async fn pending_appends_are_those_of_other_journals() {
    let it = Fixture::start(&[A, B]).await;
    let permits = hold(&it);
    let first = append(&it.appends, A, b"held");
    assert_eq!(it.appends.pending_except(B), [first.op()]);
    assert_eq!(it.appends.pending_except(""), [first.op()]);
    assert!(it.appends.pending_except(&format!("{A};meta")).is_empty());
    let unreleased = it.appends.start_append(append_to(B), vec![]);
    assert!(it.appends.pending_except(A).is_empty(), "what is not released is not pending");
    drop(unreleased);
    permits.add_permits(1);
    soon(first).await.unwrap();
    assert!(it.appends.pending_except("").is_empty());
}

#[tokio::test]
async fn failures_which_pass_are_waited_out() {
    let it = Fixture::start(&[A]).await;
    it.broker.fault_append(Fault::Grpc(Code::Unavailable));
    it.broker.fault_append(Fault::Status(Status::InsufficientJournalBrokers));
    it.broker.fault_append(Fault::Grpc(Code::Unknown));
    it.broker.fault_append(Fault::Status(Status::Suspended));
    soon(append(&it.appends, A, b"content")).await.unwrap();
    assert_eq!(it.broker.content(A), b"content");
}

#[tokio::test]
async fn an_append_of_unknown_outcome_is_repeated_so_content_is_appended_at_least_once() {
    let it = Fixture::start(&[A]).await;
    it.broker.fault_append(Fault::GrpcAfterEffect(Code::Unavailable));
    let first = append(&it.appends, A, b"one,");
    let response = soon(first).await.unwrap();
    soon(append(&it.appends, A, b"two,")).await.unwrap();
    assert_eq!(it.broker.content(A), b"one,one,two,");
    assert_eq!(response.commit.as_ref().unwrap().begin, 4);
}

#[tokio::test]
async fn a_fatal_status_fails_the_journal() {
    let it = Fixture::start(&[A]).await;
    let error = soon(append(&it.appends, B, b"no such journal")).await.unwrap_err();
    assert_eq!(error.status(), Some(Status::JournalNotFound));
    assert_eq!(error.to_string(), "test/journal-b: JOURNAL_NOT_FOUND");
    let again = soon(append(&it.appends, B, b"x")).await.unwrap_err();
    assert_eq!(again.status(), Some(Status::JournalNotFound));
    let invalid = AppendRequest { offset: -1, ..append_to(A) };
    assert!(
        soon(append_with(&it.appends, invalid, b"x", vec![]))
            .await
            .unwrap_err()
            .to_string()
            .contains("Offset")
    );
}

#[tokio::test]
async fn a_fenced_writer_fails_at_once() {
    let it = Fixture::start(&[A]).await;
    it.broker.set_registers(A, LabelSet::from_pairs([("author", "new")]));
    let checking = |author: &str| AppendRequest {
        check_registers: Some(LabelSelector::include([("author", author)])),
        ..append_to(A)
    };
    it.broker.fault_append(Fault::Status(Status::FragmentStoreUnhealthy));
    soon(append_with(&it.appends, checking("new"), b"owned", vec![])).await.unwrap();
    let error = soon(append_with(&it.appends, checking("old"), b"stolen", vec![])).await.unwrap_err();
    assert!(error.is_fenced(), "{error}");
    assert_eq!(error.to_string(), "test/journal-a: REGISTER_MISMATCH (registers author=new)");
    assert_eq!(it.broker.content(A), b"owned");
}

#[tokio::test]
async fn a_connection_which_breaks_is_made_again() {
    let it = Fixture::start(&[A]).await;
    let mut proxy = Proxy::start(it.broker.endpoint(), &it.tasks).await.unwrap();
    let client = JournalClient::new(proxy.endpoint(), ClientOptions::new(it.tasks.clone())).unwrap();
    let appends = AppendService::new(client, it.tasks.child("proxied"));

    let permits = hold(&it);
    let held = append(&appends, A, b"content");
    soon(it.broker.wait_until(|broker| broker.pending_faults() == 0)).await;
    proxy.cut().await.unwrap();
    let unreachable = append(&appends, A, b",more");
    proxy.restore().await.unwrap();
    soon(held).await.unwrap();
    soon(unreachable).await.unwrap();
    assert_eq!(it.broker.content(A), b"content,more");
    drop(permits);
}

#[tokio::test]
async fn cancelled_tasks_fail_what_is_not_committed() {
    let it = Fixture::start(&[A]).await;
    let tasks = it.tasks.child("doomed");
    let appends = AppendService::new(it.client.clone(), tasks.clone());
    let _permits = hold(&it);
    let (sent, queued) = (append(&appends, A, b"one"), append(&appends, A, b"two"));
    tasks.cancel();
    assert!(soon(sent).await.unwrap_err().is_cancelled());
    assert!(soon(queued).await.unwrap_err().is_cancelled());
    assert!(soon(append(&appends, A, b"three")).await.unwrap_err().is_cancelled());
    soon(tasks.join()).await.unwrap();
}

#[test]
fn nobody_waits_for_a_runtime_which_ended() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (appends, held) = runtime.block_on(async {
        let it = Fixture::start(&[A]).await;
        let _permits = hold(&it);
        let held = append(&it.appends, A, b"content");
        (it.appends, held)
    });
    runtime.shutdown_background();
    assert!(held.wait_blocking().unwrap_err().is_cancelled());
    assert!(append(&appends, B, b"x").wait_blocking().unwrap_err().is_cancelled());
}

#[test]
fn threads_which_run_no_async_code_may_append_and_wait() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let it = runtime.block_on(Fixture::start(&[A]));
    let writers: Vec<_> = (0..4u8)
        .map(|writer| {
            let appends = it.appends.clone();
            std::thread::spawn(move || {
                let futures: Vec<_> = (0..100u8).map(|n| append(&appends, A, &[writer, n])).collect();
                futures.into_iter().for_each(|future| drop(future.wait_blocking().unwrap()));
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let content = it.broker.content(A);
    assert_eq!(content.len(), 4 * 100 * 2);
    for writer in 0..4u8 {
        let numbers = content.chunks(2).filter(|pair| pair[0] == writer).map(|pair| pair[1]);
        assert!(numbers.eq(0..100), "appends of a thread are in order");
    }
}
