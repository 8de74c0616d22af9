//! Enumerations of the wire: known values only.

use crate::invalid::{Invalid, ensure};
use crate::{consumer, protocol};
use std::fmt;

impl fmt::Display for protocol::Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str_name())
    }
}

impl fmt::Display for consumer::Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str_name())
    }
}

/// A journal status must be known.
pub(crate) fn check_journal_status(status: i32) -> Result<(), Invalid> {
    check("Status", protocol::Status::try_from(status).is_ok(), status)
}

/// A shard status must be known.
pub(crate) fn check_shard_status(status: i32) -> Result<(), Invalid> {
    check("Status", consumer::Status::try_from(status).is_ok(), status)
}

fn check(field: &str, known: bool, status: i32) -> Result<(), Invalid> {
    if known { Ok(()) } else { Err(Invalid::new(format!("invalid status ({status})")).within(field)) }
}

/// A codec must be known and not INVALID.
pub(crate) fn check_codec(codec: i32) -> Result<(), Invalid> {
    let known = protocol::CompressionCodec::try_from(codec);
    let name = known.map_or_else(|_| codec.to_string(), |c| c.as_str_name().to_owned());
    let valid = known.is_ok_and(|c| c != protocol::CompressionCodec::Invalid);
    if valid {
        Ok(())
    } else {
        Err(Invalid::new(format!("invalid value ({name})")).within("CompressionCodec"))
    }
}

/// An append's suspend mode must be known.
pub(crate) fn check_append_suspend(suspend: i32) -> Result<(), Invalid> {
    ensure!(
        protocol::append_request::Suspend::try_from(suspend).is_ok(),
        "invalid Suspend variant ({suspend})"
    );
    Ok(())
}
