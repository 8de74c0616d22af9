//! The pulse of a replica: a zero-byte append by the broker itself, every minute and whenever assignments change (journal
//! protocol §5.9); sooner after a failure.
//!
//! Through it a journal that nobody appends to builds its pipeline, publishes its route, and leaves a fragment whose flush
//! interval is over. If the broker is told to, one that has been calm for long is suspended by it.

mod calm;

use std::time::Duration;

use auth::Access;
use futures::stream;
use proto::JournalName;
use proto::protocol::append_request::Suspend;
use proto::protocol::{AppendRequest, Status};
use runtime::CancellationToken;
use runtime::backoff::Backoff;

use crate::append::{AppendContext, serve_append};
use crate::resolution::ResolveError;
use crate::resolver::ResolveArgs;
use calm::Calm;

/// Longest that a pulse may take.
const PULSE_LIMIT: Duration = Duration::from_secs(60);

/// Pulses the local replica of `journal` until `stopped`.
pub async fn run(context: AppendContext, journal: JournalName, stopped: CancellationToken) {
    let gone = context.deps().tasks.token().clone();
    let (interval, auto_suspend) = (context.options().pulse_interval, context.options().auto_suspend);
    let pulses = async {
        let mut calm = Calm::default();
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
            let wait = match Box::pin(pulse(&context, &journal, calm.mode(auto_suspend))).await {
                Ok(()) => {
                    retry.reset();
                    interval
                }
                Err(error) => {
                    calm.on_disturbed();
                    let wait = retry.next();
                    tracing::warn!(%journal, error, ?wait, "journal pulse failed (will retry)");
                    wait
                }
            };
            let next = begun + wait;
            tokio::select! {
                biased;
                // Taken before the pulse, so that a change during it is not missed.
                () = invalidated.cancelled() => calm.on_disturbed(),
                () = context.deps().clock.sleep_until(next) => if wait == interval {
                    calm.on_undisturbed();
                }
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
async fn pulse(context: &AppendContext, journal: &JournalName, suspend: Suspend) -> Result<(), String> {
    let opening = AppendRequest {
        journal: journal.as_str().to_owned(),
        do_not_proxy: true,
        suspend: suspend.into(),
        ..AppendRequest::default()
    };
    let messages = stream::iter([Ok(opening), Ok(AppendRequest::default())]);
    let append = serve_append(context, Access::unlimited(), messages);
    let failure = match context.deps().clock.timeout(PULSE_LIMIT, append).await {
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
