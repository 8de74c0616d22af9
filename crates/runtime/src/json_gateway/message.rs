//! Messages by their descriptors: on the wire, and as JSON.

use std::sync::LazyLock;

use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage, SerializeOptions};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// The protocol's messages and services.
pub(super) static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).expect("the build made the descriptors"));

/// A message as JSON.
pub(super) fn text_of(message: &DynamicMessage) -> Result<Vec<u8>, Status> {
    let mut text = Vec::new();
    write(message, &mut text)?;
    Ok(text)
}

/// A message of a stream as a line of JSON.
pub(super) fn line_of(message: &DynamicMessage) -> Result<Vec<u8>, Status> {
    let mut line = br#"{"result":"#.to_vec();
    write(message, &mut line)?;
    line.extend_from_slice(b"}\n");
    Ok(line)
}

fn write(message: &DynamicMessage, text: &mut Vec<u8>) -> Result<(), Status> {
    let options = SerializeOptions::new().skip_default_fields(false);
    let written = message.serialize_with_options(&mut serde_json::Serializer::new(text), &options);
    written.map_err(|error| Status::internal(format!("{}: {error}", message.descriptor().full_name())))
}

/// Encodes messages of any kind, if there are any, and decodes those of one.
#[derive(Clone)]
pub(super) struct Messages(pub(super) MessageDescriptor);

impl Codec for Messages {
    type Encode = Result<DynamicMessage, Status>;
    type Decode = DynamicMessage;
    type Encoder = Messages;
    type Decoder = Messages;

    fn encoder(&mut self) -> Messages {
        self.clone()
    }

    fn decoder(&mut self) -> Messages {
        self.clone()
    }
}

impl Encoder for Messages {
    type Item = Result<DynamicMessage, Status>;
    type Error = Status;

    fn encode(
        &mut self,
        message: Result<DynamicMessage, Status>,
        to: &mut EncodeBuf<'_>,
    ) -> Result<(), Status> {
        message?.encode(to).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Messages {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.0.clone(), from);
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
