//! One line an event, for pipes, logs and CI.

use std::io::Write;

use super::Reader;
use super::verdicts::{describe, mark};
use crate::event::{Event, What};

pub(super) struct Plain<W> {
    out: W,
    colour: bool,
    verbose: bool,
    last: String,
}

impl<W: Write> Plain<W> {
    pub(super) fn new(out: W, colour: bool, verbose: bool) -> Self {
        Self { out, colour, verbose, last: String::new() }
    }
}

impl<W: Write + Send> Reader for Plain<W> {
    fn read(&mut self, event: &Event) {
        let Some(text) = line(event, self.colour, self.verbose) else { return };
        // A wait repeats itself; saying it once is enough.
        if text != self.last {
            let _ = writeln!(self.out, "{text}");
            self.last = text;
        }
    }
}

/// The event as one line, or nothing when it says nothing new to people.
pub(super) fn line(event: &Event, colour: bool, verbose: bool) -> Option<String> {
    let place = match (&event.target, &event.step) {
        (Some(target), _) if target != "cluster" => format!("{target}: "),
        _ => String::new(),
    };
    let text = match &event.what {
        What::RunStarted { verb, steps, simulated, .. } => {
            format!("{verb}: steps to do: {steps}{}", if *simulated { " (simulated)" } else { "" })
        }
        What::StepStarted { title } => format!("  … {place}{title}"),
        What::Waiting { what, last } if last.is_empty() => format!("    {place}waiting for {what}"),
        What::Waiting { what, last } => format!("    {place}waiting for {what}: {last}"),
        What::Note { message } if verbose => format!("    {place}{message}"),
        What::Note { .. } => return None,
        What::Warning { message } => format!("  ! {place}{message}"),
        What::StepDone { changed } => {
            format!("  {} {place}{}", mark("pass", colour), if *changed { "done" } else { "unchanged" })
        }
        What::StepSkipped { why } => format!("  - {place}skipped: {why}"),
        What::StepFailed { error, hint } => {
            let hint = hint.as_ref().map_or_else(String::new, |hint| format!("\n    hint: {hint}"));
            format!("  {} {place}{error}{hint}", mark("fail", colour))
        }
        What::Checked { check } => format!("  {}", describe(check, colour)),
        What::RunFinished { summary, .. } => summary.clone(),
    };
    Some(text)
}
