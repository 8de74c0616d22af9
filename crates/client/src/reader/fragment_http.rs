//! Fragments at `http://` and `https://` URLs, which brokers sign.
//!
//! The store may decompress content itself where it is stored so that it can (GZIP_OFFLOAD_DECOMPRESSION), and says so in
//! `Content-Encoding`. Bytes of the other codecs are taken as they are stored.

use super::fragment_content::{Opened, Span};
use crate::client::JournalClient;
use fragment::Codec;
use futures::TryStreamExt;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, RANGE};
use reqwest::{Client, Response, StatusCode, Url};
use std::io;
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
    runtime: Handle,
}

impl HttpUrl {
    /// None if it is another kind of URL. Called within a runtime.
    pub(super) fn parse(client: &JournalClient, url: &str) -> Option<HttpUrl> {
        let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        Some(HttpUrl { client: client.http()?, url, runtime: Handle::current() })
    }

    /// Asks for the fragment, from the begin of the span on if its content is not compressed. Blocks.
    pub(super) fn open(self, span: &Span) -> io::Result<Opened> {
        let skip = if span.codec == Codec::None { span.skip } else { 0 };
        let response = self.runtime.block_on(self.get(span.codec, skip))?;
        let is_partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let is_gzip = response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
        let codec = match span.codec {
            Codec::GzipOffload if !is_gzip => Codec::None,
            codec => codec,
        };
        let bytes = response.bytes_stream().map_err(|error| io::Error::other(error.without_url()));
        let bytes = SyncIoBridge::new_with_handle(StreamReader::new(bytes), self.runtime);
        Ok(Opened { bytes: Box::new(bytes), codec, skipped: if is_partial { skip } else { 0 } })
    }

    async fn get(&self, codec: Codec, skip: u64) -> io::Result<Response> {
        let encoding = if codec == Codec::Gzip { "gzip" } else { "identity" };
        let mut request = self.client.get(self.url.clone()).header(ACCEPT_ENCODING, encoding);
        if skip > 0 {
            request = request.header(RANGE, format!("bytes={skip}-"));
        }
        // An error's text must not hold the URL, whose arguments are secret.
        let response = request.send().await.map_err(|error| io::Error::other(error.without_url()))?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            status => Err(io::Error::other(format!("the store answered {status}"))),
        }
    }
}
