//! Credentials that expire while a broker runs, and are renewed.

use std::path::Path;
use std::time::Duration;

use store_servers::{AzureServer, Effect, FakeAzureAd, Fault, FaultProxy, S3Server};
use tempfile::TempDir;

use super::faulty::{FULL, Faulty, stores};
use super::support::Fixture;

/// Has the profile `rotated` these keys. The file is replaced, as tools do.
fn write_profile(home: &Path, key_id: &str) {
    let dir = home.join(".aws");
    std::fs::create_dir_all(&dir).unwrap();
    let keys =
        format!("aws_access_key_id = {key_id}\naws_secret_access_key = secret\naws_session_token = token");
    std::fs::write(dir.join("new"), format!("[rotated]\n{keys} of {key_id}\n")).unwrap();
    std::fs::rename(dir.join("new"), dir.join("credentials")).unwrap();
}

#[tokio::test]
async fn keys_of_a_profile_are_rotated_under_a_broker() {
    let server = S3Server::start().await.unwrap();
    server.create_bucket("bucket").await.unwrap();
    let proxy = FaultProxy::start(server.endpoint()).await.unwrap();
    let url = server.store_url("bucket", "keys/", proxy.endpoint()) + "&profile=rotated";
    let direct_url = server.store_url("bucket", "keys/", server.endpoint());
    let dir = TempDir::with_prefix("courant-credentials-").unwrap();
    let home = dir.path().to_owned();
    write_profile(&home, "key-0");
    let variables = [("HOME", home.display().to_string()), ("AWS_REGION", "us-east-1".to_owned())];
    let mut fixture = Fixture::start_in(dir, |options| {
        options.environment = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        options.store_unhealthy_min_free = 0;
        options.store_times.reread_credentials = Duration::from_millis(100);
    })
    .await;
    let direct = stores(server.environment());
    let mut journal = Faulty::create(&mut fixture, "credentials/keys", &url, &direct_url).await;
    journal.append(&mut fixture, b"ab").await;
    journal.until_stored(&mut fixture, &direct, 0..1).await;

    let refusals = [Effect::Status(403, "InvalidAccessKeyId"), Effect::Status(400, "ExpiredToken")];
    for (round, refusal) in refusals.into_iter().enumerate() {
        let stored = 1 + 4 * round;
        proxy.set_fault(Fault::always(refusal).signed_with(&format!("key-{round}")));
        journal.append(&mut fixture, b"cd").await;
        journal.until_unhealthy(&mut fixture).await;
        journal.append(&mut fixture, b"e").await;
        journal.reads_from(&mut fixture, stored * FULL).await;
        journal.until_objects_are(&direct, 0..stored).await;

        write_profile(&home, &format!("key-{}", round + 1));
        journal.append(&mut fixture, b"f").await;
        journal.until_stored(&mut fixture, &direct, 0..stored + 4).await;
        journal.reads_from(&mut fixture, 0).await;
    }
    fixture.stop().await;
}

#[tokio::test]
async fn tokens_of_an_application_expire_and_are_renewed() {
    let server = AzureServer::start().await.unwrap();
    server.create_container("container").await.unwrap();
    let fake = FakeAzureAd::start(&server).await.unwrap();
    fake.set_token_lifetime(Duration::from_secs(2));
    let dir = TempDir::with_prefix("courant-credentials-").unwrap();
    let variables = fake.environment();
    let mut fixture = Fixture::start_in(dir, |options| {
        options.environment = variables.into_iter().collect();
        options.store_unhealthy_min_free = 0;
    })
    .await;
    let direct = stores(server.environment(server.endpoint()));
    let url = fake.store_url("container", "tokens/");
    let mut journal =
        Faulty::create(&mut fixture, "credentials/tokens", &url, "azure://container/tokens/").await;
    journal.append(&mut fixture, b"ab").await;
    journal.until_stored(&mut fixture, &direct, 0..1).await;
    assert!(fake.tokens_given() > 1, "a token that is about to expire is replaced");

    // The secret is no longer good, nor are the tokens that there are.
    fake.set_knows_application(false);
    journal.append(&mut fixture, b"cd").await;
    journal.until_unhealthy(&mut fixture).await;
    journal.append(&mut fixture, b"e").await;
    journal.reads_from(&mut fixture, FULL).await;

    fake.set_token_lifetime(Duration::from_secs(3600));
    fake.set_knows_application(true);
    journal.append(&mut fixture, b"f").await;
    journal.until_stored(&mut fixture, &direct, 0..5).await;
    journal.reads_from(&mut fixture, 0).await;
    fixture.stop().await;
}
