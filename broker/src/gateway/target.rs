//! What a URL asks for: a journal, and where to read. Pure.

use http::Uri;
use proto::percent_decode;

use super::Refusal;

/// The arguments of a read.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ReadArguments {
    /// Where to begin, if that was said.
    pub(super) offset: Option<i64>,
    /// Whether to wait for content that is not there yet.
    pub(super) block: bool,
}

/// The journal which a URL names, perhaps with a `;meta` suffix.
pub(super) fn journal_of(uri: &Uri) -> Result<String, Refusal> {
    let path = uri.path().strip_prefix('/').unwrap_or(uri.path());
    text_of(path).ok_or_else(|| Refusal::bad_request(format!("invalid path {:?}", uri.path())))
}

impl ReadArguments {
    /// The arguments in a URL. One without a value counts as not given.
    pub(super) fn of(uri: &Uri) -> Result<ReadArguments, Refusal> {
        let mut arguments = ReadArguments::default();
        for (name, value) in pairs(uri)? {
            let invalid = |expected: &str| {
                Refusal::bad_request(format!("invalid value {value:?} of {name}; expected {expected}"))
            };
            match name.as_str() {
                "offset" if value.is_empty() => {}
                "offset" => {
                    arguments.offset = Some(value.parse().map_err(|_| invalid("a 64-bit integer"))?);
                }
                "block" => arguments.block = flag(&value).ok_or_else(|| invalid("true or false"))?,
                _ => return Err(unknown(&name, "offset, block")),
            }
        }
        Ok(arguments)
    }
}

/// Refuses every argument.
pub(super) fn no_arguments(uri: &Uri) -> Result<(), Refusal> {
    pairs(uri)?.first().map_or(Ok(()), |(name, _)| Err(unknown(name, "none")))
}

fn unknown(name: &str, expected: &str) -> Refusal {
    Refusal::bad_request(format!("unknown query argument {name:?}; expected {expected}"))
}

/// Flags, as Go reads them.
fn flag(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Refusal> {
    let query = uri.query().unwrap_or_default();
    let given = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = given.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let of = |text: &str| text_of(&text.replace('+', " "));
        of(name)
            .zip(of(value))
            .ok_or_else(|| Refusal::bad_request(format!("invalid query argument {pair:?}")))
    });
    pairs.collect()
}

fn text_of(encoded: &str) -> Option<String> {
    String::from_utf8(percent_decode(encoded).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn paths_name_journals() {
        for (path, journal) in [
            ("/a/journal", "a/journal"),
            ("/a/journal;meta?offset=1", "a/journal;meta"),
            ("/a%2Fb/%25=%C3%A4", "a/b/%=ä"),
            ("/a+b", "a+b"),
            ("/", ""),
        ] {
            assert_eq!(journal_of(&uri(path)).unwrap(), journal, "{path}");
        }
        for path in ["/a%2", "/a%zz", "/a%ff"] {
            assert_eq!(journal_of(&uri(path)).unwrap_err().text, format!("invalid path {path:?}"));
        }
    }

    #[test]
    fn arguments_are_read_strictly() {
        let arguments = |query: &str| ReadArguments::of(&uri(&format!("/j?{query}")));
        for (query, offset, block) in [
            ("", None, false),
            ("offset=12&block=true", Some(12), true),
            ("offset=-1&block=1", Some(-1), true),
            ("&offset=&block&", None, false),
            ("off%73et=3&block=F", Some(3), false),
        ] {
            assert_eq!(arguments(query).unwrap(), ReadArguments { offset, block }, "{query}");
        }
        for (query, text) in [
            ("offset=x", r#"invalid value "x" of offset; expected a 64-bit integer"#),
            ("offset=9223372036854775808", "expected a 64-bit integer"),
            ("block=yes", r#"invalid value "yes" of block; expected true or false"#),
            ("offset=1&end=2", r#"unknown query argument "end"; expected offset, block"#),
            ("%zz=1", r#"invalid query argument "%zz=1""#),
        ] {
            let refusal = arguments(query).unwrap_err();
            assert!(refusal.text.contains(text), "{query}: {}", refusal.text);
        }
        no_arguments(&uri("/j?")).unwrap();
        no_arguments(&uri("/j?a")).unwrap_err();
    }
}
