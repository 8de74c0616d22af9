//! The alphabets of names: tokens, path components, and the `..` rule.
//!
//! Tokens consist of Unicode letters and numbers and a few symbols, all of which sort above `#`, the byte that separates
//! the parts of an allocator key. The categories are Unicode's L and N exactly: a laxer alphabet would write names which
//! other members of a cluster cannot decode.

use crate::Invalid;
use crate::invalid::ensure;
use icu_properties::CodePointMapData;
use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};

/// Symbols of tokens: label names, zones, process suffixes, shard ids.
pub(crate) const TOKEN_SYMBOLS: &str = "-_+/.";
/// Symbols of path components: journal names, label values.
pub(crate) const PATH_SYMBOLS: &str = "-_+/.=%";

/// Whether `c` is a letter, a number or one of `symbols`.
pub(crate) fn is_token_char(c: char, symbols: &str) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || symbols.contains(c);
    }
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    GeneralCategoryGroup::Letter.contains(category) || GeneralCategoryGroup::Number.contains(category)
}

/// Requires `min..=max` bytes of the alphabet with `symbols`.
pub(crate) fn check_token(value: &str, symbols: &str, min: usize, max: usize) -> Result<(), Invalid> {
    let length = value.len();
    ensure!((min..=max).contains(&length), "invalid length ({length}; expected {min} <= length <= {max})");
    ensure!(value.chars().all(|c| is_token_char(c, symbols)), "not a valid token ({value})");
    Ok(())
}

/// Requires a clean, relative path of `min..=max` bytes; empty only where `min` is zero.
pub(crate) fn check_path_component(value: &str, min: usize, max: usize) -> Result<(), Invalid> {
    check_token(value, PATH_SYMBOLS, min, max)?;
    if value.is_empty() {
        return Ok(());
    }
    ensure!(is_clean(value), "must be a clean path ({value})");
    ensure!(!value.starts_with('/'), "cannot begin with '/' ({value})");
    Ok(())
}

/// Refuses `..` elements, which a clean path may still begin with and which would leave a store's root.
pub(crate) fn check_no_parent(value: &str) -> Result<(), Invalid> {
    ensure!(!value.split('/').any(|element| element == ".."), "cannot have a '..' element ({value})");
    Ok(())
}

/// Whether lexical cleaning would leave the non-empty path as it is: no empty or `.` element, no trailing slash, and
/// `..` only as leading elements of a relative path.
pub(crate) fn is_clean(path: &str) -> bool {
    if path == "/" || path == "." {
        return true;
    }
    let (rooted, rest) = path.strip_prefix('/').map_or((false, path), |rest| (true, rest));
    let mut may_ascend = !rooted;
    for element in rest.split('/') {
        match element {
            "" | "." => return false,
            ".." if !may_ascend => return false,
            ".." => {}
            _ => may_ascend = false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_paths_are_those_which_cleaning_keeps() {
        for path in ["a", "a/b", "/", ".", "/a", "..", "../a", "../../a", "a..b", "..a/b"] {
            assert!(is_clean(path), "{path}");
        }
        for path in ["", "a/", "a//b", "./a", "a/.", "a/../b", "/..", "//", "../a/.."] {
            assert!(!is_clean(path), "{path}");
        }
    }

    #[test]
    fn alphabet_is_letters_numbers_and_symbols() {
        for c in "aZ0é世ⅧΩ²".chars() {
            assert!(is_token_char(c, TOKEN_SYMBOLS), "{c}");
        }
        // Separators, combining marks, circled letters (category So) and everything up to '#'.
        for c in "#\"! \0;:,\u{0301}Ⓐ\u{fffd}=%".chars() {
            assert!(!is_token_char(c, TOKEN_SYMBOLS), "{c}");
        }
        assert!(is_token_char('=', PATH_SYMBOLS) && is_token_char('%', PATH_SYMBOLS));
    }

    #[test]
    fn token_and_path_texts() {
        let text = |r: Result<(), Invalid>| r.unwrap_err().to_string();
        assert_eq!(
            text(check_token("ab", TOKEN_SYMBOLS, 3, 9)),
            "invalid length (2; expected 3 <= length <= 9)"
        );
        assert_eq!(text(check_token("a b", TOKEN_SYMBOLS, 3, 9)), "not a valid token (a b)");
        assert_eq!(text(check_path_component("a//b", 3, 9)), "must be a clean path (a//b)");
        assert_eq!(text(check_path_component("/abc", 3, 9)), "cannot begin with '/' (/abc)");
        assert_eq!(text(check_no_parent("../abc")), "cannot have a '..' element (../abc)");
        assert!(check_path_component("", 0, 9).is_ok());
        // Lengths are bytes: three characters of three bytes.
        assert_eq!(
            text(check_token("世世世", TOKEN_SYMBOLS, 1, 8)),
            "invalid length (9; expected 1 <= length <= 8)"
        );
    }
}
