//! List and Apply over a real connection (journal protocol §9.1, §9.2).

mod support;

use proto::protocol::{Label, LabelSelector, LabelSet, ListRequest, Route, Status};
use support::{Fixture, delete, journal, names, upsert};
use tonic::Code;

fn labelled(name: &str, label: &str, value: &str) -> proto::protocol::JournalSpec {
    proto::protocol::JournalSpec { labels: Some(LabelSet::from_pairs([(label, value)])), ..journal(name) }
}

fn including(name: &str, value: &str, prefix: bool) -> LabelSelector {
    let label = Label { name: name.to_owned(), value: value.to_owned(), prefix };
    LabelSelector { include: Some(LabelSet { labels: vec![label] }), exclude: None }
}

#[tokio::test]
async fn what_was_applied_is_listed_in_batches() {
    let mut fixture = Fixture::start().await;
    let empty = fixture.list(LabelSelector::default()).await;
    assert_eq!((empty.len(), empty[0].journals.len()), (1, 0));

    let changes = (0..60).map(|i| upsert(journal(&format!("a/journal-{i:03}")), 0));
    let applied = fixture.apply(changes.collect()).await.header.unwrap();
    let id = fixture.broker.id().to_proto();
    assert_eq!((applied.process_id, applied.route), (Some(id.clone()), Some(Route::unrouted())));

    let listed = fixture.list(LabelSelector::default()).await;
    assert_eq!(listed.iter().map(|m| m.journals.len()).collect::<Vec<_>>(), [25, 25, 10]);
    let header = listed[0].header.as_ref().unwrap();
    assert_eq!((header.process_id.as_ref(), header.route.as_ref()), (Some(&id), Some(&Route::unrouted())));
    let revision = applied.etcd.unwrap().revision;
    assert!(header.etcd.unwrap().revision >= revision);
    for journal in listed.iter().flat_map(|m| &m.journals) {
        assert_eq!((journal.mod_revision, journal.create_revision), (revision, revision));
        let route = journal.route.as_ref().unwrap();
        assert!(route.primary == -1 || route.endpoints == [fixture.broker.endpoint()]);
    }
    fixture.stop().await;
}

#[tokio::test]
async fn selectors_choose_by_label_name_and_prefix() {
    let mut fixture = Fixture::start().await;
    let specs = [
        labelled("bar/one", "kind", "x"),
        labelled("foo/one", "kind", "x"),
        labelled("foo/two", "kind", "y"),
    ];
    fixture.apply(specs.into_iter().map(|s| upsert(s, 0)).collect()).await;
    for (selector, expected) in [
        (including("kind", "x", false), &["bar/one", "foo/one"][..]),
        (including("kind", "", false), &["bar/one", "foo/one", "foo/two"]),
        (including("name", "foo/two", false), &["foo/two"]),
        (including("name", "foo/", true), &["foo/one", "foo/two"]),
        (including("prefix", "foo/", false), &["foo/one", "foo/two"]),
        (
            LabelSelector { include: None, ..including("kind", "z", false) },
            &["bar/one", "foo/one", "foo/two"],
        ),
        (LabelSelector { include: None, exclude: including("kind", "x", false).include }, &["foo/two"]),
        (including("name", "nope", false), &[]),
    ] {
        let listed = fixture.list(selector.clone()).await;
        assert_eq!(names(&listed[0].journals), expected, "{selector:?}");
    }
    let request = ListRequest { selector: Some(including("prefix", "foo", false)), ..Default::default() };
    let error = fixture.client.list(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Unknown);
    assert!(error.message().contains("expected trailing '/' (foo)"), "{}", error.message());
    fixture.stop().await;
}

#[tokio::test]
async fn a_watch_follows_journals_and_their_routes() {
    let mut fixture = Fixture::start().await;
    let mut watch = fixture.watch(ListRequest::default()).await;
    assert_eq!(watch.snapshot().await.1, [""; 0]);

    fixture.apply((0..30).map(|i| upsert(journal(&format!("a/journal-{i:03}")), 0)).collect()).await;
    let (mut first, mut found) = watch.snapshot().await;
    while found.len() < 30 || first.journals[0].route.as_ref().unwrap().primary != 0 {
        // Assignments arrive after the journals, which is news too.
        let (next, names) = watch.snapshot().await;
        let revision = |m: &proto::protocol::ListResponse| m.header.as_ref().unwrap().etcd.unwrap().revision;
        assert!(revision(&next) > revision(&first));
        (first, found) = (next, names);
    }

    let resume = first.header.clone();
    fixture.apply(vec![delete("a/journal-007", -1)]).await;
    loop {
        let (_, names) = watch.snapshot().await;
        if names.len() == 29 {
            break;
        }
    }
    // A watch that resumes is told at once what it missed.
    let mut resumed = fixture.watch(ListRequest { watch_resume: resume.clone(), ..Default::default() }).await;
    let (first, _) = resumed.snapshot().await;
    assert!(first.header.unwrap().etcd.unwrap().revision > resume.unwrap().etcd.unwrap().revision);

    let dir = fixture.stop().await;
    assert!(resumed.message().await.is_none(), "a watch ends cleanly when the broker stops");
    drop(dir);
}

#[tokio::test]
async fn a_change_that_expects_another_revision_changes_nothing() {
    let mut fixture = Fixture::start().await;
    let first = fixture.apply(vec![upsert(journal("a/journal"), 0)]).await;
    let revision = first.header.unwrap().etcd.unwrap().revision;
    for changes in [
        vec![upsert(journal("a/journal"), 0)],
        vec![upsert(journal("b/journal"), 0), delete("a/journal", revision + 1)],
        vec![upsert(journal("b/journal"), 5)],
    ] {
        let response = fixture.try_apply(changes).await.unwrap();
        assert_eq!(response.status(), Status::EtcdTransactionFailed);
        assert!(response.header.unwrap().etcd.unwrap().revision >= revision);
    }
    assert_eq!(names(&fixture.list(LabelSelector::default()).await[0].journals), ["a/journal"]);

    let mut spec = journal("a/journal");
    spec.max_append_rate = 1 << 20;
    fixture.apply(vec![upsert(spec.clone(), revision)]).await;
    fixture.apply(vec![upsert(spec, -1), delete("b/journal", -1)]).await;
    fixture.stop().await;
}

#[tokio::test]
async fn deleting_what_is_not_there_does_not_hang() {
    let mut fixture = Fixture::start().await;
    fixture.apply(vec![delete("not/here", -1)]).await;
    fixture.stop().await;
}

#[tokio::test]
async fn malformed_changes_are_refused_by_place() {
    let mut fixture = Fixture::start().await;
    let mut template = journal("a/journal");
    template.fragment.as_mut().unwrap().path_postfix_template = "{{ .Spool.Nope".to_owned();
    let mut replication = journal("a/journal");
    replication.replication = 9;
    for (change, expected) in [
        (
            upsert(journal("/invalid/name"), 0),
            "Changes[0].Upsert.Name: cannot begin with '/' (/invalid/name)",
        ),
        (upsert(journal("../../etc/passwd"), 0), "Changes[0].Upsert.Name: "),
        (upsert(replication, 0), "Changes[0].Upsert: invalid Replication (9; "),
        (upsert(template, 0), "Changes[0].Upsert.Fragment.PathPostfixTemplate: "),
        (delete("a/journal", 0), "Changes[0]: invalid ExpectModRevision (0; "),
    ] {
        let error = fixture.try_apply(vec![change]).await.unwrap_err();
        assert_eq!(error.code(), Code::Unknown);
        assert!(error.message().starts_with(expected), "{} is not {expected}", error.message());
    }
    // etcd refuses the same key twice.
    let twice = vec![upsert(journal("a/journal"), -1), delete("a/journal", -1)];
    assert!(fixture.try_apply(twice).await.is_err());
    assert!(fixture.list(LabelSelector::default()).await[0].journals.is_empty());
    fixture.stop().await;
}
