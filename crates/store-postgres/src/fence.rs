//! The row of a shard in the table of checkpoints (consumer protocol §4.10).

use consumer::StoreFenced;
use prost::Message;
use proto::consumer::Checkpoint;

use crate::PostgresError;
use crate::connection::Connection;

/// One statement, so that what is read is what was raised: between two, another process could insert the row, and both
/// would hold its fence.
const RAISE: &str = "UPDATE gazette_checkpoints SET fence = fence + 1 WHERE shard_fqn = $1
    RETURNING fence::BIGINT, checkpoint";
const INSERT: &str = "INSERT INTO gazette_checkpoints (shard_fqn, checkpoint, fence) VALUES ($1, $2, 1)";
const UPDATE: &str =
    "UPDATE gazette_checkpoints SET checkpoint = $1 WHERE shard_fqn = $2 AND fence = $3::BIGINT";

/// The fence that a process holds of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fence(i64);

impl Fence {
    /// There is no row yet: the first commit inserts it.
    pub(crate) const NONE: Fence = Fence(0);

    /// The fence once a commit which it guards has succeeded.
    pub(crate) fn committed(self) -> Fence {
        if self == Fence::NONE { Fence(1) } else { self }
    }
}

/// Raises the fence of `shard` within the open transaction, and reads the checkpoint.
pub(crate) async fn take(
    connection: &mut Connection,
    shard: &str,
) -> Result<(Fence, Checkpoint), PostgresError> {
    let Some(row) = connection.query_opt(RAISE, &[&shard]).await? else {
        return Ok((Fence::NONE, Checkpoint::default()));
    };
    let value = |source| PostgresError::statement(RAISE)(source);
    let fence: i64 = row.try_get(0).map_err(value)?;
    let bytes: &[u8] = row.try_get(1).map_err(value)?;
    let checkpoint = Checkpoint::decode(bytes)
        .map_err(|source| PostgresError::Checkpoint { shard: shard.to_owned(), source })?;
    Ok((Fence(fence), checkpoint))
}

/// Writes the checkpoint within the open transaction, if the fence is still `fence`.
pub(crate) async fn write(
    connection: &mut Connection,
    shard: &str,
    fence: Fence,
    checkpoint: &Checkpoint,
) -> Result<(), PostgresError> {
    let bytes = checkpoint.encode_to_vec();
    let rows = match fence {
        Fence::NONE => connection.execute(INSERT, &[&shard, &bytes]).await?,
        Fence(fence) => connection.execute(UPDATE, &[&bytes, &shard, &fence]).await?,
    };
    match rows {
        0 => Err(PostgresError::Fenced { shard: shard.to_owned(), source: StoreFenced }),
        _ => Ok(()),
    }
}
