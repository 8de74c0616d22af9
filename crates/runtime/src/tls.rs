//! TLS with certificates from files, which are read again when they change.
//!
//! A [`ServerTls`] proves who a server is and, given authorities, lets in only clients with a certificate that one of them
//! has signed. A [`ClientTls`] trusts the authorities of a file, or those of the machine, and may have a certificate of its
//! own. Both look at their files at most once a second, when a connection begins: a certificate or authority that was
//! replaced holds from the next connection on, and connections that are open stay so. Files that cannot be used, such as a
//! certificate whose key is yet to follow, leave what was there before in force.

mod watched;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, ServerConfig};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tokio_util::io::InspectReader;

use crate::Clock;
use watched::{Contents, Watched};

/// How long a client may take for its part of the handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a client waits for a sign that it was let in.
const VERDICT_MAX: Duration = Duration::from_secs(1);
/// What is spoken within TLS: names of ALPN.
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// A certificate in PEM, followed by the ones between it and its authority, and its key. They may be one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The certificates.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// The files of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsFiles {
    /// Who the server is.
    pub identity: IdentityFiles,
    /// The authorities of clients. With it clients need a certificate, otherwise they are not asked for one.
    pub client_ca: Option<PathBuf>,
}

/// The files of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTlsFiles {
    /// Who the client is, for servers that ask.
    pub identity: Option<IdentityFiles>,
    /// The authorities of servers. Without it those of the machine are trusted.
    pub ca: Option<PathBuf>,
}

/// A file of TLS cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("TLS: {what}: {problem}")]
pub struct TlsError {
    what: String,
    problem: String,
}

impl TlsError {
    fn of(path: &Path, problem: impl fmt::Display) -> TlsError {
        TlsError { what: path.display().to_string(), problem: problem.to_string() }
    }
}

/// TLS of a server. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<Watched<ServerConfig>>,
    clock: Clock,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// If one of them cannot be read or used. The error names it.
    pub fn load(files: ServerTlsFiles, clock: &Clock) -> Result<ServerTls, TlsError> {
        let identity = &files.identity;
        let paths = [Some(&identity.cert), Some(&identity.key), files.client_ca.as_ref()];
        let paths = paths.into_iter().flatten().cloned().collect();
        let config = Watched::load(paths, clock, move |contents| server_config(&files, contents))?;
        Ok(ServerTls { config: Arc::new(config), clock: clock.clone() })
    }

    /// The server's part of a handshake, for as long as a client may take for it.
    pub(crate) async fn accept<S>(&self, stream: S) -> io::Result<server::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.config.current().await.map_err(io::Error::other)?;
        let handshake = TlsAcceptor::from(config).accept(stream);
        match self.clock.timeout(HANDSHAKE_MAX, handshake).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                let problem = format!("no TLS handshake within {HANDSHAKE_MAX:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, problem))
            }
        }
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("files", &self.config.paths()).finish_non_exhaustive()
    }
}

/// What a client speaks within TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// A configuration for each protocol.
struct ClientConfigs {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

/// TLS of a client, for endpoints of `https`. Cheap to clone; clones share it.
///
/// The default trusts the authorities of the machine and has no certificate.
#[derive(Clone)]
pub struct ClientTls {
    configs: Arc<Watched<ClientConfigs>>,
    /// The name that servers must prove, instead of the one by which they are reached.
    name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Reads the files. The authorities of the machine are read when they are first needed.
    ///
    /// # Errors
    /// If a file cannot be read or used. The error names it.
    pub fn load(files: ClientTlsFiles, clock: &Clock) -> Result<ClientTls, TlsError> {
        let identity = files.identity.as_ref();
        let paths = [identity.map(|files| &files.cert), identity.map(|files| &files.key), files.ca.as_ref()];
        let paths: Vec<PathBuf> = paths.into_iter().flatten().cloned().collect();
        let configs = match paths.is_empty() {
            true => Watched::lazy(clock, move |contents| client_configs(&files, contents)),
            false => Watched::load(paths, clock, move |contents| client_configs(&files, contents))?,
        };
        Ok(ClientTls { configs: Arc::new(configs), name: None })
    }

    /// The same, for servers which are reached under other names than `host`, and prove that they are `host`.
    ///
    /// # Errors
    /// If `host` is neither a name nor an address.
    pub fn for_host(&self, host: &str) -> Result<ClientTls, TlsError> {
        Ok(ClientTls { configs: Arc::clone(&self.configs), name: Some(server_name(host)?) })
    }

    /// The name which the server at `authority`, `host:port`, must prove.
    pub(crate) fn name_of(&self, authority: &str) -> Result<ServerName<'static>, TlsError> {
        match &self.name {
            Some(name) => Ok(name.clone()),
            None => server_name(authority.rsplit_once(':').map_or(authority, |(host, _port)| host)),
        }
    }

    /// The client's part of a handshake with a server which must prove to be `name`. The server has then let the client
    /// in, as far as that can be told within a moment.
    pub(crate) async fn connect<S>(
        &self,
        stream: S,
        name: ServerName<'static>,
        protocol: Protocol,
    ) -> io::Result<client::TlsStream<impl AsyncRead + AsyncWrite + Unpin + use<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let configs = self.configs.current().await.map_err(io::Error::other)?;
        let config = match protocol {
            Protocol::Http1 => &configs.http1,
            Protocol::Http2 => &configs.http2,
        };
        let received = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&received);
        let stream = InspectReader::new(stream, move |bytes: &[u8]| {
            count.fetch_add(bytes.len(), Ordering::Relaxed);
        });
        let mut stream =
            TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(explain)?;
        if stream.get_ref().1.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
            let verdict = verdict(&mut stream, &received);
            match Clock::system().timeout(VERDICT_MAX, verdict).await {
                Ok(verdict) => verdict.map_err(explain)?,
                Err(_elapsed) => tracing::debug!("the server says nothing after the handshake"),
            }
        }
        Ok(stream)
    }
}

impl Default for ClientTls {
    fn default() -> ClientTls {
        ClientTls::load(ClientTlsFiles::default(), &Clock::system()).expect("there is no file to be read")
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = self.configs.paths();
        f.debug_struct("ClientTls").field("files", &paths).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Waits for a sign that the server has ended the handshake, as it does once it has looked at the client's certificate: by
/// the tickets which servers give, or by an alert. In TLS 1.3 the client has ended it before; what it sent then would be
/// lost, and nobody could tell why.
async fn verdict<S>(stream: &mut client::TlsStream<S>, received: &AtomicUsize) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let before = received.load(Ordering::Relaxed);
    poll_fn(|cx| match Pin::new(&mut *stream).poll_fill_buf(cx) {
        Poll::Ready(outcome) => Poll::Ready(outcome.map(drop)),
        Poll::Pending if received.load(Ordering::Relaxed) > before => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Says what an error of TLS means for a client. Other errors stay as they are.
pub(crate) fn explain(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let meaning = match cause {
        Some(rustls::Error::InvalidMessage(_)) => "the server does not speak TLS",
        Some(rustls::Error::AlertReceived(_)) => "the server refuses this client",
        Some(rustls::Error::InvalidCertificate(_)) => "the server is not trusted",
        Some(_) => "TLS",
        None => return error,
    };
    io::Error::new(error.kind(), format!("{meaning}: {error}"))
}

fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(bare.to_owned())
        .map_err(|error| TlsError { what: format!("host {host:?}"), problem: error.to_string() })
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

fn server_config(files: &ServerTlsFiles, contents: &Contents) -> Result<ServerConfig, TlsError> {
    let (certs, key) = identity(&files.identity, contents)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::of(&files.identity.cert, error))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(authorities(path, contents)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| TlsError::of(path, error))?)
        }
    };
    let mut config =
        builder.with_single_cert(certs, key).map_err(|error| mismatch(&files.identity, &error))?;
    config.alpn_protocols = vec![HTTP1.to_vec(), HTTP2.to_vec()];
    Ok(config)
}

fn client_configs(files: &ClientTlsFiles, contents: &Contents) -> Result<ClientConfigs, TlsError> {
    let roots = match &files.ca {
        Some(path) => authorities(path, contents)?,
        None => machine_authorities()?,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError { what: "versions".to_owned(), problem: error.to_string() })?
        .with_root_certificates(roots);
    let config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let (certs, key) = identity(files, contents)?;
            builder.with_client_auth_cert(certs, key).map_err(|error| mismatch(files, &error))?
        }
    };
    let speaking = |protocol: &[u8]| {
        let mut config = config.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    };
    Ok(ClientConfigs { http1: speaking(HTTP1), http2: speaking(HTTP2) })
}

fn mismatch(files: &IdentityFiles, error: &rustls::Error) -> TlsError {
    TlsError::of(&files.cert, format!("cannot be used with the key of {}: {error}", files.key.display()))
}

fn identity(
    files: &IdentityFiles,
    contents: &Contents,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let certs = certificates(&files.cert, contents)?;
    let key = PrivateKeyDer::from_pem_slice(contents.of(&files.key)?).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::of(&files.key, "has no private key in PEM"),
        error => TlsError::of(&files.key, error),
    })?;
    Ok((certs, key))
}

fn certificates(path: &Path, contents: &Contents) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs = CertificateDer::pem_slice_iter(contents.of(path)?).collect::<Result<Vec<_>, _>>();
    match certs {
        Ok(certs) if certs.is_empty() => Err(TlsError::of(path, "has no certificate in PEM")),
        Ok(certs) => Ok(certs),
        Err(error) => Err(TlsError::of(path, error)),
    }
}

fn authorities(path: &Path, contents: &Contents) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, contents)? {
        roots.add(certificate).map_err(|error| TlsError::of(path, error))?;
    }
    Ok(roots)
}

fn machine_authorities() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, errors = ?found.errors, "certificate authorities of the machine");
    match roots.is_empty() {
        true => Err(TlsError {
            what: "certificate authorities of this machine".to_owned(),
            problem: "there are none; expected a file of trusted authorities to be given".to_owned(),
        }),
        false => Ok(roots),
    }
}

#[cfg(test)]
pub(crate) mod tests;
