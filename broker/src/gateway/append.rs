//! `PUT`: the request's body is appended to the journal, all of it or nothing.

use async_stream::stream;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::{Stream, StreamExt};
use http::StatusCode;
use http::header::AUTHORIZATION;
use proto::Validate;
use proto::protocol::{AppendRequest, Status};
use runtime::json_gateway::authorize;

use super::{Gateway, Refusal, headers, target};

/// Bytes of content in a message.
const CHUNK_BYTES_MAX: usize = 128 << 10;

impl Gateway {
    pub(super) async fn append(mut self, request: Request) -> Result<Response, Refusal> {
        let (parts, body) = request.into_parts();
        let journal = target::journal_of(&parts.uri)?;
        target::no_arguments(&parts.uri)?;
        let opening = AppendRequest { journal, ..AppendRequest::default() };
        opening.validate().map_err(Refusal::bad_request)?;

        let mut call = tonic::Request::new(messages(opening, body));
        authorize(&mut call, parts.headers.get(AUTHORIZATION));
        let answer = self.client.append(call).await.map_err(|error| Refusal::of_call(&error))?.into_inner();
        let mut told = headers::of_route(answer.header.as_ref(), parts.uri.path());
        match answer.status() {
            Status::Ok => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                headers::of_commit(&answer.commit.unwrap_or_default(), &mut told);
                *response.headers_mut() = told;
                Ok(response)
            }
            status => Err(Refusal::of_status(StatusCode::INTERNAL_SERVER_ERROR, status, told)),
        }
    }
}

/// The messages of an append. A body that breaks off is not followed by the commit, so that nothing is appended.
fn messages(opening: AppendRequest, body: Body) -> impl Stream<Item = AppendRequest> + Send + 'static {
    stream! {
        yield opening;
        let mut body = body.into_data_stream();
        let mut is_whole = true;
        while let Some(piece) = body.next().await {
            let Ok(mut piece) = piece else {
                is_whole = false;
                break;
            };
            while !piece.is_empty() {
                let content = piece.split_to(piece.len().min(CHUNK_BYTES_MAX));
                yield AppendRequest { content, ..AppendRequest::default() };
            }
        }
        if is_whole {
            yield AppendRequest::default();
        }
    }
}
