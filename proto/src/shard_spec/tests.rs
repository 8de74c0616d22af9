use super::*;

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn source(journal: &str, min_offset: i64) -> shard_spec::Source {
    shard_spec::Source { journal: journal.into(), min_offset }
}

pub(crate) fn valid_shard_spec() -> ShardSpec {
    ShardSpec {
        id: "a/shard".into(),
        sources: vec![source("a/journal", 0), source("a/journal;meta", 5)],
        recovery_log_prefix: "recovery/logs".into(),
        hint_prefix: "/hints".into(),
        hint_backups: 2,
        max_txn_duration: seconds(1),
        hot_standbys: 1,
        ..ShardSpec::default()
    }
}

fn edited(edit: impl FnOnce(&mut ShardSpec)) -> String {
    let mut spec = valid_shard_spec();
    edit(&mut spec);
    spec.validate().map_or_else(|e| e.to_string(), |()| "ok".to_owned())
}

#[test]
fn rules_and_their_texts() {
    assert_eq!(edited(|_| ()), "ok");
    assert_eq!(edited(|s| s.sources.clear()), "ok");
    assert_eq!(edited(|s| s.id = "not%allowed".into()), "Id: not a valid token (not%allowed)");
    assert_eq!(
        edited(|s| s.recovery_log_prefix = "/bad".into()),
        "RecoveryLogPrefix: cannot begin with '/' (/bad/a/shard)"
    );
    assert_eq!(
        edited(|s| s.recovery_log_prefix.clear()),
        "invalid non-empty HintPrefix with empty RecoveryLogPrefix (/hints)"
    );
    assert_eq!(edited(|s| (s.recovery_log_prefix, s.hint_prefix) = Default::default()), "ok");
    for hints in ["", "relative", "/trailing/", "/not//clean"] {
        assert_eq!(
            edited(|s| s.hint_prefix = hints.into()),
            format!("HintPrefix is not an absolute, clean, non-directory path ({hints})")
        );
    }
    assert_eq!(edited(|s| s.hint_prefix = "/".into()), "ok");
    assert_eq!(edited(|s| s.hint_backups = -1), "invalid HintBackups (-1; expected >= 0)");
    assert_eq!(edited(|s| s.hint_backups = 1025), "invalid HintBackups (1025; expected <= 1024)");
    assert_eq!(
        edited(|s| s.min_txn_duration = seconds(-1)),
        "invalid MinTxnDuration (-1000000000; expected >= 0)"
    );
    assert_eq!(edited(|s| s.min_txn_duration = seconds(60)), "ok");
    assert_eq!(edited(|s| s.max_txn_duration = None), "invalid MaxTxnDuration (0; expected > 0)");
    assert_eq!(
        edited(|s| s.max_txn_duration = seconds(-1)),
        "invalid MaxTxnDuration (-1000000000; expected > 0)"
    );
    assert_eq!(
        edited(|s| s.recovery_log_prefix = "recovery/logs;meta".into()),
        "RecoveryLogPrefix: cannot have a metadata path segment (recovery/logs;meta/a/shard)"
    );
    let labels = |pairs: &[(&str, &str)]| Some(LabelSet::from_pairs(pairs.iter().copied()));
    assert_eq!(
        edited(|s| s.labels = labels(&[("a b", "")])),
        "LabelSet.Labels[0].Name: not a valid token (a b)"
    );
    assert_eq!(
        edited(|s| s.labels = labels(&[("content-type", "a"), ("content-type", "b")])),
        "LabelSet: expected single-value Label has multiple values (index 1; label content-type value b)"
    );
    assert_eq!(edited(|s| s.labels = labels(&[("id", "")])), "Labels cannot include label \"id\"");
    assert_eq!(
        edited(|s| s.sources[1].journal = "bad journal".into()),
        "Sources[1].Journal: not a valid token (bad journal)"
    );
    assert_eq!(edited(|s| s.sources[1].min_offset = -1), "Sources[1]: invalid MinOffset (-1; expected >= 0)");
    assert_eq!(
        edited(|s| s.sources.swap(0, 1)),
        "Sources.Journal not in unique, sorted order (index 1; a/journal <= a/journal;meta)"
    );
}

#[test]
fn the_first_broken_rule_is_told() {
    let everything_broken = |s: &mut ShardSpec| {
        s.hint_backups = -1;
        s.max_txn_duration = None;
        s.min_txn_duration = seconds(-1);
        s.sources[0].min_offset = -1;
    };
    assert!(edited(everything_broken).starts_with("invalid HintBackups"));
}

#[test]
fn stored_specifications_are_checked_laxly() {
    let mut spec = valid_shard_spec();
    spec.id = "a=shard%x".into();
    spec.sources = vec![source("../journal", 0)];
    spec.recovery_log_prefix = "recovery/logs;meta".into();
    spec.hint_backups = i32::MAX;
    assert_eq!(spec.validate_stored(), Ok(()));
    assert!(spec.validate().is_err());
    assert_eq!(spec.hint_backup_keys().len(), HINT_BACKUPS_MAX as usize);
}

#[test]
fn meaning_of_a_specification() {
    let mut spec = valid_shard_spec();
    assert_eq!(spec.recovery_log().unwrap().as_str(), "recovery/logs/a/shard");
    assert_eq!(spec.hint_primary_key(), "/hints/a/shard.primary");
    assert_eq!(spec.hint_backup_keys(), ["/hints/a/shard.backup.0", "/hints/a/shard.backup.1"]);
    assert_eq!((spec.max_txn(), spec.min_txn()), (Duration::from_secs(1), Duration::ZERO));
    assert_eq!(spec.labels_with_id(), LabelSet::from_pairs([("id", "a/shard")]));
    assert_eq!((spec.desired_replication(3), spec.desired_replication(0)), (2, 1));
    spec.hot_standbys = u32::MAX;
    assert_eq!((spec.desired_replication(3), spec.desired_replication(u32::MAX)), (4, u32::MAX));
    spec.disable = true;
    assert_eq!(spec.desired_replication(3), 0);
    spec.recovery_log_prefix.clear();
    assert_eq!(spec.recovery_log(), None);
}
