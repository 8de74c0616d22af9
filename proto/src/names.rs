//! Names which cannot be wrong: journals and shards.
//!
//! Both are cheap to clone. Parsing is strict: besides the wire's rules it refuses `..` elements, because names become
//! paths in fragment stores. Names which only pass through (items decoded from etcd) are checked laxly instead, see
//! [`crate::protocol::JournalSpec::validate_stored`].

use crate::Invalid;
use crate::invalid::ensure;
use crate::token::{PATH_SYMBOLS, TOKEN_SYMBOLS, check_no_parent, check_path_component, check_token};
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

const JOURNAL_LEN: (usize, usize) = (4, 512);
const META_LEN: (usize, usize) = (1, 512);
const SHARD_LEN: (usize, usize) = (4, 512);

/// A bare, valid journal name: 4 to 512 bytes, a clean relative path without `;meta` and without `..` elements.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalName(Arc<str>);

/// A valid shard id: 4 to 512 bytes of the token alphabet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(Arc<str>);

impl JournalName {
    /// Parses a bare name.
    pub fn parse(name: &str) -> Result<JournalName, Invalid> {
        let (bare, meta) = JournalName::split_meta(name)?;
        ensure!(meta.is_none(), "cannot have a metadata path segment ({name})");
        Ok(bare)
    }

    /// Parses a name as requests carry it: the bare name, and what follows its first `;` if there is one. Two reads of one
    /// journal under different metadata segments are different sources to a checkpoint.
    pub fn split_meta(name: &str) -> Result<(JournalName, Option<&str>), Invalid> {
        check_journal(name, Parents::Refuse)?;
        let (bare, meta) = split(name);
        Ok((JournalName(bare.into()), meta))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, shared.
    pub fn as_arc(&self) -> &Arc<str> {
        &self.0
    }
}

impl ShardId {
    /// Parses an id.
    pub fn parse(id: &str) -> Result<ShardId, Invalid> {
        check_shard_id(id)?;
        Ok(ShardId(id.into()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id, shared.
    pub fn as_arc(&self) -> &Arc<str> {
        &self.0
    }
}

/// Whether a `..` element is an error, or is left to whoever turns the name into a path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parents {
    Refuse,
    Permit,
}

/// Checks a journal name with an optional `;meta` suffix.
pub(crate) fn check_journal(name: &str, parents: Parents) -> Result<(), Invalid> {
    let (bare, meta) = split(name);
    check_path_component(bare, JOURNAL_LEN.0, JOURNAL_LEN.1)?;
    if parents == Parents::Refuse {
        check_no_parent(bare)?;
    }
    if let Some(meta) = meta {
        check_path_component(meta, META_LEN.0, META_LEN.1).map_err(|e| e.within("metadata path segment"))?;
    }
    Ok(())
}

pub(crate) fn check_shard_id(id: &str) -> Result<(), Invalid> {
    check_token(id, TOKEN_SYMBOLS, SHARD_LEN.0, SHARD_LEN.1)
}

/// Releases of the protocol differ on whether ids may have the additional symbols of paths: stored ids may.
pub(crate) fn check_stored_shard_id(id: &str) -> Result<(), Invalid> {
    check_token(id, PATH_SYMBOLS, SHARD_LEN.0, SHARD_LEN.1)
}

/// Splits at the first `;`.
pub(crate) fn split(name: &str) -> (&str, Option<&str>) {
    name.split_once(';').map_or((name, None), |(bare, meta)| (bare, Some(meta)))
}

macro_rules! string_newtype {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        // `Eq`, `Ord` and `Hash` are those of the string, as `Borrow` requires.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<&str> for $name {
            type Error = Invalid;
            fn try_from(value: &str) -> Result<Self, Invalid> {
                $name::parse(value)
            }
        }
        impl std::str::FromStr for $name {
            type Err = Invalid;
            fn from_str(value: &str) -> Result<Self, Invalid> {
                $name::parse(value)
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0.as_ref().to_owned()
            }
        }
        impl From<&$name> for String {
            fn from(value: &$name) -> String {
                value.0.as_ref().to_owned()
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $name::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

string_newtype!(JournalName);
string_newtype!(ShardId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_names_follow_the_rules() {
        for name in ["a/journal", "a.b_c-d+e=f%g", "日本/語", "foo..bar", "..foo/bar"] {
            assert_eq!(JournalName::parse(name).unwrap().as_str(), name);
        }
        let long = "a".repeat(513);
        for (name, text) in [
            ("abc", "invalid length (3; expected 4 <= length <= 512)"),
            (long.as_str(), "invalid length (513; expected 4 <= length <= 512)"),
            ("/leading/slash", "cannot begin with '/' (/leading/slash)"),
            ("trailing/slash/", "must be a clean path (trailing/slash/)"),
            ("extra-middle//slash", "must be a clean path (extra-middle//slash)"),
            ("not-$%|-a token", "not a valid token (not-$%|-a token)"),
            ("../../etc/passwd", "cannot have a '..' element (../../etc/passwd)"),
            ("foo/bar;meta", "cannot have a metadata path segment (foo/bar;meta)"),
        ] {
            assert_eq!(JournalName::parse(name).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn metadata_is_split_at_the_first_semicolon() {
        let (name, meta) = JournalName::split_meta("foo/bar;baz/bing").unwrap();
        assert_eq!((name.as_str(), meta), ("foo/bar", Some("baz/bing")));
        assert_eq!(JournalName::split_meta("foo/bar").unwrap().1, None);
        assert_eq!(
            JournalName::split_meta("foo/bar;").unwrap_err().to_string(),
            "metadata path segment: invalid length (0; expected 1 <= length <= 512)"
        );
        assert_eq!(
            JournalName::split_meta("foo/bar;a;b").unwrap_err().to_string(),
            "metadata path segment: not a valid token (a;b)"
        );
    }

    #[test]
    fn shard_ids_may_begin_with_a_slash() {
        assert!(ShardId::parse("/a/shard").is_ok());
        assert_eq!(ShardId::parse("a#b/c").unwrap_err().to_string(), "not a valid token (a#b/c)");
        assert_eq!(
            ShardId::parse("abc").unwrap_err().to_string(),
            "invalid length (3; expected 4 <= length <= 512)"
        );
    }
}
