//! What happens when a store misbehaves. Time is paused: waits take none.

use std::sync::atomic::Ordering;

use super::memory::{Faults, store, store_with_tasks};
use super::*;

fn fragment() -> Fragment {
    fragment_of("a/journal", 0, Codec::Snappy, b"content")
}

fn fail_next(faults: &Faults, requests: usize) {
    faults.failures.store(requests, Ordering::SeqCst);
}

/// Waits until the store's health is as `wanted` says.
async fn health(store: &Store, wanted: impl Fn(&Health) -> bool) -> Health {
    store.health().wait_for(|health| wanted(health)).await.unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn passing_failures_are_retried() {
    let faults = Faults::default();
    let store = store(faults.clone());
    health(&store, |health| *health == Health::Healthy).await;
    let waits = RETRY_WAITS.len();

    fail_next(&faults, waits);
    store.put(&fragment(), source(b"content")).await.unwrap();
    fail_next(&faults, waits);
    assert!(store.exists(&fragment()).await.unwrap());
    fail_next(&faults, waits);
    assert_eq!(read(&store, &fragment(), 0).await.unwrap(), b"content");
    fail_next(&faults, waits);
    store.remove(&fragment()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lasting_failures_are_errors_and_make_the_store_unhealthy() {
    let faults = Faults::default();
    let store = store(faults.clone());
    health(&store, |health| *health == Health::Healthy).await;

    fail_next(&faults, usize::MAX);
    let started = store.shared.clock.now();
    let error = store.put(&fragment(), source(b"content")).await.unwrap_err();
    assert!(error.is_retryable() && !error.is_auth(), "{error}");
    assert!(error.to_string().ends_with("Generic Memory error: connection reset"), "{error}");
    let unhealthy = health(&store, |health| *health != Health::Healthy).await;
    assert!(store.shared.clock.now() - started < HEALTHY_CHECK_IS_FAR_AWAY, "the failure prompts a check");
    let text = unhealthy.result().unwrap_err().to_owned();
    assert!(text.starts_with("health check PUT failed: ") && text.contains("connection reset"), "{text}");

    // The fault is over: an operation which succeeds, or the next check, finds out.
    fail_next(&faults, 0);
    store.put(&fragment(), source(b"content")).await.unwrap();
    health(&store, |health| *health == Health::Healthy).await;
    assert!(store.shared.clock.now() - started < HEALTHY_CHECK_IS_FAR_AWAY);
}

const HEALTHY_CHECK_IS_FAR_AWAY: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn missing_objects_do_not_prompt_checks() {
    let faults = Faults::default();
    let store = store(faults.clone());
    health(&store, |health| *health == Health::Healthy).await;
    let before = faults.requests.lock().unwrap().len();
    for _ in 0..10 {
        assert!(read(&store, &fragment(), 0).await.unwrap_err().is_not_found());
    }
    store.shared.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(faults.requests.lock().unwrap()[before..], ["get"; 10]);
}

#[tokio::test(start_paused = true)]
async fn a_store_which_does_not_answer_times_out() {
    let faults = Faults::default();
    let store = store(faults.clone());
    health(&store, |health| *health == Health::Healthy).await;
    faults.hangs.store(true, Ordering::SeqCst);
    let error = store.exists(&fragment()).await.unwrap_err();
    assert!(error.to_string().ends_with("no answer within 30s") && error.is_retryable(), "{error}");
    let error = store.list(&fragment().journal).await.unwrap_err();
    assert!(matches!(error, StoreError::TimedOut { .. }), "{error}");
    let unhealthy = health(&store, |health| *health != Health::Healthy).await;
    assert_eq!(unhealthy.result(), Err("health check PUT failed: deadline exceeded"));
    assert_eq!(store.probe_delete("").await, Err("delete-probe PUT failed: deadline exceeded".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_upload_which_does_not_read_back_is_removed() {
    let faults = Faults::default();
    let store = store(faults.clone());
    health(&store, |health| *health == Health::Healthy).await;
    faults.corrupts.store(true, Ordering::SeqCst);
    let error = store.put(&fragment(), source(b"content")).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(!store.exists(&fragment()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn health_checks_compare_what_they_read() {
    let faults = Faults::default();
    faults.corrupts.store(true, Ordering::SeqCst);
    let store = store(faults.clone());
    assert_eq!(store.health().borrow().result(), Err("first health check hasn't completed yet"));
    let expected = "health check content mismatch: got \"health-check\\u{b}\", want \"health-check\\n\"";
    assert_eq!(store.checked_health().await.result(), Err(expected));
}

#[tokio::test(start_paused = true)]
async fn failed_checks_are_repeated_by_the_schedule() {
    let faults = Faults::default();
    fail_next(&faults, usize::MAX);
    let store = store(faults.clone());
    let started = store.shared.clock.now();
    store.shared.clock.sleep(Duration::from_secs(15)).await;
    // At 0, 0, 0.1, 1.1 and 2.1 seconds, then after ten more, each wait a fifth longer or shorter.
    let checks = faults.requests.lock().unwrap().len();
    assert!((6..=7).contains(&checks), "{checks} after {:?}", store.shared.clock.now() - started);
    fail_next(&faults, 0);
    health(&store, |health| *health == Health::Healthy).await;
    assert!(store.shared.clock.now() - started < Duration::from_secs(150));
}

#[tokio::test(start_paused = true)]
async fn checks_stop_with_the_store_and_with_the_process() {
    for drops in [true, false] {
        let tasks = TaskGroup::new("test");
        let store = store_with_tasks(Faults::default(), tasks.clone());
        let mut known = store.health();
        known.wait_for(|health| *health == Health::Healthy).await.unwrap();
        let kept = if drops {
            drop(store);
            None
        } else {
            tasks.cancel();
            Some(store)
        };
        known.changed().await.unwrap();
        assert_eq!(known.borrow().result(), Err("health checks have stopped"));
        tasks.join().await.unwrap();
        drop(kept);
    }
}
