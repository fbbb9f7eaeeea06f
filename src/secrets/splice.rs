//! Splices of a file's text: values as they are written, the metadata block in and out.

use std::ops::Range;

use zeroize::Zeroizing;

use super::gap;
use super::metadata::Metadata;
use super::sops::Format;
use super::value::Plain;
use crate::error::{Error, Result};
use crate::yaml::{self, Document, Kind, Node, Stream, Style};

/// The bytes to replace, and what with.
pub(super) type Edit = (Range<usize>, Zeroizing<String>);

/// A decrypted leaf as it is written into the text.
pub(super) fn written(plain: &Plain, format: Format, indent: Option<usize>) -> Zeroizing<String> {
    Zeroizing::new(match plain {
        Plain::Str(text) | Plain::Comment(text) if format == Format::Yaml => match indent {
            Some(indent) => literal(text, indent).unwrap_or_else(|| yaml::string(text)),
            None => yaml::string(text),
        },
        Plain::Str(text) | Plain::Comment(text) => serde_json::Value::from(text.as_str()).to_string(),
        Plain::Bytes(bytes) => yaml::quote(&String::from_utf8_lossy(bytes)),
        Plain::Int(number) => number.to_string(),
        Plain::Bool(truth) => truth.to_string(),
        Plain::Time(time) => time.clone(),
        Plain::Float(number) if number.is_nan() => ".nan".to_owned(),
        Plain::Float(number) if number.is_infinite() => {
            if *number > 0.0 { ".inf" } else { "-.inf" }.to_owned()
        }
        Plain::Float(number) => {
            let text = number.to_string();
            if text.contains('.') { text } else { format!("{text}.0") }
        }
    })
}

/// A text of several lines in block style, where that says exactly the same.
fn literal(text: &str, indent: usize) -> Option<String> {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let printable =
        text.chars().all(|c| c == '\n' || c == '\t' || (c >= ' ' && !c.is_control() && c != '\u{feff}'))
            && !text.contains(['\u{2028}', '\u{2029}', '\u{85}']);
    let blank_edge = body.lines().next().is_none_or(|line| line.is_empty() || line.starts_with([' ', '\t']));
    if !body.contains('\n') || !printable || blank_edge || body.ends_with(['\n', ' ', '\t']) {
        return None;
    }
    let chomp = if text.ends_with('\n') { "" } else { "-" };
    let indent = " ".repeat(indent);
    let lines: Vec<_> = body
        .split('\n')
        .map(|line| if line.is_empty() { String::new() } else { format!("{indent}{line}") })
        .collect();
    Some(format!("|{chomp}\n{}", lines.join("\n")))
}

/// Puts a decrypted leaf where its encrypted text stands. A block scalar begins on that line and goes on below it, so that a
/// comment behind the value is no part of it.
pub(super) fn placed(text: &str, span: &Range<usize>, new: Zeroizing<String>) -> Vec<Edit> {
    let Some((header, body)) = new.split_once('\n') else { return vec![(span.clone(), new)] };
    let end = line_end(text, span.end);
    let last = if end == text.len() { "\n" } else { "" };
    vec![(span.clone(), header.to_owned().into()), (end..end, format!("\n{body}{last}").into())]
}

/// Whether a block scalar on this line would swallow what stands below it: a comment that is not further left than its text.
pub(super) fn swallows(text: &str, span: &Range<usize>, indent: usize) -> bool {
    let below = text.get(line_end(text, span.end)..).unwrap_or_default();
    let next = below.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let comment = next.trim_start();
    comment.starts_with('#') && next.len() - comment.len() >= indent
}

/// Puts an encrypted leaf where its plain text stands. Of a block scalar the comment behind its header and the empty lines
/// at its end stay.
pub(super) fn sealed_over(text: &str, node: &Node, new: String) -> Vec<Edit> {
    let Kind::Scalar { style: Style::Literal | Style::Folded, .. } = node.kind else {
        return vec![(node.span.clone(), new.into())];
    };
    let written = text.get(node.span.clone()).unwrap_or_default();
    let header = node.span.start + written.find(char::is_whitespace).unwrap_or(written.len());
    let body = line_end(text, header)..node.span.start + written.trim_end().len();
    let mut edits = vec![(node.span.start..header, new.into())];
    if body.start < body.end {
        edits.push((body, Zeroizing::default()));
    }
    edits
}

/// Lets a block scalar that a file ends with, without a line break, have none when the metadata follows it.
pub(super) fn unbroken(text: &str, node: &Node) -> Option<Edit> {
    let Kind::Scalar { style: Style::Literal | Style::Folded, .. } = node.kind else { return None };
    let header = text.get(node.span.clone())?.split(char::is_whitespace).next()?;
    if node.span.end < text.len() || header.contains('-') {
        return None;
    }
    let span = node.span.start..node.span.start + header.len();
    Some((span, format!("{}-", header.replace('+', "")).into()))
}

/// The end of the line, before its line break.
fn line_end(text: &str, from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    let line = rest.split('\n').next().unwrap_or_default();
    from + line.strip_suffix('\r').unwrap_or(line).len()
}

/// The comment behind the metadata's key: sops moves one there that stood behind the last flow collection.
pub(super) fn behind_metadata<'a>(stream: &Stream, document: &'a Document) -> Option<&'a Range<usize>> {
    let Kind::Map { entries, flow: false } = &document.root.kind else { return None };
    let (key, _) = entries.iter().find(|(key, _)| key.text() == Some("sops"))?;
    let line = key.span.end..line_end(stream.text(), key.span.end);
    document.comments.iter().find(|comment| line.contains(&comment.start))
}

/// Removes the metadata block from a document.
pub(super) fn removal(stream: &Stream, document: &Document) -> Option<Edit> {
    let text = stream.text();
    let Kind::Map { entries, flow } = &document.root.kind else { return None };
    let index = entries.iter().position(|(key, _)| key.text() == Some("sops"))?;
    let (key, value) = entries.get(index)?;
    if *flow {
        let before =
            index.checked_sub(1).and_then(|before| entries.get(before)).map(|(_, value)| value.span.end);
        let after = entries.get(index + 1).map(|(key, _)| key.span.start);
        let span = match (before, after) {
            (Some(before), _) => before..value.span.end,
            (None, Some(after)) => key.span.start..after,
            (None, None) => key.span.start..value.span.end,
        };
        return Some((span, Zeroizing::default()));
    }
    let start = text.get(..key.span.start)?.rfind('\n').map_or(0, |at| at + 1);
    let end = value.span.end
        + text.get(value.span.end..)?.find('\n').map_or(text.len() - value.span.end, |at| at + 1);
    Some((start..end, if entries.len() == 1 { "{}\n" } else { "" }.to_owned().into()))
}

/// Puts the metadata block at the end of a document.
pub(super) fn insertion(
    stream: &Stream,
    document: &Document,
    format: Format,
    metadata: &Metadata,
) -> Result<Edit> {
    let text = stream.text();
    let Kind::Map { entries, flow } = &document.root.kind else {
        return Err(Error::invalid("a document that is not a map cannot be encrypted"));
    };
    let others = || entries.iter().filter(|(key, _)| key.text() != Some("sops"));
    if *flow {
        let indent = if format == Format::Json { "\t" } else { "    " };
        let block = format!("{indent}\"sops\": {}", pretty(&metadata.to_json(), indent)?);
        let (at, comma) = others()
            .next_back()
            .map_or((document.root.span.start + 1, ""), |(_, value)| (value.span.end, ","));
        return Ok((at..at, format!("{comma}\n{block}").into()));
    }
    let column = entries.first().map_or(0, |(key, _)| gap::column(text, gap::start(text, key)));
    let tail = text.get(document.root.span.end..document.span.end).unwrap_or_default();
    let at = tail.find("\n...").map_or(document.span.end, |at| document.root.span.end + at + 1);
    let eol = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let block = metadata.to_yaml(column).replace('\n', eol);
    let newline = if text.get(..at).is_some_and(|before| before.ends_with('\n')) { "" } else { eol };
    Ok((at..at, format!("{newline}{block}").into()))
}

/// JSON indented by `indent` per level, as it stands one level deep.
pub(super) fn pretty(value: &serde_json::Value, indent: &str) -> Result<String> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    serde::Serialize::serialize(value, &mut serializer).map_err(|error| Error::failed(error.to_string()))?;
    let text = String::from_utf8(out).map_err(|error| Error::failed(error.to_string()))?;
    Ok(text.replace('\n', &format!("\n{indent}")))
}

/// The text with all edits made; of two that overlap (a comment within a block scalar) the first counts.
pub(super) fn apply(text: &str, mut edits: Vec<Edit>) -> Zeroizing<String> {
    edits.sort_by_key(|(span, _)| (span.start, span.end));
    let mut out = Zeroizing::new(String::with_capacity(text.len() * 2));
    let mut at = 0;
    for (span, new) in edits.iter().filter(|(span, _)| text.get(span.clone()).is_some()) {
        if span.start >= at {
            out.push_str(text.get(at..span.start).unwrap_or_default());
            out.push_str(new);
            at = span.end;
        }
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}
