//! Store URLs taken apart: where a store's root is, how it rewrites the paths below it, and what its arguments say.

use std::sync::Arc;

use proto::{Invalid, StoreUrl};

use crate::StoreError;

/// What a store URL says (journal protocol §10.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) target: Target,
    /// Path of the store's root, without a leading slash; empty or ending in one.
    pub(crate) root: String,
    /// Replaced once in every path, if it is not empty.
    find: String,
    replace: String,
}

/// Whose store it is, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    File,
    S3 { bucket: String, arguments: S3Arguments },
    Google { bucket: String },
    Azure { container: String },
    AzureAd { tenant: String, account: String, container: String },
}

/// Arguments of `s3` URLs. What is empty is as if it were not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct S3Arguments {
    pub(crate) profile: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) acl: Option<String>,
    pub(crate) storage_class: Option<String>,
    pub(crate) sse: Option<String>,
    pub(crate) sse_kms_key_id: Option<String>,
    pub(crate) region: Option<String>,
}

impl S3Arguments {
    fn by_name(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "profile" => &mut self.profile,
            "endpoint" => &mut self.endpoint,
            "acl" => &mut self.acl,
            "storageclass" => &mut self.storage_class,
            "sse" => &mut self.sse,
            "ssekmskeyid" => &mut self.sse_kms_key_id,
            "region" => &mut self.region,
            _ => return None,
        })
    }
}

impl Location {
    /// Parses the URL. Under `file_only` every store is the file store at the root, whatever its URL says besides its
    /// scheme being one of the protocol's.
    pub(crate) fn parse(store: &Arc<str>, file_only: bool) -> Result<Location, StoreError> {
        let invalid = |cause| StoreError::Url { store: store.clone(), cause };
        let url = StoreUrl::parse(store).map_err(invalid)?;
        let (mut find, mut replace) = (String::new(), String::new());
        if file_only {
            return Ok(Location { target: Target::File, root: String::new(), find, replace });
        }
        let mut arguments = S3Arguments::default();
        for (name, value) in url.query_pairs() {
            let value = value.into_owned();
            match name.to_ascii_lowercase().as_str() {
                "find" => find = value,
                "replace" => replace = value,
                lower if url.scheme == "s3" && arguments.by_name(lower).is_some() => {
                    *arguments.by_name(lower).expect("it was there") = Some(value).filter(|v| !v.is_empty());
                }
                _ => {
                    let problem = format!("unknown argument {name:?}");
                    return Err(StoreError::Arguments { store: store.clone(), problem });
                }
            }
        }
        let (target, root) = target(&url, arguments).map_err(invalid)?;
        Ok(Location { target, root, find, replace })
    }

    /// `path`, which begins with a journal's name, as this store spells it below its root.
    pub(crate) fn rewrite(&self, path: &str) -> String {
        if self.find.is_empty() { path.to_owned() } else { path.replacen(&self.find, &self.replace, 1) }
    }
}

/// Whose store `url` is, and its root.
fn target(url: &StoreUrl, arguments: S3Arguments) -> Result<(Target, String), Invalid> {
    let path = url.path.trim_start_matches('/');
    let host = url.host.clone();
    let (target, root) = match url.scheme.as_str() {
        "file" => return Ok((Target::File, path.to_owned())),
        "s3" => (Target::S3 { bucket: host, arguments }, path),
        "gs" => (Target::Google { bucket: host }, path),
        "azure" => (Target::Azure { container: host }, path),
        "azure-ad" => {
            let (account, rest) = path.split_once('/').unwrap_or_default();
            let (container, root) = rest.split_once('/').unwrap_or_default();
            let (account, container) = (account.to_owned(), container.to_owned());
            (Target::AzureAd { tenant: host, account, container }, root)
        }
        scheme => return Err(Invalid::new(format!("invalid scheme ({scheme})"))),
    };
    // Keys with such elements could be written, but not be listed by all clients.
    let odd = |element: &str| matches!(element, "" | "." | "..");
    if root.strip_suffix('/').is_some_and(|root| root.split('/').any(odd)) {
        return Err(Invalid::new(format!("path cannot have an empty, '.' or '..' element ({})", url.path)));
    }
    Ok((target, root.to_owned()))
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
            rewrite("gs://bucket/?find=/bar/&replace=/baz/bing/", "foo/bar/x/bar/"),
            "foo/baz/bing/x/bar/"
        );
        assert_eq!(rewrite("file:///?FIND=foo/", "foo/bar/x"), "bar/x");
        assert_eq!(rewrite("file:///?replace=x", "foo/bar/x"), "foo/bar/x");
        assert_eq!(parse("file:///a/b/").unwrap().root, "a/b/");
        assert_eq!(parse("file:///").unwrap().root, "");
    }

    #[test]
    fn every_scheme_has_its_target_and_root() {
        let parsed = |url: &str| parse(url).map(|location| (location.target, location.root)).unwrap();
        let plain =
            |bucket: &str| Target::S3 { bucket: bucket.to_owned(), arguments: S3Arguments::default() };
        assert_eq!(parsed("s3://bucket/"), (plain("bucket"), String::new()));
        assert_eq!(parsed("s3://bucket/a%20b/c/"), (plain("bucket"), "a b/c/".to_owned()));
        assert_eq!(parsed("gs://b/p/"), (Target::Google { bucket: "b".to_owned() }, "p/".to_owned()));
        assert_eq!(parsed("azure://c/p/"), (Target::Azure { container: "c".to_owned() }, "p/".to_owned()));
        let azure_ad = |container: &str| Target::AzureAd {
            tenant: "tenant".to_owned(),
            account: "account".to_owned(),
            container: container.to_owned(),
        };
        assert_eq!(parsed("azure-ad://tenant/account/c/"), (azure_ad("c"), String::new()));
        assert_eq!(parsed("azure-ad://tenant/account/c/p/q/"), (azure_ad("c"), "p/q/".to_owned()));
    }

    #[test]
    fn arguments_are_known_in_any_case() {
        let url = "s3://b/?Profile=p&ENDPOINT=http://e&acl=a&storageclass=s&SSE=aws:kms&sseKmsKeyId=k&region=r&find=";
        let expected = S3Arguments {
            profile: Some("p".to_owned()),
            endpoint: Some("http://e".to_owned()),
            acl: Some("a".to_owned()),
            storage_class: Some("s".to_owned()),
            sse: Some("aws:kms".to_owned()),
            sse_kms_key_id: Some("k".to_owned()),
            region: Some("r".to_owned()),
        };
        let target = Target::S3 { bucket: "b".to_owned(), arguments: expected };
        assert_eq!(parse(url).unwrap().target, target);
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let cases = [
            (
                "file:///?find=a&other=b",
                "parsing store URL arguments: unknown argument \"other\" (fragment store \"file:///?find=a&other=b\")",
            ),
            (
                "gs://bucket/?region=a",
                "parsing store URL arguments: unknown argument \"region\" (fragment store \"gs://bucket/?region=a\")",
            ),
            ("file:///a", "invalid fragment store \"file:///a\": path component doesn't end in '/' (/a)"),
            (
                "file:///../",
                "invalid fragment store \"file:///../\": path cannot have a '..' element (file:///../)",
            ),
            (
                "s3://bucket/a//b/",
                "invalid fragment store \"s3://bucket/a//b/\": path cannot have an empty, '.' or '..' element (/a//b/)",
            ),
        ];
        for (url, expected) in cases {
            assert_eq!(parse(url).unwrap_err(), expected);
        }
    }

    #[test]
    fn file_only_maps_every_scheme_to_the_root() {
        let location = Location::parse(&"s3://bucket/prefix/?profile=x&find=a".into(), true).unwrap();
        assert_eq!((location.target.clone(), location.root.as_str()), (Target::File, ""));
        assert_eq!(location.rewrite("a/b"), "a/b");
        assert!(Location::parse(&"s3://".into(), true).is_err());
    }
}
