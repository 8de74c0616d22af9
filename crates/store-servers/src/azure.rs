//! Azure: `azurite`.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request};
use runtime::{BoxError, Clock};
use tempfile::TempDir;

use crate::http_server::{http_date, request};
use crate::process::{Server, installed};
use crate::{Variables, variables};

/// The account and key which the emulator documents.
pub(crate) const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// Version of the protocol of the requests that are made here.
const VERSION: &str = "2021-08-06";

/// A server of blobs. It keeps them in memory.
pub struct AzureServer {
    server: Server,
    _dir: TempDir,
}

impl AzureServer {
    /// Starts one, without containers.
    ///
    /// # Errors
    /// If it is not installed, or does not start.
    pub async fn start() -> Result<AzureServer, BoxError> {
        let program = installed("azurite-3.35.0/node_modules/.bin/azurite-blob")?;
        let dir = tempfile::tempdir()?;
        let arguments =
            ["--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"];
        let server = Server::start(&program, &arguments, dir.path(), "successfully listens on ").await?;
        Ok(AzureServer { server, _dir: dir })
    }

    /// Where it listens: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.server.endpoint
    }

    /// Makes a container.
    ///
    /// # Errors
    /// If the server does not.
    pub async fn create_container(&self, name: &str) -> Result<(), BoxError> {
        self.container_request(Method::PUT, name).await
    }

    /// Deletes a container and what is in it.
    ///
    /// # Errors
    /// If the server does not.
    pub async fn delete_container(&self, name: &str) -> Result<(), BoxError> {
        self.container_request(Method::DELETE, name).await
    }

    async fn container_request(&self, method: Method, name: &str) -> Result<(), BoxError> {
        let path = format!("/{ACCOUNT}/{name}?restype=container");
        let date = http_date(&Clock::system());
        let signed = Request::builder().method(&method).uri(&path);
        let signed = signed.header("x-ms-date", &date).header("x-ms-version", VERSION).body(Bytes::new())?;
        let authorization = authorization(&signed)?;
        let headers = [("x-ms-date", &*date), ("x-ms-version", VERSION), ("authorization", &*authorization)];
        request(method, &format!("{}{path}", self.endpoint()), &headers).await.map(drop)
    }

    /// What a client needs from its environment to reach the server through `endpoint`.
    pub fn environment(&self, endpoint: &str) -> Variables {
        let service = format!("{endpoint}/{ACCOUNT}");
        variables(&[
            ("AZURE_ACCOUNT_NAME", ACCOUNT),
            ("AZURE_ACCOUNT_KEY", KEY),
            ("AZURE_STORAGE_SERVICE_ENDPOINT", &service),
        ])
    }
}

/// The header `authorization` of a request, by the account's key:
/// <https://learn.microsoft.com/en-us/rest/api/storageservices/authorize-with-shared-key>.
pub(crate) fn authorization(request: &Request<Bytes>) -> Result<String, BoxError> {
    let value =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let length = request.body().len();
    let length = if length == 0 { String::new() } else { length.to_string() };
    let mut lines = vec![request.method().to_string(), value("content-encoding").to_owned()];
    lines.extend([value("content-language").to_owned(), length]);
    let names = ["content-md5", "content-type", "", "if-modified-since", "if-match", "if-none-match"];
    lines.extend(names.iter().map(|name| value(name).to_owned()));
    lines.extend([value("if-unmodified-since").to_owned(), value("range").to_owned()]);
    let vendors = request.headers().keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-ms-"));
    let mut vendors: Vec<String> = vendors.map(|name| format!("{name}:{}", value(name))).collect();
    vendors.sort_unstable();
    lines.extend(vendors);
    lines.push(format!("/{ACCOUNT}{}", request.uri().path()));
    let query = url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
    let mut query: Vec<String> =
        query.map(|(name, value)| format!("{}:{value}", name.to_lowercase())).collect();
    query.sort_unstable();
    lines.extend(query);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(KEY)?);
    let signature = hmac::sign(&key, lines.join("\n").as_bytes());
    Ok(format!("SharedKey {ACCOUNT}:{}", STANDARD.encode(signature)))
}
