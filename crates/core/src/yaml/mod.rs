//! One lossless YAML document tree: text, style, comments, positions.
//!
//! The source text is kept; every node knows the bytes it came from, so that an edit is a splice of the text and
//! everything else survives byte for byte. Plain scalars are resolved as go-yaml v3 does ([`resolve`]), because the
//! programs on the other side (Talos, sops, Kubernetes) read with it.

mod merge;
mod parse;
mod resolve;
mod write;

use std::ops::Range;

pub use resolve::{Value, resolve};
pub use write::{inline, is_on_one_line, quote, string, write_block, write_item, write_value};

use crate::error::Result;

/// A YAML text and the documents in it.
#[derive(Debug, Clone)]
pub struct Stream {
    text: String,
    documents: Vec<Document>,
}

/// One document of a stream.
#[derive(Debug, Clone)]
pub struct Document {
    pub root: Node,
    /// Bytes from the document's `---` (or its first byte) to the next document's start or the end of the text.
    pub span: Range<usize>,
    /// Comments in source order, each from its `#` to the end of its line.
    pub comments: Vec<Range<usize>>,
}

/// One node: what it is and where its bytes are.
#[derive(Debug, Clone)]
pub struct Node {
    pub kind: Kind,
    /// The bytes of the node without tag and anchor. A block scalar starts at its `|` or `>`; a block collection
    /// goes from its first key to the end of its last value; a value that is not written is empty.
    pub span: Range<usize>,
    pub tag: Option<String>,
    /// Written with an anchor or as an alias (an alias holds a copy of its target); edits refuse such nodes.
    pub shared: bool,
}

#[derive(Debug, Clone)]
pub enum Kind {
    Scalar { text: String, style: Style },
    Map { entries: Vec<(Node, Node)>, flow: bool },
    Seq { items: Vec<Node>, flow: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Plain,
    Single,
    Double,
    Literal,
    Folded,
}

/// A step of a path: a map's key or a sequence's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathPart<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> From<&'a str> for PathPart<'a> {
    fn from(key: &'a str) -> Self {
        Self::Key(key)
    }
}

impl From<usize> for PathPart<'_> {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

impl Stream {
    /// Parses all documents of `text`. A text without content has no documents.
    ///
    /// # Errors
    /// Invalid YAML, a key written twice in one map, nesting deeper than 100, or aliases that expand to more than
    /// 100 000 nodes: [`crate::error::Kind::Invalid`] with line and column.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let documents = parse::documents(&text)?;
        Ok(Self { text, documents })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    /// The bytes of a span as they stand in the source.
    pub fn slice(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// Line and column, both from 1, of the value at `path` in document number `document`; for a collection in a
    /// map, of its key.
    pub fn position(&self, document: usize, path: &[PathPart<'_>]) -> Option<(usize, usize)> {
        let mut node = &self.documents.get(document)?.root;
        let mut start = node.span.start;
        for part in path {
            let (key, value) = node.step(*part)?;
            let scalar = matches!(value.kind, Kind::Scalar { .. });
            start = key.filter(|_| !scalar).unwrap_or(value).span.start;
            node = value;
        }
        Some(line_column(&self.text, start))
    }
}

impl Node {
    /// The value below `path` of map keys.
    pub fn get(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.step(PathPart::Key(key)).map(|(_, value)| value))
    }

    fn step(&self, part: PathPart<'_>) -> Option<(Option<&Self>, &Self)> {
        match (part, &self.kind) {
            (PathPart::Key(key), Kind::Map { entries, .. }) => {
                entries.iter().find(|(k, _)| k.text() == Some(key)).map(|(k, v)| (Some(k), v))
            }
            (PathPart::Index(index), Kind::Seq { items, .. }) => items.get(index).map(|item| (None, item)),
            _ => None,
        }
    }

    /// A scalar's text after unescaping; an explicit or missing null has its text too (`~`, ``).
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// A scalar's text if it resolves to a string.
    pub fn as_str(&self) -> Option<&str> {
        match self.scalar() {
            Some(Value::Str(_)) => self.text(),
            _ => None,
        }
    }

    /// What a scalar means; `None` for collections.
    pub fn scalar(&self) -> Option<Value> {
        match &self.kind {
            Kind::Scalar { text, style } => Some(resolve(text, *style == Style::Plain, self.tag.as_deref())),
            _ => None,
        }
    }

    /// The meaning of the node without its presentation.
    pub fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar { text, style } => resolve(text, *style == Style::Plain, self.tag.as_deref()),
            Kind::Map { entries, .. } => {
                Value::Map(entries.iter().map(|(k, v)| (k.value(), v.value())).collect())
            }
            Kind::Seq { items, .. } => Value::Seq(items.iter().map(Self::value).collect()),
        }
    }

    /// Whether both mean the same, however they are written and in whatever order the keys of maps are.
    pub fn means(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Scalar { text, style }, Kind::Scalar { text: same, style: its })
                if text == same
                    && (*style == Style::Plain) == (*its == Style::Plain)
                    && self.tag == other.tag =>
            {
                true
            }
            (Kind::Scalar { .. }, Kind::Scalar { .. }) => self.value() == other.value(),
            (Kind::Seq { items, .. }, Kind::Seq { items: its, .. }) => {
                items.len() == its.len() && items.iter().zip(its).all(|(item, its)| item.means(its))
            }
            (Kind::Map { entries, .. }, Kind::Map { entries: its, .. }) => {
                let found = |at: usize, key: &Self| {
                    let same = |(its, _): &&(Self, Self)| key.means(its);
                    its.get(at).filter(same).or_else(|| its.iter().find(same))
                };
                let all = |(at, (key, value)): (usize, &(Self, Self))| {
                    found(at, key).is_some_and(|(_, its)| value.means(its))
                };
                entries.len() == its.len() && entries.iter().enumerate().all(all)
            }
            _ => false,
        }
    }

    pub fn entries(&self) -> &[(Self, Self)] {
        match &self.kind {
            Kind::Map { entries, .. } => entries,
            _ => &[],
        }
    }

    pub fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::Seq { items, .. } => items,
            _ => &[],
        }
    }

    pub fn is_null(&self) -> bool {
        self.scalar() == Some(Value::Null)
    }
}

/// Line and column, both from 1, of a byte offset; columns count characters.
pub fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default().trim_start_matches('\u{feff}');
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

#[cfg(test)]
mod tests;
