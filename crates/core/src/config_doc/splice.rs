//! Changes as text: which bytes to replace so that a document means what it should, and nothing else is touched.

use std::cmp::Reverse;
use std::ops::Range;

use super::change::{Change, NodePlace, cannot, place};
use super::layout::{colon_end, eol, first_column, step, with_eol, written_end};
use crate::error::{Error, Result};
use crate::yaml::{self, Document, Kind, Node, Stream, line_column};

/// Spaces per level where the text has no example; what `talosctl gen config` writes.
const STEP: usize = 4;

struct Edit {
    at: Range<usize>,
    /// Of two insertions at one place the deeper one comes first.
    depth: usize,
    text: String,
}

struct Splicer<'a> {
    text: &'a str,
    eol: &'static str,
    step: usize,
    edits: Vec<Edit>,
}

/// The text of `stream` after the changes of one of its documents.
pub(super) fn apply(stream: &Stream, document: &Document, changes: &[Change<'_>]) -> Result<String> {
    let step = step(stream.text(), &document.root).unwrap_or(STEP);
    let mut splicer = Splicer { text: stream.text(), eol: eol(stream.text()), step, edits: Vec::new() };
    splicer.changes(&document.root, changes)?;
    let mut edits = splicer.edits;
    edits.sort_by_key(|edit| (edit.at.start, Reverse(edit.depth)));
    let mut text = stream.text().to_owned();
    for edit in edits.iter().rev() {
        if text.get(edit.at.clone()).is_none() {
            return Err(Error::failed("machine config: an edit is out of the text"));
        }
        text.replace_range(edit.at.clone(), &edit.text);
    }
    Ok(text)
}

impl Splicer<'_> {
    fn changes(&mut self, root: &Node, changes: &[Change<'_>]) -> Result<()> {
        let mut rest = changes;
        while let Some((change, others)) = rest.split_first() {
            rest = others;
            match change {
                Change::Set { at, value } => self.set(&self.place(root, at)?, value)?,
                Change::Remove { at } => self.remove(root, at)?,
                Change::Append { list, item } => {
                    // Further items of the same list stand right behind this one.
                    let more = others.iter().take_while(|more| appends_to(more, list)).count();
                    let items: Vec<&Node> =
                        std::iter::once(*item).chain(others.iter().take(more).filter_map(appended)).collect();
                    rest = others.get(more..).unwrap_or_default();
                    self.append(&self.place(root, list)?, &items)?;
                }
                Change::Insert { map, .. } => {
                    // All new entries of one map make one edit, so that they keep their order.
                    if !inserted_before(changes, others.len() + 1, map) {
                        let entries: Vec<_> = changes.iter().filter_map(|c| inserted(c, map)).collect();
                        self.insert(&self.place(root, map)?, &entries)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn place<'n>(&self, root: &'n Node, path: &[usize]) -> Result<NodePlace<'n>> {
        let place =
            place(root, path).ok_or_else(|| Error::failed("machine config: a change has no place"))?;
        if place.node.shared || place.node.tag.is_some() {
            return Err(self.cannot(&place, "is written with an anchor, alias or tag"));
        }
        Ok(place)
    }

    fn set(&mut self, place: &NodePlace<'_>, want: &Node) -> Result<()> {
        let have = place.node;
        match (place.parent, place.key) {
            (Some(map), Some(key)) if have.is_null() => self.fill(map, key, have, want),
            _ if have.span.is_empty() => return Err(self.cannot(place, "is not written")),
            (Some(map), Some(key)) if first_column(self.text, map).is_some() => {
                let column = line_column(self.text, key.span.start).1 - 1;
                let start = self.start(have)?;
                let at = self.value_start(key, start)..have.span.end;
                let text = if at.start == start {
                    self.in_place(have, want, column, &at)
                } else {
                    self.behind_colon(want, column)
                };
                self.edits.push(Edit { at, depth: 0, text });
            }
            _ => {
                let at = self.start(have)?..have.span.end;
                self.edits.push(Edit { at, depth: 0, text: yaml::inline(want) });
            }
        }
        Ok(())
    }

    /// A value from the colon of its key on, without the last line break.
    fn behind_colon(&self, want: &Node, column: usize) -> String {
        let mut text = String::new();
        yaml::write_value(&mut text, want, column, self.step);
        with_eol(text.trim_end_matches('\n'), self.eol)
    }

    /// A value that takes exactly the bytes `at`; `column` is that of its key.
    fn in_place(&self, have: &Node, want: &Node, column: usize, at: &Range<usize>) -> String {
        if let (Kind::Seq { flow: false, .. }, Kind::Seq { items, .. }) = (&have.kind, &want.kind)
            && !items.is_empty()
        {
            let dash = line_column(self.text, at.start).1 - 1;
            let mut text = String::new();
            items.iter().for_each(|item| yaml::write_item(&mut text, item, dash, self.step));
            return with_eol(text.trim_matches([' ', '\n']), self.eol);
        }
        let line_ends =
            self.text.get(at.end..self.next_line(at.end)).is_none_or(|rest| rest.trim().is_empty());
        if line_ends && want.text().is_some() && !yaml::is_on_one_line(want) {
            return self.behind_colon(want, column).trim_start().to_owned();
        }
        self.margin(at.start, column) + &yaml::inline(want)
    }

    /// A list's dashes may stand right below its key; anything else that takes their place must be indented more.
    fn margin(&self, start: usize, column: usize) -> String {
        let here = line_column(self.text, start).1 - 1;
        " ".repeat(if here <= column { column + self.step - here } else { 0 })
    }

    /// Where a value that starts at `start` is replaced from: from its key's colon on if it is on lines of its own and
    /// nothing but white space is between.
    fn value_start(&self, key: &Node, start: usize) -> usize {
        let colon = colon_end(self.text, key);
        let between = self.text.get(colon..start).unwrap_or_default();
        if between.contains('\n') && between.trim().is_empty() { colon } else { start }
    }

    /// The first byte of a node: of a block list, its first dash.
    fn start(&self, node: &Node) -> Result<usize> {
        match &node.kind {
            Kind::Seq { items, flow: false } => {
                let first = items.first().and_then(|item| self.dash(item));
                first.ok_or_else(|| cannot(self.text, node, "the list", "is written in an unusual way"))
            }
            _ => Ok(node.span.start),
        }
    }

    /// Where the dash of a block list's item is, if it is the first on its line.
    fn dash(&self, item: &Node) -> Option<usize> {
        let line = self.line_start(item.span.start);
        let before = self.text.get(line..item.span.start)?;
        (before.trim() == "-").then(|| line + before.find('-').unwrap_or_default())
    }

    fn line_start(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.rfind('\n').map_or(0, |newline| newline + 1);
        if before.get(line..).is_some_and(|text| text.starts_with('\u{feff}')) { line + 3 } else { line }
    }

    /// The first byte after the line that `at` is in.
    fn next_line(&self, at: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        rest.find('\n').map_or(self.text.len(), |newline| at + newline + 1)
    }

    /// Writes a value where there is only a key, or a null.
    fn fill(&mut self, map: &Node, key: &Node, have: &Node, want: &Node) {
        let end = written_end(self.text, key, have);
        let at = if have.span.is_empty() { end..end } else { have.span.clone() };
        let space = if at.is_empty() { " " } else { "" };
        let text = match first_column(self.text, map) {
            Some(column) if want.text().is_none() && !yaml::is_on_one_line(want) => {
                let mut lines = String::new();
                yaml::write_value(&mut lines, want, column, self.step);
                self.edits.push(Edit { at, depth: 0, text: String::new() });
                return self.insert_lines(end, 2 * column + 1, lines.trim_start_matches('\n'));
            }
            Some(column) => self.in_place(have, want, column, &at),
            None => yaml::inline(want),
        };
        self.edits.push(Edit { at, depth: 0, text: format!("{space}{text}") });
    }

    fn insert(&mut self, place: &NodePlace<'_>, missing: &[(&Node, &Node)]) -> Result<()> {
        let map = place.node;
        match &map.kind {
            Kind::Map { entries, flow: true } => {
                let added: Vec<_> = missing
                    .iter()
                    .map(|(k, v)| format!("{}: {}", yaml::inline(k), yaml::inline(v)))
                    .collect();
                let (at, comma) = match entries.last() {
                    Some((key, value)) if value.span.is_empty() => {
                        (written_end(self.text, key, value), " , ")
                    }
                    Some((_, value)) => (value.span.end, ", "),
                    None => (map.span.start + 1, ""),
                };
                self.edits.push(Edit { at: at..at, depth: 0, text: format!("{comma}{}", added.join(", ")) });
                Ok(())
            }
            Kind::Map { entries, flow: false } => {
                let (Some((key, value)), Some(column)) = (entries.last(), first_column(self.text, map))
                else {
                    return Err(self.cannot(place, "has no keys to align with"));
                };
                let mut lines = String::new();
                for (key, value) in missing {
                    yaml::write_block(&mut lines, key, value, column, self.step);
                }
                self.insert_lines(written_end(self.text, key, value), 2 * column, &lines);
                Ok(())
            }
            _ => Err(self.cannot(place, "is no map")),
        }
    }

    fn append(&mut self, place: &NodePlace<'_>, new: &[&Node]) -> Result<()> {
        let Kind::Seq { items, flow } = &place.node.kind else {
            return Err(self.cannot(place, "is no list"));
        };
        if *flow {
            let added: Vec<_> = new.iter().map(|item| yaml::inline(item)).collect();
            let (at, comma) = match items.last() {
                Some(item) if item.span.is_empty() => {
                    return Err(self.cannot(place, "ends with an item that is not written"));
                }
                Some(item) => (item.span.end, ", "),
                None => (place.node.span.start + 1, ""),
            };
            self.edits.push(Edit { at: at..at, depth: 0, text: format!("{comma}{}", added.join(", ")) });
            return Ok(());
        }
        let dash = items.first().and_then(|item| self.dash(item));
        let (Some(dash), Some(last)) = (dash, items.last().filter(|item| !item.span.is_empty())) else {
            return Err(self.cannot(place, "is written in an unusual way"));
        };
        let column = line_column(self.text, dash).1 - 1;
        let mut lines = String::new();
        new.iter().for_each(|item| yaml::write_item(&mut lines, item, column, self.step));
        self.insert_lines(last.span.end, 2 * column + 1, &lines);
        Ok(())
    }

    fn remove(&mut self, root: &Node, path: &[usize]) -> Result<()> {
        let place = self.place(root, path)?;
        let Some((index, above)) = path.split_last() else {
            return Err(self.cannot(&place, "is the whole document"));
        };
        let parent = self.place(root, above)?;
        let (spans, flow) = self.written(parent.node)?;
        let span = spans.get(*index).ok_or_else(|| self.cannot(&place, "has no place"))?;
        let (previous, next) = (index.checked_sub(1).and_then(|at| spans.get(at)), spans.get(index + 1));
        let line = self.line_start(span.start);
        let shares_line = self.text.get(line..span.start).is_some_and(|before| !before.trim().is_empty());
        let at = match (previous, next) {
            (None, None) => return self.empty(&parent, span, flow),
            (_, Some(next)) if flow || shares_line => span.start..next.start,
            (Some(previous), _) if flow => previous.end..span.end,
            _ => line..self.next_line(span.end),
        };
        let beside = [at.start..span.start, span.end..at.end];
        if (flow || shares_line) && beside.into_iter().any(|range| self.has_comment(range)) {
            return Err(self.cannot(&place, "has a comment beside it that would be lost"));
        }
        self.edits.push(Edit { at, depth: 0, text: String::new() });
        Ok(())
    }

    /// The only entry or item of a collection goes: an empty one stays.
    fn empty(&mut self, parent: &NodePlace<'_>, span: &Range<usize>, flow: bool) -> Result<()> {
        let start = self.start(parent.node)?;
        let end = parent.node.span.end.max(span.end);
        if flow && (self.has_comment(start..span.start) || self.has_comment(span.end..end)) {
            return Err(self.cannot(parent, "has a comment in it that would be lost"));
        }
        let from = parent.key.map_or(start, |key| self.value_start(key, start));
        let margin = |key: &Node| self.margin(start, line_column(self.text, key.span.start).1 - 1);
        let space = if from == start {
            parent.key.filter(|_| !flow).map_or_else(String::new, margin)
        } else {
            " ".to_owned()
        };
        let text = if matches!(parent.node.kind, Kind::Map { .. }) { "{}" } else { "[]" };
        self.edits.push(Edit { at: from..end, depth: 0, text: format!("{space}{text}") });
        Ok(())
    }

    fn has_comment(&self, range: Range<usize>) -> bool {
        self.text.get(range).is_some_and(|text| text.contains('#'))
    }

    /// The bytes of every entry or item of a collection, and whether it is in flow style.
    fn written(&self, parent: &Node) -> Result<(Vec<Range<usize>>, bool)> {
        match &parent.kind {
            Kind::Map { entries, flow } => {
                let span = |(key, value): &(Node, Node)| key.span.start..written_end(self.text, key, value);
                Ok((entries.iter().map(span).collect(), *flow))
            }
            Kind::Seq { items, flow: true } => {
                Ok((items.iter().map(|item| item.span.clone()).collect(), true))
            }
            Kind::Seq { items, flow: false } => {
                let span = |item: &Node| self.dash(item).map(|dash| dash..item.span.end);
                let spans: Option<Vec<_>> = items.iter().map(span).collect();
                let spans = spans.filter(|_| items.iter().all(|item| !item.span.is_empty()));
                let error = || cannot(self.text, parent, "the list", "is written in an unusual way");
                Ok((spans.ok_or_else(error)?, false))
            }
            Kind::Scalar { .. } => Err(Error::failed("machine config: a change has no place")),
        }
    }

    /// Inserts lines after the line that `after` is in.
    fn insert_lines(&mut self, after: usize, depth: usize, lines: &str) {
        let lines = with_eol(lines, self.eol);
        let rest = self.text.get(after..).unwrap_or_default();
        let (at, text) = match rest.find('\n') {
            Some(newline) => (after + newline + 1, lines),
            None => (after + rest.len(), format!("{}{}", self.eol, lines.trim_end_matches(['\r', '\n']))),
        };
        self.edits.push(Edit { at: at..at, depth, text });
    }

    fn cannot(&self, place: &NodePlace<'_>, why: &str) -> Error {
        cannot(self.text, place.node, &place.name, why)
    }
}

fn appends_to(change: &Change<'_>, path: &[usize]) -> bool {
    matches!(change, Change::Append { list, .. } if list == path)
}

fn appended<'a>(change: &Change<'a>) -> Option<&'a Node> {
    match change {
        Change::Append { item, .. } => Some(*item),
        _ => None,
    }
}

fn inserted<'a>(change: &Change<'a>, path: &[usize]) -> Option<(&'a Node, &'a Node)> {
    match change {
        Change::Insert { map, key, value } if map == path => Some((*key, *value)),
        _ => None,
    }
}

/// Whether an entry of this map was inserted by a change that comes before the last `rest` ones.
fn inserted_before(changes: &[Change<'_>], rest: usize, path: &[usize]) -> bool {
    let before = changes.len().saturating_sub(rest);
    changes.iter().take(before).any(|change| inserted(change, path).is_some())
}
