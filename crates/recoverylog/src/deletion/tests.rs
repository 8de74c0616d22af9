use std::path::Path;

use fragment::compress::Levels;
use runtime::{Clock, Entropy, Metrics, TaskGroup};
use stores::{Environment, StoreTimes, StoresConfig};
use tempfile::TempDir;

use super::*;
use crate::testing::journal;

/// Two file stores, each with fragments of 100 bytes of a log, up to these ends.
fn stores_with(ends: [i64; 2]) -> (TempDir, Stores, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    for (store, end) in ["one", "two"].iter().zip(ends) {
        let log = dir.path().join(store).join("a/log");
        std::fs::create_dir_all(&log).unwrap();
        for begin in (0..end).step_by(100) {
            let name = format!("{begin:016x}-{:016x}-{}.raw", begin + 100, "0".repeat(39) + "1");
            std::fs::write(log.join(name), vec![0; 100]).unwrap();
        }
    }
    let tasks = TaskGroup::new("test");
    tasks.cancel(); // No health checks.
    let stores = Stores::new(StoresConfig {
        file_root: Some(dir.path().to_owned()),
        default_root: None,
        file_only: false,
        environment: Environment::default(),
        levels: Levels::default(),
        times: StoreTimes::default(),
        clock: Clock::system(),
        entropy: Entropy::system(),
        tasks,
        metrics: Metrics::new(),
    });
    (dir, stores, vec!["file:///one/".to_owned(), "file:///two/".to_owned()])
}

/// Begins of the fragments that a store has.
fn begins(dir: &Path, store: &str) -> Vec<i64> {
    let files = std::fs::read_dir(dir.join(store).join("a/log")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut begins: Vec<_> = names.map(|name| i64::from_str_radix(&name[..16], 16).unwrap()).collect();
    begins.sort();
    begins
}

/// Deletes what begins below `below`, and gives what `each` was told.
async fn delete(
    stores: &Stores,
    urls: &[String],
    mode: Mode,
    below: i64,
) -> (Deleted, Vec<StoreError>, Vec<i64>) {
    let mut told = Vec::new();
    let needs = |fragment: &Fragment| fragment.begin >= below;
    let each = |fragment: &Fragment| told.push(fragment.begin);
    let (deleted, errors) = delete_unneeded(stores, &journal("a/log"), urls, mode, needs, each).await;
    (deleted, errors, told)
}

#[tokio::test]
async fn every_copy_of_what_is_not_needed_goes() {
    let (dir, stores, urls) = stores_with([400, 300]);
    let expected = Deleted { listed: 7, listed_bytes: 700, deleted: 4, deleted_bytes: 400 };
    let (deleted, errors, told) = delete(&stores, &urls, Mode::DryRun, 200).await;
    assert_eq!((deleted, errors.len(), told), (expected, 0, vec![0, 0, 100, 100]));
    assert_eq!(begins(dir.path(), "one").len() + begins(dir.path(), "two").len(), 7);

    let (deleted, errors, told) = delete(&stores, &urls, Mode::Delete, 200).await;
    assert_eq!((deleted, errors.len(), told), (expected, 0, vec![0, 0, 100, 100]));
    assert_eq!((begins(dir.path(), "one"), begins(dir.path(), "two")), (vec![200, 300], vec![200]));
    let (deleted, ..) = delete(&stores, &urls, Mode::Delete, 200).await;
    assert_eq!(deleted, Deleted { listed: 3, listed_bytes: 300, ..Deleted::default() });
}

#[tokio::test]
async fn the_last_fragment_stays() {
    let (dir, stores, urls) = stores_with([400, 300]);
    let (deleted, ..) = delete(&stores, &urls, Mode::Delete, 1000).await;
    assert_eq!((deleted.listed, deleted.deleted), (7, 6));
    assert_eq!((begins(dir.path(), "one"), begins(dir.path(), "two")), (vec![300], vec![]));
}

#[tokio::test]
async fn a_store_which_fails_does_not_hold_up_the_other() {
    let (dir, stores, mut urls) = stores_with([400, 300]);
    urls.insert(0, "file:///missing/".to_owned());
    let (deleted, errors, _) = delete(&stores, &urls, Mode::Delete, 200).await;
    assert_eq!((deleted.deleted, errors.len()), (4, 1));
    assert!(errors[0].is_auth() && errors[0].to_string().contains("missing"), "{}", errors[0]);
    assert_eq!((begins(dir.path(), "one"), begins(dir.path(), "two")), (vec![200, 300], vec![200]));
}
