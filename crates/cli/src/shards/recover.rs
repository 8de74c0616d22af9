//! `courant shards recover`: rebuilds the files of a shard from its recovery log (consumer protocol §4.9).
//!
//! The log is played from the stored hints which reach furthest, up to its end, and is not taken over: the shard goes on
//! meanwhile. What is recovered is the shard's state as of some commit of that time.

use super::ShardSession;
use crate::output::{bytes_text, count_text};
use crate::terminal::{Output, Progress};
use proto::consumer::{GetHintsRequest, ShardSpec};
use proto::labels::ID;
use proto::protocol::LabelSelector;
use recoverylog::{Played, Player};
use runtime::BoxError;
use std::path::PathBuf;
use std::time::Duration;

/// How often progress is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Options.
#[derive(Debug, clap::Args)]
pub struct RecoverArgs {
    /// The shard.
    #[arg(long)]
    id: String,
    /// Where its files go. What is there is deleted first, and what was recovered after a failure.
    #[arg(long, short = 'd', value_name = "DIR")]
    dir: PathBuf,
}

/// Runs the command.
pub async fn run(session: &ShardSession, args: RecoverArgs) -> Result<(), BoxError> {
    let dir = std::path::absolute(&args.dir).map_err(|e| format!("--dir {:?}: {e}", args.dir))?;
    let log = log_of(session, &args.id).await?;
    let request = GetHintsRequest { shard: args.id.clone(), ..Default::default() };
    let what = format!("reading the hints of {}", args.id);
    let response = session.request(what, session.shards.get_hints(request)).await?;
    let hints = recoverylog::hints::pick(&response, &log);

    // A trailing slash is not part of a directory's name.
    let dir: PathBuf = dir.components().collect();
    let client = session.session.client.clone();
    let fail = |error| format!("recovering {} from {log}: {error}", args.id);
    let player = Player::start(hints, dir, client, &session.session.tasks).map_err(fail)?;
    player.finish_at_write_head();
    let played = follow(session, &player, &log).await.map_err(fail)?;
    let files = played.fsm.links().len();
    eprintln!(
        "recovered {} from {log}: {} in {}; read {} ({})",
        args.id,
        count_text(files, "file"),
        played.dir.display(),
        count_text(usize::try_from(played.read.operations).unwrap_or(usize::MAX), "operation"),
        bytes_text(played.read.bytes),
    );
    Ok(())
}

/// Name of the shard's recovery log.
async fn log_of(session: &ShardSession, id: &str) -> Result<String, BoxError> {
    let list = session.list(LabelSelector::include([(ID, id)])).await?;
    let spec = list.shards.into_iter().filter_map(|shard| shard.spec).find(|spec| spec.id == id);
    let spec = spec.ok_or_else(|| format!("there is no shard {id}"))?;
    ShardSpec::recovery_log_str(&spec).ok_or_else(|| format!("shard {id} has no recovery log").into())
}

/// Waits for the end of the playback, and shows how far it is.
async fn follow(
    session: &ShardSession,
    player: &Player,
    log: &str,
) -> Result<Played, recoverylog::PlayError> {
    let clock = &session.session.clock;
    let mut progress = Progress::of_bytes(clock, Output::Waits, Some(0)).says(log);
    let mut played = std::pin::pin!(player.done());
    loop {
        tokio::select! {
            biased;
            played = &mut played => return played,
            () = clock.sleep(LOOK_INTERVAL) => {
                if let Some(now) = player.progress() {
                    progress.set(u64::try_from(now.offset).unwrap_or(0), u64::try_from(now.head).unwrap_or(0));
                }
            }
        }
    }
}
