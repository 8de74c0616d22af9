//! Leases: keys that end with their holder.

use std::time::Duration;

use bytes::Bytes;
use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseRevokeResponse, PbLeaseTimeToLiveRequest,
    PbLeaseTimeToLiveResponse,
};
use imbl::OrdSet;

use super::range::{Span, header};
use super::write::Writer;
use super::{Effect, Store, StoreError};

/// Shortest time to live, seconds: what etcd derives from its default election timeout.
const TTL_SECONDS_MIN: i64 = 2;
/// Longest time to live, seconds.
const TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// A lease.
#[derive(Debug, Clone)]
pub(crate) struct LeaseState {
    pub(crate) ttl_seconds: i64,
    /// When it ends unless it is renewed.
    deadline: Duration,
    pub(super) keys: OrdSet<Bytes>,
}

impl LeaseState {
    fn new(ttl_seconds: i64, now: Duration) -> LeaseState {
        LeaseState { ttl_seconds, deadline: now + seconds(ttl_seconds), keys: OrdSet::new() }
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

impl Store {
    pub(super) fn grant(
        &mut self,
        request: &PbLeaseGrantRequest,
        now: Duration,
    ) -> Result<(PbLeaseGrantResponse, Vec<Effect>), StoreError> {
        if request.ttl > TTL_SECONDS_MAX {
            return Err(StoreError::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&request.id) {
            return Err(StoreError::LeaseExists);
        }
        self.check_space()?;
        let (id, ttl) = (request.id, request.ttl.max(TTL_SECONDS_MIN));
        self.leases.insert(id, LeaseState::new(ttl, now));
        let response =
            PbLeaseGrantResponse { header: Some(header(self.revision)), id, ttl, error: String::new() };
        Ok((response, vec![Effect::Grant { id, ttl_seconds: ttl }]))
    }

    pub(super) fn revoke(&mut self, id: i64) -> Result<(PbLeaseRevokeResponse, Vec<Effect>), StoreError> {
        let keys = self.leases.get(&id).ok_or(StoreError::LeaseNotFound)?.keys.clone();
        let mut writer = Writer::new(self);
        for key in &keys {
            writer.delete(&Span::key(key.clone()));
        }
        let mut effects: Vec<Effect> = writer.finish().into_iter().collect();
        self.leases.remove(&id);
        effects.push(Effect::Revoke { id });
        Ok((PbLeaseRevokeResponse { header: Some(header(self.revision)) }, effects))
    }

    /// Renews a lease; gives its time to live, or zero if there is none.
    pub(super) fn keep_alive(&mut self, id: i64, now: Duration) -> i64 {
        match self.leases.get_mut(&id) {
            Some(lease) => {
                lease.deadline = now + seconds(lease.ttl_seconds);
                lease.ttl_seconds
            }
            None => 0,
        }
    }

    /// Leases whose time is over.
    pub(crate) fn expired(&self, now: Duration) -> Vec<i64> {
        self.leases.iter().filter(|(_, lease)| lease.deadline <= now).map(|(id, _)| *id).collect()
    }

    /// Gives every lease `by` more time: the server itself did not run for so long, so nobody could renew.
    pub(crate) fn extend_leases(&mut self, by: Duration) {
        let ids: Vec<i64> = self.leases.keys().copied().collect();
        for id in ids {
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.deadline += by;
            }
        }
    }

    /// Ids and times to live of all leases.
    pub(crate) fn leases(&self) -> impl Iterator<Item = (i64, i64)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl_seconds))
    }

    /// Whether a lease exists.
    pub(crate) fn has_lease(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// What remains of a lease. One that does not exist has a time to live of −1, which is no error.
    pub(crate) fn time_to_live(
        &self,
        request: &PbLeaseTimeToLiveRequest,
        now: Duration,
    ) -> PbLeaseTimeToLiveResponse {
        let mut response = PbLeaseTimeToLiveResponse {
            header: Some(header(self.revision)),
            id: request.id,
            ttl: -1,
            granted_ttl: 0,
            keys: Vec::new(),
        };
        if let Some(lease) = self.leases.get(&request.id) {
            let remaining = lease.deadline.saturating_sub(now).as_secs();
            response.ttl = i64::try_from(remaining).unwrap_or(i64::MAX);
            response.granted_ttl = lease.ttl_seconds;
            if request.keys {
                response.keys = lease.keys.iter().map(|key| key.to_vec()).collect();
            }
        }
        response
    }

    pub(super) fn restore_lease(&mut self, id: i64, ttl_seconds: i64, now: Duration) -> Result<(), String> {
        if id == 0 || !(1..=TTL_SECONDS_MAX).contains(&ttl_seconds) || self.leases.contains_key(&id) {
            return Err(format!("lease {id} granted for {ttl_seconds} s"));
        }
        self.leases.insert(id, LeaseState::new(ttl_seconds, now));
        Ok(())
    }

    pub(super) fn attach(&mut self, lease: i64, key: &Bytes) {
        if let Some(lease) = self.leases.get_mut(&lease) {
            lease.keys.insert(key.clone());
        }
    }

    pub(super) fn detach(&mut self, lease: i64, key: &Bytes) {
        if let Some(lease) = self.leases.get_mut(&lease) {
            lease.keys.remove(key);
        }
    }
}
