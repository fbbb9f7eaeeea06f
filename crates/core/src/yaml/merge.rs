//! Merge keys (`<<`) as go-yaml v3 resolves them when it fills maps and structs.

use super::{Kind, Node, Stream, Style, line_column};
use crate::error::{Error, Result};

impl Stream {
    /// The same text with every `<<` of its tree replaced by the entries that it stands for: a map's own entries win, and
    /// of several maps the earlier one. What was merged in is `shared`, and stands where its alias does.
    ///
    /// # Errors
    /// A `<<` whose value is neither a map nor a list of maps.
    pub fn merged(mut self) -> Result<Self> {
        for document in &mut self.documents {
            merge(&mut document.root).map_err(|offset| {
                let (line, column) = line_column(&self.text, offset);
                Error::invalid(format!("line {line}, column {column}: `<<` takes a map or a list of maps"))
            })?;
        }
        Ok(self)
    }
}

impl Node {
    /// Whether this is the key `<<` that stands for another map's entries; in quotes it is a text like any other.
    pub fn is_merge(&self) -> bool {
        match &self.kind {
            Kind::Scalar { text, style } if text == "<<" => match self.tag.as_deref() {
                None => *style == Style::Plain,
                Some(tag) => tag == "tag:yaml.org,2002:merge",
            },
            _ => false,
        }
    }

    /// The maps that the value of a `<<` stands for, `None` if it is something else.
    pub fn merge_sources(&self) -> Option<Vec<&[(Self, Self)]>> {
        let is_map = |node: &Self| matches!(node.kind, Kind::Map { .. });
        match &self.kind {
            Kind::Map { entries, .. } => Some(vec![entries.as_slice()]),
            Kind::Seq { items, .. } if items.iter().all(is_map) => {
                Some(items.iter().map(Self::entries).collect())
            }
            _ => None,
        }
    }
}

/// Fails with the offset of what cannot be merged.
fn merge(node: &mut Node) -> std::result::Result<(), usize> {
    match &mut node.kind {
        Kind::Scalar { .. } => {}
        Kind::Seq { items, .. } => items.iter_mut().try_for_each(merge)?,
        Kind::Map { entries, .. } => {
            entries.iter_mut().try_for_each(|(_, value)| merge(value))?;
            if entries.iter().any(|(key, _)| key.is_merge()) {
                *entries = with_sources(entries)?;
            }
        }
    }
    Ok(())
}

fn with_sources(entries: &[(Node, Node)]) -> std::result::Result<Vec<(Node, Node)>, usize> {
    let own = |key: &Node| entries.iter().any(|(other, _)| !other.is_merge() && other.means(key));
    let mut all: Vec<(Node, Node)> = Vec::new();
    for (key, value) in entries {
        if !key.is_merge() {
            all.push((key.clone(), value.clone()));
            continue;
        }
        for (key, value) in value.merge_sources().ok_or(value.span.start)?.into_iter().flatten() {
            if !own(key) && !all.iter().any(|(other, _)| other.means(key)) {
                let shared = |node: &Node| Node { shared: true, ..node.clone() };
                all.push((shared(key), shared(value)));
            }
        }
    }
    Ok(all)
}
