//! What an application brings: how to read, fold and publish messages. The framework brings everything else.

use axum::Router;
use client::{OpFuture, Publisher};
use message::{Envelope, Message};
use proto::protocol::JournalSpec;
use recoverylog::Recorder;
use runtime::BoxError;

use crate::{InitContext, Shard, Store};

/// What became of a message that the application was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Consumed {
    /// It is part of the running transaction.
    Done,
    /// The running transaction is to end; the same message will be the first of the next one. Deferring the first
    /// message of a transaction is an error.
    Defer,
}

/// An application over shards.
///
/// One value serves all shards of the process, from many tasks at once; the calls for one shard come one after the
/// other. State which belongs to a shard is kept in its [`Application::Store`], including what is only cached: a shard
/// which fails starts again with a new store.
///
/// # Exactly once
///
/// A shard runs *transactions*: it consumes some committed messages, changes its store, publishes messages, and then
/// commits the store together with the positions that it has read through. What was published becomes visible to readers
/// after the commit is durable. If the process dies at any point, another takes over from the last commit, and consumes
/// again what came after. So effects through the store and the publisher happen exactly once; any other effect happens
/// at least once.
///
/// An error of any method ends the attempt to run the shard. It is reported as the shard's status, and the shard is
/// started again from its last commit, with growing waits and a bounded number of times.
pub trait Application: Send + Sync + 'static {
    /// The messages of its source journals.
    type Message: Message;
    /// Where the state of a shard is kept.
    type Store: Store;

    /// A short name, by default that of the type. The default prefix of the group's keys in etcd is
    /// `/gazette/consumers/{name}`.
    fn name(&self) -> &'static str {
        let path = std::any::type_name::<Self>();
        path.rsplit("::").next().unwrap_or(path)
    }

    /// APIs of the application, which the process serves on its port beside its own: gRPC services
    /// (`tonic::service::Routes::new(…).into_axum_router()`) and HTTP paths. Called once, before anything is served. None,
    /// unless the application says otherwise. Whoever reaches the port may use them, unless they
    /// check the access tokens of `--consumer.auth-keys` themselves: [`InitContext::admission`].
    ///
    /// # Errors
    /// Any error ends the process.
    fn init_application(&self, context: &InitContext) -> Result<Router, BoxError> {
        let _ = context;
        Ok(Router::new())
    }

    /// Opens the store of a shard. With a recovery log, `recorder` has recovered the files of the last primary into
    /// [`Recorder::dir`] and records all further operations on them; without one, it is `None`.
    ///
    /// # Errors
    /// If the store cannot be opened. The framework then removes the directory.
    fn new_store(
        &self,
        shard: &Shard,
        recorder: Option<Recorder>,
    ) -> impl Future<Output = Result<Self::Store, BoxError>> + Send;

    /// A fresh message, into which the next one of this source journal is decoded.
    ///
    /// # Errors
    /// If the application cannot read that journal.
    fn new_message(&self, source: &JournalSpec) -> Result<Self::Message, BoxError>;

    /// Takes one committed message, acknowledgements of producers included. May change the store, publish with
    /// `publisher` as part of the transaction, or append to journals by itself.
    ///
    /// # Errors
    /// Any error ends the attempt to run the shard.
    fn consume_message(
        &self,
        shard: &Shard,
        store: &mut Self::Store,
        envelope: &Envelope<Self::Message>,
        publisher: &mut Publisher,
    ) -> impl Future<Output = Result<Consumed, BoxError>> + Send;

    /// The transaction is about to commit: moves what is still cached into the store, publishes what is still held back,
    /// starts the last appends. Need not wait for any of it: the commit does.
    ///
    /// # Errors
    /// Any error ends the attempt to run the shard.
    fn finalize_txn(
        &self,
        shard: &Shard,
        store: &mut Self::Store,
        publisher: &mut Publisher,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Called before the first message of a transaction. May wait, to limit how many transactions run at once.
    ///
    /// # Errors
    /// Any error ends the attempt to run the shard, and [`Application::finished_txn`] is not called.
    fn begin_txn(
        &self,
        shard: &Shard,
        store: &mut Self::Store,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = (shard, store);
        std::future::ready(Ok(()))
    }

    /// Called once for every [`Application::begin_txn`] that succeeded, when the commit of the transaction was started
    /// or the transaction failed. `commit` resolves with the outcome.
    fn finished_txn(
        &self,
        shard: &Shard,
        store: &mut Self::Store,
        commit: OpFuture,
    ) -> impl Future<Output = ()> + Send {
        let _ = (shard, store, commit);
        std::future::ready(())
    }
}
