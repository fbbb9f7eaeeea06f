//! Patches as `talosctl` and its friends take them: one or several documents, merged into a config by Talos' rules.

use super::change::{self, Change};
use super::delete::{self, Divided};
use super::fields::{FIELDS, Rule};
use super::shape::{self, wrong};
use super::{ConfigDoc, DocumentId, merge, splice};
use crate::error::{Error, Result};
use crate::yaml::{self, Document, Kind, Node, Stream};

/// A document without `kind` is the legacy one if it has one of these.
const LEGACY_KEYS: [&str; 4] = ["machine", "cluster", "debug", "persist"];

impl ConfigDoc {
    /// Applies a strategic merge patch by Talos' rules: its documents are merged into those of the same apiVersion, kind and
    /// name, or appended; `$patch: delete` takes away documents, keys and members of lists. Lists grow with every patch but
    /// where Talos replaces or merges them, so that the same patch twice may not be the same as once. True if that changed
    /// the text.
    ///
    /// Where Talos fails because something exists already or does not exist any more, and the outcome is plain, nothing
    /// changes: a deletion without a target, and a value that Talos can't merge but that is what the patch says.
    ///
    /// # Errors
    /// The patch is not what Talos could read, or its merge into this config would fail or lose what the patch does not name,
    /// or the place is written in a way that cannot be edited safely. Nothing is changed then.
    pub fn patch(&mut self, patch: &str) -> Result<bool> {
        let stream = Stream::parse(patch).map_err(|error| error.at("machine config patch"))?;
        let mut edited = self.clone();
        let mut seen = Vec::new();
        for document in stream.documents().iter().filter(|document| !document.root.is_null()) {
            let id = id(patch, &document.root)?;
            if seen.contains(&id) {
                return Err(wrong(patch, &document.root, &id.to_string(), "is there twice"));
            }
            edited.patch_document(&stream, document, &id)?;
            seen.push(id);
        }
        let changed = edited.text() != self.text();
        *self = edited;
        Ok(changed)
    }

    fn patch_document(&mut self, patch: &Stream, document: &Document, id: &DocumentId) -> Result<()> {
        let rule = rule(id);
        let Divided { whole, deletions, rest } = delete::divide(patch.text(), &document.root)?;
        if whole {
            if id.kind.is_none() {
                return Err(wrong(
                    patch.text(),
                    &document.root,
                    "",
                    "needs apiVersion and kind to be deleted",
                ));
            }
            let index = self.find(id).map(|(index, _)| index);
            return index.map_or(Ok(()), |index| self.remove_at(index));
        }
        for deletion in &deletions {
            let Some(rule) = rule else { return Err(unknown(id)) };
            let Some((index, have)) = self.find(id) else { continue };
            if let Some(at) = deletion.find(patch.text(), self.text(), rule, have)? {
                self.make(index, &[Change::Remove { at }])?;
            }
        }
        let Some(rest) = rest.filter(|rest| !only_names(rest)) else { return Ok(()) };
        if let Some(rule) = rule {
            shape::check(patch.text(), rule, &rest)?;
        }
        match (self.find(id), rule) {
            (None, _) if deletions.is_empty() => {
                let text = patch.slice(&document.span).trim_start_matches('\u{feff}');
                self.append(&rest, text).map(drop)
            }
            (None, _) => {
                let mut text = String::new();
                rest.entries().iter().for_each(|(key, value)| yaml::write_block(&mut text, key, value, 0, 4));
                self.append(&rest, &text).map(drop)
            }
            (Some((index, have)), Some(rule)) => {
                let changes = merge::changes(self.text(), rule, have, &rest)?;
                self.make(index, &changes)
            }
            (Some((_, have)), None) if have.means(&rest) => Ok(()),
            (Some(_), None) => Err(unknown(id)),
        }
    }

    fn find(&self, id: &DocumentId) -> Option<(usize, &Node)> {
        let found = self.documents().find(|have| plain(have.id.clone()) == *id);
        found.map(|have| (have.index, have.root))
    }

    /// Makes changes of one document.
    fn make(&mut self, index: usize, changes: &[Change<'_>]) -> Result<()> {
        let no_place = || Error::failed("machine config: a change has no place");
        let document = self.stream.documents().get(index).ok_or_else(no_place)?;
        let text = splice::apply(&self.stream, document, changes)?;
        let mut expected = document.root.value();
        change::apply(&mut expected, changes).ok_or_else(no_place)?;
        self.replace(text, index, Some(&expected)).map(drop)
    }
}

/// How the fields of a document of this id are merged, if it is known.
fn rule(id: &DocumentId) -> Option<&'static Rule> {
    match (id.kind.as_deref(), id.api_version.as_deref()) {
        (None, _) => FIELDS.kind("v1alpha1"),
        (Some(kind), Some("v1alpha1")) => FIELDS.kind(kind),
        _ => None,
    }
}

/// The id of a patch's document, as Talos reads it.
fn id(text: &str, root: &Node) -> Result<DocumentId> {
    let Kind::Map { entries, .. } = &root.kind else {
        return Err(wrong(text, root, "", "is no map"));
    };
    let id = plain(DocumentId::of(root));
    let known = entries.iter().any(|(key, _)| key.text().is_some_and(|key| LEGACY_KEYS.contains(&key)));
    match (&id.kind, &id.api_version) {
        (None, _) if known || only_names(root) => Ok(id),
        (None, _) => {
            Err(wrong(text, root, "", "has no kind, and none of machine, cluster, debug and persist"))
        }
        (Some(_), None) => Err(wrong(text, root, "", "has no apiVersion")),
        _ => Ok(id),
    }
}

/// Without the names that do not count: an empty one, and that of a kind that has none.
fn plain(id: DocumentId) -> DocumentId {
    let named = rule(&id).is_none() || id.kind.as_deref().is_some_and(|kind| FIELDS.is_named(kind));
    let name = id.name.clone().filter(|name| named && !name.is_empty());
    DocumentId { name, ..id }
}

/// A document that says nothing: Talos skips it.
fn only_names(root: &Node) -> bool {
    root.entries().iter().all(|(key, value)| {
        key.text().is_some_and(|key| ["version", "kind", "name"].contains(&key)) && value.text().is_some()
    })
}

fn unknown(id: &DocumentId) -> Error {
    Error::invalid(format!("machine config patch: how {id} is merged is not known"))
        .hint("edit that document of the config by hand, or delete it with $patch: delete and add it whole")
}
