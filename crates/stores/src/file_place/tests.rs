use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use fragment::Codec;
use object_store::ObjectStoreExt;

use super::*;
use crate::StoreError;
use crate::store::tests::{file_store, fragment_of, journal, plant, read, source, stores};

/// Every file and directory below `root` besides what health checks leave, relative to it.
fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            }
            found.push(entry.path().strip_prefix(root).unwrap().display().to_string());
        }
    }
    found.retain(|path| !path.starts_with(".test"));
    found.sort();
    found
}

#[tokio::test]
async fn files_have_the_protocols_layout() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("prefix")).unwrap();
    let url = "file:///prefix/?find=/journal/&replace=/rewritten/deep/";
    let store = stores(root.path()).get(url).unwrap();
    let fragment = fragment_of("a/journal/b", 0x10, Codec::Gzip, b"foobar");
    store.put(&fragment, source(b"foobar")).await.unwrap();
    let name = "0000000000000010-0000000000000016-8843d7f92416211de9ebb963ff4ce28125932878.gz";
    assert!(root.path().join("prefix/a/rewritten/deep/b").join(name).is_file());
    assert_eq!(store.list(&journal("a/journal/b")).await.unwrap().len(), 1);
    assert_eq!(read(&store, &fragment, 0x10).await.unwrap(), b"foobar");
    let ttl = Duration::from_secs(60);
    assert_eq!(
        store.signed_url(&fragment, ttl).await.unwrap(),
        format!("file:///prefix/a/rewritten/deep/b/{name}")
    );
    let odd = fragment_of("per%cent/é", 0, Codec::None, b"foobar");
    assert!(store.signed_url(&odd, ttl).await.unwrap().starts_with("file:///prefix/per%25cent/%C3%A9/0000"));
}

#[tokio::test]
async fn a_store_without_its_directory_is_not_an_empty_store() {
    let (root, store) = file_store();
    assert!(store.list(&journal("a/journal")).await.unwrap().is_empty(), "a journal without a directory");
    let aside = root.path().with_extension("aside");
    fs::rename(root.path(), &aside).unwrap();
    let error = store.list(&journal("a/journal")).await.unwrap_err().to_string();
    assert!(error.contains("is missing"), "{error}");
    let fragment = fragment_of("a/journal", 0, Codec::None, b"content");
    let error = store.put(&fragment, source(b"content")).await.unwrap_err().to_string();
    assert!(error.contains("is missing") && !root.path().exists(), "{error}");
    fs::rename(&aside, root.path()).unwrap();
    assert!(store.list(&journal("a/journal")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_directory_that_goes_away_at_any_time_is_not_made_again() {
    let (root, store) = file_store();
    let fragment = fragment_of("a/journal", 0, Codec::None, b"content");
    let (objects, aside) = (store.place().objects(), root.path().with_extension("aside"));
    let path = object_store::path::Path::parse(fragment.content_path()).unwrap();
    // After an operation has seen it.
    fs::rename(root.path(), &aside).unwrap();
    objects.put(&path, "content".into()).await.unwrap_err();
    assert!(objects.put_multipart(&path).await.is_err());
    for error in [objects.get(&path).await.err().unwrap(), objects.delete(&path).await.unwrap_err()] {
        assert!(!matches!(error, object_store::Error::NotFound { .. }), "{error}");
    }
    assert!(!root.path().exists());
    fs::rename(&aside, root.path()).unwrap();

    // In the middle of an upload, which then goes to where the directory is.
    let mut upload = objects.put_multipart(&path).await.unwrap();
    upload.put_part("con".into()).await.unwrap();
    fs::rename(root.path(), &aside).unwrap();
    upload.put_part("tent".into()).await.unwrap();
    upload.complete().await.unwrap();
    assert_eq!(fs::read(aside.join(fragment.content_path())).unwrap(), b"content");
    assert!(!root.path().exists());
    fs::rename(&aside, root.path()).unwrap();

    // For good.
    let mut upload = objects.put_multipart(&path).await.unwrap();
    upload.put_part("content".into()).await.unwrap();
    fs::remove_dir_all(root.path()).unwrap();
    upload.complete().await.unwrap_err();
    assert!(!root.path().exists());
}

#[tokio::test]
async fn an_upload_that_comes_upon_a_link_fails_and_writes_nowhere() {
    let (root, store) = file_store();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), root.path().join("a")).unwrap();
    let path = object_store::path::Path::parse("a/journal/x").unwrap();
    store.place().objects().put(&path, "content".into()).await.unwrap_err();
    assert_eq!(tree(outside.path()), Vec::<String>::new());
}

#[tokio::test]
async fn links_out_of_the_root_are_not_followed() {
    let (root, store) = file_store();
    let outside = tempfile::tempdir().unwrap();
    let fragment = fragment_of("out/journal", 0, Codec::None, b"secret");
    fs::create_dir(outside.path().join("journal")).unwrap();
    fs::write(outside.path().join("journal").join(fragment.content_name()), "secret").unwrap();
    let before = tree(outside.path());
    // A directory, a file, and a link to nothing.
    symlink(outside.path(), root.path().join("out")).unwrap();
    let linked = fragment_of("in/journal", 0, Codec::None, b"secret");
    fs::create_dir_all(root.path().join("in/journal")).unwrap();
    let target = outside.path().join("journal").join(fragment.content_name());
    symlink(target, root.path().join(linked.content_path())).unwrap();
    let dangling = fragment_of("in/journal", 6, Codec::None, b"secret");
    symlink(outside.path().join("new"), root.path().join(dangling.content_path())).unwrap();
    symlink(outside.path(), root.path().join("in/journal/deep")).unwrap();

    for fragment in [&fragment, &linked, &dangling] {
        let errors = [
            store.put(fragment, source(b"secret")).await.unwrap_err(),
            store.exists(fragment).await.unwrap_err(),
            read(&store, fragment, fragment.begin).await.unwrap_err(),
            store.remove(fragment).await.unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, StoreError::Name { .. }), "{error}");
            assert!(error.to_string().ends_with("is a symbolic link"), "{error}");
        }
    }
    assert!(matches!(store.list(&fragment.journal).await, Err(StoreError::Name { .. })));
    assert_eq!(store.list(&linked.journal).await.unwrap(), []);
    assert!(store.probe_delete("out/").await.unwrap_err().contains("is a symbolic link"));
    assert_eq!(tree(outside.path()), before);
}

#[tokio::test]
async fn long_names_are_refused_without_a_trace() {
    let (root, store) = file_store();
    let element = "x".repeat(300);
    let fragment = fragment_of(&format!("a/{element}"), 0, Codec::None, b"content");
    let error = store.put(&fragment, source(b"content")).await.unwrap_err();
    assert!(error.to_string().ends_with("an element is 300 bytes long (expected at most 247)"), "{error}");
    assert!(matches!(store.exists(&fragment).await, Err(StoreError::Name { .. })));
    assert!(!error.is_retryable() && !error.is_auth());
    assert_eq!(tree(root.path()), Vec::<String>::new());
    assert_eq!(store.list(&fragment.journal).await.unwrap(), []);
    // The longest elements which are accepted can be written, listed and read.
    let fragment = fragment_of(&"y".repeat(ELEMENT_BYTES_MAX), 0, Codec::None, b"content");
    store.put(&fragment, source(b"content")).await.unwrap();
    assert_eq!(store.list(&fragment.journal).await.unwrap().len(), 1);
}

#[tokio::test]
async fn long_paths_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut deep = root.path().to_owned();
    while deep.as_os_str().len() < 3700 {
        deep.push("d".repeat(200));
    }
    fs::create_dir_all(&deep).unwrap();
    let store = stores(&deep).get("file:///").unwrap();
    let fragment = fragment_of("z/".repeat(250).trim_end_matches('/'), 0, Codec::None, b"content");
    let error = store.put(&fragment, source(b"content")).await.unwrap_err();
    assert!(error.to_string().ends_with("bytes long (expected at most 4080)"), "{error}");
    assert_eq!(tree(&deep), Vec::<String>::new());
}

#[tokio::test]
async fn listings_pass_over_what_is_not_complete() {
    let (root, store) = file_store();
    let fragment = fragment_of("a/journal", 0, Codec::None, b"content");
    store.put(&fragment, source(b"content")).await.unwrap();
    let directory = root.path().join("a/journal");
    let name = fragment_of("a/journal", 7, Codec::None, b"content").content_name();
    for partial in [format!("{name}#1"), format!("{name}#42"), format!(".partial-{name}123")] {
        fs::write(directory.join(partial), "cont").unwrap();
    }
    fs::write(directory.join(std::ffi::OsStr::from_bytes(b"not utf-8 \xff.raw")), "").unwrap();
    fs::create_dir(directory.join("empty")).unwrap();
    let listed = store.list(&fragment.journal).await.unwrap();
    assert_eq!(listed.iter().map(|fragment| fragment.begin).collect::<Vec<_>>(), [0]);
}

#[tokio::test]
async fn what_killed_uploads_left_behind_is_removed_once_it_is_old() {
    let (root, store) = file_store();
    let fragment = fragment_of("a/journal", 0, Codec::Gzip, b"content");
    store.put(&fragment, source(b"content")).await.unwrap();
    let stored = fragment.content_path();
    let name = |begin| fragment_of("a/journal", begin, Codec::Gzip, b"content").content_name();
    let hours = |hours: u64| Duration::from_secs(hours * 60 * 60);
    let (old, hour) = (hours(25), hours(1));
    let planted = [
        (format!("a/journal/{}#1", name(7)), old, false),
        (format!("a/journal/date=1/{}#12", name(14)), old, false),
        // It may be under way.
        (format!("a/journal/{}#1", name(21)), hour, true),
        (format!("a/journal/{}#2", name(7)), hours(23), true),
        // Nobody knows what these are.
        ("a/journal/notes#1".to_owned(), old, true),
        (format!("a/journal/{}#copy", name(7)), old, true),
        (format!("a/journal/.partial-{}1", name(7)), old, true),
        // It is complete, however old, and so is another journal's that is not listed.
        (stored, old, true),
        (format!("b/journal/{}#1", name(7)), old, true),
    ];
    for (path, age, _) in &planted {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::options().write(true).create(true).truncate(false).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Clock::system().unix_now() - *age).unwrap();
    }
    assert_eq!(store.list(&fragment.journal).await.unwrap().len(), 1);
    for (path, _, stays) in &planted {
        assert_eq!(root.path().join(path).exists(), *stays, "{path}");
    }
}

#[tokio::test]
async fn listings_are_of_any_size_and_depth() {
    let (root, store) = file_store();
    let fragment = fragment_of("a/journal", 0, Codec::None, b"c");
    plant(&store, &fragment, b"c").await;
    let directory = root.path().join("a/journal");
    for i in 1..3000 {
        let name = fragment_of("a/journal", i, Codec::None, b"c").content_name();
        let postfix = directory.join(format!("part={}", i % 7));
        fs::create_dir_all(&postfix).unwrap();
        fs::write(postfix.join(name), "c").unwrap();
    }
    let mut begins: Vec<i64> =
        store.list(&fragment.journal).await.unwrap().iter().map(|fragment| fragment.begin).collect();
    begins.sort_unstable();
    assert_eq!(begins, (0..3000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_failed_upload_leaves_no_file() {
    let (root, store) = file_store();
    let content = vec![7; 5 << 20];
    let mut other = content.clone();
    other[4 << 20] = 8;
    let fragment = fragment_of("a/journal", 0, Codec::None, &content);
    store.put(&fragment, source(&other)).await.unwrap_err();
    assert_eq!(tree(root.path()), ["a", "a/journal"]);
    // The store's directory has become a file.
    fs::remove_dir_all(root.path().join("a")).unwrap();
    fs::write(root.path().join("a"), "").unwrap();
    let error = store.put(&fragment, source(&content)).await.unwrap_err();
    assert!(error.is_retryable() && !error.is_not_found(), "{error}");
    assert_eq!(tree(root.path()), ["a"]);
}

#[tokio::test]
async fn an_abandoned_upload_leaves_no_file() {
    let (root, store) = file_store();
    let content = vec![7; 5 << 20];
    let fragment = fragment_of("a/journal", 0, Codec::None, &content);
    // The content stalls in its middle until the test lets go of the gate.
    let (gate, gated) = std::sync::mpsc::channel::<()>();
    let gated = std::sync::Mutex::new(Some(gated));
    let stalls: crate::Source = std::sync::Arc::new(move || {
        let gated = gated.lock().unwrap().take().unwrap();
        let (before, after) = (io::Cursor::new(vec![7; 3 << 20]), io::Cursor::new(vec![7; 2 << 20]));
        Ok(Box::new(before.chain(Stalling(gated)).chain(after)))
    });
    let staged = root.path().join(format!("{}#1", fragment.content_path()));
    let mut put = Box::pin(store.put(&fragment, stalls));
    while !staged.exists() {
        let yields = tokio::task::yield_now();
        assert!(matches!(
            futures::future::select(&mut put, Box::pin(yields)).await,
            futures::future::Either::Right(_)
        ));
    }
    drop(put);
    drop(gate);
    while staged.exists() {
        tokio::task::yield_now().await;
    }
    assert_eq!(tree(root.path()), ["a", "a/journal"]);
    assert!(!store.exists(&fragment).await.unwrap());
}

/// Ends when the other end of its channel is dropped.
struct Stalling(std::sync::mpsc::Receiver<()>);

impl Read for Stalling {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(0)
    }
}
