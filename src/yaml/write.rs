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
    out.push_str(&inline(key));
    out.push(':');
    block_value(out, value, indent, step);
}

fn block_value(out: &mut String, value: &Node, indent: usize, step: usize) {
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
                out.extend(std::iter::repeat_n(' ', indent + step));
                out.push_str("- ");
                out.push_str(&inline(item));
                out.push('\n');
            }
        }
        _ => {
            out.push(' ');
            out.push_str(&inline(value));
            out.push('\n');
        }
    }
}
