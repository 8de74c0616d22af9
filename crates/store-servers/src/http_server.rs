//! The least of HTTP that the servers here need.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use runtime::{BoxError, Clock, OnError, TaskGroup};
use tokio::net::{TcpListener, TcpStream};

/// A body which may break off.
pub(crate) type Body = BoxBody<Bytes, io::Error>;
/// An error closes the connection without an answer.
pub(crate) type Answer = Result<Response<Body>, BoxError>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A server, which ends when this is dropped.
pub(crate) struct Listening {
    pub(crate) endpoint: String,
    tasks: TaskGroup,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// Answers every request on a free port of the loopback interface by `handle`.
pub(crate) async fn serve(
    name: &str,
    handle: impl Fn(Request<Bytes>) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
) -> Result<Listening, BoxError> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let tasks = TaskGroup::new(name);
    let (handle, connections) = (Arc::new(handle), tasks.clone());
    tasks.spawn("accept", OnError::Log, async move {
        let stop = connections.token().clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let (stream, _) = accepted?;
            connections.spawn("connection", OnError::Log, connection(stream, handle.clone(), stop.clone()));
        }
    });
    Ok(Listening { endpoint, tasks })
}

async fn connection<H>(
    stream: TcpStream,
    handle: Arc<H>,
    stop: runtime::CancellationToken,
) -> Result<(), BoxError>
where
    H: Fn(Request<Bytes>) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let handle = handle.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            handle(Request::from_parts(parts, body)).await.map_err(io::Error::other)
        }
    });
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        // A client which goes, or is sent away, is no failure of the server.
        _ = served => {}
    }
    Ok(())
}

/// Sends a request to the server at `authority`, as it is.
pub(crate) async fn forward(authority: &str, request: Request<Bytes>) -> Result<Response<Bytes>, BoxError> {
    let stream = TcpStream::connect(authority).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(http::header::TRANSFER_ENCODING);
    let exchange = async {
        let response = sender.send_request(Request::from_parts(parts, Full::new(body))).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok::<_, hyper::Error>(Response::from_parts(parts, body))
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        response = &mut exchange => Ok(response?),
        ended = &mut connection => {
            ended?;
            Ok(exchange.await?)
        }
    }
}

/// Makes a request without a body, which must succeed.
pub(crate) async fn request(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
) -> Result<Response<Bytes>, BoxError> {
    let rest = url.strip_prefix("http://").ok_or("only http is spoken here")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut builder = Request::builder().method(&method).uri(path).header("host", authority);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let response = forward(authority, builder.header("content-length", "0").body(Bytes::new())?).await?;
    if !response.status().is_success() {
        let text = String::from_utf8_lossy(response.body());
        return Err(format!("{method} {url}: {}: {text}", response.status()).into());
    }
    Ok(response)
}

/// An answer of a status with a body.
pub(crate) fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    Ok(Response::builder().status(status).body(full(body))?)
}

/// An error as S3 and Google say it.
pub(crate) fn error_answer(status: StatusCode, code: &str) -> Answer {
    let text = format!(
        "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    );
    answer(status, text)
}

/// Now, as HTTP writes it.
pub(crate) fn http_date(clock: &Clock) -> String {
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + clock.unix_now())
}
