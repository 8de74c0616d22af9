//! Specifications as people write them: YAML trees of journals, YAML sets of shards.
//!
//! A tree or set is parsed strictly (an unknown or repeated key is an error which names its place), validated, and
//! *pushed down*: what directories or `common` say holds for everything below unless that says otherwise. What results
//! becomes one Apply request. The other way, a listing is *extracted* into a tree and *hoisted*: what all children
//! share moves up. Listing, printing, parsing and applying gives the same specifications again.
//!
//! Everything here is pure text and data; reading files and calling brokers is left to the caller.

mod journal_node;
mod journal_tree;
mod shard_set;
mod values;

pub use journal_node::{FragmentNode, JournalNode, SuspendNode};
pub use shard_set::{ShardNode, ShardSet, SourceNode};
pub use values::{CodecName, FlagsName, GoDuration, LabelList, SuspendLevelName};

use proto::Invalid;

/// Why specifications could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Not YAML, or not of the right shape. Names key, line and column.
    #[error("parsing YAML: {0}")]
    Yaml(#[from] serde_yaml_ng::Error),
    /// Well-formed, but against a rule. Names the journal or shard.
    #[error("{item}: {cause}")]
    Invalid {
        /// The journal, directory or shard, in quotes.
        item: String,
        /// The broken rule.
        cause: Invalid,
    },
}

impl SpecError {
    fn new(item: &str, cause: impl std::fmt::Display) -> SpecError {
        SpecError::Invalid { item: format!("{item:?}"), cause: Invalid::new(cause) }
    }
}

/// Whether a field has its zero value, which is not printed, takes the parent's value, and is never hoisted.
fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Takes the parent's value of each listed field which is zero.
macro_rules! inherit {
    ($child:expr, $parent:expr, $($field:ident),+) => { $(
        if crate::specs::is_zero(&$child.$field) {
            $child.$field = $parent.$field.clone();
        }
    )+ };
}

/// Zeroes each listed field of `$shared` which differs in `$other`.
macro_rules! keep_equal {
    ($shared:expr, $other:expr, $($field:ident),+) => { $(
        if $shared.$field != $other.$field {
            $shared.$field = Default::default();
        }
    )+ };
}

/// Zeroes each listed field of `$child` which is the same in `$parent`.
macro_rules! drop_equal {
    ($child:expr, $parent:expr, $($field:ident),+) => { $(
        if $child.$field == $parent.$field {
            $child.$field = Default::default();
        }
    )+ };
}

use {drop_equal, inherit, keep_equal};

#[cfg(test)]
mod tests;
