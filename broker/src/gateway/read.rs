//! `GET` and `HEAD`: content of a journal from an offset on, or a range of it.
//!
//! Without a `Range` the body goes on to the end of the journal, or for ever if it is to wait for more. With one its length
//! is told beforehand, unless it has no end: should the content break off before, so does the connection.

use std::io;

use async_stream::stream;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, TRAILER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use proto::Validate;
use proto::protocol::{ReadRequest, ReadResponse, Status};
use runtime::grpc;
use runtime::json_gateway::authorize;
use tonic::Streaming;

use super::range::ByteRange;
use super::target::ReadArguments;
use super::{Gateway, Refusal, headers, target};

/// Why a body ends of which nothing else is known.
const TERMINATED: &str = "broker terminated RPC";
const OFFSET_JUMP: &str = "offset jump";

impl Gateway {
    pub(super) async fn read(mut self, request: Request) -> Result<Response, Refusal> {
        let (parts, _) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        let arguments = ReadArguments::of(&parts.uri)?;
        let mut call = ReadRequest {
            journal: target::journal_of(&parts.uri)?,
            offset: arguments.offset.unwrap_or(0),
            block: arguments.block,
            metadata_only: is_head,
            ..ReadRequest::default()
        };
        call.validate().map_err(Refusal::bad_request)?;
        let authorization = parts.headers.get(AUTHORIZATION);
        // An offset says where to begin already, and the headers alone have no range.
        let range = match ByteRange::of(&parts.headers) {
            Some(range) if arguments.offset.is_none() && !is_head => Some(range),
            _ => None,
        };
        match range {
            None => {}
            Some(ByteRange::Span { begin, end }) => {
                (call.offset, call.end_offset) = (begin, end.unwrap_or(0))
            }
            Some(ByteRange::Last(count)) => {
                let end = self.write_head(&call.journal, authorization).await?;
                // Without a byte to begin with, the journal's end is where nothing is available.
                call.offset = end.saturating_sub(count).max(0);
            }
        }
        let (first, stream) = self.open(call.clone(), authorization).await?;
        let mut told = headers::of_route(first.header.as_ref(), parts.uri.path());
        headers::of_read(&first, &mut told);
        let span = match first.status() {
            Status::Ok => range.map(|_| Span::of(&call, &first)),
            status => return Err(refusal(status, &first, range.is_some(), told)),
        };
        match span {
            Some(Span { begin, end: Some(end), .. }) if begin >= end => {
                Err(refusal(Status::OffsetNotYetAvailable, &first, true, told))
            }
            _ => Ok(respond(first, stream, span, told)),
        }
    }

    /// Where the journal ends.
    async fn write_head(
        &mut self,
        journal: &str,
        authorization: Option<&HeaderValue>,
    ) -> Result<i64, Refusal> {
        let call = ReadRequest { journal: journal.to_owned(), offset: -1, ..ReadRequest::default() };
        let (first, _) = self.open(call, authorization).await?;
        Ok(first.write_head)
    }

    /// Makes a call, up to its first answer.
    async fn open(
        &mut self,
        call: ReadRequest,
        authorization: Option<&HeaderValue>,
    ) -> Result<(ReadResponse, Streaming<ReadResponse>), Refusal> {
        let mut call = tonic::Request::new(call);
        authorize(&mut call, authorization);
        let mut stream = self.client.read(call).await.map_err(|error| Refusal::of_call(&error))?.into_inner();
        match stream.message().await.map_err(|error| Refusal::of_call(&error))? {
            Some(first) => Ok((first, stream)),
            None => Err(Refusal::of_call(&tonic::Status::unavailable(TERMINATED))),
        }
    }
}

/// The bytes that answer a range.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    begin: i64,
    /// Known unless the body is to follow the journal.
    end: Option<i64>,
    /// Length of the journal, unless it will have grown by then.
    length: Option<i64>,
}

impl Span {
    /// Content of a fragment that was deleted is passed over, so that the answer may begin later than was asked for.
    fn of(call: &ReadRequest, first: &ReadResponse) -> Span {
        let asked = Some(call.end_offset).filter(|end| *end != 0);
        let (end, length) = match call.block {
            true => (asked, None),
            false => (Some(asked.unwrap_or(i64::MAX).min(first.write_head)), Some(first.write_head)),
        };
        Span { begin: first.offset, end, length }
    }

    /// The value of `Content-Range`, unless it has no end.
    fn content_range(&self) -> Option<String> {
        let last = self.end? - 1;
        let length = self.length.map_or_else(|| "*".to_owned(), |length| length.to_string());
        Some(format!("bytes {}-{last}/{length}", self.begin))
    }
}

/// The answer to a read that the service did not begin.
fn refusal(status: Status, first: &ReadResponse, has_range: bool, mut told: HeaderMap) -> Refusal {
    let code = match status {
        Status::JournalNotFound => StatusCode::NOT_FOUND,
        Status::InsufficientJournalBrokers => StatusCode::SERVICE_UNAVAILABLE,
        Status::OffsetNotYetAvailable => StatusCode::RANGE_NOT_SATISFIABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    if has_range && status == Status::OffsetNotYetAvailable {
        headers::set(&mut told, CONTENT_RANGE, &format!("bytes */{}", first.write_head));
    }
    Refusal::of_status(code, status, told)
}

fn respond(
    first: ReadResponse,
    stream: Streaming<ReadResponse>,
    span: Option<Span>,
    mut told: HeaderMap,
) -> Response {
    let end = span.and_then(|span| span.end);
    if let Some(range) = span.and_then(|span| span.content_range()) {
        headers::set(&mut told, CONTENT_RANGE, &range);
    }
    match end {
        Some(end) => headers::set(&mut told, CONTENT_LENGTH, &end.saturating_sub(first.offset).to_string()),
        None => {
            told.insert(TRAILER, HeaderValue::from(headers::CLOSE_ERROR));
        }
    }
    told.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    told.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let body = body(stream, Content { offset: first.offset, end });
    let mut response = Response::new(Body::new(StreamBody::new(body)));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    *response.headers_mut() = told;
    response
}

/// The content, as it comes. What has an end breaks off if that is not reached; else a trailer tells why it ends.
fn body(
    mut stream: Streaming<ReadResponse>,
    mut content: Content,
) -> impl futures::Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static {
    stream! {
        let reason = loop {
            if content.is_complete() {
                return;
            }
            let taken = match stream.message().await {
                Ok(Some(message)) => content.take(message),
                Ok(None) => Err(TERMINATED.to_owned()),
                Err(status) => Err(grpc::chain_text(&status)),
            };
            match taken {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => yield Ok(Frame::data(bytes)),
                Err(reason) => break reason,
            }
        };
        if content.end.is_some() {
            yield Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
        } else {
            let mut trailers = HeaderMap::new();
            headers::set(&mut trailers, headers::CLOSE_ERROR, &reason);
            yield Ok(Frame::trailers(trailers));
        }
    }
}

/// Follows the answers of a read, of which the first was taken.
struct Content {
    /// Of the next byte.
    offset: i64,
    /// Of the last one, and one more.
    end: Option<i64>,
}

impl Content {
    fn is_complete(&self) -> bool {
        self.end.is_some_and(|end| self.offset >= end)
    }

    /// The bytes of an answer, or why there are no more.
    fn take(&mut self, answer: ReadResponse) -> Result<Bytes, String> {
        if answer.status() != Status::Ok {
            return Err(answer.status().as_str_name().to_owned());
        }
        if answer.offset != self.offset && (answer.fragment.is_some() || !answer.content.is_empty()) {
            return Err(OFFSET_JUMP.to_owned());
        }
        let mut bytes = answer.content;
        let wanted = self.end.map_or(i64::MAX, |end| end.saturating_sub(self.offset));
        bytes.truncate(usize::try_from(wanted).unwrap_or(0));
        self.offset = self.offset.saturating_add(bytes.len() as i64);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(offset: i64, end_offset: i64, block: bool) -> ReadRequest {
        ReadRequest { offset, end_offset, block, ..Default::default() }
    }

    #[test]
    fn the_span_of_a_range_is_what_will_be_sent() {
        let first = ReadResponse { offset: 5, write_head: 30, ..ReadResponse::default() };
        for (call, end, text) in [
            (call(5, 20, false), Some(20), Some("bytes 5-19/30")),
            (call(5, 99, false), Some(30), Some("bytes 5-29/30")),
            (call(3, 0, false), Some(30), Some("bytes 5-29/30")),
            (call(5, 99, true), Some(99), Some("bytes 5-98/*")),
            (call(5, 0, true), None, None),
        ] {
            let span = Span::of(&call, &first);
            assert_eq!((span.end, span.content_range().as_deref()), (end, text), "{call:?}");
        }
    }

    #[test]
    fn content_ends_at_a_jump_and_at_its_end() {
        let chunk = |offset, text: &'static str| ReadResponse {
            offset,
            content: Bytes::from_static(text.as_bytes()),
            ..ReadResponse::default()
        };
        let metadata =
            |offset| ReadResponse { offset, fragment: Some(Default::default()), ..Default::default() };
        let mut content = Content { offset: 5, end: None };
        assert_eq!(content.take(chunk(5, "abc")).unwrap(), "abc");
        assert_eq!(content.take(metadata(8)).unwrap(), "");
        assert_eq!(content.take(chunk(8, "d")).unwrap(), "d");
        assert_eq!(content.take(metadata(10)).unwrap_err(), OFFSET_JUMP);
        let status = Status::OffsetNotYetAvailable as i32;
        let end = ReadResponse { status, offset: 9, ..ReadResponse::default() };
        assert_eq!(content.take(end).unwrap_err(), "OFFSET_NOT_YET_AVAILABLE");

        let mut content = Content { offset: 5, end: Some(7) };
        assert!(!content.is_complete());
        assert_eq!(content.take(chunk(5, "abc")).unwrap(), "ab");
        assert!(content.is_complete());
    }
}
