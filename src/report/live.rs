//! Live progress on a terminal: a spinner for each running step, finished ones above it.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Reader, plain};
use crate::event::{Event, What};

/// Spinners are redrawn this often; fast enough to look alive, slow enough for a serial console.
const TICK: Duration = Duration::from_millis(120);

pub(super) struct Live {
    screen: MultiProgress,
    running: HashMap<String, (ProgressBar, String)>,
    colour: bool,
}

impl Live {
    pub(super) fn new() -> Self {
        Self { screen: MultiProgress::new(), running: HashMap::new(), colour: super::colour(true) }
    }

    fn start(&mut self, key: String, title: String) {
        let bar = self.screen.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {wide_msg} {elapsed}") {
            bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
        }
        bar.set_message(title.clone());
        bar.enable_steady_tick(TICK);
        self.running.insert(key, (bar, title));
    }

    fn finish(&mut self, key: &str, event: &Event) {
        let line = plain::line(event, self.colour, false);
        if let Some((bar, title)) = self.running.remove(key) {
            bar.finish_and_clear();
            if let What::StepDone { changed } = &event.what {
                let mark = super::verdicts::mark("pass", self.colour);
                let how = if *changed { "" } else { " (unchanged)" };
                return self.print(&format!("  {mark} {title}{how}"));
            }
        }
        if let Some(line) = line {
            self.print(&line);
        }
    }

    fn print(&self, line: &str) {
        let _ = self.screen.println(line);
    }
}

impl Reader for Live {
    fn read(&mut self, event: &Event) {
        let target = event.target.clone().unwrap_or_default();
        let key = format!("{target}/{}", event.step.as_deref().unwrap_or_default());
        match &event.what {
            What::StepStarted { title } if target.is_empty() || target == "cluster" => {
                self.start(key, title.clone())
            }
            What::StepStarted { title } => self.start(key, format!("{target}: {title}")),
            What::Waiting { .. } => {
                // The newest reason is what there is to read; with the title before it, it would be cut off.
                let line = plain::line(event, self.colour, false).unwrap_or_default();
                if let Some((bar, _)) = self.running.get(&key) {
                    bar.set_message(line.trim().to_owned());
                }
            }
            What::StepDone { .. }
            | What::StepFailed { .. }
            | What::StepSkipped { .. }
            | What::Checked { .. } => {
                self.finish(&key, event);
            }
            _ => {
                if let Some(line) = plain::line(event, self.colour, false) {
                    self.print(&line);
                }
            }
        }
    }
}
