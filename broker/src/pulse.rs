//! The pulse of a replica: a zero-byte append by the broker itself, every minute and whenever assignments change (journal
//! protocol §5.9); sooner after a failure.
//!
//! Through it a journal that nobody appends to builds its pipeline, publishes its route, and leaves a fragment whose flush
//! interval is over.

use std::time::Duration;

use futures::stream;
use proto::JournalName;
use proto::protocol::append_request::Suspend;
use proto::protocol::{AppendRequest, Status};
use runtime::CancellationToken;
use runtime::backoff::Backoff;

use crate::append::{AppendContext, serve_append};
use crate::resolution::ResolveError;
use crate::resolver::ResolveArgs;

/// Time between pulses, and the longest that one may take.
const PULSE_INTERVAL: Duration = Duration::from_secs(60);

/// Pulses the local replica of `journal` until `stopped`.
pub async fn run(context: AppendContext, journal: JournalName, stopped: CancellationToken) {
    let gone = context.deps().tasks.token().clone();
    let pulses = async {
        let (mut backoff, mut retry) = (Backoff::journal(), Backoff::journal());
        // Fails once nothing is resolved any more.
        while let Ok(invalidated) = resolve(&context, &journal).await {
            let Some(invalidated) = invalidated else {
                // It was started, and is about to be published.
                context.deps().clock.sleep(backoff.next()).await;
                continue;
            };
            backoff.reset();
            let begun = context.deps().clock.now();
            // Boxed, since an append's state is large, and most of the time there is none.
            let wait = match Box::pin(pulse(&context, &journal)).await {
                Ok(()) => {
                    retry.reset();
                    PULSE_INTERVAL
                }
                Err(error) => {
                    let wait = retry.next();
                    tracing::warn!(%journal, error, ?wait, "journal pulse failed (will retry)");
                    wait
                }
            };
            let next = begun + wait;
            tokio::select! {
                biased;
                // Taken before the pulse, so that a change during it is not missed.
                () = invalidated.cancelled() => {}
                () = context.deps().clock.sleep_until(next) => {}
            }
        }
    };
    tokio::select! {
        biased;
        () = stopped.cancelled() => {}
        () = gone.cancelled() => {}
        () = pulses => {}
    }
}

/// What fires when the journal's assignments change; `None` if it has no replica here.
async fn resolve(
    context: &AppendContext,
    journal: &JournalName,
) -> Result<Option<CancellationToken>, ResolveError> {
    let args = ResolveArgs { journal: journal.as_str(), ..ResolveArgs::default() };
    let resolution = Box::pin(context.resolver().resolve(args)).await?;
    Ok(resolution.replica.map(|_| resolution.invalidated))
}

/// One pulse. That another broker is the primary, or none, is no failure.
async fn pulse(context: &AppendContext, journal: &JournalName) -> Result<(), String> {
    let opening = AppendRequest {
        journal: journal.as_str().to_owned(),
        do_not_proxy: true,
        suspend: Suspend::NoResume.into(),
        ..AppendRequest::default()
    };
    let messages = stream::iter([Ok(opening), Ok(AppendRequest::default())]);
    let append = serve_append(context, messages);
    let failure = match context.deps().clock.timeout(PULSE_INTERVAL, append).await {
        Ok(Ok(response)) => match response.status() {
            Status::Ok
            | Status::JournalNotFound
            | Status::NoJournalPrimaryBroker
            | Status::NotJournalPrimaryBroker
            | Status::Suspended => return Ok(()),
            status => status.to_string(),
        },
        Ok(Err(status)) if status.message().ends_with(&ResolveError::Stopped.to_string()) => return Ok(()),
        Ok(Err(status)) => status.message().to_owned(),
        Err(elapsed) => elapsed.to_string(),
    };
    Err(failure)
}
