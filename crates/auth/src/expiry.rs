//! Requests end when their token does.

use futures::FutureExt;
use futures::future::BoxFuture;
use runtime::Clock;
use tonic::Status;

use crate::Access;

/// The token of a request has expired while it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the access token of this request has expired")]
pub struct Expired;

impl From<Expired> for Status {
    fn from(expired: Expired) -> Status {
        Status::deadline_exceeded(expired.to_string())
    }
}

/// Waits until the token expires; for ever if it does not.
pub fn expired(clock: &Clock, access: &Access) -> BoxFuture<'static, ()> {
    let Some(expires) = access.expires else { return std::future::pending().boxed() };
    let clock = clock.clone();
    async move { clock.sleep_until_unix(expires).await }.boxed()
}

/// The outcome of `future`, if it comes before the token expires.
///
/// # Errors
/// If not; the future is then dropped.
pub async fn before_expiry<T>(
    clock: &Clock,
    access: &Access,
    future: impl Future<Output = T>,
) -> Result<T, Expired> {
    tokio::select! {
        biased;
        () = expired(clock, access) => Err(Expired),
        outcome = future => Ok(outcome),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_takes_longer_than_its_token_lasts_fails() {
        let (clock, steering) = Clock::steered();
        let hour = Duration::from_secs(3600);
        let access = Access { expires: Some(clock.unix_now() + hour), ..Access::unlimited() };
        let mut hangs = Box::pin(before_expiry(&clock, &access, std::future::pending::<()>()));
        assert!(futures::poll!(&mut hangs).is_pending());
        steering.advance(hour);
        assert_eq!(hangs.await, Err(Expired));
        assert_eq!(before_expiry(&clock, &Access::unlimited(), async { 7 }).await, Ok(7));
    }
}
