//! Fragments at `file://` URLs, below the configured root.

use super::fragment_content::{Opened, Place};
use fragment::Codec;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

/// A file which is below the root.
pub(super) struct FileUrl {
    pub(super) path: PathBuf,
    /// How it is compressed.
    pub(super) codec: Codec,
}

impl FileUrl {
    /// The path of a `file://` URL, below `root`. None if it is no such URL or leads out of the root.
    pub(super) fn path(root: &Path, url: &str) -> Option<PathBuf> {
        let url = url::Url::parse(url).ok().filter(|url| url.scheme() == "file" && url.host().is_none())?;
        let path = percent_decode(url.path())?;
        let relative = Path::new(path.strip_prefix('/')?);
        let is_below = relative.components().all(|component| matches!(component, Component::Normal(_)));
        is_below.then(|| root.join(relative))
    }
}

impl Place for FileUrl {
    fn open(&self, begin: u64) -> io::Result<Opened> {
        let mut file = File::open(&self.path)?;
        let stored = file.metadata()?.len().saturating_sub(begin);
        file.seek(SeekFrom::Start(begin))?;
        Ok(Opened { bytes: Box::new(file), codec: self.codec, begin, stored: Some(stored) })
    }

    fn end(&self, bytes: u64) -> io::Result<Option<(Vec<u8>, u64)>> {
        let file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        let bytes = bytes.min(length);
        let mut end = vec![0; usize::try_from(bytes).expect("the end of a file fits memory")];
        file.read_exact_at(&mut end, length - bytes)?;
        Ok(Some((end, length)))
    }
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
        let path = |url| FileUrl::path(Path::new("/root"), url);
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

    proptest::proptest! {
        #[test]
        fn no_url_leads_out_of_the_root(tail in "[a-z./%2eEfF\\u{0}-\\u{7f}]{0,30}") {
            if let Some(path) = FileUrl::path(Path::new("/root"), &format!("file:///{tail}")) {
                let below = path.strip_prefix("/root").unwrap();
                proptest::prop_assert!(below.components().all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
