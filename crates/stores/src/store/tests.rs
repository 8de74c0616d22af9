//! The conformance suite, which every kind of store passes; an in-memory kind with faults; and what the faults do.

mod cloud;
mod conformance;
mod faults;
pub(crate) mod memory;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use fragment::{Codec, Sum};
use runtime::Metrics;
use tempfile::TempDir;

use super::*;
use crate::retry::RETRY_WAITS;
use crate::{Environment, Stores, StoresConfig};

/// Stores of a process whose file root is `root`.
pub(crate) fn stores(root: &std::path::Path) -> Stores {
    Stores::new(config(root))
}

fn config(root: &std::path::Path) -> StoresConfig {
    StoresConfig {
        file_root: Some(root.to_owned()),
        default_root: None,
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

/// A file store in a new directory.
pub(crate) fn file_store() -> (TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = stores(root.path()).get("file:///").unwrap();
    (root, store)
}

pub(crate) fn journal(name: &str) -> JournalName {
    JournalName::parse(name).unwrap()
}

/// A fragment of `content` at `begin`.
pub(crate) fn fragment_of(name: &str, begin: i64, codec: Codec, content: &[u8]) -> Fragment {
    let end = begin + content.len() as i64;
    Fragment { end, sum: Sum::of(content), ..Fragment::empty(journal(name), begin, codec) }
}

/// Bytes which do not compress to nothing.
pub(crate) fn content(bytes: usize) -> Vec<u8> {
    let entropy = Entropy::seeded(bytes as u64);
    let mut content = vec![0; bytes];
    entropy.fill(&mut content);
    content.iter_mut().step_by(3).for_each(|byte| *byte = b' ');
    content
}

pub(crate) fn source(content: &[u8]) -> Source {
    let content = Bytes::copy_from_slice(content);
    Arc::new(move || Ok(Box::new(io::Cursor::new(content.clone()))))
}

/// Everything from `offset` on.
pub(crate) async fn read(store: &Store, fragment: &Fragment, offset: i64) -> Result<Vec<u8>, StoreError> {
    let mut chunks = store.open(fragment, offset).await?;
    let mut content = Vec::new();
    while let Some(chunk) = chunks.try_next().await? {
        assert!((1..=crate::CONTENT_CHUNK_BYTES).contains(&chunk.len()));
        content.extend_from_slice(&chunk);
    }
    Ok(content)
}

impl Store {
    pub(crate) fn place(&self) -> &dyn Place {
        &*self.shared.place
    }
}

/// Puts raw bytes where the file of `fragment` is.
pub(crate) async fn plant(store: &Store, fragment: &Fragment, stored: &[u8]) {
    let path = Path::parse(fragment.content_path()).unwrap();
    store.place().objects().put(&path, stored.to_vec().into()).await.unwrap();
}

/// What is known of where objects can be entered.
pub(crate) fn indexes(store: &Store) -> &IndexCache {
    &store.shared.indexes
}

#[tokio::test]
async fn file_stores_conform() {
    conformance::run(async || {
        let (root, store) = file_store();
        // Kept until the process ends, since a store outlives the test function that made it.
        drop(root.keep());
        store
    })
    .await;
}

#[tokio::test]
async fn memory_stores_conform() {
    conformance::run(async || memory::store(memory::Faults::default())).await;
}

/// Operations are awaited by spawned tasks: this need only compile.
#[test]
fn futures_are_send() {
    let _ = |store: Store, fragment: Fragment| {
        async move {
            store.put(&fragment, source(b"")).await?;
            store.list(&fragment.journal).await?;
            store.list_each(&fragment.journal, |_| {}).await?;
            store.exists(&fragment).await?;
            store.open(&fragment, 0).await?.try_next().await?;
            store.remove(&fragment).await?;
            store.probe_delete("").await.map_err(io::Error::other).ok();
            store.checked_health().await;
            Ok::<_, StoreError>(())
        }
        .boxed()
    };
}

#[tokio::test]
async fn metrics_count_operations_by_outcome() {
    let root = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let config = StoresConfig {
        file_root: Some(root.path().to_owned()),
        default_root: None,
        file_only: false,
        environment: Environment::default(),
        levels: Levels::default(),
        times: StoreTimes::default(),
        clock: Clock::system(),
        entropy: Entropy::seeded(7),
        tasks: TaskGroup::new("test"),
        metrics: metrics.clone(),
    };
    let store = Stores::new(config).get("file:///").unwrap();
    assert_eq!(store.checked_health().await, Health::Healthy);
    let fragment = fragment_of("a/journal", 0, Codec::None, b"content");
    store.put(&fragment, source(b"content")).await.unwrap();
    assert!(!store.exists(&Fragment { begin: 1, ..fragment.clone() }).await.unwrap());
    store.list(&fragment.journal).await.unwrap();
    store.signed_url(&fragment, Duration::from_secs(60)).await.unwrap();
    store.remove(&fragment).await.unwrap();
    let text = metrics.render();
    let operations = ["exists", "get", "list", "put", "remove", "signget"];
    for operation in operations {
        let line = format!(
            "gazette_store_operation_total{{operation=\"{operation}\",status=\"success\",store=\"file:///\"}} 1"
        );
        assert!(text.contains(&line), "{line} in:\n{text}");
    }
    for line in [
        "gazette_store_active 1",
        "gazette_store_put_bytes_total{encoding=\"none\",store=\"file:///\"} 7",
        "gazette_store_list_items_count_sum{store=\"file:///\"} 1",
        "gazette_store_health_check_total{status=\"ok\",store=\"file:///\"} 1",
        "gazette_store_operation_duration_seconds_bucket{operation=\"put\",status=\"success\",store=\"file:///\",le=\"10.24\"}",
    ] {
        assert!(text.contains(line), "{line} in:\n{text}");
    }
}
