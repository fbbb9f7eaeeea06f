//! Live progress on a terminal: a spinner for each running step, finished ones above it; of many steps, those that have
//! been at it for longest, and how many others there are.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Reader, plain};
use crate::event::{Event, EventKind};

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

/// So many steps have a line of their own while they run: those that have been at it for longest.
const ROWS: usize = 8;
/// In a run of more steps than this, one that went well is only counted.
const CROWD: usize = 100;

pub(super) struct Live {
    screen: MultiProgress,
    /// In the order in which they began.
    running: Vec<Running>,
    titles: plain::Titles,
    count: Count,
    /// How far the run is, while more runs than has a line.
    total: Option<ProgressBar>,
    style: plain::Style,
}

struct Running {
    key: plain::Key,
    text: String,
    began: Instant,
    /// Its line, once it has one.
    row: Option<ProgressBar>,
}

#[derive(Default)]
struct Count {
    steps: usize,
    done: usize,
    failed: usize,
}

impl Live {
    pub(super) fn new(verbose: bool) -> Self {
        Self::on(MultiProgress::new(), plain::Style { colour: super::colour(true), verbose })
    }

    fn on(screen: MultiProgress, style: plain::Style) -> Self {
        let (running, titles) = (Vec::new(), plain::Titles::default());
        Self { screen, running, titles, count: Count::default(), total: None, style }
    }

    fn end(&mut self, key: &plain::Key, failed: bool) {
        let Some(at) = self.running.iter().position(|running| running.key == *key) else { return };
        if let Some(row) = self.running.remove(at).row {
            row.finish_and_clear();
        }
        self.count.done += usize::from(!failed);
        self.count.failed += usize::from(failed);
        self.arrange();
    }

    /// Gives lines to those that have none yet, and says how many more there are.
    fn arrange(&mut self) {
        let more = self.running.len().saturating_sub(ROWS);
        if more > 0 && self.total.is_none() {
            let bar = self.screen.add(ProgressBar::new_spinner());
            spin(&bar, String::new());
            self.total = Some(bar);
        }
        for running in self.running.iter_mut().take(ROWS).filter(|running| running.row.is_none()) {
            let bar = ProgressBar::new_spinner().with_elapsed(running.began.elapsed());
            let bar = match &self.total {
                Some(total) => self.screen.insert_before(total, bar),
                None => self.screen.add(bar),
            };
            spin(&bar, running.text.clone());
            running.row = Some(bar);
        }
        let Some(total) = &self.total else { return };
        if self.running.is_empty() {
            total.finish_and_clear();
            self.total = None;
            return;
        }
        let Count { steps, done, failed } = self.count;
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        total.set_message(format!("{more} more at work; {done} of {steps} steps done{failed}"));
    }
}

impl Reader for Live {
    fn read(&mut self, event: &Event) {
        let key = plain::key(event);
        let title = self.titles.of(event);
        match &event.what {
            EventKind::RunStarted { steps, .. } => self.count.steps = *steps,
            EventKind::StepStarted { .. } => {
                let (text, began) = (title.unwrap_or_default(), Instant::now());
                self.running.push(Running { key, text, began, row: None });
                return self.arrange();
            }
            EventKind::Waiting { what, last } => {
                // The newest reason is what there is to read; with more before it, it would be cut off.
                let reason = if last.is_empty() { format!("waiting for {what}") } else { last.clone() };
                if let Some(running) = self.running.iter_mut().find(|running| running.key == key) {
                    running.text = format!("{}{reason}", plain::place(event));
                    if let Some(row) = &running.row {
                        row.set_message(running.text.clone());
                    }
                }
                return;
            }
            what if plain::ends(what) => {
                self.end(&key, matches!(what, EventKind::StepFailed { .. }));
                let well = matches!(what, EventKind::StepDone { .. });
                if well && self.count.steps > CROWD && !self.style.verbose {
                    return;
                }
            }
            _ => {}
        }
        if let Some(line) = plain::line(event, title.as_deref(), self.style) {
            let _ = self.screen.println(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    use super::*;
    use crate::event::Events;

    /// A terminal of 24 lines, and what writes to it.
    fn terminal() -> (InMemoryTerm, Events) {
        let term = InMemoryTerm::new(24, 80);
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        let live = Mutex::new(Live::on(MultiProgress::with_draw_target(target), plain::Style::default()));
        let live = Arc::new(live);
        (term, Events::new(String::new, move |event| live.lock().expect("no reader fails").read(&event)))
    }

    /// The lines without spinners and times.
    fn lines(term: &InMemoryTerm) -> Vec<String> {
        let text = term.contents();
        let line =
            |line: &str| line.trim_start().trim_start_matches(|c| "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏".contains(c)).trim().to_owned();
        text.lines().map(|text| without_time(&line(text)).trim_end().to_owned()).collect()
    }

    /// How long a step takes depends on the machine.
    fn without_time(line: &str) -> &str {
        let time = |word: &str| word.strip_suffix('s').is_some_and(|n| n.chars().all(|c| c.is_ascii_digit()));
        line.rsplit_once(' ').filter(|(_, last)| time(last)).map_or(line, |(before, _)| before)
    }

    /// The terminal comes to show this; spinners are drawn again by a thread of their own, line by line.
    #[track_caller]
    fn shows(term: &InMemoryTerm, expected: &[String]) {
        let began = Instant::now();
        loop {
            // Looked at once: what is read after it may be half drawn again.
            let found = lines(term);
            if found == expected {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(5), "{found:#?}");
            std::thread::yield_now();
        }
    }

    fn start(events: &Events, node: usize) {
        events
            .of(format!("n{node}"), "config")
            .send(EventKind::StepStarted { title: "volume openebs".into() });
    }

    #[test]
    fn of_a_thousand_nodes_those_that_take_longest_have_a_line_and_the_others_are_counted() {
        let (term, events) = terminal();
        events.send(EventKind::RunStarted {
            protocol: 1,
            verb: "apply".into(),
            steps: 1000,
            simulated: false,
        });
        (0..50).for_each(|node| start(&events, node));
        for node in 1..40 {
            events.of(format!("n{node}"), "config").send(EventKind::StepDone { changed: true });
            start(&events, node + 50);
        }
        let waiting = EventKind::Waiting { what: "the volume".into(), last: "phase waiting".into() };
        events.of("n0", "config").send(waiting);
        let failed = EventKind::StepFailed { error: "gave up".into(), hint: None };
        events.of("n40", "config").send(failed);
        let mut expected = vec!["✘ n40: volume openebs: gave up".to_owned(), "n0: phase waiting".to_owned()];
        expected.extend((41..48).map(|node| format!("n{node}: volume openebs")));
        expected.push("41 more at work; 39 of 1000 steps done, 1 failed".to_owned());
        shows(&term, &expected);
    }

    #[test]
    fn in_a_small_run_every_step_has_its_line_and_leaves_one() {
        let (term, events) = terminal();
        events.send(EventKind::RunStarted { protocol: 1, verb: "apply".into(), steps: 2, simulated: false });
        (0..2).for_each(|node| start(&events, node));
        events.of("n1", "config").send(EventKind::StepDone { changed: true });
        shows(&term, &["✔ n1: volume openebs", "n0: volume openebs"].map(str::to_owned));
        events.of("n0", "config").send(EventKind::StepDone { changed: true });
        shows(&term, &["✔ n1: volume openebs", "✔ n0: volume openebs"].map(str::to_owned));
    }
}
