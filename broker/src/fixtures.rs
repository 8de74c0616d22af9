//! Small valid messages for the unit tests of this crate.

use proto::MemberId;
use proto::protocol::{CompressionCodec, JournalSpec, LabelSet, journal_spec};

/// A member of zone `zone`; `suffix` is made long enough.
pub(crate) fn member(suffix: &str) -> MemberId {
    MemberId::new("zone", &format!("broker-{suffix}")).unwrap()
}

/// A valid journal of replication one, without stores.
pub(crate) fn journal_spec(name: &str) -> JournalSpec {
    JournalSpec {
        name: name.to_owned(),
        replication: 1,
        labels: Some(LabelSet::default()),
        fragment: Some(journal_spec::Fragment {
            length: 1 << 20,
            compression_codec: CompressionCodec::None as i32,
            stores: Vec::new(),
            refresh_interval: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            retention: Some(prost_types::Duration::default()),
            flush_interval: Some(prost_types::Duration::default()),
            path_postfix_template: String::new(),
        }),
        flags: 0,
        max_append_rate: 0,
        suspend: None,
    }
}
