//! Variables in a talconfig.yaml, as github.com/a8m/envsubst v1.4.3 fills them in for talhelper, where an unset or empty one is
//! an error; and the files that talhelper takes them from.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Around;

/// Stands before what could not be filled in; only a value that is read must be whole.
pub(super) const UNSET: char = '\u{f8ff}';

/// The files beside a talconfig.yaml that set variables; the later one wins.
const FILES: [&str; 4] = ["talenv.yaml", "talenv.sops.yaml", "talenv.yml", "talenv.sops.yml"];

/// The variables of these files. A file that can't be read gets a note.
pub(super) fn variables(around: &dyn Around, notes: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut known = BTreeMap::new();
    for file in FILES {
        match around.read(file) {
            Ok(text) => {
                text.iter().flat_map(|text| text.lines()).for_each(|line| set(line, &mut known, around))
            }
            Err(e) => notes.push(format!("{file} was not looked at: {}", e.what)),
        }
    }
    known
}

/// A line of such a file: `NAME: value` or `NAME=value`.
fn set(line: &str, known: &mut BTreeMap<String, String>, around: &dyn Around) {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let Some((name, value)) = line.split_once(['=', ':']).filter(|_| !line.starts_with('#')) else { return };
    let value = value.trim();
    let quoted =
        |quote: char| value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)).map(|(text, _)| text);
    let value = match (quoted('\''), quoted('"')) {
        (Some(text), _) => text.to_owned(),
        (None, text) => {
            let bare = || value.split_once(" #").map_or(value, |(value, _)| value).trim_end();
            let text = text.unwrap_or_else(bare);
            substitute(text, &[], &|name| known.get(name).cloned().or_else(|| around.variable(name)))
        }
    };
    known.insert(name.trim().to_owned(), value);
}

/// The text with its variables filled in, but for the ranges to be left alone.
pub(super) fn substitute(text: &str, alone: &[Range<usize>], get: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('$')).map(|found| at + found) {
        out.push_str(text.get(at..found).unwrap_or_default());
        let rest = text.get(found..).unwrap_or_default();
        let (value, length) = match alone.iter().any(|range| range.contains(&found)) {
            true => (Some("$".to_owned()), 1),
            false => variable(rest, get),
        };
        let written = rest.get(..length).unwrap_or_default();
        match value {
            Some(value) => out.push_str(&value),
            None => out.extend([UNSET.to_string().as_str(), written]),
        }
        at = found + length.max(1);
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

/// What stands for the variable that a text begins with, if it is set; and how long it is.
fn variable(text: &str, get: &dyn Fn(&str) -> Option<String>) -> (Option<String>, usize) {
    let after = text.get(1..).unwrap_or_default();
    if after.starts_with('$') {
        return (Some("$".to_owned()), 2);
    }
    let Some(inner) = after.strip_prefix('{') else {
        let name = name_of(after);
        return match name {
            "" | "_" => (Some("$".to_owned()), 1),
            name => (get(name).filter(|value| !value.is_empty()), 1 + name.len()),
        };
    };
    let line = inner.lines().next().unwrap_or_default();
    let Some(end) = line.find('}') else { return (None, text.len() - inner.len()) };
    let (name, rest) = line.get(..end).unwrap_or_default().split_at(name_of(line).len());
    if name.is_empty() {
        return (Some("${".to_owned()), 2);
    }
    let value = get(name);
    let filled = value.clone().filter(|value| !value.is_empty());
    let default = |from: &str| match from.strip_prefix('$') {
        Some(name) => get(name).filter(|value| !value.is_empty()),
        None => Some(from.to_owned()),
    };
    let operator = |signs: &[&str]| signs.iter().find_map(|sign| rest.strip_prefix(sign));
    let meant = if let Some(other) = operator(&[":-", ":="]) {
        filled.or_else(|| default(other))
    } else if let Some(other) = operator(&[":+", "+"]) {
        if value.is_some() { default(other) } else { Some(String::new()) }
    } else if let Some(other) = operator(&["-", "="]) {
        if value.is_some() { filled } else { default(other) }
    } else {
        filled
    };
    (meant, 2 + end + 1)
}

fn name_of(text: &str) -> &str {
    let end = text.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_as_talhelper_does() {
        let get = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, filled) in [
            ("x ${A} $A. $A", "x one one. one"),
            ("$$A ^x$ a$ $_ $", "$A ^x$ a$ $_ $"),
            ("${B:-two} ${EMPTY:-two} ${B-two} ${B:-$A} ${A:-two}", "two two two one one"),
            ("${A:+yes} ${B:+yes}!", "yes !"),
            ("${B} ${EMPTY} $B/", "\u{f8ff}${B} \u{f8ff}${EMPTY} \u{f8ff}$B/"),
            ("${A", "\u{f8ff}${A"),
            ("${}", "${}"),
        ] {
            assert_eq!(substitute(text, &[], &get), filled, "{text}");
        }
        let comment = 3..7;
        assert_eq!(substitute("$A # $A", std::slice::from_ref(&comment), &get), "one # $A");
    }
}
