//! Talos machine-config documents that survive a round trip byte for byte.
//!
//! A config is a YAML stream: one legacy document without `kind` and any number of documents with `apiVersion`,
//! `kind` and often `name`. Edits are splices of the text. After every edit the text is parsed again and must mean
//! exactly what merging the two meanings gives, else the edit fails and nothing changes.

mod change;
mod delete;
mod fields;
mod layout;
mod merge;
mod patch;
mod plain;
mod redact;
mod remove;
mod scalar;
mod shape;
mod splice;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use redact::{REDACTED, redact};
pub use words::{answer_to, hide, hold, hold_fields, words};

use crate::error::{Error, Result};
use crate::yaml::{self, Document, Node, Stream, Value};

/// The kind of document that holds node labels from Talos 1.14 on.
pub const KUBE_NODE_CONFIG: &str = "KubeNodeConfig";

/// A machine config: its text and what the text means.
#[derive(Clone)]
pub struct ConfigDoc {
    /// Shared by the copies that nobody edits.
    stream: Arc<Stream>,
}

impl std::fmt::Debug for ConfigDoc {
    /// A machine config holds secrets: only the documents' names.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.documents().map(|document| document.id)).finish()
    }
}

/// What names a document; all `None` for the legacy document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DocumentId {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    pub name: Option<String>,
}

/// One document of a config that is not empty.
#[derive(Clone)]
pub struct ConfigDocument<'a> {
    pub id: DocumentId,
    pub root: &'a Node,
    /// From its `---` to the next document's.
    pub text: &'a str,
    index: usize,
}

impl std::fmt::Debug for ConfigDocument<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.id.fmt(f)
    }
}

impl ConfigDoc {
    /// Parses a machine config of any number of documents.
    ///
    /// # Errors
    /// Invalid YAML, a document that is not a map, or two documents with one apiVersion, kind and name (Talos
    /// refuses them too): [`crate::error::Kind::Invalid`].
    pub fn parse(text: &str) -> Result<Self> {
        let stream = Stream::parse(text).map_err(|error| error.at("machine config"))?;
        let config = Self { stream: Arc::new(stream) };
        let mut seen: Vec<DocumentId> = Vec::new();
        for document in config.documents() {
            if !matches!(document.root.kind, yaml::Kind::Map { .. }) {
                return Err(Error::invalid(format!(
                    "machine config: document {} is no map",
                    document.index + 1
                )));
            }
            if seen.contains(&document.id) {
                return Err(Error::invalid(format!("machine config: {} is there twice", document.id)));
            }
            seen.push(document.id);
        }
        Ok(config)
    }

    /// The whole text; after no edit exactly what was parsed.
    pub fn text(&self) -> &str {
        self.stream.text()
    }

    /// The documents that are not empty, in order.
    pub fn documents(&self) -> impl Iterator<Item = ConfigDocument<'_>> {
        self.stream.documents().iter().enumerate().filter(|(_, document)| !document.root.is_null()).map(
            |(index, document)| ConfigDocument {
                id: DocumentId::of(&document.root),
                root: &document.root,
                text: self.stream.slice(&document.span),
                index,
            },
        )
    }

    /// The text of the document of this kind and name; an empty name is that of a kind which has none.
    pub fn get_document(&self, kind: &str, name: &str) -> Option<&str> {
        self.documents().find(|document| document.id.is(kind, name)).map(|document| document.text)
    }

    /// The `KubeNodeConfig` document (Talos 1.14+), which has no name.
    pub fn kube_node_config(&self) -> Option<ConfigDocument<'_>> {
        self.documents().find(|document| document.id.kind.as_deref() == Some(KUBE_NODE_CONFIG))
    }

    /// The legacy v1alpha1 document, the one without `kind`.
    pub fn legacy(&self) -> Option<ConfigDocument<'_>> {
        self.documents().find(|document| document.id.kind.is_none())
    }

    /// The node labels of the config: of `KubeNodeConfig` if there is one, else `machine.nodeLabels`.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = match self.kube_node_config() {
            Some(document) => document.root.get(&["labels"]),
            None => self.legacy().and_then(|document| document.root.get(&["machine", "nodeLabels"])),
        };
        let entries = labels.map(Node::entries).unwrap_or_default();
        entries.iter().filter_map(|(k, v)| Some((k.text()?.to_owned(), v.text()?.to_owned()))).collect()
    }

    /// Sets a node label where this config keeps its labels; true if that changed the text.
    ///
    /// # Errors
    /// There is neither a `KubeNodeConfig` nor a legacy document, or the place is written in a way that cannot be
    /// edited safely (through an alias, or not a map).
    pub fn set_node_label(&mut self, key: &str, value: &str) -> Result<bool> {
        let label = format!("{{{}: {}}}", yaml::string(key), yaml::quote(value));
        if let Some(document) = self.kube_node_config() {
            return self.merge_into(document.index, &format!("labels: {label}\n"));
        }
        let Some(document) = self.legacy() else {
            return Err(Error::invalid("machine config: no place for node labels")
                .hint("it has neither a KubeNodeConfig document nor a v1alpha1 machine section"));
        };
        self.merge_into(document.index, &format!("machine: {{nodeLabels: {label}}}\n"))
    }

    /// Makes sure that the config holds the document `wanted` (one YAML document of this kind and name, which is
    /// empty for a kind without names): appends it, or merges it into the one that exists. Scalars and maps are
    /// merged; a list must be equal or new. True if that changed the text.
    ///
    /// # Errors
    /// `wanted` is not one document of that kind and name, or cannot be merged safely into the one that exists.
    pub fn upsert_document(&mut self, kind: &str, name: &str, wanted: &str) -> Result<bool> {
        let parsed = Stream::parse(wanted)?;
        let [document] = parsed.documents() else {
            return Err(Error::invalid("expected exactly one document to add to the machine config"));
        };
        let id = DocumentId::of(&document.root);
        if !id.is(kind, name) {
            return Err(Error::invalid(format!("expected the document {kind}/{name}, not {id}")));
        }
        let there = self.documents().find(|have| have.id == id).map(|have| have.index);
        if let Some(index) = there {
            return self.merge_into(index, wanted);
        }
        self.append(&document.root, parsed.slice(&document.span))
    }

    fn merge_into(&mut self, index: usize, wanted: &str) -> Result<bool> {
        let wanted = Stream::parse(wanted)?;
        let (Some(have), Some(want)) = (self.stream.documents().get(index), wanted.documents().first())
        else {
            return Err(Error::failed("machine config: the document to edit is not there"));
        };
        let mut expected = have.root.value();
        plain::merge(&mut expected, &want.root.value());
        let changes = plain::changes(self.text(), &have.root, &want.root)?;
        let text = splice::apply(&self.stream, have, &changes)?;
        self.replace(text, index, Some(&expected))
    }

    /// Adds a document, of which `text` is the part of a stream.
    fn append(&mut self, document: &Node, text: &str) -> Result<bool> {
        let text = layout::append_document(self.text(), text);
        self.replace(text, self.stream.documents().len(), Some(&document.value()))
    }

    /// Whether both hold the same documents with the same contents, however they are written.
    pub fn means(&self, other: &Self) -> bool {
        same(self.stream.documents(), other.stream.documents())
    }

    /// Takes the edited text if the document at `index` means what is expected or, where nothing is, is gone; and if all
    /// others mean what they meant.
    fn replace(&mut self, text: String, index: usize, expected: Option<&Value>) -> Result<bool> {
        if text == self.text() {
            return Ok(false);
        }
        let (before, rest) = halves(self.stream.documents(), index);
        let as_expected = |edited: &Self| {
            let (first, now) = halves(edited.stream.documents(), index);
            let now = match (expected, now) {
                (None, now) => Some(now),
                (Some(value), [document, now @ ..]) => (document.root.value() == *value).then_some(now),
                (Some(_), []) => None,
            };
            same(before, first) && now.is_some_and(|now| same(rest.get(1..).unwrap_or_default(), now))
        };
        let edited = Self::parse(&text).ok().filter(as_expected);
        let Some(edited) = edited else {
            return Err(Error::failed("machine config: the edited text would not mean what was asked for")
                .hint("nothing was changed; this place of the config has to be edited by hand"));
        };
        *self = edited;
        Ok(true)
    }
}

fn halves(documents: &[Document], index: usize) -> (&[Document], &[Document]) {
    documents.split_at(index.min(documents.len()))
}

fn same(these: &[Document], those: &[Document]) -> bool {
    these.len() == those.len() && these.iter().zip(those).all(|(this, that)| this.root.means(&that.root))
}

impl DocumentId {
    fn is(&self, kind: &str, name: &str) -> bool {
        self.kind.as_deref() == Some(kind) && self.name.as_deref().unwrap_or_default() == name
    }

    fn of(root: &Node) -> Self {
        let text = |key| root.get(&[key]).and_then(Node::text).map(str::to_owned);
        match text("kind") {
            Some(kind) => Self { api_version: text("apiVersion"), kind: Some(kind), name: text("name") },
            None => Self::default(),
        }
    }
}

impl std::fmt::Display for DocumentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.as_deref().unwrap_or("the v1alpha1 document"))?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, "/{name}"))
    }
}
