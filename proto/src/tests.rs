//! Tests over whole messages.

mod decoders;
mod golden;
mod journal_rpcs;
mod parts;
mod shard_rpcs;

use crate::Validate;
use crate::protocol::process_spec::Id;
use crate::protocol::{Fragment, Header, JournalSpec, Route, Sha1Sum, header, journal_spec};

/// The text of the first broken rule, or "ok".
fn verdict<M: Validate>(message: &M) -> String {
    message.validate().map_or_else(|e| e.to_string(), |()| "ok".to_owned())
}

/// The verdict on `message` after an edit.
fn edited<M: Validate + Clone>(message: &M, edit: impl FnOnce(&mut M)) -> String {
    let mut message = message.clone();
    edit(&mut message);
    verdict(&message)
}

fn id(zone: &str, suffix: &str) -> Id {
    Id { zone: zone.into(), suffix: suffix.into() }
}

fn valid_route() -> Route {
    Route {
        members: vec![id("zone-a", "broker-1"), id("zone-b", "broker-2")],
        primary: 0,
        endpoints: vec!["http://broker-1:8080".into(), String::new()],
    }
}

fn valid_header() -> Header {
    Header::routed(
        id("zone-a", "broker-1"),
        valid_route(),
        header::Etcd { cluster_id: 12, member_id: 34, revision: 56, raft_term: 78 },
    )
}

fn foobar_sum() -> Sha1Sum {
    Sha1Sum::from_digest([
        0x88, 0x43, 0xd7, 0xf9, 0x24, 0x16, 0x21, 0x1d, 0xe9, 0xeb, 0xb9, 0x63, 0xff, 0x4c, 0xe2, 0x81, 0x25,
        0x93, 0x28, 0x78,
    ])
}

fn valid_fragment() -> Fragment {
    Fragment {
        journal: "a/journal".into(),
        begin: 0,
        end: 6,
        sum: Some(foobar_sum()),
        compression_codec: 4,
        ..Fragment::default()
    }
}

pub(crate) fn valid_journal_spec() -> JournalSpec {
    JournalSpec {
        name: "a/journal".into(),
        replication: 1,
        fragment: Some(journal_spec::Fragment {
            length: 1024,
            compression_codec: 4,
            stores: vec!["file:///".into()],
            refresh_interval: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            ..journal_spec::Fragment::default()
        }),
        ..JournalSpec::default()
    }
}
