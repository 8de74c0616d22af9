//! Objects that expand to far more than their names say.

use fragment::compress::{Compressor, Levels};
use fragment::{Codec, Fragment, Sum};
use proto::JournalName;
use proto::protocol::Status;
use tempfile::TempDir;

use super::faulty::{Faulty, spec};
use super::support::{Fixture, content, eventually, upsert};

/// Bytes of content that the names promise.
const PROMISED: usize = 100_000;
/// Bytes of zeros that the objects expand to.
const EXPANDED: usize = 512 << 20;
/// Bytes of zeros that are compressed at a time: streams of every format may follow one another.
const PIECE: usize = 16 << 20;

/// Zeros without end, for a reader that would take them.
fn bomb(codec: Codec) -> Vec<u8> {
    let level = Levels::default().of(codec);
    let mut compressor = Compressor::new(codec, level, Vec::new()).unwrap();
    std::io::Write::write_all(&mut compressor, &vec![0; PIECE]).unwrap();
    compressor.finish().unwrap().repeat(EXPANDED / PIECE)
}

#[tokio::test]
async fn an_object_that_expands_without_bound_ends_its_read_with_an_error() {
    let codecs = [Codec::Gzip, Codec::Zstandard, Codec::Snappy, Codec::GzipOffload];
    let dir = TempDir::with_prefix("courant-bombs-").unwrap();
    let store = dir.path().join("store");
    let mut fragments = Vec::new();
    for codec in codecs {
        let journal = JournalName::parse(&format!("bombs/{codec}").to_lowercase()).unwrap();
        let promised = Sum::of(&vec![0; PROMISED]);
        let empty = Fragment::empty(journal, 0, codec);
        let fragment = Fragment { end: PROMISED as i64, sum: promised, ..empty };
        let path = store.join(fragment.content_path());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bomb = bomb(codec);
        assert!(bomb.len() < EXPANDED / 10, "{codec}: {}", bomb.len());
        std::fs::write(&path, bomb).unwrap();
        fragments.push(fragment);
    }
    let mut fixture = Fixture::start_in(dir, |options| options.file_root = Some(store)).await;
    for fragment in &fragments {
        let name = fragment.journal.as_str();
        fixture.apply(vec![upsert(spec(name, "file:///"), 0)]).await;
        let journal = Faulty::of(name, "file:///");
        let (responses, error) = eventually("the journal is assigned, and listed", async || {
            let (responses, error) = journal.try_read(&mut fixture, 0).await;
            let is_served = responses.first().is_some_and(|first| first.status() == Status::Ok);
            is_served.then_some((responses, error))
        })
        .await;
        let error = error.unwrap_or_else(|| panic!("{name} was read"));
        assert!(error.message().contains("did not read EOF at expected Fragment.End"), "{name}: {error}");
        assert!(error.message().contains(&fragment.content_path()), "{name}: {error}");
        assert!(content(&responses).is_empty(), "{name}: its last step is held back");
    }
    fixture.stop().await;
}
