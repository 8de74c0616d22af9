//! A broker within a test.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, BrokerOptions};
use client::specs::{CodecName, GoDuration, JournalNode};
use client::{
    AppendService, ClientOptions, CommittedReader, JournalClient, NewMessage, Publisher, ReadError,
    WatchedList,
};
use message::{Flags, Message, Sequencer};
use proto::protocol::{CompressionCodec, LabelSelector, ListResponse, ReadRequest};
use runtime::{BoxError, TaskGroup};
use tempfile::TempDir;

use crate::{etcd_address, soon};

/// Bytes of a fragment, unless a test says otherwise.
const FRAGMENT_BYTES: i64 = 16 << 20;
const REFRESH: Duration = Duration::from_secs(60);
const RETENTION: Duration = Duration::from_secs(60 * 60);

/// Messages which are kept in memory to be sequenced, and their bytes. What does not fit is read again.
const RING: (usize, usize) = (1024, 1 << 20);

/// A running broker and its directory, which is removed when this is dropped.
pub struct TestBroker {
    broker: Broker,
    bind: String,
    etcd: Option<String>,
    dir: TempDir,
    tasks: TaskGroup,
}

impl TestBroker {
    /// Starts a broker on a free port.
    ///
    /// # Errors
    /// If it cannot start; see [`Broker::start`].
    pub async fn start() -> Result<TestBroker, BoxError> {
        TestBroker::start_with(|_| {}).await
    }

    /// Starts a broker whose options `adjust` may change.
    ///
    /// # Errors
    /// If it cannot start; see [`Broker::start`].
    pub async fn start_with(adjust: impl FnOnce(&mut BrokerOptions)) -> Result<TestBroker, BoxError> {
        let dir = TempDir::with_prefix("courant-testkit-")?;
        let mut options = BrokerOptions::embedded(dir.path().join("data"));
        adjust(&mut options);
        let etcd = etcd_address(&options.etcd);
        // On the heap: the future of a whole broker would burden the stack of every test.
        let broker = Box::pin(Broker::start(options)).await?;
        let bind = broker.endpoint().trim_start_matches("http://").to_owned();
        Ok(TestBroker { broker, bind, etcd, dir, tasks: TaskGroup::new("testkit") })
    }

    /// Stops the broker in order, and starts it again on its port and directory, as changed by `adjust`.
    ///
    /// # Errors
    /// If it failed, or cannot start again.
    pub async fn restart(self, adjust: impl FnOnce(&mut BrokerOptions)) -> Result<TestBroker, BoxError> {
        let TestBroker { broker, bind, etcd: _, dir, tasks } = self;
        let mut options = BrokerOptions::embedded(dir.path().join("data"));
        options.bind.clone_from(&bind);
        adjust(&mut options);
        let etcd = etcd_address(&options.etcd);
        broker.stop().await?;
        Ok(TestBroker { broker: Box::pin(Broker::start(options)).await?, bind, etcd, dir, tasks })
    }

    /// The URL of the broker.
    pub fn endpoint(&self) -> &str {
        self.broker.endpoint()
    }

    /// The URL of its etcd, which is its own unless a test chose another.
    pub fn etcd(&self) -> &str {
        self.etcd.as_deref().unwrap_or(self.endpoint())
    }

    /// The broker.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// A directory which lives as long as this.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A client of the broker. Its tasks end with [`TestBroker::stop`].
    ///
    /// # Errors
    /// Never, as the endpoint is a valid one.
    pub fn client(&self) -> Result<JournalClient, BoxError> {
        Ok(JournalClient::new(self.endpoint(), ClientOptions::new(self.tasks.child("client")))?)
    }

    /// A publisher of a producer of its own. Its tasks end with [`TestBroker::stop`].
    ///
    /// # Errors
    /// Never, as the endpoint is a valid one.
    pub fn publisher(&self) -> Result<Publisher, BoxError> {
        Ok(Publisher::new(AppendService::new(self.client()?, self.tasks.child("appends")), None))
    }

    /// Creates journals, and waits until each has a primary. They are specified as for `courant journals apply`, by a tree
    /// in YAML. What its root leaves out, and no journal says, is: `replication` 1, fragments of 16 MiB, SNAPPY, a refresh
    /// interval of a minute, a retention of an hour, and no store.
    ///
    /// # Errors
    /// If the tree is malformed, or a journal exists.
    pub async fn create_journals(&self, tree: &str) -> Result<(), BoxError> {
        let mut root = JournalNode::parse(tree)?;
        complete(&mut root);
        let request = root.to_apply_request()?;
        let upserts = request.changes.iter().filter_map(|change| change.upsert.as_ref());
        let names: BTreeSet<String> = upserts.map(|spec| spec.name.clone()).collect();
        let client = self.client()?;
        client.apply(request).await?;
        let watch = self.tasks.child("watch");
        let list = WatchedList::start(client, LabelSelector::everything(), &watch)?;
        let are_served = |list: &ListResponse| names.is_subset(&served(list));
        let waited = soon(&format!("primaries of {names:?}"), list.wait_until(are_served)).await;
        watch.cancel();
        waited?.map(drop).map_err(Into::into)
    }

    /// The write head of a journal: the offset past its last byte.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn head(&self, journal: &str) -> Result<i64, BoxError> {
        head(&self.client()?, journal).await
    }

    /// The messages of a journal which are committed by now, in order, without acknowledgements.
    ///
    /// # Errors
    /// If it cannot be read, or holds something else.
    pub async fn committed<M: Message + Default>(&self, journal: &str) -> Result<Vec<M>, BoxError> {
        let end_offset = self.head(journal).await?;
        let mut messages = Vec::new();
        if end_offset == 0 {
            return Ok(messages);
        }
        let request = ReadRequest { journal: journal.to_owned(), end_offset, ..ReadRequest::default() };
        let new_message: NewMessage<M> = Arc::new(|_| Ok(M::default()));
        let sequencer = Sequencer::new(Vec::new(), RING.0, RING.1);
        let mut reader = CommittedReader::new(self.client()?, request, new_message, sequencer);
        loop {
            match reader.next().await {
                Ok(envelope) if envelope.message.uuid().flags() == Flags::ACK_TXN => {}
                Ok(envelope) => messages.push(envelope.message),
                Err(error) if error.is_eof() => return Ok(messages),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Stops the broker in order.
    ///
    /// # Errors
    /// If a part of it failed.
    pub async fn stop(self) -> Result<(), BoxError> {
        self.tasks.cancel();
        self.broker.stop().await
    }
}

/// What a tree leaves out.
fn complete(root: &mut JournalNode) {
    let fragment = &mut root.fragment;
    let nanos = |duration: Duration| GoDuration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX));
    let snappy = CodecName(CompressionCodec::Snappy.into());
    set_if_zero(&mut root.replication, 1);
    set_if_zero(&mut fragment.length, FRAGMENT_BYTES);
    set_if_zero(&mut fragment.compression_codec, snappy);
    set_if_zero(&mut fragment.refresh_interval, nanos(REFRESH));
    set_if_zero(&mut fragment.retention, nanos(RETENTION));
}

fn set_if_zero<T: Default + PartialEq>(field: &mut T, value: T) {
    if *field == T::default() {
        *field = value;
    }
}

/// Names of the journals which have a primary.
fn served(list: &ListResponse) -> BTreeSet<String> {
    let with_primary = list
        .journals
        .iter()
        .filter(|journal| journal.route.as_ref().is_some_and(|route| route.primary_id().is_some()));
    with_primary.filter_map(|journal| Some(journal.spec.as_ref()?.name.clone())).collect()
}

/// See [`TestBroker::head`].
pub(crate) async fn head(client: &JournalClient, journal: &str) -> Result<i64, BoxError> {
    let request = ReadRequest { journal: journal.to_owned(), offset: -1, ..ReadRequest::default() };
    let mut reader = client.read(request);
    match reader.next().await {
        Ok(_) | Err(ReadError::NotYetAvailable { .. } | ReadError::Closed) => Ok(reader.write_head()),
        Err(error) => Err(format!("write head of {journal}: {error}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_broker_restarts_on_its_port_and_directory() {
        let broker = TestBroker::start().await.unwrap();
        let endpoint = broker.endpoint().to_owned();
        let id = broker.broker().id().clone();
        let client = broker.client().unwrap();
        assert!(client.list(Default::default()).await.unwrap().journals.is_empty());
        let broker = broker.restart(|options| options.journal_limit = 5).await.unwrap();
        assert_eq!((broker.endpoint(), broker.broker().id()), (endpoint.as_str(), &id));
        broker.stop().await.unwrap();
    }

    #[tokio::test]
    async fn created_journals_are_complete_and_have_heads() {
        let broker = TestBroker::start().await.unwrap();
        let tree = "
name: a/
fragment: {length: 2048}
labels: [{name: content-type, value: application/x-ndjson}]
children: [{name: a/one, fragment: {length: 4096}}, {name: a/two}]";
        broker.create_journals(tree).await.unwrap();
        let list = broker.client().unwrap().list(Default::default()).await.unwrap();
        let specs: Vec<_> = list.journals.into_iter().map(|journal| journal.spec.unwrap()).collect();
        let fragments: Vec<_> = specs.iter().map(|spec| spec.fragment.clone().unwrap()).collect();
        assert_eq!(specs.iter().map(|spec| spec.replication).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(fragments.iter().map(|fragment| fragment.length).collect::<Vec<_>>(), [4096, 2048]);
        assert_eq!(fragments[0].compression_codec(), CompressionCodec::Snappy);
        assert!(fragments[0].stores.is_empty());

        assert_eq!(broker.head("a/one").await.unwrap(), 0);
        let request = proto::protocol::AppendRequest { journal: "a/one".to_owned(), ..Default::default() };
        broker.client().unwrap().append(request, "some bytes".into()).await.unwrap();
        assert_eq!(broker.head("a/one").await.unwrap(), 10);
        let error = broker.head("a/none").await.unwrap_err().to_string();
        assert!(error.contains("a/none"), "{error}");
        assert!(broker.create_journals(tree).await.is_err(), "they exist");
        broker.stop().await.unwrap();
    }
}
