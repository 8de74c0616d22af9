//! Offset files: a JSON object of journals and the offsets to continue reading at.

use runtime::BoxError;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Offsets by journal.
pub type Offsets = BTreeMap<String, i64>;

/// Reads an offset file.
pub fn load(path: &Path) -> Result<Offsets, BoxError> {
    let fail =
        |e: &dyn std::fmt::Display| -> BoxError { format!("reading offsets {}: {e}", path.display()).into() };
    let text = std::fs::read_to_string(path).map_err(|e| fail(&e))?;
    let offsets: Offsets = serde_json::from_str(&text).map_err(|e| fail(&e))?;
    match offsets.iter().find(|(_, offset)| **offset < 0) {
        Some((journal, offset)) => {
            Err(fail(&format!("journal {journal} has offset {offset} (expected >= 0)")))
        }
        None => Ok(offsets),
    }
}

/// Replaces an offset file: whole, or not at all. `previous` is where what it was is kept, if anywhere.
///
/// # Errors
/// If a file cannot be read or written. After success the new offsets survive a crash of the machine.
pub fn store(path: &Path, offsets: &Offsets, previous: Option<&Path>) -> Result<(), BoxError> {
    let fail =
        |e: &dyn std::fmt::Display| -> BoxError { format!("writing offsets {}: {e}", path.display()).into() };
    let mut text = serde_json::to_vec_pretty(offsets)?;
    text.push(b'\n');
    if let Some(previous) = previous {
        let was = std::fs::read(path).map_err(|e| fail(&e))?;
        replace(previous, &was).map_err(|e| fail(&e))?;
    }
    replace(path, &text).map_err(|e| fail(&e))
}

/// Replaces a file by one of this content, which is on the disk before it has the name.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = with_suffix(path, ".temp");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_directory_of(path)
}

/// Brings the name of a file to the disk.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// `path` with `suffix` after its name.
pub fn with_suffix(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_round_trip_and_keep_the_previous() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("offsets.json");
        let first = Offsets::from([("a/b".to_owned(), 12)]);
        store(&path, &first, None).unwrap();
        assert_eq!(load(&path).unwrap(), first);
        let previous = with_suffix(&path, ".previous");
        store(&path, &Offsets::new(), Some(&previous)).unwrap();
        assert_eq!((load(&path).unwrap(), load(&previous).unwrap()), (Offsets::new(), first));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn malformed_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("offsets.json");
        assert!(load(&path).unwrap_err().to_string().contains("offsets.json: No such file"));
        for (text, problem) in [
            ("[1]", "invalid type: sequence"),
            ("{\"a\": \"x\"}", "invalid type: string"),
            ("{\"a\": -1}", "journal a has offset -1 (expected >= 0)"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains("offsets.json: ") && error.contains(problem), "{error}");
        }
    }
}
