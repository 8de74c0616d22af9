//! Serving Apply (journal protocol §9.2): one etcd transaction, and the wait until its outcome can be seen.

mod change;

use proto::Canonical;
use proto::protocol::{ApplyRequest, ApplyResponse, Status};

pub use self::change::{authorize, validate};
use self::change::{has_effect, transaction};
use crate::error::ServiceError;
use crate::resolver::Resolver;

/// Applies a validated request.
///
/// # Errors
/// If etcd refuses the transaction, or cannot be reached.
pub async fn serve(resolver: &Resolver, request: ApplyRequest) -> Result<ApplyResponse, ServiceError> {
    let mirror = resolver.mirror();
    let outcome = mirror.etcd().txn(transaction(mirror.prefix(), request)).await?;
    let revision = outcome.header.revision;
    let status = if outcome.succeeded { Status::Ok } else { Status::EtcdTransactionFailed };
    // What was applied can be listed, and requests for it resolved, once the answer is there.
    if outcome.succeeded && has_effect(&outcome.responses) {
        resolver.wait_for(revision).await?;
    }
    let mut header = resolver.unrouted_header();
    header.etcd = Some(outcome.header.into());
    Ok(ApplyResponse { status: status as i32, header: Some(header) }.canonical())
}
