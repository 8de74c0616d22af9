//! Why a request is not authorized, and why keys cannot be used. No text here has a key or a token in it.

use tonic::Status;

use crate::capability::Capability;

/// A request is refused. Becomes the gRPC status `Unauthenticated`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It has no token.
    #[error("missing or empty Authorization token")]
    Missing,
    /// Its metadata is not a bearer token.
    #[error("invalid or unsupported Authorization header (expected 'Bearer')")]
    Unsupported,
    /// Its token is not valid.
    #[error("verifying Authorization: {0}")]
    Token(#[from] TokenError),
    /// Its token does not allow this kind of request.
    #[error("authorization is missing required {0} capability")]
    MissingCapability(&'static str),
    /// Its token lacks a capability of an application.
    #[error("authorization is missing required capability (have {have}, but require {require})")]
    MissingBits {
        /// Of the token.
        have: Capability,
        /// Of the request.
        require: Capability,
    },
    /// Its token does not reach this journal or shard.
    #[error("not authorized to {0}")]
    OutOfScope(String),
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Status {
        Status::unauthenticated(error.to_string())
    }
}

/// A token is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not a JSON web token that is signed with HS256 or HS384.
    #[error("token is malformed, or not signed with HS256 or HS384")]
    Malformed,
    /// It was signed with none of the keys.
    #[error("signature is invalid")]
    Signature,
    /// Its claims are not what they should be.
    #[error("claims are malformed: {0}")]
    Claims(String),
    /// It has no expiry.
    #[error("token has no expiry (claim exp)")]
    NoExpiry,
    /// It has expired.
    #[error("token is expired")]
    Expired,
    /// It is not valid yet.
    #[error("token is not valid yet")]
    NotYetValid,
    /// It is from the future.
    #[error("token used before issued")]
    IssuedLater,
}

/// Keys, or a token, cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// A key is not base64.
    #[error("key {0} is not standard base64 (with padding)")]
    Encoding(usize),
    /// A key is empty.
    #[error("key {0} is empty")]
    Empty(usize),
    /// There is none to sign with.
    #[error("expected at least one key, in standard base64 (the literal AA== is none)")]
    NoKey,
    /// A token has characters that no token has.
    #[error("the token has characters which cannot be sent")]
    Token,
}
