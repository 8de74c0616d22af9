//! Maps of a recorded RocksDB: what other stores are built on.

use crate::world::*;
use recoverylog::{Author, Recorder};
use store_rocksdb::{RecordedMaps, StoreError};

/// Opens the maps of a log, with the recorder behind which barriers are.
async fn open(world: &World, dir: &str, id: u32) -> (RecordedMaps, Recorder) {
    let recorder = world.recorder(&no_hints(), dir, id).await;
    let opened = recorder.clone();
    let maps =
        tokio::task::spawn_blocking(move || RecordedMaps::open(&opened, "maps", small_buffers).unwrap());
    (maps.await.unwrap(), recorder)
}

fn write(maps: &RecordedMaps, map: &str, changes: &[(&str, Option<&str>)]) -> Result<(), StoreError> {
    maps.write(map, changes.iter().copied())
}

fn keys(maps: &RecordedMaps, map: &str, from: &str) -> Vec<String> {
    let keys = maps.keys(map, from.as_bytes()).unwrap().into_iter();
    keys.map(|key| String::from_utf8(key.into()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn maps_are_recovered_with_their_names() {
    let world = World::new().await;
    let (maps, recorder) = open(&world, "first", 1).await;
    assert!(maps.contains("default") && !maps.contains("/a"));
    assert_eq!(
        (maps.get("/a", b"x").unwrap(), maps.last("/a").unwrap(), keys(&maps, "/a", "").len()),
        (None, None, 0)
    );
    write(&maps, "/a", &[("x", Some("1")), ("y", Some("2")), ("z", Some("3"))]).unwrap();
    write(&maps, "/b", &[("x", Some(&"large".repeat(50_000)))]).unwrap();
    write(&maps, "/a", &[("x", None), ("y", Some("4"))]).unwrap();
    maps.create("/a").unwrap();
    maps.create("/empty").unwrap();
    recorder.barrier(Vec::new()).await.unwrap();

    let (next, _) = open(&world, "second", 2).await;
    assert_eq!(next.dir(), world.dir("second").join("maps"));
    assert_eq!(text(next.get("/a", b"x").unwrap()), None);
    assert_eq!(text(next.get("/a", b"y").unwrap()).unwrap(), "4");
    assert_eq!(next.get("/b", b"x").unwrap().unwrap().len(), 250_000);
    assert!(next.contains("/empty") && !next.contains("/c"));
    assert_eq!(
        (keys(&next, "/a", ""), keys(&next, "/a", "yy")),
        (vec!["y".into(), "z".into()], vec!["z".to_owned()])
    );
    let (key, value) = next.last("/a").unwrap().unwrap();
    assert_eq!((&*key, &*value), (b"z".as_slice(), b"3".as_slice()));
    assert_eq!(keys(&next, "default", "").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_neither_writes_nor_creates_maps() {
    let world = World::new().await;
    let (zombie, recorder) = open(&world, "zombie", 1).await;
    write(&zombie, "/a", &[("x", Some("1"))]).unwrap();
    recorder.barrier(Vec::new()).await.unwrap();
    let (next, next_recorder) = open(&world, "next", 2).await;
    drop(write(&zombie, "/a", &[("x", Some("2"))]));
    assert!(recorder.barrier(Vec::new()).await.unwrap_err().is_fenced());
    for error in [write(&zombie, "/a", &[("x", Some("3"))]), zombie.create("/b")] {
        assert!(matches!(error, Err(StoreError::Record(error)) if error.is_fenced()));
    }
    write(&next, "/a", &[("y", Some("1"))]).unwrap();
    next_recorder.barrier(Vec::new()).await.unwrap();
    let (last, _) = open(&world, "last", 3).await;
    assert_eq!(
        (text(last.get("/a", b"x").unwrap()).unwrap(), keys(&last, "/a", "")),
        ("1".into(), vec!["x".into(), "y".into()])
    );
    assert!(!last.contains("/b"));
    // What is left without maps is still a log of this world.
    world.taken_over(&no_hints(), "played", Author::new(4).unwrap()).await.unwrap();
}
