//! The CSV framing: records as of RFC 4180, read strictly and written with as few quotes as Go's writer.
//!
//! A field which begins with a quote extends to its closing quote, over commas and line feeds. Blank lines are skipped;
//! their bytes belong to the frame which follows. The last record may lack its line feed.

use crate::{Framing, Message, MessageError, Split, Uuid};
use proto::JournalName;

/// Why bytes are not a CSV record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// A quote within a field which does not begin with one.
    #[error("parse error: bare \" in non-quoted field")]
    BareQuote,
    /// A quoted field with text behind its closing quote, or without closing quote.
    #[error("parse error: extraneous or missing \" in quoted-field")]
    Quote,
    /// A field which is not UTF-8.
    #[error("parse error: field {field} is not UTF-8")]
    NotUtf8 {
        /// Index of the field.
        field: usize,
    },
    /// A record with another number of fields than the first record of the input.
    #[error("record on line {line}: wrong number of fields")]
    FieldCount {
        /// Line of the input on which the record begins, from one.
        line: u64,
    },
}

/// How the first field of some bytes ends.
enum Field {
    /// At a comma or the end of the record; `next` is past the comma or the line feed.
    End { text_end: usize, quoted: bool, last: bool, next: usize },
    /// Wrong quotes: the record is given up at the end of the current line.
    Bad { error: CsvError, next: usize },
    /// Past the bytes, within quotes or within a line.
    Open,
}

/// Scans the field at the front of `bytes`. The end of `bytes` ends a field only if `eof`.
fn scan_field(bytes: &[u8], eof: bool) -> Field {
    if bytes.first() != Some(&b'"') {
        return scan_plain_field(bytes, eof);
    }
    let mut at = 1;
    loop {
        let Some(quote) = memchr::memchr(b'"', &bytes[at..]).map(|index| at + index) else {
            return if eof { Field::Bad { error: CsvError::Quote, next: bytes.len() } } else { Field::Open };
        };
        let text_end = quote + 1;
        return match &bytes[text_end..] {
            [b'"', ..] => {
                at = text_end + 1;
                continue;
            }
            [b',', ..] => Field::End { text_end, quoted: true, last: false, next: text_end + 1 },
            [b'\n', ..] => Field::End { text_end, quoted: true, last: true, next: text_end + 1 },
            [b'\r', b'\n', ..] => Field::End { text_end, quoted: true, last: true, next: text_end + 2 },
            [] | [b'\r'] if eof => Field::End { text_end, quoted: true, last: true, next: bytes.len() },
            [] | [b'\r'] => Field::Open,
            rest => match memchr::memchr(b'\n', rest) {
                Some(index) => Field::Bad { error: CsvError::Quote, next: text_end + index + 1 },
                None if eof => Field::Bad { error: CsvError::Quote, next: bytes.len() },
                None => Field::Open,
            },
        };
    }
}

fn scan_plain_field(bytes: &[u8], eof: bool) -> Field {
    let line_end = match memchr::memchr2(b',', b'\n', bytes) {
        Some(index) if bytes[index] == b',' && !bytes[..index].contains(&b'"') => {
            return Field::End { text_end: index, quoted: false, last: false, next: index + 1 };
        }
        _ => memchr::memchr(b'\n', bytes),
    };
    let (text_end, next) = match line_end {
        Some(index) => (index, index + 1),
        None if eof => (bytes.len(), bytes.len()),
        None => return Field::Open,
    };
    if bytes[..text_end].contains(&b'"') {
        return Field::Bad { error: CsvError::BareQuote, next };
    }
    let text_end = if bytes[..text_end].ends_with(b"\r") { text_end - 1 } else { text_end };
    Field::End { text_end, quoted: false, last: true, next }
}

/// The first record of `buffer`. See [`crate::Framing::split`]. A record which cannot be parsed extends to its line's end.
pub fn split(buffer: &[u8], eof: bool) -> Split {
    let mut start = 0;
    loop {
        match &buffer[start..] {
            [b'\n', ..] => start += 1,
            [b'\r', b'\n', ..] => start += 2,
            [] | [b'\r'] => return if eof { Split::End } else { Split::NeedMore },
            _ => break,
        }
    }
    let mut at = start;
    let consumed = loop {
        match scan_field(&buffer[at..], eof) {
            Field::End { last: false, next, .. } => at += next,
            Field::End { next, .. } | Field::Bad { next, .. } => break at + next,
            Field::Open => return Split::NeedMore,
        }
    };
    let record = &buffer[start..consumed];
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    let record = record.strip_suffix(b"\r").unwrap_or(record);
    Split::Frame { consumed, payload: start..start + record.len() }
}

/// The fields of a record.
pub fn decode(record: &[u8]) -> Result<Vec<String>, CsvError> {
    let (mut fields, mut at) = (Vec::new(), 0);
    loop {
        let (text_end, quoted, last, next) = match scan_field(&record[at..], true) {
            Field::End { text_end, quoted, last, next } => (text_end, quoted, last, next),
            Field::Bad { error, .. } => return Err(error),
            Field::Open => unreachable!("fields end with the record"),
        };
        let text = std::str::from_utf8(&record[at..at + text_end])
            .map_err(|_| CsvError::NotUtf8 { field: fields.len() })?;
        fields.push(match quoted {
            true => text[1..text.len() - 1].replace("\"\"", "\"").replace("\r\n", "\n"),
            false => text.to_owned(),
        });
        if last {
            return Ok(fields);
        }
        at += next;
    }
}

/// How many fields a record has; those after a wrong quote are not counted.
pub(crate) fn count_fields(record: &[u8]) -> usize {
    let (mut fields, mut at) = (1, 0);
    while let Field::End { last: false, next, .. } = scan_field(&record[at..], true) {
        fields += 1;
        at += next;
    }
    fields
}

/// Appends a record and a line feed to `out`.
pub fn encode<T: AsRef<str>>(fields: &[T], out: &mut Vec<u8>) {
    for (index, field) in fields.iter().map(AsRef::as_ref).enumerate() {
        if index != 0 {
            out.push(b',');
        }
        if !needs_quotes(field) {
            out.extend_from_slice(field.as_bytes());
            continue;
        }
        out.push(b'"');
        out.extend_from_slice(field.replace('"', "\"\"").as_bytes());
        out.push(b'"');
    }
    out.push(b'\n');
}

fn needs_quotes(field: &str) -> bool {
    field == "\\." || field.contains([',', '"', '\r', '\n']) || field.starts_with(char::is_whitespace)
}

/// A CSV record whose first field is its UUID. Its acknowledgement has as many fields, all others empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CsvRecord {
    uuid: Uuid,
    fields: Vec<String>,
}

impl CsvRecord {
    /// A record of these fields. The first is the place of the UUID, and is replaced when the record is published.
    pub fn new(fields: Vec<String>) -> Result<CsvRecord, MessageError> {
        let first = fields.first().map_or("", String::as_str);
        Ok(CsvRecord { uuid: first.parse().map_err(MessageError::invalid)?, fields })
    }

    /// The fields, the UUID first.
    pub fn fields(&self) -> &[String] {
        &self.fields
    }
}

impl Message for CsvRecord {
    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn set_uuid(&mut self, uuid: Uuid) {
        self.uuid = uuid;
        match self.fields.first_mut() {
            Some(first) => *first = uuid.to_string(),
            None => self.fields.push(uuid.to_string()),
        }
    }

    fn new_acknowledgement(&self, _: &JournalName) -> CsvRecord {
        CsvRecord { uuid: Uuid::default(), fields: vec![String::new(); self.fields.len()] }
    }

    fn encode(&self, framing: Framing, out: &mut Vec<u8>) -> Result<(), MessageError> {
        if framing != Framing::Csv {
            return Err(MessageError::Framing(framing));
        }
        encode(&self.fields, out);
        Ok(())
    }

    fn decode(&mut self, framing: Framing, payload: &[u8]) -> Result<(), MessageError> {
        if framing != Framing::Csv {
            return Err(MessageError::Framing(framing));
        }
        *self = CsvRecord::new(decode(payload)?)?;
        Ok(())
    }
}
