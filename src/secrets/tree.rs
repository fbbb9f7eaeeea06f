//! The leaves of a document in the order in which sops visits them, comments included.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::yaml::{Document, Kind, Node, Stream, line_column};

/// One leaf or comment.
pub(super) struct Leaf<'a> {
    pub what: What<'a>,
    /// The map keys above it.
    pub path: Vec<String>,
    /// The comments that stand directly before each collection entry on the way down, without their `#`.
    pub comments: Vec<Vec<&'a str>>,
    /// Where the text of a multi-line scalar may start, in spaces; `None` inside flow collections.
    pub indent: Option<usize>,
}

pub(super) enum What<'a> {
    Scalar(&'a Node),
    /// A list's item; its own kind, since an encrypted comment can take its place.
    Item(&'a Node),
    /// A comment from its `#`.
    Comment(Range<usize>),
}

/// Visits the leaves of one document, leaving out the top-level key `sops`.
///
/// # Errors
/// The root is not a map, a key is not a string, or there are anchors; and whatever `visit` fails with.
pub(super) fn walk<'a>(
    stream: &'a Stream,
    document: &'a Document,
    visit: &mut dyn FnMut(Leaf<'a>) -> Result<()>,
) -> Result<()> {
    if document.root.is_null() {
        return Ok(());
    }
    if !matches!(document.root.kind, Kind::Map { .. }) {
        return Err(Error::invalid("a document that is not a map cannot be encrypted"));
    }
    let mut walker =
        Walker { stream, comments: &document.comments, path: Vec::new(), active: Vec::new(), visit };
    let end = document.span.end;
    walker.collection(&document.root, end)?;
    Ok(())
}

struct Walker<'a, 'v> {
    stream: &'a Stream,
    /// What is left of them, in source order.
    comments: &'a [Range<usize>],
    path: Vec<String>,
    active: Vec<Vec<&'a str>>,
    visit: &'v mut dyn FnMut(Leaf<'a>) -> Result<()>,
}

impl<'a> Walker<'a, '_> {
    /// `end` is where the next thing outside of the collection starts.
    fn collection(&mut self, node: &'a Node, end: usize) -> Result<()> {
        self.active.push(Vec::new());
        match &node.kind {
            Kind::Map { entries, flow } => {
                let column = entries.first().map_or(0, |(key, _)| self.column(key));
                let nexts = entries.iter().skip(1).map(|(key, _)| key.span.start).chain([end]);
                for ((key, value), next) in entries.iter().zip(nexts) {
                    self.entry(key, value, next, (!flow).then_some(column + 2))?;
                }
                self.rest(column, end, *flow)?;
            }
            Kind::Seq { items, flow } => {
                let column = items.first().map_or(0, |item| self.column(item));
                let nexts = items.iter().skip(1).map(|item| item.span.start).chain([end]);
                for (item, next) in items.iter().zip(nexts) {
                    self.comments_before(item)?;
                    let indent = (!flow).then_some(column);
                    self.value(item, next, What::Item(item), indent)?;
                    self.clear();
                }
                self.rest(column, end, *flow)?;
            }
            Kind::Scalar { .. } => {}
        }
        self.active.pop();
        Ok(())
    }

    fn entry(&mut self, key: &'a Node, value: &'a Node, next: usize, indent: Option<usize>) -> Result<()> {
        self.take_while(|comment| comment.start < key.span.start)?;
        let name = key.as_str().ok_or_else(|| self.error(key, "only text can be a key"))?;
        if self.path.is_empty() && name == "sops" {
            // The metadata's own comments are nobody's.
            self.comments = after(self.comments, value.span.end);
            return Ok(());
        }
        if matches!(value.kind, Kind::Scalar { .. }) {
            self.comments_before(value)?;
        } else {
            let line_end = self.line_end(key.span.end);
            self.take_while(|comment| comment.start < line_end && comment.start < value.span.start)?;
        }
        self.path.push(name.to_owned());
        self.value(value, next, What::Scalar(value), indent)?;
        self.path.pop();
        self.clear();
        Ok(())
    }

    fn value(&mut self, node: &'a Node, next: usize, what: What<'a>, indent: Option<usize>) -> Result<()> {
        if node.shared {
            return Err(self.error(node, "anchors and aliases cannot be used in an encrypted file"));
        }
        match node.kind {
            Kind::Scalar { .. } => self.leaf(what, indent),
            _ => self.collection(node, next),
        }
    }

    fn leaf(&mut self, what: What<'a>, indent: Option<usize>) -> Result<()> {
        let leaf = Leaf { what, path: self.path.clone(), comments: self.active.clone(), indent };
        (self.visit)(leaf)
    }

    /// Comments above a scalar, in it (behind a block scalar's header), and behind it on its last line.
    fn comments_before(&mut self, node: &Node) -> Result<()> {
        let end = match node.kind {
            Kind::Scalar { .. } => self.line_end(node.span.end),
            _ => node.span.start,
        };
        self.take_while(|comment| comment.start < end)
    }

    /// The comments after the last entry that still belong to the collection: those not left of its entries.
    fn rest(&mut self, column: usize, end: usize, flow: bool) -> Result<()> {
        let stream = self.stream;
        let root = self.path.is_empty() && self.active.len() == 1;
        self.take_while(|comment| {
            comment.start < end && (flow || root || line_column(stream.text(), comment.start).1 > column)
        })
    }

    fn take_while(&mut self, belongs: impl Fn(&Range<usize>) -> bool) -> Result<()> {
        while let Some((comment, rest)) = self.comments.split_first().filter(|(first, _)| belongs(first)) {
            self.comments = rest;
            let text = self.stream.slice(comment);
            if let Some(active) = self.active.last_mut() {
                active.push(text.strip_prefix('#').unwrap_or(text));
            }
            self.leaf(What::Comment(comment.clone()), None)?;
        }
        Ok(())
    }

    fn clear(&mut self) {
        if let Some(active) = self.active.last_mut() {
            active.clear();
        }
    }

    fn column(&self, node: &Node) -> usize {
        line_column(self.stream.text(), node.span.start).1 - 1
    }

    fn line_end(&self, from: usize) -> usize {
        let text = self.stream.text();
        text.get(from..).and_then(|rest| rest.find('\n')).map_or(text.len(), |at| from + at)
    }

    fn error(&self, node: &Node, what: &str) -> Error {
        let (line, column) = line_column(self.stream.text(), node.span.start);
        Error::invalid(format!("line {line}, column {column}: {what}"))
    }
}

/// The comments that start at or after `offset`.
fn after(comments: &[Range<usize>], offset: usize) -> &[Range<usize>] {
    let first = comments.iter().position(|comment| comment.start >= offset).unwrap_or(comments.len());
    comments.get(first..).unwrap_or_default()
}
