//! Azure: `azurite`.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use runtime::{BoxError, Clock};
use tempfile::TempDir;

use crate::http_server::{http_date, request};
use crate::process::{Server, installed};
use crate::{Variables, variables};

/// The account and key which the emulator documents.
const ACCOUNT: &str = "devstoreaccount1";
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
        let date = http_date(&Clock::system());
        let signed = format!(
            "{method}\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{VERSION}\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(KEY)?);
        let signature = STANDARD.encode(hmac::sign(&key, signed.as_bytes()));
        let url = format!("{}/{ACCOUNT}/{name}?restype=container", self.endpoint());
        let authorization = format!("SharedKey {ACCOUNT}:{signature}");
        let headers = [("x-ms-date", &*date), ("x-ms-version", VERSION), ("authorization", &*authorization)];
        request(method, &url, &headers).await.map(drop)
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
