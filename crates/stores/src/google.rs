//! Clients of Google Cloud Storage.

use std::path::PathBuf;
use std::sync::Arc;

use http::header::ACCEPT_ENCODING;
use object_store::client::{HttpConnector, ReqwestConnector};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::{Error, HeaderMap, HeaderValue, Result};
use serde::Deserialize;

use crate::cloud_place::{Clients, Purpose, Whole};
use crate::odd_keys::Tolerant;
use crate::{Environment, StoreTimes};

/// What must be in the file of a service account. The client reads the rest.
#[derive(Deserialize)]
struct ServiceAccount {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    private_key: String,
}

/// The clients of `bucket`. Reads the file of a service account, which blocks.
///
/// # Errors
/// A text which says what is missing.
pub(crate) fn clients(
    bucket: &str,
    environment: &Environment,
    times: &StoreTimes,
) -> Result<Clients, String> {
    let key = service_account(environment)?;
    let base = environment.get("STORAGE_EMULATOR_HOST").map(|host| {
        let host = host.trim_end_matches('/');
        if host.contains("://") { host.to_owned() } else { format!("http://{host}") }
    });
    let text = |error: Error| error.to_string();
    let client = |purpose: Purpose| {
        let plain_http = base.as_ref().is_some_and(|base| base.starts_with("http://"));
        let mut options = purpose.options(plain_http, times);
        if purpose == Purpose::Reads {
            // Otherwise what is stored with a content encoding is decompressed on its way.
            let stored = (ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
            options = options.with_default_headers(HeaderMap::from_iter([stored]));
        }
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(bucket)
            .with_service_account_key(&key)
            .with_client_options(options)
            .with_http_connector(Tolerant)
            .with_retry(purpose.retries());
        if let Some(base) = &base {
            builder = builder.with_base_url(base);
        }
        builder.build().map(Arc::new).map_err(text)
    };
    let requests: Arc<GoogleCloudStorage> = client(Purpose::Requests)?;
    let options = Purpose::Requests.options(true, times);
    let fetcher = ReqwestConnector::default().connect(&options).map_err(text)?;
    Ok(Clients {
        reads: client(Purpose::Reads)?,
        uploads: Box::new(Whole(client(Purpose::Uploads)?)),
        pages: requests.clone(),
        signer: requests.clone(),
        // The client takes it for what it is to be in the URL.
        signed_path: encode,
        requests,
        fetcher,
    })
}

/// The JSON of the service account which is the default of applications.
fn service_account(environment: &Environment) -> Result<String, String> {
    let well_known = || {
        let home = PathBuf::from(environment.get("HOME")?);
        Some(home.join(".config/gcloud/application_default_credentials.json"))
    };
    let path = environment.get("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from).or_else(well_known);
    let path = path.ok_or("GOOGLE_APPLICATION_CREDENTIALS is not set")?;
    let text = std::fs::read_to_string(&path).map_err(|error| {
        format!("Google credentials {}: {error} (GOOGLE_APPLICATION_CREDENTIALS)", path.display())
    })?;
    let account: ServiceAccount = serde_json::from_str(&text)
        .map_err(|error| format!("Google credentials {}: {error}", path.display()))?;
    if account.kind != "service_account" || account.private_key.is_empty() {
        return Err(format!(
            "Google credentials {} are of type {:?} (expected \"service_account\" with a private key, which signs URLs)",
            path.display(),
            account.kind
        ));
    }
    Ok(text)
}

/// Percent-encodes all but what a path may always hold.
fn encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                encoded.push(byte.into());
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_must_be_able_to_sign() {
        let dir = tempfile::tempdir().unwrap();
        let problem = |text: Option<&str>| {
            let path = dir.path().join("key.json");
            let mut variables = Vec::new();
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
                variables.push(("GOOGLE_APPLICATION_CREDENTIALS".to_owned(), path.display().to_string()));
            }
            service_account(&variables.into_iter().collect()).unwrap_err()
        };
        assert_eq!(problem(None), "GOOGLE_APPLICATION_CREDENTIALS is not set");
        for text in [r#"{"type": "authorized_user"}"#, r#"{"type": "service_account"}"#, "{}"] {
            let problem = problem(Some(text));
            assert!(problem.contains("expected \"service_account\" with a private key"), "{problem}");
        }
        assert!(problem(Some("{")).contains("key.json: EOF while parsing"));
    }

    #[test]
    fn keys_are_encoded_for_urls() {
        assert_eq!(encode("a/date=1/x y%41é"), "a/date%3D1/x%20y%2541%C3%A9");
    }
}
