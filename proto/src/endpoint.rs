//! Endpoints: the URLs at which processes are reached.

use crate::invalid::{Invalid, ensure};
use crate::url_parts::split_url;

/// Where to connect for an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialAddress {
    /// A TCP address.
    Tcp {
        /// `host:port`.
        authority: String,
        /// Whether the endpoint is `https`.
        tls: bool,
    },
    /// The path of a unix domain socket.
    Unix(String),
}

/// Requires an absolute URL with a host.
pub fn validate(endpoint: &str) -> Result<(), Invalid> {
    let parts = split_url(endpoint)?;
    ensure!(!parts.scheme.is_empty(), "not absolute: {endpoint}");
    ensure!(!parts.host.is_empty(), "missing host: {endpoint}");
    Ok(())
}

/// The address to dial: of `unix://host/path` the path, otherwise host and port, where `http` and `https` have a default.
/// `unix:///path`, which has no host and so is no valid endpoint of a member, is accepted as an address of a client.
pub fn dial_address(endpoint: &str) -> Result<DialAddress, Invalid> {
    let parts = split_url(endpoint)?;
    if parts.scheme == "unix" {
        let path = String::from_utf8(parts.path)
            .map_err(|_| Invalid::new(format!("path is not UTF-8: {endpoint}")))?;
        ensure!(!path.is_empty(), "missing path: {endpoint}");
        return Ok(DialAddress::Unix(path));
    }
    validate(endpoint)?;
    let tls = parts.scheme == "https";
    let port = if parts.host.ends_with(']') { None } else { parts.host.rsplit_once(':') };
    let authority = match (port, parts.scheme.as_str()) {
        (Some(_), _) => parts.host.to_owned(),
        (None, "https") => format!("{}:443", parts.host),
        (None, "http") => format!("{}:80", parts.host),
        (None, _) => return Err(Invalid::new(format!("missing port: {endpoint}"))),
    };
    Ok(DialAddress::Tcp { authority, tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_table() {
        for endpoint in ["http://host:1234/path", "https://h", "unix://host/path.sock", "tcp://[::1]:80"] {
            assert_eq!(validate(endpoint), Ok(()), "{endpoint}");
        }
        assert_eq!(validate("/baz").unwrap_err().to_string(), "not absolute: /baz");
        assert_eq!(validate("").unwrap_err().to_string(), "not absolute: ");
        assert_eq!(validate("http:///baz").unwrap_err().to_string(), "missing host: http:///baz");
        assert!(validate(":garbage: :").unwrap_err().to_string().starts_with("parse \":garbage: :\": "));
    }

    #[test]
    fn dial_table() {
        let tcp = |authority: &str, tls| DialAddress::Tcp { authority: authority.into(), tls };
        for (endpoint, address) in [
            ("http://host:8080/x", tcp("host:8080", false)),
            ("http://host", tcp("host:80", false)),
            ("https://host", tcp("host:443", true)),
            ("https://[::1]", tcp("[::1]:443", true)),
            ("grpc://[::1]:90", tcp("[::1]:90", false)),
            ("unix://host/a/b.sock", DialAddress::Unix("/a/b.sock".into())),
            ("unix:///a/b.sock", DialAddress::Unix("/a/b.sock".into())),
        ] {
            assert_eq!(dial_address(endpoint), Ok(address));
        }
        for endpoint in ["unix://host", "grpc://host", "host:8080", "http://"] {
            assert!(dial_address(endpoint).is_err(), "{endpoint}");
        }
    }
}
