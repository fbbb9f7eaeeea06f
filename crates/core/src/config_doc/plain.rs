//! Merging maps and scalars only, whatever the kind of document: what nodeprep itself writes into a config.

use super::change::{Change, Path, cannot};
use crate::error::Result;
use crate::yaml::{Kind, Node, Value};

/// Merges `wanted` into `base`: maps by key, what exists and is not wanted stays, a wanted null asks for nothing.
pub(super) fn merge(base: &mut Value, wanted: &Value) {
    match (base, wanted) {
        (_, Value::Null) => {}
        (Value::Map(base), Value::Map(wanted)) => {
            for (key, want) in wanted {
                match base.iter_mut().find(|(have, _)| have == key) {
                    Some((_, have)) => merge(have, want),
                    None => base.push((key.clone(), want.clone())),
                }
            }
        }
        (base, wanted) => *base = wanted.clone(),
    }
}

/// The changes that make `have` (a document of `text`) hold what is wanted; a list must be equal or new.
pub(super) fn changes<'a>(text: &str, have: &Node, want: &'a Node) -> Result<Vec<Change<'a>>> {
    let mut plain = Plain { text, path: Path::new(), changes: Vec::new() };
    plain.map(have, want, "")?;
    Ok(plain.changes)
}

struct Plain<'t, 'a> {
    text: &'t str,
    path: Path,
    changes: Vec<Change<'a>>,
}

impl<'a> Plain<'_, 'a> {
    fn map(&mut self, have: &Node, want: &'a Node, name: &str) -> Result<()> {
        for (key, wanted) in want.entries() {
            let key_name = key.text().unwrap_or_default();
            let name = if name.is_empty() { key_name.to_owned() } else { format!("{name}.{key_name}") };
            let mut entries = have.entries().iter().enumerate();
            match entries.find(|(_, (have, _))| have.means(key)) {
                Some((index, (_, value))) => {
                    self.path.push(index);
                    self.entry(value, wanted, &name)?;
                    self.path.pop();
                }
                None => self.changes.push(Change::Insert { map: self.path.clone(), key, value: wanted }),
            }
        }
        Ok(())
    }

    fn entry(&mut self, have: &Node, want: &'a Node, name: &str) -> Result<()> {
        if want.is_null() || have.means(want) {
            return Ok(());
        }
        match (&have.kind, &want.kind) {
            (Kind::Map { .. }, Kind::Map { .. }) => return self.map(have, want, name),
            (Kind::Scalar { .. }, Kind::Scalar { .. }) => {}
            _ if have.is_null() => {}
            (Kind::Seq { .. }, Kind::Seq { .. }) => {
                return Err(cannot(self.text, have, name, "is a list that differs"));
            }
            _ => return Err(cannot(self.text, have, name, "is of another type")),
        }
        self.changes.push(Change::Set { at: self.path.clone(), value: want });
        Ok(())
    }
}
