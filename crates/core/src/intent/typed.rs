//! The file's types, all faults of them at once: what is wrong is taken out of a copy of the text, so that the next one shows.

use std::ops::Range;

use super::Intent;
use super::parse::EXAMPLE_HINT;
use crate::error::{Error, Result, together};
use crate::yaml::{Node, Stream, line_column};

/// No file has more faults than a person wants to read.
const MOST: usize = 20;

/// Reads the text as what it is typed as.
///
/// # Errors
/// `Kind::Invalid` with line and column of each value that is not what its key wants, of each key that is unknown or missing.
pub(super) fn read(name: &str, text: &str) -> Result<Intent> {
    serde_yaml::from_str(text).map_err(|error| told(name, faults(text, error)))
}

/// A fault's line and column, where they are known, and what it is.
type Fault = (Option<(usize, usize)>, String);

/// The first fault, and those that show without it.
fn faults(text: &str, mut error: serde_yaml::Error) -> Vec<Fault> {
    let mut copy = Copy { text: text.to_owned(), hidden: Vec::new() };
    let tree = Stream::parse(text).ok();
    let root = tree.as_ref().and_then(|stream| match stream.documents() {
        [document] => Some(&document.root),
        _ => None,
    });
    let mut faults = Vec::new();
    for _ in 0..MOST {
        let place =
            error.location().and_then(|at| Some((at.line().try_into().ok()?, at.column().try_into().ok()?)));
        // Where a map lacks a key, the place is that of the first key that the map has.
        let missing = matches!(error.without_snippet(), serde_yaml::Error::SerdeMissingField { .. });
        let message = error.without_snippet().to_string();
        let hidden = root.zip(place).and_then(|(root, place)| copy.hide(root, place, missing));
        if faults.is_empty() || hidden == Some(Hidden::Fault) {
            faults.push((place, message));
        }
        if hidden.is_none() || Stream::parse(copy.text.as_str()).is_err() {
            break;
        }
        match serde_yaml::from_str::<Intent>(&copy.text) {
            Ok(_) => break,
            Err(next) => error = next,
        }
    }
    faults
}

/// The faults in the order of the file, with one hint for all.
fn told(name: &str, mut faults: Vec<Fault>) -> Error {
    faults.sort_by_key(|(place, _)| *place);
    let mut errors: Vec<Error> = Vec::new();
    for (place, message) in faults {
        let place = place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
        let message = message.split(" at line ").next().unwrap_or(&message);
        errors.push(Error::invalid(format!("{name}{place}: {message}")));
    }
    if let Some(last) = errors.last_mut() {
        last.hint = Some(EXAMPLE_HINT.to_owned());
    }
    together(errors).unwrap_or_else(|| Error::invalid(format!("{name}: is not understood")))
}

/// A text of which some entries are blanks.
struct Copy {
    text: String,
    hidden: Vec<Range<usize>>,
}

/// Why an entry was hidden.
#[derive(Debug, PartialEq, Eq)]
enum Hidden {
    /// It has a fault of its own.
    Fault,
    /// What was hidden of it before may be all that it lacks.
    Remains,
}

impl Copy {
    /// Hides the innermost entry at a line and column that is not hidden yet, or the one whose map begins there; None when
    /// there is none.
    fn hide(&mut self, root: &Node, place: (usize, usize), of_map: bool) -> Option<Hidden> {
        let offset = offset(&self.text, place)?;
        let mut around = Vec::new();
        entries_at(root, offset, &mut around);
        if of_map {
            around.pop_if(|entry| entry.start == offset);
        }
        let entry = around.into_iter().rev().find(|entry| !self.hidden.contains(entry))?;
        let within = |hidden: &Range<usize>| entry.start <= hidden.start && hidden.end <= entry.end;
        let why = if self.hidden.iter().any(within) { Hidden::Remains } else { Hidden::Fault };
        self.blank(&entry)?;
        self.hidden.push(entry);
        Some(why)
    }

    /// Writes blanks over an entry, and over the comma behind it.
    fn blank(&mut self, entry: &Range<usize>) -> Option<()> {
        let after = self.text.get(entry.end..)?;
        let gap = after.len() - after.trim_start().len();
        let comma = if after.trim_start().starts_with(',') { gap + 1 } else { 0 };
        let whole = entry.start..entry.end + comma;
        let blank = |c: char| if c.is_whitespace() { c.to_string() } else { " ".repeat(c.len_utf8()) };
        let blanks: String = self.text.get(whole.clone())?.chars().map(blank).collect();
        self.text.replace_range(whole, &blanks);
        Some(())
    }
}

/// The entries of maps and sequences that a byte is in, or right behind, the outermost first.
fn entries_at(node: &Node, offset: usize, found: &mut Vec<Range<usize>>) {
    let pairs =
        node.entries().iter().map(|(key, value)| (key.span.start..value.span.end.max(key.span.end), value));
    let items = node.items().iter().map(|item| (item.span.clone(), item));
    for (span, value) in pairs.chain(items) {
        if span.start <= offset && offset <= span.end {
            found.push(span);
            return entries_at(value, offset, found);
        }
    }
}

/// The byte at a line and column, both from 1.
fn offset(text: &str, (line, column): (usize, usize)) -> Option<usize> {
    let start: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let rest = text.get(start..)?.lines().next().unwrap_or_default();
    let within: usize = rest.chars().take(column.checked_sub(1)?).map(char::len_utf8).sum();
    let found = start + within;
    debug_assert!(found == text.len() || line_column(text, found).0 == line);
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: nodeprep.dev/v1alpha1
kind: Cluster
metadata: {name: home}
volumes:
  - name: data
    disk: {match: nvme}
nodes:
  - address: 10.0.0.1
backup:
  location: {bucket: b, region: us-east-1}
  secrets: [s.yaml]
";

    /// The lines of the faults that are told, each with the beginning of what is said.
    fn faults(edits: &[(&str, &str)]) -> Vec<String> {
        let text = edits.iter().fold(GOOD.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        let Err(error) = read("f", &text) else { return Vec::new() };
        let lines = error.what.lines().map(|line| line.trim_start_matches("- "));
        let lines = lines.filter(|line| line.starts_with("f:"));
        lines.map(|line| line.chars().take(24).collect::<String>()).collect()
    }

    #[test]
    fn all_faults_of_types_are_told_at_once_and_none_that_is_only_their_shadow() {
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            (&[], &[]),
            (&[("kind: Cluster", "kind: [x]")], &["f:2"]),
            (&[("bucket: b", "bukket: b"), ("name: data", "nme: data")], &["f:5", "f:10"]),
            (
                &[("metadata: {name: home}", "metadata: {name: [home]}"), ("[s.yaml]", "s.yaml")],
                &["f:3", "f:11"],
            ),
            (
                &[("address: 10.0.0.1", "addres: 10.0.0.1"), ("region: us-east-1", "region: {}")],
                &["f:8", "f:10"],
            ),
            (
                &[("nodes:\n", "nods:\n"), ("volumes:\n", "volums:\n"), ("secrets:", "secret:")],
                &["f:4", "f:7", "f:11"],
            ),
        ];
        for (edits, lines) in cases {
            let found = faults(edits);
            let lines_of = |fault: &String| fault.split(':').take(2).collect::<Vec<_>>().join(":");
            let places: Vec<String> = found.iter().map(lines_of).collect();
            assert_eq!(places, *lines, "{edits:?}: {found:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_file_with_anything_in_it_is_read_or_refused(edits in proptest::collection::vec((0..GOOD.len(), 0..4usize, "[a-z:{}\\[\\],\n \\-&*é\"]{0,3}"), 1..6)) {
            let mut chars: Vec<char> = GOOD.chars().collect();
            for (at, length, new) in edits {
                let at = at.min(chars.len());
                let end = (at + length).min(chars.len());
                chars.splice(at..end, new.chars());
            }
            let text: String = chars.into_iter().collect();
            let good = serde_yaml::from_str::<Intent>(&text).is_ok();
            proptest::prop_assert_eq!(read("f", &text).is_ok(), good, "{}", text);
        }
    }
}
