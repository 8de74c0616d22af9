//! Verifies that the journals which shards name exist and hold what shards expect of them.

use crate::session::Session;
use message::Framing;
use proto::consumer::{ApplyRequest, ShardSpec};
use proto::labels::{CONTENT_TYPE, CONTENT_TYPE_RECOVERY_LOG, NAME};
use proto::protocol::{JournalSpec, LabelSelector};
use runtime::BoxError;
use std::collections::BTreeMap;

/// Names in one selector at most: requests have a size.
const NAMES_MAX: usize = 1000;

/// Requires of every shard to be made or changed that its sources hold messages, and that its log is a recovery log.
pub async fn verify(session: &Session, request: &ApplyRequest) -> Result<(), BoxError> {
    let specs: Vec<&ShardSpec> = request.changes.iter().filter_map(|c| c.upsert.as_ref()).collect();
    let mut names: Vec<String> =
        specs.iter().flat_map(|spec| references(spec)).map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    let mut found = BTreeMap::new();
    for names in names.chunks(NAMES_MAX) {
        let selector = LabelSelector::include(names.iter().map(|name| (NAME, name)));
        let list = session.request("listing journals", session.client.list(selector)).await?;
        found.extend(list.journals.into_iter().filter_map(|j| j.spec).map(|spec| (spec.name.clone(), spec)));
    }
    specs.into_iter().try_for_each(|spec| check(spec, &found))
}

/// What a shard needs a journal for.
#[derive(Clone, Copy)]
enum Role {
    Source,
    Log,
}

/// Bare names of journals, and what for.
fn references(spec: &ShardSpec) -> impl Iterator<Item = (String, Role)> {
    let sources = spec.sources.iter().map(|source| {
        let bare = source.journal.split(';').next().unwrap_or_default();
        (bare.to_owned(), Role::Source)
    });
    sources.chain(spec.recovery_log_str().map(|log| (log, Role::Log)))
}

fn check(spec: &ShardSpec, found: &BTreeMap<String, JournalSpec>) -> Result<(), BoxError> {
    for (name, role) in references(spec) {
        let what = match role {
            Role::Source => "source",
            Role::Log => "recovery log",
        };
        let Some(journal) = found.get(&name) else {
            return Err(format!("shard {}: {what} {name} does not exist", spec.id).into());
        };
        let content_type = journal.label_set().value_of(CONTENT_TYPE).unwrap_or_default();
        let expected = match role {
            Role::Source if Framing::by_content_type(content_type).is_ok() => continue,
            Role::Source => "that of messages",
            Role::Log if content_type == CONTENT_TYPE_RECOVERY_LOG => continue,
            Role::Log => CONTENT_TYPE_RECOVERY_LOG,
        };
        return Err(format!(
            "shard {}: {what} {name} has {CONTENT_TYPE} {content_type:?} (expected {expected})",
            spec.id
        )
        .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::consumer::shard_spec::Source;
    use proto::protocol::LabelSet;

    #[test]
    fn journals_must_exist_and_hold_what_is_expected() {
        let journal = |name: &str, content_type: &str| {
            let labels = Some(LabelSet::from_pairs([(CONTENT_TYPE, content_type)]));
            (name.to_owned(), JournalSpec { name: name.into(), labels, ..Default::default() })
        };
        let spec = ShardSpec {
            id: "shard".into(),
            sources: vec![Source { journal: "a/source;meta".into(), min_offset: 0 }],
            recovery_log_prefix: "logs".into(),
            ..Default::default()
        };
        let verdict = |journals: &[(String, JournalSpec)]| {
            check(&spec, &journals.iter().cloned().collect()).map_err(|e| e.to_string())
        };
        let (source, log) =
            (journal("a/source", "text/csv"), journal("logs/shard", CONTENT_TYPE_RECOVERY_LOG));
        assert_eq!(verdict(&[source.clone(), log.clone()]), Ok(()));
        assert_eq!(
            verdict(std::slice::from_ref(&log)).unwrap_err(),
            "shard shard: source a/source does not exist"
        );
        assert_eq!(
            verdict(std::slice::from_ref(&source)).unwrap_err(),
            "shard shard: recovery log logs/shard does not exist"
        );
        assert_eq!(
            verdict(&[journal("a/source", "x/y"), log]).unwrap_err(),
            "shard shard: source a/source has content-type \"x/y\" (expected that of messages)"
        );
        assert_eq!(
            verdict(&[source, journal("logs/shard", "text/csv")]).unwrap_err(),
            "shard shard: recovery log logs/shard has content-type \"text/csv\" (expected \
             application/x-gazette-recoverylog)"
        );
    }
}
