//! A file of another tool as its program sees it: merge keys resolved, variables filled in; each value still knows its place.

use super::substitute::{UNSET, substitute};
use crate::error::{Error, Result};
use crate::yaml::{Kind, Node, Stream, Value, line_column};

/// What sops writes in place of a value.
const ENCRYPTED: &str = "ENC[AES256_GCM,";

pub(super) struct Source {
    name: String,
    stream: Stream,
    roots: Vec<Node>,
}

impl Source {
    /// Parses a file; `name` is what errors call it.
    pub(super) fn parse(name: &str, text: String) -> Result<Self> {
        let stream = Stream::parse(text).map_err(|e| e.at(name))?;
        let mut source = Self { name: name.to_owned(), stream, roots: Vec::new() };
        source.roots = source
            .stream
            .documents()
            .iter()
            .map(|document| source.merged(&document.root))
            .collect::<Result<_>>()?;
        Ok(source)
    }

    /// The file with its variables filled in, but for comments.
    pub(super) fn substituted(&self, get: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let comments: Vec<_> =
            self.stream.documents().iter().flat_map(|document| document.comments.clone()).collect();
        Self::parse(&self.name, substitute(self.stream.text(), &comments, get))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn roots(&self) -> &[Node] {
        &self.roots
    }

    /// The root of a file that has to be one document.
    pub(super) fn only(&self) -> Result<&Node> {
        match &self.roots[..] {
            [root] => Ok(root),
            roots => {
                Err(Error::invalid(format!("{}: holds {} documents, one is wanted", self.name, roots.len()))
                    .hint("name a topf.yaml or a talconfig.yaml"))
            }
        }
    }

    /// File, line and column.
    pub(super) fn place(&self, node: &Node) -> String {
        let (line, column) = line_column(self.stream.text(), node.span.start);
        format!("{}:{line}:{column}", self.name)
    }

    pub(super) fn wrong(&self, node: &Node, what: &str, hint: &str) -> Error {
        Error::invalid(format!("{}: {what}", self.place(node))).hint(hint)
    }

    /// A text or a number; nothing for null and an empty text.
    pub(super) fn text<'n>(&self, node: Option<&'n Node>) -> Result<Option<&'n str>> {
        let Some(node) = node.filter(|node| !node.is_null()) else { return Ok(None) };
        let Some(text) = node.text() else {
            return Err(self.wrong(node, "is no text", "write a text or a number"));
        };
        if text.starts_with(ENCRYPTED) {
            let hint = "decrypt it to another file first: nodeprep secrets decrypt FILE > plain.yaml";
            return Err(self.wrong(node, "is encrypted with sops", hint));
        }
        if let Some((_, unset)) = text.split_once(UNSET) {
            let end = unset.find('}').map_or_else(|| unset.len(), |end| end + 1);
            let what = format!("`{}` is not set, or empty", unset.get(..end).unwrap_or(unset));
            return Err(self.wrong(
                node,
                &what,
                "set it in the environment, or in a talenv.yaml beside the file",
            ));
        }
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// A boolean as go-yaml reads it into one: `True` and `yes` are true, also the text "yes".
    pub(super) fn flag(&self, node: Option<&Node>) -> Result<Option<bool>> {
        let Some(node) = node else { return Ok(None) };
        match node.scalar() {
            Some(Value::Null) => return Ok(None),
            Some(Value::Bool(flag)) => return Ok(Some(flag)),
            _ => {}
        }
        match self.text(Some(node))? {
            Some("y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON") => Ok(Some(true)),
            Some("n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF") => Ok(Some(false)),
            _ => Err(self.wrong(node, "is neither true nor false", "write true or false")),
        }
    }

    /// The items of a list; none for null.
    pub(super) fn list<'n>(&self, node: Option<&'n Node>) -> Result<&'n [Node]> {
        match node.map(|node| (node, &node.kind)) {
            Some((_, Kind::Seq { items, .. })) => Ok(items),
            Some((node, _)) if !node.is_null() => {
                Err(self.wrong(node, "is no list", "write one item a line, each after a dash"))
            }
            _ => Ok(&[]),
        }
    }

    /// The node with what its merge keys bring, as go-yaml does it: a key of its own wins, then the first of several.
    fn merged(&self, node: &Node) -> Result<Node> {
        let kind = match &node.kind {
            Kind::Scalar { .. } => return Ok(node.clone()),
            Kind::Seq { items, flow } => Kind::Seq {
                items: items.iter().map(|item| self.merged(item)).collect::<Result<_>>()?,
                flow: *flow,
            },
            Kind::Map { entries, flow } => Kind::Map { entries: self.brought(entries)?, flow: *flow },
        };
        Ok(Node { kind, ..node.clone() })
    }

    fn brought(&self, entries: &[(Node, Node)]) -> Result<Vec<(Node, Node)>> {
        let (merges, own): (Vec<_>, Vec<_>) = entries.iter().partition(|(key, _)| key.is_merge());
        let mut all = Vec::with_capacity(entries.len());
        for (key, value) in own {
            all.push((key.clone(), self.merged(value)?));
        }
        for (_, from) in merges {
            let wrong =
                || self.wrong(from, "`<<` takes a map, or a list of maps", "write an alias such as *name");
            for map in from.merge_sources().ok_or_else(wrong)? {
                for (key, value) in self.brought(map)? {
                    if !all.iter().any(|(known, _)| known.means(&key)) {
                        all.push((key, value));
                    }
                }
            }
        }
        Ok(all)
    }
}
