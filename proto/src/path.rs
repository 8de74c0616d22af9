//! The form of path components, for whoever makes paths of names.

use crate::Invalid;
use crate::token::{self, PATH_SYMBOLS};

/// Whether names of journals and path postfixes may contain `c`: letters, numbers and `-_+/.=%`.
pub fn is_path_char(c: char) -> bool {
    token::is_token_char(c, PATH_SYMBOLS)
}

/// Requires a clean relative path of `min..=max` bytes without `..` elements; empty only where `min` is zero.
pub fn check_component(value: &str, min: usize, max: usize) -> Result<(), Invalid> {
    token::check_path_component(value, min, max)?;
    token::check_no_parent(value)
}
