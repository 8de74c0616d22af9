use super::{JournalNode, journal};
use expect_test::expect;
use proto::protocol::journal_spec::{Suspend, suspend};
use proto::protocol::{JournalSpec, LabelSet, ListResponse, list_response};

fn list(specs: impl IntoIterator<Item = JournalSpec>) -> ListResponse {
    let entry =
        |(i, spec)| list_response::Journal { spec: Some(spec), mod_revision: i, ..Default::default() };
    ListResponse { journals: (1..).zip(specs).map(entry).collect(), ..Default::default() }
}

#[test]
fn listings_are_extracted_and_hoisted() {
    let with_label = |name: &str, value: &str| JournalSpec {
        labels: Some(LabelSet::from_pairs([("aa", value), ("bb", "y")])),
        ..journal(name)
    };
    let suspended = |name: &str| JournalSpec {
        suspend: Some(Suspend { level: suspend::Level::Partial.into(), offset: 7 }),
        ..journal(name)
    };
    let response = list([
        with_label("a/b/c", "1"),
        with_label("a/b/d", "1"),
        with_label("a/b2", "2"),
        suspended("zzz/1"),
        suspended("zzz/2"),
    ]);
    let yaml = JournalNode::from_list(&response).to_yaml().unwrap();
    expect![[r#"
        replication: 3
        fragment:
          length: 1024
          compression_codec: SNAPPY
          stores:
          - s3://bucket/
          refresh_interval: 1m0s
        flags: O_RDWR
        max_append_rate: 1000
        children:
        - name: a/
          labels:
          - name: bb
            value: y
          children:
          - name: a/b/
            labels:
            - name: aa
              value: '1'
            children:
            - name: a/b/c
              revision: 1
            - name: a/b/d
              revision: 2
          - name: a/b2
            labels:
            - name: aa
              value: '2'
            revision: 3
        - name: zzz/
          labels:
          - name: aa
            value: x
          children:
          - name: zzz/1
            suspend:
              level: PARTIAL
              offset: 7
            revision: 4
          - name: zzz/2
            suspend:
              level: PARTIAL
              offset: 7
            revision: 5
    "#]]
    .assert_eq(&yaml);
    // The root has no name of its own, but is a directory.
    let applied = JournalNode::parse(&yaml).unwrap().to_apply_request().unwrap();
    let specs: Vec<_> =
        applied.changes.into_iter().map(|c| (c.upsert.unwrap(), c.expect_mod_revision)).collect();
    let listed: Vec<_> = response.journals.into_iter().map(|j| (j.spec.unwrap(), j.mod_revision)).collect();
    assert_eq!(specs, listed);
}

#[test]
fn a_single_journal_is_its_own_tree_and_none_is_an_empty_directory() {
    let root = JournalNode::from_list(&list([journal("a/b/c")]));
    assert_eq!((root.name.as_str(), root.children.len()), ("a/b/c", 0));
    let root = JournalNode::from_list(&list([]));
    assert!(root.is_directory() && root.journals().is_empty());
}

#[test]
fn directories_have_at_least_two_children() {
    let names = |root: &JournalNode| {
        fn walk(node: &JournalNode, depth: usize, out: &mut String) {
            out.push_str(&format!("{:depth$}{:?}\n", "", node.name));
            node.children.iter().for_each(|child| walk(child, depth + 2, out));
        }
        let mut out = String::new();
        walk(root, 0, &mut out);
        out
    };
    let root = JournalNode::from_list(&list(
        ["top/a", "top/a-b", "top/a/x/1", "top/a/x/2", "top/a0/only/one"].map(journal),
    ));
    expect![[r#"
        "top/"
          "top/a"
          "top/a-b"
          "top/a/x/"
            "top/a/x/1"
            "top/a/x/2"
          "top/a0/only/one"
    "#]]
    .assert_eq(&names(&root));
}

const TREE: &str = "
comment: everything
name: examples/
replication: 2
labels:
- {name: app.gazette.dev/region, value: local}
- {name: aa, value: parent}
fragment:
  length: 65536
  compression_codec: GZIP
  stores: [s3://bucket/]
  refresh_interval: 5m
  flush_interval: 1h
suspend: {level: FULL}
children:
- name: examples/one
  labels: [{name: aa, value: child}]
  fragment: {stores: [], retention: 1h30m, compression_codec: ZSTANDARD}
  revision: 12
- name: examples/sub/
  delete: true
  children:
  - {name: examples/sub/two, revision: -1}
  - {name: examples/sub/v3, revision: 7, delete: false, flags: 2, max_append_rate: 5}
";

#[test]
fn trees_are_pushed_down() {
    let request = JournalNode::parse(TREE).unwrap().to_apply_request().unwrap();
    let [one, two, three] = request.changes.as_slice() else { panic!("{request:?}") };
    let spec = one.upsert.as_ref().unwrap();
    assert_eq!((one.expect_mod_revision, spec.replication), (12, 2));
    assert_eq!(
        spec.labels,
        Some(LabelSet::from_pairs([("aa", "child"), ("app.gazette.dev/region", "local")]))
    );
    assert!(spec.fragment().stores.is_empty(), "an empty list counts as set");
    assert_eq!(spec.fragment().length, 65536);
    assert_eq!(spec.codec().as_str_name(), "ZSTANDARD");
    assert_eq!(spec.retention(), Some(std::time::Duration::from_secs(5400)));
    assert_eq!(spec.suspend, None, "suspension is not inherited");
    assert_eq!((two.delete.as_str(), two.expect_mod_revision, &two.upsert), ("examples/sub/two", -1, &None));
    let spec = three.upsert.as_ref().unwrap();
    assert_eq!((spec.flags, spec.max_append_rate, spec.fragment().stores.len()), (2, 5, 1));
}

#[test]
fn errors_name_the_place() {
    for (yaml, expected) in [
        (
            "name: a/\nchildren:\n- name: a/one\n  fragment:\n    lenth: 1",
            "parsing YAML: children[0].fragment: unknown field `lenth`, expected one of `length`, `compression_codec`, ",
        ),
        ("name: a/one\nname: a/two", "parsing YAML: duplicate field `name`"),
        (
            "name: a/one\nreplication: many",
            "parsing YAML: replication: invalid type: string \"many\", expected i32 at line 2 column 14",
        ),
        (
            "fragment: {compression_codec: LZ4}",
            "parsing YAML: fragment.compression_codec: \"LZ4\" is not a compression codec (options are NONE, GZIP, ",
        ),
        (
            "fragment: {refresh_interval: 5 minutes}",
            "parsing YAML: fragment.refresh_interval: invalid duration \"5 minutes\" (expected a form like 1m30s or 20ms) \
             at line 1 column 30",
        ),
        (
            "flags: O_APPEND",
            "parsing YAML: flags: \"O_APPEND\" is not known (options are NOT_SPECIFIED, O_RDONLY, O_WRONLY, O_RDWR, or a \
             number) at line 1 column 8",
        ),
        ("name: [a", "parsing YAML: name: invalid type: sequence, expected a string at line 1 column 7"),
        ("name: a/one\n\tx", "parsing YAML: "),
        ("", "\"\": a directory must have children (journal names do not end in '/')"),
        ("name: a/", "\"a/\": a directory must have children (journal names do not end in '/')"),
        (
            "name: a/one\nchildren: [{name: a/one/b}]",
            "\"a/one\": a journal cannot have children (directory names end in '/')",
        ),
        ("revision: 3\nchildren: [{name: a/one}]", "\"\": a directory cannot have a revision (3)"),
        ("name: a/\nchildren: [{name: b/one}]", "\"b/one\": the name must begin with its parent's (\"a/\")"),
        (
            "name: a/\nchildren: [{name: a/two}, {name: a/one}]",
            "\"a/one\": children are not in ascending order (after \"a/two\")",
        ),
        ("name: a/one", "\"a/one\": Upsert: invalid Replication (0; expected 1 <= Replication <= 5)"),
        ("name: ../one", "\"../one\": Upsert.Name: cannot have a '..' element (../one)"),
        ("{name: a/one, delete: true}", "\"a/one\": invalid ExpectModRevision (0; expected > 0 or -1)"),
    ] {
        let outcome = JournalNode::parse(yaml).and_then(|root| root.to_apply_request());
        let error = outcome.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn scalars_are_taken_as_written_and_nothing_is_nothing() {
    let root = JournalNode::parse(
        "{name: a/one, comment: 12, flags: 4, suspend: {level: 2}, labels: [{name: aa, value: 001}, {name: bb, value: true}, {name: cc}],
          fragment: {refresh_interval: 1000000000}}",
    )
    .unwrap();
    assert_eq!((root.comment.as_str(), root.flags.0, root.suspend.as_ref().unwrap().level.0), ("12", 4, 2));
    assert_eq!(root.labels.0, LabelSet::from_pairs([("aa", "001"), ("bb", "true"), ("cc", "")]));
    assert_eq!(root.fragment.refresh_interval.0, 1_000_000_000);
    let empty =
        JournalNode::parse("name: a/one\nlabels:\nchildren:\nfragment:\n  stores:\nsuspend:\n").unwrap();
    assert_eq!(empty, JournalNode { name: "a/one".into(), ..JournalNode::default() });
}
