//! The leaves of a document in the order in which sops visits them, comments included.

use std::ops::Range;

use super::gap::{self, Fate, Gap, Level};
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
    let mut walker = Walker {
        stream,
        comments: &document.comments,
        path: Vec::new(),
        active: Vec::new(),
        levels: Vec::new(),
        gap: None,
        fates: Vec::new(),
        done: Vec::new(),
        handed_on: Vec::new(),
        visit,
    };
    // At the end of the text the metadata is, or will be.
    let first = document.root.entries().first().map_or(&document.root, |(key, _)| key);
    let column = gap::column(stream.text(), gap::start(stream.text(), first));
    let next = Next { start: document.span.end, column };
    walker.collection(&document.root, document.root.span.start, next)
}

/// Where the next thing behind a node starts, and in which column.
#[derive(Clone, Copy)]
struct Next {
    start: usize,
    column: usize,
}

struct Walker<'a, 'v> {
    stream: &'a Stream,
    /// What is left of them, in source order.
    comments: &'a [Range<usize>],
    path: Vec<String>,
    active: Vec<Vec<&'a str>>,
    /// The block collections that are open.
    levels: Vec<Level>,
    /// The end of the gap that `fates` is about: whose the comments in it are.
    gap: Option<usize>,
    fates: Vec<Fate>,
    /// The starts of comments that were taken before their turn.
    done: Vec<usize>,
    /// The comments above a list's last item that is not written are about whatever comes next.
    handed_on: Vec<Range<usize>>,
    visit: &'v mut dyn FnMut(Leaf<'a>) -> Result<()>,
}

impl<'a> Walker<'a, '_> {
    /// `from` is behind the key or the dash that the collection belongs to.
    fn collection(&mut self, node: &'a Node, from: usize, next: Next) -> Result<()> {
        self.active.push(Vec::new());
        if is_flow(node) {
            self.comment_behind(node, next)?;
        }
        let pushed = match &node.kind {
            Kind::Map { entries, flow } => {
                let column = entries.first().map_or(0, |(key, _)| self.column(self.start(key)));
                let pushed = !flow && self.open(column, true);
                let nexts = entries.iter().skip(1).map(|(key, _)| self.next_at(self.start(key)));
                let nexts: Vec<_> = nexts.chain([next]).collect();
                for ((key, value), next) in entries.iter().zip(nexts) {
                    self.entry(key, value, next, (!flow).then_some(column + 2))?;
                }
                pushed
            }
            Kind::Seq { items, flow } => {
                let dashes = if *flow { Vec::new() } else { dashes(self.stream.text(), items, from) };
                let column = dashes.first().map_or(0, |dash| self.column(*dash));
                let pushed = !flow && self.open(column, false);
                for (number, item) in items.iter().enumerate() {
                    let next = match (dashes.get(number + 1), items.get(number + 1)) {
                        (Some(dash), _) => self.next_at(*dash),
                        (None, Some(item)) => self.next_at(item.span.start),
                        (None, None) => next,
                    };
                    let dash = dashes.get(number).copied();
                    if let Some(dash) = dash.filter(|_| number + 1 == items.len() && item.span.is_empty()) {
                        self.hand_on(dash);
                    }
                    self.item(item, dash, next, (!flow).then_some(column + 2))?;
                }
                pushed
            }
            Kind::Scalar { .. } => false,
        };
        self.rest(node, next, pushed)?;
        self.active.pop();
        Ok(())
    }

    fn entry(&mut self, key: &'a Node, value: &'a Node, next: Next, indent: Option<usize>) -> Result<()> {
        self.take_handed_on()?;
        self.take_while(|comment| comment.start < key.span.start)?;
        let name = key.as_str().ok_or_else(|| self.error(key, "only text can be a key"))?;
        if self.path.is_empty() && name == "sops" {
            // The metadata's own comments are nobody's.
            self.comments = after(self.comments, value.span.end);
            return Ok(());
        }
        if key.is_merge() && value.merge_sources().is_none() {
            return Err(self.error(value, "`<<` takes a map or a list of maps"));
        }
        if matches!(value.kind, Kind::Scalar { .. }) {
            self.comments_before(value, key.span.end)?;
        } else {
            let line_end = self.line_end(key.span.end);
            self.take_while(|comment| comment.start < line_end && comment.start < value.span.start)?;
        }
        self.path.push(name.to_owned());
        self.value(value, key.span.end, next, What::Scalar(value), indent)?;
        self.path.pop();
        self.clear();
        Ok(())
    }

    fn item(&mut self, item: &'a Node, dash: Option<usize>, next: Next, indent: Option<usize>) -> Result<()> {
        match dash {
            // What stands between the dash and a collection in block style is about its first entry.
            Some(dash) if is_block(item) => self.take_while(|comment| comment.start < dash)?,
            _ => self.comments_before(item, dash.unwrap_or(item.span.start))?,
        }
        if is_flow(item) {
            self.comment_behind(item, next)?;
        }
        let from = dash.map_or(item.span.start, |dash| dash + 1);
        self.value(item, from, next, What::Item(item), indent)?;
        self.clear();
        Ok(())
    }

    fn value(
        &mut self,
        node: &'a Node,
        from: usize,
        next: Next,
        what: What<'a>,
        indent: Option<usize>,
    ) -> Result<()> {
        if node.shared {
            return Err(self.error(node, "anchors and aliases cannot be used in an encrypted file"));
        }
        match node.kind {
            Kind::Scalar { .. } => self.leaf(what, indent),
            _ => self.collection(node, from, next),
        }
    }

    fn leaf(&mut self, what: What<'a>, indent: Option<usize>) -> Result<()> {
        let leaf = Leaf { what, path: self.path.clone(), comments: self.active.clone(), indent };
        (self.visit)(leaf)
    }

    fn hand_on(&mut self, before: usize) {
        let count = self.comments.iter().take_while(|comment| comment.start < before).count();
        let (above, rest) = self.comments.split_at(count);
        self.handed_on.extend(above.iter().filter(|comment| !self.done.contains(&comment.start)).cloned());
        self.comments = rest;
    }

    fn take_handed_on(&mut self) -> Result<()> {
        std::mem::take(&mut self.handed_on).iter().try_for_each(|comment| self.comment(comment))
    }

    /// Comments above a node; those in a scalar (behind a block scalar's header), and behind it on its last line.
    /// `from` is behind its key or at its dash.
    fn comments_before(&mut self, node: &Node, from: usize) -> Result<()> {
        let end = match node.kind {
            Kind::Scalar { .. } if node.span.is_empty() => self.line_end(from),
            Kind::Scalar { .. } => self.line_end(node.span.end),
            _ => node.span.start,
        };
        self.take_while(|comment| comment.start < end)
    }

    /// The comment behind a flow collection on its last line comes before what is in it.
    fn comment_behind(&mut self, node: &Node, next: Next) -> Result<()> {
        let line = node.span.end..self.line_end(node.span.end).min(next.start);
        let behind = self.comments.iter().find(|comment| line.contains(&comment.start));
        let Some(comment) = behind.filter(|comment| !self.done.contains(&comment.start)) else {
            return Ok(());
        };
        self.done.push(comment.start);
        self.comment(comment)
    }

    /// The comments after the last entry that still belong to the collection.
    fn rest(&mut self, node: &Node, next: Next, pushed: bool) -> Result<()> {
        let depth = self.levels.len();
        if self.active.len() == 1 {
            self.take_handed_on()?;
            self.take_while(|comment| comment.start < next.start)?;
        } else if is_flow(node) {
            self.take_while(|comment| comment.start < node.span.end)?;
        } else {
            let innermost = self.gap != Some(next.start);
            if innermost {
                self.find_fates(node, next);
            }
            let mine = |fate: &&Fate| match fate {
                Fate::Innermost => innermost,
                Fate::Level(number) => pushed && number + 1 == depth,
                Fate::Next => false,
            };
            let count = self.fates.iter().take_while(mine).count();
            self.fates.drain(..count);
            for _ in 0..count {
                self.take()?;
            }
        }
        if pushed {
            self.levels.pop();
        }
        Ok(())
    }

    /// The comments between the end of a collection and the next thing: whose they are.
    fn find_fates(&mut self, node: &Node, next: Next) {
        let taken = self.comments.iter().take_while(|comment| self.done.contains(&comment.start)).count();
        self.comments = self.comments.get(taken..).unwrap_or_default();
        let count = self.comments.iter().take_while(|comment| comment.start < next.start).count();
        let here = self.comments.get(..count).unwrap_or_default();
        let (prior_end, prior_is_empty) = end_of_last(node);
        let gap = Gap {
            text: self.stream.text(),
            prior_end,
            prior_is_empty,
            next: next.start,
            next_column: next.column,
        };
        self.fates = gap::fates(&gap, &self.levels, here);
        self.gap = Some(next.start);
    }

    fn take_while(&mut self, belongs: impl Fn(&Range<usize>) -> bool) -> Result<()> {
        while self.comments.first().is_some_and(&belongs) {
            self.take()?;
        }
        Ok(())
    }

    fn take(&mut self) -> Result<()> {
        let Some((comment, rest)) = self.comments.split_first() else { return Ok(()) };
        self.comments = rest;
        if self.done.contains(&comment.start) { Ok(()) } else { self.comment(comment) }
    }

    fn comment(&mut self, comment: &Range<usize>) -> Result<()> {
        let text = self.stream.slice(comment);
        if let Some(active) = self.active.last_mut() {
            active.push(text.strip_prefix('#').unwrap_or(text));
        }
        self.leaf(What::Comment(comment.clone()), None)
    }

    fn clear(&mut self) {
        if let Some(active) = self.active.last_mut() {
            active.clear();
        }
    }

    /// Opens a block collection, if it is further right than what it is in.
    fn open(&mut self, column: usize, map: bool) -> bool {
        let deeper = self.levels.last().is_none_or(|level| level.column < column);
        if deeper {
            self.levels.push(Level { column, map });
        }
        deeper
    }

    fn next_at(&self, start: usize) -> Next {
        Next { start, column: self.column(start) }
    }

    fn start(&self, node: &Node) -> usize {
        gap::start(self.stream.text(), node)
    }

    fn column(&self, offset: usize) -> usize {
        gap::column(self.stream.text(), offset)
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

fn is_block(node: &Node) -> bool {
    matches!(node.kind, Kind::Map { flow: false, .. } | Kind::Seq { flow: false, .. })
}

fn is_flow(node: &Node) -> bool {
    matches!(node.kind, Kind::Map { flow: true, .. } | Kind::Seq { flow: true, .. })
}

/// Where the last scalar or flow collection within a block collection ends, and whether it is a value that is not written.
fn end_of_last(node: &Node) -> (usize, bool) {
    let (from, last) = match &node.kind {
        Kind::Map { entries, flow: false } => match entries.last() {
            Some((key, value)) => (key.span.end, value),
            None => return (node.span.end, false),
        },
        Kind::Seq { items, flow: false } => match items.last() {
            Some(item) => (item.span.end, item),
            None => return (node.span.end, false),
        },
        _ => return (node.span.end, false),
    };
    if last.span.is_empty() { (from, true) } else { end_of_last(last) }
}

/// Where the dashes of a block list's items are, searched from behind its key.
fn dashes(text: &str, items: &[Node], from: usize) -> Vec<usize> {
    let mut from = from;
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        let Some(dash) = dash(text, from) else { break };
        found.push(dash);
        from = item.span.end.max(dash + 1);
    }
    found
}

/// The next dash behind white space, comments, tags and the key's colon.
fn dash(text: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = text.get(at..)?;
        at += match rest.chars().next()? {
            '-' => return Some(at),
            '#' => rest.find('\n')?,
            '!' | '&' => rest.find(char::is_whitespace)?,
            ':' | '?' => 1,
            space if space.is_whitespace() => space.len_utf8(),
            _ => return None,
        };
    }
}

/// The comments that start at or after `offset`.
fn after(comments: &[Range<usize>], offset: usize) -> &[Range<usize>] {
    let first = comments.iter().position(|comment| comment.start >= offset).unwrap_or(comments.len());
    comments.get(first..).unwrap_or_default()
}
