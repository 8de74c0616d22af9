//! Text in double quotes, with the escapes of Go: how INI files hold what would otherwise be changed by being read.

use std::fmt::Write;

/// Puts `text` in quotes. What cannot be printed is escaped.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                // Writing to a string does not fail.
                let _always_ok = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The text in the quotes. `None` unless `text` is a whole string literal of Go, in double quotes, of valid UTF-8.
pub fn unquote(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"').filter(|_| text.len() >= 2)?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(char) = rest.chars().next() {
        rest = &rest[char.len_utf8()..];
        match char {
            '"' | '\n' => return None,
            '\\' => rest = unescape(rest, &mut bytes)?,
            c => push(c, &mut bytes),
        }
    }
    String::from_utf8(bytes).ok()
}

/// Takes one escape, without its backslash, off the front of `text`. Gives what follows.
fn unescape<'a>(text: &'a str, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let kind = text.chars().next()?;
    let after = &text[kind.len_utf8()..];
    let simple = match kind {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        'x' => {
            let (value, after) = number(after, 2, 16)?;
            bytes.push(u8::try_from(value).ok()?);
            return Some(after);
        }
        '0'..='7' => {
            let (value, after) = number(text, 3, 8)?;
            bytes.push(u8::try_from(value).ok()?);
            return Some(after);
        }
        'u' | 'U' => {
            let (value, after) = number(after, if kind == 'u' { 4 } else { 8 }, 16)?;
            push(char::from_u32(value)?, bytes);
            return Some(after);
        }
        _ => return None,
    };
    bytes.push(simple);
    Some(after)
}

/// The number of exactly `digits` digits at the front of `text`, and what follows.
fn number(text: &str, digits: usize, radix: u32) -> Option<(u32, &str)> {
    let found = text.get(..digits).filter(|found| found.chars().all(|c| c.is_digit(radix)))?;
    Some((u32::from_str_radix(found, radix).ok()?, &text[digits..]))
}

fn push(char: char, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_quoted_is_the_same_again() {
        for text in ["", "plain", "a \"b\" \\ c", "one\ntwo\r\t\u{7}\u{85}", "é ⚙ 🦀", " spaces "] {
            let quoted = quote(text);
            assert!(!quoted.contains('\n'), "{quoted}");
            assert_eq!(unquote(&quoted).as_deref(), Some(text), "{quoted}");
        }
    }

    #[test]
    fn escapes_are_those_of_go() {
        for (quoted, text) in [
            (r#""\a\b\f\n\r\t\v\\\"""#, "\u{7}\u{8}\u{c}\n\r\t\u{b}\\\""),
            (r#""\x41\101\u00e9\U0001f980""#, "AAé🦀"),
            (r#""\xc3\xa9""#, "é"),
        ] {
            assert_eq!(unquote(quoted).as_deref(), Some(text), "{quoted}");
        }
        for malformed in [
            "",
            "\"",
            "x",
            "\"x",
            "x\"",
            r#""a"b""#,
            r#""\""#,
            r#""\q""#,
            r#""\x4""#,
            r#""\x+4""#,
            r#""\400""#,
            r#""\ud800""#,
            r#""\xff""#,
            "\"a\nb\"",
        ] {
            assert_eq!(unquote(malformed), None, "{malformed}");
        }
    }
}
