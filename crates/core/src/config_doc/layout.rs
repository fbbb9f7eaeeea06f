//! How a config is laid out: line ends, indentation, where an entry's text ends.

use crate::yaml::{Kind, Node, line_column};

/// The text with `document` (its `---` may be there or not) after its last one.
pub(super) fn append_document(text: &str, document: &str) -> String {
    let eol = eol(text);
    let mut out = text.to_owned();
    if !out.is_empty() && !out.ends_with('\n') {
        out.push_str(eol);
    }
    let body = document.strip_prefix("---").unwrap_or(document).trim_start_matches(['\r', '\n']);
    // Comments may come before its `---`.
    let first = body.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    if !first.is_some_and(|line| line.starts_with("---")) {
        out.push_str("---");
        out.push_str(eol);
    }
    out.push_str(&with_eol(body, eol));
    if !out.ends_with('\n') {
        out.push_str(eol);
    }
    out
}

/// The line ending of the text's first line.
pub(super) fn eol(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text.get(..at).is_some_and(|line| line.ends_with('\r')) => "\r\n",
        _ => "\n",
    }
}

pub(super) fn with_eol(text: &str, eol: &str) -> String {
    let unix = text.replace("\r\n", "\n");
    if eol == "\n" { unix } else { unix.replace('\n', eol) }
}

/// The indentation step of the first block map that lies in another one.
pub(super) fn step(text: &str, node: &Node) -> Option<usize> {
    let column = first_column(text, node)?;
    node.entries().iter().find_map(|(_, value)| {
        let inner = first_column(text, value)?;
        inner.checked_sub(column).filter(|step| *step > 0).or_else(|| step(text, value))
    })
}

/// The column (from 0) of a block map's keys.
pub(super) fn first_column(text: &str, node: &Node) -> Option<usize> {
    match &node.kind {
        Kind::Map { entries, flow: false } if !node.shared => {
            let (key, _) = entries.first()?;
            Some(line_column(text, key.span.start).1 - 1)
        }
        _ => None,
    }
}

/// The byte behind the colon of a key.
pub(super) fn colon_end(text: &str, key: &Node) -> usize {
    let rest = text.get(key.span.end..).unwrap_or_default();
    let gap = rest.len() - rest.trim_start_matches([' ', '\t']).len();
    let colon = rest.get(gap..).is_some_and(|rest| rest.starts_with(':'));
    if colon { key.span.end + gap + 1 } else { key.span.end }
}

/// Where an entry's text ends: after its value, or after the colon of a value that is not written.
pub(super) fn written_end(text: &str, key: &Node, value: &Node) -> usize {
    if value.span.is_empty() { colon_end(text, key) } else { value.span.end }
}
