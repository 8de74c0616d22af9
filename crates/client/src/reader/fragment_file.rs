//! Fragments at `file://` URLs, below the configured root.

use super::fragment_content::{Opened, Span};
use fragment::Codec;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// A file which is below the root.
pub(super) struct FileUrl(pub(super) PathBuf);

impl FileUrl {
    /// The file of a `file://` URL, below `root`. None if it is no such URL or leads out of the root.
    pub(super) fn parse(root: &Path, url: &str) -> Option<FileUrl> {
        let url = url::Url::parse(url).ok().filter(|url| url.scheme() == "file" && url.host().is_none())?;
        let path = percent_decode(url.path())?;
        let relative = Path::new(path.strip_prefix('/')?);
        let is_below = relative.components().all(|component| matches!(component, Component::Normal(_)));
        is_below.then(|| FileUrl(root.join(relative)))
    }

    /// Opens the file, at the begin of the span if its content is not compressed. Blocks.
    pub(super) fn open(self, span: &Span) -> io::Result<Opened> {
        let mut file = File::open(&self.0)?;
        let skipped = if span.codec == Codec::None { span.skip } else { 0 };
        file.seek(SeekFrom::Start(skipped))?;
        Ok(Opened { bytes: Box::new(file), codec: span.codec, skipped })
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
        let path = |url| FileUrl::parse(Path::new("/root"), url).map(|file| file.0);
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
            if let Some(path) = FileUrl::parse(Path::new("/root"), &format!("file:///{tail}")).map(|file| file.0) {
                let below = path.strip_prefix("/root").unwrap();
                proptest::prop_assert!(below.components().all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
