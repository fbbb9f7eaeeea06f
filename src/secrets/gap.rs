//! Whose a comment is that stands on its own line where collections end, as go-yaml v3 reads it (and so sops, which binds an
//! encrypted comment to the keys above it).
//!
//! Comments that follow each other without an empty line, none of them further left, are one group. A group right below a
//! value, with an empty line behind it, is about that value; one right above a key is about the key, if it starts in the
//! key's column. What is further right than the key is about what ends there: the innermost collection, or the one whose
//! column it starts in.

use std::ops::Range;

use crate::yaml::Node;

/// An open block collection. A list that is not further right than its key is none of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    pub column: usize,
    pub map: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The innermost collection that ends here.
    Innermost,
    /// The open collection with this number.
    Level(usize),
    /// Whatever comes next.
    Next,
}

/// The text between what ends and what comes next.
pub(super) struct Gap<'t> {
    pub text: &'t str,
    pub prior_end: usize,
    /// Whether no value is written behind the last key or dash.
    pub prior_is_empty: bool,
    pub next: usize,
    pub next_column: usize,
}

/// One group of comments that is about something earlier.
struct Foot {
    comments: usize,
    column: usize,
    start: usize,
    /// From where on the end of a collection takes it; `None` if it is the last value's.
    mark: Option<usize>,
}

struct Scan {
    feet: Vec<Foot>,
    group: Option<Foot>,
    /// The group stands right below the last value.
    below: bool,
    no_empty_line_yet: bool,
    mark: Option<usize>,
}

impl Scan {
    fn close(&mut self, mark: Option<usize>, now: usize) {
        if let Some(group) = self.group.take() {
            self.feet.push(Foot { mark, ..group });
        }
        self.mark = Some(now);
    }

    fn empty_line(&mut self, indent: usize, prior_is_empty: bool, now: usize) {
        let first = std::mem::take(&mut self.no_empty_line_yet);
        match self.group.as_ref().map(|group| (group.start, group.column)) {
            Some((start, column)) if first && column < indent => self.close(Some(start), now),
            Some(_) if first && self.below && !prior_is_empty => self.close(self.mark, now),
            _ => {}
        }
    }

    /// Something in another column, further left than what is open.
    fn dedent(&mut self, column: usize, indent: usize, now: usize) {
        if self.group.as_ref().is_some_and(|group| column < indent && column != group.column) {
            self.close(self.mark, now);
        }
    }
}

/// The fates of the comments in a gap, in their order.
pub(super) fn fates(gap: &Gap<'_>, levels: &[Level], comments: &[Range<usize>]) -> Vec<Fate> {
    let indent = levels.last().map_or(0, |level| level.column);
    let lines = |from: usize, to: usize| gap.text.get(from..to).map_or(0, |text| text.matches('\n').count());
    let mut end = gap.prior_end;
    let first = comments.first().map_or(0, |comment| lines(end, comment.start));
    let mut scan =
        Scan { feet: Vec::new(), group: None, below: first == 1, no_empty_line_yet: first <= 1, mark: None };
    for (number, comment) in comments.iter().enumerate() {
        let column = column(gap.text, comment.start);
        if number > 0 && lines(end, comment.start) > 1 {
            scan.empty_line(indent, gap.prior_is_empty, end);
        }
        scan.dedent(column, indent, comment.start);
        match &mut scan.group {
            Some(group) => group.comments += 1,
            None => {
                scan.below &= number == 0;
                scan.group = Some(Foot { comments: 1, column, start: comment.start, mark: None });
            }
        }
        end = comment.end;
    }
    if lines(end, gap.next) > 1 {
        scan.empty_line(indent, gap.prior_is_empty, end);
    }
    scan.dedent(gap.next_column, indent, gap.next);
    let mut fates = taken(&scan.feet, levels, gap.next_column);
    fates.resize(comments.len(), Fate::Next);
    fates
}

/// Which of the collections that end takes each group.
fn taken(feet: &[Foot], levels: &[Level], next_column: usize) -> Vec<Fate> {
    let mut fates = Vec::new();
    // Where the collections of a level end: at the first comment in their column, else where those within them do.
    let mut ends = Vec::new();
    let mut at = None;
    for (number, level) in levels.iter().enumerate().rev().filter(|(_, level)| level.column > next_column) {
        at = feet.iter().find(|foot| foot.column == level.column).map(|foot| foot.start).or(at);
        ends.push((number, at));
    }
    for foot in feet {
        let fate = match foot.mark {
            None => Fate::Innermost,
            Some(mark) => {
                let level =
                    ends.iter().find(|(_, at)| at.is_some_and(|at| at >= mark)).map(|(number, _)| *number);
                level.map_or(Fate::Next, |number| map_at(levels, number, next_column))
            }
        };
        fates.extend(std::iter::repeat_n(fate, foot.comments));
    }
    fates
}

/// A list hands what it would take on to the map that it is in.
fn map_at(levels: &[Level], number: usize, next_column: usize) -> Fate {
    let open = levels.iter().enumerate().take(number + 1).rev();
    let map = open.into_iter().find(|(_, level)| level.map);
    map.filter(|(_, level)| level.column > next_column).map_or(Fate::Next, |(number, _)| Fate::Level(number))
}

/// Where a node starts, its tag included.
pub(super) fn start(text: &str, node: &Node) -> usize {
    if node.tag.is_none() {
        return node.span.start;
    }
    let before = text.get(..node.span.start).unwrap_or_default().trim_end();
    let word = before.rfind(char::is_whitespace).unwrap_or_default();
    let tag = before.get(word..).and_then(|word| word.find('!'));
    tag.map_or(node.span.start, |tag| word + tag)
}

/// The column of a byte, from 0.
pub(super) fn column(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rfind('\n').map_or(before, |at| before.get(at + 1..).unwrap_or_default());
    line.trim_start_matches('\u{feff}').chars().count()
}
