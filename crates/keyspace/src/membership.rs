//! The announcement of this process as a member (journal protocol §11.2).

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use proto::{MemberId, Revision};
use runtime::backoff::Backoff;

use crate::client::Etcd;
use crate::error::EtcdError;
use crate::keys::KeyPrefix;
use crate::lease::{self, Lease};
use crate::txn::{Compare, Op, OpResponse, PutLease, Txn};

/// How often the key of an earlier process with our id is looked at, until it is gone.
const ANNOUNCE_RETRY: Duration = Duration::from_secs(1);

/// Waits between attempts to update the key.
const UPDATE_BACKOFF: &[Duration] =
    &[Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(500)];

/// Why a member could not be announced or updated.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// etcd failed.
    #[error("{0}")]
    Etcd(#[from] EtcdError),
    /// Somebody else changed or deleted our key.
    #[error("{key}: key modified or deleted externally (expected revision {expected})")]
    ModifiedExternally {
        /// The member key.
        key: String,
        /// The revision of our own last write.
        expected: Revision,
    },
    /// The lease ended before the key could be written: another process held it, or etcd could not be reached.
    #[error("{key}: lease lost before the key could be written")]
    LeaseLost {
        /// The member key.
        key: String,
    },
}

/// What to do about a key of our id which belongs to another lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// Wait until its lease ends.
    Wait,
    /// Go on with this lease as our own, if it is the one that the key stands under; otherwise as `Wait`. The key and all
    /// assignments stay as they are: to others the member was only slow. Only for a caller that knows the process which held
    /// this lease to be dead, for instance because it holds the lock of the data directory that the lease belongs to.
    Continue(i64),
}

/// Our member key, held by our lease.
pub struct Membership {
    etcd: Etcd,
    key: String,
    lease: Lease,
    /// Revision of our last write.
    revision: Revision,
}

impl Membership {
    /// Obtains a lease of `ttl` and creates the key of `id` under it. If the key exists under another lease, does as
    /// `predecessor` says. Returns the revision of the announcement, which is where a mirror should begin.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn announce(
        etcd: &Etcd,
        prefix: &KeyPrefix,
        id: &MemberId,
        value: Bytes,
        ttl: Duration,
        predecessor: Predecessor,
    ) -> Result<(Membership, Revision), MembershipError> {
        let key = prefix.member(id);
        while let Predecessor::Continue(lease) = predecessor {
            match Membership::resume(etcd, &key, lease, &value, ttl).await {
                Ok(Some(continued)) => return Ok(continued),
                Ok(None) => break,
                Err(error) if error.is_retryable() => {
                    tracing::warn!(%key, %error, "cannot announce the member (will retry)");
                    etcd.clock().sleep(ANNOUNCE_RETRY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let lease = etcd.grant(ttl).await?;
        let mut told = false;
        loop {
            let txn = Txn {
                compares: vec![Compare::Version { key: key.clone(), equals: 0 }],
                then: vec![Op::Put {
                    key: key.clone(),
                    value: value.clone(),
                    lease: PutLease::Id(lease.id()),
                }],
                or_else: vec![Op::Get { key: key.clone() }],
            };
            let found = match etcd.txn(txn).await {
                Ok(outcome) if outcome.succeeded => {
                    let revision = outcome.header.revision;
                    return Ok((Membership { etcd: etcd.clone(), key, lease, revision }, revision));
                }
                Ok(outcome) => outcome.responses.into_iter().next(),
                Err(error) if error.is_lease_not_found() => return Err(MembershipError::LeaseLost { key }),
                // An attempt whose outcome is unknown shows at the next one, as a key under our own lease.
                Err(error) if error.is_retryable() => {
                    tracing::warn!(%key, %error, "cannot announce the member (will retry)");
                    None
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(OpResponse::Get(Some(other))) = found {
                if other.lease == lease.id() {
                    let revision = other.mod_revision;
                    return Ok((Membership { etcd: etcd.clone(), key, lease, revision }, revision));
                }
                if !told {
                    tracing::warn!(%key, lease = other.lease, "waiting for an earlier process of the same id to expire");
                    told = true;
                }
            }
            tokio::select! {
                biased;
                _ = lease.lost() => return Err(MembershipError::LeaseLost { key }),
                () = etcd.clock().sleep(ANNOUNCE_RETRY) => {}
            }
        }
    }

    /// Goes on with `lease` if `key` stands under it. A lease that cannot be gone on with is revoked, since nobody else
    /// renews it; `None` then.
    async fn resume(
        etcd: &Etcd,
        key: &str,
        lease: i64,
        value: &Bytes,
        ttl: Duration,
    ) -> Result<Option<(Membership, Revision)>, EtcdError> {
        let Some(resumed) = lease::resume(etcd, lease, ttl).await? else {
            etcd.revoke(lease).await?;
            return Ok(None);
        };
        let txn = Txn {
            compares: vec![Compare::Lease { key: key.to_owned(), equals: lease }],
            then: vec![Op::Put { key: key.to_owned(), value: value.clone(), lease: PutLease::Id(lease) }],
            or_else: Vec::new(),
        };
        let outcome = match etcd.txn(txn).await {
            Ok(outcome) => outcome,
            Err(error) => {
                // Whoever tries again finds out what the transaction has done.
                resumed.abandon();
                return Err(error);
            }
        };
        if !outcome.succeeded {
            resumed.revoke().await?;
            return Ok(None);
        }
        let revision = outcome.header.revision;
        Ok(Some((Membership { etcd: etcd.clone(), key: key.to_owned(), lease: resumed, revision }, revision)))
    }

    /// The lease under which the key stands.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Revision of our last write of the key.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Replaces the value, if nobody else has touched the key since our last write. Tries again while etcd cannot be
    /// reached and the lease lives. Returns the new revision.
    ///
    /// # Errors
    /// [`MembershipError::ModifiedExternally`] if somebody has.
    pub async fn update(&mut self, value: Bytes) -> Result<Revision, MembershipError> {
        let mut backoff = Backoff::new(UPDATE_BACKOFF);
        loop {
            match self.try_update(&value).await {
                Err(MembershipError::Etcd(error)) if error.is_retryable() => {
                    tracing::warn!(key = %self.key, %error, "cannot update the member (will retry)");
                }
                outcome => return outcome,
            }
            tokio::select! {
                biased;
                _ = self.lease.lost() => return Err(MembershipError::LeaseLost { key: self.key.clone() }),
                () = self.etcd.clock().sleep(backoff.next()) => {}
            }
        }
    }

    async fn try_update(&mut self, value: &Bytes) -> Result<Revision, MembershipError> {
        let txn = Txn {
            compares: vec![Compare::ModRevision { key: self.key.clone(), equals: self.revision }],
            then: vec![Op::Put { key: self.key.clone(), value: value.clone(), lease: PutLease::Keep }],
            or_else: vec![Op::Get { key: self.key.clone() }],
        };
        let outcome = self.etcd.txn(txn).await?;
        self.revision = match outcome.responses.into_iter().next() {
            _ if outcome.succeeded => outcome.header.revision,
            // An earlier attempt of the same update, whose outcome was unknown, did take effect.
            Some(OpResponse::Get(Some(kv))) if kv.lease == self.lease.id() && kv.value == *value => {
                kv.mod_revision
            }
            _ => {
                let expected = self.revision;
                return Err(MembershipError::ModifiedExternally { key: self.key.clone(), expected });
            }
        };
        Ok(self.revision)
    }

    /// Ends the membership: the key and all assignments of this member are deleted at once.
    ///
    /// # Errors
    /// If etcd cannot be reached; the lease then ends by itself.
    pub async fn revoke(&self) -> Result<(), EtcdError> {
        self.lease.revoke().await
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("key", &self.key).field("lease", &self.lease.id()).finish()
    }
}
