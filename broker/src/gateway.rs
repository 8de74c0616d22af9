//! Journals over plain HTTP (journal protocol §14.2): `GET`, `HEAD` and `PUT` of `/<journal>`.
//!
//! Each request is a call of the journal service, made within this process and with the caller's `Authorization`: the
//! gateway knows nothing of journals, and lets nobody do what the service would not. Content is passed on piece by piece, as
//! fast as the slower side takes it; a client that goes away ends its call.

mod append;
mod headers;
mod range;
mod read;
mod target;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use proto::protocol::Status;
use proto::protocol::journal_client::JournalClient;
use runtime::{grpc, json_gateway, server};
use tonic::service::Routes;

/// Methods of the service that are served as JSON (§14.3).
pub(crate) const JSON_RULES: [json_gateway::Rule; 2] = [
    json_gateway::Rule { path: "/v1/journals/list", service: SERVICE, method: "List" },
    json_gateway::Rule { path: "/v1/journals/read", service: SERVICE, method: "Read" },
];
/// Full name of the service.
pub(crate) const SERVICE: &str = "protocol.Journal";

/// Answers requests for journals. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gateway {
    client: JournalClient<Routes>,
}

impl Gateway {
    /// A gateway to the service behind `service`.
    pub(crate) fn new(service: Routes) -> Gateway {
        Gateway { client: JournalClient::new(service).max_decoding_message_size(usize::MAX) }
    }

    /// Answers a request which nothing else on the port answers.
    pub(crate) async fn answer(self, request: Request) -> Response {
        if server::is_grpc(&request) {
            return server::not_found(request).await;
        }
        let answer = match *request.method() {
            Method::GET | Method::HEAD => self.read(request).await,
            Method::PUT => self.append(request).await,
            ref other => Err(Refusal::bad_request(format!("unknown method: {other}"))),
        };
        answer.unwrap_or_else(IntoResponse::into_response)
    }
}

/// A request that is not done.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    text: String,
    headers: HeaderMap,
}

impl Refusal {
    /// The request makes no sense.
    fn bad_request(problem: impl ToString) -> Refusal {
        Refusal { status: StatusCode::BAD_REQUEST, text: problem.to_string(), headers: HeaderMap::new() }
    }

    /// The service answered with a status other than OK. `headers` are those of its answer.
    fn of_status(code: StatusCode, status: Status, headers: HeaderMap) -> Refusal {
        Refusal { status: code, text: status.as_str_name().to_owned(), headers }
    }

    /// The call failed.
    fn of_call(error: &tonic::Status) -> Refusal {
        let mut headers = HeaderMap::new();
        let status = match error.code() {
            tonic::Code::Unauthenticated => {
                let (name, value) = json_gateway::CHALLENGE;
                headers.insert(name, value);
                StatusCode::UNAUTHORIZED
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal { status, text: grpc::chain_text(error), headers }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.text + "\n"));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

#[cfg(test)]
mod tests;
