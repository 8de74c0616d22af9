//! Orphans: spools in the data directory whose journals other brokers serve by now.
//!
//! A broker that left in order may not have stored everything it held, and other brokers may have its journals when a process is
//! started on its data directory again. What it holds of them is then uploaded from where it is, without becoming a replica.
//!
//! This goes for journals of replication one, and for spools that were closed in order: their newest file is empty. Of other
//! journals the other replicas store what was agreed upon, and a spool may hold more than that. What a broker held when it
//! died may have been known to nobody else; whoever serves the journal has gone on without it. All of it stays on disk, to be
//! adopted if the journal comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use fragment::spool::Head;
use proto::protocol::JournalSpec;
use proto::{JournalName, MemberId, Revision};
use runtime::CancellationToken;
use tokio::sync::watch;

use crate::key_space::KeySpace;
use crate::persist::{Begin, Upload};
use crate::replica::ReplicaDeps;
use crate::spool::{self, SpoolDir, SpoolPlace};

/// An orphan whose journal is served elsewhere.
#[derive(Debug, PartialEq)]
pub struct Orphan {
    /// The journal.
    pub journal: JournalName,
    /// When its item came into being, as the spools and etcd agree.
    pub create_revision: Revision,
    /// Its specification.
    pub spec: Arc<JournalSpec>,
}

/// The spools which were found at the start and have not been adopted since, by journal.
#[derive(Debug, Default)]
pub struct Orphans {
    found: BTreeMap<JournalName, Revision>,
}

impl Orphans {
    /// The spools in the broker's data directory.
    pub async fn find(deps: &ReplicaDeps) -> Orphans {
        let (disk, dir) = (Arc::clone(&deps.disk), deps.data_dir.clone());
        let found = deps.tasks.spawn_blocking("find spools", move || spool::heads(&*disk, &dir)).await;
        match found {
            Ok(heads) => {
                let pair = |head: Head| (head.journal, Revision(head.create_revision));
                let is_ours = |head: &Head| head.incarnation == deps.incarnation;
                Orphans { found: heads.into_iter().filter(is_ours).map(pair).collect() }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for spools of earlier processes");
                Orphans::default()
            }
        }
    }

    /// A replica has taken the journal's spools.
    pub fn adopted(&mut self, journal: &JournalName) {
        self.found.remove(journal);
    }

    /// Takes those whose journals have a primary and are not assigned to `me`. Journals without one may come back here.
    pub fn take_served_elsewhere(&mut self, key_space: &KeySpace, me: &MemberId) -> Vec<Orphan> {
        let mut orphans = Vec::new();
        self.found.retain(|journal, create_revision| {
            let Some(item) = key_space.items().get(journal.as_arc()) else { return true };
            let mut has_primary = false;
            for (key, _) in key_space.assignments_of(journal.as_str()) {
                has_primary |= key.slot == 0;
                if key.member == *me {
                    return true;
                }
            }
            let is_alone = item.value.replication == 1;
            if has_primary && is_alone && item.create_revision == *create_revision {
                orphans.push(Orphan {
                    journal: journal.clone(),
                    create_revision: *create_revision,
                    spec: Arc::clone(&item.value),
                });
            }
            !has_primary
        });
        orphans
    }
}

impl Orphan {
    /// Submits what the spools hold to the persister, which removes what it has stored. Nobody else may use them meanwhile.
    pub async fn release(self, deps: &ReplicaDeps) {
        let Orphan { journal, create_revision, spec } = self;
        let (incarnation, create_revision) = (deps.incarnation, create_revision.0);
        let head = Head { journal: journal.clone(), incarnation, create_revision };
        let place = SpoolPlace::new(Arc::clone(&deps.disk), &deps.data_dir, deps.durability, head);
        let adopted = deps.tasks.spawn_blocking("adopt orphan", || SpoolDir::adopt(place)).await;
        let adopted = match adopted {
            Ok(adopted) => adopted,
            Err(error) => {
                tracing::warn!(%journal, %error, "spools of an earlier process cannot be read");
                return;
            }
        };
        if !adopted.dir.spool().fragment().is_empty() {
            tracing::warn!(
                %journal, data = %deps.data_dir.display(),
                "spools of a process that died are kept: other brokers serve the journal, and may have gone on without them"
            );
            return;
        }
        let (_, spec) = watch::channel(spec);
        for completed in adopted.completed {
            let fragment = &completed.completed.fragment;
            tracing::info!(%journal, begin = fragment.begin, end = fragment.end, "storing what an earlier process held");
            deps.persister.submit(Upload {
                spool: completed,
                begin: Begin::Now,
                create_revision: Revision(create_revision),
                spec: spec.clone(),
                is_stored: Box::new(|| false),
                abandon: CancellationToken::new(),
                stored: Box::new(|_| false),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use keyspace::{AssignmentKey, Entry};
    use proto::protocol::Route;

    use super::*;
    use crate::fixtures::{journal_spec, member};

    fn entry<T>(value: T) -> Entry<T> {
        let (mod_revision, create_revision) = (Revision(7), Revision(5));
        Entry { value: Arc::new(value), mod_revision, create_revision, lease: 0, raw: Bytes::new() }
    }

    #[test]
    fn journals_without_a_primary_are_waited_for() {
        let item = |name: &str| {
            let replication = if name == "a/replicated" { 2 } else { 1 };
            (Arc::from(name), entry(JournalSpec { replication, ..journal_spec(name) }))
        };
        let assigned = |(name, suffix): (&str, &str)| {
            let key = AssignmentKey { item: name.into(), member: member(suffix), slot: 0 };
            (key, entry(Route::unrouted()))
        };
        let key_space = KeySpace::from_parts(
            Default::default(),
            ["a/mine", "a/served", "a/vacant", "a/new", "a/replicated"].map(item),
            [],
            [("a/mine", "me"), ("a/served", "peer"), ("a/new", "peer"), ("a/replicated", "peer")]
                .map(assigned),
        );
        let found = [
            ("a/mine", 5),
            ("a/served", 5),
            ("a/vacant", 5),
            ("a/new", 4),
            ("a/gone", 5),
            ("a/replicated", 5),
        ];
        let found = found.map(|(name, created)| (JournalName::parse(name).unwrap(), Revision(created)));
        let mut orphans = Orphans { found: BTreeMap::from(found) };
        let taken = orphans.take_served_elsewhere(&key_space, &member("me"));
        assert_eq!(taken.iter().map(|o| o.journal.as_str()).collect::<Vec<_>>(), ["a/served"]);
        let left: Vec<_> = orphans.found.keys().map(JournalName::as_str).collect();
        assert_eq!(left, ["a/gone", "a/mine", "a/vacant"], "a/new is another journal of the same name");
    }
}
