//! `$patch: delete`: what a patch takes away, and where that is in a config.

use super::change::{Path, cannot};
use super::fields::{FIELDS, Rule};
use super::shape::wrong;
use crate::error::{Error, Result};
use crate::yaml::{Kind, Node};

/// A patch's document, divided.
#[derive(Default)]
pub(super) struct Divided {
    /// The whole document is to go.
    pub whole: bool,
    pub deletions: Vec<Deletion>,
    /// What is to be merged after the deletions, if anything is left.
    pub rest: Option<Node>,
}

/// One key or list member that is to go.
pub(super) struct Deletion {
    keys: Vec<String>,
    /// Of a member of the list there: its first key and that key's text.
    member: Option<(String, String)>,
    /// Where the patch says so.
    at: Node,
}

/// Takes the deletions out of a document of a patch.
///
/// # Errors
/// A deletion inside a member of a list, or of a member without a key: Talos has no way to find it.
pub(super) fn divide(text: &str, document: &Node) -> Result<Divided> {
    let mut finder = Finder { text, keys: Vec::new(), found: Divided::default() };
    let mut rest = document.clone();
    let gone = finder.walk(&mut rest, false)?;
    let mut found = finder.found;
    found.rest = Some(rest).filter(|_| !gone && !found.whole);
    Ok(found)
}

struct Finder<'t> {
    text: &'t str,
    /// The keys on the way; `None` for a member of a list.
    keys: Vec<Option<String>>,
    found: Divided,
}

impl Finder<'_> {
    /// Whether nothing is left of the node.
    fn walk(&mut self, node: &mut Node, member: bool) -> Result<bool> {
        let deleted = node.entries().iter().any(is_deletion);
        let place = deleted.then(|| node.clone());
        match &mut node.kind {
            Kind::Scalar { .. } => Ok(false),
            Kind::Map { entries, .. } => {
                let mut index = 0;
                while let Some((key, value)) = entries.get_mut(index) {
                    if let Some(place) = place.as_ref().filter(|_| is_deletion_of(key, value)) {
                        self.delete(place, member)?;
                        return Ok(true);
                    }
                    self.keys.push(Some(key.text().unwrap_or_default().to_owned()));
                    let gone = self.walk(value, false)?;
                    self.keys.pop();
                    if !gone {
                        index += 1;
                        continue;
                    }
                    entries.remove(index);
                    if entries.is_empty() {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Kind::Seq { items, .. } => {
                let before = items.len();
                self.keys.push(None);
                let mut kept = Vec::with_capacity(before);
                for mut item in std::mem::take(items) {
                    if !self.walk(&mut item, true)? {
                        kept.push(item);
                    }
                }
                self.keys.pop();
                let gone = kept.is_empty() && before > 0;
                *items = kept;
                Ok(gone)
            }
        }
    }

    fn delete(&mut self, node: &Node, member: bool) -> Result<()> {
        let outer = if member { self.keys.len().saturating_sub(1) } else { self.keys.len() };
        let keys: Option<Vec<String>> = self.keys.iter().take(outer).cloned().collect();
        let Some(keys) = keys else {
            return Err(self.wrong(node, "$patch: delete inside a member of a list"));
        };
        let first = node.entries().iter().find(|entry| !is_deletion(entry));
        let member = match (member, first) {
            (true, None) => return Err(self.wrong(node, "$patch: delete of a list's member without a key")),
            (true, Some((key, value))) => {
                let text = |node: &Node| node.text().unwrap_or_default().to_owned();
                Some((text(key), text(value)))
            }
            (false, _) => None,
        };
        self.found.whole |= keys.is_empty() && member.is_none();
        self.found.deletions.push(Deletion { keys, member, at: node.clone() });
        Ok(())
    }

    fn wrong(&self, node: &Node, what: &str) -> Error {
        wrong(self.text, node, what, "is nothing that Talos can do")
    }
}

fn is_deletion(entry: &(Node, Node)) -> bool {
    is_deletion_of(&entry.0, &entry.1)
}

fn is_deletion_of(key: &Node, value: &Node) -> bool {
    key.text() == Some("$patch") && value.text() == Some("delete")
}

impl Deletion {
    /// Where in `have` (a document of `config`) this is; `None` if it does not exist, so that nothing has to go.
    pub(super) fn find(&self, patch: &str, config: &str, rule: &Rule, have: &Node) -> Result<Option<Path>> {
        let (mut rule, mut node, mut path) = (rule, have, Path::new());
        for (number, key) in self.keys.iter().enumerate() {
            let name = self.keys.get(..=number).unwrap_or_default().join(".");
            rule = match rule.target() {
                Rule::Struct(fields) => FIELDS
                    .field(fields, key)
                    .ok_or_else(|| wrong(patch, &self.at, &name, "is no field that Talos knows"))?,
                Rule::Map(inner) => inner,
                Rule::Any | Rule::Args => &Rule::Any,
                _ => return Err(wrong(patch, &self.at, &name, "is below something that has no keys")),
            };
            if node.is_null() {
                return Ok(None);
            }
            if !matches!(node.kind, Kind::Map { .. }) || node.get(&["<<"]).is_some() {
                return Err(cannot(config, node, &name, "is not in a plain map"));
            }
            let mut entries = node.entries().iter().enumerate();
            let Some((index, (_, value))) = entries.find(|(_, (have, _))| have.text() == Some(key)) else {
                return Ok(None);
            };
            path.push(index);
            node = value;
        }
        let Some((key, text)) = &self.member else { return Ok(Some(path)) };
        self.is_found_by(patch, rule, key)?;
        let same = |item: &Node| item.get(&[key]).and_then(Node::text).unwrap_or_default() == text;
        Ok(node.items().iter().position(same).map(|index| {
            path.push(index);
            path
        }))
    }

    /// Talos compares the key's value as text, and only that of a field that is a text.
    fn is_found_by(&self, patch: &str, rule: &Rule, key: &str) -> Result<()> {
        let (Rule::List(item) | Rule::Keyed { item, .. }) = rule.target() else {
            return Err(wrong(patch, &self.at, &self.keys.join("."), "is no list that Talos can look into"));
        };
        let field = match item.target() {
            Rule::Struct(name) => FIELDS.field(name, key),
            _ => None,
        };
        if !matches!(field, Some(Rule::Text(_))) {
            let why = format!("has members that Talos cannot find by {key}");
            return Err(wrong(patch, &self.at, &self.keys.join("."), &why));
        }
        Ok(())
    }
}
