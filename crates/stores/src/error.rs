//! What can go wrong with a store.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use proto::Invalid;

use crate::operation::Operation;

/// An operation on a store failed. Every error names the store and, where there is one, the object.
///
/// No operation leaves a partial object behind: an upload which fails is not visible. An upload that failed or timed
/// out may nevertheless have taken effect; since objects are named by their content, it can simply be repeated.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL is not that of a store.
    #[error("invalid fragment store {store:?}: {cause}")]
    Url {
        /// The URL.
        store: Arc<str>,
        /// The broken rule.
        cause: Invalid,
    },
    /// The URL's query has an argument that its scheme does not know.
    #[error("parsing store URL arguments: {problem} (fragment store {store:?})")]
    Arguments {
        /// The URL.
        store: Arc<str>,
        /// The argument, and what is wrong with it.
        problem: String,
    },
    /// What the store needs besides its URL, such as credentials, is missing or cannot be used.
    #[error("{problem} (fragment store {store:?})")]
    Setup {
        /// The URL.
        store: Arc<str>,
        /// What is missing.
        problem: String,
    },
    /// The directory of a file store cannot be used.
    #[error("invalid file store directory {directory:?} (fragment store {store:?}): {problem}")]
    Directory {
        /// The URL.
        store: Arc<str>,
        /// The directory.
        directory: String,
        /// Why not.
        problem: String,
    },
    /// There are too many stores already.
    #[error("fragment store {store:?} would be one more than the {max} that a process may use")]
    TooMany {
        /// The URL.
        store: Arc<str>,
        /// The limit.
        max: usize,
    },
    /// The object's name cannot be used in this store: it would leave the store's root, or is too long.
    #[error("{operation} {path:?} of fragment store {store:?}: {problem}")]
    Name {
        /// What was attempted.
        operation: Operation,
        /// The URL.
        store: Arc<str>,
        /// The name, relative to the store's root.
        path: String,
        /// Which rule it breaks.
        problem: String,
    },
    /// There is no such object.
    #[error("{operation} {path:?} of fragment store {store:?}: not found")]
    NotFound {
        /// What was attempted.
        operation: Operation,
        /// The URL.
        store: Arc<str>,
        /// The object.
        path: String,
    },
    /// The store refuses this process: it may not do this, its credentials have expired, or there is no such bucket.
    #[error("{operation} {path:?} of fragment store {store:?}: permission denied: {source}")]
    Denied {
        /// What was attempted.
        operation: Operation,
        /// The URL.
        store: Arc<str>,
        /// The object.
        path: String,
        /// The store's answer.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The store, or the way to it, failed.
    #[error("{operation} {path:?} of fragment store {store:?}: {source}")]
    Failed {
        /// What was attempted.
        operation: Operation,
        /// The URL.
        store: Arc<str>,
        /// The object.
        path: String,
        /// The store's answer.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The store did not answer in time.
    #[error("{operation} {path:?} of fragment store {store:?}: no answer within {limit:?}")]
    TimedOut {
        /// What was attempted.
        operation: Operation,
        /// The URL.
        store: Arc<str>,
        /// The object.
        path: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The stored object is not the fragment that its name says.
    #[error("{path:?} of fragment store {store:?} is corrupt: {problem}")]
    Corrupt {
        /// The URL.
        store: Arc<str>,
        /// The object.
        path: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// The content to upload cannot be read, or is not that of the fragment. The store is not at fault.
    #[error("content of {path:?} for fragment store {store:?}: {problem}")]
    Content {
        /// The URL.
        store: Arc<str>,
        /// The object.
        path: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// A read asked for an offset outside of the fragment.
    #[error("offset {offset} is not within {path:?} of fragment store {store:?}")]
    Offset {
        /// The URL.
        store: Arc<str>,
        /// The object.
        path: String,
        /// The offset asked for.
        offset: i64,
    },
}

impl StoreError {
    /// Whether the store refuses this process altogether, so that another store may be used in its place: missing
    /// credentials or permissions, a bucket that is not there, or a file store without its directory.
    pub fn is_auth(&self) -> bool {
        matches!(self, StoreError::Denied { .. } | StoreError::Directory { .. } | StoreError::Setup { .. })
    }

    /// Whether the same operation may succeed later without anything being changed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::Failed { .. } | StoreError::TimedOut { .. })
    }

    /// Whether there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, StoreError::NotFound { .. })
    }

    /// Whether the error says something about the store, rather than about one object or its caller.
    pub(crate) fn is_of_store(&self) -> bool {
        self.is_auth() || self.is_retryable()
    }
}

/// Why a place could not do something, before it is known of which store.
#[derive(Debug)]
pub(crate) enum PlaceError {
    Name(String),
    Objects(object_store::Error),
    Io(io::Error),
}

impl From<object_store::Error> for PlaceError {
    fn from(error: object_store::Error) -> PlaceError {
        PlaceError::Objects(error)
    }
}

impl PlaceError {
    /// Whether the same may succeed in a moment.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            PlaceError::Name(_) => false,
            PlaceError::Objects(error) => is_transient(error),
            PlaceError::Io(error) => error.kind() == io::ErrorKind::TimedOut,
        }
    }

    /// The error of `operation` on `path` of `store`.
    pub(crate) fn of(self, operation: Operation, store: &Arc<str>, path: &str) -> StoreError {
        let (store, path) = (store.clone(), path.to_owned());
        let error: Arc<dyn Error + Send + Sync> = match self {
            PlaceError::Name(problem) => return StoreError::Name { operation, store, path, problem },
            PlaceError::Objects(object_store::Error::InvalidPath { source }) => {
                return StoreError::Name { operation, store, path, problem: source.to_string() };
            }
            PlaceError::Objects(error) => match answer(&error) {
                Answer::Denied => {
                    return StoreError::Denied { operation, store, path, source: Arc::new(error) };
                }
                // What a write does not find is its own upload, which someone has given up: it begins anew.
                Answer::Missing if operation != Operation::Put => {
                    return StoreError::NotFound { operation, store, path };
                }
                _ => Arc::new(error),
            },
            PlaceError::Io(error) => Arc::new(error),
        };
        match io_kind(&*error) {
            Some(io::ErrorKind::NotFound) => StoreError::NotFound { operation, store, path },
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                StoreError::Denied { operation, store, path, source: error }
            }
            Some(io::ErrorKind::InvalidFilename) => {
                StoreError::Name { operation, store, path, problem: error.to_string() }
            }
            _ => StoreError::Failed { operation, store, path, source: error },
        }
    }
}

/// What a store said.
enum Answer {
    Missing,
    Denied,
    /// It should not be asked the same again.
    Refused,
    /// Nothing, or that it cannot now.
    Failed,
}

/// Codes by which stores say that credentials are no longer good, or that the bucket is not there or not in use.
const DENIED_CODES: &[&str] = &[
    "ExpiredToken",
    "TokenRefreshRequired",
    "InvalidToken",
    "NoSuchBucket",
    "ContainerNotFound",
    "ContainerDisabled",
    "ContainerBeingDeleted",
    "AccountIsDisabled",
];

/// Clients do not tell all requests' answers apart, but their text has the status and the body.
fn answer(error: &object_store::Error) -> Answer {
    use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
    let text = error.to_string();
    if DENIED_CODES.iter().any(|code| text.contains(&format!("<Code>{code}</Code>"))) {
        return Answer::Denied;
    }
    let status = text.split_once("status code: ").and_then(|(_, rest)| rest.get(..3));
    match (error, status) {
        (PermissionDenied { .. } | Unauthenticated { .. }, _) | (_, Some("401" | "403")) => Answer::Denied,
        (NotFound { .. }, _) | (_, Some("404")) => Answer::Missing,
        (_, Some("408" | "429")) => Answer::Failed,
        (_, Some(status)) if status.starts_with('4') => Answer::Refused,
        _ => Answer::Failed,
    }
}

/// Whether the same request may succeed in a moment.
pub(crate) fn is_transient(error: &object_store::Error) -> bool {
    matches!(answer(error), Answer::Failed)
}

/// The kind of the operating system's error beneath `error`.
fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}
