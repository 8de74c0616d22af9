use super::*;
use crate::tests::valid_journal_spec;

fn edited(edit: impl FnOnce(&mut JournalSpec)) -> String {
    let mut spec = valid_journal_spec();
    edit(&mut spec);
    let verdict = spec.validate().map_or_else(|e| e.to_string(), |()| "ok".to_owned());
    // Only `..` elements are treated differently.
    if !verdict.contains("'..'") {
        assert_eq!(spec.validate_stored().map_or_else(|e| e.to_string(), |()| "ok".to_owned()), verdict);
    }
    verdict
}

fn labels(pairs: &[(&str, &str)]) -> Option<LabelSet> {
    Some(LabelSet::from_pairs(pairs.iter().copied()))
}

fn fragment(edit: impl FnOnce(&mut Fragment)) -> String {
    edited(|s| edit(s.fragment.as_mut().unwrap()))
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[test]
fn names_and_replication() {
    assert_eq!(edited(|_| ()), "ok");
    assert_eq!(edited(|s| s.name = "/bad".into()), "Name: cannot begin with '/' (/bad)");
    assert_eq!(
        edited(|s| s.name = "a/name;x".into()),
        "Name cannot have a metadata path segment (;x; expected no segment)"
    );
    assert_eq!(edited(|s| s.replication = 0), "invalid Replication (0; expected 1 <= Replication <= 5)");
    assert_eq!(edited(|s| s.replication = 6), "invalid Replication (6; expected 1 <= Replication <= 5)");
}

#[test]
fn parents_are_refused_when_applied_but_tolerated_when_stored() {
    assert_eq!(edited(|s| s.name = "../../etc".into()), "Name: cannot have a '..' element (../../etc)");
    assert_eq!(
        fragment(|f| f.stores = vec!["file:///../x/".into()]),
        "Fragment.Stores[0]: path cannot have a '..' element (file:///../x/)"
    );
    let mut spec = valid_journal_spec();
    spec.name = "../../etc".into();
    spec.fragment.as_mut().unwrap().stores = vec!["file:///../x/".into()];
    assert_eq!(spec.validate_stored(), Ok(()));
    assert!(spec.journal_name().is_err());
}

#[test]
fn label_constraints() {
    assert_eq!(edited(|s| s.labels = labels(&[("aa", "1"), ("aa", "2")])), "ok");
    let unsorted =
        LabelSet { labels: labels(&[("aa", "1"), ("bb", "2")]).unwrap().labels.into_iter().rev().collect() };
    assert_eq!(
        edited(|s| s.labels = Some(unsorted)),
        "Labels: Labels not in unique, sorted order (index 1; label name aa <= bb)"
    );
    assert_eq!(edited(|s| s.labels = labels(&[("name", "x")])), "Labels cannot include label \"name\"");
    assert_eq!(edited(|s| s.labels = labels(&[("prefix", "x")])), "Labels cannot include label \"prefix\"");
    assert_eq!(
        edited(|s| s.labels = labels(&[("app.gazette.dev/region", "a"), ("app.gazette.dev/region", "b")])),
        "Labels: expected single-value Label has multiple values (index 1; label app.gazette.dev/region value b)"
    );
    assert_eq!(
        edited(|s| s.labels = labels(&[(CONTENT_TYPE, "a/b/c")])),
        "Labels: parsing content-type: unexpected content after media subtype (a/b/c)"
    );
    let all = [(MESSAGE_TYPE, "t"), (MESSAGE_SUBTYPE, "s"), (CONTENT_TYPE, "text/csv")];
    assert_eq!(edited(|s| s.labels = labels(&all)), "ok");
    assert_eq!(
        edited(|s| s.labels = labels(&all[..2])),
        "Labels: expected content-type label alongside app.gazette.dev/message-type"
    );
    assert_eq!(
        edited(|s| s.labels = labels(&all[1..])),
        "Labels: expected app.gazette.dev/message-type label alongside app.gazette.dev/message-subtype"
    );
}

#[test]
fn fragment_rules() {
    let length = "expected 1024 <= length <= 17179869184)";
    assert_eq!(fragment(|f| f.length = 1023), format!("Fragment: invalid Length (1023; {length}"));
    assert_eq!(
        fragment(|f| f.length = (1 << 34) + 1),
        format!("Fragment: invalid Length (17179869185; {length}")
    );
    assert_eq!(edited(|s| s.fragment = None), format!("Fragment: invalid Length (0; {length}"));
    assert_eq!(fragment(|f| f.compression_codec = 0), "Fragment.CompressionCodec: invalid value (INVALID)");
    assert_eq!(fragment(|f| f.compression_codec = 9999), "Fragment.CompressionCodec: invalid value (9999)");
    assert_eq!(fragment(|f| f.stores.clear()), "ok");
    assert_eq!(fragment(|f| f.stores.push("invalid".into())), "Fragment.Stores[1]: not absolute (invalid)");
    assert_eq!(
        fragment(|f| f.compression_codec = CompressionCodec::GzipOffloadDecompression.into()),
        "Fragment: GZIP_OFFLOAD_DECOMPRESSION is incompatible with file:// stores (file:///)"
    );
    let second_is_file = |f: &mut Fragment| {
        f.compression_codec = CompressionCodec::GzipOffloadDecompression.into();
        f.stores.insert(0, "s3://bucket/".into());
    };
    assert_eq!(fragment(second_is_file), "ok");
}

#[test]
fn interval_rules() {
    let refresh = "expected 1s <= interval <= 24h0m0s)";
    let millis = |nanos| Some(prost_types::Duration { seconds: 0, nanos });
    assert_eq!(
        fragment(|f| f.refresh_interval = millis(999_000_000)),
        format!("Fragment: invalid RefreshInterval (999ms; {refresh}")
    );
    assert_eq!(
        fragment(|f| f.refresh_interval = None),
        format!("Fragment: invalid RefreshInterval (0s; {refresh}")
    );
    assert_eq!(
        fragment(|f| f.refresh_interval = seconds(86_401)),
        format!("Fragment: invalid RefreshInterval (24h0m1s; {refresh}")
    );
    assert_eq!(fragment(|f| f.flush_interval = seconds(60)), "ok");
    for (value, text) in [(59, "59s"), (-1, "-1s")] {
        assert_eq!(
            fragment(|f| f.flush_interval = seconds(value)),
            format!("Fragment: invalid FlushInterval ({text}; expected >= 1m0s)")
        );
    }
    assert_eq!(fragment(|f| f.retention = seconds(-5)), "ok");
    assert_eq!(
        fragment(|f| f.retention = seconds(i64::MAX)),
        "Fragment.Retention: duration out of range (9223372036854775807s)"
    );
}

#[test]
fn flags_rate_and_suspension() {
    for flags in [0, 1, 2, 4] {
        assert_eq!(edited(|s| s.flags = flags), "ok");
    }
    assert_eq!(edited(|s| s.flags = 3), "Flags: invalid combination (3)");
    assert_eq!(edited(|s| s.flags = u32::MAX), "Flags: invalid combination (4294967295)");
    assert_eq!(edited(|s| s.max_append_rate = -1), "invalid MaxAppendRate (-1; expected >= 0)");
    let suspend = |level, offset| edited(|s| s.suspend = Some(Suspend { level, offset }));
    assert_eq!(suspend(2, 7), "ok");
    assert_eq!(suspend(3, 0), "Suspend: invalid Level (3)");
    assert_eq!(suspend(1, -1), "Suspend: invalid Offset (-1; expected >= 0)");
}

#[test]
fn meaning_of_a_specification() {
    let mut spec = JournalSpec { replication: 3, ..valid_journal_spec() };
    assert_eq!((spec.desired_replication(9), spec.desired_replication(2)), (3, 2));
    spec.suspend = Some(Suspend { level: suspend::Level::Partial.into(), offset: 1 });
    assert_eq!((spec.desired_replication(9), spec.desired_replication(0)), (1, 0));
    spec.suspend = Some(Suspend { level: suspend::Level::Full.into(), offset: 1 });
    assert_eq!(spec.desired_replication(9), 0);

    let may = |flags| {
        let spec = JournalSpec { flags, ..valid_journal_spec() };
        (spec.is_readable(), spec.is_writable())
    };
    assert_eq!(
        [0, 1, 2, 4, 8].map(may),
        [(true, true), (true, false), (false, true), (true, true), (false, false)]
    );

    spec.labels = labels(&[("aa", "1"), ("zz", "2")]);
    assert_eq!(spec.labels_with_name(), labels(&[("aa", "1"), ("name", "a/journal"), ("zz", "2")]).unwrap());
    assert_eq!(spec.refresh_interval(), Duration::from_secs(60));
    assert_eq!((spec.flush_interval(), spec.retention()), (None, None));
    assert_eq!(spec.codec(), CompressionCodec::Snappy);
    assert_eq!(JournalSpec::default().codec(), CompressionCodec::Invalid);
}
