//! Fragments of journals: names, codecs, the cover-set index, path postfixes and the spool.
//!
//! A journal's content lives in *fragments*, contiguous spans which never split an append. A fragment begins its life as
//! a broker's spool and ends it as a compressed, content-addressed file of an object store. This crate knows what is true
//! of fragments wherever they are: how their files are named ([`Fragment`]), compressed ([`compress`]) and placed
//! ([`postfix`]), and which fragment answers a read ([`index`]).
//!
//! Everything here is pure, or a synchronous wrapper of a reader or writer. Nothing opens a file, reads a clock or spawns.

pub mod compress;
pub mod index;
pub mod postfix;
pub mod spool;

mod codec;
mod cover_set;
mod fragment;
mod sum;

pub use codec::{Codec, UnknownCodec};
pub use cover_set::{CoverSet, Insertion, Span};
pub use fragment::{Fragment, NameError, PATH_POSTFIX_BYTES_MAX, PathPostfix};
pub use sum::Sum;
