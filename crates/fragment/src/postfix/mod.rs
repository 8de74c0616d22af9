//! Path postfix templates: where below its journal's directory a fragment file is placed.
//!
//! A journal's specification may hold a template such as
//! `date={{ .Spool.FirstAppendTime.Format "2006-01-02" }}/hour={{ .Spool.FirstAppendTime.Format "15" }}`, evaluated once
//! for each fragment before its upload. The language is that of Go's `text/template`, of which this is the subset that
//! makes sense in a path: literal text, trim markers, comments, chains of fields and methods, string, number and boolean
//! literals, parentheses, pipes, and the functions `print` and `printf`.
//!
//! Evaluation is total: it ends, its output is bounded, and no template or register can make it fail in any way but a
//! [`TemplateError`]. What Go would accept and this does not is told apart ([`TemplateError::Unsupported`]), because a
//! specification with such a template is still valid. Whatever the template says, the result is a [`PathPostfix`]:
//! empty and `.` elements fall away as in Go, and `..` elements and characters which no listing would accept are
//! percent-encoded, so that neither a template nor a client's registers can name another journal's directory or hide a
//! file from listings.

use std::time::Duration;

use proto::protocol::{self, JournalSpec, LabelSet};

use crate::fragment::{PATH_POSTFIX_BYTES_MAX, PathPostfix};

mod eval;
mod gotime;
mod parse;
mod printf;
mod value;

/// Longest template, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 16 << 10;

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {
    nodes: Vec<parse::Node>,
}

/// What a template is evaluated over.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The fragment to be stored: `.Spool`.
    pub fragment: &'a protocol::Fragment,
    /// Time since the Unix epoch at which the fragment's first append was committed: `.Spool.FirstAppendTime`, in UTC.
    /// `None` is Go's zero time, in the year 1.
    pub first_append_time: Option<Duration>,
    /// The journal's registers: `.Spool.Registers`.
    pub registers: &'a LabelSet,
    /// The journal's specification: `.JournalSpec`.
    pub spec: &'a JournalSpec,
}

/// Why a template has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text is no template: Go refuses it too.
    #[error("path postfix template: {problem} at byte {at}")]
    Syntax {
        /// Byte offset into the template.
        at: usize,
        /// What is wrong there.
        problem: String,
    },
    /// Go may accept this, but it is not of the subset which is understood here.
    #[error("path postfix template: {what} is not supported")]
    Unsupported {
        /// The construct.
        what: String,
    },
    /// A field or method that its value does not have.
    #[error("path postfix template: {of} has no field or method {name}")]
    NoSuchField {
        /// The kind of value.
        of: &'static str,
        /// The field's name.
        name: String,
    },
    /// A method or function called with too few, too many or the wrong arguments.
    #[error("path postfix template: {callee} expects {expected} (found {found})")]
    Arguments {
        /// The method or function.
        callee: String,
        /// What it takes.
        expected: &'static str,
        /// What it got.
        found: String,
    },
    /// The value is longer than a path postfix may be.
    #[error("path postfix template evaluates to {found} bytes (expected at most {PATH_POSTFIX_BYTES_MAX})")]
    TooLong {
        /// Length reached when evaluation stopped.
        found: usize,
    },
}

impl TemplateError {
    /// Whether Go may accept the template all the same. A specification with such a template is valid; its fragments
    /// cannot be stored by this implementation.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, TemplateError::Unsupported { .. })
    }
}

impl Template {
    /// Parses `text`.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            let what = format!("a template of {} bytes (expected at most {TEMPLATE_BYTES_MAX})", text.len());
            return Err(TemplateError::Unsupported { what });
        }
        Ok(Template { nodes: parse::parse(text)? })
    }

    /// Evaluates over zero values, which is how a specification's template is validated (journal protocol §3.3).
    pub fn check(&self) -> Result<(), TemplateError> {
        let (fragment, registers, spec) = Default::default();
        self.eval(&Context {
            fragment: &fragment,
            first_append_time: None,
            registers: &registers,
            spec: &spec,
        })?;
        Ok(())
    }

    /// The postfix of the fragment of `context`.
    pub fn eval(&self, context: &Context<'_>) -> Result<PathPostfix, TemplateError> {
        let mut text = String::new();
        for node in &self.nodes {
            match node {
                parse::Node::Text(literal) => text.push_str(literal),
                parse::Node::Action(pipeline) => eval::pipeline(context, pipeline)?.print(&mut text)?,
            }
            // Cleaning only ever shortens by slashes and dots; a margin lets it, and bounds the work.
            if text.len() > 4 * PATH_POSTFIX_BYTES_MAX {
                return Err(TemplateError::TooLong { found: text.len() });
            }
        }
        let path = sanitise(&text);
        PathPostfix::parse(&path).map_err(|_| TemplateError::TooLong { found: path.len() })
    }
}

/// The path which `text` means: clean, relative, of the path alphabet, without `..`.
fn sanitise(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for element in text.split('/').filter(|element| !matches!(*element, "" | ".")) {
        if !path.is_empty() {
            path.push('/');
        }
        match element {
            ".." => path.push_str("%2E%2E"),
            element => element.chars().for_each(|c| push_path_char(&mut path, c)),
        }
    }
    path
}

fn push_path_char(path: &mut String, c: char) {
    if proto::path::is_path_char(c) {
        path.push(c);
    } else {
        let mut bytes = [0; 4];
        c.encode_utf8(&mut bytes).bytes().for_each(|byte| path.push_str(&format!("%{byte:02X}")));
    }
}

#[cfg(test)]
mod tests;
