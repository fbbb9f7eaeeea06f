//! Writes a tree as YAML text that reads back as the same meaning, here and in go-yaml.

use std::fmt::Write as _;

use super::{Kind, Node, Style, Value, resolve};

/// The text as a double-quoted scalar.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}' => escape(&mut out, char),
            char if char.is_control() => escape(&mut out, char),
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

fn escape(out: &mut String, char: char) {
    let code = u32::from(char);
    // Writing to a String cannot fail.
    let _ = if code < 0x100 { write!(out, "\\x{code:02x}") } else { write!(out, "\\u{code:04x}") };
}

/// The text as a plain scalar where that is safe everywhere, else double-quoted.
pub fn string(text: &str) -> String {
    let mut bytes = text.bytes();
    let starts =
        bytes.next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'/' || first == b'_');
    let plain = starts
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._/-+@%=".contains(&byte))
        && matches!(resolve(text, true, None), Value::Str(_))
        && !matches!(text.to_ascii_lowercase().as_str(), "y" | "n" | "yes" | "no" | "on" | "off");
    if plain { text.to_owned() } else { quote(text) }
}

fn scalar(node: &Node, text: &str, style: Style) -> String {
    match (style, node.scalar()) {
        (Style::Plain, Some(Value::Null)) => "null".to_owned(),
        (Style::Plain, Some(Value::Str(_))) => string(text),
        (Style::Plain, _) => text.to_owned(),
        _ => quote(text),
    }
}

/// The node on one line, collections in flow style.
pub fn inline(node: &Node) -> String {
    match &node.kind {
        Kind::Scalar { text, style } => scalar(node, text, *style),
        Kind::Seq { items, .. } => {
            format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", "))
        }
        Kind::Map { entries, .. } => {
            let entries: Vec<_> =
                entries.iter().map(|(k, v)| format!("{}: {}", inline(k), inline(v))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// One map entry in block style as lines that each end in `\n`, the key indented by `indent` and what is below it
/// by `step` more.
pub fn write_block(out: &mut String, key: &Node, value: &Node, indent: usize, step: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
    write_entry(out, key, value, indent, step);
}

fn write_entry(out: &mut String, key: &Node, value: &Node, indent: usize, step: usize) {
    out.push_str(&inline(key));
    out.push(':');
    write_value(out, value, indent, step);
}

/// What stands behind the colon of a block map's key at column `indent`, up to and with the `\n`.
pub fn write_value(out: &mut String, value: &Node, indent: usize, step: usize) {
    match &value.kind {
        Kind::Map { entries, .. } if !entries.is_empty() => {
            out.push('\n');
            for (key, value) in entries {
                write_block(out, key, value, indent + step, step);
            }
        }
        Kind::Seq { items, .. } if !items.is_empty() => {
            out.push('\n');
            for item in items {
                write_item(out, item, indent + step, step);
            }
        }
        _ => match block_text(value) {
            Some(text) => write_literal(out, text, indent + step),
            None => {
                out.push(' ');
                out.push_str(&inline(value));
                out.push('\n');
            }
        },
    }
}

/// One item of a block list, its dash at column `indent`, up to and with the `\n`.
pub fn write_item(out: &mut String, item: &Node, indent: usize, step: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
    out.push_str("- ");
    match &item.kind {
        Kind::Map { entries, .. } if !entries.is_empty() => {
            for (number, (key, value)) in entries.iter().enumerate() {
                let margin = if number == 0 { 0 } else { indent + 2 };
                out.extend(std::iter::repeat_n(' ', margin));
                write_entry(out, key, value, indent + 2, step);
            }
        }
        _ => {
            out.push_str(&inline(item));
            out.push('\n');
        }
    }
}

/// Whether a value stands behind its key on one line.
pub fn is_on_one_line(node: &Node) -> bool {
    match &node.kind {
        Kind::Scalar { .. } => block_text(node).is_none(),
        Kind::Map { entries, .. } => entries.is_empty(),
        Kind::Seq { items, .. } => items.is_empty(),
    }
}

/// The text of a string of several lines, if a literal block can hold it just as it is.
fn block_text(node: &Node) -> Option<&str> {
    let text = node.as_str()?;
    let lines = text.strip_suffix('\n').unwrap_or(text);
    let odd = |char: char| {
        (char.is_control() && char != '\n')
            || matches!(char, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
    };
    let fits = lines.contains('\n')
        && !lines.ends_with('\n')
        && !lines.starts_with([' ', '\n'])
        && !lines.chars().any(odd)
        && lines.lines().all(|line| line.is_empty() || !line.trim().is_empty());
    fits.then_some(text)
}

fn write_literal(out: &mut String, text: &str, indent: usize) {
    out.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
    for line in text.lines() {
        if !line.is_empty() {
            out.extend(std::iter::repeat_n(' ', indent));
            out.push_str(line);
        }
        out.push('\n');
    }
}
