//! What goes wrong between a client and a server of objects.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use runtime::{BoxError, Clock};

use crate::http_server::{Answer, Listening, error_answer, forward, full, serve};

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is not forwarded, and answered with this status and this code in an XML body.
    Status(u16, &'static str),
    /// It is forwarded after a while.
    Slow(Duration),
    /// It is not forwarded, and never answered.
    Silence,
    /// It is forwarded; half of the answer's body comes, and then the connection ends.
    Truncate,
    /// It is forwarded; half of the answer's body comes, and then nothing more.
    Stall,
    /// It is forwarded, and the connection ends without an answer.
    LoseReply,
    /// Listings do not show objects which were written since the fault was set. (All requests are forwarded.)
    ListingsLag,
}

/// Requests that are remembered; of more, the older half is forgotten.
const REQUESTS_MAX: usize = 100_000;
/// Wait before a connection ends in the middle of an answer.
const FLUSH_WAIT: Duration = Duration::from_millis(50);

/// Whether a request of a method and a path is meant.
type Matches = Arc<dyn Fn(&str, &str) -> bool + Send + Sync>;

/// A fault: which requests meet it, and what becomes of them.
#[derive(Clone)]
pub struct Fault {
    effect: Effect,
    /// How many more requests meet it; all, if `None`.
    times: Option<usize>,
    /// The AWS key with which they are signed; any, if `None`.
    key_id: Option<String>,
    matches: Matches,
}

impl Fault {
    /// Every request meets it.
    pub fn always(effect: Effect) -> Fault {
        Fault { effect, times: None, key_id: None, matches: Arc::new(|_, _| true) }
    }

    /// Only so many requests meet it, and then it is over.
    pub fn times(self, times: usize) -> Fault {
        Fault { times: Some(times), ..self }
    }

    /// Only requests meet it which are signed with the AWS key `key_id`, in a header or in the URL.
    pub fn signed_with(self, key_id: &str) -> Fault {
        Fault { key_id: Some(key_id.to_owned()), ..self }
    }

    /// Only requests meet it for whose method, and path with query as they were sent, `matches` is true.
    pub fn only(self, matches: impl Fn(&str, &str) -> bool + Send + Sync + 'static) -> Fault {
        Fault { matches: Arc::new(matches), ..self }
    }
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    /// Requests as "METHOD path?query", in the order in which they came.
    requests: Vec<String>,
    /// Paths which were written since the fault was set, decoded.
    written: Vec<String>,
}

/// A proxy before one server. It ends when it is dropped.
pub struct FaultProxy {
    listening: Listening,
    state: Arc<Mutex<State>>,
}

impl FaultProxy {
    /// Starts one before the server at `upstream` (`http://HOST:PORT`), which passes everything on.
    ///
    /// # Errors
    /// If there is no port, or `upstream` is not of HTTP.
    pub async fn start(upstream: &str) -> Result<FaultProxy, BoxError> {
        let authority: Arc<str> = upstream.strip_prefix("http://").ok_or("expected http://")?.into();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, clock) = (state.clone(), Clock::system());
        let listening = serve("fault proxy", move |request| {
            pass(authority.clone(), shared.clone(), clock.clone(), request).boxed()
        });
        Ok(FaultProxy { listening: listening.await?, state })
    }

    /// Where it listens: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.listening.endpoint
    }

    /// From now on requests meet `fault`, and no other.
    pub fn set_fault(&self, fault: Fault) {
        let mut state = lock(&self.state);
        state.fault = Some(fault);
        state.written.clear();
    }

    /// From now on all goes well.
    pub fn clear(&self) {
        lock(&self.state).fault = None;
    }

    /// The requests since this was last called, as "METHOD path?query", in the order in which they came.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).requests)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Takes note of a request, and says what becomes of it.
    fn meet(&mut self, method: &str, path: &str, authorization: &str) -> Option<Effect> {
        if self.requests.len() >= REQUESTS_MAX {
            self.requests.drain(..REQUESTS_MAX / 2);
        }
        self.requests.push(format!("{method} {path}"));
        if method == "PUT" || method == "POST" {
            self.written.push(decoded(path));
        }
        let is_signed_with = |key_id: &String| {
            authorization.contains(&format!("Credential={key_id}/"))
                || path.contains(&format!("X-Amz-Credential={key_id}%2F"))
        };
        let is_met = |fault: &&mut Fault| {
            fault.key_id.as_ref().is_none_or(is_signed_with) && (fault.matches)(method, path)
        };
        let fault = self.fault.as_mut().filter(is_met)?;
        let effect = fault.effect.clone();
        if let Some(times) = &mut fault.times {
            *times = times.checked_sub(1)?;
        }
        Some(effect)
    }
}

/// The path without query and percent-encoding.
fn decoded(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default().replace('+', "%2B");
    let pair = url::form_urlencoded::parse(path.as_bytes()).next();
    pair.map(|(name, _)| name.into_owned()).unwrap_or_default()
}

async fn pass(
    authority: Arc<str>,
    state: Arc<Mutex<State>>,
    clock: Clock,
    request: Request<Bytes>,
) -> Answer {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let is_head = request.method() == Method::HEAD;
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let effect = lock(&state).meet(request.method().as_str(), &path, authorization.unwrap_or_default());
    match effect {
        Some(Effect::Status(status, code)) => return error_answer(StatusCode::from_u16(status)?, code),
        Some(Effect::Silence) => return std::future::pending().await,
        Some(Effect::Slow(wait)) => clock.sleep(wait).await,
        _ => {}
    }
    let (mut parts, body) = forward(&authority, request).await?.into_parts();
    match effect {
        Some(Effect::LoseReply) => Err("the reply is lost".into()),
        Some(Effect::Truncate | Effect::Stall) => {
            // The length stays that of the whole.
            let length = HeaderValue::from(body.len());
            parts.headers.insert(header::CONTENT_LENGTH, length);
            parts.headers.remove(header::TRANSFER_ENCODING);
            let half = Ok(Frame::data(body.slice(..body.len() / 2)));
            // What came before the end is to reach the client.
            let end = async move {
                if effect == Some(Effect::Stall) {
                    std::future::pending::<()>().await;
                }
                clock.sleep(FLUSH_WAIT).await;
                Err(std::io::Error::other("broken off"))
            };
            let frames = stream::iter([half]).chain(stream::once(end));
            Ok(Response::from_parts(parts, BodyExt::boxed(StreamBody::new(frames))))
        }
        effect => {
            let lags = effect == Some(Effect::ListingsLag) && is_listing(&path);
            let body = if lags { without(&body, &lock(&state).written) } else { body };
            if !is_head {
                parts.headers.remove(header::CONTENT_LENGTH);
            }
            parts.headers.remove(header::TRANSFER_ENCODING);
            Ok(Response::from_parts(parts, full(body)))
        }
    }
}

fn is_listing(path: &str) -> bool {
    path.contains("list-type=2") || path.contains("comp=list")
}

/// A listing without the entries whose keys are in `written`.
fn without(listing: &Bytes, written: &[String]) -> Bytes {
    let Ok(text) = std::str::from_utf8(listing) else { return listing.clone() };
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((begin, name, end)) = [("<Contents>", "Key", "</Contents>"), ("<Blob>", "Name", "</Blob>")]
        .into_iter()
        .find(|(begin, _, _)| rest.contains(begin))
    {
        let at = rest.find(begin).unwrap_or(rest.len());
        let length = rest[at..].find(end).map_or(rest.len() - at, |found| found + end.len());
        let entry = &rest[at..at + length];
        let key = entry.split_once(&format!("<{name}>")).and_then(|(_, key)| key.split_once('<'));
        let key = key.map_or("", |(key, _)| key);
        kept.push_str(&rest[..at]);
        if !written.iter().any(|path| path.ends_with(&format!("/{key}"))) {
            kept.push_str(entry);
        }
        rest = &rest[at + length..];
    }
    kept.push_str(rest);
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_taken_out_of_listings() {
        let listing = "<L><Contents><Key>a/b</Key></Contents><Contents><Key>a/c</Key></Contents></L>";
        let written = vec!["/bucket/a/b".to_owned()];
        let kept = without(&Bytes::from(listing), &written);
        assert_eq!(kept, "<L><Contents><Key>a/c</Key></Contents></L>");
        assert_eq!(without(&Bytes::from(listing), &[]), listing);
        assert_eq!(decoded("/bucket/a%2Fb+c?x=y"), "/bucket/a/b+c");
    }
}
