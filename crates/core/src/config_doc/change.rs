//! Changes of one document: what a merge asks for, before it is written as text.

use crate::error::Error;
use crate::yaml::{Kind, Node, Value, line_column};

/// Where a node is below the document's root: the number of the entry or item at every level.
pub(super) type Path = Vec<usize>;

/// One change of a document that exists. The paths of all changes that are made together are those of the
/// document before any of them.
#[derive(Debug)]
pub(super) enum Change<'a> {
    /// Another value instead of the one there; a key without a value gets one.
    Set { at: Path, value: &'a Node },
    /// A new entry of a map.
    Insert { map: Path, key: &'a Node, value: &'a Node },
    /// A new last item of a list.
    Append { list: Path, item: &'a Node },
    /// An entry of a map or an item of a list goes; it is the only change that is made then.
    Remove { at: Path },
}

/// What the document means after the changes; `None` if one of them has no place in it.
pub(super) fn apply(document: &mut Value, changes: &[Change<'_>]) -> Option<()> {
    for change in changes {
        match change {
            Change::Set { at, value } => *find(document, at)? = value.value(),
            Change::Insert { map, key, value } => match find(document, map)? {
                Value::Map(entries) => entries.push((key.value(), value.value())),
                _ => return None,
            },
            Change::Append { list, item } => match find(document, list)? {
                Value::Seq(items) => items.push(item.value()),
                _ => return None,
            },
            Change::Remove { at } => {
                let (last, parent) = at.split_last()?;
                match find(document, parent)? {
                    Value::Map(entries) if *last < entries.len() => drop(entries.remove(*last)),
                    Value::Seq(items) if *last < items.len() => drop(items.remove(*last)),
                    _ => return None,
                }
            }
        }
    }
    Some(())
}

fn find<'v>(value: &'v mut Value, path: &[usize]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, |value, index| match value {
        Value::Map(entries) => entries.get_mut(*index).map(|(_, value)| value),
        Value::Seq(items) => items.get_mut(*index),
        _ => None,
    })
}

/// A node of a document with what it hangs on.
pub(super) struct NodePlace<'n> {
    pub node: &'n Node,
    /// The map or list that it is in.
    pub parent: Option<&'n Node>,
    /// Its key, if it is in a map.
    pub key: Option<&'n Node>,
    /// As people write it: `machine.network.interfaces[0]`.
    pub name: String,
}

/// The node at a path.
pub(super) fn place<'n>(root: &'n Node, path: &[usize]) -> Option<NodePlace<'n>> {
    let start = NodePlace { node: root, parent: None, key: None, name: String::new() };
    path.iter().try_fold(start, |place, index| {
        let parent = Some(place.node);
        let (key, node) = match &place.node.kind {
            Kind::Map { entries, .. } => entries.get(*index).map(|(key, node)| (Some(key), node))?,
            Kind::Seq { items, .. } => (None, items.get(*index)?),
            Kind::Scalar { .. } => return None,
        };
        let name = match key.map(|key| key.text().unwrap_or_default()) {
            Some(key) if place.name.is_empty() => key.to_owned(),
            Some(key) => format!("{}.{key}", place.name),
            None => format!("{}[{index}]", place.name),
        };
        Some(NodePlace { node, parent, key, name })
    })
}

/// The error for a place of the config that a change cannot be made at.
pub(super) fn cannot(text: &str, node: &Node, name: &str, why: &str) -> Error {
    let (line, _) = line_column(text, node.span.start);
    let name = if name.is_empty() { "the document" } else { name };
    Error::invalid(format!("machine config, line {line}: {name} {why}, so it cannot be merged safely"))
        .hint("bring this place to the wanted state by hand, then run again")
}
