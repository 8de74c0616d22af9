//! Trees of journals: parsing, pushing down and applying; extracting, hoisting and printing.

use super::{JournalNode, SpecError};
use proto::Validate;
use proto::protocol::{ApplyRequest, ListResponse, apply_request};

impl JournalNode {
    /// Parses a tree, strictly, and checks its form. Specifications may still be partial.
    pub fn parse(yaml: &str) -> Result<JournalNode, SpecError> {
        let root: JournalNode = serde_yaml_ng::from_str(yaml)?;
        root.check_form()?;
        Ok(root)
    }

    /// The changes which this tree asks for, in order of the journals: everything pushed down, and valid.
    pub fn to_apply_request(&self) -> Result<ApplyRequest, SpecError> {
        self.check_form()?;
        let mut root = self.clone();
        root.push_down();
        let mut changes = Vec::new();
        root.collect_changes(&mut changes)?;
        Ok(ApplyRequest { changes })
    }

    /// The tree of a listing: journals grouped under directories, with what they share hoisted.
    pub fn from_list(list: &ListResponse) -> JournalNode {
        let specs = list.journals.iter().filter_map(|j| Some((j.spec.as_ref()?, j.mod_revision)));
        let mut nodes: Vec<_> =
            specs.map(|(spec, revision)| JournalNode::from_spec(spec, revision)).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let mut root = extract(nodes);
        root.hoist();
        root
    }

    /// Prints the tree.
    pub fn to_yaml(&self) -> Result<String, SpecError> {
        Ok(serde_yaml_ng::to_string(self)?)
    }

    /// Gives every node below what this one says, recursively.
    pub fn push_down(&mut self) {
        let mut children = std::mem::take(&mut self.children);
        for child in &mut children {
            child.inherit_from(self);
            child.push_down();
        }
        self.children = children;
    }

    /// Every journal of the tree, in order.
    pub fn journals(&self) -> Vec<&JournalNode> {
        if !self.is_directory() {
            return vec![self];
        }
        self.children.iter().flat_map(JournalNode::journals).collect()
    }

    fn check_form(&self) -> Result<(), SpecError> {
        let name = &self.name;
        if !self.is_directory() {
            if !self.children.is_empty() {
                return Err(SpecError::new(
                    name,
                    "a journal cannot have children (directory names end in '/')",
                ));
            }
            return Ok(());
        }
        if self.children.is_empty() {
            return Err(SpecError::new(
                name,
                "a directory must have children (journal names do not end in '/')",
            ));
        }
        if self.revision != 0 {
            return Err(SpecError::new(
                name,
                format!("a directory cannot have a revision ({})", self.revision),
            ));
        }
        for (i, child) in self.children.iter().enumerate() {
            if !child.name.starts_with(name.as_str()) {
                return Err(SpecError::new(
                    &child.name,
                    format!("the name must begin with its parent's ({name:?})"),
                ));
            }
            if let Some(previous) = i.checked_sub(1).map(|p| &self.children[p].name)
                && *previous >= child.name
            {
                return Err(SpecError::new(
                    &child.name,
                    format!("children are not in ascending order (after {previous:?})"),
                ));
            }
            child.check_form()?;
        }
        Ok(())
    }

    fn collect_changes(&self, changes: &mut Vec<apply_request::Change>) -> Result<(), SpecError> {
        for node in self.journals() {
            let mut change =
                apply_request::Change { expect_mod_revision: node.revision, ..Default::default() };
            if node.delete == Some(true) {
                change.delete = node.name.clone();
            } else {
                change.upsert = Some(node.to_spec());
            }
            change.validate().map_err(|e| SpecError::new(&node.name, e))?;
            changes.push(change);
        }
        Ok(())
    }

    /// Moves what all children share up to their directory, from the leaves to the root.
    fn hoist(&mut self) {
        let Some((first, others)) = self.children.split_first_mut() else { return };
        first.hoist();
        let below = std::mem::take(&mut first.children);
        let mut shared = first.clone();
        first.children = below;
        for child in &mut *others {
            child.hoist();
            shared.keep_shared_with(child);
        }
        self.inherit_from(&JournalNode { delete: None, ..shared });
        let mut children = std::mem::take(&mut self.children);
        for child in &mut children {
            child.drop_shared_with(self);
        }
        self.children = children;
    }
}

/// Groups journals in order of name into directories, each of which has at least two children.
fn extract(mut nodes: Vec<JournalNode>) -> JournalNode {
    if nodes.len() == 1 {
        return nodes.remove(0);
    }
    let directory = match (nodes.first(), nodes.last()) {
        (Some(first), Some(last)) => common_directory(&first.name, &last.name).to_owned(),
        _ => String::new(),
    };
    let mut groups: Vec<(String, Vec<JournalNode>)> = Vec::new();
    for node in nodes {
        let below = child_directory(&node.name, &directory);
        match groups.last_mut() {
            Some((group, members)) if *group == below && below != directory => members.push(node),
            _ => groups.push((below.to_owned(), vec![node])),
        }
    }
    let children = groups.into_iter().map(|(_, members)| extract(members)).collect();
    JournalNode { name: directory, children, ..JournalNode::default() }
}

/// The longest prefix of both names which ends in `/`, or nothing.
fn common_directory<'a>(a: &'a str, b: &str) -> &'a str {
    let shared = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    // '/' is one byte, so the cut is at a character boundary.
    let end = a.as_bytes()[..shared].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    &a[..end]
}

/// The directory right below `directory` which holds `name`; `directory` itself if it holds `name` directly.
fn child_directory<'a>(name: &'a str, directory: &str) -> &'a str {
    let end = name[directory.len()..].find('/').map_or(directory.len(), |slash| directory.len() + slash + 1);
    &name[..end]
}
