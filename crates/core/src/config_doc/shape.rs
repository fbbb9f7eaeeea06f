//! Is a patch what Talos could read: known fields, maps where maps are, lists where lists are?

use super::fields::{FIELDS, Rule};
use super::scalar;
use crate::error::{Error, Result};
use crate::yaml::{Kind, Node, Value, line_column};

/// Refuses a document of a patch that Talos could not read, or that says more than a merge can carry.
pub(super) fn check(text: &str, rule: &Rule, node: &Node) -> Result<()> {
    Shape { text }.value(rule, node, "")
}

struct Shape<'t> {
    text: &'t str,
}

impl Shape<'_> {
    fn value(&self, rule: &Rule, node: &Node, name: &str) -> Result<()> {
        if node.is_null() {
            return Ok(());
        }
        match rule.target() {
            Rule::Struct(fields) => self.entries(node, name, |key| FIELDS.field(fields, key)),
            Rule::Map(inner) => self.entries(node, name, |_| Some(inner)),
            Rule::Args => self.entries(node, name, |_| Some(&Rule::Any)),
            Rule::List(item) => self.items(item, node, name),
            Rule::Keyed { keys, item, .. } => {
                self.items(item, node, name)?;
                self.keys_differ(keys, node, name)
            }
            Rule::Any => self.any(node, name),
            _ if node.text().is_none() => Err(self.wrong(node, name, "is no single value")),
            _ if matches!(node.scalar(), Some(Value::Tagged(..))) => Err(self.wrong(node, name, "has a tag")),
            _ => Ok(()),
        }
    }

    fn entries<'r>(&self, node: &Node, name: &str, rule: impl Fn(&str) -> Option<&'r Rule>) -> Result<()> {
        if !matches!(node.kind, Kind::Map { .. }) {
            return Err(self.wrong(node, name, "is no map"));
        }
        for (key, value) in node.entries() {
            let Some(field) = key.text().filter(|_| !key.is_null()) else {
                return Err(self.wrong(key, name, "has a key that is no text"));
            };
            let name = if name.is_empty() { field.to_owned() } else { format!("{name}.{field}") };
            if field == "<<" {
                return Err(self.wrong(key, &name, "is a merge key"));
            }
            let rule = rule(field).ok_or_else(|| self.wrong(key, &name, "is no field that Talos knows"))?;
            self.value(rule, value, &name)?;
        }
        Ok(())
    }

    fn items(&self, rule: &Rule, node: &Node, name: &str) -> Result<()> {
        if !matches!(node.kind, Kind::Seq { .. }) {
            return Err(self.wrong(node, name, "is no list"));
        }
        for (index, item) in node.items().iter().enumerate() {
            let name = format!("{name}[{index}]");
            if item.is_null() {
                return Err(self.wrong(item, &name, "has no value"));
            }
            self.value(rule, item, &name)?;
        }
        Ok(())
    }

    /// Talos merges items of one key with each other, but not where the list is new with what it is in.
    fn keys_differ(&self, keys: &[String], node: &Node, name: &str) -> Result<()> {
        for (index, item) in node.items().iter().enumerate() {
            let earlier = node.items().get(..index).unwrap_or_default();
            if earlier.iter().any(|other| scalar::same_key(keys, other, item)) {
                return Err(self.wrong(
                    item,
                    &format!("{name}[{index}]"),
                    "has the same key as an item before it",
                ));
            }
        }
        Ok(())
    }

    /// Free-form values: what JSON has.
    fn any(&self, node: &Node, name: &str) -> Result<()> {
        match &node.kind {
            Kind::Map { .. } => {
                let text = |(key, _): &(Node, Node)| matches!(key.value(), Value::Str(_));
                if !node.entries().iter().all(text) {
                    return Err(self.wrong(node, name, "has a key that is no text"));
                }
                self.entries(node, name, |_| Some(&Rule::Any))
            }
            Kind::Seq { items, .. } => items
                .iter()
                .enumerate()
                .try_for_each(|(index, item)| self.any(item, &format!("{name}[{index}]"))),
            Kind::Scalar { .. } => match node.value() {
                Value::Time(_) | Value::Tagged(..) => Err(self.wrong(node, name, "is a date or has a tag")),
                _ => Ok(()),
            },
        }
    }

    fn wrong(&self, node: &Node, name: &str, why: &str) -> Error {
        wrong(self.text, node, name, why)
    }
}

/// The error for a place of a patch.
pub(super) fn wrong(text: &str, node: &Node, name: &str, why: &str) -> Error {
    let (line, _) = line_column(text, node.span.start);
    let name = if name.is_empty() { "the document" } else { name };
    Error::invalid(format!("machine config patch, line {line}: {name} {why}"))
}
