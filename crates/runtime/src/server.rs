//! One port for everything: gRPC and plain HTTP, over HTTP/1 and HTTP/2, with TLS or without.
//!
//! [`Listener::bind`] opens the port, [`serve`] answers on it until its task group is cancelled and then lets open
//! requests finish for a bounded time. Failing to accept (too many open files) slows the loop down and never ends it. With
//! TLS, each connection's handshake is its own affair: a client that is silent, or not let in, holds up nobody. One that
//! connects and then does not say what it wants is cut off.

mod opening;
mod traced;

use std::future::Future;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tonic::transport::server::TcpConnectInfo;

use crate::grpc::{CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, STREAM_WINDOW_BYTES};
use crate::tls::ServerTls;
use crate::{BoxError, Clock, Metrics, OnError, TaskGroup, socket};
use opening::Opening;

/// Streams that one connection may have open. A consumer process reads a stream per journal over one connection.
const CONCURRENT_STREAMS_MAX: u32 = 65_536;
/// Streams that a peer may have cancelled before we looked at them. Readers cancel often; the default of 20 closes
/// their connection.
const PENDING_RESETS_MAX: usize = 4096;
/// Bytes that are buffered for sending, per stream.
const SEND_BUFFER_BYTES_MAX: usize = 1 << 20;
/// A client is pinged after this much silence: less than a client of ours waits before it asks whether we live.
const PING_AFTER: Duration = Duration::from_secs(4);
/// How long a client may take to answer a ping. One that is stopped or gone keeps no streams.
const PONG_MAX: Duration = Duration::from_secs(15);
/// How long to wait after a failure to accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Why a path cannot be listened on.
const NO_SOCKET: &str = "the path is a file that is not a socket; expected a socket, or no file";

/// The port cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    address: String,
    source: std::io::Error,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// An open port.
pub struct Listener {
    socket: Socket,
    tls: Option<ServerTls>,
}

enum Stream {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Listener {
    /// Opens `address`: `host:port`, where port 0 picks a free one, or `unix:///path`. A socket file that no process
    /// listens on is replaced.
    ///
    /// # Errors
    /// If the address is malformed or taken.
    pub async fn bind(address: &str) -> Result<Listener, BindError> {
        let failed = |source| BindError { address: address.to_owned(), source };
        let socket = match address.strip_prefix("unix://") {
            Some(path) => {
                let path = PathBuf::from(path);
                make_way(&path).await.map_err(failed)?;
                Socket::Unix(UnixListener::bind(&path).map_err(failed)?, path)
            }
            None => Socket::Tcp(TcpListener::bind(address).await.map_err(failed)?),
        };
        Ok(Listener { socket, tls: None })
    }

    /// Speaks TLS and nothing else, if `tls` is given. A Unix socket stays as it is: the file system guards it.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<ServerTls>) -> Listener {
        self.tls = tls.filter(|_| matches!(self.socket, Socket::Tcp(_)));
        self
    }

    /// The address that was bound, `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// The URL under which clients reach this port, if they know this machine as `host`. That of a Unix socket needs a
    /// host to be a valid endpoint of a member, though nobody looks at it.
    pub fn endpoint(&self, host: &str) -> String {
        match &self.socket {
            Socket::Tcp(listener) => {
                let port = listener.local_addr().map(|a| a.port()).unwrap_or_default();
                let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
                let scheme = if self.tls.is_some() { "https" } else { "http" };
                format!("{scheme}://{host}:{port}")
            }
            Socket::Unix(_, path) => format!("unix://{host}{}", path.display()),
        }
    }

    async fn accept(&self) -> std::io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                if let Err(error) = socket::prepare_accepted(&stream) {
                    // The peer may be gone already, which the first read tells.
                    tracing::debug!(%error, "cannot set the options of a connection");
                }
                Ok(Stream::Tcp(stream, peer))
            }
            Socket::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

/// Removes the file of a socket that no process listens on: it outlives the process that made it, and refuses whoever
/// connects. Files which are no sockets are somebody's.
async fn make_way(path: &Path) -> std::io::Result<()> {
    match tokio::fs::metadata(path).await {
        Ok(found) if !found.file_type().is_socket() => Err(Error::new(ErrorKind::AlreadyExists, NO_SOCKET)),
        Ok(_) => match UnixStream::connect(path).await {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => tokio::fs::remove_file(path).await,
            _ => Ok(()),
        },
        Err(_) => Ok(()),
    }
}

/// What answers a request for diagnostics: `/debug/ready` says 200 as soon as the port is open, `/debug/metrics` gives
/// the Prometheus text.
pub fn debug_router(metrics: Metrics) -> Router {
    ready_router().route("/debug/metrics", get(move || std::future::ready(metrics.render())))
}

/// `/debug/ready` alone, for a main port whose metrics are private.
pub fn ready_router() -> Router {
    Router::new().route("/debug/ready", get(|| std::future::ready("ready\n")))
}

/// Answers what no route matches: in the terms of gRPC if it was asked by gRPC, otherwise with 404.
pub async fn not_found(request: Request) -> Response {
    if is_grpc(&request) {
        let unknown = format!("unknown method {}", request.uri().path());
        return tonic::Status::unimplemented(unknown).into_http();
    }
    (StatusCode::NOT_FOUND, format!("{} is not served here\n", request.uri().path())).into_response()
}

/// Whether a request is one of gRPC.
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(http::header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Serves `router` on `listener` until `tasks` is cancelled, then for at most `drain` until open requests are done.
/// Connections are tasks of the group.
///
/// # Errors
/// None at present: trouble of a connection ends that connection.
pub async fn serve(
    listener: Listener,
    router: Router,
    tasks: TaskGroup,
    clock: Clock,
    drain: Duration,
) -> Result<(), BoxError> {
    let connections = tasks.child("connections");
    loop {
        let accepted = tokio::select! {
            biased;
            () = tasks.token().cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(Stream::Tcp(stream, peer)) => {
                let info = TcpConnectInfo { local_addr: stream.local_addr().ok(), remote_addr: Some(peer) };
                match listener.tls.clone() {
                    Some(tls) => {
                        let handshake = async move { tls.accept(stream).await };
                        start_connection(handshake, info, &router, &connections, &clock, drain);
                    }
                    None => {
                        let open = std::future::ready(Ok(stream));
                        start_connection(open, info, &router, &connections, &clock, drain);
                    }
                }
            }
            Ok(Stream::Unix(stream)) => {
                let info = TcpConnectInfo { local_addr: None, remote_addr: None };
                start_connection(std::future::ready(Ok(stream)), info, &router, &connections, &clock, drain);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection (will retry)");
                clock.sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    if let Socket::Unix(_, path) = &listener.socket {
        drop(tokio::fs::remove_file(path).await);
    }
    drop(listener);
    connections.join().await
}

/// Starts the task of a connection, which begins when `open` has the stream.
fn start_connection<S>(
    open: impl Future<Output = std::io::Result<S>> + Send + 'static,
    info: TcpConnectInfo,
    router: &Router,
    connections: &TaskGroup,
    clock: &Clock,
    drain: Duration,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = info.remote_addr;
    let router = router.clone();
    let service = tower::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(info.clone());
        traced::call(router.clone(), request)
    });
    let (stop, clock) = (connections.token().clone(), clock.clone());
    connections.spawn("connection", OnError::Log, async move {
        let opened = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            opened = open => opened,
        };
        let stream = match opened {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(?peer, %error, "connection refused");
                return Ok(());
            }
        };
        let builder = connection_builder();
        let (opening, stream) = Opening::of(stream);
        let connection =
            builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::pin!(connection);
        let outcome = tokio::select! {
            biased;
            outcome = connection.as_mut() => Some(outcome),
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                clock.timeout(drain, connection).await.ok()
            }
            () = opening.missed(clock.clone()) => {
                tracing::debug!(?peer, "connection closed: its client does not say what it wants");
                return Ok(());
            }
        };
        if let Some(Err(error)) = outcome {
            tracing::debug!(%error, "connection ended");
        }
        Ok(())
    });
}

fn connection_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(CONCURRENT_STREAMS_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .keep_alive_interval(Some(PING_AFTER))
        .keep_alive_timeout(PONG_MAX);
    builder
}

#[cfg(test)]
mod tests;
