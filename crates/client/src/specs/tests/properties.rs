use super::{JournalNode, ShardSet};
use proptest::prelude::*;
use proto::consumer::{self, ShardSpec, shard_spec};
use proto::duration::from_nanos;
use proto::protocol::{self, JournalSpec, LabelSet, journal_spec};

fn labels() -> impl Strategy<Value = Option<LabelSet>> {
    proptest::collection::btree_map("[a-c]{2}", "[a-c0-9.=]{1,2}|true|~", 0..3)
        .prop_map(|labels| Some(LabelSet::from_pairs(labels.into_iter().filter(|(_, value)| value != "~"))))
}

prop_compose! {
    /// A small choice for each field, so that values are often shared.
    fn fragment()(
        (length, codec, refresh) in (1024_i64..1026, 1..4, 1_i64..3),
        (retention, flush) in (0_i64..2, prop_oneof![Just(0_i64), Just(61)]),
        (stores, postfix) in (0_usize..3, "|date=x"),
    ) -> journal_spec::Fragment {
        journal_spec::Fragment {
            length,
            compression_codec: codec,
            stores: ["s3://a/", "gs://b/x/"][..stores].iter().map(|s| (*s).to_owned()).collect(),
            refresh_interval: Some(from_nanos(refresh * 1_500_000_000)),
            retention: Some(from_nanos(retention * 999)),
            flush_interval: Some(from_nanos(flush * 1_000_000_000)),
            path_postfix_template: postfix,
        }
    }
}

prop_compose! {
    fn journal()(
        (name, replication, labels) in ("[ab]{2}/([ab]{1,2}/){0,2}[ab]{1,2}", 1..3, labels()),
        (fragment, flags, rate) in (fragment(), prop::sample::select(vec![0_u32, 1, 2, 4]), 0_i64..2),
        suspend in proptest::option::weighted(0.2, (0..3, 0_i64..2)),
    ) -> JournalSpec {
        JournalSpec {
            name,
            replication,
            labels,
            fragment: Some(fragment),
            flags,
            max_append_rate: rate,
            suspend: suspend.map(|(level, offset)| journal_spec::Suspend { level, offset }),
        }
    }
}

prop_compose! {
    fn shard()(
        (id, journals, labels) in ("[ab]{4,6}", proptest::collection::btree_set("[ab]{4}(;m)?", 0..3), labels()),
        (log, backups, standbys, ring) in (any::<bool>(), 0..2, 0_u32..2, 0_u32..2),
        (max_txn, min_txn) in (1_i64..3, 0_i64..2),
        (disable, disable_wait_for_ack) in any::<(bool, bool)>(),
    ) -> ShardSpec {
        let text = |s: &str| if log { s.to_owned() } else { String::new() };
        ShardSpec {
            id,
            sources: journals.into_iter().map(|journal| shard_spec::Source { journal, min_offset: 3 }).collect(),
            recovery_log_prefix: text("logs"),
            hint_prefix: text("/hints"),
            hint_backups: backups,
            max_txn_duration: Some(from_nanos(max_txn)),
            min_txn_duration: Some(from_nanos(min_txn)),
            disable,
            hot_standbys: standbys,
            labels,
            disable_wait_for_ack,
            ring_buffer_size: ring,
            read_channel_size: 2,
        }
    }
}

proptest! {
    #[test]
    fn journals_listed_printed_and_parsed_are_the_same(specs in proptest::collection::vec(journal(), 1..12)) {
        let mut specs = specs;
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        specs.dedup_by(|a, b| a.name == b.name);
        let journals = specs.iter().cloned().enumerate().map(|(i, spec)| protocol::list_response::Journal {
            spec: Some(spec),
            mod_revision: i as i64 + 1,
            ..Default::default()
        });
        let list = protocol::ListResponse { journals: journals.collect(), ..Default::default() };
        let yaml = JournalNode::from_list(&list).to_yaml().unwrap();
        let request = JournalNode::parse(&yaml).unwrap().to_apply_request().unwrap();
        let (parsed, revisions): (Vec<_>, Vec<_>) =
            request.changes.into_iter().map(|c| (c.upsert.unwrap(), c.expect_mod_revision)).unzip();
        prop_assert_eq!(parsed, specs, "{}", yaml);
        prop_assert!(revisions.into_iter().eq(1..=list.journals.len() as i64));
    }

    #[test]
    fn shards_listed_printed_and_parsed_are_the_same(specs in proptest::collection::vec(shard(), 0..8)) {
        let mut specs = specs;
        specs.sort_by(|a, b| a.id.cmp(&b.id));
        specs.dedup_by(|a, b| a.id == b.id);
        let shards = specs.iter().cloned().map(|spec| consumer::list_response::Shard {
            spec: Some(spec),
            mod_revision: 1,
            ..Default::default()
        });
        let list = consumer::ListResponse { shards: shards.collect(), ..Default::default() };
        let yaml = ShardSet::from_list(&list).to_yaml().unwrap();
        let request = ShardSet::parse(&yaml).unwrap().to_apply_request().unwrap();
        let parsed: Vec<_> = request.changes.into_iter().filter_map(|c| c.upsert).collect();
        prop_assert_eq!(parsed, specs, "{}", yaml);
    }

    #[test]
    fn any_text_is_a_document_or_an_error(text in "([a-z]{1,3}: ?|[-{}\\[\\],&*!|>'\"%@~ \n]|name: |children:|labels:|\\PC){0,30}") {
        let _ = JournalNode::parse(&text).and_then(|root| root.to_apply_request());
        let _ = ShardSet::parse(&text).and_then(|set| set.to_apply_request());
    }
}
