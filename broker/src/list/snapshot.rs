//! A listing of journals (journal protocol §9.1), as a function of one key space snapshot.
//!
//! A snapshot is streamed as messages of at most [`LIST_BATCH_JOURNALS`] journals; a watch adds an empty message after
//! each snapshot. A watch sends a new snapshot when a matching journal came, went, was written, or changed its route.

use std::hash::{DefaultHasher, Hash, Hasher};

use proto::Canonical;
use proto::labels;
use proto::protocol::{Header, JournalSpec, LabelSelector, ListResponse, Route, Status, list_response};

use crate::key_space::KeySpace;

/// Journals per message of a listing.
pub const LIST_BATCH_JOURNALS: usize = 25;

/// What a listing found.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    journals: Vec<list_response::Journal>,
    header: Header,
}

/// A digest of a listing, by which a watch knows whether there is anything new to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(u64);

/// The journals of `key_space` which `selector` matches, in key order, of those which `visible` does. `header` is that of
/// the answer.
pub fn list(
    key_space: &KeySpace,
    selector: &LabelSelector,
    visible: &LabelSelector,
    header: Header,
) -> Listing {
    let is_listed = |spec: &JournalSpec| {
        let labels = spec.labels_with_name();
        selector.matches(&labels) && visible.matches(&labels)
    };
    let prefix = name_prefix(selector);
    let journals = key_space
        .items()
        .range(std::sync::Arc::from(prefix)..)
        .take_while(|(name, _)| name.starts_with(prefix))
        .filter(|(_, entry)| is_listed(&entry.value))
        .map(|(name, entry)| list_response::Journal {
            spec: Some(JournalSpec::clone(&entry.value)),
            mod_revision: entry.mod_revision.0,
            route: Some(key_space.route(name)),
            create_revision: entry.create_revision.0,
        })
        .collect();
    Listing { journals, header }
}

/// What every matching name starts with, as far as the selector says so plainly. Only narrows the scan.
fn name_prefix(selector: &LabelSelector) -> &str {
    let mut names = selector.include_set().labels.iter().filter(|label| label.name == labels::NAME);
    match (names.next(), names.next()) {
        // An empty value matches every name, and is a prefix of each.
        (Some(label), None) => &label.value,
        _ => "",
    }
}

impl Listing {
    /// A digest of what a client sees: names, revisions and routes.
    pub fn digest(&self) -> Digest {
        let mut hasher = DefaultHasher::new();
        self.journals.len().hash(&mut hasher);
        for journal in &self.journals {
            (journal.create_revision, journal.mod_revision).hash(&mut hasher);
            let Route { members, primary, endpoints } = journal.route.clone().unwrap_or_default();
            (members.iter().map(|m| (&m.zone, &m.suffix)).collect::<Vec<_>>(), primary, endpoints)
                .hash(&mut hasher);
        }
        Digest(hasher.finish())
    }

    /// The messages of this snapshot, at least one. Only the first has a status and a header with content.
    pub fn into_messages(self) -> Vec<ListResponse> {
        let mut journals = self.journals.into_iter();
        let mut header = Some(self.header);
        let mut messages = Vec::new();
        loop {
            let batch: Vec<_> = journals.by_ref().take(LIST_BATCH_JOURNALS).collect();
            if batch.is_empty() && header.is_none() {
                return messages;
            }
            let message = ListResponse { status: Status::Ok as i32, header: header.take(), journals: batch };
            messages.push(message.canonical());
        }
    }
}

/// The message after a snapshot of a watch: no status, no header, no journals.
pub fn snapshot_end() -> ListResponse {
    ListResponse::default().canonical()
}

#[cfg(test)]
mod tests;
