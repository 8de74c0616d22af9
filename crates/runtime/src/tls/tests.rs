use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// An authority, and a directory for what it signs.
pub(crate) struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { dir, issuer }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Writes a certificate of `name` and its key, in place of those that are there.
    pub(crate) fn issue(&self, name: &str) -> IdentityFiles {
        self.issue_until(name, 4000)
    }

    fn issue_until(&self, name: &str, year: i32) -> IdentityFiles {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let path = |suffix: &str| self.dir.path().join(format!("{name}.{suffix}"));
        let files = IdentityFiles { cert: path("pem"), key: path("key") };
        std::fs::write(&files.cert, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    pub(crate) fn server(&self, client_ca: Option<PathBuf>) -> ServerTls {
        let files = ServerTlsFiles { identity: self.issue("localhost"), client_ca };
        ServerTls::load(files, &Clock::system()).unwrap()
    }

    /// A client which trusts this authority.
    pub(crate) fn client(&self, identity: Option<IdentityFiles>) -> ClientTls {
        client(identity, self.ca())
    }
}

fn client(identity: Option<IdentityFiles>, ca: PathBuf) -> ClientTls {
    ClientTls::load(ClientTlsFiles { identity, ca: Some(ca) }, &Clock::system()).unwrap()
}

fn der(pem: &Path) -> Vec<u8> {
    CertificateDer::from_pem_slice(&std::fs::read(pem).unwrap()).unwrap().to_vec()
}

fn certificate(certs: Option<&[CertificateDer<'_>]>) -> Option<Vec<u8>> {
    certs.and_then(|certs| certs.first()).map(|cert| cert.to_vec())
}

/// A handshake, and a word from the server: what each side saw as the certificate of the other one.
async fn shake(
    server: &ServerTls,
    client: &ClientTls,
    host: &str,
) -> (Result<Option<Vec<u8>>, String>, Result<Option<Vec<u8>>, String>) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let serve = async {
        let mut stream = server.accept(far).await?;
        stream.write_all(b"hello").await?;
        stream.flush().await?;
        Ok::<_, io::Error>(certificate(stream.get_ref().1.peer_certificates()))
    };
    let call = async {
        let name = client.name_of(host).map_err(io::Error::other)?;
        let mut stream = client.connect(near, name, Protocol::Http2).await?;
        // Whoever is refused knows it by now.
        let late = |error| io::Error::other(format!("after the handshake: {error}"));
        stream.read_exact(&mut [0; 5]).await.map_err(late)?;
        Ok::<_, io::Error>(certificate(stream.get_ref().1.peer_certificates()))
    };
    let (served, called) = tokio::join!(serve, call);
    (served.map_err(|error| error.to_string()), called.map_err(|error| error.to_string()))
}

#[tokio::test]
async fn each_side_proves_itself_or_is_refused() {
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let (open, closed) = (ours.server(None), ours.server(Some(ours.ca())));
    let known = || ours.client(Some(ours.issue("someone")));
    for (case, server, client, host, served, called) in [
        ("an open server", &open, ours.client(None), "localhost", "", ""),
        ("a needless certificate", &open, known(), "localhost", "", ""),
        ("a certificate", &closed, known(), "localhost", "", ""),
        ("another name", &open, ours.client(None).for_host("localhost").unwrap(), "127.0.0.1", "", ""),
        (
            "no certificate",
            &closed,
            ours.client(None),
            "localhost",
            "peer sent no certificates",
            "the server refuses this client: received fatal alert: CertificateRequired",
        ),
        (
            "a foreign certificate",
            &closed,
            ours.client(Some(foreign.issue("someone"))),
            "localhost",
            "invalid peer certificate: UnknownIssuer",
            "the server refuses this client: received fatal alert: UnknownCA",
        ),
        (
            "an expired certificate",
            &closed,
            ours.client(Some(ours.issue_until("late", 2020))),
            "localhost",
            "invalid peer certificate: certificate expired",
            "the server refuses this client: received fatal alert: CertificateExpired",
        ),
        (
            "a server of others",
            &open,
            foreign.client(None),
            "localhost",
            "received fatal alert: UnknownCA",
            "the server is not trusted: invalid peer certificate: UnknownIssuer",
        ),
        (
            "a wrong name",
            &open,
            ours.client(None),
            "elsewhere",
            "received fatal alert",
            "the server is not trusted: invalid peer certificate: certificate not valid for name \"elsewhere\"",
        ),
    ] {
        let (at_server, at_client) = shake(server, &client, host).await;
        for (side, outcome, expected) in [("server", at_server, served), ("client", at_client, called)] {
            match outcome {
                Ok(_) => assert_eq!(expected, "", "{case}: the {side} must refuse"),
                Err(error) => assert!(
                    !expected.is_empty()
                        && error.contains(expected)
                        && !error.contains("after the handshake"),
                    "{case}: the {side} says {error:?} rather than {expected:?}"
                ),
            }
        }
    }
}

#[tokio::test]
async fn an_expired_server_is_not_trusted() {
    let authority = Authority::new("ours");
    let identity = authority.issue_until("localhost", 2020);
    let server = ServerTls::load(ServerTlsFiles { identity, client_ca: None }, &Clock::system()).unwrap();
    let (_, called) = shake(&server, &authority.client(None), "localhost").await;
    let error = called.unwrap_err();
    assert!(
        error.starts_with("the server is not trusted: invalid peer certificate: certificate expired"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn changed_files_hold_from_the_next_handshake_on() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let clock = Clock::system();
    let server = old.server(Some(old.ca()));
    let identity = old.issue("someone");
    let client = old.client(Some(identity.clone()));
    let first = shake(&server, &client, "localhost").await;
    assert_eq!(first.0, Ok(Some(der(&identity.cert))));

    // Everything is replaced by what another authority has signed, in the places where it was.
    let replaced = [
        (new.issue("localhost"), old.dir.path().join("localhost.pem"), old.dir.path().join("localhost.key")),
        (new.issue("someone"), identity.cert.clone(), identity.key.clone()),
    ];
    for (fresh, cert, key) in &replaced {
        std::fs::copy(&fresh.cert, cert).unwrap();
        std::fs::copy(&fresh.key, key).unwrap();
    }
    std::fs::copy(new.ca(), old.ca()).unwrap();
    clock.sleep(Duration::from_secs(1)).await;
    let (served, called) = shake(&server, &client, "localhost").await;
    assert_eq!(served, Ok(Some(der(&replaced[1].0.cert))));
    assert_eq!(called, Ok(Some(der(&replaced[0].0.cert))));
    assert_ne!(called, first.1);
    let stranger = new.client(None);
    assert!(shake(&server, &stranger, "localhost").await.1.is_err(), "the new authority is required");
}

#[tokio::test(start_paused = true)]
async fn files_that_cannot_be_used_leave_the_earlier_ones_in_force() {
    let authority = Authority::new("ours");
    let clock = Clock::system();
    let server = authority.server(None);
    let client = authority.client(None);
    let files = IdentityFiles {
        cert: authority.dir.path().join("localhost.pem"),
        key: authority.dir.path().join("localhost.key"),
    };
    let key = std::fs::read(&files.key).unwrap();
    let before = Ok(Some(der(&files.cert)));
    for broken in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&files.cert, broken).unwrap();
        std::fs::write(authority.ca(), broken).unwrap();
        clock.sleep(Duration::from_secs(1)).await;
        assert_eq!(shake(&server, &client, "localhost").await.1, before, "{broken:?}");
    }
    std::fs::write(authority.ca(), authority.issuer.pem()).unwrap();
    // A certificate whose key is yet to follow.
    authority.issue("localhost");
    let next_key = std::fs::read(&files.key).unwrap();
    std::fs::write(&files.key, &key).unwrap();
    clock.sleep(Duration::from_secs(1)).await;
    assert_eq!(shake(&server, &client, "localhost").await.1, before);
    std::fs::remove_file(&files.key).unwrap();
    clock.sleep(Duration::from_secs(1)).await;
    assert_eq!(shake(&server, &client, "localhost").await.1, before);
    std::fs::write(&files.key, &next_key).unwrap();
    clock.sleep(Duration::from_secs(1)).await;
    assert_eq!(shake(&server, &client, "localhost").await.1, Ok(Some(der(&files.cert))));
    assert_ne!(Ok(Some(der(&files.cert))), before);
}

#[test]
fn a_file_that_cannot_be_used_at_start_is_named() {
    let authority = Authority::new("ours");
    let good = authority.issue("localhost");
    let other = authority.issue("other");
    let junk = authority.dir.path().join("junk.pem");
    std::fs::write(&junk, "junk").unwrap();
    let absent = authority.dir.path().join("absent.pem");
    let identity = |cert: &Path, key: &Path| IdentityFiles { cert: cert.to_owned(), key: key.to_owned() };
    for (identity, client_ca, named, problem) in [
        (identity(&absent, &good.key), None, &absent, "No such file"),
        (identity(&good.cert, &absent), None, &absent, "No such file"),
        (identity(&junk, &good.key), None, &junk, "has no certificate in PEM"),
        (identity(&good.cert, &junk), None, &junk, "has no private key in PEM"),
        (identity(&good.cert, &other.key), None, &good.cert, "cannot be used with the key of"),
        (good.clone(), Some(&junk), &junk, "has no certificate in PEM"),
    ] {
        let client = ClientTlsFiles { identity: Some(identity.clone()), ca: Some(authority.ca()) };
        let server = ServerTlsFiles { identity, client_ca: client_ca.cloned() };
        let error = ServerTls::load(server, &Clock::system()).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("TLS: {}: ", named.display())) && error.contains(problem),
            "{error}"
        );
        if client_ca.is_none() {
            assert_eq!(ClientTls::load(client, &Clock::system()).unwrap_err().to_string(), error);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_given_up_and_one_that_speaks_no_tls_is_refused() {
    let server = Authority::new("ours").server(None);
    let (_silent, far) = tokio::io::duplex(1024);
    assert_eq!(server.accept(far).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    for plain in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let (mut near, far) = tokio::io::duplex(1024);
        near.write_all(plain.as_bytes()).await.unwrap();
        assert_eq!(server.accept(far).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

#[tokio::test]
async fn a_server_without_tls_is_told_of() {
    let client = Authority::new("ours").client(None);
    let (near, mut far) = tokio::io::duplex(4096);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let name = client.name_of("localhost:80").unwrap();
    let error = client.connect(near, name, Protocol::Http1).await.err().unwrap().to_string();
    assert!(error.starts_with("the server does not speak TLS: "), "{error}");
}

#[tokio::test]
async fn http_1_is_preferred_and_gets_out_of_the_way_of_grpc() {
    let authority = Authority::new("ours");
    let server = authority.server(None);
    let base = client_configs(
        &ClientTlsFiles { identity: None, ca: Some(authority.ca()) },
        &Contents::read(&[authority.ca()]),
    );
    let base = base.unwrap().http1;
    for (offered, agreed) in [
        (&[HTTP2, HTTP1][..], Ok(Some(HTTP1))),
        (&[HTTP2], Ok(Some(HTTP2))),
        (&[HTTP1], Ok(Some(HTTP1))),
        (&[], Ok(None)),
        (&[b"h3"], Err(())),
    ] {
        let mut config = (*base).clone();
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let (near, far) = tokio::io::duplex(64 << 10);
        let name = server_name("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let (served, called) = tokio::join!(server.accept(far), connector.connect(name, near));
        let got = served.map(|stream| stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec));
        assert_eq!(
            got.map_err(drop),
            agreed.map(|name: Option<&[u8]>| name.map(<[u8]>::to_vec)),
            "{offered:?}"
        );
        assert_eq!(called.is_ok(), agreed.is_ok(), "{offered:?}");
    }
}

#[test]
fn hosts_are_names_and_addresses() {
    let client = ClientTls::default();
    for (authority, name) in [("db.lan:443", "db.lan"), ("127.0.0.1:8080", "127.0.0.1"), ("[::1]:443", "::1")]
    {
        assert_eq!(client.name_of(authority).unwrap().to_str(), name);
    }
    assert!(client.name_of("no name:1").unwrap_err().to_string().contains("\"no name\""));
}
