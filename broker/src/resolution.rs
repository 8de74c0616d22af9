//! How a request finds its journal: the decision of journal protocol §4.3, as a function of one key space snapshot.
//!
//! The answer says whether the request may go on, which process answers it, and what its header is. Nothing here waits
//! or looks at local replicas; [`crate::Resolver`] does.

use std::sync::Arc;

use keyspace::{AssignmentKey, Misdirected};
use proto::protocol::journal_spec::suspend;
use proto::protocol::process_spec::Id;
use proto::protocol::{Header, JournalSpec, LabelSelector, LabelSet, Route, Status, header};
use proto::{JournalName, MemberId, Revision, labels};

use crate::key_space::KeySpace;

/// Zone of the header of a broker whose own member key is gone.
pub const MISSING_ZONE: &str = "local-BrokerSpec";

/// What a request asks of resolution.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// Whether another process may answer.
    pub may_proxy: bool,
    /// Whether only the primary may answer.
    pub require_primary: bool,
}

/// An item, as resolution found it.
#[derive(Debug, Clone)]
pub struct Item {
    /// The specification.
    pub spec: Arc<JournalSpec>,
    /// Revision at which it came into being.
    pub create_revision: Revision,
    /// Revision of its last write.
    pub mod_revision: Revision,
}

/// An assignment of the journal, as resolution found it.
#[derive(Debug, Clone)]
pub struct Assigned {
    /// Its key.
    pub key: AssignmentKey,
    /// The route that its broker last knew.
    pub route: Arc<Route>,
    /// Revision of its last write.
    pub mod_revision: Revision,
}

/// The answer to a [`Question`].
#[derive(Debug, Clone)]
pub struct Decision {
    /// OK, or why the request cannot go on.
    pub status: Status,
    /// Header of the answer, or of the request to the process that it names.
    pub header: Header,
    /// Whether the process of the header is this one.
    pub is_local: bool,
    /// The journal's item, if it exists.
    pub item: Option<Item>,
    /// The journal's assignments, in key order.
    pub assignments: Vec<Assigned>,
}

/// Why a request cannot be resolved. These are gRPC errors rather than statuses.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    /// Another broker passed it on, and did not mean this one.
    #[error(transparent)]
    Misdirected(#[from] Misdirected),
    /// This broker is shutting down.
    #[error("resolver has stopped serving local replicas")]
    Stopped,
    /// The mirror of etcd has ended.
    #[error("the mirror of etcd has stopped")]
    MirrorStopped,
}

/// Whether a request which may see what `visible` selects may see `journal`. Of one that is gone, only its name is known.
pub fn is_visible(key_space: &KeySpace, visible: &LabelSelector, journal: &JournalName) -> bool {
    if visible.is_everything() {
        return true;
    }
    match key_space.items().get(journal.as_arc()) {
        Some(item) => visible.matches(&item.value.labels_with_name()),
        None => visible.matches(&LabelSet::from_pairs([(labels::NAME, journal.as_str())])),
    }
}

/// What the key space says of one journal.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The id by which this process answers.
    pub local: Id,
    /// The journal's item, if it exists.
    pub item: Option<Item>,
    /// The journal's assignments, in key order.
    pub assignments: Vec<Assigned>,
    /// The route that they imply, with endpoints.
    pub route: Route,
    /// Of the key space.
    pub etcd: header::Etcd,
}

impl Facts {
    /// What `key_space` says of `journal`: nothing, if there is no such name.
    pub fn gather(key_space: &KeySpace, me: &MemberId, journal: Option<&JournalName>) -> Facts {
        let mut facts = Facts {
            local: key_space.local_id(me, MISSING_ZONE),
            item: None,
            assignments: Vec::new(),
            route: Route::unrouted(),
            etcd: key_space.header().into(),
        };
        let Some(journal) = journal else { return facts };
        facts.item = key_space.items().get(journal.as_arc()).map(|entry| Item {
            spec: Arc::clone(&entry.value),
            create_revision: entry.create_revision,
            mod_revision: entry.mod_revision,
        });
        let assignments = key_space.assignments_of(journal.as_str()).map(|(key, entry)| Assigned {
            key: key.clone(),
            route: Arc::clone(&entry.value),
            mod_revision: entry.mod_revision,
        });
        facts.assignments = assignments.collect();
        facts.route = key_space.route(journal.as_str());
        facts
    }
}

/// Decides `question` by the facts of its journal.
pub fn decide(facts: Facts, question: Question) -> Decision {
    let Facts { local, item, assignments, route, etcd } = facts;
    let is_member = route.members.contains(&local);
    let mut process = match question.require_primary {
        true => route.primary_id().cloned().unwrap_or_default(),
        false if is_member => local.clone(),
        false => Id::default(),
    };
    let status = status_of(item.as_ref(), &route, question, process == local);
    if status != Status::Ok {
        process.clone_from(&local);
    }
    let is_local = process == local;
    Decision { status, is_local, header: Header::routed(process, route, etcd), item, assignments }
}

fn status_of(item: Option<&Item>, route: &Route, question: Question, is_local: bool) -> Status {
    let Some(item) = item else { return Status::JournalNotFound };
    if item.spec.suspend_level() == suspend::Level::Full {
        Status::Suspended
    } else if question.require_primary && route.primary_id().is_none() {
        Status::NoJournalPrimaryBroker
    } else if route.members.is_empty() {
        Status::InsufficientJournalBrokers
    } else if question.may_proxy || is_local {
        Status::Ok
    } else if question.require_primary {
        Status::NotJournalPrimaryBroker
    } else {
        Status::NotJournalBroker
    }
}

#[cfg(test)]
mod tests;
