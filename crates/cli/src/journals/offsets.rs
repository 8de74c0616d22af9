//! Offset files: a JSON object of journals and the offsets to continue reading at.

use runtime::BoxError;
use std::collections::BTreeMap;
use std::io::Write;
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

/// Replaces an offset file: whole, or not at all. `previous` is where the file that is replaced goes, if anywhere.
pub fn store(path: &Path, offsets: &Offsets, previous: Option<&Path>) -> Result<(), BoxError> {
    let fail =
        |e: &dyn std::fmt::Display| -> BoxError { format!("writing offsets {}: {e}", path.display()).into() };
    let temporary = with_suffix(path, ".temp");
    let mut file = std::fs::File::create(&temporary).map_err(|e| fail(&e))?;
    let mut text = serde_json::to_vec_pretty(offsets)?;
    text.push(b'\n');
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(|e| fail(&e))?;
    if let Some(previous) = previous {
        std::fs::rename(path, previous).map_err(|e| fail(&e))?;
    }
    std::fs::rename(&temporary, path).map_err(|e| fail(&e))
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
