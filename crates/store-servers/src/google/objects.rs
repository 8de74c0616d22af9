//! The objects of a bucket.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use runtime::Clock;

use crate::http_server::{Answer, answer, error_answer, full, http_date};

/// Entries of a page of a listing, unless fewer are asked for: few, so that tests see more than one page.
const PAGE_ENTRIES: usize = 10;
/// Least bytes of a part which is not the last.
const PART_BYTES_MIN: usize = 5 << 20;

#[derive(Default)]
pub(crate) struct Bucket {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    /// Counts what was stored, for tags and upload ids.
    serial: u64,
}

#[derive(Clone)]
struct Object {
    content: Bytes,
    encoding: Option<String>,
    tag: String,
    modified: Duration,
    modified_text: String,
}

struct Upload {
    key: String,
    encoding: Option<String>,
    parts: BTreeMap<usize, (String, Bytes)>,
}

impl Bucket {
    pub(crate) fn answer(
        &mut self,
        request: &Request<Bytes>,
        key: &str,
        query: &BTreeMap<String, String>,
        clock: &Clock,
    ) -> Answer {
        let upload = query.get("uploadId");
        match (request.method(), upload) {
            (&Method::GET, _) if key.is_empty() => self.list(query),
            (&Method::GET | &Method::HEAD, _) => self.get(request, key),
            (&Method::PUT, None) => {
                let tag = self.store(key, request.body().clone(), encoding(request.headers()), clock);
                tagged(&tag)
            }
            (&Method::PUT, Some(id)) => self.put_part(id, query, request.body().clone()),
            (&Method::POST, None) if query.contains_key("uploads") => self.begin(key, request.headers()),
            (&Method::POST, Some(id)) => self.complete(id, request.body(), clock),
            (&Method::DELETE, Some(id)) => match self.uploads.remove(id) {
                Some(_) => answer(StatusCode::NO_CONTENT, ""),
                None => error_answer(StatusCode::NOT_FOUND, "NoSuchUpload"),
            },
            (&Method::DELETE, None) => match self.objects.remove(key) {
                Some(_) => answer(StatusCode::NO_CONTENT, ""),
                None => error_answer(StatusCode::NOT_FOUND, "NoSuchKey"),
            },
            _ => error_answer(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn store(&mut self, key: &str, content: Bytes, encoding: Option<String>, clock: &Clock) -> String {
        let tag = format!("\"{}\"", self.next_serial());
        let (modified, modified_text) = (clock.unix_now(), http_date(clock));
        let object = Object { content, encoding, tag: tag.clone(), modified, modified_text };
        self.objects.insert(key.to_owned(), object);
        tag
    }

    fn get(&self, request: &Request<Bytes>, key: &str) -> Answer {
        let Some(object) = self.objects.get(key) else {
            return error_answer(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        let accepts = request.headers().get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
        let accepts = accepts.is_some_and(|accepted| accepted.contains("gzip"));
        let transcodes = object.encoding.as_deref() == Some("gzip") && !accepts;
        let mut response = Response::builder()
            .header(header::ETAG, &object.tag)
            .header(header::LAST_MODIFIED, &object.modified_text)
            .header("x-goog-generation", object.tag.trim_matches('"'));
        let mut content = object.content.clone();
        if transcodes {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&content[..]).read_to_end(&mut plain)?;
            content = plain.into();
            response = response.header("x-goog-stored-content-encoding", "gzip");
        } else if let Some(encoding) = &object.encoding {
            response = response.header(header::CONTENT_ENCODING, encoding);
        }
        let whole = content.len();
        // What is transcoded is always given whole.
        let range = if transcodes { None } else { range(request.headers(), whole) };
        if let Some(range) = range {
            if range.start >= whole {
                return error_answer(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
            }
            let told = format!("bytes {}-{}/{whole}", range.start, range.end - 1);
            response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, told);
            content = content.slice(range);
        }
        let response = response.header(header::CONTENT_LENGTH, content.len());
        let body = if request.method() == Method::HEAD { Bytes::new() } else { content };
        Ok(response.body(full(body))?)
    }

    fn list(&self, query: &BTreeMap<String, String>) -> Answer {
        let value = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        let prefix = value("prefix");
        let after = value("continuation-token").max(value("start-after"));
        let limit = value("max-keys").parse().unwrap_or(PAGE_ENTRIES).min(PAGE_ENTRIES);
        let mut wanted =
            self.objects.iter().filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after).peekable();
        let mut text = "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>".to_owned();
        let mut last = "";
        for (key, object) in wanted.by_ref().take(limit) {
            let modified = humantime::format_rfc3339_millis(UNIX_EPOCH + object.modified);
            let (tag, size) = (escaped(&object.tag), object.content.len());
            text.push_str(&format!(
                "<Contents><Key>{}</Key><LastModified>{modified}</LastModified><ETag>{tag}</ETag><Size>{size}</Size></Contents>",
                escaped(key)
            ));
            last = key;
        }
        if wanted.peek().is_some() {
            text.push_str(&format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(last)));
        }
        text.push_str("</ListBucketResult>");
        answer(StatusCode::OK, text)
    }

    fn begin(&mut self, key: &str, headers: &HeaderMap) -> Answer {
        let id = format!("upload-{}", self.next_serial());
        let upload = Upload { key: key.to_owned(), encoding: encoding(headers), parts: BTreeMap::new() };
        self.uploads.insert(id.clone(), upload);
        answer(
            StatusCode::OK,
            format!(
                "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            ),
        )
    }

    fn put_part(&mut self, id: &str, query: &BTreeMap<String, String>, content: Bytes) -> Answer {
        let tag = format!("\"{}\"", self.next_serial());
        let Some(upload) = self.uploads.get_mut(id) else {
            return error_answer(StatusCode::NOT_FOUND, "NoSuchUpload");
        };
        let number = query.get("partNumber").and_then(|number| number.parse().ok());
        let Some(number) = number.filter(|number| (1..=10_000).contains(number)) else {
            return error_answer(StatusCode::BAD_REQUEST, "InvalidArgument");
        };
        upload.parts.insert(number, (tag.clone(), content));
        tagged(&tag)
    }

    fn complete(&mut self, id: &str, request: &Bytes, clock: &Clock) -> Answer {
        let Some(upload) = self.uploads.get(id) else {
            return error_answer(StatusCode::NOT_FOUND, "NoSuchUpload");
        };
        let text = String::from_utf8_lossy(request);
        let named = text.matches("<PartNumber>").count();
        let tags_named = upload.parts.values().all(|(tag, _)| text.contains(&format!("<ETag>{tag}</ETag>")));
        if named != upload.parts.len() || !tags_named {
            return error_answer(StatusCode::BAD_REQUEST, "InvalidPart");
        }
        let sizes: Vec<usize> = upload.parts.values().map(|(_, content)| content.len()).collect();
        if sizes.iter().rev().skip(1).any(|size| *size < PART_BYTES_MIN) {
            return error_answer(StatusCode::BAD_REQUEST, "EntityTooSmall");
        }
        let Some(upload) = self.uploads.remove(id) else {
            return error_answer(StatusCode::NOT_FOUND, "NoSuchUpload");
        };
        let content: Vec<u8> = upload.parts.into_values().flat_map(|(_, content)| content.to_vec()).collect();
        let tag = self.store(&upload.key, content.into(), upload.encoding, clock);
        let tag = escaped(&tag);
        answer(
            StatusCode::OK,
            format!("<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"),
        )
    }
}

fn tagged(tag: &str) -> Answer {
    Ok(Response::builder().header(header::ETAG, tag).body(full(Bytes::new()))?)
}

fn encoding(headers: &HeaderMap) -> Option<String> {
    headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The range which is asked for, of `whole` bytes.
fn range(headers: &HeaderMap, whole: usize) -> Option<Range<usize>> {
    let asked = headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (first, last) = asked.split_once('-')?;
    let end = last.parse::<usize>().map_or(whole, |last| whole.min(last + 1));
    Some(first.parse().ok()?..end)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
