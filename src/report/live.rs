//! Live progress on a terminal: a spinner for each running step, finished ones above it.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Reader, plain};
use crate::event::{Event, What};

/// Spinners are redrawn this often; fast enough to look alive, slow enough for a serial console.
const TICK: Duration = Duration::from_millis(120);

/// A spinner on stderr until it is dropped, when stderr is a terminal; then nothing is left of it.
#[derive(Debug)]
pub struct Busy(ProgressBar);

impl Busy {
    pub fn with(text: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        spin(&bar, text.to_owned());
        Self(bar)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn spin(bar: &ProgressBar, text: String) {
    if let Ok(style) = ProgressStyle::with_template("  {spinner} {wide_msg} {elapsed}") {
        bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
    }
    bar.set_message(text);
    bar.enable_steady_tick(TICK);
}

pub(super) struct Live {
    screen: MultiProgress,
    running: HashMap<plain::Key, ProgressBar>,
    titles: plain::Titles,
    colour: bool,
    verbose: bool,
}

impl Live {
    pub(super) fn new(verbose: bool) -> Self {
        Self {
            screen: MultiProgress::new(),
            running: HashMap::new(),
            titles: plain::Titles::default(),
            colour: super::colour(true),
            verbose,
        }
    }

    fn start(&mut self, key: plain::Key, title: String) {
        let bar = self.screen.add(ProgressBar::new_spinner());
        spin(&bar, title);
        self.running.insert(key, bar);
    }
}

impl Reader for Live {
    fn read(&mut self, event: &Event) {
        let key = plain::key(event);
        let title = self.titles.of(event);
        match &event.what {
            What::StepStarted { .. } => return self.start(key, title.unwrap_or_default()),
            What::Waiting { what, last } => {
                // The newest reason is what there is to read; with more before it, it would be cut off.
                let reason = if last.is_empty() { format!("waiting for {what}") } else { last.clone() };
                if let Some(bar) = self.running.get(&key) {
                    bar.set_message(format!("{}{reason}", plain::place(event)));
                }
                return;
            }
            what if plain::ends(what) => {
                if let Some(bar) = self.running.remove(&key) {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        }
        if let Some(line) = plain::line(event, title.as_deref(), self.colour, self.verbose) {
            let _ = self.screen.println(line);
        }
    }
}
