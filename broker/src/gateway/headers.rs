//! Headers that tell of journals, routes and fragments (journal protocol §14.2). Pure.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use fragment::Fragment;
use http::header::{CONTENT_RANGE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue};
use proto::protocol::{Header, ReadResponse, Route};

const ROUTE_TOKEN: HeaderName = HeaderName::from_static("x-route-token");
const WRITE_HEAD: HeaderName = HeaderName::from_static("x-write-head");
const FRAGMENT_NAME: HeaderName = HeaderName::from_static("x-fragment-name");
const FRAGMENT_MODIFIED: HeaderName = HeaderName::from_static("x-fragment-last-modified");
const FRAGMENT_LOCATION: HeaderName = HeaderName::from_static("x-fragment-location");
const COMMIT_BEGIN: HeaderName = HeaderName::from_static("x-commit-begin");
const COMMIT_END: HeaderName = HeaderName::from_static("x-commit-end");
const COMMIT_SUM: HeaderName = HeaderName::from_static("x-commit-sha1-sum");
/// Trailer which tells why a body ended.
pub(super) const CLOSE_ERROR: HeaderName = HeaderName::from_static("x-close-error");

/// Who serves the journal, and where its primary is asked for `path`.
pub(super) fn of_route(header: Option<&Header>, path: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(route) = header.and_then(|header| header.route.as_ref()) else { return headers };
    if !route.members.is_empty() {
        set(&mut headers, ROUTE_TOKEN, &token(route));
    }
    if let Some(primary) = route.primary_endpoint() {
        set(&mut headers, LOCATION, &format!("{}{path}", primary.trim_end_matches('/')));
    }
    headers
}

/// What is read.
pub(super) fn of_read(response: &ReadResponse, headers: &mut HeaderMap) {
    if let Some(described) = &response.fragment {
        if let Ok(fragment) = Fragment::try_from(described) {
            set(headers, FRAGMENT_NAME, &fragment.content_name());
        }
        if let Some(modified) = unix_time(described.mod_time) {
            set(headers, FRAGMENT_MODIFIED, &httpdate::fmt_http_date(modified));
        }
        if !response.fragment_url.is_empty() {
            set(headers, FRAGMENT_LOCATION, &response.fragment_url);
        }
        let (from, max) = (response.offset, i64::MAX);
        set(headers, CONTENT_RANGE, &format!("bytes {from}-{max}/{max}"));
    }
    if response.write_head != 0 {
        set(headers, WRITE_HEAD, &response.write_head.to_string());
    }
}

/// What was appended.
pub(super) fn of_commit(commit: &proto::protocol::Fragment, headers: &mut HeaderMap) {
    set(headers, COMMIT_BEGIN, &commit.begin.to_string());
    set(headers, COMMIT_END, &commit.end.to_string());
    set(headers, COMMIT_SUM, &commit.sum.unwrap_or_default().hex());
    set(headers, WRITE_HEAD, &commit.end.to_string());
}

/// Sets a header, unless its value cannot be one.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

/// A time that HTTP dates can tell.
fn unix_time(seconds: i64) -> Option<std::time::SystemTime> {
    /// The year 9999 has ended.
    const END_OF_DATES: u64 = 253_402_300_800;
    let seconds = u64::try_from(seconds).ok().filter(|seconds| (1..END_OF_DATES).contains(seconds))?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// The route in protobuf's compact text format, as Go prints it.
fn token(route: &Route) -> String {
    let mut text = String::new();
    let write = |text: &mut String, arguments: std::fmt::Arguments<'_>| {
        text.write_fmt(arguments).expect("writing to a string cannot fail");
    };
    for member in &route.members {
        text.push_str("members:<");
        for (name, value) in [("zone", &member.zone), ("suffix", &member.suffix)] {
            if !value.is_empty() {
                write(&mut text, format_args!("{name}:\"{value}\" "));
            }
        }
        text.push_str("> ");
    }
    if route.primary != 0 {
        write(&mut text, format_args!("primary:{} ", route.primary));
    }
    for endpoint in &route.endpoints {
        write(&mut text, format_args!("endpoints:\"{endpoint}\" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use proto::protocol::process_spec::Id;

    use super::*;

    fn route(primary: i32) -> Header {
        let id = |suffix: &str| Id { zone: "a".to_owned(), suffix: suffix.to_owned() };
        let endpoints = vec!["http://broker/path/".to_owned(), "http://other".to_owned()];
        let route = Route { members: vec![id("broker"), id("other")], primary, endpoints };
        Header { route: Some(route), ..Header::default() }
    }

    #[test]
    fn routes_are_told_as_go_tells_them() {
        let headers = of_route(Some(&route(0)), "/a/journal");
        let members = r#"members:<zone:"a" suffix:"broker" > members:<zone:"a" suffix:"other" > "#;
        let endpoints = r#"endpoints:"http://broker/path/" endpoints:"http://other" "#;
        assert_eq!(headers["x-route-token"], format!("{members}{endpoints}"));
        assert_eq!(headers["location"], "http://broker/path/a/journal");
        let headers = of_route(Some(&route(1)), "/a/journal");
        assert_eq!(headers["x-route-token"], format!("{members}primary:1 {endpoints}"));
        assert_eq!(headers["location"], "http://other/a/journal");
        let headers = of_route(Some(&route(-1)), "/a/journal");
        assert_eq!((headers.len(), headers.get("location")), (1, None));
        assert!(of_route(Some(&Header::default()), "/j").is_empty());
    }

    #[test]
    fn fragments_are_told_of_with_what_is_known() {
        let mut response = ReadResponse {
            offset: 5,
            write_head: 30,
            fragment: Some(proto::protocol::Fragment {
                journal: "a/journal".to_owned(),
                end: 20,
                sum: Some(proto::protocol::Sha1Sum::default()),
                compression_codec: 1,
                mod_time: 784_111_777,
                ..Default::default()
            }),
            fragment_url: "http://store/x?y".to_owned(),
            ..Default::default()
        };
        let mut headers = HeaderMap::new();
        of_read(&response, &mut headers);
        assert_eq!(headers["content-range"], "bytes 5-9223372036854775807/9223372036854775807");
        assert_eq!(headers["x-fragment-last-modified"], "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(headers["x-fragment-location"], "http://store/x?y");
        assert_eq!(headers["x-write-head"], "30");
        let name = headers["x-fragment-name"].to_str().unwrap();
        assert!(name.starts_with("0000000000000000-0000000000000014-"), "{name}");
        for odd in [i64::MIN, -1, 0, i64::MAX] {
            response.fragment.as_mut().unwrap().mod_time = odd;
            let mut headers = HeaderMap::new();
            of_read(&response, &mut headers);
            assert_eq!(headers.get("x-fragment-last-modified"), None);
        }
    }

    #[test]
    fn what_cannot_be_a_header_is_left_out() {
        let mut headers = HeaderMap::new();
        set(&mut headers, LOCATION, "a\nb");
        set(&mut headers, CONTENT_RANGE, "bytes ä");
        assert_eq!(headers.keys().collect::<Vec<_>>(), [CONTENT_RANGE]);
    }
}
