//! The rule of path components, asked of the wire's own validation so that there is one alphabet.

use proto::protocol::{self, CompressionCodec};
use proto::{Invalid, Validate};

/// Requires a clean, relative path of the path alphabet and of at most the length of a path postfix.
pub(crate) fn check(path: &str) -> Result<(), Invalid> {
    let carrier = protocol::Fragment {
        journal: "path".to_owned(),
        compression_codec: CompressionCodec::None.into(),
        path_postfix: path.to_owned(),
        ..Default::default()
    };
    carrier.validate().map_err(|invalid| Invalid::new(invalid.cause()))?;
    if path.split('/').any(|element| element == "..") {
        return Err(Invalid::new(format!("cannot have a '..' element ({path})")));
    }
    Ok(())
}

/// Whether `c` is of the path alphabet.
pub(crate) fn is_path_char(c: char) -> bool {
    c == '/' || check(c.encode_utf8(&mut [0; 4])).is_ok()
}
