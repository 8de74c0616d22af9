//! The grammar of MIME media types, as far as validating a `content-type` label needs it.

use crate::invalid::{Invalid, ensure};

/// Requires `type[/subtype] *(; attribute=value)`, where a value is a token or a quoted string.
pub(crate) fn check_media_type(text: &str) -> Result<(), Invalid> {
    let (kind, mut params) = text.split_once(';').map_or((text, ""), |(kind, rest)| (kind, rest));
    let kind = kind.trim();
    ensure!(!kind.is_empty(), "no media type");
    let (main, sub) = kind.split_once('/').map_or((kind, None), |(main, sub)| (main, Some(sub)));
    ensure!(is_token(main), "unexpected content in media type ({kind})");
    ensure!(sub.is_none_or(is_token), "unexpected content after media subtype ({kind})");

    let mut seen = Vec::new();
    loop {
        params = params.trim_start();
        if params.is_empty() {
            return Ok(());
        }
        let Some((attribute, rest)) = parse_param(params) else {
            return Err(Invalid::new(format!("invalid media parameter ({params})")));
        };
        let attribute = attribute.to_ascii_lowercase();
        ensure!(!seen.contains(&attribute), "duplicate parameter name ({attribute})");
        seen.push(attribute);
        params = rest.trim_start();
        if !params.is_empty() {
            let Some(next) = params.strip_prefix(';') else {
                return Err(Invalid::new(format!("invalid media parameter ({params})")));
            };
            params = next;
        }
    }
}

/// An attribute with its value, and what follows.
fn parse_param(text: &str) -> Option<(&str, &str)> {
    let (attribute, rest) = text.split_once('=')?;
    let (attribute, rest) = (attribute.trim(), rest.trim_start());
    if !is_token(attribute) {
        return None;
    }
    if let Some(quoted) = rest.strip_prefix('"') {
        let mut escaped = false;
        let end = quoted.find(|c| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        })?;
        return Some((attribute, &quoted[end + 1..]));
    }
    let end = rest.find(|c| !is_token_char(c)).unwrap_or(rest.len());
    (end != 0).then(|| (attribute, &rest[end..]))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_token_char)
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_table() {
        for text in
            ["text/csv", "form-data", "a/b; c=d", "a/b;c=\"d \\\" e\" ; f=g", "a/b;", "application/x-ndjson"]
        {
            assert_eq!(check_media_type(text), Ok(()), "{text}");
        }
        for text in [
            "",
            ";",
            "a/",
            "/b",
            "a/b/c",
            "a b",
            "a/b; c",
            "a/b; c=",
            "a/b; c=\"d",
            "a/b; c=d; C=e",
            "a/b c=d",
        ] {
            assert!(check_media_type(text).is_err(), "{text}");
        }
    }
}
