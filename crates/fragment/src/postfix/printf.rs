//! The functions `print` and `printf`, for the verbs which make sense in a path.

use super::TemplateError;
use super::value::Value;
use crate::fragment::PATH_POSTFIX_BYTES_MAX;

/// Calls the function `name`.
pub(super) fn call(name: &str, arguments: &[Value<'_>]) -> Result<String, TemplateError> {
    match (name, arguments) {
        ("print", _) => print(arguments),
        (_, [Value::Str(format), operands @ ..]) => printf(format, operands),
        _ => arguments_error("a format string first", arguments.first().map_or("nothing", Value::kind)),
    }
}

fn arguments_error<T>(expected: &'static str, found: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError::Arguments { callee: "printf".to_owned(), expected, found: found.into() })
}

/// Go's `Sprint`: a space between operands of which neither is a string.
fn print(operands: &[Value<'_>]) -> Result<String, TemplateError> {
    let mut out = String::new();
    for (i, operand) in operands.iter().enumerate() {
        let is_string = |value: &Value<'_>| matches!(value, Value::Str(_));
        if i > 0 && !is_string(operand) && !is_string(&operands[i - 1]) {
            out.push(' ');
        }
        operand.print(&mut out)?;
    }
    Ok(out)
}

/// Go's `Sprintf` of `%d`, `%x`, `%X`, `%s`, `%v` and `%%`, with `-`, `0` and a width.
fn printf(format: &str, operands: &[Value<'_>]) -> Result<String, TemplateError> {
    let mut out = String::new();
    let mut operands = operands.iter();
    let mut rest = format;
    while let Some((literal, directive)) = rest.split_once('%') {
        out.push_str(literal);
        let flags_length = directive.find(|c| c != '-' && c != '0').unwrap_or(directive.len());
        let (flags, directive) = directive.split_at(flags_length);
        let digits = directive.find(|c: char| !c.is_ascii_digit()).unwrap_or(directive.len());
        let (width, directive) = directive.split_at(digits);
        let width = if width.is_empty() { 0 } else { width.parse().unwrap_or(usize::MAX) };
        if width > PATH_POSTFIX_BYTES_MAX {
            return Err(TemplateError::TooLong { found: width });
        }
        let Some(verb) = directive.chars().next() else {
            return arguments_error("a verb after '%'", "nothing");
        };
        rest = &directive[verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(operand) = operands.next() else {
            return arguments_error("an operand for each verb", "too few");
        };
        pad(&mut out, &formatted(verb, operand)?, flags, width);
    }
    out.push_str(rest);
    match operands.next() {
        None => Ok(out),
        Some(_) => arguments_error("an operand for each verb", "too many"),
    }
}

/// The operand as `verb` writes it, without padding.
fn formatted(verb: char, operand: &Value<'_>) -> Result<String, TemplateError> {
    let mut text = String::new();
    match (verb, operand) {
        ('d', Value::Int(number) | Value::Named(number, _)) => text = number.to_string(),
        ('x', Value::Int(number)) => text = hexadecimal(*number),
        ('X', Value::Int(number)) => text = hexadecimal(*number).to_uppercase(),
        ('s', Value::Str(_) | Value::Named(..) | Value::Time(_)) | ('v', _) => operand.print(&mut text)?,
        _ => {
            let what = format!("printf's verb %{verb} of a {}", operand.kind());
            return Err(TemplateError::Unsupported { what });
        }
    }
    Ok(text)
}

fn hexadecimal(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{:x}", number.unsigned_abs())
}

/// Pads to `width` characters: with spaces on the right after `-`, with zeros after the sign after `0`, or with spaces
/// on the left.
fn pad(out: &mut String, text: &str, flags: &str, width: usize) {
    let missing = width.saturating_sub(text.chars().count());
    if flags.contains('-') {
        out.push_str(text);
        out.extend(std::iter::repeat_n(' ', missing));
    } else if flags.contains('0') {
        let (sign, digits) = text.split_at(usize::from(text.starts_with('-')));
        out.push_str(sign);
        out.extend(std::iter::repeat_n('0', missing));
        out.push_str(digits);
    } else {
        out.extend(std::iter::repeat_n(' ', missing));
        out.push_str(text);
    }
}
