//! The fixed framing: a magic of four bytes, the payload's length as little-endian u32, and the payload.
//!
//! The magic lets a reader recover after bytes which are no frame: it skips to the next magic among the bytes it has.

use crate::{MessageError, Split};
use memchr::memmem;

/// First bytes of each frame.
pub const MAGIC: [u8; 4] = [0x66, 0x33, 0x93, 0x36];
/// Bytes of a frame before its payload.
pub const HEADER_LEN: usize = 8;

/// The first frame of `buffer`. See [`crate::Framing::split`].
pub fn split(buffer: &[u8], eof: bool) -> Split {
    let Some((header, rest)) = buffer.split_first_chunk::<HEADER_LEN>() else {
        return match buffer {
            _ if !eof => Split::NeedMore,
            [] | [b'\n'] => Split::End,
            _ => Split::Truncated,
        };
    };
    let [m0, m1, m2, m3, length @ ..] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        let next = memmem::find(&buffer[1..], &MAGIC).map(|index| index + 1);
        return Split::Desync { skip: next.unwrap_or(buffer.len() - (MAGIC.len() - 1)) };
    }
    let length = u32::from_le_bytes(length) as usize;
    if length <= rest.len() {
        return Split::Frame { consumed: HEADER_LEN + length, payload: HEADER_LEN..HEADER_LEN + length };
    }
    if eof { Split::Truncated } else { Split::NeedMore }
}

/// Appends a frame of a protobuf message to `out`.
pub fn encode(message: &impl prost::Message, out: &mut Vec<u8>) -> Result<(), MessageError> {
    encode_header(message.encoded_len(), out)?;
    message.encode_raw(out);
    Ok(())
}

/// Appends a frame of a payload to `out`.
pub fn encode_payload(payload: &[u8], out: &mut Vec<u8>) -> Result<(), MessageError> {
    encode_header(payload.len(), out)?;
    out.extend_from_slice(payload);
    Ok(())
}

/// Decodes the protobuf message of a payload.
pub fn decode<M: prost::Message + Default>(payload: &[u8]) -> Result<M, MessageError> {
    Ok(M::decode(payload)?)
}

fn encode_header(payload_len: usize, out: &mut Vec<u8>) -> Result<(), MessageError> {
    let length = u32::try_from(payload_len).map_err(|_| MessageError::TooLarge(payload_len))?;
    out.reserve(HEADER_LEN + payload_len);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&length.to_le_bytes());
    Ok(())
}
