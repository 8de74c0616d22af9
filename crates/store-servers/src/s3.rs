//! S3: `moto`.

use http::Method;
use runtime::BoxError;

use crate::http_server::request;
use crate::process::{Server, installed};
use crate::{Variables, variables};

/// Any credentials will do, but none will not.
const ANYONE: &str =
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// A server which speaks S3. It keeps objects in memory and takes any credentials.
pub struct S3Server {
    server: Server,
}

impl S3Server {
    /// Starts one, without buckets.
    ///
    /// # Errors
    /// If it is not installed, or does not start.
    pub async fn start() -> Result<S3Server, BoxError> {
        let program = installed("moto-5.2.5/bin/moto_server")?;
        let dir = std::env::temp_dir();
        let server = Server::start(&program, &["-H", "127.0.0.1", "-p", "0"], &dir, "Running on ").await?;
        Ok(S3Server { server })
    }

    /// Where it listens: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.server.endpoint
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// If the server does not.
    pub async fn create_bucket(&self, name: &str) -> Result<(), BoxError> {
        request(Method::PUT, &format!("{}/{name}", self.endpoint()), &[]).await.map(drop)
    }

    /// Deletes a bucket, which must be empty.
    ///
    /// # Errors
    /// If the server does not.
    pub async fn delete_bucket(&self, name: &str) -> Result<(), BoxError> {
        request(Method::DELETE, &format!("{}/{name}", self.endpoint()), &[]).await.map(drop)
    }

    /// Deletes all buckets and what is in them, at once.
    ///
    /// # Errors
    /// If the server does not.
    pub async fn delete_all_buckets(&self) -> Result<(), BoxError> {
        request(Method::POST, &format!("{}/moto-api/reset", self.endpoint()), &[]).await.map(drop)
    }

    /// Headers of an object, as the server tells them: (name, value).
    ///
    /// # Errors
    /// If there is none.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<Vec<(String, String)>, BoxError> {
        let url = format!("{}/{bucket}/{key}", self.endpoint());
        let response = request(Method::HEAD, &url, &[("authorization", ANYONE)]).await?;
        let headers = response.headers().iter();
        Ok(headers
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect())
    }

    /// Puts an object under `key` as it is, which need not be one that clients would choose.
    ///
    /// # Errors
    /// If the server does not take it.
    pub async fn put(&self, bucket: &str, key: &str) -> Result<(), BoxError> {
        let url = format!("{}/{bucket}/{key}", self.endpoint());
        request(Method::PUT, &url, &[("authorization", ANYONE)]).await.map(drop)
    }

    /// What a client needs from its environment. Where the server is, is an argument of the store's URL (`endpoint`).
    pub fn environment(&self) -> Variables {
        variables(&[
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "secret of the test"),
            ("AWS_REGION", "us-east-1"),
        ])
    }

    /// The URL of the store at `bucket` and `prefix` (empty or ending in a slash), through `endpoint`.
    pub fn store_url(&self, bucket: &str, prefix: &str, endpoint: &str) -> String {
        format!("s3://{bucket}/{prefix}?endpoint={endpoint}")
    }
}
