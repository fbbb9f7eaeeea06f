//! The events of a YAML text. A package of its own, because the parser's generic code is compiled where it is used: here for
//! speed, while the program is compiled for size.

pub use granit_parser::{Event, ScalarStyle, Span, StructureStyle, Tag};
use granit_parser::{Parser, options};

/// Where a text is not YAML, and why. Lines count from 1, columns from 1.
#[derive(Debug)]
pub struct Fault {
    pub line: usize,
    pub column: usize,
    pub what: String,
}

/// Hands the events on until `each` says that it has enough.
///
/// # Errors
/// The text is not YAML.
pub fn events<'t>(text: &'t str, each: &mut dyn FnMut(Event<'t>, Span) -> bool) -> Result<(), Fault> {
    // Machine configs with their documentation hold comment blocks of thousands of lines.
    let options = options! { max_buffered_comment_events: text.len() };
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| {
            let mark = error.marker();
            Fault { line: mark.line(), column: mark.col() + 1, what: error.info().to_string() }
        })?;
        if !each(event, span) {
            break;
        }
    }
    Ok(())
}
