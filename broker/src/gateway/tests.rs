//! The gateway before a service which answers as it is told.

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::stream::BoxStream;
use http_body_util::BodyExt;
use proto::protocol::journal_server::{Journal, JournalServer};
use proto::protocol::{
    AppendRequest, AppendResponse, ApplyRequest, ApplyResponse, Fragment, FragmentStoreHealthRequest,
    FragmentStoreHealthResponse, FragmentsRequest, FragmentsResponse, ListRequest, ListResponse, ReadRequest,
    ReadResponse, ReplicateRequest, ReplicateResponse, Sha1Sum,
};
use tonic::{Request as Call, Response as Answer, Streaming};

use super::*;

type Outcome<T> = Result<T, tonic::Status>;

/// A service with the answers to give, and the calls that it got.
#[derive(Clone, Default)]
struct Scripted {
    reads: Arc<Mutex<Vec<Vec<Outcome<ReadResponse>>>>>,
    append: Arc<Mutex<Option<Outcome<AppendResponse>>>>,
    calls: Arc<Mutex<Vec<ReadRequest>>>,
    appended: Arc<Mutex<Vec<AppendRequest>>>,
    tokens: Arc<Mutex<Vec<Option<String>>>>,
}

impl Scripted {
    /// Answers the next reads in this order.
    fn reading<const N: usize>(answers: [Vec<Outcome<ReadResponse>>; N]) -> Scripted {
        let scripted = Scripted::default();
        scripted.reads.lock().unwrap().extend(answers.into_iter().rev());
        scripted
    }

    fn appending(answer: Outcome<AppendResponse>) -> Scripted {
        let scripted = Scripted::default();
        *scripted.append.lock().unwrap() = Some(answer);
        scripted
    }

    fn note_token<T>(&self, call: &Call<T>) {
        let token = call.metadata().get("authorization").map(|token| token.to_str().unwrap().to_owned());
        self.tokens.lock().unwrap().push(token);
    }

    async fn answer(&self, request: http::request::Builder, body: Body) -> Response {
        let gateway = Gateway::new(Routes::new(JournalServer::new(self.clone())));
        gateway.answer(request.body(body).unwrap()).await
    }

    async fn get(&self, uri: &str, headers: &[(&str, &str)]) -> Response {
        let request = headers
            .iter()
            .fold(http::Request::get(uri), |request, (name, value)| request.header(*name, *value));
        self.answer(request, Body::empty()).await
    }
}

#[tonic::async_trait]
impl Journal for Scripted {
    type ListStream = BoxStream<'static, Outcome<ListResponse>>;
    type ReadStream = BoxStream<'static, Outcome<ReadResponse>>;
    type ReplicateStream = BoxStream<'static, Outcome<ReplicateResponse>>;

    async fn read(&self, call: Call<ReadRequest>) -> Outcome<Answer<Self::ReadStream>> {
        self.note_token(&call);
        self.calls.lock().unwrap().push(call.into_inner());
        let answers = self.reads.lock().unwrap().pop().unwrap();
        Ok(Answer::new(futures::stream::iter(answers).boxed()))
    }

    async fn append(&self, call: Call<Streaming<AppendRequest>>) -> Outcome<Answer<AppendResponse>> {
        self.note_token(&call);
        let mut messages = call.into_inner();
        while let Some(message) = messages.message().await? {
            self.appended.lock().unwrap().push(message);
        }
        self.append.lock().unwrap().take().unwrap().map(Answer::new)
    }

    async fn list(&self, _: Call<ListRequest>) -> Outcome<Answer<Self::ListStream>> {
        Err(tonic::Status::unimplemented("not scripted"))
    }

    async fn apply(&self, _: Call<ApplyRequest>) -> Outcome<Answer<ApplyResponse>> {
        Err(tonic::Status::unimplemented("not scripted"))
    }

    async fn replicate(
        &self,
        _: Call<Streaming<ReplicateRequest>>,
    ) -> Outcome<Answer<Self::ReplicateStream>> {
        Err(tonic::Status::unimplemented("not scripted"))
    }

    async fn list_fragments(&self, _: Call<FragmentsRequest>) -> Outcome<Answer<FragmentsResponse>> {
        Err(tonic::Status::unimplemented("not scripted"))
    }

    async fn fragment_store_health(
        &self,
        _: Call<FragmentStoreHealthRequest>,
    ) -> Outcome<Answer<FragmentStoreHealthResponse>> {
        Err(tonic::Status::unimplemented("not scripted"))
    }
}

fn metadata(offset: i64, end: i64) -> Outcome<ReadResponse> {
    let fragment = Fragment { begin: offset, end, ..fragment() };
    Ok(ReadResponse { offset, write_head: end, fragment: Some(fragment), ..ReadResponse::default() })
}

fn fragment() -> Fragment {
    let sum = Some(Sha1Sum::default());
    Fragment { journal: "a/journal".to_owned(), sum, compression_codec: 1, ..Fragment::default() }
}

fn chunk(offset: i64, text: &'static str) -> Outcome<ReadResponse> {
    Ok(ReadResponse { offset, content: text.into(), ..ReadResponse::default() })
}

fn status(status: Status, write_head: i64) -> Outcome<ReadResponse> {
    Ok(ReadResponse { status: status as i32, offset: write_head, write_head, ..ReadResponse::default() })
}

/// Body and trailer of an answer. An error is what the connection breaks off with.
async fn body_of(response: Response) -> Result<(String, Option<String>), String> {
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
    let trailer = body.trailers().and_then(|trailers| trailers.get("x-close-error").cloned());
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    Ok((text, trailer.map(|trailer| trailer.to_str().unwrap().to_owned())))
}

#[tokio::test]
async fn each_outcome_of_a_read_has_its_status() {
    let refused = tonic::Status::unauthenticated("missing or empty Authorization token");
    let unauthenticated = "rpc error: code = Unauthenticated desc = missing or empty Authorization token\n";
    for (answers, code, text) in [
        (vec![metadata(0, 3), chunk(0, "abc")], 206, "abc"),
        (vec![status(Status::JournalNotFound, 0)], 404, "JOURNAL_NOT_FOUND\n"),
        (vec![status(Status::InsufficientJournalBrokers, 0)], 503, "INSUFFICIENT_JOURNAL_BROKERS\n"),
        (vec![status(Status::OffsetNotYetAvailable, 9)], 416, "OFFSET_NOT_YET_AVAILABLE\n"),
        (vec![status(Status::NotAllowed, 0)], 500, "NOT_ALLOWED\n"),
        (vec![status(Status::Suspended, 0)], 500, "SUSPENDED\n"),
        (vec![Err(tonic::Status::unknown("no"))], 500, "rpc error: code = Unknown desc = no\n"),
        (vec![], 500, "rpc error: code = Unavailable desc = broker terminated RPC\n"),
        (vec![Err(refused)], 401, unauthenticated),
    ] {
        let response = Scripted::reading([answers]).get("/a/journal", &[]).await;
        assert_eq!(response.status(), code, "{text}");
        assert_eq!(response.headers().contains_key("www-authenticate"), code == 401);
        assert_eq!(body_of(response).await.unwrap().0, text);
    }
}

#[tokio::test]
async fn a_trailer_tells_why_a_body_ended() {
    let broken = tonic::Status::internal("disk");
    for (last, text, reason) in [
        (vec![], "abcd", "broker terminated RPC"),
        (vec![status(Status::OffsetNotYetAvailable, 9)], "abcd", "OFFSET_NOT_YET_AVAILABLE"),
        (vec![Err(broken)], "abcd", "rpc error: code = Internal desc = disk"),
        // The first jump is absorbed, the second one is not.
        (vec![metadata(20, 30), chunk(20, "xyz")], "abcd", "offset jump"),
        (vec![metadata(9, 12), chunk(9, "efg")], "abcdefg", "broker terminated RPC"),
    ] {
        let mut answers = vec![metadata(5, 8), chunk(5, "abc"), chunk(8, "d")];
        answers.extend(last);
        let response = Scripted::reading([answers]).get("/a/journal?offset=2", &[]).await;
        assert_eq!(response.headers()["trailer"], "x-close-error");
        assert_eq!(response.headers()["content-range"], "bytes 5-9223372036854775807/9223372036854775807");
        assert_eq!(body_of(response).await.unwrap(), (text.to_owned(), Some(reason.to_owned())));
    }
}

#[tokio::test]
async fn a_range_is_answered_with_its_length() {
    let content = || vec![metadata(2, 9), chunk(2, "cdefghi"), status(Status::OffsetNotYetAvailable, 9)];
    for (range, uri, code, told, length, text) in [
        ("bytes=2-4", "/a/journal", 206, "bytes 2-4/9", Some("3"), "cde"),
        ("bytes=2-", "/a/journal", 206, "bytes 2-8/9", Some("7"), "cdefghi"),
        ("bytes=0-99", "/a/journal", 206, "bytes 2-8/9", Some("7"), "cdefghi"),
        ("bytes=2-3", "/a/journal?block=true", 206, "bytes 2-3/*", Some("2"), "cd"),
        // All of it was deleted.
        ("bytes=0-1", "/a/journal", 416, "bytes */9", None, "OFFSET_NOT_YET_AVAILABLE\n"),
        // The offset counts.
        (
            "bytes=2-4",
            "/a/journal?offset=2",
            206,
            "bytes 2-9223372036854775807/9223372036854775807",
            None,
            "cdefghi",
        ),
    ] {
        let response = Scripted::reading([content()]).get(uri, &[("range", range)]).await;
        assert_eq!(response.status(), code, "{range}");
        assert_eq!(response.headers()["content-range"], told, "{range}");
        let got = response.headers().get("content-length").map(|length| length.to_str().unwrap());
        assert_eq!(got, length, "{range}");
        assert_eq!(body_of(response).await.unwrap().0, text, "{range}");
    }
}

#[tokio::test]
async fn the_last_bytes_are_counted_from_the_write_head() {
    let head = || vec![status(Status::OffsetNotYetAvailable, 9)];
    let service = Scripted::reading([head(), vec![metadata(6, 9), chunk(6, "ghi")]]);
    let response = service.get("/a/journal", &[("range", "bytes=-3")]).await;
    assert_eq!(response.headers()["content-range"], "bytes 6-8/9");
    assert_eq!(body_of(response).await.unwrap().0, "ghi");
    let offsets: Vec<_> = service.calls.lock().unwrap().iter().map(|call| call.offset).collect();
    assert_eq!(offsets, [-1, 6]);

    let response = Scripted::reading([head(), head()]).get("/a/journal", &[("range", "bytes=-0")]).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-range"]),
        (416, &"bytes */9".parse().unwrap())
    );
}

#[tokio::test]
async fn a_range_that_breaks_off_breaks_the_connection_off() {
    for last in [vec![], vec![metadata(20, 30)], vec![Err(tonic::Status::internal("disk"))]] {
        let mut answers = vec![metadata(2, 9), chunk(2, "cde")];
        answers.extend(last);
        let response = Scripted::reading([answers]).get("/a/journal", &[("range", "bytes=2-7")]).await;
        assert_eq!(response.headers()["content-length"], "6");
        body_of(response).await.unwrap_err();
    }
}

#[tokio::test]
async fn the_callers_token_is_passed_on() {
    let service = Scripted::reading([
        vec![status(Status::OffsetNotYetAvailable, 9)],
        vec![metadata(6, 9), chunk(6, "ghi")],
    ]);
    let headers = [("range", "bytes=-3"), ("authorization", "Bearer a.b.c")];
    service.get("/a/journal", &headers).await;
    assert_eq!(
        *service.tokens.lock().unwrap(),
        [Some("Bearer a.b.c".to_owned()), Some("Bearer a.b.c".to_owned())]
    );

    let refused = || Err(tonic::Status::unauthenticated("no"));
    let service = Scripted::appending(refused());
    let request = http::Request::put("/a/journal").header("authorization", "Bearer x");
    let response = service.answer(request, Body::from("content")).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["www-authenticate"]),
        (401, &"Bearer".parse().unwrap())
    );
    assert_eq!(*service.tokens.lock().unwrap(), [Some("Bearer x".to_owned())]);

    let service = Scripted::appending(refused());
    service.answer(http::Request::put("/a/journal"), Body::empty()).await;
    assert_eq!(*service.tokens.lock().unwrap(), [None]);
}

#[tokio::test]
async fn a_body_is_appended_in_pieces_with_a_commit_at_its_end() {
    let commit = Some(Fragment { begin: 3, end: 10, ..fragment() });
    let service = Scripted::appending(Ok(AppendResponse { commit, ..AppendResponse::default() }));
    let content = vec![b'x'; 300_000];
    let response = service.answer(http::Request::put("/a/journal"), Body::from(content)).await;
    assert_eq!(response.status(), 204);
    for (name, value) in [
        ("x-commit-begin", "3"),
        ("x-commit-end", "10"),
        ("x-commit-sha1-sum", "0000000000000000000000000000000000000000"),
        ("x-write-head", "10"),
    ] {
        assert_eq!(response.headers()[name], value);
    }
    let appended = service.appended.lock().unwrap().clone();
    assert_eq!(appended[0].journal, "a/journal");
    let sizes: Vec<_> = appended[1..].iter().map(|message| message.content.len()).collect();
    assert_eq!(sizes, [131_072, 131_072, 37_856, 0]);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_committed() {
    let pieces = [Ok("abc"), Err(std::io::Error::other("gone"))];
    let service = Scripted::appending(Err(tonic::Status::unknown("append stream: unexpected EOF")));
    let body = Body::from_stream(futures::stream::iter(pieces));
    let response = service.answer(http::Request::put("/a/journal"), body).await;
    assert_eq!(response.status(), 500);
    let appended = service.appended.lock().unwrap().clone();
    assert_eq!(appended.last().unwrap().content, "abc", "there is no empty message at the end");
}

#[tokio::test]
async fn every_failed_append_is_an_error_of_the_server() {
    for refused in [Status::JournalNotFound, Status::NotAllowed, Status::WrongAppendOffset] {
        let answer = AppendResponse { status: refused as i32, ..AppendResponse::default() };
        let response =
            Scripted::appending(Ok(answer)).answer(http::Request::put("/a/journal"), Body::empty()).await;
        assert_eq!(response.status(), 500);
        assert_eq!(body_of(response).await.unwrap().0, format!("{}\n", refused.as_str_name()));
    }
}

#[tokio::test]
async fn requests_that_make_no_sense_are_told_why() {
    for (method, uri, text) in [
        ("POST", "/a/journal", "unknown method: POST\n"),
        ("DELETE", "/a/journal", "unknown method: DELETE\n"),
        ("GET", "/a/journal?what=1", "unknown query argument \"what\"; expected offset, block\n"),
        ("PUT", "/a/journal?offset=1", "unknown query argument \"offset\"; expected none\n"),
        ("GET", "/a/journal?offset=-2", "invalid Offset (-2; expected -1 <= Offset <= MaxInt64)\n"),
        ("GET", "//a/journal", "Journal: cannot begin with '/' (/a/journal)\n"),
    ] {
        let request = http::Request::builder().method(method).uri(uri);
        let response = Scripted::default().answer(request, Body::empty()).await;
        assert_eq!(response.status(), 400, "{method} {uri}");
        assert_eq!(body_of(response).await.unwrap().0, text);
    }
}

#[tokio::test]
async fn a_head_asks_for_the_metadata_alone() {
    let service = Scripted::reading([vec![metadata(2, 9)]]);
    let request = http::Request::head("/a/journal?offset=2&block=true").header("range", "bytes=3-4");
    let response = service.answer(request, Body::empty()).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-write-head"]),
        (206, &"9".parse().unwrap())
    );
    let call = service.calls.lock().unwrap()[0].clone();
    assert!(call.metadata_only && call.block, "{call:?}");
    assert_eq!((call.offset, call.end_offset), (2, 0));
}

#[tokio::test]
async fn unknown_methods_of_grpc_are_told_in_its_terms() {
    let request = http::Request::post("/protocol.Nothing/Read").header("content-type", "application/grpc");
    let response = Scripted::default().answer(request, Body::empty()).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["grpc-status"]),
        (200, &"12".parse().unwrap())
    );
}
