//! A fake of Google Cloud Storage: the requests of its XML API which clients of objects make.
//!
//! It takes tokens which its own service account signed, and URLs which it signed (V4), and no others. An object that was
//! stored with `Content-Encoding: gzip` is decompressed on its way unless the request accepts gzip, as Google does.

mod auth;
mod objects;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, StatusCode};
use runtime::{BoxError, Clock};
use tempfile::TempDir;

use crate::http_server::{Answer, Listening, error_answer, serve};
use crate::{Variables, variables};
use auth::Account;
use objects::Bucket;

/// A fake server of Google Cloud Storage. It keeps objects in memory.
pub struct FakeGoogleServer {
    listening: Listening,
    buckets: Buckets,
    dir: TempDir,
}

type Buckets = Arc<Mutex<BTreeMap<String, Bucket>>>;

const CREDENTIALS_FILE: &str = "service-account.json";

impl FakeGoogleServer {
    /// Starts one, without buckets.
    ///
    /// # Errors
    /// If there is no port, or no room for the file of its service account.
    pub async fn start() -> Result<FakeGoogleServer, BoxError> {
        let account = Arc::new(Account::generate()?);
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join(CREDENTIALS_FILE), account.json())?;
        let buckets = Buckets::default();
        let (shared, clock) = (buckets.clone(), Clock::system());
        let listening = serve("fake Google", move |request| {
            let answer = handle(&account, &shared, &clock, request);
            async move { answer }.boxed()
        });
        Ok(FakeGoogleServer { listening: listening.await?, buckets, dir })
    }

    /// Where it listens: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.listening.endpoint
    }

    /// Makes a bucket.
    pub fn create_bucket(&self, name: &str) {
        self.buckets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), Bucket::default());
    }

    /// Deletes a bucket and what is in it.
    pub fn delete_bucket(&self, name: &str) {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// What a client needs from its environment to reach the server through `endpoint`.
    pub fn environment(&self, endpoint: &str) -> Variables {
        let credentials = self.dir.path().join(CREDENTIALS_FILE);
        variables(&[
            ("GOOGLE_APPLICATION_CREDENTIALS", &credentials.display().to_string()),
            ("STORAGE_EMULATOR_HOST", endpoint),
        ])
    }
}

/// A request's path taken apart, and its query, decoded.
struct Target {
    bucket: String,
    key: String,
    query: BTreeMap<String, String>,
}

impl Target {
    fn of(request: &Request<Bytes>) -> Target {
        let path = request.uri().path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let query = url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
        let query = query.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        Target { bucket: percent_decoded(bucket), key: percent_decoded(key), query }
    }
}

fn percent_decoded(text: &str) -> String {
    let form = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    let pair = url::form_urlencoded::parse(form.as_bytes()).next();
    pair.map(|(name, _)| name.into_owned()).unwrap_or_default()
}

fn handle(account: &Account, buckets: &Buckets, clock: &Clock, request: Request<Bytes>) -> Answer {
    let target = Target::of(&request);
    if let Err(code) = account.check(&request, &target.query, clock) {
        return error_answer(StatusCode::FORBIDDEN, code);
    }
    let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(bucket) = buckets.get_mut(&target.bucket) else {
        return error_answer(StatusCode::NOT_FOUND, "NoSuchBucket");
    };
    bucket.answer(&request, &target.key, &target.query, clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let request = Request::get("/b/a%2Fx%20y%2541+z?prefix=p%2F&list-type=2").body(Bytes::new()).unwrap();
        let target = Target::of(&request);
        assert_eq!((target.bucket.as_str(), target.key.as_str()), ("b", "a/x y%41+z"));
        assert_eq!(target.query["prefix"], "p/");
    }
}
