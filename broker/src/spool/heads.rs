//! Whose spools a data directory holds.

use std::io;
use std::path::Path;

use fragment::spool::{Head, RECORD_PREFIX_BYTES};

use super::dir::{SPOOL_SUFFIX, SPOOLS_DIR};
use super::disk::{SpoolDisk, read_full_at};

/// The journals that have spools below `data_dir`. What cannot be read is left to whoever adopts it. Blocks.
///
/// # Errors
/// If the directory of spools cannot be listed.
pub(crate) fn heads(disk: &dyn SpoolDisk, data_dir: &Path) -> io::Result<Vec<Head>> {
    let spools = data_dir.join(SPOOLS_DIR);
    let journals = disk.list(&spools)?;
    Ok(journals.into_iter().filter_map(|name| head(disk, &spools.join(name)).ok().flatten()).collect())
}

/// The head of the newest spool file in `dir`.
fn head(disk: &dyn SpoolDisk, dir: &Path) -> io::Result<Option<Head>> {
    let names = disk.list(dir)?;
    let files = names.iter().filter(|name| name.to_str().is_some_and(|name| name.ends_with(SPOOL_SUFFIX)));
    let Some(newest) = files.max() else { return Ok(None) };
    let file = disk.open(&dir.join(newest))?;
    let mut bytes = vec![0; RECORD_PREFIX_BYTES];
    let read = read_full_at(&*file, &mut bytes, 0)?;
    Ok(Head::decode(&bytes[..read]).ok())
}
