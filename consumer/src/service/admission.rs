//! Who may call: the access tokens of requests to the APIs of this process (consumer protocol §1.5).

use auth::{Access, Capability, Keys, Verifier};
use axum::http::{HeaderMap, StatusCode};
use runtime::Clock;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// Admits requests whose token is right: those of the Shard service, and those of an application's own APIs. Without
/// `--consumer.auth-keys`, everybody may do everything. Cheap to clone.
///
/// What a request may see comes back as an [`Access`]. Its selector selects shards where it is given to
/// [`crate::ResolveArgs::visible`], and whatever else has labels by [`Access::reaches`].
#[derive(Clone, Debug)]
pub struct Admission {
    verifier: Verifier,
    clock: Clock,
}

impl Admission {
    /// With `keys`, every request needs a token that one of them signed.
    pub(crate) fn new(keys: Option<Keys>, clock: Clock) -> Admission {
        Admission { verifier: Verifier::new(keys), clock }
    }

    /// What a call with this metadata may see, if its token allows what `require` says.
    ///
    /// # Errors
    /// `Unauthenticated`, with the reason.
    pub fn admit(&self, metadata: &MetadataMap, require: Capability) -> Result<Access, Status> {
        Ok(self.verifier.verify(metadata, require, self.clock.unix_now())?)
    }

    /// As [`Admission::admit`], for a request over HTTP.
    ///
    /// # Errors
    /// The answer that refuses it: 401, with the reason.
    pub fn admit_http(
        &self,
        headers: &HeaderMap,
        require: Capability,
    ) -> Result<Access, (StatusCode, String)> {
        let metadata = MetadataMap::from_headers(headers.clone());
        let verified = self.verifier.verify(&metadata, require, self.clock.unix_now());
        verified.map_err(|error| (StatusCode::UNAUTHORIZED, error.to_string()))
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
        let Some(expires) = access.expires else { return outcome.await };
        tokio::select! {
            biased;
            () = self.clock.sleep_until_unix(expires) => {
                Err(Status::deadline_exceeded("the access token of this request has expired"))
            }
            outcome = outcome => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use auth::{AUTHORIZATION, Claims};

    use super::*;

    #[tokio::test]
    async fn requests_over_http_and_grpc_are_admitted_by_one_rule() {
        let (keys, clock) = (Keys::parse("c2VjcmV0").unwrap(), Clock::system());
        let token = |capability, lifetime| {
            keys.sign(&Claims { capability, expires: clock.unix_seconds() + lifetime, ..Claims::default() })
        };
        let own = Capability::from_bits(1 << 16);
        let admission = Admission::new(Some(keys.clone()), clock.clone());
        for (token, reason) in [
            (None, "missing or empty Authorization token"),
            (Some(token(own, -60)), "verifying Authorization: token is expired"),
            (
                Some(token(Capability::READ, 60)),
                "authorization is missing required capability (have 1000, but require 10000000000000000)",
            ),
            (Some(token(own, 60)), ""),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(token) = token {
                headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
            }
            let http = admission.admit_http(&headers, own);
            let call = admission.admit(&MetadataMap::from_headers(headers.clone()), own);
            if reason.is_empty() {
                assert_eq!(http.unwrap(), call.unwrap());
            } else {
                assert_eq!(http.unwrap_err(), (StatusCode::UNAUTHORIZED, reason.to_owned()));
                let status = call.unwrap_err();
                assert_eq!((status.code(), status.message()), (tonic::Code::Unauthenticated, reason));
            }
            assert_eq!(
                Admission::new(None, clock.clone()).admit_http(&headers, own).unwrap(),
                Access::unlimited()
            );
        }
        let access = Access { expires: Some(clock.unix_now()), ..Access::default() };
        let late = admission.before_expiry(&access, pending::<Result<(), Status>>()).await;
        assert_eq!(late.unwrap_err().code(), tonic::Code::DeadlineExceeded);
    }
}
