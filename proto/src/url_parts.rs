//! Splits a URL into its parts, without normalising any of them.
//!
//! Store URLs and endpoints are compared and stored as text, and items written by other members of the cluster must not
//! be refused here, so this follows the generic URL grammar rather than that of web browsers.

use crate::invalid::{Invalid, ensure};

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UrlParts<'a> {
    /// Lower case; empty if the URL is relative.
    pub scheme: String,
    /// Host with its port, without user information.
    pub host: &'a str,
    /// Percent-encoding removed.
    pub path: Vec<u8>,
    /// Without the question mark.
    pub query: &'a str,
}

pub(crate) fn split_url(url: &str) -> Result<UrlParts<'_>, Invalid> {
    parse(url).map_err(|cause| Invalid::new(format!("parse {url:?}: {cause}")))
}

fn parse(url: &str) -> Result<UrlParts<'_>, Invalid> {
    ensure!(!url.bytes().any(|b| b.is_ascii_control()), "invalid control character in URL");
    let url = url.split_once('#').map_or(url, |(before, _)| before);
    let (scheme, rest) = split_scheme(url)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let opaque = !scheme.is_empty() && !rest.starts_with('/');
    if opaque {
        return Ok(UrlParts { scheme, host: "", path: Vec::new(), query });
    }
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            (authority.rsplit_once('@').map_or(authority, |(_user, host)| host), path)
        }
        None => ("", rest),
    };
    check_host(host)?;
    Ok(UrlParts { scheme, host, path: percent_decode(path)?, query })
}

fn split_scheme(url: &str) -> Result<(String, &str), Invalid> {
    let Some(end) = url.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)) else {
        return Ok((String::new(), url));
    };
    let (scheme, rest) = url.split_at(end);
    match rest.strip_prefix(':') {
        None => Ok((String::new(), url)),
        Some(_) if scheme.is_empty() => Err(Invalid::new("missing protocol scheme")),
        Some(rest) if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            Ok((scheme.to_ascii_lowercase(), rest))
        }
        Some(_) => Err(Invalid::new("first path segment in URL cannot contain colon")),
    }
}

fn check_host(host: &str) -> Result<(), Invalid> {
    let bad = host
        .chars()
        .find(|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-_.~!$&'()*+,;=:[]<>\"%".contains(*c));
    if let Some(c) = bad {
        return Err(Invalid::new(format!("invalid character {c:?} in host name")));
    }
    let after = if host.starts_with('[') {
        let Some((_, after)) = host.rsplit_once(']') else {
            return Err(Invalid::new("missing ']' in host"));
        };
        after
    } else {
        host.rfind(':').map_or("", |colon| &host[colon..])
    };
    let port_ok =
        after.is_empty() || after.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    ensure!(port_ok, "invalid port {after:?} after host");
    Ok(())
}

/// The bytes that percent-encoded text stands for.
///
/// # Errors
/// If a `%` is not followed by two hexadecimal digits.
pub fn percent_decode(text: &str) -> Result<Vec<u8>, Invalid> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match (digit(bytes.next()), digit(bytes.next())) {
            (Some(high), Some(low)) => decoded.push((high * 16 + low) as u8),
            _ => return Err(Invalid::new("invalid URL escape")),
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_table() {
        let parts = |url| {
            let p = split_url(url).unwrap();
            format!("{}|{}|{}|{}", p.scheme, p.host, String::from_utf8_lossy(&p.path), p.query)
        };
        assert_eq!(parts("s3://bucket/a%20b/?x=1&y#frag"), "s3|bucket|/a b/|x=1&y");
        assert_eq!(parts("HTTP://user:pw@host:80"), "http|host:80||");
        assert_eq!(parts("file:///a/b/"), "file||/a/b/|");
        assert_eq!(parts("file:/a/"), "file||/a/|");
        assert_eq!(parts("s3:opaque/x"), "s3|||");
        assert_eq!(parts("a/relative/path"), "||a/relative/path|");
        assert_eq!(parts("http://[::1]:80/x"), "http|[::1]:80|/x|");
        assert_eq!(parts(""), "|||");
        for url in
            ["http://a b/", "http://a:b/", "http://[::1/", ":x", "1:x", "s3://b/%2", "s3://b/%zz", "a\nb"]
        {
            let text = split_url(url).unwrap_err().to_string();
            assert!(text.starts_with("parse \""), "{text}");
        }
    }
}
