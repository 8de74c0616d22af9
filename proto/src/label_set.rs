//! Label sets and their algebra.
//!
//! A set is sorted by (name, value) without duplicates; a name with the empty value has no other. Sets from the wire are
//! validated before use; the methods here also behave sensibly (no panic, same order rules in the result) on sets which
//! are not sorted.

use crate::invalid::{Invalid, Validate, ensure};
use crate::labels::SINGLE_VALUE;
use crate::protocol::{Label, LabelSet};
use crate::token::{PATH_SYMBOLS, TOKEN_SYMBOLS, check_token};
use std::collections::BTreeMap;

/// The set without labels.
pub(crate) static EMPTY: LabelSet = LabelSet { labels: Vec::new() };

impl LabelSet {
    /// The set of these (name, value) pairs.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> LabelSet {
        let labels = pairs.into_iter().map(|(name, value)| Label {
            name: name.into(),
            value: value.into(),
            prefix: false,
        });
        LabelSet::from_labels(labels.collect())
    }

    /// The set of these labels, sorted and without duplicates.
    pub fn from_labels(mut labels: Vec<Label>) -> LabelSet {
        labels.sort_by(|a, b| (&a.name, &a.value, a.prefix).cmp(&(&b.name, &b.value, b.prefix)));
        labels.dedup();
        LabelSet { labels }
    }

    /// Whether there are no labels.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// First value of label `name`.
    pub fn value_of(&self, name: &str) -> Option<&str> {
        self.values_of(name).next()
    }

    /// All values of label `name`, in order.
    pub fn values_of<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.labels.iter().filter(move |l| l.name == name).map(|l| l.value.as_str())
    }

    /// This set with one more label.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> LabelSet {
        self.labels.push(Label { name: name.into(), value: value.into(), prefix: false });
        LabelSet::from_labels(self.labels)
    }

    /// Makes `value` the only value of label `name`.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        *self = std::mem::take(self).with(name, value);
    }

    /// Removes every value of label `name`.
    pub fn remove(&mut self, name: &str) {
        self.labels.retain(|l| l.name != name);
    }

    /// All names of either set. Of a name in both, the values of `self` win wholesale.
    #[must_use]
    pub fn union(&self, other: &LabelSet) -> LabelSet {
        let mut merged = other.groups();
        merged.append(&mut self.groups());
        ungroup(merged)
    }

    /// Names of `self`, except those whose full list of values `other` has too.
    #[must_use]
    pub fn subtract(&self, other: &LabelSet) -> LabelSet {
        let theirs = other.groups();
        let mut ours = self.groups();
        ours.retain(|name, labels| theirs.get(name) != Some(labels));
        ungroup(ours)
    }

    /// Names with the same full list of values in both sets.
    #[must_use]
    pub fn intersect(&self, other: &LabelSet) -> LabelSet {
        let theirs = other.groups();
        let mut ours = self.groups();
        ours.retain(|name, labels| theirs.get(name) == Some(labels));
        ungroup(ours)
    }

    /// Labels by name.
    pub(crate) fn groups(&self) -> BTreeMap<&str, Vec<&Label>> {
        let mut groups = BTreeMap::<&str, Vec<&Label>>::new();
        for label in &self.labels {
            groups.entry(&label.name).or_default().push(label);
        }
        groups
    }

    /// Rules of the set; `prefix` flags are only legal within a selector.
    pub(crate) fn check(&self, prefix_allowed: bool) -> Result<(), Invalid> {
        for (i, label) in self.labels.iter().enumerate() {
            check_label(label, prefix_allowed).map_err(|e| e.within(format!("Labels[{i}]")))?;
            if i != 0 {
                check_order(i, &self.labels[i - 1], label)?;
            }
        }
        Ok(())
    }

    /// Labels which have at most one value must not have more.
    pub(crate) fn check_single_values(&self) -> Result<(), Invalid> {
        for (i, pair) in self.labels.windows(2).enumerate() {
            let Label { name, value, .. } = &pair[1];
            ensure!(
                pair[0].name != *name || !SINGLE_VALUE.contains(&name.as_str()),
                "expected single-value Label has multiple values (index {}; label {name} value {value})",
                i + 1
            );
        }
        Ok(())
    }
}

impl Validate for LabelSet {
    fn validate(&self) -> Result<(), Invalid> {
        self.check(false)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for LabelSet {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        LabelSet::from_pairs(pairs)
    }
}

fn ungroup(groups: BTreeMap<&str, Vec<&Label>>) -> LabelSet {
    LabelSet { labels: groups.into_values().flatten().cloned().collect() }
}

fn check_label(label: &Label, prefix_allowed: bool) -> Result<(), Invalid> {
    check_token(&label.name, TOKEN_SYMBOLS, 2, 64).map_err(|e| e.within("Name"))?;
    check_token(&label.value, PATH_SYMBOLS, 0, 1024).map_err(|e| e.within("Value"))?;
    ensure!(prefix_allowed || !label.prefix, "Prefix may not be set outside of a LabelSelector");
    Ok(())
}

fn check_order(index: usize, previous: &Label, label: &Label) -> Result<(), Invalid> {
    let Label { name, value, .. } = label;
    ensure!(
        previous.name <= *name,
        "Labels not in unique, sorted order (index {index}; label name {name} <= {})",
        previous.name
    );
    if previous.name == *name {
        ensure!(
            previous.value < *value,
            "Labels not in unique, sorted order (index {index}; label {name} value {value} <= {})",
            previous.value
        );
        ensure!(
            !previous.value.is_empty(),
            "Label has empty & non-empty values (index {index}; label {name} value {value})"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
