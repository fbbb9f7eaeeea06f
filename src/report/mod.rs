//! The readers of events and verdicts, and the only code that writes to the terminal.

mod jsonl;
mod live;
mod plain;
mod plan;
mod table;
mod verdicts;

pub use live::Busy;
pub use plan::{json as plan_json, text as plan_text};
pub use table::{Cell, render as table};
pub use verdicts::{json as verdicts_json, table as verdicts_table};

use std::io::{IsTerminal, Write};
use std::sync::Mutex;

use crate::config_doc;
use crate::event::{Event, Events};
use crate::state;

/// How progress is shown while something runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Progress {
    /// Live on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// A spinner per running step.
    Live,
    /// A line per event.
    Plain,
    /// A JSON object per event.
    Jsonl,
    /// Nothing.
    None,
}

/// Reads events one by one.
pub trait Reader: Send {
    fn read(&mut self, event: &Event);
}

/// Whether somebody is there to be asked.
pub fn somebody() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// A stream whose events are shown on stderr in the wanted way.
pub fn events(progress: Progress, verbose: bool) -> Events {
    let terminal = std::io::stderr().is_terminal();
    let reader: Box<dyn Reader> = match progress {
        Progress::None => return Events::new(state::now, |_| {}),
        Progress::Live => Box::new(live::Live::new(verbose)),
        Progress::Auto if terminal => Box::new(live::Live::new(verbose)),
        Progress::Auto | Progress::Plain => {
            let style = plain::Style { colour: colour(terminal), verbose };
            Box::new(plain::Plain::new(std::io::stderr(), style))
        }
        Progress::Jsonl => Box::new(jsonl::Jsonl::new(std::io::stderr())),
    };
    let reader = Mutex::new(reader);
    Events::new(state::now, move |mut event| {
        event.what.texts(&mut |text| *text = config_doc::hide(text));
        if let Ok(mut reader) = reader.lock() {
            reader.read(&event);
        }
    })
}

/// Shows that something goes on that has no steps, where progress is live.
pub fn busy(progress: Progress, text: &str) -> Option<Busy> {
    matches!(progress, Progress::Auto | Progress::Live).then(|| Busy::with(text))
}

/// Colour is used on a terminal unless `NO_COLOR` is set (https://no-color.org).
fn colour(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes data to stdout; a closed pipe is the reader's choice, not an error.
pub fn stdout(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Writes a message for people to stderr.
pub fn stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// An error as people read it: what, then the hint on its own line.
pub fn error(error: &crate::error::Error) {
    let mut text = format!("error: {}\n", error.what);
    if let Some(hint) = &error.hint {
        text.push_str(&format!("hint: {hint}\n"));
    }
    stderr(&config_doc::hide(&text));
}
