//! Listings without keys that cannot be told.
//!
//! A bucket may hold objects of others, below a journal's prefix too. The client library ends a listing with an error at
//! the first key which is no path to it (`a//b`, `a/./b`): nothing of the journal could be listed, and nothing appended to
//! it. Such entries are taken out of listings before the library reads them, with a log line each.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService, ReqwestConnector,
};
use object_store::path::Path;

/// Largest page of a listing: the most entries with the longest keys are far below.
const PAGE_BYTES_MAX: usize = 32 << 20;
/// Entries of the listings of S3 and Google, and of Azure: what begins an entry, its key, and what ends it.
const ENTRIES: [(&str, &str, &str); 2] =
    [("<Contents>", "<Key>", "</Contents>"), ("<Blob>", "<Name>", "</Blob>")];

/// Makes clients which do not show odd keys.
#[derive(Debug)]
pub(crate) struct Tolerant;

impl HttpConnector for Tolerant {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(TolerantClient(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct TolerantClient(HttpClient);

#[async_trait]
impl HttpService for TolerantClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let query = request.uri().query().unwrap_or_default();
        let lists = query.split('&').any(|pair| matches!(pair, "list-type=2" | "comp=list"));
        let lists = lists && request.method() == Method::GET;
        let response = self.0.execute(request).await?;
        if !lists || !response.status().is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let page = whole(body).await?;
        let page = match std::str::from_utf8(&page).ok().and_then(without_odd_keys) {
            Some(rest) => Bytes::from(rest),
            None => page,
        };
        Ok(HttpResponse::from_parts(parts, page.into()))
    }
}

async fn whole(body: HttpResponseBody) -> Result<Bytes, HttpError> {
    use futures::TryStreamExt;
    let mut chunks = body.bytes_stream();
    let mut whole = Vec::new();
    while let Some(chunk) = chunks.try_next().await? {
        if whole.len() + chunk.len() > PAGE_BYTES_MAX {
            return Err(HttpError::new(HttpErrorKind::Decode, TooLong));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}

#[derive(Debug)]
struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a page of a listing has more than {PAGE_BYTES_MAX} bytes")
    }
}

impl std::error::Error for TooLong {}

/// The page of a listing without its odd entries; `None` if there are none.
fn without_odd_keys(page: &str) -> Option<String> {
    let (begin, name, end) = ENTRIES.into_iter().find(|(begin, _, _)| page.contains(begin))?;
    let mut kept = String::new();
    let mut done = 0;
    for (at, _) in page.match_indices(begin) {
        let entry = &page[at..];
        let entry = &entry[..entry.find(end).map_or(entry.len(), |found| found + end.len())];
        let key = entry.split_once(name).map_or("", |(_, rest)| rest.split('<').next().unwrap_or_default());
        let key = unescaped(key);
        if Path::parse(&key).is_err() {
            tracing::warn!(key, "skipping an object whose key cannot be used");
            kept.push_str(&page[done..at]);
            done = at + entry.len();
        }
    }
    (done > 0).then(|| kept + &page[done..])
}

/// Text of XML as it was before it was escaped.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        let (entity, after) = after.split_once(';').unwrap_or((after, ""));
        let number = |digits: &str, radix| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
        let character = match entity {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => match entity.strip_prefix("#x") {
                Some(digits) => number(digits, 16),
                None => entity.strip_prefix('#').and_then(|digits| number(digits, 10)),
            },
        };
        plain.extend(character);
        rest = after;
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_entries_are_taken_out() {
        let entry = |key: &str| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>");
        let page = |keys: &[&str]| {
            format!("<L>{}<T>x</T></L>", keys.iter().map(|key| entry(key)).collect::<String>())
        };
        let fine = ["a/b", "a/b/", "a &amp; b/&lt;c&gt;", "d&#39;e&#x41;"];
        assert_eq!(without_odd_keys(&page(&fine)), None);
        assert_eq!(without_odd_keys("<L></L>"), None);
        for odd in ["a//b", "a/./b", "../a", "a//"] {
            let mixed = page(&[fine[0], odd, fine[2], odd]);
            assert_eq!(without_odd_keys(&mixed), Some(page(&[fine[0], fine[2]])), "{odd}");
        }
        let azure = "<L><Blob><Name>a//b</Name></Blob><Blob><Name>c</Name></Blob></L>";
        assert_eq!(without_odd_keys(azure).as_deref(), Some("<L><Blob><Name>c</Name></Blob></L>"));
    }

    #[test]
    fn entities_are_characters() {
        assert_eq!(unescaped("a&amp;b&lt;c&gt;&quot;&apos;&#39;&#x41;&nbsp;z"), "a&b<c>\"''Az");
        assert_eq!(unescaped("a&amp"), "a&");
    }
}
