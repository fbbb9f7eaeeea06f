//! Edits of a config's text: which bytes to replace so that a document holds what is wanted.

use std::cmp::Reverse;
use std::ops::Range;

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
    stream: &'a Stream,
    eol: &'static str,
    step: usize,
    edits: Vec<Edit>,
}

/// The text of `stream` after merging `wanted` into `document`; the same text if nothing is missing.
pub(super) fn merge(stream: &Stream, document: &Document, wanted: &Node) -> Result<String> {
    let step = step(stream, &document.root).unwrap_or(STEP);
    let mut splicer = Splicer { stream, eol: eol(stream.text()), step, edits: Vec::new() };
    splicer.map(&document.root, wanted, "")?;
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

/// The text with `document` (its `---` may be there or not) after its last one.
pub(super) fn append_document(text: &str, document: &str) -> String {
    let eol = eol(text);
    let mut out = text.to_owned();
    if !out.is_empty() && !out.ends_with('\n') {
        out.push_str(eol);
    }
    let body = document.strip_prefix("---").unwrap_or(document).trim_start_matches(['\r', '\n']);
    out.push_str("---");
    out.push_str(eol);
    out.push_str(&with_eol(body, eol));
    if !out.ends_with('\n') {
        out.push_str(eol);
    }
    out
}

/// The line ending of the text's first line.
fn eol(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text.get(..at).is_some_and(|line| line.ends_with('\r')) => "\r\n",
        _ => "\n",
    }
}

fn with_eol(text: &str, eol: &str) -> String {
    let unix = text.replace("\r\n", "\n");
    if eol == "\n" { unix } else { unix.replace('\n', eol) }
}

/// The indentation step of the first block map that lies in another one.
fn step(stream: &Stream, node: &Node) -> Option<usize> {
    let column = first_column(stream, node)?;
    node.entries().iter().find_map(|(_, value)| {
        let inner = first_column(stream, value)?;
        inner.checked_sub(column).filter(|step| *step > 0).or_else(|| step(stream, value))
    })
}

/// The column (from 0) of a block map's keys.
fn first_column(stream: &Stream, node: &Node) -> Option<usize> {
    match &node.kind {
        Kind::Map { entries, flow: false } if !node.shared => {
            let (key, _) = entries.first()?;
            Some(line_column(stream.text(), key.span.start).1 - 1)
        }
        _ => None,
    }
}

impl Splicer<'_> {
    fn map(&mut self, have: &Node, want: &Node, path: &str) -> Result<()> {
        if have.shared {
            return Err(self.cannot(have, path, "is written through an anchor or alias"));
        }
        let mut missing = Vec::new();
        for (key, wanted) in want.entries() {
            let name = key.text().unwrap_or_default();
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            match have.entries().iter().find(|(have, _)| have.value() == key.value()) {
                Some((have_key, value)) => self.entry(have, have_key, value, wanted, &path)?,
                None => missing.push((key, wanted)),
            }
        }
        if missing.is_empty() { Ok(()) } else { self.insert(have, &missing, path) }
    }

    fn entry(&mut self, map: &Node, key: &Node, have: &Node, want: &Node, path: &str) -> Result<()> {
        if want.is_null() || have.value() == want.value() {
            return Ok(());
        }
        if have.is_null() {
            return self.fill(map, key, have, want, path);
        }
        match (&have.kind, &want.kind) {
            (Kind::Map { .. }, Kind::Map { .. }) => self.map(have, want, path),
            (Kind::Scalar { .. }, Kind::Scalar { .. }) if have.shared || have.tag.is_some() => {
                Err(self.cannot(have, path, "is written with an anchor, alias or tag"))
            }
            (Kind::Scalar { .. }, Kind::Scalar { .. }) => {
                self.edits.push(Edit { at: have.span.clone(), depth: 0, text: yaml::inline(want) });
                Ok(())
            }
            (Kind::Seq { .. }, Kind::Seq { .. }) => Err(self.cannot(have, path, "is a list that differs")),
            _ => Err(self.cannot(have, path, "is of another type")),
        }
    }

    /// Writes a value where there is only a key, or a null.
    fn fill(&mut self, map: &Node, key: &Node, have: &Node, want: &Node, path: &str) -> Result<()> {
        if have.shared || have.tag.is_some() {
            return Err(self.cannot(have, path, "is written with an anchor, alias or tag"));
        }
        let lines = match (&want.kind, first_column(self.stream, map)) {
            (Kind::Map { entries, .. }, Some(column)) if !entries.is_empty() => Some((entries, column)),
            _ => None,
        };
        if let Some((entries, column)) = lines {
            let indent = column + self.step;
            self.edits.push(Edit { at: have.span.clone(), depth: 0, text: String::new() });
            let entries: Vec<_> = entries.iter().map(|(key, value)| (key, value)).collect();
            self.insert_lines(self.written_end(key, have), indent, &entries);
            return Ok(());
        }
        let at = if have.span.is_empty() {
            let end = self.written_end(key, have);
            end..end
        } else {
            have.span.clone()
        };
        let space = if at.is_empty() { " " } else { "" };
        self.edits.push(Edit { at, depth: 0, text: format!("{space}{}", yaml::inline(want)) });
        Ok(())
    }

    fn insert(&mut self, map: &Node, missing: &[(&Node, &Node)], path: &str) -> Result<()> {
        match &map.kind {
            Kind::Map { entries, flow: true } => {
                let added: Vec<_> = missing
                    .iter()
                    .map(|(k, v)| format!("{}: {}", yaml::inline(k), yaml::inline(v)))
                    .collect();
                let (at, comma) = match entries.last() {
                    Some((key, value)) if value.span.is_empty() => (self.written_end(key, value), " , "),
                    Some((_, value)) => (value.span.end, ", "),
                    None => (map.span.start + 1, ""),
                };
                self.edits.push(Edit { at: at..at, depth: 0, text: format!("{comma}{}", added.join(", ")) });
                Ok(())
            }
            Kind::Map { entries, flow: false } => {
                let (Some((key, value)), Some(column)) = (entries.last(), first_column(self.stream, map))
                else {
                    return Err(self.cannot(map, path, "has no keys to align with"));
                };
                self.insert_lines(self.written_end(key, value), column, missing);
                Ok(())
            }
            _ => Err(self.cannot(map, path, "is no map")),
        }
    }

    /// Inserts entries as lines of their own after the line that `after` is in.
    fn insert_lines(&mut self, after: usize, indent: usize, entries: &[(&Node, &Node)]) {
        let mut lines = String::new();
        for (key, value) in entries {
            yaml::write_block(&mut lines, key, value, indent, self.step);
        }
        let lines = with_eol(&lines, self.eol);
        let rest = self.stream.text().get(after..).unwrap_or_default();
        let (at, text) = match rest.find('\n') {
            Some(newline) => (after + newline + 1, lines),
            None => (after + rest.len(), format!("{}{}", self.eol, lines.trim_end_matches(['\r', '\n']))),
        };
        self.edits.push(Edit { at: at..at, depth: indent, text });
    }

    /// Where an entry's text ends: after its value, or after the colon of a value that is not written.
    fn written_end(&self, key: &Node, value: &Node) -> usize {
        if !value.span.is_empty() {
            return value.span.end;
        }
        let rest = self.stream.text().get(key.span.end..).unwrap_or_default();
        let gap = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let colon = rest.get(gap..).is_some_and(|rest| rest.starts_with(':'));
        if colon { key.span.end + gap + 1 } else { key.span.end }
    }

    fn cannot(&self, node: &Node, path: &str, why: &str) -> Error {
        let (line, _) = line_column(self.stream.text(), node.span.start);
        let place = if path.is_empty() { "the document" } else { path };
        Error::invalid(format!("machine config, line {line}: {place} {why}, so it cannot be merged safely"))
            .hint("bring this place to the wanted state by hand, then run again")
    }
}
