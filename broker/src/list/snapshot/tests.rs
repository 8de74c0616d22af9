use proto::protocol::{Label, LabelSet};

use super::*;

fn journal(name: &str, mod_revision: i64) -> list_response::Journal {
    list_response::Journal {
        spec: Some(crate::fixtures::journal_spec(name)),
        mod_revision,
        route: Some(Route::unrouted()),
        create_revision: 1,
    }
}

fn listing(count: i64) -> Listing {
    let header = Header::unrouted(None, Default::default());
    Listing { journals: (0..count).map(|i| journal(&format!("a/journal-{i:03}"), i + 1)).collect(), header }
}

#[test]
fn snapshots_are_streamed_in_batches_of_25() {
    for (count, batches) in
        [(0, vec![0]), (1, vec![1]), (25, vec![25]), (26, vec![25, 1]), (50, vec![25, 25])]
    {
        let messages = listing(count).into_messages();
        assert_eq!(messages.iter().map(|m| m.journals.len()).collect::<Vec<_>>(), batches);
        let header = messages[0].header.as_ref().unwrap();
        assert_eq!(header.route, Some(Route::unrouted()));
        for later in &messages[1..] {
            assert_eq!(later.header, snapshot_end().header);
        }
    }
}

#[test]
fn the_end_of_a_snapshot_has_the_encoding_that_clients_know() {
    let bytes = prost::Message::encode_to_vec(&snapshot_end());
    assert_eq!(bytes, [0x12, 0x06, 0x0a, 0x00, 0x12, 0x00, 0x1a, 0x00]);
}

#[test]
fn a_digest_changes_with_journals_revisions_and_routes() {
    let base = listing(3);
    assert_eq!(base.digest(), listing(3).digest());
    assert_ne!(base.digest(), listing(2).digest());
    let mut written = listing(3);
    written.journals[0].mod_revision = 9;
    assert_ne!(base.digest(), written.digest());
    let mut routed = listing(3);
    routed.journals[1].route.as_mut().unwrap().primary = 0;
    assert_ne!(base.digest(), routed.digest());
}

#[test]
fn a_single_name_narrows_the_scan() {
    let label = |name: &str, value: &str| Label { name: name.into(), value: value.into(), prefix: true };
    let prefix_of = |include: Vec<Label>| {
        let selector = LabelSelector { include: Some(LabelSet { labels: include }), exclude: None };
        name_prefix(&selector).to_owned()
    };
    assert_eq!(prefix_of(vec![label("name", "foo/"), label("other", "x")]), "foo/");
    assert_eq!(prefix_of(vec![label("name", "bar"), label("name", "foo")]), "");
    assert_eq!(prefix_of(vec![label("other", "x")]), "");
}
