use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::tls::tests::Authority;
use tower::ServiceExt;

const DRAIN: Duration = Duration::from_secs(5);

async fn start(address: &str, router: Router) -> (String, Option<SocketAddr>, TaskGroup) {
    start_with(address, router, None).await
}

async fn start_with(
    address: &str,
    router: Router,
    tls: Option<ServerTls>,
) -> (String, Option<SocketAddr>, TaskGroup) {
    let listener = Listener::bind(address).await.unwrap().with_tls(tls);
    let (endpoint, addr) = (listener.endpoint("127.0.0.1"), listener.local_addr());
    let tasks = TaskGroup::new("test");
    tasks.spawn(
        "serve",
        OnError::CancelGroup,
        serve(listener, router, tasks.clone(), Clock::system(), DRAIN),
    );
    (endpoint, addr, tasks)
}

#[tokio::test]
async fn what_is_not_served_is_said_in_the_terms_of_the_request() {
    let (_, addr, tasks) = start("127.0.0.1:0", ready_router().fallback(not_found)).await;
    let response = http1(TcpStream::connect(addr.unwrap()).await.unwrap(), "/nope").await;
    assert!(
        response.starts_with("HTTP/1.1 404") && response.ends_with("/nope is not served here\n"),
        "{response}"
    );
    let grpc = http::Request::builder().uri("/a.Service/Method").header("content-type", "application/grpc");
    let response = not_found(grpc.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["grpc-status"], "12");
    tasks.cancel();
    tasks.join_within(DRAIN).await.unwrap();
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

#[tokio::test]
async fn http_1_and_http_2_share_one_port() {
    let metrics = Metrics::new();
    metrics.counter("seen_total", "Seen.").inc();
    let (endpoint, addr, tasks) = start("127.0.0.1:0", debug_router(metrics)).await;

    let response = http1(TcpStream::connect(addr.unwrap()).await.unwrap(), "/debug/metrics").await;
    assert!(response.starts_with("HTTP/1.1 200") && response.contains("seen_total 1"), "{response}");

    let response = http2(crate::grpc::channel(&endpoint).unwrap(), &endpoint).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));

    tasks.cancel();
    tasks.join_within(DRAIN).await.unwrap();
}

async fn http2(
    mut channel: tonic::transport::Channel,
    endpoint: &str,
) -> Result<http::Response<tonic::body::Body>, tonic::transport::Error> {
    let request = http::Request::builder()
        .uri(format!("{endpoint}/debug/ready"))
        .body(tonic::body::Body::empty())
        .unwrap();
    let ready = ServiceExt::<http::Request<tonic::body::Body>>::ready(&mut channel).await?;
    tower::Service::call(ready, request).await
}

#[tokio::test]
async fn a_port_with_tls_serves_those_who_speak_it_whatever_others_do() {
    let ours = Authority::new("ours");
    let tls = ours.server(Some(ours.ca()));
    let (endpoint, addr, tasks) = start_with("127.0.0.1:0", ready_router(), Some(tls)).await;
    let addr = addr.unwrap();
    let endpoint = endpoint.replace("127.0.0.1", "localhost");
    assert_eq!(endpoint, format!("https://localhost:{}", addr.port()));

    let silent = TcpStream::connect(addr).await.unwrap();
    let mut plain = TcpStream::connect(addr).await.unwrap();
    plain.write_all(b"GET /debug/ready HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Closing with something unread resets the connection.
    let _closed = plain.read_to_end(&mut answer).await;
    assert!(!answer.windows(4).any(|bytes| bytes == b"HTTP"), "{answer:?}");

    let known = ours.client(Some(ours.issue("someone")));
    let channel = crate::grpc::secure_channel(&endpoint, &known).unwrap();
    let response = http2(channel, &endpoint).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
    let stream = TcpStream::connect(addr).await.unwrap();
    let name = known.name_of("localhost:1").unwrap();
    let stream = known.connect(stream, name, crate::tls::Protocol::Http1).await.unwrap();
    let response = http1(stream, "/debug/ready").await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");

    let unknown = crate::grpc::secure_channel(&endpoint, &ours.client(None)).unwrap();
    let error = crate::grpc::chain_text(&http2(unknown, &endpoint).await.unwrap_err());
    assert!(error.contains("the server refuses this client"), "{error}");
    let plain = crate::grpc::channel(&endpoint.replace("https", "http")).unwrap();
    http2(plain, &endpoint).await.unwrap_err();
    drop(silent);

    tasks.cancel();
    tasks.join_within(DRAIN).await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_is_served_replaced_when_stale_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    // It is the same with TLS.
    let tls = Authority::new("ours").server(None);
    let address = format!("unix://{}", path.display());
    let (endpoint, _, tasks) = start_with(&address, ready_router(), Some(tls)).await;
    assert_eq!(endpoint, format!("unix://127.0.0.1{}", path.display()));

    let response = http1(UnixStream::connect(&path).await.unwrap(), "/debug/ready").await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    let taken = Listener::bind(&format!("unix://{}", path.display())).await.err().unwrap().to_string();
    assert!(taken.contains("cannot listen on unix://"), "{taken}");

    tasks.cancel();
    tasks.join_within(DRAIN).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("precious");
    std::fs::write(&path, "content").unwrap();
    let address = format!("unix://{}", path.display());
    let said = Listener::bind(&address).await.err().unwrap().to_string();
    assert_eq!(
        said,
        format!(
            "cannot listen on {address}: the path is a file that is not a socket; expected a socket, or no file"
        )
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "content");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_begin_is_cut_off_and_one_that_waits_for_its_answer_is_not() {
    let clock = Clock::system();
    let slow = Router::new().route(
        "/slow",
        get(move || {
            let clock = clock.clone();
            async move {
                clock.sleep(Duration::from_secs(600)).await;
                "done"
            }
        }),
    );
    let (endpoint, addr, tasks) = start("127.0.0.1:0", slow.merge(ready_router())).await;
    for beginning in ["", "PRI * HTTP/2.0\r\n", "P"] {
        let mut stream = TcpStream::connect(addr.unwrap()).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        // Closed, perhaps with something unread.
        let mut answer = Vec::new();
        let closed = Clock::system().timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "{beginning:?}");
    }
    let response = http1(TcpStream::connect(addr.unwrap()).await.unwrap(), "/slow").await;
    assert!(response.ends_with("done"), "{response}");
    let channel = crate::grpc::channel(&endpoint).unwrap();
    assert_eq!(http2(channel, &endpoint).await.unwrap().status().as_u16(), 200);
    tasks.cancel();
    tasks.join_within(DRAIN).await.unwrap();
}

#[tokio::test]
async fn an_open_request_is_finished_while_draining() {
    let release = std::sync::Arc::new(tokio::sync::Notify::new());
    let started = std::sync::Arc::new(tokio::sync::Notify::new());
    let (r, s) = (release.clone(), started.clone());
    let router = Router::new().route(
        "/slow",
        get(move || async move {
            s.notify_one();
            r.notified().await;
            "done"
        }),
    );
    let (_, addr, tasks) = start("127.0.0.1:0", router).await;
    let stream = TcpStream::connect(addr.unwrap()).await.unwrap();
    let (response, ()) = tokio::join!(http1(stream, "/slow"), async {
        started.notified().await;
        tasks.cancel();
        release.notify_one();
    });
    assert!(response.ends_with("done"), "{response}");
    tasks.join_within(DRAIN).await.unwrap();
    assert!(TcpStream::connect(addr.unwrap()).await.is_err());
}

#[tokio::test]
async fn a_request_that_does_not_end_is_dropped_after_the_drain_time() {
    let started = std::sync::Arc::new(tokio::sync::Notify::new());
    let s = started.clone();
    let router = Router::new().route(
        "/stuck",
        get(move || async move {
            s.notify_one();
            std::future::pending::<()>().await
        }),
    );
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let tasks = TaskGroup::new("test");
    let drain = Duration::from_millis(10);
    tasks.spawn(
        "serve",
        OnError::CancelGroup,
        serve(listener, router, tasks.clone(), Clock::system(), drain),
    );
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    started.notified().await;
    tasks.cancel();
    tasks.join_within(DRAIN).await.unwrap();
}
