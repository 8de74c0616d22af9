//! Where requests enter: each must have a token which allows it.
//!
//! The token of a call is checked by its headers alone, before a byte of its body is read: whoever has no right token is
//! refused at once, and makes no server hold memory. [`Admission::guard`] puts that check before the methods of a service,
//! which learn by [`Access::of`] what it came to. What the token reaches is up to the method, as it depends on what is asked.

use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use http::{HeaderMap, Request, Response, StatusCode};
use runtime::Clock;
use tonic::Status;
use tonic::service::Routes;
use tower::{Layer, Service};

use crate::expiry::before_expiry;
use crate::{Access, AuthError, Capability, Keys, Verifier};

/// Admits requests whose token is right: those of a server's own service, and those of the APIs of an application. Without
/// keys, everybody may do everything. Cheap to clone.
///
/// What a request may see comes as an [`Access`]. Its selector selects journals or shards, and whatever else has labels by
/// [`Access::reaches`].
#[derive(Clone, Debug)]
pub struct Admission {
    verifier: Verifier,
    clock: Clock,
}

impl Admission {
    /// With `keys`, every request needs a token that one of them signed.
    pub fn new(keys: Option<Keys>, clock: Clock) -> Admission {
        Admission { verifier: Verifier::new(keys), clock }
    }

    /// The same routes of gRPC, behind this admission. `methods` are the paths of their methods (`/package.Service/Method`),
    /// each with what a token must allow for it. A call whose token does not is refused as `Unauthenticated`, with the reason,
    /// and its body is not read. A method that is not among them is one that [`Access::of`] refuses.
    pub fn guard(&self, routes: Routes, methods: &'static [(&'static str, Capability)]) -> Routes {
        let guard = Guard { admission: self.clone(), methods };
        Routes::from(routes.into_axum_router().layer(guard))
    }

    /// What a request over HTTP may see, if its token allows what `require` says. To be called before its body is read.
    ///
    /// # Errors
    /// The answer that refuses it: 401, with the reason.
    pub fn admit_http(
        &self,
        headers: &HeaderMap,
        require: Capability,
    ) -> Result<Access, (StatusCode, String)> {
        self.admit(headers, require).map_err(|error| (StatusCode::UNAUTHORIZED, error.to_string()))
    }

    fn admit(&self, headers: &HeaderMap, require: Capability) -> Result<Access, AuthError> {
        self.verifier.verify(headers, require, self.clock.unix_now())
    }

    /// The outcome of a request, if it comes before its token expires.
    ///
    /// # Errors
    /// Those of the request, and `DeadlineExceeded` when the token expires. The request is then abandoned.
    pub async fn before_expiry<T>(
        &self,
        access: &Access,
        outcome: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        before_expiry(&self.clock, access, outcome).await?
    }
}

/// Puts an admission before a service.
#[derive(Clone)]
struct Guard {
    admission: Admission,
    methods: &'static [(&'static str, Capability)],
}

impl Guard {
    /// What a call of `path` may see; `None` if there is no such method.
    fn admit(&self, path: &str, headers: &HeaderMap) -> Option<Result<Access, AuthError>> {
        let (_, require) = self.methods.iter().find(|(method, _)| *method == path)?;
        Some(self.admission.admit(headers, *require))
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { guard: self.clone(), inner }
    }
}

/// A service behind an admission.
#[derive(Clone)]
struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<R>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.guard.admit(request.uri().path(), request.headers()) {
            Some(Ok(access)) => drop(request.extensions_mut().insert(access)),
            Some(Err(error)) => {
                tracing::warn!(method = request.uri().path(), %error, "request refused");
                return Either::Left(ready(Ok(Status::from(error).into_http())));
            }
            None => {}
        }
        Either::Right(self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::pending;

    use futures::FutureExt;
    use tower::service_fn;

    use super::*;
    use crate::{AUTHORIZATION, Claims};

    const OWN: Capability = Capability::from_bits(1 << 16);
    const PATH: &str = "/an.Api/Method";

    /// A request which has a body that must not be touched, and how a service answers it behind a guard: with the access that
    /// its method sees.
    fn called(admission: &Admission, path: &str, headers: &HeaderMap) -> Result<Access, Status> {
        let guard = Guard { admission: admission.clone(), methods: &[(PATH, OWN)] };
        let (sees, seen) = std::sync::mpsc::channel();
        let mut service = guard.layer(service_fn(move |request: Request<()>| {
            let call = tonic::Request::from_http(request);
            sees.send(Access::of(&call)).unwrap();
            ready(Ok::<_, Infallible>(Response::<()>::default()))
        }));
        let mut request = Request::get(path).body(()).unwrap();
        *request.headers_mut() = headers.clone();
        let Ok(response) = service.call(request).now_or_never().expect("it does not wait");
        seen.try_recv().unwrap_or_else(|_| Err(Status::from_header_map(response.headers()).unwrap()))
    }

    #[tokio::test]
    async fn requests_over_http_and_grpc_are_admitted_by_one_rule() {
        let (keys, clock) = (Keys::parse("c2VjcmV0").unwrap(), Clock::system());
        let token = |capability, lifetime| {
            keys.sign(&Claims { capability, expires: clock.unix_seconds() + lifetime, ..Claims::default() })
        };
        let admission = Admission::new(Some(keys.clone()), clock.clone());
        for (token, reason) in [
            (None, "missing or empty Authorization token"),
            (Some(token(OWN, -60)), "verifying Authorization: token is expired"),
            (
                Some(token(Capability::READ, 60)),
                "authorization is missing required capability (have 1000, but require 10000000000000000)",
            ),
            (Some(token(OWN, 60)), ""),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(token) = token {
                headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
            }
            let http = admission.admit_http(&headers, OWN);
            let call = called(&admission, PATH, &headers);
            if reason.is_empty() {
                assert_eq!(http.unwrap(), call.unwrap());
            } else {
                assert_eq!(http.unwrap_err(), (StatusCode::UNAUTHORIZED, reason.to_owned()));
                let status = call.unwrap_err();
                assert_eq!((status.code(), status.message()), (tonic::Code::Unauthenticated, reason));
            }
            let open = Admission::new(None, clock.clone());
            assert_eq!(open.admit_http(&headers, OWN).unwrap(), Access::unlimited());
            assert_eq!(called(&open, PATH, &headers).unwrap(), Access::unlimited());
            // Whatever the token.
            for admission in [&admission, &open] {
                let forgotten = called(admission, "/an.Api/Other", &headers).unwrap_err();
                assert_eq!(forgotten.code(), tonic::Code::Internal);
            }
        }
        let access = Access { expires: Some(clock.unix_now()), ..Access::default() };
        let late = admission.before_expiry(&access, pending::<Result<(), Status>>()).await;
        assert_eq!(late.unwrap_err().code(), tonic::Code::DeadlineExceeded);
    }
}
