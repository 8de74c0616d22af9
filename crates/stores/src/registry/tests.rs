use super::*;
use crate::Health;

fn config(file_root: Option<&Path>, default_root: Option<&Path>) -> StoresConfig {
    StoresConfig {
        file_root: file_root.map(Path::to_owned),
        default_root: default_root.map(Path::to_owned),
        file_only: false,
        environment: Environment::default(),
        levels: Levels::default(),
        times: StoreTimes::default(),
        clock: Clock::system(),
        entropy: Entropy::seeded(7),
        tasks: TaskGroup::new("test"),
        metrics: Metrics::new(),
    }
}

#[tokio::test]
async fn file_stores_need_their_directory() {
    let root = tempfile::tempdir().unwrap();
    let stores = Stores::new(config(Some(root.path()), None));
    let error = stores.get("file:///sub/").unwrap_err();
    assert!(error.is_auth() && !error.is_retryable());
    let directory = root.path().join("sub/");
    let expected = format!("invalid file store directory {directory:?} (fragment store \"file:///sub/\"): ");
    assert!(error.to_string().starts_with(&expected), "{error}");
    // The failure is not remembered.
    fs::create_dir(&directory).unwrap();
    assert_eq!(&**stores.get("file:///sub/").unwrap().url(), "file:///sub/");
    fs::write(root.path().join("file"), "").unwrap();
    let error = stores.get("file:///file/").unwrap_err().to_string();
    assert!(error.to_lowercase().contains("not a directory"), "{error}");

    let without_root = Stores::new(config(None, None)).get("file:///").unwrap_err();
    assert!(
        without_root.to_string().ends_with("file stores need a root (--broker.file-root)"),
        "{without_root}"
    );
}

#[tokio::test]
async fn directories_below_the_default_root_are_made() {
    let root = tempfile::tempdir().unwrap();
    let stores = Stores::new(config(None, Some(&root.path().join("fragments"))));
    let store = stores.get("file:///some/where/").unwrap();
    assert_eq!(store.checked_health().await, Health::Healthy);
    assert!(root.path().join("fragments/some/where/.test/health-check").is_file());
}

#[tokio::test]
async fn file_only_maps_every_scheme_to_the_root() {
    let root = tempfile::tempdir().unwrap();
    let stores = Stores::new(StoresConfig { file_only: true, ..config(Some(root.path()), None) });
    let store = stores.get("s3://bucket/prefix/?profile=x").unwrap();
    assert_eq!(&**store.url(), "s3://bucket/prefix/?profile=x");
    assert_eq!(store.checked_health().await, Health::Healthy);
    assert!(root.path().join(".test/health-check").is_file());

    let error = Stores::new(config(Some(root.path()), None)).get("gs://bucket/").unwrap_err();
    assert!(matches!(error, StoreError::Setup { .. }), "{error}");
}

#[tokio::test]
async fn a_directory_beyond_the_file_root_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
    let stores = Stores::new(config(Some(root.path()), None));
    let error = stores.get("file:///out/").unwrap_err();
    assert!(error.to_string().contains("is outside of the file root"), "{error}");
    assert!(stores.get("file:///../").is_err());
    assert!(stores.get("file:///%2e%2e/").is_err());
}

#[tokio::test(start_paused = true)]
async fn unused_stores_are_swept() {
    let root = tempfile::tempdir().unwrap();
    let config = config(Some(root.path()), None);
    let (clock, metrics) = (config.clock.clone(), config.metrics.clone());
    let stores = Stores::new(config);
    let held = stores.get("file:///?find=held").unwrap();
    let mut dropped = stores.get("file:///?find=dropped").unwrap().health();
    dropped.wait_for(|health| *health == Health::Healthy).await.unwrap();
    let active = || metrics.gauge("gazette_store_active", "").get();
    assert_eq!(active(), 2);

    // The first sweep marks, the second one drops what was not asked for in between and is not held.
    for expected in [3, 2] {
        clock.sleep(SWEEP_INTERVAL).await;
        stores.get("file:///").unwrap();
        assert_eq!(active(), expected);
    }
    dropped.wait_for(|health| health.result() == Err("health checks have stopped")).await.unwrap();
    assert_eq!(held.checked_health().await, Health::Healthy);
}

#[tokio::test]
async fn there_is_a_limit_of_stores() {
    let root = tempfile::tempdir().unwrap();
    let stores = Stores::new(config(Some(root.path()), None));
    for i in 0..STORES_MAX {
        stores.get(&format!("file:///?find={i}")).unwrap();
    }
    assert!(matches!(stores.get("file:///"), Err(StoreError::TooMany { max: STORES_MAX, .. })));
    stores.inner.config.tasks.cancel();
}
