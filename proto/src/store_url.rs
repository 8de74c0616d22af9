//! URLs of fragment stores: `s3://bucket/prefix/`, `file:///`, ….

use crate::invalid::{Invalid, ensure};
use crate::names::Parents;
use crate::url_parts::{UrlParts, split_url};
use std::borrow::Cow;

/// A valid fragment store URL, split. Its path has no `..` element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUrl {
    /// `s3`, `gs`, `azure`, `azure-ad` or `file`.
    pub scheme: String,
    /// Bucket, container or tenant id; empty for `file`.
    pub host: String,
    /// Absolute path which ends in `/`, with percent-encoding removed. For `azure-ad` its first two elements are storage
    /// account and container.
    pub path: String,
    /// Arguments of the store, still encoded; without the question mark.
    pub query: String,
}

impl StoreUrl {
    /// Parses and checks a URL.
    pub fn parse(url: &str) -> Result<StoreUrl, Invalid> {
        let parts = check(url, Parents::Refuse)?;
        let path =
            String::from_utf8(parts.path).map_err(|_| Invalid::new(format!("path is not UTF-8 ({url})")))?;
        Ok(StoreUrl {
            scheme: parts.scheme,
            host: parts.host.to_owned(),
            path,
            query: parts.query.to_owned(),
        })
    }

    /// Decoded (name, value) pairs of the query, in order.
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        url::form_urlencoded::parse(self.query.as_bytes())
    }
}

/// Checks the rules of the journal protocol §3.5. Only URLs which are merely stored may have `..` elements.
pub(crate) fn check(url: &str, parents: Parents) -> Result<UrlParts<'_>, Invalid> {
    let parts = split_url(url)?;
    ensure!(!parts.scheme.is_empty(), "not absolute ({url})");
    match parts.scheme.as_str() {
        "s3" | "gs" | "azure" => ensure!(!parts.host.is_empty(), "missing bucket ({url})"),
        "azure-ad" => check_azure_ad(url, &parts)?,
        "file" => ensure!(parts.host.is_empty(), "file scheme cannot have host ({url})"),
        scheme => return Err(Invalid::new(format!("invalid scheme ({scheme})"))),
    }
    ensure!(
        parts.path.ends_with(b"/"),
        "path component doesn't end in '/' ({})",
        String::from_utf8_lossy(&parts.path)
    );
    let ascends = parts.path.split(|b| *b == b'/').any(|element| element == b"..");
    ensure!(parents == Parents::Permit || !ascends, "path cannot have a '..' element ({url})");
    Ok(parts)
}

fn check_azure_ad(url: &str, parts: &UrlParts<'_>) -> Result<(), Invalid> {
    ensure!(!parts.host.is_empty(), "missing tenant ID ({url})");
    let mut elements = parts.path.split(|b| *b == b'/').skip(1);
    ensure!(elements.next().is_some_and(|account| !account.is_empty()), "missing storage account ({url})");
    ensure!(
        elements.next().is_some_and(|container| !container.is_empty()),
        "missing storage container ({url})"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_their_texts() {
        for url in [
            "s3://my-bucket/?query",
            "gs://my-bucket/path/",
            "azure://container/p/",
            "azure-ad://tenant/account/container/",
            "azure-ad://tenant/account/container/prefix/",
            "file:///",
            "file:///my/path/",
        ] {
            assert!(StoreUrl::parse(url).is_ok(), "{url}");
        }
        for (url, text) in [
            ("/not/absolute", "not absolute (/not/absolute)"),
            ("s3:///path/", "missing bucket (s3:///path/)"),
            ("gs://", "missing bucket (gs://)"),
            ("s3://bucket/path", "path component doesn't end in '/' (/path)"),
            ("s3://bucket", "path component doesn't end in '/' ()"),
            ("file://host/path/", "file scheme cannot have host (file://host/path/)"),
            ("invalid://scheme/", "invalid scheme (invalid)"),
            ("azure-ad:///a/b/", "missing tenant ID (azure-ad:///a/b/)"),
            ("azure-ad://tenant", "missing storage account (azure-ad://tenant)"),
            ("azure-ad://tenant/", "missing storage account (azure-ad://tenant/)"),
            ("azure-ad://tenant/acct", "missing storage container (azure-ad://tenant/acct)"),
            ("azure-ad://tenant/acct/", "missing storage container (azure-ad://tenant/acct/)"),
            ("azure-ad://tenant/acct/cont", "path component doesn't end in '/' (/acct/cont)"),
            ("file:///a/../../etc/", "path cannot have a '..' element (file:///a/../../etc/)"),
            ("file:///%2e%2e/etc/", "path cannot have a '..' element (file:///%2e%2e/etc/)"),
        ] {
            assert_eq!(StoreUrl::parse(url).unwrap_err().to_string(), text);
        }
        assert!(StoreUrl::parse(":garbage: :").is_err());
        assert!(check("file:///../", Parents::Permit).is_ok());
    }

    #[test]
    fn parts_are_split_and_decoded() {
        let url = StoreUrl::parse("s3://bucket/a%20b/?profile=x%26y&find=&flag").unwrap();
        assert_eq!((url.scheme.as_str(), url.host.as_str(), url.path.as_str()), ("s3", "bucket", "/a b/"));
        let pairs: Vec<_> = url.query_pairs().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(pairs, ["profile=x&y", "find=", "flag="]);
    }
}
