//! Transactions of a shard: the pure loop, and what executes it.

mod commit;
pub mod core;
mod driver;
mod heads;
mod prior;
mod pump;
mod ready;
mod recovered;
mod replay;

use std::sync::Arc;
use std::time::Duration;

use client::{NewMessage, OpError, Publisher};
use message::sequencer::{InvalidProducer, from_sources};
use message::{MessageError, Sequencer};
use proto::consumer::{Checkpoint, ShardSpec};
use runtime::BoxError;
use tracing::Span;

pub use self::core::Completed;
use self::core::{Settings, StepError, TxnLoop};
use driver::Driver;
use heads::Heads;
pub(crate) use heads::seed_progress;
use pump::Sources;
use replay::{Replay, ReplayFailure};

use crate::Application;
use crate::shard::{Process, Shard};

/// Longest wait for an answer to whether the fence of a log is still held.
pub(crate) const PROBE_LIMIT: Duration = Duration::from_secs(3);
/// Messages which a sequencer holds, unless the specification says otherwise.
const RING_MESSAGES: u32 = 8192;
/// Journal bytes of the messages which a sequencer holds; what does not fit is read again.
const RING_BYTES_MAX: usize = 32 << 20;

/// Why the transactions of a shard ended.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// The shard was told to stop at once.
    #[error("context canceled")]
    Cancelled,
    /// The recovered checkpoint cannot be used.
    #[error("recovered checkpoint: {0}")]
    Checkpoint(#[source] InvalidProducer),
    /// A source cannot be read.
    #[error("readMessage: {0}")]
    Read(#[source] BoxError),
    /// A sequence which was acknowledged cannot be read again.
    #[error("{0}")]
    Replay(#[source] ReplayFailure),
    /// The application cannot begin.
    #[error("app.BeginTxn: {0}")]
    Begin(#[source] BoxError),
    /// The application refused a message.
    #[error("app.ConsumeMessage: {0}")]
    Consume(#[source] BoxError),
    /// The application broke the contract.
    #[error("{0}")]
    Step(#[from] StepError),
    /// The application cannot end the transaction.
    #[error("app.FinalizeTxn: {0}")]
    Finalize(#[source] BoxError),
    /// The acknowledgements of the transaction cannot be written down.
    #[error("publisher.BuildAckIntents: {0}")]
    Intents(#[source] MessageError),
    /// The commit failed.
    #[error("store.StartCommit: {0}")]
    Commit(#[source] OpError),
    /// An acknowledgement failed.
    #[error("prev.ack: {0}")]
    Ack(#[source] OpError),
}

/// What the specification says of the transaction that starts now.
fn settings(spec: &ShardSpec) -> Settings {
    Settings { min: spec.min_txn(), max: spec.max_txn(), wait_for_ack: !spec.disable_wait_for_ack }
}

/// Runs transactions from a checkpoint until the shard is given up: then the running one is finished first.
pub(crate) async fn run<A: Application>(
    process: &Arc<Process<A>>,
    shard: &Shard,
    store: &mut A::Store,
    checkpoint: Checkpoint,
) -> Result<(), LoopError> {
    let spec = shard.spec();
    let states = from_sources(&checkpoint.sources).map_err(LoopError::Checkpoint)?;
    let ring = if spec.ring_buffer_size == 0 { RING_MESSAGES } else { spec.ring_buffer_size };
    let app = Arc::clone(process);
    let new_message: NewMessage<A::Message> = Arc::new(move |source| app.app.new_message(source));
    let mut publisher = Publisher::new(shard.appends().clone(), Some(Arc::clone(shard.clock())));

    let (core, clock) = (&shard.inner.core, &process.clock);
    let sources = Sources::start(shard.client(), &spec, &checkpoint, &new_message, shard.tasks());
    let prior = recovered::acknowledge(shard, &checkpoint);
    let driver = Driver {
        app: &process.app,
        shard,
        store,
        publisher: &mut publisher,
        clock,
        publish_clock_delta: process.publish_clock_delta,
        started: clock.now(),
        core: TxnLoop::new(Duration::ZERO, settings(&spec), prior.acks()),
        prior,
        sequencer: Sequencer::new(states, ring as usize, RING_BYTES_MAX),
        heads: Heads::new(sources.write_heads().clone(), core.metrics.clone()),
        sources,
        replay: Replay::new(shard.client().clone(), new_message, core.metrics.clone()),
        token: shard.token().clone(),
        cede: core.cede.clone(),
        has_ceded: false,
        time: Duration::ZERO,
        turn: 0,
        span: Span::none(),
        prior_span: Span::none(),
    };
    driver.run().await
}
