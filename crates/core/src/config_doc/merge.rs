//! Strategic merge of one document by Talos' rules ([`super::fields`]): what a patch changes in it.
//!
//! Zero values of a patch ask for nothing, lists grow, maps merge. Where Talos' own merge would lose something that the
//! patch does not name, or fail, the patch is refused instead.

use super::change::{Change, Path, cannot};
use super::fields::{FIELDS, Rule};
use super::scalar;
use crate::error::{Error, Result};
use crate::yaml::{Kind, Node, Value};

/// The changes that merging `want` (checked by [`super::shape`]) makes in `have`, a document of `text`.
pub(super) fn changes<'a>(text: &str, rule: &Rule, have: &Node, want: &'a Node) -> Result<Vec<Change<'a>>> {
    let mut merge = Merge { text, path: Path::new(), names: Vec::new(), changes: Vec::new() };
    merge.value(rule, have, want, false)?;
    Ok(merge.changes)
}

struct Merge<'t, 'a> {
    /// The config's text, for the lines in errors.
    text: &'t str,
    path: Path,
    /// The keys and numbers on the way, as people write them.
    names: Vec<String>,
    changes: Vec<Change<'a>>,
}

impl<'a> Merge<'_, 'a> {
    /// Merges a value into one that exists. `pointed`: the type knows "no value", so that zero counts as one.
    fn value(&mut self, rule: &Rule, have: &Node, want: &'a Node, pointed: bool) -> Result<()> {
        if have.is_null() {
            if is_asked_for(rule, want) {
                self.set(want);
            }
            return Ok(());
        }
        match rule {
            Rule::Pointer(_) if want.is_null() => Ok(()),
            Rule::Pointer(inner) => self.value(inner, have, want, true),
            Rule::Text(_) | Rule::Number if !pointed && scalar::is_zero(rule, want) => Ok(()),
            Rule::Text(_) | Rule::Number | Rule::Bool => self.scalar(rule, have, want),
            Rule::Over => self.over(have, want),
            Rule::Size => self.size(have, want),
            Rule::Url => self.url(have, want),
            Rule::Closed => self.closed(have, want),
            Rule::Any => self.any(have, want),
            Rule::Args => self.args(have, want),
            Rule::List(_) => self.list(have, want),
            Rule::Keyed { keys, replaced, item } => self.keyed(keys, *replaced, item, have, want),
            Rule::Map(inner) => self.map(inner, have, want),
            Rule::Replaced(inner) => self.replaced(inner, have, want),
            Rule::Struct(name) => self.fields(name, have, want),
        }
    }

    fn set(&mut self, want: &'a Node) {
        self.changes.push(Change::Set { at: self.path.clone(), value: want });
    }

    fn scalar(&mut self, rule: &Rule, have: &Node, want: &'a Node) -> Result<()> {
        if have.text().is_none() {
            return Err(self.cannot(have, "is of another type"));
        }
        if !scalar::same(rule, have, want) {
            self.set(want);
        }
        Ok(())
    }

    /// Talos takes the patch's value whatever it is, so that a patch without one would empty it.
    fn over(&mut self, have: &Node, want: &'a Node) -> Result<()> {
        if scalar::is_empty(want) && !scalar::is_empty(have) {
            return Err(self.emptied(have));
        }
        self.scalar(&Rule::Text(String::new()), have, want)
    }

    fn size(&mut self, have: &Node, want: &'a Node) -> Result<()> {
        let percent = |node: &Node| node.text().is_some_and(|text| text.contains('%'));
        if scalar::is_empty(want) {
            return Ok(());
        }
        if percent(want) && !percent(have) {
            return Err(
                self.cannot(have, "is a number of bytes, which Talos' merge keeps beside a percentage")
            );
        }
        self.scalar(&Rule::Text(String::new()), have, want)
    }

    fn url(&mut self, have: &Node, want: &'a Node) -> Result<()> {
        if scalar::is_empty(want) || have.text() == want.text() {
            return Ok(());
        }
        if !have.text().zip(want.text()).is_some_and(|(have, want)| scalar::replaces_url(have, want)) {
            return Err(self.cannot(
                have,
                "is a URL with parts that the patch's has not, and Talos merges URLs part by part",
            ));
        }
        self.set(want);
        Ok(())
    }

    fn closed(&mut self, have: &Node, want: &Node) -> Result<()> {
        if want.is_null() || have.means(want) {
            return Ok(());
        }
        Err(self.cannot(have, "is of a type that Talos itself cannot merge"))
    }

    /// Free-form values: Talos merges by what exists, and only like into like.
    fn any(&mut self, have: &Node, want: &'a Node) -> Result<()> {
        match (&have.kind, &want.kind) {
            (Kind::Map { .. }, Kind::Map { .. }) => return self.map(&Rule::Any, have, want),
            (Kind::Seq { .. }, Kind::Seq { .. }) => return self.list(have, want),
            (Kind::Scalar { .. }, Kind::Scalar { .. }) => {}
            _ => return Err(self.cannot(have, "is of another type")),
        }
        let (have_value, want_value) = (have.value(), want.value());
        let alike = match (&have_value, &want_value) {
            (Value::Time(_) | Value::Tagged(..), _) => have_value == want_value,
            _ => std::mem::discriminant(&have_value) == std::mem::discriminant(&want_value),
        };
        if !alike {
            return Err(self.cannot(have, "is of another type"));
        }
        let zero = match &want_value {
            Value::Str(text) => text.is_empty(),
            Value::Int(number) => *number == 0,
            Value::Float(number) => *number == 0.0,
            _ => false,
        };
        if !zero && have_value != want_value {
            self.set(want);
        }
        Ok(())
    }

    fn args(&mut self, have: &Node, want: &'a Node) -> Result<()> {
        self.entries(have, want, |merge, have, want| {
            if want.is_null() {
                return Err(merge.cannot(have, "would get no value; $patch: delete removes it"));
            }
            match (have.text().filter(|_| !have.is_null()), want.text()) {
                (Some(have), Some(want)) if have == want => {}
                _ if have.means(want) => {}
                _ => merge.set(want),
            }
            Ok(())
        })
    }

    fn list(&mut self, have: &Node, want: &'a Node) -> Result<()> {
        self.is_list(have)?;
        let list = &self.path;
        self.changes.extend(want.items().iter().map(|item| Change::Append { list: list.clone(), item }));
        Ok(())
    }

    fn keyed(
        &mut self,
        keys: &[String],
        replaced: bool,
        rule: &Rule,
        have: &Node,
        want: &'a Node,
    ) -> Result<()> {
        self.is_list(have)?;
        let mut seen: Vec<usize> = Vec::new();
        for item in want.items() {
            let found = have.items().iter().position(|have| scalar::same_key(keys, have, item));
            match found.and_then(|index| Some((index, have.items().get(index)?))) {
                None => self.changes.push(Change::Append { list: self.path.clone(), item }),
                Some((index, have)) if !seen.contains(&index) => {
                    seen.push(index);
                    self.below(index, format!("[{index}]"), |merge| {
                        if !replaced {
                            return merge.value(rule, have, item, true);
                        }
                        if !have.means(item) {
                            merge.set(item);
                        }
                        Ok(())
                    })?;
                }
                Some((_, have)) => {
                    return Err(self.cannot(have, "is what two items of the patch are merged with"));
                }
            }
        }
        Ok(())
    }

    fn map(&mut self, rule: &Rule, have: &Node, want: &'a Node) -> Result<()> {
        self.entries(have, want, |merge, have, want| {
            if matches!(rule, Rule::Any) && want.is_null() && !have.is_null() {
                return Err(merge.cannot(have, "would get no value; $patch: delete removes it"));
            }
            merge.value(rule, have, want, false)
        })
    }

    /// Map entries: those that exist by `merge`, others are new whatever their value is.
    fn entries(
        &mut self,
        have: &Node,
        want: &'a Node,
        merge: impl Fn(&mut Self, &Node, &'a Node) -> Result<()>,
    ) -> Result<()> {
        self.is_map(have)?;
        for (key, value) in want.entries() {
            match position(have, key.text()) {
                Some((index, have)) => {
                    let name = key.text().unwrap_or_default().to_owned();
                    self.below(index, name, |this| merge(this, have, value))?;
                }
                None => self.changes.push(Change::Insert { map: self.path.clone(), key, value }),
            }
        }
        Ok(())
    }

    fn replaced(&mut self, rule: &Rule, have: &Node, want: &'a Node) -> Result<()> {
        let no_map = matches!(rule.target(), Rule::Map(_)) && want.entries().is_empty();
        if !want.is_null() && !no_map && !have.means(want) {
            self.set(want);
        }
        Ok(())
    }

    fn fields(&mut self, name: &str, have: &Node, want: &'a Node) -> Result<()> {
        self.is_map(have)?;
        for (key, value) in want.entries() {
            let field = key.text().unwrap_or_default();
            let Some(rule) = FIELDS.field(name, field).filter(|_| !value.is_null()) else { continue };
            match position(have, key.text()) {
                Some((index, have)) => {
                    self.below(index, field.to_owned(), |merge| merge.value(rule, have, value, false))?;
                }
                None if is_asked_for(rule, value) => {
                    self.changes.push(Change::Insert { map: self.path.clone(), key, value });
                }
                None => {}
            }
        }
        self.not_named(name, have, want)
    }

    /// Refuses a patch that would empty fields of `have` just because it does not name them.
    fn not_named(&mut self, name: &str, have: &Node, want: &Node) -> Result<()> {
        for (field, rule) in FIELDS.of(name) {
            let Some((index, have)) = position(have, Some(field)) else { continue };
            if position(want, Some(field)).is_some_and(|(_, want)| !want.is_null()) {
                continue;
            }
            self.below(index, field.to_owned(), |merge| match rule {
                Rule::Over if !scalar::is_empty(have) => Err(merge.emptied(have)),
                Rule::Bool if have.value() == Value::Bool(true) => Err(merge.emptied(have)),
                Rule::Struct(name) => merge.not_named(name, have, &nothing()),
                _ => Ok(()),
            })?;
        }
        Ok(())
    }

    fn is_list(&self, have: &Node) -> Result<()> {
        if !matches!(have.kind, Kind::Seq { .. }) {
            return Err(self.cannot(have, "is no list"));
        }
        Ok(())
    }

    fn is_map(&self, have: &Node) -> Result<()> {
        if !matches!(have.kind, Kind::Map { .. }) {
            return Err(self.cannot(have, "is no map"));
        }
        if position(have, Some("<<")).is_some() {
            return Err(self.cannot(have, "has a merge key (<<)"));
        }
        Ok(())
    }

    fn below<T>(&mut self, index: usize, name: String, act: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(index);
        self.names.push(name);
        let out = act(self);
        self.path.pop();
        self.names.pop();
        out
    }

    fn emptied(&self, have: &Node) -> Error {
        self.cannot(have, "would be emptied by Talos' merge because the patch does not name it")
            .hint("repeat the value in the patch")
    }

    fn cannot(&self, have: &Node, why: &str) -> Error {
        cannot(self.text, have, &self.names.join(".").replace(".[", "["), why)
    }
}

fn nothing() -> Node {
    Node { kind: Kind::Map { entries: Vec::new(), flow: true }, span: 0..0, tag: None, shared: false }
}

fn position<'n>(map: &'n Node, key: Option<&str>) -> Option<(usize, &'n Node)> {
    let mut entries = map.entries().iter().enumerate();
    entries
        .find(|(_, (have, _))| key.is_some() && have.text() == key)
        .map(|(index, (_, value))| (index, value))
}

/// Whether a value of a patch asks for anything where there is none yet.
fn is_asked_for(rule: &Rule, want: &Node) -> bool {
    match rule {
        Rule::Pointer(_) => !want.is_null(),
        Rule::Text(_) | Rule::Number => !scalar::is_zero(rule, want),
        Rule::Bool => want.value() == Value::Bool(true),
        Rule::Over | Rule::Size | Rule::Url => !scalar::is_empty(want),
        Rule::List(_) | Rule::Keyed { .. } => !want.items().is_empty(),
        Rule::Map(_) | Rule::Args => !want.entries().is_empty(),
        Rule::Replaced(inner) => is_asked_for(inner, want),
        Rule::Struct(name) => want.entries().iter().any(|(key, value)| {
            let rule = key.text().and_then(|field| FIELDS.field(name, field));
            rule.is_some_and(|rule| is_asked_for(rule, value))
        }),
        Rule::Closed | Rule::Any => !want.is_null(),
    }
}
