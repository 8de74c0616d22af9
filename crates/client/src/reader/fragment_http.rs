//! Fragments at `http://` and `https://` URLs, which brokers sign.
//!
//! The store may decompress content itself where it is stored so that it can (GZIP_OFFLOAD_DECOMPRESSION), and says so in
//! `Content-Encoding`. Bytes of the other codecs are taken as they are stored.

use super::fragment_content::{Opened, Place};
use crate::client::JournalClient;
use bytes::Bytes;
use fragment::Codec;
use fragment::compress::SkipRead;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode, Url};
use std::io::{self, Read};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// Time to connect to a store.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the next bytes of a store.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The client of stores. None if this machine's certificates cannot be read, and the like; the log says why.
pub(crate) fn http_client() -> Option<Client> {
    let client = Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT).build();
    client.inspect_err(|error| tracing::warn!(%error, "fragments cannot be read from their URLs")).ok()
}

/// A URL which this client can read.
pub(super) struct HttpUrl {
    client: Client,
    url: Url,
    codec: Codec,
    runtime: Handle,
}

impl HttpUrl {
    /// None if it is another kind of URL. Called within a runtime.
    pub(super) fn parse(client: &JournalClient, url: &str, codec: Codec) -> Option<HttpUrl> {
        let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        Some(HttpUrl { client: client.http()?, url, codec, runtime: Handle::current() })
    }

    async fn get(&self, range: Option<String>) -> io::Result<Response> {
        let encoding = if self.codec == Codec::Gzip { "gzip" } else { "identity" };
        let mut request = self.client.get(self.url.clone()).header(ACCEPT_ENCODING, encoding);
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        // An error's text must not hold the URL, whose arguments are secret.
        let response = request.send().await.map_err(|error| io::Error::other(error.without_url()))?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            status => Err(io::Error::other(format!("the store answered {status}"))),
        }
    }

    /// A part of the file, and the length of the whole. None if that is not what the store answers.
    async fn get_part(&self, range: String) -> Option<(Response, u64)> {
        let response = self.get(Some(range)).await.ok().filter(is_partial)?;
        let of = response.headers().get(CONTENT_RANGE)?.to_str().ok()?.rsplit('/').next()?;
        let length = of.parse().ok()?;
        Some((response, length))
    }
}

impl Place for HttpUrl {
    fn open(&self, begin: u64) -> io::Result<Opened> {
        let range = (begin > 0).then(|| format!("bytes={begin}-"));
        let response = self.runtime.block_on(self.get(range))?;
        let begin = if is_partial(&response) { begin } else { 0 };
        let stored = response.content_length();
        let is_gzip = response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
        let codec = match self.codec {
            Codec::GzipOffload if !is_gzip => Codec::None,
            codec => codec,
        };
        let bytes: BoxStream<'static, io::Result<Bytes>> =
            Box::pin(response.bytes_stream().map_err(|error| io::Error::other(error.without_url())));
        let bytes = SyncIoBridge::new_with_handle(StreamReader::new(bytes), self.runtime.clone());
        Ok(Opened { bytes: Box::new(Body(bytes)), codec, begin, stored })
    }

    fn end(&self, bytes: u64) -> io::Result<Option<(Vec<u8>, u64)>> {
        self.runtime.block_on(async {
            let part = match self.get_part(format!("bytes=-{bytes}")).await {
                // Some stores cannot count from the end.
                None => {
                    let Some((_, length)) = self.get_part("bytes=0-0".to_owned()).await else {
                        return Ok(None);
                    };
                    self.get_part(format!("bytes={}-", length.saturating_sub(bytes))).await
                }
                part => part,
            };
            let Some((mut response, length)) = part else { return Ok(None) };
            let mut end = Vec::new();
            while let Some(more) =
                response.chunk().await.map_err(|error| io::Error::other(error.without_url()))?
            {
                if (end.len() + more.len()) as u64 > bytes {
                    return Ok(None);
                }
                end.extend_from_slice(&more);
            }
            Ok(Some((end, length)))
        })
    }
}

fn is_partial(response: &Response) -> bool {
    response.status() == StatusCode::PARTIAL_CONTENT
}

/// The body of a response.
struct Body(SyncIoBridge<StreamReader<BoxStream<'static, io::Result<Bytes>>, Bytes>>);

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl SkipRead for Body {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        match io::copy(&mut self.0.by_ref().take(bytes), &mut io::sink())? {
            skipped if skipped == bytes => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
