//! Keys of a listing, read as fragments.

use std::sync::Arc;

use fragment::{Fragment, PathPostfix};
use proto::JournalName;

/// Reads the keys of one listing of one journal.
pub(crate) struct ListingParser<'a> {
    journal: &'a JournalName,
    /// What the keys start with, in place of the journal's directory.
    prefix: &'a str,
    store: &'a Arc<str>,
    /// Directory of the last key, and its postfix: most keys have the same as the one before.
    last: Option<(String, PathPostfix)>,
}

impl<'a> ListingParser<'a> {
    pub(crate) fn new(journal: &'a JournalName, prefix: &'a str, store: &'a Arc<str>) -> ListingParser<'a> {
        ListingParser { journal, prefix, store, last: None }
    }

    /// The fragment of the file at `key`. If it is none a log line says why.
    pub(crate) fn parse(&mut self, key: &str, mod_time: i64) -> Option<Fragment> {
        let Some(relative) = key.strip_prefix(self.prefix) else {
            tracing::warn!(store = %self.store, key, "failed to parse fragment: listed outside of its journal");
            return None;
        };
        let parsed = match (&self.last, relative.rsplit_once('/')) {
            (Some((directory, postfix)), Some((found, name))) if directory == found => {
                let fragment = Fragment::parse_content_name(self.journal, name);
                fragment.map(|fragment| Fragment { path_postfix: postfix.clone(), ..fragment })
            }
            _ => Fragment::parse_content_path(self.journal, relative),
        };
        match parsed {
            Ok(fragment) => {
                let directory = relative.rsplit_once('/').map_or("", |(directory, _)| directory);
                if self.last.as_ref().is_none_or(|(last, _)| last != directory) {
                    self.last = Some((directory.to_owned(), fragment.path_postfix.clone()));
                }
                // Zero would say that the fragment is local.
                Some(Fragment {
                    backing_store: Some(self.store.clone()),
                    mod_time: mod_time.max(1),
                    ..fragment
                })
            }
            Err(error) => {
                tracing::warn!(store = %self.store, key, %error, "failed to parse fragment");
                None
            }
        }
    }
}
