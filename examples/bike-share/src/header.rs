//! A header of the protocol as JSON: names as the protocol has them, and numbers as numbers. Pure.

use std::sync::LazyLock;

use ::proto::Validate;
use ::proto::protocol::Header;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use runtime::BoxError;

static HEADER: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(::proto::DESCRIPTORS).expect("the build made the descriptors");
    pool.get_message_by_name("protocol.Header").expect("the protocol has headers")
});

pub(crate) fn to_json(header: &Header) -> Result<Vec<u8>, BoxError> {
    let mut message = DynamicMessage::new(HEADER.clone());
    message.transcode_from(header)?;
    let options = SerializeOptions::new().stringify_64_bit_integers(false).use_proto_field_name(true);
    let mut json = serde_json::Serializer::new(Vec::new());
    message.serialize_with_options(&mut json, &options)?;
    Ok(json.into_inner())
}

/// # Errors
/// If it is not the JSON of a valid header.
pub(crate) fn from_json(json: &[u8]) -> Result<Header, BoxError> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(HEADER.clone(), &mut json, &options)?;
    json.end()?;
    let header: Header = message.transcode_to()?;
    header.validate()?;
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::proto::protocol::{Route, header, process_spec};

    fn header() -> Header {
        let id = |suffix: &str| process_spec::Id { zone: "zone".to_owned(), suffix: suffix.to_owned() };
        let route = Route {
            members: vec![id("first"), id("second")],
            primary: 1,
            endpoints: vec!["http://one:80".to_owned(), "http://two:80".to_owned()],
        };
        let etcd = header::Etcd { cluster_id: u64::MAX, member_id: 2, revision: 3, raft_term: 4 };
        Header { process_id: Some(id("second")), route: Some(route), etcd: Some(etcd) }
    }

    const JSON: &str = r#"{"process_id":{"zone":"zone","suffix":"second"},"route":{"members":[{"zone":"zone","suffix":"first"},{"zone":"zone","suffix":"second"}],"primary":1,"endpoints":["http://one:80","http://two:80"]},"etcd":{"cluster_id":18446744073709551615,"member_id":2,"revision":3,"raft_term":4}}"#;

    #[test]
    fn a_header_has_its_golden_json() {
        assert_eq!(String::from_utf8(to_json(&header()).unwrap()).unwrap(), JSON);
        assert_eq!(from_json(JSON.as_bytes()).unwrap(), header());
    }

    #[test]
    fn fields_may_be_null_or_unknown() {
        let json =
            JSON.replace(r#"["http://one:80","http://two:80"]"#, "null").replace("}}", r#"},"more":[1]}"#);
        let read = from_json(json.as_bytes()).unwrap();
        assert!(read.route.unwrap().endpoints.is_empty());
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for json in [
            "",
            "{",
            "7",
            "null",
            "{}",
            &JSON[1..],
            &format!("{JSON}{JSON}"),
            &JSON.replace(r#""revision":3"#, r#""revision":-3"#),
            &JSON.replace(r#""revision":3"#, r#""revision":"three""#),
            &JSON.replace(r#""revision":3"#, r#""revision":9223372036854775808"#),
            &JSON.replace(r#""primary":1"#, r#""primary":2"#),
        ] {
            assert!(from_json(json.as_bytes()).is_err(), "{json}");
        }
    }
}
