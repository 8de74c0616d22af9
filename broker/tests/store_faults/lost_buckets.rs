//! Buckets that are deleted with what is in them, and made again.

use runtime::BoxError;
use store_servers::{AzureServer, FakeGoogleServer, S3Server, Variables};
use tempfile::TempDir;

use super::faulty::{FULL, Faulty, stores};
use super::support::{Fixture, content};

/// A server with a bucket.
enum Server {
    S3(S3Server),
    Azure(AzureServer),
    Google(FakeGoogleServer),
}

impl Server {
    fn name(&self) -> &'static str {
        match self {
            Server::S3(_) => "s3",
            Server::Azure(_) => "azure",
            Server::Google(_) => "google",
        }
    }

    fn environment(&self) -> Variables {
        match self {
            Server::S3(server) => server.environment(),
            Server::Azure(server) => server.environment(server.endpoint()),
            Server::Google(server) => server.environment(server.endpoint()),
        }
    }

    fn store_url(&self) -> String {
        match self {
            Server::S3(server) => server.store_url("bucket", "lost/", server.endpoint()),
            Server::Azure(_) => "azure://bucket/lost/".to_owned(),
            Server::Google(_) => "gs://bucket/lost/".to_owned(),
        }
    }

    async fn create_bucket(&self) -> Result<(), BoxError> {
        match self {
            Server::S3(server) => server.create_bucket("bucket").await,
            Server::Azure(server) => server.create_container("bucket").await,
            Server::Google(server) => {
                server.create_bucket("bucket");
                Ok(())
            }
        }
    }

    async fn delete_bucket(&self) -> Result<(), BoxError> {
        match self {
            Server::S3(server) => server.delete_all_buckets().await,
            Server::Azure(server) => server.delete_container("bucket").await,
            Server::Google(server) => {
                server.delete_bucket("bucket");
                Ok(())
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_stored_yet_outlives_a_bucket_that_is_deleted_and_made_again() {
    let servers = [
        Server::S3(S3Server::start().await.unwrap()),
        Server::Azure(AzureServer::start().await.unwrap()),
        Server::Google(FakeGoogleServer::start().await.unwrap()),
    ];
    let variables: Variables = servers.iter().flat_map(Server::environment).collect();
    let direct = stores(variables.clone());
    let dir = TempDir::with_prefix("courant-lost-buckets-").unwrap();
    let mut fixture = Fixture::start_in(dir, |options| {
        options.environment = variables.into_iter().collect();
        options.store_unhealthy_min_free = 0;
    })
    .await;
    let mut journals = Vec::new();
    for server in &servers {
        server.create_bucket().await.unwrap();
        let (name, url) = (format!("lost/{}", server.name()), server.store_url());
        let mut journal = Faulty::create(&mut fixture, &name, &url, &url).await;
        journal.append(&mut fixture, b"ab").await;
        journal.until_stored(&mut fixture, &direct, 0..1).await;
        journals.push(journal);
    }
    for server in &servers {
        server.delete_bucket().await.unwrap();
    }
    for journal in &mut journals {
        journal.append(&mut fixture, b"cd").await;
        journal.until_unhealthy(&mut fixture).await;
        journal.append(&mut fixture, b"e").await;
        journal.reads_from(&mut fixture, FULL).await;
        // What only the bucket had is gone, which is said and not passed over.
        let (responses, error) = journal.try_read(&mut fixture, 0).await;
        assert!(content(&responses).is_empty(), "{}", journal.name);
        let error = error.expect("the first fragment cannot be read");
        assert!(error.message().contains("0000000000000000-00000000000005dc-"), "{error}");
    }
    for server in &servers {
        server.create_bucket().await.unwrap();
    }
    for journal in &mut journals {
        journal.append(&mut fixture, b"f").await;
    }
    for journal in &mut journals {
        // A read finds that the first fragment is gone for good, and begins with what there is.
        journal.until_objects_are(&direct, 1..5).await;
        let (responses, error) = journal.try_read(&mut fixture, 0).await;
        assert!(error.is_none(), "{}: {error:?}", journal.name);
        assert!(content(&responses) == journal.expected[FULL..], "{}", journal.name);
        journal.until_stored(&mut fixture, &direct, 1..5).await;
    }
    fixture.stop().await;
}
