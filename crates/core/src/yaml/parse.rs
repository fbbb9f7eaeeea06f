//! Builds the tree from the parser's events.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use yaml_events::{Event, ScalarStyle, Span, StructureStyle, Tag, events};

use super::{Document, Kind, Node, Style, line_column};
use crate::error::{Error, Result};

const MAX_DEPTH: usize = 100;
const MAX_ALIASED_NODES: usize = 100_000;

/// A collection that is not closed yet.
struct Frame {
    children: Vec<Node>,
    map: bool,
    flow: bool,
    start: usize,
    anchor: usize,
    tag: Option<String>,
}

struct Builder<'t> {
    text: &'t str,
    documents: Vec<Document>,
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
    document_start: usize,
    comments: Vec<Range<usize>>,
    /// End of the last token; a block scalar's header is looked for from here.
    last_end: usize,
}

pub(super) fn documents(text: &str) -> Result<Vec<Document>> {
    let mut builder = Builder {
        text,
        documents: Vec::new(),
        stack: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        aliased: 0,
        document_start: 0,
        comments: Vec::new(),
        last_end: 0,
    };
    let mut built = Ok(());
    let read = events(text, &mut |event, span| {
        built = builder.event(event, &span);
        built.is_ok()
    });
    built?;
    read.map_err(|fault| at(fault.line, fault.column, fault.what))?;
    builder.close_spans();
    Ok(builder.documents)
}

fn at(line: usize, column: usize, what: impl std::fmt::Display) -> Error {
    Error::invalid(format!("line {line}, column {column}: {what}"))
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<()> {
        let bytes = span.byte_range().unwrap_or(self.last_end..self.last_end);
        match event {
            Event::DocumentStart(explicit, _) => {
                // An implicit start belongs to the bytes since the last document, and may lie behind a block scalar's header.
                self.document_start = if explicit { bytes.start } else { self.last_end };
                if explicit {
                    self.last_end = self.last_end.max(bytes.end);
                }
            }
            Event::DocumentEnd => self.end_document(bytes.end),
            Event::Comment(..) => self.comments.push(bytes),
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(text.into_owned(), style, bytes.clone(), anchor, tag.as_deref())?;
                self.last_end = self.last_end.max(bytes.end);
                self.add(node, anchor);
            }
            Event::Alias(id) => {
                let node = self.alias(id, bytes.clone())?;
                self.last_end = self.last_end.max(bytes.end);
                self.add(node, 0);
            }
            Event::MappingStart(style, anchor, tag) => {
                self.open(true, style, anchor, tag.as_deref(), bytes)?
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.open(false, style, anchor, tag.as_deref(), bytes)?
            }
            Event::MappingEnd | Event::SequenceEnd => self.close(bytes)?,
            _ => {}
        }
        Ok(())
    }

    fn open(
        &mut self,
        map: bool,
        style: StructureStyle,
        anchor: usize,
        tag: Option<&Tag>,
        bytes: Range<usize>,
    ) -> Result<()> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.error(bytes.start, "nested too deeply"));
        }
        let flow = style == StructureStyle::Flow;
        if flow {
            self.last_end = self.last_end.max(bytes.end);
        }
        let tag = tag.map(tag_text);
        self.stack.push(Frame { children: Vec::new(), map, flow, start: bytes.start, anchor, tag });
        Ok(())
    }

    fn close(&mut self, bytes: Range<usize>) -> Result<()> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let end = if frame.flow {
            bytes.end
        } else {
            frame.children.last().map_or(frame.start, |last| last.span.end)
        };
        let start =
            frame.children.first().filter(|_| !frame.flow).map_or(frame.start, |first| first.span.start);
        self.last_end = self.last_end.max(end);
        let kind = if frame.map {
            Kind::Map { entries: self.entries(frame.children)?, flow: frame.flow }
        } else {
            Kind::Seq { items: frame.children, flow: frame.flow }
        };
        let node = Node { kind, span: start.min(end)..end, tag: frame.tag, shared: frame.anchor != 0 };
        self.add(node, frame.anchor);
        Ok(())
    }

    /// Pairs keys with values; a scalar key written twice is an error, as it is for go-yaml.
    fn entries(&self, children: Vec<Node>) -> Result<Vec<(Node, Node)>> {
        let mut entries: Vec<(Node, Node)> = Vec::with_capacity(children.len() / 2);
        let mut children = children.into_iter();
        while let (Some(key), Some(value)) = (children.next(), children.next()) {
            entries.push((key, value));
        }
        let mut seen = HashSet::with_capacity(entries.len());
        let again = entries
            .iter()
            .find_map(|(key, _)| Some((key.span.start, key.text()?)).filter(|(_, text)| !seen.insert(*text)));
        if let Some((at, text)) = again {
            return Err(self.error(at, format!("key {text:?} is written twice")));
        }
        Ok(entries)
    }

    fn add(&mut self, node: Node, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            Some(frame) => frame.children.push(node),
            None => self.root = Some(node),
        }
    }

    fn alias(&mut self, id: usize, span: Range<usize>) -> Result<Node> {
        let Some(target) = self.anchors.get(&id) else {
            return Err(self.error(span.start, "alias to a node that is not complete"));
        };
        let (count, depth) = size(target);
        self.aliased += count;
        if self.aliased > MAX_ALIASED_NODES || depth + self.stack.len() > MAX_DEPTH {
            return Err(self.error(span.start, "aliases expand to too much"));
        }
        let mut node = target.clone();
        relocate(&mut node, &span);
        Ok(node)
    }

    fn scalar(
        &self,
        text: String,
        style: ScalarStyle,
        bytes: Range<usize>,
        anchor: usize,
        tag: Option<&Tag>,
    ) -> Result<Node> {
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted => Style::Single,
            ScalarStyle::DoubleQuoted => Style::Double,
            ScalarStyle::Literal => Style::Literal,
            ScalarStyle::Folded => Style::Folded,
        };
        let mut node = Node {
            span: bytes.clone(),
            kind: Kind::Scalar { text, style },
            tag: tag.map(tag_text),
            shared: anchor != 0,
        };
        if let Kind::Scalar { text, style } = &mut node.kind {
            match style {
                // The parser gives `~` for a value that is not written.
                Style::Plain if bytes.is_empty() => text.clear(),
                Style::Literal | Style::Folded => {
                    node.span = self.block_scalar(&bytes)?;
                    // go-yaml adds no line break that the text does not have.
                    if node.span.end == self.text.len() && text.ends_with('\n') {
                        text.pop();
                    }
                }
                _ => {}
            }
        }
        Ok(node)
    }

    /// The span of a block scalar from its header to the end of its last line; of one that keeps (`+`) its trailing empty lines
    /// they are part.
    fn block_scalar(&self, content: &Range<usize>) -> Result<Range<usize>> {
        let header = find_header(self.text, self.last_end)
            .filter(|header| *header <= content.start)
            .ok_or_else(|| self.error(content.start, "the block scalar's start was not found"))?;
        let indicators: String = self
            .text
            .get(header + 1..)
            .unwrap_or_default()
            .chars()
            .take_while(|c| !c.is_whitespace())
            .collect();
        let content_text = self.text.get(content.clone()).unwrap_or_default();
        let used = if indicators.contains('+') {
            // The last line break stays outside, and so does the next line's indentation.
            let whole = content_text.trim_end_matches([' ', '\t']);
            let lines = whole.strip_suffix('\n').unwrap_or(content_text);
            lines.strip_suffix('\r').unwrap_or(lines)
        } else {
            content_text.trim_end_matches([' ', '\t', '\r', '\n'])
        };
        let end = if used.is_empty() { header + 1 + indicators.len() } else { content.start + used.len() };
        Ok(header..end)
    }

    fn end_document(&mut self, end: usize) {
        self.last_end = self.last_end.max(end);
        let root = self.root.take().unwrap_or(Node {
            kind: Kind::Scalar { text: String::new(), style: Style::Plain },
            span: end..end,
            tag: None,
            shared: false,
        });
        self.anchors.clear();
        self.documents.push(Document { root, span: self.document_start..end, comments: Vec::new() });
    }

    /// Lets each document reach to the next one's start, and gives it the comments in it.
    fn close_spans(&mut self) {
        let mut end = self.text.len();
        for document in self.documents.iter_mut().rev() {
            document.span.end = end.max(document.span.start);
            end = document.span.start;
        }
        if let Some(first) = self.documents.first_mut() {
            first.span.start = 0;
        }
        self.comments.sort_by_key(|comment| comment.start);
        let mut comments = std::mem::take(&mut self.comments).into_iter().peekable();
        for document in &mut self.documents {
            while let Some(comment) = comments.next_if(|comment| comment.start < document.span.end) {
                document.comments.push(comment);
            }
        }
    }

    fn error(&self, offset: usize, what: impl std::fmt::Display) -> Error {
        let (line, column) = line_column(self.text, offset);
        at(line, column, what)
    }
}

fn tag_text(tag: &Tag) -> String {
    format!("{}{}", tag.handle(), tag.suffix())
}

/// Number of nodes and depth.
fn size(node: &Node) -> (usize, usize) {
    let children: Vec<&Node> = match &node.kind {
        Kind::Scalar { .. } => return (1, 0),
        Kind::Seq { items, .. } => items.iter().collect(),
        Kind::Map { entries, .. } => entries.iter().flat_map(|(key, value)| [key, value]).collect(),
    };
    children.iter().fold((1, 1), |(count, depth), child| {
        let (child_count, child_depth) = size(child);
        (count + child_count, depth.max(child_depth + 1))
    })
}

/// Gives a copied node and all below it the alias' place.
fn relocate(node: &mut Node, span: &Range<usize>) {
    node.span = span.clone();
    node.shared = true;
    match &mut node.kind {
        Kind::Scalar { .. } => {}
        Kind::Seq { items, .. } => items.iter_mut().for_each(|item| relocate(item, span)),
        Kind::Map { entries, .. } => entries.iter_mut().for_each(|(key, value)| {
            relocate(key, span);
            relocate(value, span);
        }),
    }
}

/// The offset of the next `|` or `>` after indicators, comments, tags and anchors.
fn find_header(text: &str, from: usize) -> Option<usize> {
    let mut offset = from;
    loop {
        let rest = text.get(offset..)?;
        offset += match rest.chars().next()? {
            '|' | '>' => return Some(offset),
            '#' => rest.find('\n')?,
            '!' | '&' => rest.find(char::is_whitespace)?,
            skip @ (':' | '-' | '?' | ',' | '\u{feff}') => skip.len_utf8(),
            space if space.is_whitespace() => space.len_utf8(),
            _ => return None,
        };
    }
}
