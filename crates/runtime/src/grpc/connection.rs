//! A client's connection, which ends when its server does not live any more.
//!
//! The kernel tells when the server's process ends, and when its machine is gone. It does not tell when the process is
//! stopped, or hangs: its machine goes on to acknowledge what is sent. So a connection that was silent for a while asks
//! the server for its readiness, over another connection, by HTTP/1. Whatever comes back says that the server lives,
//! also a refusal; if nothing comes back, reading fails, and with it all calls. Pings of HTTP/2 would say the same, but
//! Go servers cut off clients that send them. Our own servers send pings, so that their connections are never silent.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use proto::endpoint::{DialAddress, dial_address};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::tls::{ClientTls, Protocol, explain};
use crate::{BoxError, Clock, socket};

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// What a server is asked. The connection is new, so any server of HTTP answers or closes it.
const QUESTION: &[u8] =
    b"GET /debug/ready HTTP/1.1\r\nHost: localhost\r\nUser-Agent: courant\r\nConnection: close\r\n\r\n";

/// How long a server may be silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Silence after which it is asked whether it lives.
    pub(super) silence: Duration,
    /// Time for its answer.
    pub(super) answer: Duration,
}

/// Of all connections.
pub(super) const PATIENCE: Patience =
    Patience { silence: Duration::from_secs(5), answer: Duration::from_secs(5) };

/// A server, and how it is reached.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// At `host:port`.
    Tcp(String),
    /// At `host:port`, where it must prove to be `name`.
    Tls { authority: String, name: ServerName<'static>, tls: ClientTls },
    /// At the path of a socket.
    Unix(String),
}

impl Target {
    /// The server of an endpoint. `tls` is for those of `https`.
    pub(super) fn parse(endpoint: &str, tls: &ClientTls) -> Result<Target, BoxError> {
        Ok(match dial_address(endpoint)? {
            DialAddress::Tcp { authority, tls: false } => Target::Tcp(authority),
            DialAddress::Tcp { authority, tls: true } => {
                Target::Tls { name: tls.name_of(&authority)?, authority, tls: tls.clone() }
            }
            DialAddress::Unix(path) => Target::Unix(path),
        })
    }

    /// The URL which requests are addressed to.
    pub(super) fn origin(&self) -> String {
        match self {
            Target::Tcp(authority) => format!("http://{authority}"),
            Target::Tls { authority, .. } => format!("https://{authority}"),
            Target::Unix(_) => "http://localhost".to_owned(),
        }
    }

    fn address(&self) -> &str {
        match self {
            Target::Tcp(authority) | Target::Tls { authority, .. } => authority,
            Target::Unix(path) => path,
        }
    }

    async fn open(&self, protocol: Protocol) -> io::Result<BoxStream> {
        match self {
            Target::Tcp(authority) => Ok(Box::new(tcp(authority).await?)),
            Target::Tls { authority, name, tls } => {
                let stream = tcp(authority).await?;
                Ok(Box::new(tls.connect(stream, name.clone(), protocol).await?))
            }
            Target::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        }
    }
}

async fn tcp(authority: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(authority).await?;
    socket::prepare_dialled(&stream)?;
    Ok(stream)
}

/// A stream to a server.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

pub(super) type BoxStream = Box<dyn Stream>;

/// Connects to a server, and watches over the connection.
pub(super) async fn connect(
    target: Target,
    patience: Patience,
) -> io::Result<TokioIo<Connection<BoxStream>>> {
    let stream = dial(&target, CONNECT_MAX).await?;
    let question = move || {
        let target = target.clone();
        async move { is_alive(target.open(Protocol::Http1), patience).await }
    };
    Ok(TokioIo::new(Connection::new(stream, patience, question)))
}

/// Connects to a server within `limit`.
pub(super) async fn dial(target: &Target, limit: Duration) -> io::Result<BoxStream> {
    let address = target.address();
    match Clock::system().timeout(limit, target.open(Protocol::Http2)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(io::Error::new(error.kind(), format!("connect to {address}: {error}"))),
        Err(_elapsed) => {
            let problem = format!("connect to {address}: no answer within {limit:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, problem))
        }
    }
}

/// Asks a server whether it lives. An error is an answer too: a server which ends listens no more, but finishes what it
/// has begun; and the kernel has ended the connections of one that is dead.
async fn is_alive<S>(dial: impl Future<Output = io::Result<S>>, patience: Patience) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let ask = async {
        let mut stream = dial.await?;
        stream.write_all(QUESTION).await?;
        stream.read(&mut [0]).await
    };
    Clock::system().timeout(patience.answer, ask).await.is_ok()
}

type Question = Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// What a connection waits for while nothing is received.
enum Wait {
    /// The time at which silence becomes suspicious.
    Silence(BoxFuture<'static, ()>),
    /// Whether the server lives.
    Answer(BoxFuture<'static, bool>),
}

/// A stream whose reads fail when its server does not live any more.
pub(super) struct Connection<S> {
    stream: S,
    patience: Patience,
    question: Question,
    /// Something was received since the wait began.
    heard: bool,
    wait: Wait,
}

impl<S> Connection<S> {
    /// Watches over `stream`. `question` asks its server for a sign of life.
    fn new<F>(
        stream: S,
        patience: Patience,
        question: impl Fn() -> F + Send + Sync + 'static,
    ) -> Connection<S>
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let question: Question = Arc::new(move || question().boxed());
        Connection { stream, patience, question, heard: false, wait: silence(patience) }
    }

    /// Ready when the server was silent, and does not answer.
    fn poll_death(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let heard = std::mem::take(&mut self.heard);
            self.wait = match &mut self.wait {
                Wait::Silence(silence_ended) => {
                    if silence_ended.as_mut().poll(cx).is_pending() {
                        self.heard = heard;
                        return Poll::Pending;
                    }
                    if heard { silence(self.patience) } else { Wait::Answer((self.question)()) }
                }
                Wait::Answer(_) if heard => silence(self.patience),
                Wait::Answer(answer) => match ready!(answer.as_mut().poll(cx)) {
                    true => silence(self.patience),
                    false => {
                        let waited = self.patience.silence + self.patience.answer;
                        let problem = format!("the server was silent for {waited:?} and does not answer");
                        return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, problem));
                    }
                },
            };
        }
    }
}

fn silence(patience: Patience) -> Wait {
    Wait::Silence(async move { Clock::system().sleep(patience.silence).await }.boxed())
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            self.heard = true;
            return Poll::Ready(read.map_err(explain));
        }
        self.poll_death(cx).map(Err)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const SHORT: Patience = Patience { silence: Duration::from_secs(5), answer: Duration::from_secs(10) };

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_asked_and_given_up_when_it_does_not_answer() {
        let (near, mut far) = tokio::io::duplex(64);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        // It answers twice.
        let question = move || std::future::ready(count.fetch_add(1, Ordering::Relaxed) < 2);
        let mut connection = Connection::new(near, SHORT, question);
        let clock = Clock::system();

        for _ in 0..3 {
            far.write_all(b"x").await.unwrap();
            connection.read_exact(&mut [0]).await.unwrap();
            clock.sleep(Duration::from_secs(4)).await;
        }
        assert_eq!(asked.load(Ordering::Relaxed), 0, "a server which is heard is not asked");

        let begun = clock.now();
        let error = connection.read(&mut [0]).await.unwrap_err();
        assert_eq!((error.kind(), asked.load(Ordering::Relaxed)), (io::ErrorKind::TimedOut, 3));
        let waited = clock.now() - begun;
        assert!(waited >= Duration::from_secs(10) && waited <= Duration::from_secs(20), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_received_meanwhile_is_an_answer() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut connection = Connection::new(near, SHORT, std::future::pending::<bool>);
        let clock = Clock::system();
        let mut byte = [0];
        let read = connection.read_exact(&mut byte);
        let write = async {
            clock.sleep(Duration::from_secs(7)).await;
            far.write_all(b"x").await.unwrap();
        };
        let (read, ()) = futures::join!(read, write);
        read.unwrap();
        assert!(clock.timeout(Duration::from_secs(60), connection.read(&mut [0])).await.is_err());
        assert!(matches!(connection.wait, Wait::Answer(_)), "it is asked anew");
    }

    #[tokio::test]
    async fn a_stopped_process_does_not_answer_and_a_closed_port_does() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let patience = Patience { answer: Duration::from_millis(50), ..SHORT };
        // The kernel accepts the connection, and nobody reads from it.
        assert!(!is_alive(TcpStream::connect(address), patience).await);
        drop(listener);
        let patience = Patience { answer: Duration::from_secs(30), ..SHORT };
        assert!(is_alive(TcpStream::connect(address), patience).await);
    }
}
