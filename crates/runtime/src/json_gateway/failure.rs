//! How failed calls are told of, in the shapes of grpc-gateway v1.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::{CHALLENGE, JSON};

/// The answer to a call that failed.
pub(super) fn of_call(status: &Status) -> Response {
    let (code, text) = (code_number(status), status.message());
    answer(status, json!({"error": text, "code": code, "message": text, "details": []}).to_string())
}

/// The answer to a call of a streaming method that failed before its first message.
pub(super) fn of_stream(status: &Status) -> Response {
    answer(status, error_of(status).to_string() + "\n")
}

/// The last line of a stream that fails.
pub(super) fn line_of(status: &Status) -> Vec<u8> {
    (error_of(status).to_string() + "\n").into_bytes()
}

fn answer(status: &Status, text: String) -> Response {
    let mut response = (http_status(status.code()), [(CONTENT_TYPE, JSON)], text).into_response();
    if status.code() == Code::Unauthenticated {
        let (name, value) = CHALLENGE;
        response.headers_mut().insert(name, value);
    }
    response
}

fn error_of(status: &Status) -> Value {
    let http = http_status(status.code());
    json!({"error": {
        "grpcCode": code_number(status),
        "httpCode": http.as_u16(),
        "message": status.message(),
        "httpStatus": http.canonical_reason().unwrap_or_default(),
        "details": [],
    }})
}

fn code_number(status: &Status) -> i32 {
    i32::from(status.code())
}

fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_without_permission_is_asked_for_a_token() {
        let response = of_call(&Status::unauthenticated("no \"token\""));
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        let text = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let shown: Value = serde_json::from_slice(&text).unwrap();
        let text = "no \"token\"";
        assert_eq!(shown, json!({"error": text, "message": text, "code": 16, "details": []}));
    }

    #[test]
    fn a_failed_stream_ends_with_a_line_of_its_own() {
        let line = line_of(&Status::unavailable("gone"));
        assert_eq!(line.last(), Some(&b'\n'));
        let shown: Value = serde_json::from_slice(&line).unwrap();
        let error = json!({"grpcCode": 14, "httpCode": 503, "httpStatus": "Service Unavailable", "message": "gone",
            "details": []});
        assert_eq!(shown, json!({"error": error}));
    }
}
