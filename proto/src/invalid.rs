//! What is wrong with a message, and where in it.

use std::fmt;

/// A broken rule: a dotted path into the message and the text of the rule, as in `Header.Etcd: invalid Revision (0; expected > 0)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    context: String,
    cause: String,
}

impl Invalid {
    /// A rule broken at the top of the message.
    pub fn new(cause: impl fmt::Display) -> Invalid {
        Invalid { context: String::new(), cause: cause.to_string() }
    }

    /// The same rule, seen from the message which holds this one as `field`.
    #[must_use]
    pub fn within(mut self, field: impl fmt::Display) -> Invalid {
        self.context =
            if self.context.is_empty() { field.to_string() } else { format!("{field}.{}", self.context) };
        self
    }

    /// The dotted path, empty at the top.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The text of the rule, without the path.
    pub fn cause(&self) -> &str {
        &self.cause
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.context.is_empty() {
            write!(f, "{}: ", self.context)?;
        }
        f.write_str(&self.cause)
    }
}

impl std::error::Error for Invalid {}

/// Messages which have rules. A message is validated once, where it enters the process.
pub trait Validate {
    /// The first broken rule, in the order of the journal protocol §3 and the consumer protocol §1.3.
    fn validate(&self) -> Result<(), Invalid>;
}

/// Validates an optional sub-message where absence is permitted.
pub(crate) fn validate_present<M: Validate>(field: &str, message: Option<&M>) -> Result<(), Invalid> {
    message.map_or(Ok(()), |m| m.validate().map_err(|e| e.within(field)))
}

/// Validates a sub-message which is always there on the wire: absence means its zero value.
pub(crate) fn validate_always<M: Validate + Default>(
    field: &str,
    message: Option<&M>,
) -> Result<(), Invalid> {
    let outcome = match message {
        Some(m) => m.validate(),
        None => M::default().validate(),
    };
    outcome.map_err(|e| e.within(field))
}

/// Returns early with an [`Invalid`] built from format arguments.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::Invalid::new(format!($($text)+)));
        }
    };
}
pub(crate) use ensure;
