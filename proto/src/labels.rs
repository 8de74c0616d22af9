//! Well-known labels and content types.

/// How messages of the journal are framed: one of the content types below, or any MIME media type.
pub const CONTENT_TYPE: &str = "content-type";
/// Type of the messages. Requires [`CONTENT_TYPE`].
pub const MESSAGE_TYPE: &str = "app.gazette.dev/message-type";
/// Refines [`MESSAGE_TYPE`], which it requires.
pub const MESSAGE_SUBTYPE: &str = "app.gazette.dev/message-subtype";
/// Deployment which the item belongs to.
pub const INSTANCE: &str = "app.gazette.dev/instance";
/// Tool which manages the item.
pub const MANAGED_BY: &str = "app.gazette.dev/managed-by";
/// Region of the item.
pub const REGION: &str = "app.gazette.dev/region";
/// Free tags; may have several values.
pub const TAG: &str = "app.gazette.dev/tag";

/// Meta-label: the name of a journal. Present when matching, never stored.
pub const NAME: &str = "name";
/// Legacy meta-label of list selectors: a prefix of the name, ending in `/`. Never stored.
pub const PREFIX: &str = "prefix";
/// Meta-label: the id of a shard. Present when matching, never stored.
pub const ID: &str = "id";

/// Comma-separated values.
pub const CONTENT_TYPE_CSV: &str = "text/csv";
/// Newline-delimited JSON.
pub const CONTENT_TYPE_JSON_LINES: &str = "application/x-ndjson";
/// Length-delimited frames with a magic word.
pub const CONTENT_TYPE_PROTO_FIXED: &str = "application/x-protobuf-fixed";
/// A recovery log.
pub const CONTENT_TYPE_RECOVERY_LOG: &str = "application/x-gazette-recoverylog";

/// Labels which have at most one value.
pub const SINGLE_VALUE: [&str; 6] =
    [CONTENT_TYPE, INSTANCE, MANAGED_BY, MESSAGE_SUBTYPE, MESSAGE_TYPE, REGION];
