//! How much an expression can cost at most: macros in macros over lists that macros made grow without bounds, and
//! nothing stops an evaluation once it runs.

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};

use super::environment::{FIELDS, Read, TEXT, TEXTS};

/// Steps on one disk, of which a slow machine does about a million a second.
pub(super) const MOST: u64 = 2_000_000;

/// A regular expression is compiled again each time.
const PATTERN: u64 = 5_000;

/// How large a value can be.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Elements of a list or map, characters of a text.
    length: u64,
    /// The largest element, with all in it.
    each: u64,
    /// All of it.
    whole: u64,
}

const ONE: Size = Size { length: 1, each: 1, whole: 1 };
const NONE: Size = Size { length: 0, each: 0, whole: 0 };
const DISK: Size = Size { length: 32, each: TEXT * TEXTS, whole: TEXT * TEXTS * 3 };

impl Size {
    const fn text(length: u64) -> Self {
        Self { length, each: 1, whole: length.saturating_add(1) }
    }

    /// An element of it, of which no more is known.
    const fn element(self) -> Self {
        Self { length: self.each, each: self.each, whole: self.each }
    }

    fn or(self, other: Self) -> Self {
        Self {
            length: self.length.max(other.length),
            each: self.each.max(other.each),
            whole: self.whole.max(other.whole),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            length: self.length.saturating_add(other.length),
            each: self.each.max(other.each),
            whole: self.whole.saturating_add(other.whole),
        }
    }
}

/// The steps that evaluating a checked expression on one disk takes at most.
pub(super) fn of(expression: &IdedExpr) -> u64 {
    let mut meter = Meter { work: 0, times: 1, variables: Vec::new() };
    meter.size(expression);
    meter.work
}

struct Meter<'e> {
    work: u64,
    /// How often what is looked at is evaluated.
    times: u64,
    variables: Vec<(&'e str, Size)>,
}

impl<'e> Meter<'e> {
    fn spend(&mut self, steps: u64) {
        self.work = self.work.saturating_add(self.times.saturating_mul(steps));
    }

    fn size(&mut self, it: &'e IdedExpr) -> Size {
        self.spend(1);
        match &it.expr {
            Expr::Literal(LiteralValue::String(text)) => Size::text(text.inner().len() as u64),
            Expr::Literal(LiteralValue::Bytes(bytes)) => Size::text(bytes.inner().len() as u64),
            Expr::Ident(name) => {
                let variable = self.variables.iter().rev().find(|(known, _)| known == name);
                let global = if self.is_disk(it) { DISK } else { ONE };
                variable.map_or(global, |(_, size)| *size)
            }
            Expr::Select(select) => {
                let operand = self.size(&select.operand);
                if !self.is_disk(&select.operand) {
                    return operand.element();
                }
                match FIELDS.iter().find(|field| field.name == select.field).map(|field| field.read) {
                    Some(Read::Text(_)) => Size::text(TEXT),
                    Some(Read::Texts(_)) => Size { length: TEXTS, each: TEXT, whole: TEXTS * (TEXT + 1) },
                    _ => ONE,
                }
            }
            Expr::Call(call) => {
                let operands: Vec<Size> =
                    call.target.as_deref().into_iter().chain(&call.args).map(|arg| self.size(arg)).collect();
                let whole = operands.iter().fold(0, |sum: u64, size| sum.saturating_add(size.whole));
                self.spend(whole.saturating_add(if call.func_name == "matches" { PATTERN } else { 0 }));
                result(&call.func_name, &operands, whole)
            }
            Expr::List(list) => self.all(list.elements.iter()),
            Expr::Map(map) => self.all(map.entries.iter().flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            })),
            Expr::Comprehension(it) => self.comprehension(it),
            Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => ONE,
        }
    }

    /// Whether it is the disk itself, and no variable of a macro.
    fn is_disk(&self, it: &IdedExpr) -> bool {
        matches!(&it.expr, Expr::Ident(name) if name.trim_start_matches('.') == "disk"
            && self.variables.iter().all(|(known, _)| known != name))
    }

    fn all(&mut self, parts: impl Iterator<Item = &'e IdedExpr>) -> Size {
        let mut all = NONE;
        for part in parts {
            let size = self.size(part);
            all = all.and(Size { length: 1, each: size.whole, whole: size.whole.saturating_add(1) });
        }
        self.spend(all.whole);
        all
    }

    fn comprehension(&mut self, it: &'e ComprehensionExpr) -> Size {
        let range = self.size(&it.iter_range);
        let (depth, times) = (self.variables.len(), self.times);
        self.variables.push((&it.accu_var, NONE));
        self.variables.push((&it.iter_var, range.element()));
        self.times = times.saturating_mul(range.length);
        self.size(&it.loop_cond);
        let step = self.size(&it.loop_step);
        self.variables.truncate(depth);
        self.times = times;
        // What one round adds to a list, as many times as there are rounds.
        let whole = step.whole.saturating_mul(range.length).saturating_add(1);
        Size { length: step.length.saturating_mul(range.length), each: step.each, whole }
    }
}

fn result(function: &str, operands: &[Size], whole: u64) -> Size {
    match (function, operands) {
        ("_+_", [left, right]) => left.and(*right),
        ("_?_:_", [_, yes, no]) => yes.or(*no),
        ("_[_]", [container, _]) => container.element(),
        ("string" | "bytes", _) => Size::text(whole.saturating_mul(4).saturating_add(24)),
        _ => ONE,
    }
}
