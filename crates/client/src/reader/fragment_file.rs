//! Reads fragments from their store, for brokers which are asked not to: `file://` URLs below the configured root.
//!
//! A thread which may block opens the file, decompresses it and skips to the offset; a few chunks are ahead of the
//! reader. The content must be exactly as long as the fragment says.

use super::ReadError;
use crate::client::JournalClient;
use bytes::{Bytes, BytesMut};
use fragment::Codec;
use fragment::compress::Decompressor;
use proto::protocol::Fragment;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Bytes of a chunk.
const CHUNK_BYTES: usize = 128 << 10;
/// Chunks which are read ahead.
const CHUNKS_AHEAD: usize = 8;

/// The content of a fragment, from an offset.
pub(super) struct FragmentFile {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    path: Arc<Path>,
}

/// What to read of a fragment.
struct Span {
    codec: Codec,
    /// Bytes of content before those which are wanted.
    skip: u64,
    /// Bytes which are wanted.
    wanted: u64,
    /// Whether the wanted bytes extend to the fragment's end, so that nothing must follow.
    to_end: bool,
}

impl FragmentFile {
    /// Begins to read a fragment at `offset`, up to its end or `end_offset` unless that is zero. An error says that this
    /// client cannot read the URL at all.
    pub(super) fn open(
        client: &JournalClient,
        fragment: &Fragment,
        url: &str,
        offset: i64,
        end_offset: i64,
    ) -> Result<FragmentFile, ReadError> {
        let unsupported = || ReadError::UnsupportedUrl { url: url.split('?').next().unwrap_or(url).into() };
        let root = client.options().file_root.as_deref().ok_or_else(unsupported)?;
        let path: Arc<Path> = file_path(root, url).ok_or_else(unsupported)?.into();
        let codec = Codec::try_from(fragment.compression_codec).map_err(|_| unsupported())?;

        let end = if end_offset == 0 { fragment.end } else { fragment.end.min(end_offset) };
        let bytes = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or(0);
        let span = Span {
            codec,
            skip: bytes(fragment.begin, offset),
            wanted: bytes(offset, end),
            to_end: end == fragment.end,
        };
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let file = Arc::clone(&path);
        // The reader learns of the end through its channel.
        drop(client.options().tasks.spawn_blocking("read fragment", move || {
            if let Err(error) = span.read(&file, &sender) {
                let _ = sender.blocking_send(Err(error));
            }
        }));
        Ok(FragmentFile { chunks, path })
    }

    /// The next bytes; None is the end of what was asked for.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, ReadError>> {
        let chunk = self.chunks.recv().await?;
        Some(chunk.map_err(|error| ReadError::FragmentFile {
            path: Arc::clone(&self.path),
            error: Arc::new(error),
        }))
    }
}

impl Span {
    fn read(&self, path: &Path, chunks: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
        let mut file = File::open(path)?;
        let mut skip = self.skip;
        if self.codec == Codec::None {
            file.seek(SeekFrom::Start(skip))?;
            skip = 0;
        }
        let mut content = Decompressor::new(self.codec, file)?;
        if io::copy(&mut content.by_ref().take(skip), &mut io::sink())? < skip {
            return Err(too_short());
        }
        let mut wanted = self.wanted;
        while wanted != 0 {
            let mut chunk = BytesMut::zeroed(wanted.min(CHUNK_BYTES as u64) as usize);
            let read = content.read(&mut chunk)?;
            if read == 0 {
                return Err(too_short());
            }
            chunk.truncate(read);
            wanted -= read as u64;
            if chunks.blocking_send(Ok(chunk.freeze())).is_err() {
                return Ok(()); // The reader is gone.
            }
        }
        if self.to_end && content.read(&mut [0])? != 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "did not read EOF at expected Fragment.End",
            ));
        }
        Ok(())
    }
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "fragment file ends before Fragment.End")
}

/// The file of a `file://` URL, below `root`. None if it is no such URL or leads out of the root.
fn file_path(root: &Path, url: &str) -> Option<PathBuf> {
    let url = url::Url::parse(url).ok().filter(|url| url.scheme() == "file" && url.host().is_none())?;
    let path = percent_decode(url.path())?;
    let relative = Path::new(path.strip_prefix('/')?);
    let is_below = relative.components().all(|component| matches!(component, Component::Normal(_)));
    is_below.then(|| root.join(relative))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_to_files_below_the_root_only() {
        let path = |url| file_path(Path::new("/root"), url);
        assert_eq!(path("file:///a/b%20c.raw"), Some(PathBuf::from("/root/a/b c.raw")));
        for url in [
            "http://host/a",
            "file://host/a",
            "file:///a/%2e%2e/%2e%2e/etc/passwd/..%2f..%2f",
            "file:///..%2f..%2fetc",
            "file:///%ff",
            "file:///%2",
            "nonsense",
        ] {
            let found = path(url);
            assert!(found.as_ref().is_none_or(|path| path.starts_with("/root")), "{url} {found:?}");
            assert!(
                found.is_none_or(|path| !path.components().any(|part| part == Component::ParentDir)),
                "{url}"
            );
        }
    }

    #[test]
    fn a_span_is_read_and_its_length_checked() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, b"0123456789").unwrap();
        let read = |skip, wanted, to_end| {
            let (sender, mut chunks) = mpsc::channel(CHUNKS_AHEAD);
            Span { codec: Codec::None, skip, wanted, to_end }.read(file.path(), &sender)?;
            drop(sender);
            let mut all = Vec::new();
            while let Ok(chunk) = chunks.try_recv() {
                all.extend_from_slice(&chunk.unwrap());
            }
            io::Result::Ok(String::from_utf8(all).unwrap())
        };
        assert_eq!(read(2, 8, true).unwrap(), "23456789");
        assert_eq!(read(2, 3, false).unwrap(), "234");
        assert_eq!(read(2, 9, true).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(11, 1, true).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(2, 7, true).unwrap_err().to_string(), "did not read EOF at expected Fragment.End");
    }

    proptest::proptest! {
        #[test]
        fn no_url_leads_out_of_the_root(tail in "[a-z./%2eEfF\\u{0}-\\u{7f}]{0,30}") {
            if let Some(path) = file_path(Path::new("/root"), &format!("file:///{tail}")) {
                let below = path.strip_prefix("/root").unwrap();
                proptest::prop_assert!(below.components().all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
