//! The client of etcd: the only place that sends requests to it, whether it is real or embedded.
//!
//! Every call has a deadline and gives an [`EtcdError`] that says whether it may have taken effect. Nothing here retries
//! a write: whoever knows the comparison that guards it does. An answer of an etcd whose data was lost or replaced is an
//! error, whatever it says.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::{PbKeyValue, PbResponseHeader};
use etcd_client::{
    Channel, Client, CompareOp, ConnectOptions, DeleteOptions, GetOptions, PutOptions, TxnOp, WatchOptions,
    WatchStream,
};
use proto::Revision;
use runtime::backoff::Backoff;
use runtime::grpc::{Pings, pinging_channel};
use runtime::tls::ClientTls;
use runtime::{Clock, TaskGroup};
use tonic::Code;
use tower::util::BoxCloneSyncService;

use crate::error::EtcdError;
use crate::lease::{self, Lease};
use crate::seen::Seen;
use crate::spread::Spread;
use crate::txn::{Compare, EtcdHeader, KeyValue, Op, PutLease, Txn, TxnOutcome, op_response};

/// How long one request may take, before its outcome counts as unknown.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Keys fetched by one request of a range read.
const PAGE_KEYS: i64 = 1000;
/// Largest response taken from etcd, bytes. A server that catches a watch up sends many revisions in one response.
const RESPONSE_BYTES_MAX: usize = 512 << 20;
/// After this long without an answer, the first connection says so in the log.
const SLOW_DIAL: Duration = Duration::from_secs(1);

/// Shortest time to wait for a connection, however short the lease.
const DIAL_TIMEOUT_MIN: Duration = Duration::from_millis(500);
/// etcd closes connections that ping it more often (its `--grpc-keepalive-min-time`).
const PING_INTERVAL_MIN: Duration = Duration::from_secs(5);

const DIAL_BACKOFF: &[Duration] = &[
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
];

/// How to talk to etcd.
#[derive(Clone)]
pub struct EtcdOptions {
    /// Time to live of this process's lease; the pace of keep-alive pings follows from it. Whole seconds.
    pub lease_ttl: Duration,
    /// For addresses of `https`.
    pub tls: ClientTls,
    /// Time.
    pub clock: Clock,
    /// Where keep-alive tasks of leases run. Cancelling it ends them, so it should outlive what the leases protect.
    pub tasks: TaskGroup,
}

/// A connection to etcd. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Etcd {
    client: Client,
    /// The same connection; its requests fail if the server has lost the leader of its cluster.
    watcher: Client,
    options: EtcdOptions,
    address: Arc<str>,
    seen: Arc<Seen>,
}

impl Etcd {
    /// Connects to `address`: `http(s)://host:port`, `unix:///path`, or several with commas between them.
    /// Waits until a server answers.
    ///
    /// # Errors
    /// If the address is malformed, the server refuses, or the options' task group is cancelled while waiting.
    pub async fn connect(address: &str, options: EtcdOptions) -> Result<Etcd, EtcdError> {
        let channel = channel(address, &options)?;
        let connect = |options| Client::from_channel(channel.clone(), Some(options));
        let failed = |e| EtcdError::from_client(format!("connect to {address}"), e);
        let client = connect(ConnectOptions::new()).await.map_err(failed)?;
        let watcher = connect(ConnectOptions::new().with_require_leader(true)).await.map_err(failed)?;
        let etcd = Etcd { client, watcher, options, address: address.into(), seen: Arc::default() };
        etcd.dial().await?;
        Ok(etcd)
    }

    async fn dial(&self) -> Result<(), EtcdError> {
        let started = self.options.clock.now();
        let (mut backoff, mut told) = (Backoff::new(DIAL_BACKOFF), false);
        loop {
            let mut client = self.client.clone();
            let attempt = self.call(format!("dial {}", self.address), client.status());
            let error = tokio::select! {
                biased;
                () = self.options.tasks.token().cancelled() => return Err(self.cancelled()),
                outcome = attempt => match outcome {
                    Ok(_) => return Ok(()),
                    Err(error) => error,
                },
            };
            if !error.is_retryable() {
                return Err(error);
            }
            if !told && self.options.clock.now() - started >= SLOW_DIAL {
                tracing::warn!(address = %self.address, %error, "dialing Etcd is taking a while…");
                told = true;
            }
            tokio::select! {
                biased;
                () = self.options.tasks.token().cancelled() => return Err(self.cancelled()),
                () = self.options.clock.sleep(backoff.next()) => {}
            }
        }
    }

    fn cancelled(&self) -> EtcdError {
        EtcdError::new(
            format!("dial {}", self.address),
            Code::Cancelled,
            "stopped while waiting for a server",
        )
    }

    /// The address that was connected to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The time to live that the leases of this process should have.
    pub fn lease_ttl(&self) -> Duration {
        self.options.lease_ttl
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.options.clock
    }

    pub(crate) fn tasks(&self) -> &TaskGroup {
        &self.options.tasks
    }

    pub(crate) fn raw(&self) -> Client {
        self.client.clone()
    }

    /// What has been seen of etcd.
    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// A client with a connection of its own.
    pub(crate) async fn reconnect(&self) -> Result<Client, EtcdError> {
        let channel = channel(&self.address, &self.options)?;
        let client = Client::from_channel(channel, Some(ConnectOptions::new())).await;
        client.map_err(|e| EtcdError::from_client(format!("connect to {}", self.address), e))
    }

    /// Reads one key.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn get(&self, key: &str) -> Result<Option<KeyValue>, EtcdError> {
        let mut kv = self.client.kv_client().max_decoding_message_size(RESPONSE_BYTES_MAX);
        let response = self.ask(format!("get {key}"), kv.get(key, None), |r| &r.0.header).await?;
        Ok(response.0.kvs.into_iter().next().map(Into::into))
    }

    /// Reads every key that starts with `prefix`, in key order, all as of one revision: `at`, or the newest if `at` is
    /// zero. The header's revision is the one that was read.
    ///
    /// # Errors
    /// [`EtcdError::is_compacted`] if `at` is no longer kept; see [`EtcdError`].
    pub async fn range(&self, prefix: &str, at: Revision) -> Result<(Vec<KeyValue>, EtcdHeader), EtcdError> {
        let (kvs, header) = self.range_raw(prefix, at).await?;
        Ok((kvs.into_iter().map(Into::into).collect(), header))
    }

    pub(crate) async fn range_raw(
        &self,
        prefix: &str,
        at: Revision,
    ) -> Result<(Vec<PbKeyValue>, EtcdHeader), EtcdError> {
        let end = prefix_end(prefix.as_bytes());
        let (mut from, mut at) = (prefix.as_bytes().to_vec(), at);
        let mut all = Vec::new();
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE_KEYS).with_revision(at.0);
            let mut kv = self.client.kv_client().max_decoding_message_size(RESPONSE_BYTES_MAX);
            let request = kv.get(from, Some(options));
            let page = self.ask(format!("range {prefix}"), request, |r| &r.0.header).await?.0;
            let mut header: EtcdHeader = page.header.unwrap_or_default().into();
            if at == Revision::NONE {
                at = header.revision;
            }
            header.revision = at;
            all.extend(page.kvs);
            match all.last() {
                Some(last) if page.more => {
                    from = last.key.clone();
                    from.push(0);
                }
                _ => return Ok((all, header)),
            }
        }
    }

    /// Keys below `prefix` which were written after revision `after` and still exist; the number of all keys below
    /// `prefix`; and the revision of which both are true. Values are not fetched.
    pub(crate) async fn changed_since(
        &self,
        prefix: &str,
        after: Revision,
    ) -> Result<(usize, i64, Revision), EtcdError> {
        let options = GetOptions::new()
            .with_range(prefix_end(prefix.as_bytes()))
            .with_keys_only()
            .with_min_mod_revision(after.0.saturating_add(1));
        let mut kv = self.client.kv_client().max_decoding_message_size(RESPONSE_BYTES_MAX);
        let request = kv.get(prefix, Some(options));
        let response = self.ask(format!("range {prefix}"), request, |r| &r.0.header).await?.0;
        let header: EtcdHeader = response.header.unwrap_or_default().into();
        Ok((response.kvs.len(), response.count, header.revision))
    }

    /// Runs a transaction.
    ///
    /// # Errors
    /// A failed comparison is no error: see [`TxnOutcome::succeeded`]. See [`EtcdError`] for the rest.
    pub async fn txn(&self, txn: Txn) -> Result<TxnOutcome, EtcdError> {
        let mut kv = self.client.kv_client().max_decoding_message_size(RESPONSE_BYTES_MAX);
        let request = etcd_client::Txn::new()
            .when(txn.compares.into_iter().map(compare).collect::<Vec<_>>())
            .and_then(txn.then.into_iter().map(op).collect::<Vec<_>>())
            .or_else(txn.or_else.into_iter().map(op).collect::<Vec<_>>());
        // Boxed, as every layer above would keep room for it, more than once.
        let request = Box::pin(kv.txn(request));
        let response = self.ask("txn".to_owned(), request, |r| &r.0.header).await?.0;
        Ok(TxnOutcome {
            succeeded: response.succeeded,
            header: response.header.unwrap_or_default().into(),
            responses: response.responses.into_iter().map(op_response).collect(),
        })
    }

    /// Obtains a lease that a task of the options' group keeps alive.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn grant(&self, ttl: Duration) -> Result<Lease, EtcdError> {
        lease::grant(self, ttl).await
    }

    /// Ends a lease, whoever holds it, and deletes its keys. A lease that is gone already is no error.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn revoke(&self, lease: i64) -> Result<(), EtcdError> {
        lease::revoke(self, lease).await
    }

    /// Watches every key that starts with `prefix` for changes after revision `after`.
    pub(crate) async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, EtcdError> {
        let options =
            WatchOptions::new().with_prefix().with_progress_notify().with_start_revision(after.next().0);
        let mut watch = self.watcher.watch_client().max_decoding_message_size(RESPONSE_BYTES_MAX);
        self.call(format!("watch {prefix}"), watch.watch(prefix, Some(options))).await
    }

    /// A request which is answered after all writes before it, so that its header can be checked.
    async fn ask<T>(
        &self,
        operation: String,
        request: impl Future<Output = Result<T, etcd_client::Error>>,
        header: impl Fn(&T) -> &Option<PbResponseHeader>,
    ) -> Result<T, EtcdError> {
        let floor = self.seen.floor();
        let response = self.call(operation.clone(), request).await?;
        let of: EtcdHeader = header(&response).unwrap_or_default().into();
        self.seen.check(of, floor).map_err(|lost| EtcdError::of_lost_data(operation, lost))?;
        Ok(response)
    }

    pub(crate) async fn call<T>(
        &self,
        operation: String,
        request: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, EtcdError> {
        match self.options.clock.timeout(REQUEST_TIMEOUT, request).await {
            Ok(outcome) => outcome.map_err(|e| EtcdError::from_client(operation, e)),
            Err(_) => {
                let text = format!("no answer within {REQUEST_TIMEOUT:?}");
                Err(EtcdError::new(operation, Code::DeadlineExceeded, text))
            }
        }
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A channel to one server, or spread over several. Dead connections are noticed by HTTP/2 pings paced by the lease
/// (journal protocol §11.4), but no more often than etcd takes them.
fn channel(address: &str, options: &EtcdOptions) -> Result<Channel, EtcdError> {
    let lease_ttl = options.lease_ttl;
    let pings = Pings {
        connect: (lease_ttl / 20).clamp(DIAL_TIMEOUT_MIN, REQUEST_TIMEOUT),
        every: (lease_ttl / 4).max(PING_INTERVAL_MIN),
        answer: lease_ttl / 4,
    };
    let one = |endpoint| {
        pinging_channel(endpoint, &options.tls, pings).map_err(|problem| {
            EtcdError::new(format!("connect to {address}"), Code::InvalidArgument, problem.to_string())
        })
    };
    let channels = address.split(',').map(one).collect::<Result<Vec<_>, _>>()?;
    match <[_; 1]>::try_from(channels) {
        Ok([one]) => Ok(Channel::Tonic(one)),
        Err(several) => Ok(Channel::Custom(BoxCloneSyncService::new(Spread::new(several, &options.clock)))),
    }
}

/// The first key after every key that starts with `prefix`; `"\0"`, which means no end, if there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

fn compare(compare: Compare) -> etcd_client::Compare {
    match compare {
        Compare::ModRevision { key, equals } => {
            etcd_client::Compare::mod_revision(key, CompareOp::Equal, equals.0)
        }
        Compare::CreateRevision { key, equals } => {
            etcd_client::Compare::create_revision(key, CompareOp::Equal, equals.0)
        }
        Compare::Version { key, equals } => etcd_client::Compare::version(key, CompareOp::Equal, equals),
        Compare::Lease { key, equals } => etcd_client::Compare::lease(key, CompareOp::Equal, equals),
    }
}

fn op(op: Op) -> TxnOp {
    match op {
        Op::Put { key, value, lease } => {
            let options = match lease {
                PutLease::None => None,
                PutLease::Id(id) => Some(PutOptions::new().with_lease(id)),
                PutLease::Keep => Some(PutOptions::new().with_ignore_lease()),
            };
            TxnOp::put(key, value, options)
        }
        Op::Delete { key } => TxnOp::delete(key, None),
        Op::DeletePrefix { prefix } => {
            let end = prefix_end(prefix.as_bytes());
            TxnOp::delete(prefix, Some(DeleteOptions::new().with_range(end)))
        }
        Op::Get { key } => TxnOp::get(key, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_its_successor() {
        for (prefix, end) in
            [(&b"/a/"[..], &b"/a0"[..]), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")]
        {
            assert_eq!(prefix_end(prefix), end);
        }
    }

    /// Bytes of the future which a transaction is.
    fn bytes_of<'a, F>(_txn: impl FnOnce(&'a Etcd, Txn) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_transaction_keeps_no_room_for_the_client_which_sends_it() {
        let bytes = bytes_of(Etcd::txn);
        assert!(bytes <= 2 << 10, "{bytes} bytes");
    }

    #[tokio::test]
    async fn malformed_addresses_are_refused() {
        let options = EtcdOptions {
            lease_ttl: Duration::from_secs(20),
            tls: ClientTls::default(),
            clock: Clock::system(),
            tasks: TaskGroup::new("test"),
        };
        for bad in ["", "localhost:2379", "http://h:1,", "http://[", "https://"] {
            assert!(channel(bad, &options).is_err(), "{bad}");
        }
        for good in ["http://127.0.0.1:1,https://127.0.0.1:2", "https://h", "unix:///tmp/none.sock"] {
            assert!(channel(good, &options).is_ok(), "{good}");
        }
    }
}
