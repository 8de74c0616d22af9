//! What every kind of store promises.

use fragment::PathPostfix;
use fragment::compress::{Compressor, ENTRY_SPACING_BYTES};

use super::*;

/// Runs the suite; `make` makes an empty store.
pub(crate) async fn run(make: impl AsyncFn() -> Store) {
    content_is_read_back_from_every_offset(&make().await).await;
    objects_without_an_index_are_entered_where_they_were_read(&make().await).await;
    large_content_is_stored_in_parts(&make().await).await;
    putting_again_is_no_error(&make().await).await;
    missing_objects_are_told_apart(&make().await).await;
    listings_are_of_one_journal(&make().await).await;
    listings_begin_after_a_key(&make().await).await;
    other_content_is_never_stored(&make().await).await;
    corrupt_objects_are_errors(&make().await).await;
    names_are_taken_as_they_are(&make().await).await;
    paths_are_rewritten(&make().await).await;
    names_cannot_ascend(&make().await).await;
    signed_urls_are_fetched(&make().await).await;
    content_which_the_store_decompressed_is_read(&make().await).await;
    healthy_stores_say_so(&make().await).await;
}

async fn content_is_read_back_from_every_offset(store: &Store) {
    let content = content(700_000);
    for codec in Codec::ALL {
        let fragment = fragment_of("a/journal", 1000, codec, &content);
        assert!(!store.exists(&fragment).await.unwrap());
        store.put(&fragment, source(&content)).await.unwrap();
        assert!(store.exists(&fragment).await.unwrap());
        for skip in [0, 1, 262_143, 262_144, 500_000, 699_999, 700_000] {
            let read = read(store, &fragment, 1000 + skip as i64).await.unwrap();
            assert!(read == content[skip..], "{codec} from {skip}: {} bytes", read.len());
        }
        for outside in [0, 999, 701_001, i64::MAX] {
            assert!(matches!(read(store, &fragment, outside).await, Err(StoreError::Offset { .. })));
        }
    }
}

async fn objects_without_an_index_are_entered_where_they_were_read(store: &Store) {
    let content = content(ENTRY_SPACING_BYTES as usize + 3_000_000);
    let fragment = fragment_of("a/journal", 0, Codec::GzipOffload, &content);
    store.put(&fragment, source(&content)).await.unwrap();
    let known = || indexes(store).get(&fragment.content_path()).unwrap();
    let learned = known();
    assert_eq!(learned.entries.len(), 1, "it was read back");
    for offset in [content.len() - 1, ENTRY_SPACING_BYTES as usize + 1_000_000] {
        assert!(read(store, &fragment, offset as i64).await.unwrap() == content[offset..], "from {offset}");
        assert!(Arc::ptr_eq(&known(), &learned), "a read from the beginning would have learned it again");
    }
}

async fn large_content_is_stored_in_parts(store: &Store) {
    // Whole parts, and parts with a rest.
    let part = store.shared.place.part_bytes();
    for bytes in [part, 2 * part, 3 * part + 4321] {
        let content = content(bytes);
        for codec in [Codec::None, Codec::Snappy] {
            let fragment = fragment_of("a/journal", 0, codec, &content);
            store.put(&fragment, source(&content)).await.unwrap();
            assert!(read(store, &fragment, 0).await.unwrap() == content);
        }
    }
}

async fn putting_again_is_no_error(store: &Store) {
    let fragment = fragment_of("a/journal", 0, Codec::Gzip, b"content");
    plant(store, &fragment, b"what another broker left behind").await;
    for _ in 0..2 {
        store.put(&fragment, source(b"content")).await.unwrap();
        assert_eq!(read(store, &fragment, 0).await.unwrap(), b"content");
    }
    assert_eq!(store.list(&fragment.journal).await.unwrap().len(), 1);
}

async fn missing_objects_are_told_apart(store: &Store) {
    let fragment = fragment_of("a/journal", 0, Codec::None, b"content");
    assert_eq!(store.list(&fragment.journal).await.unwrap(), []);
    assert!(!store.exists(&fragment).await.unwrap());
    let error = read(store, &fragment, 0).await.unwrap_err();
    assert!(error.is_not_found() && !error.is_retryable() && !error.is_auth(), "{error}");
    let text = error.to_string();
    assert!(text.contains(&**store.url()) && text.contains(&fragment.content_path()), "{text}");
    store.remove(&fragment).await.unwrap();
    store.put(&fragment, source(b"content")).await.unwrap();
    store.remove(&fragment).await.unwrap();
    assert!(!store.exists(&fragment).await.unwrap());
}

async fn listings_are_of_one_journal(store: &Store) {
    let with_postfix = |begin, postfix: &str| Fragment {
        path_postfix: PathPostfix::parse(postfix).unwrap(),
        ..fragment_of("a/journal", begin, Codec::Snappy, b"content")
    };
    let stored = [
        with_postfix(0, ""),
        with_postfix(7, "date=2022-05-03/hour=04"),
        with_postfix(14, "date=2022-05-03"),
    ];
    for fragment in &stored {
        store.put(fragment, source(b"content")).await.unwrap();
    }
    for other in ["a/journal-2", "a/journa", "b/journal"] {
        let fragment = fragment_of(other, 0, Codec::None, b"content");
        store.put(&fragment, source(b"content")).await.unwrap();
    }
    for name in ["a/journal/not-a-fragment", "a/journal/0-1-02.raw", "a/journal/sub/README.md"] {
        let path = Path::parse(name).unwrap();
        store.shared.place.objects().put(&path, "text".into()).await.unwrap();
    }
    let mut listed = store.list(&journal("a/journal")).await.unwrap();
    listed.sort_by_key(|fragment| fragment.begin);
    for (listed, stored) in listed.iter_mut().zip(&stored) {
        assert!(listed.mod_time > 1_600_000_000);
        assert_eq!(listed.backing_store.take().as_ref(), Some(store.url()));
        listed.mod_time = 0;
        assert_eq!(listed, stored);
    }
    assert_eq!(listed.len(), stored.len());
}

async fn listings_begin_after_a_key(store: &Store) {
    let postfixes = ["", "date=2022-05-03", "date=2022-05-03/hour=04", "date=2022-05-04", "éclair"];
    let mut keys = Vec::new();
    for (number, postfix) in postfixes.iter().flat_map(|postfix| [postfix; 3]).enumerate() {
        let fragment = Fragment {
            path_postfix: PathPostfix::parse(postfix).unwrap(),
            ..fragment_of("a/journal", 7 * number as i64, Codec::None, b"content")
        };
        store.put(&fragment, source(b"content")).await.unwrap();
        keys.push(fragment.content_path()["a/journal/".len()..].to_owned());
    }
    keys.sort();
    let between = [
        "",
        "0",
        "00000000000000zz",
        "date",
        "date=2022-05-03/",
        "date=2022-05-03/i",
        "e",
        "~",
        "\u{10ffff}",
    ];
    for after in keys.clone().iter().map(String::as_str).chain(between) {
        let mut listed = Vec::new();
        let each = |fragment: Fragment| listed.push(fragment.content_path()["a/journal/".len()..].to_owned());
        store.list_each_after(&journal("a/journal"), Some(after), each).await.unwrap();
        listed.sort();
        let expected: Vec<_> = keys.iter().filter(|key| key.as_str() > after).cloned().collect();
        assert_eq!(listed, expected, "after {after:?}");
    }
}

async fn other_content_is_never_stored(store: &Store) {
    for bytes in [100, 3 << 20] {
        let content = content(bytes);
        let fragment = fragment_of("a/journal", 0, Codec::Snappy, &content);
        let mut other = content.clone();
        other[bytes - 1] ^= 1;
        let failing: Source = Arc::new(|| Err(io::Error::other("no such spool")));
        let half = content.len() / 2;
        for (source, problem) in [
            (source(&other), "(expected "),
            (source(&content[..half]), &*format!("has {half} bytes (expected {bytes})")),
            (failing, "cannot be opened: no such spool"),
        ] {
            let error = store.put(&fragment, source).await.unwrap_err();
            assert!(
                matches!(error, StoreError::Content { .. }) && error.to_string().contains(problem),
                "{error}"
            );
            assert!(!error.is_retryable() && !error.is_auth());
            assert!(!store.exists(&fragment).await.unwrap());
        }
        // What follows the fragment in a reused spool file is not looked at.
        other.extend_from_slice(b"rest");
        other[bytes - 1] ^= 1;
        store.put(&fragment, source(&other)).await.unwrap();
    }
}

async fn corrupt_objects_are_errors(store: &Store) {
    let right = content(600_000);
    let mut wrong = right.clone();
    wrong[10] ^= 1;
    for codec in Codec::ALL {
        let fragment = fragment_of("a/journal", 5, codec, &right);
        let compressed = |content: &[u8]| {
            let mut compressor = Compressor::new(codec, None, Vec::new()).unwrap();
            io::Write::write_all(&mut compressor, content).unwrap();
            compressor.finish().unwrap()
        };
        let whole = compressed(&right);
        let mut longer = right.clone();
        longer.push(0);
        let cases = [
            ("other content", compressed(&wrong)),
            ("too short", compressed(&right[1..])),
            ("too long", compressed(&longer)),
            ("truncated", whole[..whole.len() - 1].to_vec()),
            ("empty", Vec::new()),
            ("noise", content(600_001)),
        ];
        for (case, stored) in cases {
            plant(store, &fragment, &stored).await;
            let error = read(store, &fragment, 5).await.expect_err(case);
            assert!(matches!(error, StoreError::Corrupt { .. }), "{codec}, {case}: {error}");
            let text = error.to_string();
            assert!(text.contains(&**store.url()) && text.contains(&fragment.content_path()), "{text}");
            assert!(!error.is_retryable());
            // Never all of what was asked for, from any offset. (A part of an uncompressed file cannot be checked.)
            if codec != Codec::None || case != "other content" {
                assert!(read(store, &fragment, 300_000).await.is_err(), "{codec}, {case}");
            }
        }
    }
}

async fn names_are_taken_as_they_are(store: &Store) {
    for name in ODD_NAMES {
        let fragment = fragment_of(name, 0, Codec::None, b"content");
        store.put(&fragment, source(b"content")).await.unwrap();
        let listed = store.list(&fragment.journal).await.unwrap();
        assert_eq!(listed.len(), 1, "{name}");
        assert_eq!(listed[0].content_path(), fragment.content_path());
        assert_eq!(read(store, &fragment, 0).await.unwrap(), b"content");
    }
}

const ODD_NAMES: [&str; 4] = ["percent%41/and%2F/%2e%2e", "équation/世界", "a=b/c+d", "dots..in/...names"];

async fn paths_are_rewritten(store: &Store) {
    let location = rewriting("a/journal", "b c/%41=é");
    let key = location.rewrite("a/journal/name");
    assert_eq!(key, "b c/%41=é/name");
    let path = store.shared.locate(&key).await.unwrap();
    store.shared.place.objects().put(&path, "text".into()).await.unwrap();
    let listing = store.shared.place.list("b c/%41=é/");
    let keys: Vec<_> = listing.map_ok(|listed| listed.key).try_collect().await.unwrap();
    assert_eq!(keys, [key]);
    // A prefix need not end with an element.
    let listing = store.shared.place.list("b c/%4");
    assert_eq!(listing.try_collect::<Vec<_>>().await.unwrap().len(), 1);
}

fn rewriting(find: &str, replace: &str) -> Location {
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("find", find)
        .append_pair("replace", replace)
        .finish();
    Location::parse(&format!("file:///?{query}").into(), false).unwrap()
}

async fn signed_urls_are_fetched(store: &Store) {
    for name in ODD_NAMES.into_iter().chain(["date=2022-05-03"]) {
        let fragment = fragment_of(name, 0, Codec::None, b"content");
        store.put(&fragment, source(b"content")).await.unwrap();
        let url = store.signed_url(&fragment, Duration::from_secs(60)).await.unwrap();
        if url.starts_with("http") {
            let fetched = store.shared.place.fetch(&url, 100).await.unwrap();
            assert_eq!((fetched.status, fetched.content), (200, Ok(b"content".to_vec())), "{name}: {url}");
        }
    }
}

async fn content_which_the_store_decompressed_is_read(store: &Store) {
    let content = content(300_000);
    let fragment = fragment_of("a/journal", 0, Codec::GzipOffload, &content);
    plant(store, &fragment, &content).await;
    assert!(read(store, &fragment, 0).await.unwrap() == content);
    assert!(read(store, &fragment, 100_000).await.unwrap() == content[100_000..]);
}

async fn names_cannot_ascend(store: &Store) {
    // Names cannot hold `..`, but what an argument of the URL makes of them can.
    let key = rewriting("a/journal", "../../escaped").rewrite("a/journal/name");
    assert!(store.shared.locate(&key).await.is_err());
    assert!(store.probe_delete("../../").await.unwrap_err().starts_with("delete-probe PUT failed: put "));
}

async fn healthy_stores_say_so(store: &Store) {
    assert_eq!(store.checked_health().await, Health::Healthy);
    assert_eq!(store.health().borrow().result(), Ok(()));
    store.probe_delete("a/journal/").await.unwrap();
    assert_eq!(store.list(&journal("a/journal")).await.unwrap(), []);
}
