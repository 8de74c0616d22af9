//! The server's side: what the token of a request allows it.

use std::time::Duration;

use http::HeaderMap;
use proto::protocol::{LabelSelector, LabelSet};
use tonic::{Request, Status};

use crate::authorizer::AUTHORIZATION;
use crate::capability::Capability;
use crate::claims::Claims;
use crate::error::{AuthError, TokenError};
use crate::keys::Keys;

/// How far the clocks of a signer and a verifier may differ.
const LEEWAY: Duration = Duration::from_secs(5);
/// How long a request without a token may take, where such requests are accepted.
const WITHOUT_TOKEN: Duration = Duration::from_secs(3600);

/// What a request may see, and until when.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// The journals or shards which it may see. Others do not exist for it.
    pub selector: LabelSelector,
    /// When it ends, since the Unix epoch; `None` is never.
    pub expires: Option<Duration>,
}

impl Access {
    /// Of a process to itself.
    pub fn unlimited() -> Access {
        Access::default()
    }

    /// What a call may see, as the guard found it which is before its service ([`crate::Admission::guard`]).
    ///
    /// # Errors
    /// `Internal`, if there is no guard, or it does not know the method: nobody may call it then.
    pub fn of<T>(call: &Request<T>) -> Result<Access, Status> {
        let access = call.extensions().get::<Access>().cloned();
        access.ok_or_else(|| Status::internal("nobody may call this method: it is behind no guard"))
    }

    /// Whether a journal or shard with these labels, its name or id among them, may be seen.
    pub fn reaches(&self, labels: &LabelSet) -> bool {
        self.selector.matches(labels)
    }

    /// Whether what has these labels may be changed.
    ///
    /// # Errors
    /// If not. `name` is what the error calls it.
    pub fn require(&self, labels: &LabelSet, name: &str) -> Result<(), AuthError> {
        if self.reaches(labels) { Ok(()) } else { Err(AuthError::OutOfScope(name.to_owned())) }
    }
}

/// Checks the tokens of requests. Without keys, nothing is checked. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    keys: Option<Keys>,
}

impl Verifier {
    /// A verifier with these keys, or one which lets everything pass.
    pub fn new(keys: Option<Keys>) -> Verifier {
        Verifier { keys }
    }

    /// What a request with these headers may see, if it may do what `require` says. `now` is since the Unix epoch.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(
        &self,
        headers: &HeaderMap,
        require: Capability,
        now: Duration,
    ) -> Result<Access, AuthError> {
        let Some(keys) = &self.keys else { return Ok(Access::unlimited()) };
        let token = match headers.get(AUTHORIZATION) {
            Some(header) if !header.is_empty() => {
                let header = header.to_str().map_err(|_| AuthError::Unsupported)?;
                header.strip_prefix("Bearer ").ok_or(AuthError::Unsupported)?
            }
            _ if keys.allow_missing() => {
                return Ok(Access { expires: Some(now + WITHOUT_TOKEN), ..Access::unlimited() });
            }
            _ => return Err(AuthError::Missing),
        };
        let claims = keys.open(token)?;
        check_times(&claims, now)?;
        check_capability(claims.capability, require)?;
        let expires = Some(Duration::from_secs(u64::try_from(claims.expires).unwrap_or(0)));
        Ok(Access { selector: claims.selector, expires })
    }
}

fn check_times(claims: &Claims, now: Duration) -> Result<(), TokenError> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let leeway = LEEWAY.as_secs().cast_signed();
    if now >= claims.expires.saturating_add(leeway) {
        Err(TokenError::Expired)
    } else if claims.not_before.is_some_and(|begin| now < begin.saturating_sub(leeway)) {
        Err(TokenError::NotYetValid)
    } else if claims.issued.is_some_and(|issued| now < issued.saturating_sub(leeway)) {
        Err(TokenError::IssuedLater)
    } else {
        Ok(())
    }
}

fn check_capability(have: Capability, require: Capability) -> Result<(), AuthError> {
    match have.first_missing(require) {
        _ if have.has(require) => Ok(()),
        Some(name) => Err(AuthError::MissingCapability(name)),
        None => Err(AuthError::MissingBits { have, require }),
    }
}

#[cfg(test)]
mod tests;
