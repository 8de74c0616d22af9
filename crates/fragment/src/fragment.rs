//! The description of a fragment, and the names of fragment files.
//!
//! A fragment is a contiguous span of one journal's content. Stored, it is the object
//! `<store root><journal>/[<postfix>/]<begin>-<end>-<sum><suffix>` (journal protocol §10.1). Names are written in one
//! exact form and read back tolerantly, since other writers of the format differ in width, case and suffix.
//!
//! A [`Fragment`] cannot be wrong: its span does not run backwards or start below zero, and its postfix is a clean path
//! without `..` elements, so that its content path never leaves its journal's directory.

use std::fmt;
use std::sync::Arc;

use proto::{Invalid, JournalName, protocol};

use crate::{Codec, Sum, UnknownCodec};

/// Longest path postfix, in bytes (journal protocol §3.5).
pub const PATH_POSTFIX_BYTES_MAX: usize = 512;

/// A path below a journal's directory in which fragment files are placed: clean, relative, without `..` elements, at
/// most [`PATH_POSTFIX_BYTES_MAX`] bytes of the path alphabet, and mostly empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPostfix(Arc<str>);

impl PathPostfix {
    /// No postfix.
    pub fn none() -> PathPostfix {
        PathPostfix("".into())
    }

    /// Checks `path` against the rules above.
    pub fn parse(path: &str) -> Result<PathPostfix, Invalid> {
        proto::path::check_component(path, 0, PATH_POSTFIX_BYTES_MAX)?;
        Ok(PathPostfix(path.into()))
    }

    /// The path, without leading or trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for PathPostfix {
    fn default() -> PathPostfix {
        PathPostfix::none()
    }
}

impl fmt::Display for PathPostfix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PathPostfix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A contiguous span `begin..end` of a journal's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Journal of the content.
    pub journal: JournalName,
    /// Offset of the first byte. At least zero.
    pub begin: i64,
    /// Offset after the last byte. At least `begin`.
    pub end: i64,
    /// SHA-1 of the uncompressed content.
    pub sum: Sum,
    /// Compression of the stored file.
    pub codec: Codec,
    /// URL of the store which holds the file, exactly as the journal's specification spells it. `None` while the
    /// fragment is only local.
    pub backing_store: Option<Arc<str>>,
    /// Unix seconds of the file's last modification; zero while the fragment is only local.
    pub mod_time: i64,
    /// Where below the journal's directory the file is.
    pub path_postfix: PathPostfix,
}

/// Why a listed path is not the name of a fragment file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The suffix names no codec.
    #[error("fragment name {name:?} has an unknown suffix {suffix:?}")]
    Suffix {
        /// Base name of the file.
        name: String,
        /// Its last `.` and what follows.
        suffix: String,
    },
    /// Not three fields.
    #[error("fragment name {name:?} has {fields} '-'-separated fields (expected begin, end and sum)")]
    Fields {
        /// Base name of the file.
        name: String,
        /// How many fields it has.
        fields: usize,
    },
    /// An offset is not a signed 64-bit hexadecimal number.
    #[error("fragment name {name:?} has a {field} that is not a 64-bit hexadecimal offset ({found:?})")]
    Offset {
        /// Base name of the file.
        name: String,
        /// `begin` or `end`.
        field: &'static str,
        /// The field's text.
        found: String,
    },
    /// The sum is not a SHA-1 digest.
    #[error("fragment name {name:?} has a sum that is not 40 hexadecimal digits ({found:?})")]
    Sum {
        /// Base name of the file.
        name: String,
        /// The field's text.
        found: String,
    },
    /// The span runs backwards.
    #[error("fragment name {name:?} begins at {begin}, after its end {end}")]
    Span {
        /// Base name of the file.
        name: String,
        /// First offset.
        begin: i64,
        /// Last offset.
        end: i64,
    },
    /// The directory is not a path postfix.
    #[error("fragment path {path:?} has an invalid postfix: {cause}")]
    Postfix {
        /// Path relative to the journal's directory.
        path: String,
        /// The broken rule.
        cause: Invalid,
    },
}

impl Fragment {
    /// An empty, local fragment at `offset`.
    pub fn empty(journal: JournalName, offset: i64, codec: Codec) -> Fragment {
        Fragment {
            journal,
            begin: offset,
            end: offset,
            sum: Sum::ZERO,
            codec,
            backing_store: None,
            mod_time: 0,
            path_postfix: PathPostfix::none(),
        }
    }

    /// Bytes of content.
    pub fn len(&self) -> i64 {
        self.end - self.begin
    }

    /// Whether there is no content.
    pub fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    /// Base name of the fragment's file: sixteen lower-case hexadecimal digits of begin and of end, forty of the sum,
    /// and the codec's suffix.
    pub fn content_name(&self) -> String {
        format!("{:016x}-{:016x}-{}{}", self.begin, self.end, self.sum, self.codec.suffix())
    }

    /// Path of the fragment's file below a store's root, before the store rewrites it.
    pub fn content_path(&self) -> String {
        let Fragment { journal, path_postfix, .. } = self;
        let slash = if path_postfix.as_str().is_empty() { "" } else { "/" };
        format!("{journal}/{path_postfix}{slash}{}", self.content_name())
    }

    /// Reads the listed path of a file, relative to the directory of `journal`. The result is local (no backing store,
    /// no modification time): the lister fills those in.
    pub fn parse_content_path(journal: &JournalName, path: &str) -> Result<Fragment, NameError> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let path_postfix = PathPostfix::parse(directory)
            .map_err(|cause| NameError::Postfix { path: path.to_owned(), cause })?;
        Ok(Fragment { path_postfix, ..Fragment::parse_content_name(journal, name)? })
    }

    /// Reads the base name of a file of `journal`, leaving the postfix empty.
    pub fn parse_content_name(journal: &JournalName, name: &str) -> Result<Fragment, NameError> {
        let (stem, suffix) = name.split_at(name.rfind('.').unwrap_or(name.len()));
        let codec = Codec::from_suffix(suffix)
            .ok_or_else(|| NameError::Suffix { name: name.to_owned(), suffix: suffix.to_owned() })?;
        let mut fields = stem.split('-');
        let (Some(begin), Some(end), Some(sum), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(NameError::Fields { name: name.to_owned(), fields: stem.split('-').count() });
        };
        let (begin, end) = (parse_offset(name, "begin", begin)?, parse_offset(name, "end", end)?);
        if begin > end {
            return Err(NameError::Span { name: name.to_owned(), begin, end });
        }
        let sum = Sum::from_hex(sum)
            .ok_or_else(|| NameError::Sum { name: name.to_owned(), found: sum.to_owned() })?;
        Ok(Fragment { end, sum, ..Fragment::empty(journal.clone(), begin, codec) })
    }

    /// The wire message.
    pub fn to_proto(&self) -> protocol::Fragment {
        protocol::Fragment {
            journal: self.journal.as_str().to_owned(),
            begin: self.begin,
            end: self.end,
            sum: Some(self.sum.into()),
            compression_codec: self.codec.number(),
            backing_store: self.backing_store.as_deref().unwrap_or_default().to_owned(),
            mod_time: self.mod_time,
            path_postfix: self.path_postfix.as_str().to_owned(),
        }
    }
}

/// Digits of a signed number, of any width and case; a `+` is accepted, and a `-` cannot occur since it separates.
fn parse_offset(name: &str, field: &'static str, text: &str) -> Result<i64, NameError> {
    i64::from_str_radix(text, 16).map_err(|_| NameError::Offset {
        name: name.to_owned(),
        field,
        found: text.to_owned(),
    })
}

/// Validates the message as the wire's rules say (journal protocol §3.5), and refuses `..` elements and negative
/// offsets besides.
impl TryFrom<&protocol::Fragment> for Fragment {
    type Error = Invalid;

    fn try_from(message: &protocol::Fragment) -> Result<Fragment, Invalid> {
        let journal = JournalName::parse(&message.journal).map_err(|e| e.within("Journal"))?;
        let (begin, end) = (message.begin, message.end);
        if begin < 0 || begin > end {
            return Err(Invalid::new(format!("expected 0 <= Begin <= End (have {begin}, {end})")));
        }
        let codec = Codec::try_from(message.compression_codec).map_err(|UnknownCodec(n)| {
            Invalid::new(format!("invalid value ({n})")).within("CompressionCodec")
        })?;
        let path_postfix = PathPostfix::parse(&message.path_postfix).map_err(|e| e.within("PathPostfix"))?;
        let backing_store = Some(message.backing_store.as_str()).filter(|url| !url.is_empty()).map(Arc::from);
        let sum = message.sum.as_ref().map(Sum::from).unwrap_or_default();
        Ok(Fragment {
            journal,
            begin,
            end,
            sum,
            codec,
            backing_store,
            mod_time: message.mod_time,
            path_postfix,
        })
    }
}

#[cfg(test)]
mod tests;
