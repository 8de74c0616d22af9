//! Names of files, as SQLite uses them: relative to the directory of the store, so that what SQLite writes about other
//! files holds true in another directory.

/// Directory of the database of pages, which is no place for files of SQLite.
pub(crate) const PAGES_DIR: &str = "pageDB";

/// Why a name is not one of a file of the store.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("{0:?} is outside of the directory of the store")]
    Outside(String),
    #[error("{0:?} names no file")]
    NoFile(String),
    #[error("{0:?} is within {PAGES_DIR}, where pages are stored")]
    Pages(String),
}

/// The one relative path of a file: without empty and dotted parts. A leading `/` means the directory of the store.
pub(crate) fn clean(name: &str) -> Result<String, NameError> {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or_else(|| NameError::Outside(name.to_owned()))?),
            part => parts.push(part),
        }
    }
    match parts.first() {
        None => Err(NameError::NoFile(name.to_owned())),
        Some(&PAGES_DIR) => Err(NameError::Pages(name.to_owned())),
        Some(_) => Ok(parts.join("/")),
    }
}

/// The name of the map which holds the pages of a database.
pub(crate) fn map(name: &str) -> Result<String, NameError> {
    Ok(format!("/{}", clean(name)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_stay_within() {
        let table = [
            ("primary.db", Ok("primary.db")),
            ("/primary.db", Ok("primary.db")),
            ("./a//b/../c.db", Ok("a/c.db")),
            ("a/pageDB/x", Ok("a/pageDB/x")),
            ("../primary.db", Err("\"../primary.db\" is outside of the directory of the store")),
            ("/a/../..", Err("\"/a/../..\" is outside of the directory of the store")),
            ("", Err("\"\" names no file")),
            ("./", Err("\"./\" names no file")),
            (
                "a/../pageDB/000004.log",
                Err("\"a/../pageDB/000004.log\" is within pageDB, where pages are stored"),
            ),
        ];
        for (name, expected) in table {
            let found = clean(name).map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{name}");
        }
        assert_eq!(map("primary.db").unwrap(), "/primary.db");
    }
}
