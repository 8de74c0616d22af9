//! Encrypted connections, and the verification of certificates.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use consumer::Store;
use runtime::TaskGroup;
use store_postgres::{PostgresOptions, PostgresStore};
use store_servers::PostgresServer;

use crate::world::{SHARD, commit, text};

fn openssl(dir: &Path, arguments: &[&str]) {
    let made = Command::new("openssl").args(arguments).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// An authority, and a certificate for `localhost` which it signed.
fn certificates(dir: &Path) {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let ca = ["req", "-x509", "-subj", "/CN=authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.crt"];
    openssl(dir, &[&ca[..], &key[..]].concat());
    let request = ["req", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"];
    openssl(dir, &[&request[..], &key[..]].concat());
    std::fs::write(dir.join("san"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    let sign = "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.crt";
    openssl(dir, &sign.split(' ').collect::<Vec<_>>());
    PostgresServer::give_secret(&dir.join("server.key")).unwrap();
    PostgresServer::give_secret(&dir.join("server.crt")).unwrap();
}

#[tokio::test]
async fn a_required_encryption_verifies_the_server() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (listen, port_setting) = ("listen_addresses=127.0.0.1", format!("port={port}"));
    let settings =
        ["ssl=on", "ssl_cert_file=../server.crt", "ssl_key_file=../server.key", listen, &port_setting];
    let server = PostgresServer::start_with(&settings, |dir| {
        certificates(dir);
        Ok(())
    })
    .unwrap();
    let connection = |host: &str, mode: &str| {
        let text =
            format!("host={host} hostaddr=127.0.0.1 port={port} user=courant dbname=postgres sslmode={mode}");
        PostgresOptions::parse(&text).unwrap()
    };
    let ca_file = server.dir().join("ca.crt");
    let tasks = TaskGroup::new("test");
    let (plain, driver) = connection("localhost", "disable")
        .config
        .connect(store_postgres::tokio_postgres::NoTls)
        .await
        .unwrap();
    tasks.spawn("plain", runtime::OnError::Log, async move {
        drop(driver.await);
        Ok(())
    });
    plain.batch_execute(crate::world::TABLES).await.unwrap();

    let options = PostgresOptions { ca_file: Some(ca_file.clone()), ..connection("localhost", "require") };
    let mut store = PostgresStore::open(SHARD, options, &tasks).await.unwrap();
    store.restore_checkpoint().await.unwrap();
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(store.query(encrypted, &[]).await.unwrap()[0].get::<_, bool>(0));
    commit(&mut store, 1).await.unwrap();

    // Of another name, or signed by somebody else: refused at once, by its reason.
    for (host, ca_file) in [("elsewhere", Some(ca_file.clone())), ("localhost", None)] {
        let options = PostgresOptions { ca_file, ..connection(host, "require") };
        let mut store = match PostgresStore::open(SHARD, options, &tasks).await {
            Ok(store) => store,
            // A machine without any authorities.
            Err(error) => {
                assert!(error.to_string().ends_with("there are none"), "{error}");
                continue;
            }
        };
        let error = text(&*store.restore_checkpoint().await.unwrap_err());
        assert!(error.contains("certificate"), "{error}");
    }
    let options = PostgresOptions { ca_file: Some("/nowhere".into()), ..connection("localhost", "require") };
    let error = PostgresStore::open(SHARD, options, &tasks).await.unwrap_err().to_string();
    assert!(error.contains("/nowhere"), "{error}");
}
