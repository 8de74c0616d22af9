//! What all shards of a process share.

use std::sync::Arc;
use std::time::Duration;

use client::JournalClient;
use proto::MemberId;
use runtime::{CancellationToken, Clock, Entropy};

use crate::metrics::ConsumerMetrics;
use crate::schema::Mirror;

/// The process, as its shards see it.
pub struct Process<A> {
    /// The application.
    pub app: A,
    /// This process among the members of its group.
    pub me: MemberId,
    /// The group's part of etcd.
    pub mirror: Mirror,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Entropy,
    /// The client of brokers.
    pub client: JournalClient,
    /// Where shards count.
    pub metrics: ConsumerMetrics,
    /// How far ahead of wall time published messages are stamped. Zero but in tests.
    pub publish_clock_delta: Duration,
    /// Growth of a recovery log which makes new hints worth their write, in bytes.
    pub hint_growth_bytes: i64,
    /// Cancelled when the lease of the process is lost: others may own its shards.
    pub lease_lost: CancellationToken,
}

/// A process whose shards share it.
pub type SharedProcess<A> = Arc<Process<A>>;
