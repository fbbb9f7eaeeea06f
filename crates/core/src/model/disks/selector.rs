//! Disk selectors: the CEL expressions that Talos evaluates over its disks, and presets that stand for some.
//!
//! Talos checks types before it evaluates. The `cel` crate reads and evaluates and does not check, so `check.rs` does,
//! against the closed table of `types.rs`: what Talos refuses is refused, at its column; of what Talos takes, that
//! which can't be answered for certain as Talos would is refused as well.

mod advice;
mod check;
mod cost;
mod environment;
mod pattern;
mod preset;
mod types;
mod words;

use std::cell::Cell;

use cel::Value;
use cel::common::ast::IdedExpr;
use cel::parser::Parser;

use self::check::Checker;
pub use self::environment::{NEWEST, Release};
use self::environment::{context, library};
pub use self::preset::Selector;
use super::Disk;
use crate::error::{Error, Result};

/// Longer expressions are refused: reading and evaluating them is recursive, and as deep as they are long.
const MOST_BYTES: usize = 4096;

/// The stack for that, in bytes; only what is used of it is ever taken from the system.
const STACK: usize = 256 << 20;

/// Something wrong in an expression.
struct Mistake {
    /// Where, in bytes from its beginning.
    offset: usize,
    what: String,
    hint: Option<String>,
}

impl Mistake {
    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Whether a release of Talos takes the expression.
///
/// # Errors
/// `Kind::Invalid` with the expression, the column and what to write instead.
pub fn accept(expression: &str, talos: Release) -> Result<()> {
    with_stack(expression, || read(expression, talos).map(|_| ()))
}

/// The indices of the disks an expression matches, in their order.
///
/// # Errors
/// `Kind::Invalid` as [`accept`] on the newest Talos, or when the expression fails on a disk, by a division by zero
/// or the like.
pub fn select(expression: &str, disks: &[Disk]) -> Result<Vec<usize>> {
    with_stack(expression, || evaluate(expression, disks))
}

fn with_stack<T: Send>(expression: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if expression.len() > MOST_BYTES {
        return Err(Error::invalid(format!("a disk selector is longer than {MOST_BYTES} bytes")));
    }
    deep(work).map_err(|error| error.at(format!("the disk selector `{expression}`")))?
}

thread_local! {
    /// This thread has the stack that selectors need.
    static DEEP: Cell<bool> = const { Cell::new(false) };
}

/// Runs something that evaluates many selectors where there is stack enough for all of them; one alone sees to it itself.
///
/// # Errors
/// There is no thread to be had, or it panicked.
pub fn deep<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    if DEEP.get() {
        return Ok(work());
    }
    let joined = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let work = || {
            DEEP.set(true);
            work()
        };
        thread.spawn_scoped(scope, work).map(|thread| thread.join())
    });
    match joined {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(Error::invalid("cannot be read")),
        Err(error) => Err(Error::failed(format!("no thread for it: {error}"))),
    }
}

/// Reads and checks an expression; the tree is good for evaluation only.
fn read(expression: &str, talos: Release) -> Result<IdedExpr> {
    let wrong = |place: &str, what: &str, hint: Option<String>| {
        let error = Error::invalid(format!("the disk selector `{expression}`, {place}: {what}"));
        hint.into_iter().fold(error, Error::hint)
    };
    let (mut tree, source) = Parser::new().parse_with_source_info(expression).map_err(|errors| {
        let first = errors.errors.first();
        let what = first.map_or("", |first| first.msg.split(" expecting").next().unwrap_or_default());
        let what = what.trim_start_matches("Syntax error: ");
        let (line, column) = first.map_or((1, 1), |first| first.pos);
        let place =
            if line > 1 { format!("line {line}, column {column}") } else { format!("column {column}") };
        wrong(&place, &format!("cannot be read: {what}"), Some(words::unreadable(expression)))
    })?;
    let checked = Checker::new(expression, &source, talos).whole(&mut tree);
    checked
        .map_err(|mistake| wrong(&words::place(expression, mistake.offset), &mistake.what, mistake.hint))?;
    if cost::of(&tree) > cost::MOST {
        let hint = "nest fewer of all, exists, map and filter, over shorter lists".to_owned();
        return Err(wrong("column 1", "would take too long", Some(hint)));
    }
    Ok(tree)
}

fn evaluate(expression: &str, disks: &[Disk]) -> Result<Vec<usize>> {
    let wrong = |what: String| Error::invalid(format!("the disk selector `{expression}`: {what}"));
    let (tree, library) = (read(expression, NEWEST)?, library());
    let mut matches = Vec::new();
    for (index, disk) in disks.iter().enumerate() {
        let context = context(&library, disk).map_err(&wrong)?;
        match Value::resolve(&tree, &context) {
            Ok(Value::Bool(true)) => matches.push(index),
            Ok(Value::Bool(false)) => {}
            Ok(other) => {
                return Err(wrong(format!("gives {}, and true or false is needed", other.type_of())));
            }
            Err(error) => return Err(wrong(format!("fails on disk {}: {error}", disk.id))),
        }
    }
    Ok(matches)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests;
