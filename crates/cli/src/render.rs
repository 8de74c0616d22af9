//! Prints messages as JSON and in protobuf's text format, by their descriptors.

use prost::Message;
use prost_reflect::text_format::FormatOptions;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use runtime::BoxError;
use std::sync::LazyLock;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).expect("the build made the descriptors"));

/// One line of JSON: the names of the protocol, zero values included, 64-bit integers as text, enumerations by name.
pub fn json(message: &impl Message, name: &str) -> Result<String, BoxError> {
    json_line(message, name, SerializeOptions::new())
}

/// As [`json`], with all integers as numbers, and enumerations as integers.
pub fn json_of_numbers(message: &impl Message, name: &str) -> Result<String, BoxError> {
    json_line(message, name, SerializeOptions::new().stringify_64_bit_integers(false).use_enum_numbers(true))
}

fn json_line(message: &impl Message, name: &str, options: SerializeOptions) -> Result<String, BoxError> {
    let options = options.use_proto_field_name(true).skip_default_fields(false);
    let mut line = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut line);
    dynamic(message, name)?.serialize_with_options(&mut serializer, &options)?;
    line.push(b'\n');
    Ok(String::from_utf8(line)?)
}

/// Protobuf's text format, on several lines.
pub fn text(message: &impl Message, name: &str) -> Result<String, BoxError> {
    Ok(dynamic(message, name)?.to_text_format_with_options(&FormatOptions::new().pretty(true)) + "\n")
}

fn dynamic(message: &impl Message, name: &str) -> Result<DynamicMessage, BoxError> {
    let descriptor = POOL.get_message_by_name(name).ok_or_else(|| format!("there is no message {name}"))?;
    Ok(DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::canonical;
    use proto::protocol::{ApplyRequest, ListResponse, apply_request};

    #[test]
    fn json_has_the_protocols_names_and_defaults() {
        let line = json(&canonical(ListResponse::default()), "protocol.ListResponse").unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["status"], "OK");
        assert_eq!(value["header"]["etcd"]["cluster_id"], "0");
        assert_eq!(value["journals"], serde_json::json!([]));
    }

    #[test]
    fn text_is_protobufs() {
        let change = apply_request::Change { delete: "a/b".into(), expect_mod_revision: -1, upsert: None };
        let text = text(&ApplyRequest { changes: vec![change] }, "protocol.ApplyRequest").unwrap();
        assert!(text.contains("expect_mod_revision: -1") && text.contains("delete: \"a/b\""), "{text}");
    }
}
