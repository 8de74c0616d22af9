use super::ShardSet;
use expect_test::expect;
use proto::consumer::{ListResponse, ShardSpec, list_response};
use proto::protocol::LabelSet;

const SET: &str = "
common:
  recovery_log_prefix: recovery/logs
  hint_prefix: /hints
  hint_backups: 2
  max_txn_duration: 1s
  labels: [{name: aa, value: common}, {name: bb, value: common}]
  disable_wait_for_ack: true
shards:
- id: shard-000
  sources: [{journal: chunks/part-000}]
  labels: [{name: aa, value: own}]
  hot_standbys: 1
- id: shard-001
  sources: [{journal: chunks/part-001, min_offset: 5}, {journal: chunks/part-002;meta}]
  max_txn_duration: 500ms
  revision: 9
- id: shard-002
  delete: true
  revision: -1
";

fn list(specs: impl IntoIterator<Item = ShardSpec>) -> ListResponse {
    let entry = |(i, spec)| list_response::Shard { spec: Some(spec), mod_revision: i, ..Default::default() };
    ListResponse { shards: (1..).zip(specs).map(entry).collect(), ..Default::default() }
}

#[test]
fn sets_are_pushed_down() {
    let request = ShardSet::parse(SET).unwrap().to_apply_request().unwrap();
    let [zero, one, two] = request.changes.as_slice() else { panic!("{request:?}") };
    let spec = zero.upsert.as_ref().unwrap();
    assert_eq!(spec.labels, Some(LabelSet::from_pairs([("aa", "own"), ("bb", "common")])));
    assert_eq!(spec.recovery_log().unwrap().as_str(), "recovery/logs/shard-000");
    assert_eq!((spec.hot_standbys, spec.disable_wait_for_ack, spec.max_txn().as_millis()), (1, true, 1000));
    let spec = one.upsert.as_ref().unwrap();
    assert_eq!((one.expect_mod_revision, spec.sources.len(), spec.max_txn().as_millis()), (9, 2, 500));
    assert_eq!((two.delete.as_str(), two.expect_mod_revision), ("shard-002", -1));
}

#[test]
fn listings_are_hoisted() {
    let request = ShardSet::parse(SET).unwrap().to_apply_request().unwrap();
    let specs: Vec<_> = request.changes.into_iter().filter_map(|c| c.upsert).collect();
    let yaml = ShardSet::from_list(&list(specs.clone())).to_yaml().unwrap();
    expect![[r#"
        common:
          recovery_log_prefix: recovery/logs
          hint_prefix: /hints
          hint_backups: 2
          labels:
          - name: bb
            value: common
          disable_wait_for_ack: true
        shards:
        - id: shard-000
          sources:
          - journal: chunks/part-000
          max_txn_duration: 1s
          hot_standbys: 1
          labels:
          - name: aa
            value: own
          revision: 1
        - id: shard-001
          sources:
          - journal: chunks/part-001
            min_offset: 5
          - journal: chunks/part-002;meta
          max_txn_duration: 500ms
          labels:
          - name: aa
            value: common
          revision: 2
    "#]]
    .assert_eq(&yaml);
    let again = ShardSet::parse(&yaml).unwrap().to_apply_request().unwrap();
    assert_eq!(again.changes.into_iter().filter_map(|c| c.upsert).collect::<Vec<_>>(), specs);
}

#[test]
fn errors_name_the_place() {
    for (yaml, expected) in [
        (
            "shards: [{idd: x}]",
            "parsing YAML: shards[0]: unknown field `idd`, expected one of `comment`, `delete`, `id`",
        ),
        ("common: {id: x}", "\"common\": cannot have a comment, delete, id or revision"),
        ("shards: [{id: shard}, {id: shard}]", "\"shard\": the shard is listed twice"),
        ("shards: [{id: s#ard}]", "\"s#ard\": Upsert.Id: not a valid token (s#ard)"),
        ("shards: [{id: shard}]", "\"shard\": Upsert: invalid MaxTxnDuration (0; expected > 0)"),
        (
            "shards: [{id: shard, max_txn_duration: x}]",
            "parsing YAML: shards[0].max_txn_duration: invalid duration \"x\"",
        ),
        (
            "shards: [{id: shard, sources: [{min_offset: 1}]}]",
            "parsing YAML: shards[0].sources[0]: missing field `journal`",
        ),
        (
            "shards: [{id: shard, hot_standbys: -1}]",
            "parsing YAML: shards[0].hot_standbys: invalid type: integer `-1`",
        ),
    ] {
        let error = ShardSet::parse(yaml).and_then(|set| set.to_apply_request()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    assert_eq!(ShardSet::parse("").unwrap().to_apply_request().unwrap().changes, []);
}
