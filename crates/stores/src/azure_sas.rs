//! Signed URLs of Azure's blobs: shared access signatures of one blob, for reading, by the account's key or by a key which
//! the service gives to an application.
//!
//! The client library signs the path as a URL spells it, and the service checks it as it is: names with a percent sign, a
//! space or a letter beyond ASCII would not be readable.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use object_store::azure::{AzureCredential, AzureCredentialProvider};
use object_store::client::HttpClient;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{Error, Result};
use runtime::Clock;
use url::Url;

/// Version of the signatures, and of the request for a key.
const VERSION: &str = "2023-11-03";
/// How long a key of the service is good for. It is replaced after half of that.
const KEY_TTL: Duration = Duration::from_secs(2 * 60 * 60);
/// The longest that a URL may be good for: a key of the service lives for at most seven days.
const DELEGATED_TTL_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60 - 60);

/// Whose key signs.
pub(crate) enum Keys {
    /// The account's, in Base64.
    Shared(String),
    /// One of the service's, for whom these credentials are.
    Delegated { client: HttpClient, credentials: AzureCredentialProvider },
}

/// Signs URLs of the blobs of one container.
pub(crate) struct AzureSas {
    account: String,
    container: String,
    /// The service's URL, without a trailing slash.
    service: Url,
    keys: Keys,
    clock: Clock,
    /// The last key of the service.
    last: Mutex<Option<Arc<Delegation>>>,
}

/// A key of the service, as it describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Delegation {
    oid: String,
    tid: String,
    start: String,
    expiry: String,
    service: String,
    version: String,
    value: String,
    /// Until when it is used for new URLs.
    fresh_until: Duration,
}

impl AzureSas {
    pub(crate) fn new(
        (account, container): (&str, &str),
        service: Url,
        keys: Keys,
        clock: Clock,
    ) -> AzureSas {
        let (account, container) = (account.to_owned(), container.to_owned());
        AzureSas { account, container, service, keys, clock, last: Mutex::new(None) }
    }

    /// The key which the service gives for URLs of `ttl`.
    async fn delegation(
        &self,
        client: &HttpClient,
        credentials: &AzureCredentialProvider,
        ttl: Duration,
    ) -> Result<Arc<Delegation>> {
        let now = self.clock.unix_now();
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if ttl <= KEY_TTL / 2
            && let Some(last) = last
            && now < last.fresh_until
        {
            return Ok(last);
        }
        let lives = KEY_TTL.max(2 * ttl).min(DELEGATED_TTL_MAX + Duration::from_secs(60));
        let credential = credentials.get_credential().await?;
        let AzureCredential::BearerToken(token) = &*credential else {
            return Err(failed("the credentials are not those of an application"));
        };
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><KeyInfo><Start>{}</Start><Expiry>{}</Expiry></KeyInfo>",
            timestamp(now),
            timestamp(now + lives)
        );
        let url = format!("{}?restype=service&comp=userdelegationkey", self.blob_url(None)?);
        let request = http::Request::post(url)
            .header("authorization", format!("Bearer {token}"))
            .header("x-ms-version", VERSION)
            .header("content-type", "application/xml")
            .body(Bytes::from(body).into())
            .map_err(failed)?;
        let response = client.execute(request).await.map_err(failed)?;
        let status = response.status();
        let body = response.into_body().bytes().await.map_err(failed)?;
        let text = String::from_utf8_lossy(&body);
        if !status.is_success() {
            return Err(failed(format!("key for signing: status code: {status}: {text}")));
        }
        let key = Delegation::parse(&text, now + lives / 2)
            .ok_or_else(|| failed("the key for signing is no key"))?;
        let key = Arc::new(key);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.clone());
        Ok(key)
    }

    fn blob_url(&self, blob: Option<&Path>) -> Result<Url> {
        let mut url = self.service.clone();
        let mut segments = url.path_segments_mut().map_err(|()| failed("the endpoint is no base of URLs"))?;
        match blob {
            Some(blob) => segments.pop_if_empty().push(&self.container).extend(blob.as_ref().split('/')),
            None => segments.pop_if_empty().push(""),
        };
        drop(segments);
        Ok(url)
    }

    /// The URL, signed by `key`.
    fn sign(&self, blob: &Path, ttl: Duration, delegation: Option<&Delegation>) -> Result<Url> {
        let expiry = timestamp(self.clock.unix_now() + ttl);
        let protocol = if self.service.scheme() == "https" { "https" } else { "https,http" };
        let resource = format!("/blob/{}/{}/{blob}", self.account, self.container);
        let mut fields = vec!["r", "", &expiry, &resource];
        let mut pairs = vec![("sv", VERSION), ("sp", "r"), ("se", &expiry), ("sr", "b"), ("spr", protocol)];
        match delegation {
            None => fields.push(""),
            Some(key) => {
                let named = [
                    ("skoid", &key.oid),
                    ("sktid", &key.tid),
                    ("skt", &key.start),
                    ("ske", &key.expiry),
                    ("sks", &key.service),
                    ("skv", &key.version),
                ];
                fields.extend(named.iter().map(|(_, value)| value.as_str()));
                fields.extend(["", "", ""]);
                pairs.extend(named.iter().map(|(name, value)| (*name, value.as_str())));
            }
        }
        fields.extend(["", protocol, VERSION, "b", "", "", "", "", "", "", ""]);
        let key = match (&self.keys, delegation) {
            (_, Some(key)) => &key.value,
            (Keys::Shared(key), None) => key,
            (Keys::Delegated { .. }, None) => return Err(failed("there is no key to sign with")),
        };
        let key = STANDARD.decode(key).map_err(failed)?;
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), fields.join("\n").as_bytes());
        let mut url = self.blob_url(Some(blob))?;
        url.query_pairs_mut().extend_pairs(pairs).append_pair("sig", &STANDARD.encode(signature));
        Ok(url)
    }
}

impl Delegation {
    /// Reads the service's answer.
    fn parse(xml: &str, fresh_until: Duration) -> Option<Delegation> {
        let value = |name: &str| {
            let (_, rest) = xml.split_once(&format!("<{name}>"))?;
            rest.split_once(&format!("</{name}>")).map(|(value, _)| value.to_owned())
        };
        Some(Delegation {
            oid: value("SignedOid")?,
            tid: value("SignedTid")?,
            start: value("SignedStart")?,
            expiry: value("SignedExpiry")?,
            service: value("SignedService")?,
            version: value("SignedVersion")?,
            value: value("Value")?,
            fresh_until,
        })
    }
}

impl fmt::Debug for AzureSas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureSas").field("account", &self.account).finish_non_exhaustive()
    }
}

#[async_trait]
impl Signer for AzureSas {
    async fn signed_url(&self, method: Method, path: &Path, expires_in: Duration) -> Result<Url> {
        if method != Method::GET {
            return Err(failed(format!("{method} is not signed (expected GET)")));
        }
        match &self.keys {
            Keys::Shared(_) => self.sign(path, expires_in, None),
            Keys::Delegated { client, credentials } => {
                if expires_in > DELEGATED_TTL_MAX {
                    return Err(failed(format!(
                        "a URL cannot be good for {expires_in:?} (expected at most {DELEGATED_TTL_MAX:?})"
                    )));
                }
                let key = self.delegation(client, credentials, expires_in).await?;
                self.sign(path, expires_in, Some(&key))
            }
        }
    }
}

fn timestamp(unix: Duration) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + unix).to_string()
}

fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: "MicrosoftAzure", source: source.into() }
}

#[cfg(test)]
mod tests;
