//! The contract between a shard and the store which keeps its state.

use client::OpFuture;
use proto::consumer::Checkpoint;
use runtime::BoxError;

/// Keeps the state of one shard, and its checkpoint, so that both change together or not at all.
///
/// # Contract
///
/// * [`Store::restore_checkpoint`] is called once, before anything else, and gives the checkpoint of the last commit
///   which is durable: the default one if there was none. A store which is not recorded into a recovery log must, from
///   then on, refuse commits of whoever restored before (a write fence), with [`StoreFenced`] as the error or as a source of
///   it. With a log, the log is the fence.
/// * The application changes the store while it consumes. Those changes belong to the transaction which
///   [`Store::start_commit`] ends; the next ones belong to the next. Between the two, the former may still be
///   committing: changes of the next transaction accumulate meanwhile, and are visible to the application at once.
/// * A commit is never started while an earlier one is unresolved.
/// * All calls for one shard come from one task.
pub trait Store: Send + 'static {
    /// Reads the store from other tasks while the shard runs, for requests ([`crate::Resolution::reader`]); `()` if none do.
    /// A read finds the transactions whose commits were written by then, each of them whole, and nothing of others. The
    /// last of them may not be durable yet.
    type Reader: Clone + Send + Sync + 'static;

    /// The checkpoint of the last durable commit.
    ///
    /// # Errors
    /// Any error fails the attempt to run the shard.
    fn restore_checkpoint(&mut self) -> impl Future<Output = Result<Checkpoint, BoxError>> + Send;

    /// Starts to commit all changes since the last commit, together with `checkpoint`, as one unit, after every
    /// operation of `wait_for` succeeded. If one of them fails the commit must fail. Returns at once; the future resolves
    /// when the commit is durable, or failed. A failed commit ends the attempt to run the shard.
    ///
    /// Runs on a thread of the asynchronous runtime: it must not wait for the network, nor for a thread which does. A
    /// store whose writes may stall for that long hands them to a thread of its own.
    fn start_commit(&mut self, checkpoint: Checkpoint, wait_for: Vec<OpFuture>) -> OpFuture;

    /// A reader of what is committed. Called once, after the checkpoint was restored. A reader may outlive the store: then it
    /// fails, or has nothing to read; it does not hold the store open.
    fn reader(&self) -> Self::Reader;

    /// Closes the store and removes its local files. Nothing uses the store any more. May block: it is called on a
    /// thread where that is allowed.
    fn destroy(self);
}

/// Another process has restored the checkpoint of the shard since this one did: it is the shard's primary now. A shard
/// whose commit fails by this is not started again by this process, as it would fence the other one in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("checkpoint fence was updated (ie, by a new primary)")]
pub struct StoreFenced;
