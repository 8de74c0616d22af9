//! Selectors of label sets.
//!
//! A set is selected if no excluded label matches it, and if every included *name* matches with at least one of its
//! values. An empty selector selects everything. The text form is parsed and printed by [`crate::selector_text`].

use crate::invalid::{Invalid, Validate, ensure};
use crate::label_set::EMPTY;
use crate::labels::{NAME, PREFIX};
use crate::protocol::{Label, LabelSelector, LabelSet};

impl LabelSelector {
    /// Selects every set.
    pub fn everything() -> LabelSelector {
        LabelSelector { include: Some(LabelSet::default()), exclude: Some(LabelSet::default()) }
    }

    /// Selects sets with these (name, value) pairs; an empty value matches every value of its name.
    pub fn include<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> LabelSelector {
        LabelSelector { include: Some(LabelSet::from_pairs(pairs)), exclude: Some(LabelSet::default()) }
    }

    /// Labels of which every name must match.
    pub fn include_set(&self) -> &LabelSet {
        self.include.as_ref().unwrap_or(&EMPTY)
    }

    /// Labels of which none may match.
    pub fn exclude_set(&self) -> &LabelSet {
        self.exclude.as_ref().unwrap_or(&EMPTY)
    }

    /// Whether every set is selected.
    pub fn is_everything(&self) -> bool {
        self.include_set().is_empty() && self.exclude_set().is_empty()
    }

    /// Whether `set` is selected.
    pub fn matches(&self, set: &LabelSet) -> bool {
        let matched =
            |wanted: &[&Label]| wanted.iter().any(|w| set.labels.iter().any(|label| value_matches(w, label)));
        !self.exclude_set().groups().values().any(|wanted| matched(wanted))
            && self.include_set().groups().values().all(|wanted| matched(wanted))
    }

    /// This selector with each legacy `prefix=P` label rewritten to a prefix match of `name`. Only List does this.
    #[must_use]
    pub fn rewrite_legacy_prefix(self) -> LabelSelector {
        let rewrite = |set: Option<LabelSet>| {
            let labels = set.unwrap_or_default().labels.into_iter().map(|label| {
                if label.name == PREFIX {
                    Label { name: NAME.into(), value: label.value, prefix: true }
                } else {
                    label
                }
            });
            Some(LabelSet::from_labels(labels.collect()))
        };
        LabelSelector { include: rewrite(self.include), exclude: rewrite(self.exclude) }
    }

    /// Rules which only hold for selectors of journal listings: values of the legacy `prefix` label end in `/`.
    pub(crate) fn check_legacy_prefix(&self) -> Result<(), Invalid> {
        for (side, set) in [("Include", self.include_set()), ("Exclude", self.exclude_set())] {
            for value in set.values_of(PREFIX) {
                ensure!(
                    value.ends_with('/'),
                    "Selector.{side}.Labels[\"prefix\"]: expected trailing '/' ({value})"
                );
            }
        }
        Ok(())
    }
}

impl Validate for LabelSelector {
    fn validate(&self) -> Result<(), Invalid> {
        self.include_set().check(true).map_err(|e| e.within("Include"))?;
        self.exclude_set().check(true).map_err(|e| e.within("Exclude"))
    }
}

fn value_matches(wanted: &Label, label: &Label) -> bool {
    wanted.name == label.name
        && (wanted.value.is_empty()
            || if wanted.prefix {
                label.value.starts_with(&wanted.value)
            } else {
                label.value == wanted.value
            })
}

#[cfg(test)]
mod tests;
