//! Store URLs taken apart: where a store's root is, and how it rewrites the paths below it.

use std::sync::Arc;

use proto::StoreUrl;

use crate::StoreError;

/// What a store URL says (journal protocol §10.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) scheme: String,
    /// Path of the store's root, without a leading slash; empty or ending in one.
    pub(crate) root: String,
    /// Replaced once in every path, if it is not empty.
    find: String,
    replace: String,
}

impl Location {
    /// Parses the URL. Under `file_only` every store is the file store at the root, whatever its URL says besides its
    /// scheme being one of the protocol's.
    pub(crate) fn parse(store: &Arc<str>, file_only: bool) -> Result<Location, StoreError> {
        let url = StoreUrl::parse(store).map_err(|cause| StoreError::Url { store: store.clone(), cause })?;
        let (mut find, mut replace) = (String::new(), String::new());
        if file_only {
            return Ok(Location { scheme: "file".to_owned(), root: String::new(), find, replace });
        }
        if url.scheme != "file" {
            return Err(StoreError::UnsupportedScheme { store: store.clone(), scheme: url.scheme });
        }
        for (name, value) in url.query_pairs() {
            match name.to_ascii_lowercase().as_str() {
                "find" => find = value.into_owned(),
                "replace" => replace = value.into_owned(),
                _ => return Err(StoreError::Arguments { store: store.clone(), argument: name.into_owned() }),
            }
        }
        let root = url.path.trim_start_matches('/').to_owned();
        Ok(Location { scheme: url.scheme, root, find, replace })
    }

    /// `path`, which begins with a journal's name, as this store spells it below its root.
    pub(crate) fn rewrite(&self, path: &str) -> String {
        if self.find.is_empty() { path.to_owned() } else { path.replacen(&self.find, &self.replace, 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Location, String> {
        Location::parse(&url.into(), false).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_occurrence_is_rewritten() {
        let rewrite = |url: &str, path: &str| parse(url).unwrap().rewrite(path);
        assert_eq!(rewrite("file:///a/b/", "foo/bar/x"), "foo/bar/x");
        assert_eq!(
            rewrite("file:///?find=/bar/&replace=/baz/bing/", "foo/bar/x/bar/"),
            "foo/baz/bing/x/bar/"
        );
        assert_eq!(rewrite("file:///?FIND=foo/", "foo/bar/x"), "bar/x");
        assert_eq!(rewrite("file:///?replace=x", "foo/bar/x"), "foo/bar/x");
        assert_eq!(parse("file:///a/b/").unwrap().root, "a/b/");
        assert_eq!(parse("file:///").unwrap().root, "");
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let cases = [
            ("s3://bucket/", "scheme s3 is not supported by this build (fragment store \"s3://bucket/\")"),
            (
                "file:///?find=a&other=b",
                "parsing store URL arguments: unknown argument \"other\" (fragment store \"file:///?find=a&other=b\")",
            ),
            ("file:///a", "invalid fragment store \"file:///a\": path component doesn't end in '/' (/a)"),
            (
                "file:///../",
                "invalid fragment store \"file:///../\": path cannot have a '..' element (file:///../)",
            ),
        ];
        for (url, expected) in cases {
            assert_eq!(parse(url).unwrap_err(), expected);
        }
    }

    #[test]
    fn file_only_maps_every_scheme_to_the_root() {
        let location = Location::parse(&"s3://bucket/prefix/?profile=x&find=a".into(), true).unwrap();
        assert_eq!((location.scheme.as_str(), location.root.as_str()), ("file", ""));
        assert_eq!(location.rewrite("a/b"), "a/b");
        assert!(Location::parse(&"s3://".into(), true).is_err());
    }
}
