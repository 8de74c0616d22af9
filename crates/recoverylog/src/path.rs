//! Paths of recorded files, which cannot leave the directory that is recorded or played into.
//!
//! A recorded path is the local path without the directory: it begins with a slash and is clean (consumer protocol
//! §4.5). Paths read from a log or from hints are not trusted.

use proto::Invalid;
use std::path::{Component, Path, PathBuf};

/// Directory below the played directory which holds files while it is not yet known where they end up.
pub(crate) const STAGING_DIR: &str = ".fnodes";

/// The one path whose file is kept as a property: RocksDB's id of the database, which is created by a rename.
pub(crate) const PROPERTY_PATH: &str = "/IDENTITY";

const PATH_BYTES_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 255;

/// Checks a recorded path: absolute, clean, without `.` and `..` elements, and not within the staging directory.
pub(crate) fn check(path: &str) -> Result<(), Invalid> {
    let fail = |what: &str| Err(Invalid::new(format!("{what} ({path:?})")));
    if path.len() > PATH_BYTES_MAX {
        return Err(Invalid::new(format!(
            "path too long ({} bytes; expected <= {PATH_BYTES_MAX})",
            path.len()
        )));
    }
    let Some(relative) = path.strip_prefix('/') else { return fail("path is not absolute") };
    for (index, name) in relative.split('/').enumerate() {
        match name {
            "" | "." | ".." => return fail("path is not clean"),
            STAGING_DIR if index == 0 => return fail("path is reserved"),
            _ if name.len() > NAME_BYTES_MAX => return fail("path has a name which is too long"),
            _ if name.contains('\0') => return fail("path has a NUL byte"),
            _ => {}
        }
    }
    Ok(())
}

/// The recorded path of a local one below `dir`.
pub(crate) fn recorded(dir: &Path, local: &Path) -> Result<String, Invalid> {
    let fail = |what: &str| Invalid::new(format!("{what} ({local:?}; expected it below {dir:?})"));
    let relative = local.strip_prefix(dir).map_err(|_| fail("path is outside of the recorded directory"))?;
    let mut path = String::new();
    for component in relative.components() {
        let Component::Normal(name) = component else { return Err(fail("path is not clean")) };
        path.push('/');
        path.push_str(name.to_str().ok_or_else(|| fail("path is not UTF-8"))?);
    }
    check(&path)?;
    Ok(path)
}

/// The local path of a recorded one.
pub(crate) fn local(dir: &Path, recorded: &str) -> Result<PathBuf, Invalid> {
    check(recorded)?;
    Ok(dir.join(&recorded[1..]))
}

/// Checks a directory to record or to play into: absolute and clean.
pub(crate) fn check_dir(dir: &Path) -> Result<(), Invalid> {
    let clean = dir.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    // `components` drops what a clean path does not have: the rebuilt path shows it.
    let same = dir.components().collect::<PathBuf>().as_os_str() == dir.as_os_str();
    if dir.is_absolute() && clean && same {
        return Ok(());
    }
    Err(Invalid::new(format!("not an absolute, clean directory ({dir:?})")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn recorded_paths_are_local_ones_without_the_directory() {
        let dir = Path::new("/tmp/dir");
        assert_eq!(recorded(dir, Path::new("/tmp/dir/CURRENT")).unwrap(), "/CURRENT");
        assert_eq!(recorded(dir, Path::new("/tmp/dir//pageDB/./000004.log")).unwrap(), "/pageDB/000004.log");
        for path in ["/tmp/dir", "/tmp/dir2/file", "/tmp/dir/../dir/file", "file", "/tmp/dir/.fnodes/1"] {
            assert!(recorded(dir, Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn paths_of_others_cannot_leave_the_directory() {
        let dir = Path::new("/tmp/dir");
        assert_eq!(local(dir, "/a/b..c/d").unwrap(), Path::new("/tmp/dir/a/b..c/d"));
        let long = format!("/{}", "x".repeat(256));
        for path in [
            "",
            "/",
            "a",
            "/a/",
            "//a",
            "/..",
            "/../a",
            "/a/../../b",
            "/./a",
            "/.fnodes/1",
            "/a\0",
            long.as_str(),
        ] {
            assert!(local(dir, path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn directories_are_absolute_and_clean() {
        assert!(check_dir(Path::new("/tmp/dir")).is_ok());
        for dir in ["dir", "/tmp/../dir", "/tmp//dir", "/tmp/dir/", "/tmp/./dir", ""] {
            assert!(check_dir(Path::new(dir)).is_err(), "{dir:?}");
        }
    }

    proptest! {
        #[test]
        fn accepted_paths_stay_below_the_directory(path in "[/.a\\x00]{0,12}") {
            let dir = Path::new("/tmp/dir");
            if let Ok(local) = local(dir, &path) {
                prop_assert!(local.starts_with(dir) && local.components().count() > dir.components().count());
                prop_assert!(!local.components().any(|c| c == Component::ParentDir));
                prop_assert_eq!(recorded(dir, &local).unwrap(), path);
            }
        }
    }
}
