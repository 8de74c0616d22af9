//! gRPC channels, and how an error becomes a gRPC status.

mod connection;

use std::error::Error;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::service_fn;

use crate::tls::ClientTls;
use crate::{BoxError, Cancelled, Elapsed};
use connection::{PATIENCE, Target};

/// Flow-control window of one HTTP/2 stream, bytes: what a fast peer may send before a slow reader asks for more.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Flow-control window of a whole connection, bytes: larger than several streams, so that one stalled stream cannot
/// stall the others.
pub const CONNECTION_WINDOW_BYTES: u32 = 256 << 20;
/// Largest HTTP/2 frame that is accepted, bytes.
pub const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Largest message a server or another broker receives, bytes (journal protocol §2.1).
pub const MAX_MESSAGE_RECV_SERVER: usize = 4 << 20;
/// Largest message a client receives, bytes.
pub const MAX_MESSAGE_RECV_CLIENT: usize = 16 << 20;

/// How a channel pings its server.
#[derive(Clone, Copy, Debug)]
pub struct Pings {
    /// How long connecting may take.
    pub connect: Duration,
    /// Time between pings, also while there is nothing else to say.
    pub every: Duration,
    /// Time for the answer.
    pub answer: Duration,
}

/// A channel that connects when first used, and again whenever the connection is lost. A server that is gone, with or
/// without its machine, or that hangs, is noticed within some 15 seconds: all calls then fail.
///
/// `endpoint` is `http://host:port`, `https://host:port`, or `unix://host/path` whose host is ignored. Servers of `https`
/// are those which the machine trusts. Must be called within a runtime.
///
/// # Errors
/// If the endpoint is malformed.
pub fn channel(endpoint: &str) -> Result<Channel, BoxError> {
    secure_channel(endpoint, &ClientTls::default())
}

/// As [`channel`], with `tls` for endpoints of `https`.
///
/// # Errors
/// If the endpoint is malformed.
pub fn secure_channel(endpoint: &str, tls: &ClientTls) -> Result<Channel, BoxError> {
    let target = Target::parse(endpoint, tls)?;
    let settings = settings(endpoint, &target)?;
    Ok(settings
        .connect_with_connector_lazy(service_fn(move |_| connection::connect(target.clone(), PATIENCE))))
}

/// As [`secure_channel`], to a server that is to be pinged, as Courant's and Gazette's are not.
///
/// # Errors
/// If the endpoint is malformed.
pub fn pinging_channel(endpoint: &str, tls: &ClientTls, pings: Pings) -> Result<Channel, BoxError> {
    let target = Target::parse(endpoint, tls)?;
    let settings = settings(endpoint, &target)?
        .http2_keep_alive_interval(pings.every)
        .keep_alive_timeout(pings.answer)
        .keep_alive_while_idle(true);
    let dial = move |_| {
        let target = target.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(connection::dial(&target, pings.connect).await?)) }
    };
    Ok(settings.connect_with_connector_lazy(service_fn(dial)))
}

/// The settings of a channel to `target`.
fn settings(endpoint: &str, target: &Target) -> Result<Endpoint, BoxError> {
    let malformed =
        |e| format!("{endpoint:?}: {}; expected http(s)://host:port or unix:///path", chain_text(&e));
    let settings = Endpoint::from_shared(target.origin())
        .map_err(malformed)?
        .user_agent("courant")
        .map_err(|e| chain_text(&e))?
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX);
    Ok(settings)
}

/// The gRPC status of an error (journal protocol §2.1): an error which wraps a peer's status keeps that status's code
/// and carries the whole text; a cancellation or a deadline keeps its own meaning; everything else is `Unknown`.
pub fn status_of(error: &(dyn Error + 'static)) -> Status {
    if let Some(status) = error.downcast_ref::<Status>() {
        return status.clone();
    }
    Status::new(chain_code(error), chain_text(error))
}

fn chain_code(error: &(dyn Error + 'static)) -> Code {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = own_code(error) {
            return code;
        }
        cause = error.source();
    }
    Code::Unknown
}

fn own_code(error: &(dyn Error + 'static)) -> Option<Code> {
    if let Some(status) = error.downcast_ref::<Status>() {
        Some(status.code())
    } else if error.is::<Cancelled>() {
        Some(Code::Cancelled)
    } else if error.is::<Elapsed>() {
        Some(Code::DeadlineExceeded)
    } else {
        None
    }
}

/// The text of an error and of its causes, outermost first, with `": "` between them. A cause which the text above
/// already ends with is not repeated. A gRPC status reads `rpc error: code = Unavailable desc = …`, as Go peers write.
pub fn chain_text(error: &(dyn Error + 'static)) -> String {
    let own = match error.downcast_ref::<Status>() {
        Some(status) => return status_text(status),
        None => error.to_string(),
    };
    let Some(source) = error.source() else { return own };
    let below = chain_text(source);
    if own.ends_with(&below) { own } else { format!("{own}: {below}") }
}

/// A status which this side has made of a failed connection has sources. Its message leaves out the innermost, which alone
/// tells why.
fn status_text(status: &Status) -> String {
    let text = format!("rpc error: code = {} desc = {}", code_name(status.code()), status.message());
    let innermost = std::iter::successors(status.source(), |error| (*error).source()).last();
    match innermost.map(ToString::to_string) {
        Some(reason) if !text.contains(&reason) => format!("{text}: {reason}"),
        _ => text,
    }
}

/// The name of a code as Go prints it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Outer {
        text: &'static str,
        source: BoxError,
    }

    fn outer(text: &'static str, source: impl Into<BoxError>) -> Outer {
        Outer { text, source: source.into() }
    }

    #[test]
    fn wrapped_errors_keep_the_code_of_their_cause() {
        let peer = Status::unavailable("gone");
        for (error, code, text) in [
            (
                outer("recv from peer", outer("stream", peer)),
                Code::Unavailable,
                "recv from peer: stream: rpc error: code = Unavailable desc = gone",
            ),
            (outer("wait", Cancelled), Code::Cancelled, "wait: context canceled"),
            (outer("wait", Elapsed), Code::DeadlineExceeded, "wait: deadline exceeded"),
            (outer("wait: no disk", "no disk"), Code::Unknown, "wait: no disk"),
        ] {
            let status = status_of(&error);
            assert_eq!((status.code(), status.message()), (code, text));
        }
    }

    #[test]
    fn a_status_of_this_side_says_what_went_wrong_below_it() {
        let lost = std::io::Error::other("received fatal alert: UnknownCA");
        let status = Status::from_error(outer("transport error", outer("http2 error", lost)).into());
        let text = "rpc error: code = Unknown desc = transport error: received fatal alert: UnknownCA";
        assert_eq!(chain_text(&status), text);
    }

    #[test]
    fn a_bare_status_is_itself() {
        let status = status_of(&Status::internal("x"));
        assert_eq!((status.code(), status.message()), (Code::Internal, "x"));
    }

    #[tokio::test]
    async fn malformed_endpoints_are_refused_and_others_connect_later() {
        for good in [
            "http://localhost:1",
            "https://localhost:1",
            "https://[::1]",
            "unix:///tmp/nowhere.sock",
            "unix://host/tmp/nowhere.sock",
        ] {
            channel(good).unwrap();
        }
        for bad in ["", "https://", "http://[", "\n"] {
            assert!(channel(bad).is_err(), "{bad:?}");
        }
    }
}
